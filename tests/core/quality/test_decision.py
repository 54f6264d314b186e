"""The decision picture: its frontier against brute force, its words and drawings against the rows."""

from __future__ import annotations

import json
import math
import random
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from lrc_core.charts.shapes import Dot, Label, outline
from lrc_core.figures.decision import decision_figure
from lrc_core.names import method_color, method_label
from lrc_core.quality.alternatives import SLACK
from lrc_core.quality.decision import (
    BITS,
    FORMAT,
    LOW_RANK,
    PIVOTS,
    PRUNED,
    RANKS,
    REFERENCE,
    TUNED,
    choices,
    frontier,
)
from lrc_core.quality.decision_words import BESIDE, FITTED, decision_words, loss_words
from lrc_core.quality.quantised import served_bytes
from lrc_core.quality.rows import Scores
from lrc_core.report.drawing.decision import decision_drawing, decision_legend

WHOLE = 200e6


def row(method: str, values: tuple[float, float], share: float, **more: Any) -> dict[str, Any]:
    """A measured row of two texts, errors of 2 %."""
    scores = {
        text: {"value": value, "stderr": 0.02 * value} for text, value in zip(("c4", "wiki"), values, strict=True)
    }
    return {
        "method": method, "decomposition": "kfac", "keep_target": 0.8, "keep_whole_model": share, "perplexity": scores,
        "run_id": f"run-{method}", **more,
    }  # fmt: skip


DENSE = row("dense", (20.0, 10.0), 1.0, decomposition="")
EIGHT = row("q8_0", (20.02, 10.01), 1.0, model_bytes=0.53 * WHOLE, keep_target=1.0)
FOUR = row("q4_0", (26.0, 13.0), 1.0, model_bytes=0.28 * WHOLE, keep_target=1.0)
LAGRANGIAN, TWICE = row("lagrangian", (24.2, 12.1), 0.84), row("lagrangian", (80.0, 20.0), 0.25)


@pytest.mark.parametrize("seed", range(6))
def test_the_frontier_is_what_no_other_choice_beats(seed: int) -> None:
    draw = random.Random(seed)
    rows = [DENSE] + [
        row("lagrangian", (20.0 * draw.choice((1.1, 1.5, 2, 3)), 12.0), draw.choice((0.2, 0.4, 0.6))) for _ in range(25)
    ]
    found = choices(rows, int(WHOLE))

    def beaten(one: Any) -> bool:
        return any(
            (other.size <= SLACK * one.size and other.loss < one.loss)
            or (SLACK * other.size < one.size and other.loss <= one.loss)
            for other in found
        )

    assert frontier(found) == [one for one in found if not beaten(one)]


def test_sizes_losses_and_errors_are_those_of_the_rows() -> None:
    test = {"difference": math.log(1.21), "stderr": 0.01, "p": 0.0}
    tested = {"dense": {"perplexity": {"c4": test, "wiki": test}}}
    paired = {**LAGRANGIAN, "paired": tested}
    small = row("reference", (30.0, 15.0), 0.5, name="Half", decomposition=None)
    found = {one.kind: one for one in choices([DENSE, EIGHT, LAGRANGIAN, small], int(WHOLE))}
    assert found[FORMAT].share == pytest.approx(0.53) and found[FORMAT].size == pytest.approx(0.53 * WHOLE)
    assert found[RANKS].share == pytest.approx(0.84) and found[RANKS].times == pytest.approx(1.21)
    assert found[RANKS].stderr == pytest.approx(math.hypot(0.02, 0.02) / math.sqrt(2))
    assert found[REFERENCE].times == pytest.approx(1.5) and found[REFERENCE].name == "Half"
    again = next(one for one in choices([DENSE, paired], int(WHOLE)) if one.kind == RANKS)
    assert again.stderr == pytest.approx(0.01 / math.sqrt(2))
    assert choices([EIGHT, LAGRANGIAN], int(WHOLE)) == []
    assert len(choices([DENSE, {**EIGHT, "error": "broken"}], int(WHOLE))) == 1


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({}, RANKS),
        ({"storage": "pivoted"}, PIVOTS),
        ({"update": "tuned"}, TUNED),
        ({"method": "lagrangian+tuned+pivoted", "update": "tuned", "storage": "pivoted"}, TUNED),
        ({"formats": {"Q8_0": 9}, "dense_layers": 3, "layers": 9}, BITS),
        ({"formats": {"Q8_0": 9}, "dense_layers": 9, "layers": 9}, FORMAT),
        ({"method": "llm_pruner", "decomposition": ""}, PRUNED),
    ],
)
def test_every_way_is_told_from_the_others(more: dict[str, Any], kind: str) -> None:
    found = choices([DENSE, {**LAGRANGIAN, **more}], int(WHOLE))
    assert [one.kind for one in found] == [kind, "dense"]


