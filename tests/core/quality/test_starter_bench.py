"""The hints beside methods are the figures of the bench's table and of the results page."""

from __future__ import annotations

import re

import pytest

from lrc_core.names import method_label
from lrc_core.quality.starter_bench import PIVOTED_STARTER, PIVOTED_TUNED, STARTER_BENCH, TUNED_STARTER
from lrc_core.quality.tables import MARKS
from lrc_core.registry import ALLOCATORS
from lrc_core.results.starter_tables import ABLATIONS, BENCH, COMMANDS, MACHINE, shipped_table
from lrc_core.words import measured
from tests.tree import ROOT

DOCS = ROOT / "docs"


def cells(name: str) -> list[list[str]]:
    """Cells of every table row of a page."""
    lines = (DOCS / name).read_text(encoding="utf-8").splitlines()
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_every_method_has_the_figures_of_the_table() -> None:
    rows = [row for row in cells("bench_starter.md") if len(row) == 10 and row[2] in ("kfac", "")]
    names = {method_label(name): name for name in ALLOCATORS.names()}
    quality = {names[row[1]]: (float(row[6]), float(row[8])) for row in rows if row[0] == "80 %" and row[1] in names}
    took = {names[row[1]]: re.match(r"\d+", row[9]) for row in rows if row[0] == "60 %" and row[1] in names}
    assert set(STARTER_BENCH) == set(quality) == set(ALLOCATORS.names())
    for method, (gensim, c4, seconds) in STARTER_BENCH.items():
        found = took[method]
        assert (gensim, c4) == quality[method] and found is not None and seconds == int(found.group())


def test_tuned_figures_are_those_of_the_results() -> None:
    rows = {row[0]: row for row in cells("results.md") if "+ tuned" in row[0]}
    for method, figures in TUNED_STARTER.items():
        said = rows[f"{method_label(method)} + tuned"][2]
        assert tuple(float(part) for part in said.split("/")) == figures


def test_figures_of_pivots_are_those_of_the_results() -> None:
    rows = [row for row in cells("results.md") if len(row) == 4]
    names = {method_label(name): name for name in ALLOCATORS.names()}
    head = next(place for place, row in enumerate(rows) if row[0] == "80 % kept")
    table = {names[row[0]]: figures(row[2]) for row in rows[head + 2 :][: len(names)] if row[0] in names}
    assert table == PIVOTED_STARTER
    (tuned,) = (row for row in cells("results.md") if row[0] == "pivots, tuned")
    assert {"lagrangian": figures(tuned[2])} == PIVOTED_TUNED


def figures(cell: str) -> tuple[float, ...]:
    """``1.24 / 1.3``."""
    return tuple(float(part) for part in cell.strip("* ¹").split("/"))


@pytest.mark.parametrize("name", [BENCH, *ABLATIONS])
def test_shipped_tables_are_read_whole(name: str) -> None:
    """Every printed row is there, in numbers that round to what is printed; ratios to the dense model agree."""
    table = shipped_table(name)
    assert table is not None
    printed = [row for row in cells(f"{name}.md") if row[0].endswith(" %") and len(row) in (9, 10)]
    assert len(table.rows) == len(table.cells) == len(printed)
    dense = table.rows[0]
    assert dense["method"] == "dense" and all(row["method"] in ALLOCATORS for row in table.rows[1:])
    for row, said in zip(table.rows, table.cells, strict=True):
        for text, score in row["perplexity"].items():
            ratio = score["value"] / dense["perplexity"][text]["value"]
            assert score["stderr"] > 0 and ratio == pytest.approx(float(said[f"× dense, {text}"]), rel=5e-3)
            assert said[text].startswith(measured(score["value"], score["stderr"])), "no digit that the error denies"
    for row, figures in zip(table.rows, table.figures, strict=True):
        assert not any("±" in str(figure) for figure in figures.values()), "a program reads numbers"
        for text, score in row["perplexity"].items():
            found = {
                name: figures[f"{text}, perplexity{part}"]
                for name, part in (("value", ""), ("stderr", ", standard error"))
            }
            assert found == score and set(figures[f"{text}, perplexity, signs"]) <= set(MARKS)


def test_the_origin_of_shipped_tables_is_that_of_the_results() -> None:
    results = " ".join((DOCS / "results.md").read_text(encoding="utf-8").replace("\\", " ").split())
    assert MACHINE.split(",")[0] in results and MACHINE.split(", ")[1] in results
    assert all(command in results for command in COMMANDS.values()) and set(COMMANDS) == {BENCH, *ABLATIONS}
