"""Downloads have names for people: one place makes them."""

from __future__ import annotations

import ast

from tests.tree import ROOT

PAGES = ROOT / "pages"


def downloads() -> list[tuple[str, ast.Call]]:
    """Every download button of the pages, with its place."""
    return [
        (f"{path.relative_to(PAGES)}:{call.lineno}", call)
        for path in PAGES.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "download"
    ]


def test_no_download_spells_its_name_itself() -> None:
    """The third argument comes from :func:`~pages.ui.shared.naming.file_name`, in place or by a name bound to it."""
    found = downloads()
    assert len(found) >= 10
    literal = [place for place, call in found if not isinstance(call.args[2], ast.Call)]
    assert not literal