def test_words_take_their_numbers_from_the_rows() -> None:
    found = choices([DENSE, EIGHT, FOUR, LAGRANGIAN], int(WHOLE))
    said, by = decision_words(found), {one.row["method"]: one for one in found}
    for one in (by["q8_0"], by["lagrangian"]):
        assert one.name in said and loss_words(one) in said and f"{100 * one.share:.0f} %" in said
        number = float(re.search(r"[\d.]+", loss_words(one)).group())  # type: ignore[union-attr]
        assert number == pytest.approx(100 * (one.times - 1), abs=0.06 if number < 1 else 0.6)
    assert "quantise instead" in said and BESIDE in said
    assert decision_words(choices([DENSE, EIGHT], int(WHOLE))) == ""


def test_of_ranks_of_one_size_the_best_stand_for_them() -> None:
    worse = row("uniform", (90.0, 60.0), 0.84)
    said = decision_words(choices([DENSE, EIGHT, FOUR, worse, LAGRANGIAN], int(WHOLE)))
    assert "Lagrangian" in said and "Uniform" not in said


def test_ranks_win_only_where_no_format_undoes_them() -> None:
    below = decision_words(choices([DENSE, EIGHT, FOUR, TWICE], int(WHOLE)))
    assert "28 %" in below and "quantise instead" in below and "25 %" in below
    good = row("lagrangian", (20.001, 10.001), 0.5)
    assert "quantise instead" not in decision_words(choices([DENSE, EIGHT, FOUR, good], int(WHOLE)))
    better = row("lagrangian", (21.0, 10.5), 0.4)
    said = decision_words(choices([DENSE, EIGHT, FOUR, better], int(WHOLE)))
    assert "quantise instead" not in said and "chance" not in said
    assert "chance" in decision_words(choices([DENSE, EIGHT, FOUR, row("lagrangian", (25.9, 13.0), 0.4)], int(WHOLE)))


@pytest.mark.parametrize("kept", [True, False])
def test_ranks_and_formats_are_compared_window_by_window_where_those_are_kept(kept: bool, tmp_path: Path) -> None:
    """What both lose more in a hard window says nothing of their difference."""
    hard = [300.0, 200.0, 100.0, 250.0, 150.0]
    losses = {"run-q8_0": hard, "run-lagrangian": [loss * 1.02 for loss in hard]}  # of the dense model none are left
    for name, found in losses.items() if kept else ():
        windows = {"losses": found, "tokens": [100] * 5, "digest": "x"}
        (tmp_path / name).mkdir()
        content = {"windows": {"c4": windows, "wiki": windows}, "tasks": {}}
        (tmp_path / name / "scores.json").write_text(json.dumps(content))
    near = row("lagrangian", (20.4, 10.2), 0.84)
    said = decision_words(choices([DENSE, EIGHT, FOUR, near], int(WHOLE), Scores(tmp_path)))
    assert "quantise instead" in said and ("chance" in said) != kept


def test_what_ranks_lose_by_chance_is_not_held_against_them() -> None:
    """Fewer bytes are a reason to quantise, a difference within errors is none."""
    near, far = row("lagrangian", (20.2, 10.1), 0.84), row("strs", (20.1, 10.05), 0.9)
    said = decision_words(choices([DENSE, EIGHT, FOUR, near, far], int(WHOLE)))
    assert "quantise instead" in said and "chance" in said and "84 %" in said and "90 %" in said
    assert "chance" not in decision_words(choices([DENSE, EIGHT, FOUR, LAGRANGIAN], int(WHOLE)))
    unknown = row("lagrangian", (24.2, 12.1), 0.84)
    for score in unknown["perplexity"].values():
        del score["stderr"]
    assert "chance" in decision_words(choices([DENSE, EIGHT, FOUR, unknown], int(WHOLE)))


@pytest.mark.parametrize(("times", "update", "said"), [(0.9, "tuned", True), (0.9, None, False), (1.1, "tuned", False)])
def test_a_plan_better_than_the_dense_model_is_not_left_unexplained(
    times: float, update: str | None, said: bool
) -> None:
    """Fitting of its factors, which the dense model did not have; never the loss of ranks."""
    plan = row("lagrangian", (20.0 * times, 10.0 * times), 0.9, **({"update": update} if update else {}))
    assert (FITTED in decision_words(choices([DENSE, EIGHT, plan], int(WHOLE)))) == said


def test_without_formats_it_says_how_to_get_them() -> None:
    said = decision_words(choices([DENSE, LAGRANGIAN], int(WHOLE)))
    assert "lrc compare" in said and "--formats" in said and "quantise instead" not in said


