"""The presenter: its slides come out of runs, and say what those say."""

from __future__ import annotations

import html
import math
import re
from dataclasses import replace

import pytest

from lrc_core import words
from lrc_core.names import method_label
from lrc_core.quality.decision import Choice
from lrc_core.quality.rows import mean_loss
from lrc_core.results import comparisons
from lrc_core.results.answers import plan_key
from lrc_core.results.archive import archive
from lrc_core.runs.spec import ModelRef
from pages.ui.present.closing import decision
from pages.ui.present.glossary import glosses
from pages.ui.present.slides import FILM, learning_words, slides_of
from pages.ui.present.story import story_of
from tests.factories import run_factory, table_factory
from tests.pages.conftest import text_of


def deck_of(app):
    """The component's data; None when there is no deck."""
    found = app.get("bidi_component")
    return found[0].proto if found else None


@pytest.fixture
def told(store, card):
    """A story with everything in it."""
    run_factory.spectra_run(store, card)
    run_factory.allocate_run(store, card, keep=0.7)
    table_factory.compare_run(store, card)
    return story_of(ModelRef())


def test_without_runs_it_says_what_slides_are_made_of(open_page):
    text = text_of(open_page("present"))
    assert "Nothing to present" in text


def test_the_page_has_a_deck_and_no_sidebar(open_page, told):
    app = open_page("present")
    assert deck_of(app) is not None
    assert not app.sidebar.get("page_link") and not app.sidebar.get("button")


def test_every_part_of_a_whole_story_is_a_slide(told):
    keys = [slide.key for slide in slides_of(told)]
    assert keys[:3] == ["question", "idea", "where"]
    assert keys[-4:] == ["card", "not_for", "conclusion", "reproduce"]
    assert {FILM, "plan", "comparison"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_what_is_not_there_is_left_out(store, card):
    run_factory.spectra_run(store, card)
    assert [slide.key for slide in slides_of(story_of(ModelRef()))] == ["question", "idea", "where", "reproduce"]


def test_damaged_runs_and_plans_of_other_layers_leave_the_other_slides(open_page, store, card):
    whole = run_factory.allocate_run(store, card, keep=0.7)
    run_factory.allocate_run(store, run_factory.make_card(blocks=6), keep=0.8)
    assert {slide.key for slide in slides_of(story_of(ModelRef()))} >= {"question", "reproduce"}
    assert deck_of(open_page("present")) is not None
    for name in ("plan.json", "card.json"):
        (whole.path / name).write_bytes(b"[5]")
    run_factory.spectra_run(store, card)
    assert deck_of(open_page("present")) is not None


def test_every_figure_can_be_traced(told):
    for slide in slides_of(told):
        assert slide.key == "question" or slide.runs, slide.key
        for run_id in slide.runs:
            assert archive().open(run_id) is not None or run_id in str(told.rows), (slide.key, run_id)


def test_the_best_row_is_the_one_of_lowest_perplexity_and_the_sentence_names_it(told):
    assert told.best is not None
    assert mean_loss(told.best) == min(mean_loss(row) for row in told.others)
    comparison = next(slide for slide in slides_of(told) if slide.key == "comparison")
    assert comparison.reading.startswith(f"{told.best_label} loses least")
    best, second = told.others[:2]
    for text in told.texts:
        one, other = best["perplexity"][text], second["perplexity"][text]
        relative = (score["stderr"] / score["value"] for score in (one, other))  # no window of these rows is kept
        gap = math.log(other["value"] / one["value"]) / math.hypot(*relative)
        assert f"{gap:.1f} times" in comparison.reading and text in comparison.reading


def test_the_bars_have_whiskers_and_a_table(told):
    shown = told.bars(told.texts[0])
    assert shown.count('class="whisker"') == sum(bool(row["perplexity"][told.texts[0]]["stderr"]) for row in told.rows)
    assert "<table>" in shown and "aria-label=" in shown


def test_another_rate_tells_of_the_nearest_measured_one(told):
    (group,) = comparisons.groups(ModelRef())
    keeps = comparisons.keeps_of(group, "whitened")
    assert len(keeps) > 1
    for keep in keeps:
        assert story_of(ModelRef(), keep - 0.01).keep == keep


def test_the_users_own_comparison_comes_before_the_sample(samples, store, card):
    run_factory.spectra_run(samples, card)
    table_factory.compare_run(samples, card)
    assert story_of(ModelRef()).sample
    table_factory.compare_run(store, card)
    assert not story_of(ModelRef()).sample


def test_a_model_of_which_nothing_is_known_is_told_of_by_the_sample(samples, card):
    run_factory.spectra_run(samples, card)
    assert story_of(ModelRef("owner/other")).ref == ModelRef()


def test_no_words_of_a_run_become_markup(told):
    bad = {**told.rows[0], "sample": {"prompt": "<img src=x onerror=alert(1)>", "text": "<script>alert(2)</script>"}}
    story = replace(told, rows=(bad, *told.rows[1:]))
    body = "".join(slide.body for slide in slides_of(story))
    assert "<script" not in body and "<img" not in body


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (38.74, 1.93, "38.7 ± 1.9"),
        (561.4, 239.8, "560 ± 240"),
        (21.066, 0.996, "21.1 ± 1.0"),
        (0.5132, 0.0123, "0.513 ± 0.012"),
        (1134.0, 584.0, "1,130 ± 580"),
        (12.345, None, "12.3"),
    ],
)
def test_figures_are_rounded_to_what_the_error_allows(value, error, said):
    assert words.measured(value, error) == said


