"""README and docs: links lead somewhere, commands can be read by the program, and the README stays short."""

from __future__ import annotations

import re
import shlex
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from lrc_core import __version__
from lrc_core.cli.parser import build_parser
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS, MethodEntry
from lrc_core.settings import fields_of
from tests.tree import ROOT

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "mattered").glob("*.md")),
]
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]+)(?:#[^)]*)?\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
MOST_WORDS = 1500


def blocks(path: Path, language: str = "") -> list[str]:
    return [body for kind, body in BLOCK.findall(path.read_text(encoding="utf-8")) if kind == language]


def commands() -> list[tuple[str, str]]:
    """Lines of code blocks that are whole commands, not those with brackets or capitals for what a user puts in."""
    found = []
    for path in PAGES:
        for body in blocks(path):
            for line in body.replace("\\\n", " ").splitlines():
                words = (
                    re.split(r"\s{2,}|\s#", line.strip().removeprefix(".venv/bin/"))[0] if "\\" not in line else line
                )
                if words.startswith("lrc ") and not re.search(r"[\[\]|]|\.\.\.|[A-Z]{3,}", words):
                    found.append((path.name, words))
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_can_be_read(page: str, line: str) -> None:
    build_parser().parse_args(shlex.split(line)[1:])  # exits where it cannot


@pytest.mark.parametrize("path", [path for path in PAGES if path.name != "README.md"], ids=lambda path: path.name)
def test_python_in_the_docs_runs(path: Path, tmp_path: Path) -> None:
    """The README's computes, and has a test of its own (tests/core/test_examples.py)."""
    for body in blocks(path, "python"):
        exec(compile(body, str(path), "exec"), {})


def method_pages() -> dict[str, str]:
    """What `make docs` makes of the registry."""
    spec = spec_from_file_location("method_pages", ROOT / "docs" / "method_pages.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module := module_from_spec(spec))
    return module.method_pages()  # type: ignore[no-any-return]


@pytest.mark.parametrize("entry", [*ALLOCATORS, *DECOMPOSITIONS], ids=lambda entry: entry.name)
def test_every_method_has_a_page_with_all_its_settings(entry: MethodEntry) -> None:
    page = method_pages()[entry.name]
    assert page.startswith(f"# {entry.label}\n") and entry.summary in page
    for field in fields_of(entry.settings_class):
        assert f"\n| `{field.name}` | `{field.default}` |" in page and field.label in page
    for overrides in entry.presets.values():
        assert all(re.search(rf"\| `{name}` .*`{re.escape(str(value))}`", page) for name, value in overrides.items())
    for line in BLOCK.findall(page)[0][1].splitlines():
        build_parser().parse_args(shlex.split(line)[1:])
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (5, 2 + len(entry.presets)) for line in rows)


def test_what_mattered_is_on_the_page_of_a_method() -> None:
    pages = method_pages()
    written = sorted((ROOT / "docs" / "mattered").glob("*.md"))
    assert written and {path.stem for path in written} <= pages.keys()
    assert all(path.read_text(encoding="utf-8").strip() in pages[path.stem] for path in written)


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for path in PAGES:
        for target in re.findall(r"`make ([a-z-]+)", path.read_text(encoding="utf-8")):
            assert target in targets, f"{path.name} speaks of `make {target}`"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < MOST_WORDS


def test_one_version_in_the_citation_and_the_package() -> None:
    said = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert said is not None and said[1] == __version__
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_papers_of_the_citation_are_those_of_methods() -> None:
    cited = re.findall(r"arXiv:(\d{4}\.\d{5})", (ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    sources = " ".join(entry.source for entry in ALLOCATORS)
    assert cited and all(number in sources for number in cited)
