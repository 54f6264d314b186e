"""Learn: every step from samples, from own runs and from nothing; progress, deep links, the quiz."""

from __future__ import annotations

import json

import pytest

from lrc_core.budget import LAWS, storage_law
from lrc_core.runs.spec import ModelRef
from pages.ui.learn import flipbook, methods, picture, progress
from pages.ui.learn.lesson_text import lesson_text
from pages.ui.learn.quiz import questions
from pages.ui.learn.steps import STEPS
from pages.ui.shared import state
from tests.factories import run_factory, table_factory
from tests.pages.conftest import text_of

NUMBERS = [str(number) for number in range(1, 9)]


@pytest.fixture
def everything(samples, card):
    """Samples of every kind that the steps read."""
    run_factory.spectra_run(samples, card)
    run_factory.lesson_run(samples, card)
    return table_factory.compare_run(samples, card)


@pytest.fixture
def books(monkeypatch):
    """The flipbooks that a page draws, by key."""
    found = {}
    monkeypatch.setattr(flipbook, "flipbook", lambda book, key: found.update({key: book}))
    for module in ("picture", "weight", "mask"):
        monkeypatch.setattr(f"pages.ui.learn.{module}.flipbook", lambda book, key: found.update({key: book}))
    return found


@pytest.fixture
def reload(open_page, monkeypatch):
    """``reload(app)``: the page anew in the same browser, which sends the cookie that the app gave it."""

    def again(app, **query):
        (keeper,) = [part for part in app.get("bidi_component") if part.proto.component_name == "lrc_learn_keeper"]
        name, _, value = json.loads(keeper.proto.json)["cookie"].partition("=")
        assert name == progress.COOKIE
        monkeypatch.setattr(progress, "in_browser", lambda: value)
        return open_page("learn", **query)

    return again


@pytest.mark.parametrize("number", NUMBERS)
def test_every_step_works_from_the_samples(open_page, everything, number):
    app = open_page("learn", learn_step=number)
    text = lesson_text(STEPS[int(number) - 1].text)
    assert app.header[0].value == f"{number} · {text.title}"
    assert not app.error
    if number != "1":
        assert "Shipped run" in text_of(app)
    folds = " ".join(fold.label for fold in app.expander)
    assert all(word in folds for word in ("formula", "comes from", "table"))


@pytest.mark.parametrize("number", NUMBERS)
def test_every_step_stands_on_nothing(open_page, number):
    app = open_page("learn", learn_step=number)
    assert not app.error
    assert "Shipped run" not in text_of(app)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_users_own_runs_come_first(open_page, everything, store, card, number):
    own = [
        run_factory.spectra_run(store, card).id,
        run_factory.lesson_run(store, card).id,
        table_factory.compare_run(store, card).id,
    ]
    words = text_of(open_page("learn", learn_step=number))
    assert "Shipped run" not in words
    assert number == "1" or any(run_id in words for run_id in own) or number == "8"


def test_another_model_without_runs_sees_the_sample_labelled(open_page, everything):
    app = open_page("learn", learn_step="5", model="owner/other")
    assert not app.error
    assert "Shipped run" in text_of(app)
    assert "recorded" in text_of(app).lower()


def test_a_bad_step_in_the_link_is_the_first_one(open_page):
    for bad in ("0", "9", "x", ""):
        assert open_page("learn", learn_step=bad).header[0].value.startswith("1 ·")


def test_going_on_is_remembered_by_the_next_visit(open_page, reload):
    app = open_page("learn")
    app.button(key="learn_on").click().run()
    assert app.header[0].value.startswith("2 ·")
    assert list(app.query_params["learn_step"]) == ["2"]
    assert app.button(key="learn_step_1").proto.icon == ":material/check:"
    again = reload(app)
    assert again.header[0].value.startswith("2 ·")
    assert again.button(key="learn_step_1").proto.icon == ":material/check:"
    assert again.button(key="learn_step_2").proto.icon == ""
    assert open_page("learn", learn_step="7").header[0].value.startswith("7 ·")