def test_what_a_name_says_besides_the_method_is_explained():
    """A name such as this stands on every slide of the shipped story, and the advice speaks of formats."""
    said = "Lagrangian + tuned, pivots, Two-sided (K-FAC) loses more than Q8_0 alone: quantise instead."
    assert {"pivots", "tuned", "K-FAC", "Q8_0", "quantise", "Lagrangian"} <= {term for term, _ in glosses(said)}


def test_both_speeds_stand_on_the_card_and_how_they_were_measured(told):
    card = next(slide for slide in slides_of(told) if slide.key == "card")
    assert card.body.count("reads a prompt") == card.body.count("It writes ") == 2
    assert "measured once" in card.body


def test_what_was_timed_beside_the_dense_model_stands_as_a_pace_on_the_card(told):
    """Tokens a second of another run's dense model are nothing to divide by."""
    paces = {"decode": {"value": 0.645, "stderr": 0.033}, "prefill": {"value": 0.858, "stderr": 0.013}}
    best = {**told.best, "cost": {**told.best["cost"], "paces": paces}}
    card = next(slide for slide in slides_of(replace(told, best=best)) if slide.key == "card")
    assert "0.645 ± 0.033 times" in card.body and "0.858 ± 0.013 times" in card.body
    assert card.body.count("the dense pace") == 2
    assert card.body.count("measured once") == 1, "the dense model itself"


def test_a_film_that_ends_elsewhere_says_so(told):
    for keep in (0.8, 0.7):
        story = story_of(ModelRef(), keep)
        film = next(slide for slide in slides_of(story) if slide.key == FILM)
        assert bool(film.reading) == (abs(story.keep - 0.7) > 1e-6)


def test_a_film_of_another_run_is_not_taken_for_the_plans_even_at_its_size(told):
    """No room should believe that the film made the plan that follows it where another run did."""
    view = told.learned()
    own = replace(told, keep=view.spec.keep, source=view.id)
    plan = replace(told.plan, method="lagrangian", origin={"run_id": "allocate-other"})
    foreign = replace(own, plan=plan, source="", best={**told.best, "allocate_run_id": "allocate-other"})
    assert not learning_words(own, view)
    assert method_label("lagrangian") in learning_words(foreign, view)


def test_no_take_home_is_without_a_measured_loss_and_its_error(told):
    """One quick measurement without the dense model made "20 % of the block linears can go" of a perplexity of 122."""
    conclusion = next(slide for slide in slides_of(told) if slide.key == "conclusion")
    first = html.unescape(re.sub(r"<[^>]+>", "", conclusion.body.split("</li>")[0]))
    for text in told.texts:
        for row in (told.best, told.dense):
            assert f"{words.measured(row['perplexity'][text]['value'], row['perplexity'][text]['stderr'])}" in first
    assert "dense model" in first and re.search(r"\d % smaller", first)
    alone = replace(told, rows=tuple(row for row in told.rows if row["method"] != "dense"))
    (said,) = re.findall("<li>(.*?)</li>", next(s for s in slides_of(alone) if s.key == "conclusion").body)
    assert not re.search(r"\d", said) and "unknown" in said


