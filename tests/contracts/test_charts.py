"""No chart is drawn but by the one module that gives it words and a table."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.tree import ROOT

DRAWS = {
    "plotly_chart", "altair_chart", "vega_lite_chart", "line_chart", "area_chart", "bar_chart", "scatter_chart",
    "echarts_chart", "pydeck_chart", "graphviz_chart", "pyplot", "map", "image",
}  # fmt: skip


def calls(path: Path) -> set[str]:
    """What a file calls of Streamlit, or on a container of its."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            streamlits = isinstance(node.func.value, ast.Name) and node.func.value.id == "st"
            if streamlits or node.func.attr.endswith("_chart"):
                found.add(node.func.attr)
    return found


def test_charts_are_drawn_in_one_place() -> None:
    files = [ROOT / "app.py", *(ROOT / "pages").rglob("*.py")]
    drawing = {path.name for path in files if calls(path) & DRAWS}
    assert drawing == {"charting.py"}
