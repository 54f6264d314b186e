"""Runs: every state, and what can be done with a run."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from dataclasses import asdict, replace
from urllib.parse import parse_qsl

import pytest

from lrc_core import visitors, words
from lrc_core.errors import BudgetError, OtherModelError, ResourceError
from lrc_core.figures.measured import bar_name
from lrc_core.files import write_json
from lrc_core.formats.grids import BF16, Q8_0
from lrc_core.formats.sizes import layer_bytes
from lrc_core.jobs import manager, sharing
from lrc_core.jobs.launch import end_run
from lrc_core.kinds import KINDS
from lrc_core.names import decomposition_label, model_label
from lrc_core.paths import cache_home
from lrc_core.quality.quantised import quantised_plan
from lrc_core.results.archive import archive
from lrc_core.results.outcomes import outcome, quality_of
from lrc_core.results.plan_quality import measured_at
from lrc_core.runs.spec import EvaluateSpec, EvaluationSpec, GenerateSpec, ModelRef, UpdateSpec
from lrc_core.updates import UpdateSettings, update_settings
from pages.ui.allocate import finished
from pages.ui.shared import pictures
from pages.ui.shared.frame import PAGES
from pages.ui.shared.naming import file_name, told_apart
from tests.factories import run_factory, table_factory
from tests.pages.conftest import text_of


def test_empty_state_and_disk(open_page):
    app = open_page("runs")
    assert "No runs yet" in text_of(app)
    labels = {metric.label for metric in app.metric}
    assert "Free" in labels and any("cleaned" in label for label in labels)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_the_link_of_a_run_names_what_its_page_knows(open_page, kind):
    """An option that is no option would be dropped, and the page opened where it always does."""
    page, _, query = kind.page.partition("?")
    assert page in PAGES
    chosen = {name: value for name, value in parse_qsl(query) if value != "{id}"}
    app = open_page(page, **chosen)
    assert chosen.items() <= app.query_params.items()


def test_a_link_opens_the_measurements_that_it_names_and_leaves_the_choice_free(open_page, store, card):
    tasks = [EvaluationSpec(tasks=names, items=200) for names in (("arc_easy",), ("piqa",), ("boolq",))]
    runs = [table_factory.compare_run(store, card, evaluation=evaluation) for evaluation in tasks[:2]]
    runs.append(table_factory.evaluate_run(store, card, "llrc", 0.8, evaluation=tasks[2]))
    chosen = []
    for run in runs:
        page, _, query = KINDS[run.spec.kind].page.format(id=run.id).partition("?")
        app = open_page(page, **dict(parse_qsl(query)))
        places = app.selectbox(key="co_group")
        chosen.append(places.options[places.value])
        other = (places.value + 1) % len(places.options)
        assert places.select_index(other).run().selectbox(key="co_group").value == other
    assert len(set(chosen)) == len(runs) == len(places.options)


def test_every_job_is_listed_with_its_state(open_page, store, card):
    run_factory.spectra_run(store, card)
    run_factory.allocate_run(store, card, state="running")
    failed = run_factory.allocate_run(store, card, keep=0.6, state="queued")
    run_factory.set_state(failed, "failed", error="Out of memory.", remedy="Use fewer windows.")
    table = open_page("runs").dataframe[0].value
    assert set(table["State"]) == {"Finished", "Running", "Failed"}
    assert "LLRC at 40 %" in set(table["What"])


def test_a_waiting_job_says_how_many_stand_before_it(open_page, store, card, monkeypatch):
    run = run_factory.allocate_run(store, card, state="queued")
    monkeypatch.setattr(manager, "queue_position", lambda run_id: 3)
    assert "3 jobs" in text_of(open_page("runs", ru_run=run.id))


@pytest.mark.parametrize(
    "error", [OtherModelError("Of another model."), BudgetError("Too small."), ResourceError("Out of memory.")]
)
def test_resume_is_offered_where_it_may_help(open_page, store, card, error):
    run = run_factory.allocate_run(store, card, state="queued")
    end_run(store, run, run.status(), "failed", error)
    app = open_page("runs", ru_run=run.id)
    assert ("Resume" in {button.label for button in app.button}) == isinstance(error, ResourceError)
    assert error.message in text_of(app)


def test_detail_shows_command_settings_log_and_remedy(open_page, store, card):
    run = run_factory.allocate_run(store, card, keep=0.6, state="queued")
    run_factory.set_state(run, "failed", error="Out of memory.", remedy="Use fewer windows.")
    (run.path / "stdout.log").write_text("first line\nlast line\n")
    app = open_page("runs", ru_run=run.id)
    codes = "\n".join(code.value for code in app.code)
    assert "lrc allocate" in codes and '"keep": 0.6' in codes and "last line" in codes
    assert "Out of memory." in text_of(app) and "Use fewer windows." in text_of(app)
    assert all(code.proto.wrap_lines for code in app.code), "what only a mouse can scroll hides from the keyboard"


def test_why_a_worker_may_have_died_is_said(open_page, store, card):
    run = run_factory.allocate_run(store, card, state="queued")
    run_factory.set_state(run, "interrupted", error="The worker died.", remedy="Use fewer windows.")
    text = text_of(open_page("runs", ru_run=run.id))
    assert "The worker died." in text and "Use fewer windows." in text


def test_an_update_is_listed_with_its_plan_and_command(open_page, store, card):
    allocated = run_factory.allocate_run(store, card)
    plan = {**run_factory.plan_at(card, 0.8).to_dict(), "origin": {"run_id": allocated.id}}
    run = store.create(UpdateSpec(plan=plan, settings=asdict(UpdateSettings(kind="both"))))
    shutil.copyfile(allocated.path / "plan.json", run.path / "plan.json")
    run_factory.finish(run, {})
    app = open_page("runs", ru_run=run.id)
    assert any("LLRC at 20 %" in what and "both" in what for what in app.dataframe[0].value["What"])
    assert any("lrc update starter --plan" in code.value for code in app.code)
    assert not app.error


def test_delete_asks_first_and_then_deletes(open_page, store, card):
    run = run_factory.allocate_run(store, card)
    app = open_page("runs", ru_run=run.id)
    assert run.path.is_dir()
    app.button(key=f"ru_delete_{run.id}").click().run()
    assert not run.path.exists()
    assert "No runs yet" in text_of(app)


def test_a_running_job_can_be_cancelled_but_not_deleted(open_page, store, card, monkeypatch):
    run = run_factory.allocate_run(store, card, state="running")
    asked = []
    monkeypatch.setattr(manager, "cancel", asked.append)
    app = open_page("runs", ru_run=run.id)
    assert not any(button.key == f"ru_delete_{run.id}" for button in app.button)
    app.button(key=f"cancel_{run.id}").click().run()
    assert asked == [run.id]


def test_a_damaged_run_is_listed_and_can_be_deleted(open_page, store, card):
    run = run_factory.allocate_run(store, card)
    (run.path / "spec.json").write_text("{")
    app = open_page("runs", ru_run=run.id)
    assert "Damaged" in set(app.dataframe[0].value["State"])
    assert len(app.error) == 1
    app.button(key=f"ru_delete_{run.id}").click().run()
    assert not run.path.exists()


def test_a_run_that_vanishes_meanwhile_is_no_crash(open_page, store, card):
    run = run_factory.allocate_run(store, card)
    app = open_page("runs", ru_run=run.id)
    shutil.rmtree(run.path)
    app.run()
    assert not app.exception


def test_the_cache_can_be_cleaned_and_the_starter_pack_stays(open_page):
    folder = cache_home() / "decompositions" / "model-abc"
    folder.mkdir(parents=True)
    (folder / "factors.safetensors").write_bytes(b"x" * 2_500_000)
    (cache_home() / "starter").mkdir()
    app = open_page("runs")
    assert next(metric.value for metric in app.metric if metric.label.startswith("Computed")) == "2.5 MB"
    app.button(key="ru_clean").click().run()
    assert not folder.exists() and (cache_home() / "starter").is_dir()


def test_what_is_cached_has_a_name_a_model_a_text_and_a_date(open_page, store, card):
    run = run_factory.spectra_run(store, card)
    made = run.status().started_at + 1
    for place, known in (
        ("decompositions/kfac-7f48dd", {"decomposition": "kfac"}),
        ("moments/0a8d8f", {"tokens": 4096, "group_of": {}}),
    ):
        mark = cache_home() / place / "complete.json"
        mark.parent.mkdir(parents=True)
        mark.write_text(json.dumps({**known, "fingerprint": card.identity.fingerprint}))
        os.utime(mark, (made, made))
    table = open_page("runs").dataframe[-1].value
    named = table.set_index("Id")
    assert decomposition_label("kfac") in named.loc["kfac-7f48dd", "What"]
    assert "4,096" in named.loc["0a8d8f", "What"] and "0a8d8f" not in named.loc["0a8d8f", "What"]
    assert set(named["Text"]) == {", ".join(run.spec.calibration.texts)}
    assert set(named["Model"]) == {model_label(run.spec.model)} and all(named["Made"])


def test_report_of_a_comparison_and_of_nothing_else(open_page, store, card):
    run_factory.spectra_run(store, card)
    run = table_factory.quality_run(store, card)
    app = open_page("runs", ru_run=run.id)
    assert f"lrc report --compare {run.id}" in text_of(app)
    other = run_factory.allocate_run(store, card)
    assert "lrc report" not in text_of(open_page("runs", ru_run=other.id))


def test_a_plan_goes_on_to_an_update_and_the_page_follows(open_page, store, card, submitted):
    run = run_factory.allocate_run(store, card)
    app = open_page("runs", ru_run=run.id)
    app.selectbox(key=f"ru_update_{run.id}").set_value("tuned").run()
    app.number_input(key="ru_tuned_text_weight").set_value(0.25).run()
    app.button(key=f"ru_do_update_{run.id}").click().run()
    spec = submitted[0][0]
    assert isinstance(spec, UpdateSpec)
    assert spec.settings == asdict(update_settings({"kind": "tuned", "text_weight": 0.25}))
    assert spec.plan["keep_target"] == 0.8 and spec.calibration == run.spec.calibration
    assert app.selectbox(key="ru_run").value == spec.run_id
    assert re.search(r"Tune .*LLRC at 20 %", text_of(app))


def test_a_plan_goes_on_to_a_measurement_also_one_recorded_on_the_way(open_page, store, card, submitted):
    run = run_factory.allocate_run(store, card)
    (run.path / "plans").mkdir(exist_ok=True)
    run_factory.plan_at(card, 0.9).save(run.path / "plans" / "10.json")
    app = open_page("runs", ru_run=run.id)
    chosen = app.selectbox(key=f"ru_plan_{run.id}")
    assert chosen.value == run.id
    chosen.set_value(f"{run.id}@10").run()
    next(button for button in app.button if button.label == "Measure this plan").click().run()
    spec = submitted[0][0]
    assert isinstance(spec, EvaluateSpec) and spec.plan["keep_target"] == 0.9


def test_only_finished_plans_go_on(open_page, store, card, monkeypatch):
    waiting = run_factory.allocate_run(store, card, keep=0.6, state="queued")
    done = run_factory.allocate_run(store, card)
    label = "Go on with this plan"
    assert label not in {fold.label for fold in open_page("runs", ru_run=waiting.id).expander}
    assert label in {fold.label for fold in open_page("runs", ru_run=done.id).expander}
    monkeypatch.setenv("LRC_READ_ONLY", "1")
    assert label not in {fold.label for fold in open_page("runs", ru_run=done.id).expander}


def test_a_prompt_stands_in_the_table_as_it_was_asked(open_page, store, card):
    run = store.create(GenerateSpec(prompt=(prompt := "What is <b>2*3</b>?")))
    run_factory.set_state(run, "cancelled")
    app = open_page("runs", ru_run=run.id)
    assert any(prompt in what for what in app.dataframe[0].value["What"])
    assert "Phase" not in app.dataframe[0].value and prompt in text_of(app)
    assert not any(prompt in str(element.value) for element in app.markdown), "it is escaped"


def test_a_job_cancelled_in_the_queue_took_no_time(open_page, store, card):
    run = store.create(GenerateSpec(prompt="Hello"))
    status = run.status()
    run.write_status(replace(status, state="cancelled", ended_at=time.time() - 5))
    assert "before it began" in text_of(open_page("runs", ru_run=run.id))


def test_a_state_that_is_new_is_shown_unless_a_filter_hides_it(open_page, store, card):
    done = run_factory.allocate_run(store, card)
    app = open_page("runs")
    run_factory.allocate_run(store, card, keep=0.6, state="running")
    app.run()
    assert set(app.dataframe[0].value["State"]) == {"Finished", "Running"}
    app.pills(key="ru_states").set_value(["done"]).run()
    assert list(app.dataframe[0].value["Id"]) == [done.id]


def test_the_list_says_what_came_of_a_run(open_page, store, card):
    """Four rows were called "Uniform at 20 %", and nothing told them apart but their ids."""
    table_factory.compare_run(store, card, methods=("llrc",), keeps=(0.8,))
    run = run_factory.allocate_run(store, card, keep=0.8)
    waiting = run_factory.allocate_run(store, card, keep=0.6, state="queued")
    table = open_page("runs").dataframe[0].value.set_index("Id")
    (measured,) = [view.id for view in archive().runs(EvaluateSpec)]
    scores = json.loads((store.open(measured).path / "result.json").read_text())["perplexity"]
    assert table.loc[measured, "Result"] == "20 % removed"
    assert all(f"{score['value']:.2f}" in table.loc[measured, "Quality"] for score in scores.values())
    left = card.params_total - 0.2 * card.params_linear
    size = float(table.loc[run.id, "Result"].split()[0])
    assert size == pytest.approx(left / (1e6 if left > 1e6 else 1e3), rel=0.02)
    assert table.loc[waiting.id, "Result"] == table.loc[waiting.id, "Quality"] == ""


def test_a_plan_has_the_quality_that_another_run_measured(store, card):
    run = run_factory.allocate_run(store, card, keep=0.8)
    row = table_factory.row("llrc", 0.8, allocate_run_id=run.id)
    cell = store.create(EvaluateSpec(model=ModelRef(), plan=run_factory.plan_at(card, 0.8).to_dict()))
    run_factory.finish(cell, row)
    found = outcome(archive().job(run.id))
    assert found.quality == quality_of(row) and "±" in found.quality


def test_a_quick_measurement_says_that_it_is_one(store, card):
    """Of ten windows the dense model has another perplexity, too: the figure is none to set beside those of forty."""
    run = run_factory.allocate_run(store, card, keep=0.8, method="uniform")
    plan = run_factory.plan_at(card, 0.8, "uniform")
    for windows, said in ((10, True), (40, False)):
        spec = EvaluateSpec(plan=plan.to_dict(), evaluation=EvaluationSpec(max_windows=windows))
        cell = run_factory.finish(store.create(spec), table_factory.row("uniform", 0.8, allocate_run_id=run.id))
        assert ("10 windows" in outcome(archive().job(cell.id)).quality) == said
        assert ("10 windows" in outcome(archive().job(run.id)).quality) == said
        at = measured_at(ModelRef(), "uniform", plan.decomposition, "pair")[20][1]
        assert ("10 windows" in at) == said


def test_labels_that_are_alike_are_told_apart():
    alike = told_apart({"allocate-11112222aaaa": "Uniform", "allocate-11112222bbbb": "Uniform", "x": "LLRC"})
    assert len(set(alike.values())) == 3 and alike["x"] == "LLRC"
    assert file_name("SmolLM2-135M", "llrc", "20 % removed", ending="json") == (
        "smollm2-135m-llrc-20-percent-removed.json"
    )
    assert file_name("../..", "<b>", ending="csv") == "b.csv" and file_name("", "/", ending="csv") == "file.csv"


def test_a_visitor_of_a_shared_server_sees_whose_run_it_is_and_stops_none_of_others(
    open_page, store, card, monkeypatch
):
    own, other = (run_factory.allocate_run(store, card, keep=keep, state="running") for keep in (0.7, 0.6))
    for run, who in ((own, "a" * 32), (other, "b" * 32)):
        (run.path / sharing.OWNER).write_text(who)
    monkeypatch.setattr(visitors, "_who", lambda: "a" * 32)
    app = open_page("runs", ru_run=own.id)
    table = app.dataframe[0].value
    assert set(table["Started by"]) == {"you", visitors.shown("b" * 32)}
    assert not any(str(store.root) in caption.value for caption in app.caption), "where it lies on the server"
    assert f"cancel_{own.id}" in {button.key for button in app.button}
    assert f"cancel_{other.id}" not in {button.key for button in open_page("runs", ru_run=other.id).button}


def test_a_plan_with_number_formats_says_its_bytes_and_its_map_counts_them(store, card):
    """Such a plan removes bits: of all layers dense in 8 bits nothing is "removed", and yet it is half as large."""
    plan = quantised_plan(card, "Q8_0")
    spec = run_factory.allocate_spec(card, method="lagrangian", keep=1.0, budget="bytes:0.6", decomposition="kfac")
    run = store.create(spec)
    write_json(run.path / "card.json", card.to_dict())
    run_factory.finish(run, {"plan": plan.to_dict()})
    held = {True: Q8_0, False: BF16}  # rows of 48 are no whole blocks of 32
    spent = sum(layer_bytes(layer, layer.full_rank, held[layer.in_features % 32 == 0]) for layer in card.layers)
    share = spent / (2 * card.params_linear)
    found = outcome(archive().job(run.id)).result
    assert words.percent(share) in found and "0 % less" not in found
    assert words.data_size(spent + 2 * (card.params_total - card.params_linear)) in found
    row = table_factory.row("llrc", 0.99) | {"method": "lagrangian+bits", "formats": {"Q8_0": 4}, "bytes_share": share}
    assert words.percent(share) in bar_name(row) and "1 %" not in bar_name(row)
    assert f"{len(plan.formats)} in Q8_0" in finished.summary(plan, card)
    assert words.percent(34 / 64, 0) in pictures.kept_map(card, plan)
