"""What the steps are made of: the small training, drawings, texts and questions."""

from __future__ import annotations

import io
import math
import re

import numpy as np
import pytest
from PIL import Image

from lrc_core.allocate.llrc import row as training
from lrc_core.budget import break_even
from lrc_core.quality.paired import mcnemar, sign_test
from lrc_core.types import LinearShape
from pages.ui.learn import mask, pays, picture
from pages.ui.learn.lesson_text import lesson_text
from pages.ui.learn.quiz import figures, questions
from pages.ui.learn.steps import STEPS
from pages.ui.shared import svg


@pytest.fixture
def sigma() -> np.ndarray:
    return training.row_of(1 / np.sqrt(np.arange(1.0, 200.0)))


def test_the_film_of_a_zero_row_can_be_drawn():
    steps = training.train(training.row_of(np.zeros(40)), training.Setting())
    assert len(mask.book(np.zeros(32), steps, training.Setting()).frames) == training.STEPS


def test_the_image_is_rebuilt_by_its_directions():
    left, sigma, right = picture.decomposed()
    np.testing.assert_allclose((left * sigma) @ right, picture.matrix(), atol=1e-10)
    assert "cost as much" in picture.image_sentence(60, sigma, break_even(picture.SHAPE))
    assert "% of the cost" in picture.image_sentence(5, sigma, break_even(picture.SHAPE))


def test_pictures_are_real_png_files():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(svg.png(grey)))), grey)
    colours = svg.coloured(grey)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(svg.png(colours)))), colours)


def test_words_in_a_drawing_mean_nothing():
    assert "<b>" not in svg.text(0, 0, "<b>&")


def test_a_little_compression_costs_half_the_directions():
    layer = LinearShape("x", 0, "q", 100, 100)
    sentence = pays.saving_sentence(layer, np.ones(100), 0.1, "the output")
    assert "**45** of 100" in sentence and "**55 %** of" in sentence
    least = pays.saving_sentence(layer, np.ones(100), 0.01, "the output")  # what the step says to try
    assert "**51 %** of" in least and "first 50 % of" in least


def test_three_ways_save_the_same():
    for choice in pays.ways(0.2):
        assert sum(choice.kept) == pytest.approx(1.6)


@pytest.mark.parametrize("entry", STEPS, ids=lambda entry: entry.text)
def test_every_step_has_words_a_formula_and_a_source(entry):
    text = lesson_text(entry.text)
    assert text.title and len(text.body) > 100 and text.notice
    assert "$" in text.formula
    assert "http" in text.sources


@pytest.mark.parametrize("number", range(len(questions.SETS)))
def test_a_set_has_five_questions_with_one_right_answer_that_its_length_does_not_give_away(number):
    listed = questions.questions(number)
    assert len(listed) == 5
    for question in listed:
        assert 0 <= question.right < len(question.options) and len(set(question.options)) == 3
        assert len(question.why) > 60 and 1 <= question.step <= 8
        assert not re.search("[{}]", question.words + question.why + "".join(question.options))
        lengths = sorted(len(option) for option in question.options)
        assert lengths[-1] <= 1.3 * lengths[1] + 4
    assert len({question.right for question in listed}) > 1
    longest = [max(question.options, key=len) == question.options[question.right] for question in listed]
    assert sum(longest) <= 2
    assert sum(bool(question.figure) for question in listed) >= 2, "to read a figure is what the lesson teaches"


def test_three_questions_lost_may_be_chance_however_they_are_compared():
    """The last question of the second set: its explanation names the most favourable case."""
    assert sign_test(0, 3) == 0.25
    assert " four " in questions.questions(1)[-1].why and "50 right" in questions.questions(1)[-1].words
    answers = [1] * 50 + [0] * 50, [1] * 44 + [0] * 53 + [1] * 3
    (gained, lost), paired = (3, 6), mcnemar(*reversed(answers))
    assert paired.stderr == pytest.approx(math.sqrt(gained + lost - (gained - lost) ** 2 / 100) / 100, rel=0.006)


def test_the_answers_of_figures_are_what_their_numbers_say():
    (first, other, last), errors = zip(*figures.MEASURED.values(), strict=True)
    assert other - first < 2 * np.hypot(errors[0], errors[1]), "the first two cannot be told apart"
    assert last - other > 2 * np.hypot(errors[1], errors[2]), "the third one can"
    facts = figures.layers().facts
    even = break_even(figures.SQUARE)
    assert int(facts["small"]) < even < int(facts["large"])
    for fall, rank in zip(figures.FALLS.values(), (facts["small"], facts["large"]), strict=True):
        energy = np.cumsum(np.exp(-2 * fall * np.arange(200)))
        assert int(rank) == int(np.searchsorted(energy, 0.9 * energy[-1])) + 1
    energy = np.cumsum(np.linalg.svd(picture.matrix(), compute_uv=False) ** 2)
    facts = figures.energy().facts
    assert int(facts["right"]) == int(np.searchsorted(energy, 0.99 * energy[-1])) + 1
    assert figures.cost().facts["even"] == "750" == f"{1000 * 3000 / 4000:.0f}"


def test_what_lies_beyond_the_axis_is_marked_there_and_not_moved_onto_it():
    """Noise of a Gumbel variable is often above the axis; what lies inside is a dash."""
    assert mask._outside(10, mask.HIGH + 0.1).startswith(f"M10 {mask.TOP_LOGITS}l-6 8")
    assert mask._outside(10, mask.LOW - 5).startswith(f"M10 {mask.TOP_LOGITS + mask.HIGH_LOGITS}l-6 -8")
    assert mask._outside(10, mask.HIGH) == "" == mask._outside(10, 0.0)


def test_a_mask_is_called_the_best_only_if_it_is(sigma):
    setting, kept = training.Setting(target=4), np.arange(len(sigma)) < 4
    step = training.train(sigma, setting)[-1]
    for holes, best in ((kept, True), (np.isin(np.arange(len(sigma)), (0, 1, 2, 4)), False)):
        shown = training.MaskStep(np.where(holes, 1.0, -1.0), step.noise, step.soft, step.forces)
        assert ("no mask" in mask.outcome(sigma, shown, setting)) is best
