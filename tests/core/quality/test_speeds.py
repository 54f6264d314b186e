"""Paces beside the dense model: with an error where both were timed together, none where timings cannot be compared."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lrc_core.evaluate.cost import Cost, paces
from lrc_core.figures.measured import speed_bars, speed_table
from lrc_core.quality.card import CardModel, speed_of, speed_words
from lrc_core.quality.speeds import DECODE, PREFILL, Pace, beside_its_dense, pace_of
from lrc_core.results.comparisons import records
from tests.factories.run_factory import make_card, plan_at


def row(method: str, decode: float | None, width: int = 2, **more: Any) -> dict[str, Any]:
    cost = {"params": 100, "bytes": 100 * width, "decode_tokens_per_s": decode, "prefill_tokens_per_s": decode}
    return {"method": method, "keep_target": 0.8 if method != "dense" else 1.0, "cost": {**cost, **more}}


BESIDE = {"decode": {"value": 0.75, "stderr": 0.03}}


def test_what_was_timed_together_has_an_error_and_needs_no_dense_row() -> None:
    one = row("llrc", 15.0, paces=BESIDE)
    for dense in (None, row("dense", 99.0), row("dense", 99.0, 4)):
        pace = pace_of(one, dense, DECODE)
        assert pace is not None and pace.stderr is not None
        assert (pace.value, pace.stderr) == (0.75, 0.03)
    assert pace_of(one, None, PREFILL) is None


def timing(speed: float | None, stderr: float | None) -> Cost:
    return Cost(1, 1, None, speed, None, stderr)


def test_moments_that_disagree_are_an_error_however_well_each_repeats() -> None:
    steady = paces([(timing(5.0, 0.1), timing(10.0, 0.2)), (timing(5.1, 0.1), timing(10.0, 0.2))])
    assert steady["decode"]["value"] == pytest.approx(math.sqrt(0.5 * 0.51))
    repeated = math.sqrt(0.02**2 + 0.02**2 + (0.1 / 5.1) ** 2 + 0.02**2) / 2
    assert steady["decode"]["stderr"] == pytest.approx(steady["decode"]["value"] * repeated)
    crowded = paces([(timing(9.0, 0.1), timing(10.0, 0.1)), (timing(4.0, 0.1), timing(10.0, 0.1))])
    assert abs(crowded["decode"]["value"] - 1) < 2 * crowded["decode"]["stderr"] > 0.4
    assert paces([(timing(None, None), timing(10.0, 0.1))] * 2) == {}
    assert paces([(timing(5.0, None), timing(10.0, 0.1))] * 2) == {}


def test_two_computers_are_not_compared() -> None:
    dense = row("dense", 10.0)
    assert pace_of(row("llrc", 12.0), dense, DECODE) == Pace(1.2, None)
    assert pace_of(row("llrc", 12.0, 4), dense, DECODE) is None
    assert pace_of(row("q8_0", None), dense, DECODE) is None
    rows = [dense, row("llrc", 12.0), row("strs", 12.0, 4), row("uniform", 15.0, 4, paces=BESIDE)]
    table = speed_table(rows).set_index("Model")["Decode, times dense"]
    assert sorted(value == "–" for value in table) == [False, False, True, True]
    bars = speed_bars(rows).data[2]
    assert sorted(bars.y) == [0.75, 1.2] and max(bars.error_y.array) > 0 == min(bars.error_y.array)
    alone = speed_bars(rows[1:])
    assert [len(panel.y) for panel in alone.data[1:]] == [3, 3], "without a dense model there are tokens per second"


def test_a_row_is_compared_with_the_dense_model_of_its_own_run() -> None:
    """Two comparisons stand in one table; the dense model of the newer says nothing of the older rows."""
    older = beside_its_dense([row("dense", 10.0), row("strs", 12.0), row("uniform", 9.0, 4)])
    newer = row("dense", 3.0, 4)
    for dense in (newer, row("dense", 99.0)):
        assert pace_of(older[1], dense, DECODE) == Pace(1.2, None)
    assert "dense" not in older[0]["cost"] and "dense" not in older[2]["cost"], "nor is a row of another precision"
    measured = row("llrc", 15.0, paces=BESIDE)
    assert beside_its_dense([row("dense", 10.0), measured])[1] is measured


def test_a_table_to_take_away_is_flat() -> None:
    rows = [row("dense", 10.0), row("llrc", 15.0, paces=BESIDE)]
    for one in rows:
        one |= {"decomposition": "svd", "perplexity": {}}
    for record in records(rows, str):
        assert not any(isinstance(value, dict | list) for value in record.values())
    assert record["decode_times_dense"] == 0.75 and record["decode_times_dense_stderr"] > 0


def test_the_card_says_how_it_was_timed() -> None:
    plan, dense = plan_at(make_card(), 0.8), row("dense", 10.0)
    base = CardModel("Dense model", "#000", None, speed_of(dense), dense, "evaluate-d")
    together = row("llrc", 15.0, paces=BESIDE)
    for one, words in ((together, "0.750 ± 0.030"), (row("llrc", 12.0), "≈ 1.20")):
        assert words in speed_words(CardModel("LLRC", "#000", plan, speed_of(one), one, "evaluate-x"), base)
    other = row("llrc", 12.0, 4)
    assert "times" not in speed_words(CardModel("LLRC", "#000", plan, speed_of(other), other, "evaluate-x"), base)