def test_other_models_are_told_of_by_what_they_are_worth() -> None:
    """One that nothing beats, one that is beaten, and a larger one, which is no way to a smaller model."""
    others = {
        "Good": row("reference", (20.4, 10.2), 0.5, name="Good", decomposition=None),
        "Poor": row("reference", (60.0, 30.0), 0.6, name="Poor", decomposition=None),
        "Large": row("reference", (15.0, 7.0), 1.4, name="Large", decomposition=None),
    }
    for formats in ([EIGHT, FOUR], []):
        found = choices([DENSE, LAGRANGIAN, *formats, *others.values()], int(WHOLE))
        said = decision_words(found)
        by_name = {one.name: one for one in found}
        good, poor = by_name["Good"], by_name["Poor"]
        rival = min((one for one in found if one.size <= SLACK * poor.size), key=lambda one: one.loss)
        of_good, of_poor = (sentence for sentence in said.split(". ") if "smaller model" in sentence)
        assert all(word in of_good for word in ("Good", "50 %", loss_words(good)))
        assert all(word in of_poor for word in ("Poor", "60 %", loss_words(poor), rival.name, loss_words(rival)))
        assert "Large" not in said
        low, high = decision_figure(found).layout.xaxis.range
        assert all(low <= one.share <= high for one in found)


def test_figure_and_drawing_show_every_choice_once() -> None:
    small = row("reference", (30.0, 15.0), 0.5, name="Half", decomposition=None)
    found = choices([DENSE, EIGHT, FOUR, LAGRANGIAN, TWICE, small], int(WHOLE))
    figure = decision_figure(found)
    line, *groups = (trace for trace in figure.data if trace.x[0] is not None)
    assert sorted(x for group in groups for x in group.x) == pytest.approx([one.share for one in found])
    assert list(line.x) == pytest.approx([one.share for one in frontier(found)])
    errors = {x: error for group in groups for x, error in zip(group.x, group.error_y.array, strict=True)}
    assert all(errors[one.share] == pytest.approx(one.times_error) for one in found)
    drawing = decision_drawing(found)
    dots = [shape for shape in drawing.shapes if isinstance(shape, Dot)]
    assert len(dots) == len(found) and all(0 <= dot.x <= drawing.width and 0 <= dot.y <= drawing.height for dot in dots)
    keyed = decision_drawing(found, lambda one: (one.row["method"], f"{one.share:g}")).shapes
    switched = {(shape.key, shape.target) for shape in keyed if isinstance(shape, Dot)}
    assert switched == {(one.row["method"], f"{one.share:g}") for one in found}
    assert {one.kind for one in found if one.kind in LOW_RANK} == {RANKS}


def test_every_shape_and_every_colour_of_a_picture_is_in_its_legend() -> None:
    """And each way has its name beside it, for those who see no colours and for paper."""
    kinds = [
        row("lagrangian", (25.0, 12.0), 0.8, storage="pivoted"),
        row("lagrangian", (23.0, 11.0), 0.8, storage="pivoted", update="tuned"),
        row("uniform", (90.0, 60.0), 0.8),
        row("reference", (30.0, 15.0), 0.5, name="Half", decomposition=None),
    ]
    found = choices([DENSE, EIGHT, FOUR, LAGRANGIAN, *kinds], int(WHOLE))
    drawing, legend = decision_drawing(found), decision_legend(found)
    dots = [shape for shape in drawing.shapes if isinstance(shape, Dot)]
    ways, methods = ([one for one in legend if (one.symbol == "bar") is of] for of in (False, True))
    assert {dot.symbol for dot in dots} == {one.symbol for one in ways} and len(ways) == len(
        {one.kind for one in found}
    )
    assert {one.color for one in methods} == {method_color("lagrangian"), method_color("uniform")}
    assert len({outline(one.symbol, 0, 0, 9) for one in legend}) == len(ways) + 1, "no two shapes alike"
    written = [shape.text for shape in drawing.shapes if isinstance(shape, Label)]
    for name in ("Half", "Q8_0", "Q4_0", method_label("uniform"), method_label("lagrangian")):
        assert name in written
    figure = decision_figure(found)
    entries = {trace.name: trace for trace in figure.data if trace.showlegend is not False}
    assert {one.label for one in legend} < set(entries)
    assert all(entries[one.label].line.color == one.color for one in methods)


def test_names_beside_points_lie_on_no_point_and_on_no_other_name() -> None:
    near = [row("lagrangian", (20.0 + step / 9, 9.0), 0.8, decomposition=f"d{step}") for step in range(9)]
    drawing = decision_drawing(choices([DENSE, *near], int(WHOLE)))
    named = [shape for shape in drawing.shapes if isinstance(shape, Label) and "Lagrangian" in shape.text]
    assert 0 < len(named) < len(near)
    assert all(abs(a.y - b.y) > 9 or abs(a.x - b.x) > 50 for a, b in combinations(named, 2))


def test_a_size_does_not_depend_on_the_computer_that_measured() -> None:
    in_32_bits, in_16_bits = ({"method": "llrc", "cost": {"params": 100, "bytes": width * 100}} for width in (4, 2))
    assert served_bytes(in_32_bits) == served_bytes(in_16_bits) == 200
    assert served_bytes({**in_32_bits, "model_bytes": 170}) == 170
    assert served_bytes({"method": "llrc"}) is None and served_bytes({"cost": {"bytes": 400}}) is None
