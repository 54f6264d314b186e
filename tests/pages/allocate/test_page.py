"""Allocate: what follows from the slider at once, and the job that follows later."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.proto.WidgetStates_pb2 import WidgetState

from lrc_core import words
from lrc_core.allocate.curves.loss_curves import cheapest_ranks
from lrc_core.budget import fit_budget, is_dense, keep_ratio, stored, uniform_ranks
from lrc_core.errors import ResourceError
from lrc_core.jobs import manager
from lrc_core.quality.starter_bench import starter_words
from lrc_core.registry import ALLOCATORS
from lrc_core.results.archive import archive
from lrc_core.results.plans import nearest, recorded_plans
from lrc_core.results.series import LARGEST_RATE
from lrc_core.runs.spec import AllocateSpec, FetchSpec
from lrc_core.settings import fields_of
from pages.ui.shared import choices, state
from tests.factories import run_factory
from tests.pages.conftest import PAIRS, text_of

LEARNS = {**PAIRS, "al_method": "LLRC"}
"""The form as it was before the best stood first: links say it."""


def test_without_shapes_it_says_what_to_do(open_page, submitted):
    app = open_page("allocate")
    assert "not been read" in text_of(app)
    app.button(key="start_spectra").click().run()
    assert submitted[0][0].kind == "spectra"


def given(app):
    """What the slider was given."""
    return json.loads(app.get("bidi_component")[0].proto.json)


def slide(app, rate):
    """Let the slider go somewhere: what its component then sends."""
    states = app._tree.get_widget_states()
    payload = json.dumps([{"event": "released", "value": {"rate": rate, "n": 1}}])
    trigger = _make_trigger_id(app.get("bidi_component")[0].proto.id, "events")
    states.widgets.append(WidgetState(id=trigger, json_trigger_value=payload))
    return app._run(states)


def panel(app, key):
    """One of its heatmaps."""
    return next(panel for panel in given(app)["panels"] if panel["key"] == key)


def test_parameters_and_size_of_every_rate_are_handed_to_the_slider(open_page, known, card):
    found = given(open_page("allocate", **PAIRS, rate="30"))
    kept = card.params_total - round(0.3 * card.params_linear)
    assert found["rate"] == 30
    assert found["figures"]["total"][29] == words.count(kept)
    assert found["figures"]["size"][29] == words.data_size(2 * kept)
    even = next(panel for panel in found["panels"] if panel["key"] == "uniform")
    ranks = fit_budget(card.layers, uniform_ranks(card.layers, 0.7), 0.7)
    assert even["removed"][29] == pytest.approx(1 - keep_ratio(card.layers, ranks), abs=1e-5)
    assert "not measured" in even["badge"]


@pytest.mark.parametrize("rate", ["0", "200", "much"])
def test_a_rate_in_the_link_that_cannot_be_is_set_right(open_page, known, rate):
    assert 1 <= given(open_page("allocate", rate=rate))["rate"] <= LARGEST_RATE


def test_where_the_slider_is_let_go_is_the_rate_of_the_page_and_of_the_link(open_page, known):
    app = open_page("allocate")
    assert given(app)["rate"] == state.DEFAULT_RATE and state.RATE not in app.query_params
    slide(app, 31)
    assert given(app)["rate"] == 31 and app.query_params[state.RATE] == "31"
    slide(app, 900)
    assert given(app)["rate"] == LARGEST_RATE


def test_recorded_plans_are_marked_as_learned_and_can_be_taken_along(open_page, store, card, known):
    run = run_factory.allocate_run(store, card, keep=0.7)
    app = open_page("allocate", **PAIRS, rate="17")
    learned = panel(app, "learned")
    assert learned["rates"] == list(range(1, 31)) and learned["verb"] == "recorded at"
    assert learned["badge"] == "learned, recorded"
    assert run.id in text_of(app) and app.get("download_button")[0].proto.label == "Plan at 17 %"
    assert open_page("allocate", **PAIRS, rate="45").get("download_button")[0].proto.label == "Plan at 30 %"
    other = panel(open_page("allocate", rate="17", al_decomposition="Plain SVD", al_storage="Pairs"), "learned")
    assert other["rates"] == [] and other["badge"] == "nothing recorded yet" and "Plain SVD" in other["note"]


def test_storage_decides_what_is_shown_and_started(open_page, store, card, known):
    run_factory.allocate_run(store, card, keep=0.7)
    app = open_page("allocate", rate="20", al_decomposition=PAIRS["al_decomposition"], al_storage="Pivots")
    pivots = stored(card.layers, "pivoted")
    ranks = fit_budget(pivots, uniform_ranks(pivots, 0.8), 0.8)
    even, learned = panel(app, "uniform"), panel(app, "learned")
    assert even["removed"][19] == pytest.approx(1 - keep_ratio(pivots, ranks), abs=1e-5)
    assert learned["rates"] == [] and "pivots" in learned["note"], "a run under pairs is not one under pivots"
    assert [cell[3] for cell in given(app)["cells"]] == [layer.full_rank for layer in card.layers]
    assert "--storage" not in text_of(app)
    assert "--storage pair" in text_of(open_page("allocate", rate="20", **PAIRS))


def test_another_learned_run_can_be_chosen(open_page, store, card, known):
    first = run_factory.allocate_run(store, card, keep=0.7)
    second = run_factory.allocate_run(store, card, keep=0.9)
    app = open_page("allocate", **PAIRS)
    assert app.selectbox(key="al_learned").value == first.id and len(panel(app, "learned")["rates"]) == 30
    app.selectbox(key="al_learned").set_value(second.id).run()
    assert panel(app, "learned")["rates"] == list(range(1, 11))


def test_recorded_plans_on_other_factors_are_a_click_away(open_page, store, card, known):
    run_factory.allocate_run(store, card, keep=0.7)
    app = open_page("allocate")
    assert panel(app, "learned")["rates"] == []
    app.button(key="al_elsewhere").click().run()
    assert panel(app, "learned")["rates"] == list(range(1, 31))
    assert "al_elsewhere" not in {button.key for button in app.button}


def test_a_damaged_plan_is_named_and_the_rest_is_shown(open_page, store, card, known):
    run = run_factory.allocate_run(store, card, keep=0.7)
    (run.path / "plans" / "07.json").write_text("{", encoding="utf-8")
    app = open_page("allocate", **PAIRS)
    assert "07.json" in panel(app, "learned")["note"] and panel(app, "uniform")["rates"]


def test_the_ranks_are_there_as_a_table(open_page, store, card, known):
    run_factory.allocate_run(store, card, keep=0.7)
    assert not any("layer" in one.value for one in open_page("allocate", **PAIRS).dataframe)
    table = open_page("allocate", **PAIRS, rate="12", al_table="true").dataframe[0].value.set_index("layer")
    ranks = run_factory.plan_at(card, 0.88).full_ranks(card.layers)
    assert all(table.loc[layer.name, "LLRC at 12 %"] == ranks[layer.name] for layer in card.layers)
    assert "Uniform at 12 %" in table


def test_the_closed_form_plan_is_estimated_where_there_are_two_sided_spectra(open_page, store, card, known, submitted):
    app = open_page("allocate", **PAIRS, rate="30")
    assert "needs K-FAC spectra" in text_of(app)
    app.button(key="estimate_spectra").click().run()
    assert submitted[0][0].decompositions == ("kfac",)
    run = run_factory.spectra_run(store, card, decompositions=("svd", "kfac"))
    app = open_page("allocate", **PAIRS, rate="30")
    assert "nothing measured" in text_of(app) and run.id in text_of(app)
    losses = {layer.name: 0.5 * run_factory.sigma_of(layer, "kfac").astype(np.float32) ** 2 for layer in card.layers}
    ranks = cheapest_ranks(card.layers, losses, 0.7)
    dense = sum(is_dense(layer, ranks[layer.name]) for layer in card.layers)
    assert f"{dense} of {len(card.layers)} layers" in text_of(app)
    found = panel(app, "estimate")
    assert "estimate" in found["badge"] and "nothing measured" in found["badge"] and not any(found["said"])
    assert found["removed"][29] == pytest.approx(1 - keep_ratio(card.layers, ranks), abs=1e-5)


def test_form_comes_from_the_registry(open_page, known):
    assert not open_page("allocate", **LEARNS).number_input, "a closed fold draws nothing"
    app = open_page("allocate", **LEARNS, al_settings="true")
    entry = next(entry for entry in ALLOCATORS if entry.learns)
    labels = {widget.label for kind in (app.number_input, app.toggle, app.selectbox, app.text_input) for widget in kind}
    assert {info.label for info in fields_of(entry.settings_class)} <= labels


def test_button_submits_what_the_form_says_and_watches_it(open_page, known, submitted):
    app = open_page("allocate", **LEARNS, rate="25")
    app.button(key="al_start").click().run()
    spec = submitted[0][0]
    assert isinstance(spec, AllocateSpec)
    assert (spec.method, spec.keep, spec.decomposition) == ("llrc", 0.75, "whitened")
    first = next(iter(ALLOCATORS.get("llrc").presets))
    assert spec.preset == first
    assert spec.settings == vars(ALLOCATORS.get("llrc").settings(first))
    assert app.query_params["al_run"] == spec.run_id
    assert "Waiting" in text_of(app)


def marked(app):
    """Which of the three choices are marked."""
    keys = [one.key for one in app.button if one.key.startswith("al_take_")]
    return [key[8:] for key in keys if app.button(key=key).proto.icon == choices.CHOSEN]


def fold(app, label):
    return next(one for one in app.expander if one.label == label)


def test_the_best_that_was_measured_stands_first_and_every_method_behind_one_fold(open_page, known):
    app = open_page("allocate")
    assert marked(app) == ["best"]
    assert marked(open_page("allocate", al_update="none")) == ["fast"], "what tells them apart is in the link"
    assert marked(open_page("allocate", al_method="STRS", al_storage="Pairs")) == ["baseline"]
    table = next(one.value for one in app.dataframe if "As pivots" in one.value).set_index("Method")
    assert set(table.index) == {entry.label for entry in ALLOCATORS}
    assert set(app.pills(key="al_method").options) == {entry.label for entry in ALLOCATORS}


@pytest.mark.parametrize(
    ("label", "method", "storage"),
    [("fast", "lagrangian", "pivoted"), ("best", "lagrangian", "pivoted"), ("baseline", "uniform", "pair")],
)
def test_one_of_three_choices_sets_the_form(open_page, known, submitted, label, method, storage):
    app = open_page("allocate", **LEARNS)
    assert marked(app) == [] and fold(app, "All methods").proto.expanded
    app.button(key=f"al_take_{label}").click().run()
    assert not submitted, "choosing starts nothing"
    assert marked(app) == [label] and not fold(app, "All methods").proto.expanded
    app.button(key="al_start").click().run()
    spec = submitted[0][0]
    assert (spec.method, spec.decomposition, spec.storage) == (method, "kfac", storage)
    assert starter_words(method) in text_of(app)


def test_a_setting_that_is_changed_is_in_the_spec_and_in_the_command(open_page, known, submitted):
    app = open_page("allocate", al_method="STRS", al_settings="true")
    info = next(info for info in fields_of(ALLOCATORS.get("strs").settings_class) if info.type is int)
    preset = next(iter(ALLOCATORS.get("strs").presets))
    widget = app.number_input(key=f"al_strs_{preset}_{info.name}")
    value = int(widget.value) + 1
    widget.set_value(value).run()
    app.button(key="al_start").click().run()
    assert submitted[0][0].settings[info.name] == value
    assert any("lrc allocate" in code.value for code in app.code)


def test_a_changed_setting_counts_while_the_fold_is_closed(open_page, known, submitted):
    entry = ALLOCATORS.get("strs")
    preset = next(iter(entry.presets))
    info = next(info for info in fields_of(entry.settings_class) if info.type is int)
    value = getattr(entry.settings(preset), info.name) + 1
    app = open_page("allocate", al_method="STRS", **{f"al_strs_{preset}_{info.name}": str(value)})
    app.button(key="al_start").click().run()
    assert submitted[0][0].settings[info.name] == value


def test_a_refused_job_is_an_error_in_words(open_page, known, monkeypatch):
    def refuse(spec, **_):
        raise ResourceError("Not enough disk.", "Free some space.")

    monkeypatch.setattr(manager, "submit", refuse)
    app = open_page("allocate")
    app.button(key="al_start").click().run()
    assert "Not enough disk." in text_of(app) and "Free some space." in text_of(app)


def switched_on(app):
    """The page with jobs starting by themselves."""
    return app.toggle(key="al_auto").set_value(True).run()


def test_starting_by_itself_is_off_until_switched_on_whatever_was_done_before(open_page, known, store, submitted):
    """After a first job it was on without anyone having touched it, and looking at sizes started a training."""
    run_factory.finish(store.create(FetchSpec()), {})
    app = open_page("allocate")
    assert app.toggle(key="al_auto").value is False
    slide(app, 31)
    app.session_state["al_moved_at"] = time.monotonic() - 1000
    app.toggle(key="al_auto").set_value(True).run()
    assert not submitted, "what was moved before it was switched on starts nothing"
    slide(app, 32)
    assert "starts in" in text_of(app) and app.button(key="al_not_now")


def test_a_link_alone_never_starts_a_job(open_page, known, submitted):
    app = open_page("allocate", rate="33", al_auto="true")
    app.run()
    assert not submitted and "starts in" not in text_of(app)


def test_after_the_slider_rests_the_job_starts_and_replaces_only_queued_ones(open_page, known, submitted, monkeypatch):
    replaced = []
    monkeypatch.setattr(manager, "replace_queued", lambda spec: replaced.append(spec.run_id))
    monkeypatch.setattr(state, "QUIET_S", 1000.0)
    app = switched_on(open_page("allocate"))
    slide(app, 26)
    assert "starts in" in text_of(app) and not submitted
    app.session_state["al_moved_at"] = time.monotonic() - 1001
    app.run()
    assert [spec.keep for spec, _ in submitted] == [0.74]
    assert replaced == [submitted[0][0].run_id]
    app.run()
    assert len(submitted) == 1


def test_choosing_a_method_starts_nothing_but_begins_a_countdown_anew(open_page, known, submitted, monkeypatch):
    monkeypatch.setattr(state, "QUIET_S", 1000.0)
    app = switched_on(open_page("allocate"))
    app.pills(key="al_method").set_value("uniform").run()
    assert "starts in" not in text_of(app) and not submitted
    slide(app, 26)
    app.session_state["al_moved_at"] = time.monotonic() - 999
    app.pills(key="al_method").set_value("lagrangian").run()
    assert "starts in" in text_of(app)
    assert time.monotonic() - app.session_state["al_moved_at"] < 500 and not submitted


def test_not_now_stops_the_countdown(open_page, known, submitted, monkeypatch):
    monkeypatch.setattr(state, "QUIET_S", 1000.0)
    app = switched_on(open_page("allocate"))
    slide(app, 26)
    app.button(key="al_not_now").click().run()
    assert "starts in" not in text_of(app) and not submitted


def test_a_rate_that_a_finished_run_passed_starts_nothing(open_page, store, card, known, submitted):
    entry = ALLOCATORS.get("llrc")
    preset = next(iter(entry.presets))
    spec = run_factory.allocate_spec(card, keep=0.7, preset=preset, settings=vars(entry.settings(preset)))
    run = store.create(spec)
    (run.path / "card.json").write_text((known.path / "card.json").read_text())
    run_factory.train(run, card, 0.7, run_factory.STEPS)
    run_factory.finish(run, {})
    app = switched_on(open_page("allocate", **LEARNS))
    slide(app, 12)
    assert "finished run answers" in text_of(app) and not submitted


def test_live_view_of_a_running_job(open_page, store, card, known):
    run = run_factory.allocate_run(store, card, keep=0.8, state="running")
    app = open_page("allocate")
    assert "Running" in text_of(app)
    assert json.loads(app.get("bidi_component")[-1].proto.json)["frames"]["step"][-1] == 30
    assert "step 30 of 60" in app.get("progress")[0].proto.text and "left" in app.get("progress")[0].proto.text
    assert {metric.label for metric in app.metric} >= {"Compression now", "Target", "Speed", "Memory"}
    assert app.button(key=f"cancel_{run.id}").label == "Cancel"


def test_live_view_before_the_first_step_and_with_a_half_line(open_page, store, card, known):
    run = run_factory.allocate_run(store, card, keep=0.8, state="queued")
    run_factory.set_state(run, "running", 0)
    assert "has not begun" in text_of(open_page("allocate"))
    (run.path / "events.jsonl").write_bytes(
        b'{"t": 1, "phase": "x", "step": 1, "total": 2, "values": {"keep": 0.9, "lo'
    )
    assert "has not begun" in text_of(open_page("allocate"))


@pytest.mark.parametrize("state", ["failed", "cancelled", "interrupted"])
def test_stopped_jobs_can_be_resumed(open_page, store, card, known, state, monkeypatch):
    run = run_factory.allocate_run(store, card, keep=0.8, state="running")
    run_factory.set_state(run, state, 30, error="Out of memory.", remedy="Use fewer windows.")
    asked = []
    monkeypatch.setattr(manager, "resume", lambda run_id, *, on=None: asked.append(run_id))
    app = open_page("allocate", al_run=run.id)
    if state == "failed":
        assert "Out of memory." in text_of(app) and "Use fewer windows." in text_of(app)
    app.button(key=f"resume_{run.id}").click().run()
    assert asked == [run.id]


def test_unknown_run_in_the_link(open_page, known):
    assert "no run allocate-nothing" in text_of(open_page("allocate", al_run="allocate-nothing"))


def test_nearest_prefers_the_distance_then_the_final_plan(store, card):
    run_factory.allocate_run(store, card, keep=0.8)
    plans = recorded_plans(archive().runs(AllocateSpec))
    assert nearest(plans, 0.8).final
    assert nearest(plans, 0.93).keep == 0.93
    assert nearest([], 0.9) is None


def test_a_method_that_prunes_says_so(open_page, known, submitted):
    app = open_page("allocate", al_method="LLM-Pruner")
    button = app.button(key="al_start")
    assert button.label == "Prune at 20 %"
    button.click().run()
    assert (submitted[0][0].method, submitted[0][0].storage) == ("llm_pruner", "pair")  # it makes no factors to store
    assert submitted[0][0].settings["ranking"] == "uniform"


def test_a_calibration_text_that_does_not_exist_is_refused_before_the_job(open_page, known, submitted):
    app = open_page("allocate", **LEARNS, al_cal_texts="foo, bar")
    assert app.error and "foo" in str(app.error[0].proto) and not app.exception
    assert "al_start" not in {button.key for button in app.button} and not submitted
    assert not open_page("allocate", **LEARNS, al_cal_texts="wiki, owner/name").error
