"""No test asserts a sentence: an error's class, a name, a number or a few words, so that prose can be mended freely."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.tree import ROOT

TESTS = ROOT / "tests"
MOST = 3
"""Plain words in a row. A command line, a formula or a list of names has signs and digits between its words."""
NO_PROSE = re.compile(r"(lrc|--\w+|export) ")
"""What starts like this is a command or code."""


def texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and content of every string below a node; what an f-string puts in counts as a number."""
    if isinstance(node, ast.JoinedStr):
        yield node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "0" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from texts(child)


def asserted(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What is compared in an ``assert`` (not its message), and patterns for messages of errors."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield from texts(node.test)
        elif isinstance(node, ast.keyword) and node.arg == "match":
            yield from texts(node.value)


def plain_words(text: str) -> int:
    """The longest run of words of letters alone, commas and full stops aside."""
    if NO_PROSE.match(text):
        return 0
    longest = now = 0
    for word in text.replace("\\", "").split():
        now = now + 1 if re.fullmatch(r"[*“'(\"]*[A-Za-z][A-Za-z’'é-]*[.,:;?!*”')\"]*", word) else 0
        longest = max(longest, now)
    return longest


def sentences(source: str) -> list[tuple[int, str]]:
    return [(line, text) for line, text in asserted(ast.parse(source)) if plain_words(text) > MOST]


@pytest.mark.parametrize("folder", ["browser", "contracts", "core", "factories", "pages"])
def test_no_sentence_is_asserted(folder: str) -> None:
    found = [
        f"{path.relative_to(TESTS)}:{line}: {text!r}"
        for path in sorted((TESTS / folder).rglob("*.py"))
        for line, text in sentences(path.read_text(encoding="utf-8"))
    ]
    assert not found, "Assert a name, a number or up to three words instead:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("assert 'There is nothing here yet.' in page", [1]),
        ("x = 1\nwith raises(RunError, match=r'the run was deleted\\.'): pass", [2]),
        ("assert page == f'{n} of the layers stay dense'", [1]),
        ("assert {'Computed and not yet cleaned'} <= labels", [1]),
        ("assert 'nothing here' in page, 'a message may be a whole sentence'", []),
        ("assert 'lrc runs film starter' in page", []),
        ("assert page == f'{n} of {m} layers' and 'keeps 0.75 of all 12 layers' in page", []),
        ("page = 'what a test writes is no assertion of prose'", []),
    ],
)
def test_what_counts_as_one(source: str, lines: list[int]) -> None:
    assert [line for line, _ in sentences(source)] == lines


def test_an_error_has_the_decimals_of_its_value():
    """Significant digits of each give ``1.07 ± 0.0097``; ``words.measured`` rounds the value to its error's place."""
    root = TESTS.parent
    found = [
        f"{path.relative_to(root)}:{number}"
        for folder in ("lrc_core", "pages")
        for path in (root / folder).rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"±[^\"']*\{[^}]*\.\w+g\}|g\}[^\"'{]*±", line)
    ]
    assert not found, "rounded each by itself"
