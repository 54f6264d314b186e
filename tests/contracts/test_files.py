"""Files are renamed and locked in one module, whatever the kind of file: writing aside by hand is easily done wrong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.test_imports import ROOT, imports_of

ALLOWED = ROOT / "lrc_core" / "files.py"
FOLDERS = [ROOT / name for name in ("lrc_core", "pages", "integrations")]
MODULES = sorted({*(path for folder in FOLDERS for path in folder.rglob("*.py")), ROOT / "app.py"} - {ALLOWED})


def moves_in(source: str) -> Iterator[int]:
    """Lines that rename a file or a folder, whichever way.

    ``Path.replace`` and ``Path.rename`` take one place; ``str.replace`` takes two, and ``dataclasses.replace`` and a
    frame's ``rename`` name what they change.
    """
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        by_module = (owner, node.func.attr) in {
            ("os", "replace"),
            ("os", "rename"),
            ("os", "renames"),
            ("os", "link"),
            ("shutil", "move"),
        }
        by_path = node.func.attr in ("replace", "rename") and len(node.args) == 1 and not node.keywords
        if by_module or by_path:
            yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_module_renames_or_locks(path: Path) -> None:
    lines = list(moves_in(path.read_text(encoding="utf-8")))
    assert not lines, f"{path}:{lines[0]} renames by hand: use `replacing`, `write_…` or `move` of lrc_core.files"
    roots = {name.split(".")[0] for name in imports_of(path)}
    assert not roots & {"fcntl", "msvcrt", "filelock", "portalocker"}, f"{path}: use the locks of lrc_core.files"


@pytest.mark.parametrize(
    "line", ["a.replace(b)", "p.with_name('x').rename(q)", "os.replace(a, b)", "os.rename(a, b)", "shutil.move(a, b)"]
)
def test_every_way_of_renaming_is_seen(line: str) -> None:
    assert list(moves_in(line)) == [1]


@pytest.mark.parametrize("line", ["s.replace('a', 'b')", "replace(status, state='done')", "t.rename(columns=f)"])
def test_what_only_sounds_like_it_is_not(line: str) -> None:
    assert not list(moves_in(line))
