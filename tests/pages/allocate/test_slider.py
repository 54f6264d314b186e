"""What the slider is given: the figures that follow from each rate, and the marks on its track."""

from __future__ import annotations

from lrc_core import words
from lrc_core.results import series as rate_plans
from lrc_core.results.series import LARGEST_RATE
from pages.ui.allocate import slider as ratedrag
from pages.ui.allocate.slider import SliderPanel
from tests.factories import run_factory


def test_figures_are_those_of_the_budget(card):
    figures = ratedrag.figures(card)
    gone = round(0.3 * card.params_linear)
    assert figures["linear"][29] == words.count(card.params_linear - gone)
    assert figures["total"][29] == words.count(card.params_total - gone)
    assert figures["size"][29] == words.data_size(2 * (card.params_total - gone))
    assert figures["shrunk"][29] == words.percent(gone / card.params_total)
    assert {len(figures[key]) for key in ("linear", "total", "size", "shrunk")} == {LARGEST_RATE}


def test_the_largest_recorded_rate_and_the_limit_are_marked(card):
    series = rate_plans.series_of(card.layers, (5, 30), [run_factory.plan_at(card, keep).full_ranks(card.layers)
                                                         for keep in (0.95, 0.7)])  # fmt: skip
    marks = ratedrag.marks_of(card, [SliderPanel("learned", "LLRC", "", "", "recorded at", series)])
    assert [30, "▲", "recorded up to 30 %"] in marks
