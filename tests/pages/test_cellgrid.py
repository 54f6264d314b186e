"""The colour bar of the heatmap of layers: round figures, and break-even where it means something."""

from __future__ import annotations

import itertools
import math

import pytest

from lrc_core.figures.common import Scale
from pages.ui.shared.cellgrid import Limits, ticks_of


@pytest.mark.parametrize("ends", [(0.22, 1.09), (0.0, 1.0), (-0.33, 0.33), (12.0, 412.0), (0.001, 0.0072)])
def test_even_scales_have_round_ticks_within_their_ends(ends):
    ticks = [place for place, _ in ticks_of(Limits(*ends), Scale("x"))]
    assert 3 <= len(ticks) <= 6 and all(ends[0] - 1e-9 <= tick <= ends[1] + 1e-9 for tick in ticks)
    steps = {round((b - a) / (ends[1] - ends[0]), 6) for a, b in itertools.pairwise(ticks)}
    assert len(steps) == 1
    step = ticks[1] - ticks[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1.0, 2.0, 2.5, 5.0, 10.0)


@pytest.mark.parametrize("ends", [(0.00229, 3.65), (0.5, 4.0), (1e-9, 1.0), (3.1, 3.4)])
def test_logarithmic_scales_have_ticks_a_person_knows(ends):
    """Step 5 wrote 3.65, 0.578, 0.0915, 0.0145 and 0.00229."""
    ticks = [place for place, _ in ticks_of(Limits(*ends, log=True), Scale("nats"))]
    assert 3 <= len(ticks) <= 6 and all(ends[0] * 0.99 <= tick <= ends[1] * 1.01 for tick in ticks)
    if ends[1] / ends[0] > 5:
        assert {f"{tick:e}"[:8] for tick in ticks} <= {"1.000000", "2.000000", "5.000000"}


def test_break_even_is_on_the_bar_where_it_lies_within_its_ends():
    scale = Scale("share of break-even", ".0%", even=1.0)
    assert (1.0, "100 %") in ticks_of(Limits(0.22, 1.09), scale)
    assert all(place < 1 for place, _ in ticks_of(Limits(0.1, 0.9), scale))
