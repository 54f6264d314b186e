"""Allocate: what a finished job shows, and offers to go on with."""

from __future__ import annotations

import json
from dataclasses import asdict

from lrc_core.registry import ALLOCATORS
from lrc_core.results.identity import identified
from lrc_core.runs.spec import AllocateSpec, EvaluateSpec, ModelRef, UpdateSpec
from pages.ui.allocate import finished
from tests.factories import run_factory
from tests.pages.conftest import PAIRS, text_of


def test_what_has_been_computed_is_shown_and_not_started_again(open_page, known, store, card, submitted):
    """The same question of the same bytes started 480 steps, with the answer among the samples."""
    app = open_page("allocate", **PAIRS)
    app.pills(key="al_method").set_value("uniform").run()
    assert app.button(key="al_start")
    entry = ALLOCATORS.get("uniform")
    preset = next(iter(entry.presets))
    spec = AllocateSpec(ModelRef(), "uniform", "whitened", 0.8, preset, asdict(entry.settings(preset)))
    run = store.create(identified(spec))
    app.run()
    assert "al_start" not in {button.key for button in app.button}, "it waits already: the way to it is in its place"
    (run.path / "card.json").write_text((known.path / "card.json").read_text())
    plan = run_factory.plan_at(card, 0.8, "uniform")
    plan.save(run.path / "plan.json")
    run_factory.finish(run, {"plan": plan.to_dict()})
    app.run()
    assert "computed already" in text_of(app) and run.id in text_of(app)
    assert "al_start" not in {button.key for button in app.button}


def test_a_finished_job_shows_its_result_first_and_two_measurements(open_page, known, store, card, submitted):
    run = run_factory.allocate_run(store, card, keep=0.7)
    app = open_page("allocate", al_run=run.id)
    text = text_of(app)
    assert "not measured yet" in text and finished.summary(run_factory.plan_at(card, 0.7), card) in text
    before = app.button(key="al_measure_quick")
    before.click().run()
    ((spec, _),) = submitted
    assert isinstance(spec, EvaluateSpec) and spec.evaluation.max_windows == 10 and not spec.evaluation.tasks
    assert spec.plan["keep_target"] == 0.7


def test_a_finished_job_offers_the_tuning_that_the_best_is_made_of(open_page, known, store, card, submitted):
    run = run_factory.allocate_run(store, card, keep=0.7)
    app = open_page("allocate", al_run=run.id)
    app.button(key="al_tune").click().run()
    ((spec, _),) = submitted
    assert isinstance(spec, UpdateSpec) and spec.settings["kind"] == "tuned" and spec.plan["keep_target"] == 0.7
    made = store.create(identified(spec))
    app = open_page("allocate", al_run=run.id)
    assert "al_tune" not in {button.key for button in app.button}, "it waits: the way to it is in its place"
    run_factory.finish(made, {"perplexity": {"gensim": {"value": 22.5, "stderr": 1.0}}})
    app = open_page("allocate", al_run=run.id)
    assert "al_tune" not in {button.key for button in app.button} and "computed already" in text_of(app)


def test_a_damped_moment_is_a_note_and_no_warning(open_page, known, store, card):
    run = run_factory.allocate_run(store, card, keep=0.7)
    result = json.loads((run.path / "result.json").read_text())
    run_factory.finish(run, {**result, "warnings": ["The second moments of 1 layers were damped, most by 1.0e-06."]})
    app = open_page("allocate", al_run=run.id)
    assert not app.warning and "damped" in text_of(app)
