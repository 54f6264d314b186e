"""Rows are tested against baselines that are stored as they are."""

from __future__ import annotations

from typing import Any

import pytest

from lrc_core.quality.rows import baselines, named


def row(
    method: str, storage: str = "pair", update: str = "", decomposition: str = "kfac", **more: Any
) -> dict[str, Any]:
    return {
        "method": method, "storage": storage, "update": update, "decomposition": decomposition, "keep_target": 0.8,
        "seed": 0, **more,
    }  # fmt: skip


PAIRS, PIVOTS = row("uniform"), row("uniform", "pivoted")
PRUNED = row("llm_pruner", decomposition="")


@pytest.mark.parametrize(
    ("tested", "rows", "expected"),
    [
        (row("llrc", "pivoted"), [PAIRS, PIVOTS], "uniform+pivoted"),
        (row("llrc"), [PAIRS, PIVOTS], "uniform"),
        (row("llrc", "pivoted"), [PIVOTS], "uniform+pivoted"),
        (row("llrc", "pivoted"), [PAIRS], "uniform"),
        (row("llrc"), [PIVOTS], None),
        (PIVOTS, [PAIRS, PIVOTS], "uniform"),
        (PAIRS, [PAIRS, PIVOTS], None),
        (PIVOTS, [PIVOTS], None),
        (PRUNED, [PIVOTS], "uniform+pivoted"),
        (PRUNED, [PIVOTS, PAIRS], "uniform"),
        (row("llrc", "pivoted"), [{**PIVOTS, "error": "broken"}], None),
        (row("llrc", "pivoted"), [row("uniform", "pivoted", update="tuned")], None),
    ],
)
def test_a_name_without_a_law_means_the_law_of_the_row(tested: Any, rows: list[Any], expected: str | None) -> None:
    found = baselines(("uniform",))(tested, [*rows, tested])
    assert {name: named(other) for name, other in found.items()} == ({"uniform": expected} if expected else {})


def test_a_name_with_a_law_means_that_one() -> None:
    rows = [PAIRS, PIVOTS, row("llrc"), row("uniform", "pivoted", update="tuned")]
    found = baselines(("uniform+pivoted", "uniform+tuned", "uniform+pair"))
    assert {name: named(other) for name, other in found(rows[2], rows).items()} == {
        "uniform+pivoted": "uniform+pivoted",
        "uniform+pair": "uniform",
    }
    tuned = row("llrc", "pivoted", update="tuned")
    assert found(tuned, [*rows, tuned])["uniform+tuned"] is rows[3]