def test_no_term_on_a_slide_is_without_its_meaning(told):
    """Acronyms of methods, names of texts and layers, and every measure."""
    for slide in slides_of(told):
        said = re.sub(r"<details.*?</details>|<[^>]*>", " ", f"{slide.title} {slide.body} {slide.reading}", flags=re.S)
        explained = {term for term, _ in slide.terms}
        labels = {method_label(str(row["method"])) for row in told.others}
        for term in {"perplexity", "±", "gensim", "c4", "break-even", "block linears", *labels}:
            if slide.key != "reproduce" and re.search(rf"(?<!\w){re.escape(term)}(?!\w)", said):
                assert term in explained, (slide.key, term)
        assert all(len(meaning) > 10 for _, meaning in slide.terms)
        assert slide.notes, slide.key


def test_who_should_not_use_it_is_told_in_figures_of_this_model(told):
    slide = next(slide for slide in slides_of(told) if slide.key == "not_for")
    best, dense = told.best["cost"], told.dense["cost"]
    for name in ("decode_tokens_per_s", "prefill_tokens_per_s"):
        assert f"{best[name] / dense[name]:.2f} times" in slide.body
    assert "none was measured" in slide.body


def test_a_plan_stands_beside_a_measured_format_in_bytes_of_the_same_model(told):
    whole = 2 * told.card.params_total
    form = Choice({"method": "q8_0"}, "Q8_0 alone", "format", 0.63, 0.63 * whole, 0.0023, 0.0003, ("gensim",))
    best = {**told.best, "model_bytes": round(0.84 * whole)}
    dense = {**told.dense, "model_bytes": whole}
    rows = tuple(dense if row is told.dense else best if row is told.best else row for row in told.rows)
    slide = next(s for s in slides_of(replace(told, rows=rows, best=best, decided=(form,))) if s.key == "not_for")
    assert "37 %" in slide.body and "16 %" in slide.body and "50 %" not in slide.body


def test_what_has_to_be_known_of_a_format_stands_beside_its_point(told):
    packed = {"method": "q8_0", "warnings": ["Q8_0: these weights were packed before."]}
    point = Choice(packed, "Q8_0 alone", "format", 0.63, 1e6, 0.0023, 0.0003, ("gensim",))
    dense = Choice(dict(told.dense), "Dense model", "dense", 1.0, 2e6, 0.0, None, ("gensim",))
    slide = decision(replace(told, decided=(point, dense)))
    assert "packed before" in slide.body


def test_an_answer_that_loops_is_said_to(told):
    looping = {**told.best, "sample": {"prompt": "The sea", "text": "it's wide, wide. It's " * 10}}
    rows = tuple(looping if row is told.best else row for row in told.rows)
    slide = next(s for s in slides_of(replace(told, rows=rows, best=looping)) if s.key == "answers")
    assert "2 different words of 40" in slide.reading, "a comma and a capital make no other word"


@pytest.mark.parametrize(("temperature", "whole"), [(0.0, True), (0.7, True), (0.0, False)])
def test_a_question_that_all_shown_were_asked_takes_the_place_of_a_continuation(told, store, temperature, whole):
    """Drawn texts show one chance among many, and half an answer is no comparison."""
    story = replace(told, rows=tuple({**row, "allocate_run_id": f"plan-{n}"} for n, row in enumerate(told.rows)))
    shown = (story.dense, story.others[0], story.others[-1])
    texts = {plan_key(row): f"{row['method']} answers" for row in shown}
    if not whole:
        texts.popitem()
    run_factory.question_run(store, texts, temperature=temperature)
    slide = next(s for s in slides_of(story) if s.key == "answers")
    assert [text in slide.body for text in ("Why?", *texts.values())] == [whole and not temperature] * (len(texts) + 1)


def test_every_comparison_that_is_told_can_be_made_again(told, store, card):
    """Rows of one slide may come from several comparisons; the last slide promises every figure."""
    other = table_factory.compare_run(store, card, methods=("uniform", "llrc"), update="left")
    story = story_of(ModelRef())
    assert {row.get("update") for row in story.rows} >= {"left", None}
    last = slides_of(story)[-1]
    assert last.key == "reproduce"
    assert {told.source, other.id} <= set(last.runs) and "--update left" in last.body


def test_every_slide_says_itself_whether_its_runs_shipped(samples, store, card):
    """Slides of one deck may be of shipped and of own runs."""
    run_factory.spectra_run(samples, card)
    table_factory.compare_run(store, card)
    shipped = {slide.key: slide.shipped for slide in slides_of(story_of(ModelRef()))}
    assert shipped["where"] and not shipped["comparison"]


def test_no_figure_is_without_its_unit(told):
    card = next(slide for slide in slides_of(told) if slide.key == "card")
    assert re.search(r"\d MB|\d kB|\d GB", card.body) and "tokens/s" in card.body
