"""Take it away: the same fold on four pages starts an export, and shows what came of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lrc_core.folders.ways import ways_to_load
from lrc_core.results.drafts import saved_plans
from lrc_core.results.plans import find_plan, shipped_without_factors
from lrc_core.runs.spec import EvaluateSpec, ExportSpec
from tests.factories import run_factory, table_factory
from tests.pages.conftest import text_of


def finished_export(store, spec, folder: Path):
    run = store.create(spec)
    result = {
        "folder": str(folder),
        "folder_bytes": 3_000_000,
        "weight_bytes": 2_000_000,
        "base_weight_bytes": 4_000_000,
        "dtype": "bfloat16",
        "check": {"equal": True},
        "ways": [vars(way) for way in ways_to_load(str(folder), "lowrank")],
    }
    return run_factory.finish(run, result)


@pytest.mark.parametrize("page", ["runs", "allocate"])
def test_a_finished_plan_is_exported_from_its_run(open_page, store, card, submitted, page, tmp_path):
    run_factory.spectra_run(store, card)
    run = run_factory.allocate_run(store, card)
    prefix = f"ru_{run.id}" if page == "runs" else "al"
    link = {f"{'ru' if page == 'runs' else 'al'}_run": run.id, f"{prefix}_take_away": "true"}
    app = open_page(page, **link)
    assert any(code.value.startswith(f"lrc export {run.id} starter") for code in app.code)
    app.text_input(key=f"{prefix}_take_to").set_value(str(tmp_path / "new")).run()
    app.selectbox(key=f"{prefix}_take_dtype").set_value("bfloat16").run()
    app.button(key=f"{prefix}_take_start").click().run()
    spec = submitted[0][0]
    assert isinstance(spec, ExportSpec) and dict(spec.plan) == find_plan(run.id, store).plan
    assert (spec.to, spec.form, spec.dtype) == (str(tmp_path / "new"), "lowrank", "bfloat16")
    assert any(button.key == f"cancel_{spec.run_id}" for button in app.button)


def test_the_folder_is_shown_with_three_ways_to_load_it_until_it_is_gone(open_page, store, card, tmp_path):
    run = run_factory.allocate_run(store, card)
    (tmp_path / "small").mkdir()
    made = finished_export(store, ExportSpec(plan=find_plan(run.id, store).plan), tmp_path / "small")
    for link in ({"ru_run": made.id}, {"ru_run": run.id, f"ru_{run.id}_take_away": "true"}):
        codes = [code.value for code in open_page("runs", **link).code]
        assert str(tmp_path / "small") in codes
        assert {way.code for way in ways_to_load(str(tmp_path / "small"), "lowrank")} <= set(codes)
    (tmp_path / "small").rmdir()
    assert "is gone" in text_of(open_page("runs", ru_run=made.id))


def test_a_plan_by_hand_is_saved_and_exported(open_page, store, card, submitted):
    run_factory.spectra_run(store, card)
    app = open_page("plans", pl_take_away="true")
    app.button(key="pl_take_start").click().run()
    spec = submitted[0][0]
    assert spec.plan["method"] == "hand" and len(saved_plans(card)) == 1


def test_measured_plans_are_exported_from_compare(open_page, store, card, submitted):
    run_factory.spectra_run(store, card)
    table_factory.compare_run(store, card)
    app = open_page("compare", co_take_away="true")
    labels = app.selectbox(key="co_take_plan").options
    assert "LLRC at 20 %" in labels and not any("Dense" in label for label in labels)


def test_a_guest_sees_the_command_alone(open_page, samples, card, monkeypatch):
    run = run_factory.allocate_run(samples, card)
    monkeypatch.setenv("LRC_READ_ONLY", "1")
    app = open_page("runs", ru_run=run.id, **{f"ru_{run.id}_take_away": "true"})
    assert not any("take_start" in str(button.key) for button in app.button)
    assert f"lrc export {run.id} starter --to" in text_of(app)


def test_a_shipped_plan_is_left_out_where_its_factors_did_not_ship(samples, store, card):
    plan = replace(run_factory.plan_at(card, 0.8), weights_file="weights.safetensors", digests={})
    spec = EvaluateSpec(plan=json.loads(json.dumps(plan.to_dict())), plan_folder="update-0")
    shipped = run_factory.finish(samples.create(spec), {})
    assert shipped_without_factors(shipped.id, store)
    own = run_factory.finish(store.create(replace(spec, plan_folder="elsewhere")), {})
    assert not shipped_without_factors(own.id, store)
    assert not shipped_without_factors(run_factory.allocate_run(samples, card, method="uniform", keep=0.8).id, store)
