"""Watch: every state of a run that learns, the film that the browser gets, and the forecast with its reasons."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from typing import Any

import pytest

from lrc_core.runs.spec import EvaluateSpec, EvaluationSpec, ModelRef
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import ModelCard
from tests.factories import run_factory
from tests.pages.conftest import text_of

KL = {"distillation": "logits", "window": 256}
EVALUATION = EvaluationSpec(texts=("gensim",))
DENSE = 20.0


def film_in(app: Any) -> dict[str, Any]:
    """What the browser is handed."""
    (component,) = app.get("bidi_component")
    found: dict[str, Any] = json.loads(component.proto.json)
    return found


def trained(store: RunStore, card: ModelCard, keep: float, until: float, scale: float = 6.0, **changes: Any) -> Run:
    """A run whose divergence is scale * rate^2, as far as a share of its way."""
    run = store.create(run_factory.allocate_spec(card, "llrc", keep, settings=KL, **changes))
    (run.path / "card.json").write_text(json.dumps(card.to_dict()))
    steps = 100
    for step in range(1, round(until * steps) + 1):
        rate = (1 - keep) * step / steps
        values = {"keep": 1 - rate, "target": keep, "distill": scale * rate**2, "loss": 1.0, "tokens_per_s": 9.0}
        run.append_event({"t": 1.0, "phase": "training masks", "step": step, "total": steps, "values": values})
    return run_factory.finish(run, {}) if until >= 1 else run_factory.set_state(run, "running", round(until * steps))


def measured(
    store: RunStore, card: ModelCard, source: Run | None, keep: float, perplexity: float, step: int = 0
) -> Run:
    """An evaluation of a plan of a run, or of the dense model."""
    plan = None
    if source is not None:
        origin = {"run_id": source.id, **({"recorded_at_step": step} if step else {})}
        plan = {**run_factory.plan_at(card, keep).to_dict(), "origin": origin}
    run = store.create(EvaluateSpec(model=ModelRef("starter"), plan=plan, evaluation=EVALUATION))
    return run_factory.finish(run, {"perplexity": {"gensim": {"value": perplexity, "stderr": 0.5}}})


def measured_on_the_way(store: RunStore, card: ModelCard, *, off: float = 0.0) -> Run:
    """A finished run to 30 %, measured at 10, 20 and 30 %: log-perplexity rises by 1.5 times its divergence."""
    run = trained(store, card, 0.7, 1.0)
    measured(store, card, None, 1.0, DENSE)
    for number, rate in enumerate((0.1, 0.2, 0.3)):
        step = round(rate / 0.3 * 100)
        increase = 1.5 * 6.0 * rate**2 * math.exp(off * (-1) ** number)
        measured(store, card, run, 1 - rate, DENSE * math.exp(increase), 0 if rate == 0.3 else step)
    return run


def test_a_damaged_run_does_not_hide_the_others(open_page, store, card):
    whole = trained(store, card, 0.7, 1.0)
    damaged = trained(store, card, 0.6, 1.0)
    (damaged.path / "card.json").write_bytes(b"{")
    app = open_page("watch")
    assert app.selectbox[0].value == whole.id and film_in(app)["run"] == whole.id
    assert len(app.selectbox[0].options) == 2


def test_empty_state_leads_to_allocate(open_page):
    assert "been learned yet" in text_of(open_page("watch"))


def test_a_running_job_is_live_and_an_unfinished_one_comes_first(open_page, store, card):
    run_factory.allocate_run(store, card, keep=0.7)
    run = run_factory.allocate_run(store, card, keep=0.8, state="running")
    app = open_page("watch")
    film = film_in(app)
    assert (film["run"], film["live"], film["total"]) == (run.id, True, run_factory.STEPS)
    assert film["ticks"]["step"][-1] == run_factory.STEPS // 2
    assert {metric.label for metric in app.metric} == {"Compression now", "Target", "Entropy", "Speed", "Memory"}
    assert next(metric.value for metric in app.metric if metric.label == "Entropy") == "– bits"  # not recorded
    assert app.button(key=f"cancel_{run.id}").label == "Cancel"
    run_factory.train(run, card, 0.8, run_factory.STEPS // 2 + 3, first=run_factory.STEPS // 2 + 1)
    app.run()
    assert film_in(app)["ticks"]["step"] == list(range(1, run_factory.STEPS // 2 + 4))


def test_a_finished_run_is_replayed_and_can_be_taken_along(open_page, store, card):
    run = run_factory.allocate_run(store, card, keep=0.7)
    app = open_page("watch", wa_run=run.id)
    film = film_in(app)
    assert film["live"] is False and film["total"] == run_factory.STEPS
    assert not app.metric
    assert {button.label for button in app.get("download_button")} == {"Film as HTML", "Film as GIF"}
    assert any(f"lrc runs film {run.id} --html" in code.value for code in app.code)


def test_a_sample_is_named_as_one_and_found_by_its_id(open_page, samples, card):
    run = run_factory.allocate_run(samples, card, keep=0.7)
    app = open_page("watch")
    assert film_in(app)["run"] == run.id
    assert "Shipped run" in text_of(app)
    assert any(f"lrc runs film {run.id} --html" in code.value for code in app.code)


def test_what_runs_is_watched_before_what_waits(open_page, store, card):
    running = run_factory.allocate_run(store, card, keep=0.7, state="running")
    run_factory.allocate_run(store, card, keep=0.6, state="queued")
    assert open_page("watch").selectbox(key="wa_run").value == running.id


@pytest.mark.parametrize("state", ["queued", "running", "failed", "cancelled", "interrupted"])
def test_states_before_the_first_step(open_page, store, card, state):
    run = run_factory.allocate_run(store, card, keep=0.8, state="queued")
    if state != "queued":
        run_factory.set_state(run, state, error="Out of memory." if state == "failed" else "")
    app = open_page("watch", wa_run=run.id)
    assert not app.get("bidi_component") and not app.exception
    expected = {
        "queued": "device is free",
        "running": "has not begun",
        "failed": "Out of memory.",
    }
    assert expected.get(state, "ended before") in text_of(app)


def test_the_chosen_models_run_comes_before_a_newer_one_of_another_model(open_page, store, card):
    own = run_factory.allocate_run(store, card, keep=0.7)
    another = replace(card, identity=replace(card.identity, source="someone/another"))
    run_factory.allocate_run(store, another, keep=0.8)
    assert film_in(open_page("watch"))["run"] == own.id


@pytest.mark.parametrize("page", ["allocate", "runs"])
@pytest.mark.parametrize(
    ("state", "steps", "offered"),
    [("failed", 0, False), ("cancelled", 0, False), ("cancelled", 5, True), ("running", 0, True)],
)
def test_watch_is_offered_where_there_is_something_to_watch(open_page, store, card, page, state, steps, offered):
    run_factory.spectra_run(store, card)  # without it Allocate knows no layers
    run = run_factory.allocate_run(store, card, keep=0.8, state="queued")
    if steps:
        (run.path / "card.json").write_text(json.dumps(card.to_dict()))
        run_factory.train(run, card, 0.8, steps)
    run_factory.set_state(run, state, error="Out of memory." if state == "failed" else "")
    app = open_page(page, **{"al_run" if page == "allocate" else "ru_run": run.id})
    links = [link.proto for link in app.get("page_link") if link.proto.page == "watch"]
    assert any(f"wa_run={run.id}" in link.query_string for link in links) is offered


def test_a_run_that_vanishes_or_is_unknown_is_no_crash(open_page, store, card):
    first, other = (run_factory.allocate_run(store, card, keep=keep) for keep in (0.7, 0.8))
    app = open_page("watch", wa_run="allocate-nothing")
    assert film_in(app)["run"] in (first.id, other.id)
    assert app.query_params["wa_run"] in (film_in(app)["run"], [film_in(app)["run"]])  # the link says what is shown
    app = open_page("watch", wa_run=first.id)
    assert film_in(app)["run"] == first.id
    app.selectbox(key="wa_run").set_value(other.id).run()
    assert film_in(app)["run"] == other.id
    shutil.rmtree(other.path)
    app.run()
    assert not app.exception and film_in(app)["run"] == first.id


def test_a_forecast_comes_from_measured_plans_and_says_so(open_page, store, card):
    source = measured_on_the_way(store, card)
    run = trained(store, card, 0.8, 0.6, seed=1)
    text = text_of(open_page("watch", wa_run=run.id))
    assert "Forecast, not measured" in text and source.id in text
    expected = DENSE * math.exp(1.5 * 6.0 * 0.2**2)
    found = re.search(r"gensim about \*\*([\d.]+) \(([\d.]+) to ([\d.]+)\)\*\*, dense 20\.0", text)
    assert found is not None
    middle, low, high = (float(figure) for figure in found.groups())
    assert middle == pytest.approx(expected, rel=0.05)
    assert low <= middle <= high
    assert "3 measured plans" in text


def test_plans_that_the_trials_miss_give_no_forecast(open_page, store, card):
    measured_on_the_way(store, card, off=0.5)
    text = text_of(open_page("watch", wa_run=trained(store, card, 0.8, 0.6, seed=1).id))
    assert "No quality forecast" in text and "missed" in text
    assert "Forecast, not measured" not in text


def test_without_measured_plans_or_with_another_loss_it_says_why(open_page, store, card):
    run = trained(store, card, 0.8, 0.6, seed=1)
    assert "3 measured plans" in text_of(open_page("watch", wa_run=run.id))
    other = run_factory.allocate_run(store, card, keep=0.9, state="running")  # recorded with no settings
    assert "does not use" in text_of(open_page("watch", wa_run=other.id))


def test_another_decomposition_or_text_is_no_ground_for_a_forecast(open_page, store, card):
    measured_on_the_way(store, card)
    run = trained(store, card, 0.8, 0.6, decomposition="svd")
    assert "3 measured plans" in text_of(open_page("watch", wa_run=run.id))


def test_what_was_measured_takes_the_place_of_a_forecast(open_page, store, card):
    source = measured_on_the_way(store, card)
    text = text_of(open_page("watch", wa_run=source.id))
    increase = 1.5 * 6.0 * 0.3**2
    assert f"gensim {DENSE * math.exp(increase):.2f} ± 0.50" in text and "Measured" in text
    assert "orecast" not in text


def test_a_second_run_is_laid_over_the_first_and_the_link_says_it(open_page, store, card):
    """The browser gets both films whole; the first one's own export is as before."""
    first, second = trained(store, card, 0.7, 1.0), trained(store, card, 0.6, 1.0, scale=3.0)
    app = open_page("watch", wa_run=first.id)
    assert film_in(app)["over"] is None
    app.selectbox(key="wa_over").set_value(second.id).run()
    film = film_in(app)
    assert film["run"] == first.id and app.query_params["wa_over"] in (second.id, [second.id])
    over = film["over"]
    assert over["run"] == second.id and over["over"] is None and over["ticks"]["removed"][-1] == pytest.approx(0.4)
    linked = open_page("watch", wa_run=first.id, wa_over=second.id)
    assert film_in(linked)["over"] == over
    linked.selectbox(key="wa_over").set_value("").run()
    assert film_in(linked)["over"] is None and "wa_over" not in linked.query_params
    itself = open_page("watch", wa_run=first.id, wa_over=first.id)
    assert film_in(itself)["over"] is None, "no run lies over itself"


def test_where_no_second_run_has_learned_the_control_says_so(open_page, store, card):
    only = trained(store, card, 0.7, 1.0)
    store.create(run_factory.allocate_spec(card, "llrc", 0.5))  # asked for, and has no steps to lay over anything
    app = open_page("watch", wa_run=only.id)
    assert "second run" in text_of(app) and "wa_over" not in {box.key for box in app.selectbox}