def test_another_browser_starts_empty_and_the_server_keeps_nothing(open_page):
    app = open_page("learn", learn_step="8")
    app.radio(key="learn_answer_0").set_value(1).run()
    app.button(key="learn_step_3").click().run()
    app.button(key="learn_on").click().run()
    other = open_page("learn")
    assert other.header[0].value.startswith("1 ·")
    assert not any(other.button(key=f"learn_step_{number}").proto.icon for number in NUMBERS)
    assert open_page("learn", learn_step="8").radio(key="learn_answer_0").value is None
    assert not state.settings_path().exists()


def test_starting_over_forgets_the_lesson(open_page, reload, monkeypatch):
    monkeypatch.setattr(progress, "in_browser", lambda: progress.packed({"step": 4, "done": [1, 2, 3]}))
    app = open_page("learn")
    assert app.header[0].value.startswith("4 ·")
    app.button(key="learn_forget").click().run()
    for page in (app, reload(app)):
        assert page.header[0].value.startswith("1 ·")
        assert page.button(key="learn_step_2").proto.icon == ""


@pytest.mark.parametrize(
    "damaged",
    [
        *("7", "%", "nothing", "[" * 9000, "%ff%00"),
        progress.packed({"step": "x", "done": "all", "answers": [1]}),
        progress.packed({"step": 1e999, "done": [1, "y", 99, None]}),
        progress.packed({"answers": {"0": "x", "1": 77, "2": None}, "finished": True}),
    ],
)
def test_a_damaged_cookie_costs_nothing(open_page, monkeypatch, damaged):
    monkeypatch.setattr(progress, "in_browser", lambda: damaged)
    for number in ("1", "8"):
        assert not open_page("learn", learn_step=number).error


def test_the_quiz_explains_at_the_end_and_survives_a_reload(open_page, reload):
    app = open_page("learn", learn_step="8")
    listed = questions.questions()
    assert app.button(key="learn_check").disabled
    for number, question in enumerate(listed):
        wrong = (question.right + 1) % len(question.options)
        app.radio(key=f"learn_answer_{number}").set_value(wrong if number == 0 else question.right).run()
    assert listed[0].why[:30] not in text_of(app)
    again = reload(app, learn_step="8")
    assert [again.radio(key=f"learn_answer_{number}").value for number in range(1, 5)] == [q.right for q in listed[1:]]
    again.button(key="learn_check").click().run()
    assert "4 of 5 right" in "".join(alert.proto.title for alert in again.info) and not again.success
    first = listed[0]
    wrong, right = first.options[(first.right + 1) % len(first.options)], first.options[first.right]
    assert f"*{wrong}*; it is **{right}**" in text_of(again)
    assert f"said **{listed[1].options[listed[1].right]}**" in text_of(again)
    assert all(question.why[:30] in text_of(again) for question in listed)
    again.button(key="learn_again_0").click().run()
    assert again.header[0].value.startswith(f"{listed[0].step} ·")


def test_the_second_set_is_asked_beside_the_first_and_both_are_remembered(open_page, reload):
    app = open_page("learn", learn_step="8")
    app.radio(key="learn_answer_0").set_value(1).run()
    app.button(key="learn_other_set").click().run()
    assert questions.questions(1)[0].words in text_of(app) and questions.questions()[0].words not in text_of(app)
    assert app.radio(key="learn_answer_1-0").value is None
    app.radio(key="learn_answer_1-0").set_value(2).run()
    again = reload(app, learn_step="8")
    assert again.radio(key="learn_answer_1-0").value == 2
    again.button(key="learn_other_set").click().run()
    assert again.radio(key="learn_answer_0").value == 1


def test_only_five_right_answers_are_a_success(open_page, monkeypatch):
    answers = {str(number): question.right for number, question in enumerate(questions.questions())}
    monkeypatch.setattr(progress, "in_browser", lambda: progress.packed({"answers": answers, "finished": True}))
    app = open_page("learn", learn_step="8")
    assert [alert.proto.title for alert in app.success] == ["5 of 5 right"]
    assert "Not quite" not in text_of(app)


