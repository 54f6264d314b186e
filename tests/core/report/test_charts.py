"""Charts of the report: what their readings say, and that their marks and ticks lie where they should."""

from __future__ import annotations

import math

import pytest

from lrc_core import words
from lrc_core.budget import dense_ranks, layer_params, whole_rank_of_share
from lrc_core.charts.ticks import log_ticks, nice_ticks
from lrc_core.formats.sizes import layer_states
from lrc_core.report.drawing import charts, heatmap
from lrc_core.types import ModelCard
from tests.factories import run_factory


def test_reading_of_a_heatmap_follows_its_plan(card: ModelCard) -> None:
    wide = run_factory.make_card(width=480)  # where rounding to whole ranks hardly matters
    assert "nearly the same" in heatmap.plan_sentence(run_factory.plan_at(wide, 0.8, "uniform").states(wide.layers))
    plan = run_factory.plan_at(card, 0.8)
    states = plan.states(card.layers)
    words = heatmap.plan_sentence(states)
    assert (f"{len(plan.dense)} of {len(card.layers)} layers" if plan.dense else "No layer") in words
    sums = {kind: sum(one.kept for one in states if one.layer.kind == kind) for kind in card.kinds}
    assert f"{max(sums, key=sums.__getitem__).rsplit('.')[-1]} keeps most" in words
    drawing = heatmap.rank_heatmap(card, plan)
    cells = [corner for shape in drawing.shapes if hasattr(shape, "corners") for corner in shape.corners]
    assert len(set(cells)) == len(card.layers)


def test_a_third_of_the_depth_in_which_nothing_can_be_compressed_is_passed_over() -> None:
    few = run_factory.make_card(blocks=6)
    states = layer_states(few.layers, {one.name: whole_rank_of_share(one, 0.9 - 0.1 * one.block) for one in few.layers})
    assert "blocks 4 to 5" in heatmap._depth([state for state in states if state.layer.block > 1])


@pytest.mark.parametrize(("blocks", "dense"), [(3, 1), (3, 2), (4, 0), (9, 5)])
def test_sentences_on_plans_of_few_blocks_are_english(blocks: int, dense: int) -> None:
    few = run_factory.make_card(blocks=blocks)
    ranks = {layer.name: whole_rank_of_share(layer, 0.9 - 0.1 * layer.block) for layer in few.layers}
    depth = heatmap._depth(layer_states(few.layers, ranks))
    assert " 0 to 0" not in depth and ("block 0 keeps" in depth) == (blocks < 6)
    said = words.stay_dense(dense, len(few.layers))
    assert ("stays" in said) == (dense < 2)
    assert words.how_many(1, "layer") == "1 layer" and words.how_many(2, "layer") == "2 layers"


def test_a_block_keeps_a_share_of_its_parameters() -> None:
    """The same plan kept 55.4 % of a block on one page and 52 % on another: a mean over layers of unequal size."""
    few = run_factory.make_card(blocks=3)
    first = [layer for layer in few.layers if not layer.block]
    big = max(first, key=lambda layer: layer.params)
    states = layer_states(few.layers, {**dense_ranks(few.layers), big.name: 1})
    share = 1 - (big.params - layer_params(big, 1)) / sum(layer.params for layer in first)
    assert f"block 0 keeps {round(100 * share)} %" in heatmap.plan_sentence(states)


@pytest.mark.parametrize(("low", "high"), [(20.5, 190.0), (37.9, 1718.0), (3.0, 3.1), (1.0, 2_000_000.0)])
def test_ticks_enclose_what_is_drawn(low: float, high: float) -> None:
    for ticks in (log_ticks(low, high), nice_ticks(low, high)):
        assert ticks[0] <= low * 1.0001 and ticks[-1] >= high * 0.9999 and ticks == sorted(ticks)


def test_marks_lie_inside_their_chart() -> None:
    points = tuple(charts.ChartPoint(200 + 20 * n, 30.0 * 2**n, 29.0 * 2**n, "20", "tip") for n in range(4))
    drawing = charts.curves([charts.PointSeries("llrc", "#009e73", "circle", points)], "x", "y", (21.0, "dense"))
    places = [(shape.x, shape.y) for shape in drawing.shapes if hasattr(shape, "tip")]
    places += [point for shape in drawing.shapes if isinstance(shape, charts.Path) for point in shape.points]
    for x, y in places:
        assert 0 <= x <= drawing.width and 0 <= y <= drawing.height and math.isfinite(x + y)
