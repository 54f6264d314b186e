"""README and docs: links lead somewhere, commands can be read by the program, and the README stays short."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lrc_core.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
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


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_python_in_the_docs_runs(path: Path, tmp_path: Path) -> None:
    for body in blocks(path, "python"):
        exec(compile(body, str(path), "exec"), {})


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for path in PAGES:
        for target in re.findall(r"`make ([a-z-]+)", path.read_text(encoding="utf-8")):
            assert target in targets, f"{path.name} speaks of `make {target}`"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < MOST_WORDS