def test_the_live_job_is_submitted_with_its_command_shown(open_page, everything, submitted, store, card):
    run_factory.spectra_run(store, card)
    app = open_page("learn", learn_step="5")
    layer = card.layers[3].name
    app.selectbox(key="learn_live_layer").set_value(layer).run()
    app.text_input(key="learn_live_prompt").set_value(prompt := "Once upon a time").run()
    assert f"lrc lesson starter --layers {layer} --parts text --prompt '{prompt}'" in text_of(app)
    app.button(key="learn_write").click().run()
    spec = submitted[0][0]
    assert (spec.kind, spec.layers, spec.parts, spec.prompt) == ("lesson", (layer,), ("text",), prompt)
    assert "Waiting" in text_of(app)


def test_a_finished_live_text_is_shown_before_the_sample(open_page, everything, store, card):
    own = run_factory.lesson_run(store, card, layers=(card.layers[0].name,), parts=("text",), prompt="The sea")
    words = text_of(open_page("learn", learn_step="5"))
    assert own.id in words
    assert "your model" in words.lower()


def test_a_damaged_lesson_says_what_to_do(open_page, samples, card):
    run = run_factory.lesson_run(samples, card)
    (run.path / "pictures.npz").write_bytes(b"no archive")
    app = open_page("learn", learn_step="2")
    assert "pictures.npz" in text_of(app) and "again" in text_of(app)
    (run.path / "lesson.json").write_text(json.dumps([1]), encoding="utf-8")
    assert "is damaged" in text_of(open_page("learn", learn_step="4"))


def test_the_frames_of_the_books_say_what_they_show(open_page, everything, books):
    for number, key in (("1", "learn_picture"), ("2", "learn_weight"), ("7", "learn_mask")):
        open_page("learn", learn_step=number)
        book = books[key]
        assert len(book.frames) > 3
        assert len({frame.words for frame in book.frames}) == len(book.frames)
        assert all(frame.svg.startswith("<") for frame in book.frames)
        assert 0 <= book.start < len(book.frames)


def test_a_force_that_is_switched_off_changes_the_film(open_page, everything, books):
    app = open_page("learn", learn_step="7")
    before = books["learn_mask"].frames[-1].svg
    app.get("button_group")[0].set_value(["compression"]).run()
    assert not app.error
    assert books["learn_mask"].frames[-1].svg != before
    assert "which ones matter" in text_of(app)


def test_the_position_of_a_book_is_in_the_url(open_page, everything, monkeypatch):
    seen = []
    real = flipbook.position
    monkeypatch.setattr(flipbook, "position", lambda book, key: seen.append(real(book, key)) or seen[-1])
    open_page("learn", learn_step="1", learn_picture="9")
    open_page("learn", learn_step="1", learn_picture="many")
    open_page("learn", learn_step="1", learn_picture="9999")
    assert seen[0] == 9
    assert seen[1] == 2
    assert seen[2] == len(picture.RANKS) - 1


@pytest.mark.parametrize("storage", list(LAWS))
@pytest.mark.parametrize("decomposition", ["whitened", "kfac"])
def test_the_three_are_compared_however_they_are_factored_and_stored(open_page, samples, card, storage, decomposition):
    """A comparison of one's own stores layers as pivots unless it is asked not to."""
    run_factory.spectra_run(samples, card)
    table_factory.compare_run(samples, card, storage=storage, decomposition=decomposition)
    side = methods.usable(ModelRef())
    assert (side.decomposition, side.storage, side.methods) == (decomposition, storage, set(methods.METHODS))
    assert set(methods.plans_of(side.rows(0.8))) == set(methods.METHODS)
    app = open_page("learn", learn_step="6", learn_rate="20 %")
    assert not app.error and not app.exception
    assert storage_law(storage).label.lower() in text_of(app)


def test_layers_stored_in_two_ways_are_not_mixed(samples, card):
    """Of two comparisons the one that measured more of the three is shown, and none of its rows is the other's."""
    table_factory.compare_run(samples, card, methods=("uniform", "llrc"), storage="pair")
    table_factory.compare_run(samples, card, methods=("uniform", "strs", "llrc"), storage="pivoted")
    side = methods.usable(ModelRef())
    assert side.storage == "pivoted" and len(side.rows(0.8)) == 4
