"""Talk: every state of a question, blind votes that stay, the worker's state, and the card here and on Compare."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from dataclasses import replace

import psutil
import pytest

from lrc_core import words
from lrc_core.jobs import generator, manager
from lrc_core.jobs.generator import Generator
from lrc_core.kinds import command_for
from lrc_core.kinds.generate import MOST_ANSWERS
from lrc_core.names import decomposition_label
from lrc_core.quality.card import speed_words
from lrc_core.quality.footprint import footprint
from lrc_core.quality.votes import read_votes, votes_csv, votes_path
from lrc_core.results import answers as choices
from lrc_core.runs.spec import GenerateSpec, ModelRef, UpdateSpec
from lrc_core.runs.transcript import Answer
from pages.ui.compare import cards
from pages.ui.shared import pictures, state
from pages.ui.talk import views
from tests.factories import run_factory, table_factory
from tests.pages.conftest import text_of


def signed(run):
    """The run with plans that say where they come from, as real ones do."""
    for path in [run.path / "plan.json", *(run.path / "plans").glob("*.json")]:
        path.write_text(json.dumps({**json.loads(path.read_text()), "origin": {"run_id": run.id}}))
    return run_factory.resealed(run)


def ask(app):
    next(button for button in app.button if button.label == "Ask").click().run()
    return app


def test_a_damaged_plan_leaves_the_question_and_the_other_plans(open_page, store, card, submitted):
    whole, damaged = (signed(run_factory.allocate_run(store, card, keep=keep)) for keep in (0.7, 0.6))
    for path in damaged.path.rglob("*.json"):
        if "plan" in path.relative_to(damaged.path).parts[0]:
            path.write_bytes(b"{")
    app = open_page("talk")
    assert whole.id in app.multiselect[0].value[0] and not any(damaged.id in key for key in app.multiselect[0].value)
    ask(app)
    assert submitted


def test_empty_then_a_question_with_the_usual_plans(open_page, store, card, submitted):
    llrc = signed(run_factory.allocate_run(store, card, keep=0.7))
    uniform = signed(run_factory.allocate_run(store, card, method="uniform", keep=0.8))
    app = open_page("talk")
    assert "Ask, and compare" in text_of(app)
    assert app.multiselect[0].value == [f"{llrc.id}@20", uniform.id]
    app.text_area[0].set_value("Who are you?")
    app.number_input(key="ta_temperature").set_value(0.7)
    ask(app)
    spec = submitted[0][0]
    assert isinstance(spec, GenerateSpec)
    assert [choices.name_of(answer) for answer in spec.answers] == ["dense", "llrc at 20 %", "uniform at 20 %"]
    assert (spec.prompt, spec.sampling.temperature, spec.sampling.max_new_tokens) == ("Who are you?", 0.7, 128)
    command = command_for(spec)
    assert f"--plan {llrc.id}@20 {uniform.id}" in command and command in text_of(app)
    assert app.query_params["ta_run"] == spec.run_id
    assert "Waiting" in text_of(app)


def test_plans_of_samples_updates_and_comparisons_can_be_asked(store, samples, card):
    run_factory.allocate_run(samples, card, method="uniform", keep=0.9)
    table_factory.compare_run(store, card, methods=("strs",), keeps=(0.8,))
    plan = run_factory.plan_at(card, 0.8).to_dict()
    update = store.create(UpdateSpec(plan=plan, settings={"kind": "left"}))
    run_factory.finish(update, {})
    run_factory.plan_at(card, 0.8).save(update.path / "plan.json")
    found = {choice.method: choice for choice in choices.choices(ModelRef())}
    assert set(found) == {"uniform", "strs", "llrc+left"}
    assert found["uniform"].view.sample and found["llrc+left"].key == update.id
    for choice in found.values():
        answer = choices.answer_of(choice)
        assert choices.plan_of(answer).model == card.identity
    assert choices.usual(list(found.values())) == [found["uniform"].key, found["strs"].key]


def test_the_best_plan_is_asked_before_a_learned_one_and_no_name_is_an_id(store, card):
    whole = run_factory.plan_at(card, 0.8, method="lagrangian").to_dict()
    run_factory.allocate_run(store, card, keep=0.7)
    run_factory.allocate_run(store, card, method="uniform", keep=0.8)
    update = store.create(UpdateSpec(plan={**whole, "version": 2, "storage": "pivoted"}, settings={"kind": "tuned"}))
    run_factory.finish(update, {})
    run_factory.plan_at(card, 0.8, method="lagrangian").save(update.path / "plan.json")
    found = choices.choices(ModelRef())
    best = next(choice for choice in found if choice.view.id == update.id)
    assert best.method == "lagrangian+tuned+pivoted"
    assert choices.usual(found)[0] == best.key
    assert not any(choice.view.id in choice.label for choice in found)


def test_answers_carry_speed_size_and_their_run(open_page, store, card):
    run = run_factory.generate_run(store, card)
    app = open_page("talk", ta_run=run.id)
    text = text_of(app)
    assert "says number 0" in text and "11 tokens/s" in text
    assert "LLRC at 20 %" in text and "Dense model" in text and run.id in text
    assert f"{words.data_size(2 * card.params_total)} in 16 bits" in text
    assert not [button for button in app.button if "is best" in button.label]


def test_what_this_computer_happened_to_load_is_no_size(open_page, store, card):
    """The same answer, held in 32 bits while it was written, has the size that the other pages give."""
    run = run_factory.generate_run(store, card)
    path = run.path / "result.json"
    result = json.loads(path.read_text())
    for answer in result["answers"]:
        answer["bytes"] = 2 * answer["bytes"]
    run_factory.finish(run, result)
    text = text_of(open_page("talk", ta_run=run.id))
    assert (
        f"{words.data_size(2 * card.params_total)} in 16 bits" in text
        and f"{4 * card.params_total / 1e6:,.0f} MB" not in text
    )


def test_text_of_a_model_is_never_read_as_html(open_page, store, card):
    run = run_factory.generate_run(store, card, prompt="<img src=x onerror=alert(1)> **bold**")
    shown = [element.proto.body for element in open_page("talk", ta_run=run.id).get("html")]
    assert any("&lt;img" in body for body in shown) and not any("<img" in body for body in shown)


@pytest.mark.parametrize("name", ["running", "cancelling", "failed", "cancelled", "interrupted"])
def test_every_state_of_a_question(open_page, store, card, name):
    run = run_factory.generate_run(store, card, state=name, written=2)
    app = open_page("talk", ta_run=run.id)
    text = text_of(app)
    assert not app.exception and "says number 0" in text
    assert ("Waiting" in text) == (name in ("running", "cancelling"))
    labels = {button.label for button in app.button}
    assert ("Cancel" in labels) == (name == "running")
    assert ("Resume" in labels) == (name in ("failed", "cancelled", "interrupted"))


def test_a_question_that_waits_says_for_whom(open_page, store, card, monkeypatch):
    run = run_factory.generate_run(store, card, state="queued")
    monkeypatch.setattr(manager, "queue_position", lambda run_id: 2)
    assert text_of(open_page("talk", ta_run=run.id)).count("2 jobs") == 1


def test_chosen_plans_stay_when_another_one_gets_the_same_name(open_page, store, card, submitted):
    run_factory.allocate_run(store, card, method="uniform", keep=0.8)
    chosen = run_factory.allocate_run(store, card, method="uniform", keep=0.7)
    app = open_page("talk")
    app.multiselect(key="ta_plans").set_value([chosen.id])
    ask(app)
    box = app.multiselect(key="ta_plans")
    assert box.value == [chosen.id]
    before = list(box.proto.raw_values)
    run_factory.allocate_run(store, card, method="uniform", keep=0.7, decomposition="svd")
    app.run()
    box = app.multiselect(key="ta_plans")
    assert box.value == [chosen.id]
    assert box.proto.set_value and list(box.proto.raw_values) != before, "the browser is told the new label"


def test_links_to_nothing_and_to_another_kind(open_page, store, card):
    assert "no run generate-x" in text_of(open_page("talk", ta_run="generate-x"))
    other = run_factory.allocate_run(store, card)
    assert "another kind" in text_of(open_page("talk", ta_run=other.id))


def test_blind_shuffles_hides_and_reveals_after_the_vote(open_page, store, card, submitted):
    run_factory.allocate_run(store, card, keep=0.8)
    app = open_page("talk", ta_blind="true")
    ask(app)
    asked = store.open(submitted[0][0].run_id)
    assert (asked.path / choices.BLIND).exists()

    run = run_factory.generate_run(store, card, blind=True)
    app = open_page("talk", ta_run=run.id)
    text = text_of(app)
    assert "Answer A" in text and "says number 2" in text
    for secret in ("LLRC at 20 %</div>", "Dense model", "tokens/s", " MB", "lrc generate"):
        assert secret not in text, secret
    app.button(key=f"vote_{run.id}_1").click().run()
    text = text_of(app)
    assert "Dense model" in text and "your choice" in text and "11 tokens/s" in text
    (vote,) = read_votes(votes_path(store.root))
    assert (vote.run_id, vote.chosen, vote.place) == (run.id, "dense", 1)
    assert vote.answers == ("llrc at 20 %", "dense", "uniform at 20 %")
    (row,) = csv.DictReader(io.StringIO(votes_csv([vote])))
    assert row["prompt"] == run.spec.prompt
    again = open_page("talk", ta_run=run.id)
    assert "your choice" in text_of(again), "another tab, or a reload, sees the vote"
    assert list(again.dataframe[-1].value["Chosen as best"]) == [1, 0, 0]


def test_blind_answers_appear_together(open_page, store, card):
    run = run_factory.generate_run(store, card, blind=True, state="running", written=2)
    text = text_of(open_page("talk", ta_run=run.id))
    assert "says number" not in text and "1 of 3 answers" in text


def test_every_place_in_a_blind_vote_has_a_letter():
    letters = [choices.letter(number) for number in range(MOST_ANSWERS)]
    assert len(set(letters)) == MOST_ANSWERS


@pytest.mark.parametrize(("key", "said"), [("tie", "1 of them"), ("skip", "has voted yet")])
def test_no_difference_and_reveal_without_voting(open_page, store, card, key, said):
    run = run_factory.generate_run(store, card, blind=True)
    app = open_page("talk", ta_run=run.id)
    app.button(key=f"{key}_{run.id}").click().run()
    text = text_of(app)
    assert "Dense model" in text and "your choice" not in text and said in text


def test_the_worker_is_shown_and_sent_away(open_page, store, monkeypatch):
    assert "not running" in text_of(open_page("talk"))
    me = Generator(os.getpid(), psutil.Process().create_time(), "idle", "starter", time.time() + 100)
    generator.tell(store, me)
    released = []
    monkeypatch.setattr(generator, "release", lambda store: released.append(store.root))
    app = open_page("talk")
    assert "SmolLM2-135M" in text_of(app) and "Released in 1 min" in text_of(app)
    app.button(key="ta_release").click().run()
    assert released == [store.root]


def test_missing_factors_are_said(open_page, store, card):
    run_factory.allocate_run(store, card, method="uniform")
    text = text_of(open_page("talk"))
    assert "not on this" in text and f"({decomposition_label('whitened')})" in text, "by the name that a reader knows"


# ---- the card


def test_the_card_counts_what_the_maths_counts(open_page, store, card):
    run_factory.spectra_run(store, card)
    table_factory.compare_run(store, card)
    app = open_page("compare", co_rate="20 %", co_card="true")
    text = text_of(app)
    size = footprint(card, None, 2048)
    assert f"**{words.data_size(size.total)}**" in text and "2,048 tokens" in text
    assert f"Key-value cache <b>{words.data_size(size.cache)}</b>" in text
    assert f"**{size.monthly(3.0):,.2f} €** a month" in text
    assert "right as measured" in text and "600 questions" in text and "arc_easy, piqa, winogrande" in text
    assert "Uniform 20 %, STRS 20 %, LLRC 20 %" in text and "pace" in text
    app.number_input(key="co_price").set_value(10.0).run()
    app.select_slider(key="co_context").set_value(8192).run()
    larger = footprint(card, None, 8192)
    assert f"**{larger.monthly(10.0):,.2f} €** a month" in text_of(app)
    assert state.read_settings()["price_per_gb"] == 10.0, "remembered for the next time and the other page"


def test_the_card_under_the_answers_finds_the_measured_quality(open_page, store, card):
    run_factory.spectra_run(store, card)
    run = run_factory.generate_run(store, card)
    text = text_of(open_page("talk", ta_run=run.id))
    assert "Quality was not" in text
    allocated = run_factory.allocate_run(store, card, keep=0.8)
    table_factory.compare_run(store, card)
    rows = [table_factory.row("llrc", 0.8, run_id="evaluate-x", allocate_run_id=allocated.id)]
    plan = run_factory.plan_at(card, 0.8)
    assert cards.row_of(plan, rows) is None, "another plan of the same size is not this one"
    made = type(plan)(**{**vars(plan), "origin": {"run_id": allocated.id}})
    assert cards.row_of(made, rows) is rows[0]


def test_speeds_that_were_measured_differently_are_not_compared(card):
    dense = cards.CardModel("Dense model", "#000", None, {"decode": 10.0}, None, "generate-x", "answer")
    plan = run_factory.plan_at(card, 0.8)
    same = cards.CardModel("LLRC", "#000", plan, {"decode": 12.0}, None, "generate-x", "answer")
    other = cards.CardModel("LLRC", "#000", plan, {"decode": 12.0}, None, "evaluate-x")
    assert "1.20 times" in speed_words(same, dense)
    assert "pace" not in speed_words(other, dense)
    assert "not timed" in speed_words(cards.CardModel("x", "#000", plan, {}, None, ""), dense)


def test_nothing_is_promised_where_nothing_is_known(card):
    assert pictures.memory_bar(footprint(card, None, 512), 10**9).count("lrc-chip") == 3
    unknown = pictures.memory_bar(type(footprint(card, None, 1))(10**6, None, 10**5), 10**7)
    assert "not known" in unknown
    assert Answer().tokens_per_s is None


def test_what_scrolls_can_have_the_focus():
    assert 'tabindex="0"' in views.quoted("x" * 5000) and "aria-label" in views.quoted("x")


def test_few_answered_questions_stand_side_by_side(open_page, store, card):
    runs = [run_factory.generate_run(store, card)]
    runs.append(run_factory.generate_run(store, card, prompt="Why is snow white?"))
    app = open_page("talk")
    choice = app.button_group(key="ta_earlier")
    assert len(choice.options) == 2
    other = next(run for run in runs if run.id not in str(choice.value))
    choice.set_value(other.id).run()
    assert app.query_params["ta_run"] in (other.id, [other.id])


def test_a_shipped_plan_whose_factors_did_not_ship_is_not_offered(samples, store, card):
    run_factory.allocate_run(samples, card, method="uniform", keep=0.8)
    plan = run_factory.plan_at(card, 0.8, method="lagrangian")
    update = samples.create(UpdateSpec(plan=plan.to_dict(), settings={"kind": "tuned"}))
    run_factory.finish(update, {})
    replace(plan, weights_file="weights.safetensors", digests={"weights.safetensors": "0" * 64}).save(
        update.path / "plan.json"
    )
    assert [choice.method for choice in choices.choices(ModelRef())] == ["uniform"]
    (update.path / "weights.safetensors").write_bytes(b"factors")
    assert update.id in {choice.view.id for choice in choices.choices(ModelRef())}
