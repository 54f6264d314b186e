"""The update job on a tiny model saved as a folder: its files, what measures it, and comparisons of updated plans."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from lrc_core.cli.parser import build_parser
from lrc_core.errors import CancelledError, PlanError
from lrc_core.kinds import KINDS, command_for
from lrc_core.plan import Plan
from lrc_core.results.plans import find_plan
from lrc_core.runs.spec import (
    AllocateSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    ModelRef,
    UpdateSpec,
    spec_from_dict,
)
from lrc_core.runs.store import Run, RunStore
from lrc_core.updates import BlockwiseSettings, TuningSettings, UpdateSettings
from tests.factories.pipeline_helpers import SUCCESSIVE, only_preset, result_of, run
from tests.tree import ROOT

SAMPLES = ROOT / "assets" / "samples"
LEFT = asdict(UpdateSettings())


def update_of_run(allocated: Run, calibration: CalibrationSpec, **settings: Any) -> UpdateSpec:
    plan = Plan.load(allocated.path / "plan.json").to_dict()
    return UpdateSpec(allocated.spec.model, plan, "", {**LEFT, **settings}, calibration)


@pytest.mark.parametrize("decomposition", ["whitened", "kfac"])
@pytest.mark.parametrize("kind", ["left", "both"])
def test_an_updated_plan_is_measured_with_its_weights(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec, decomposition: str, kind: str
) -> None:
    allocated = run(AllocateSpec(model, keep=0.5, decomposition=decomposition, calibration=calibration))
    updated = run(update_of_run(allocated, calibration, kind=kind))
    before, plan = (Plan.load(folder.path / "plan.json") for folder in (allocated, updated))
    result = result_of(updated)
    assert (plan.ranks, plan.dense, plan.keep_achieved) == (before.ranks, before.dense, before.keep_achieved)
    assert (plan.weights_file, plan.kept, plan.update) == ("weights.safetensors", None, kind)
    assert plan.origin["run_id"] == updated.id
    assert plan.origin["allocate_run_id"] == allocated.id
    assert result["plan"] == plan.to_dict()
    assert result["details"]["layers"] > 0.8 * len(plan.ranks)
    assert result["details"]["mean_error_after"] < result["details"]["mean_error_before"]
    weights = load_file(updated.path / "weights.safetensors")
    assert {name.rpartition(".")[0] for name in weights} == set(plan.ranks)
    assert not (updated.path / "checkpoint" / "update").exists()
    found = find_plan(updated.id, RunStore())
    assert (found.folder, found.calibration) == (updated.id, calibration)
    parts: dict[str, Any] = {"calibration": calibration, "evaluation": evaluation}
    plain = result_of(run(EvaluateSpec(model, plan=before.to_dict(), **parts)))
    spec = EvaluateSpec(model, plan=found.plan, plan_folder=found.folder, **parts)
    row = result_of(run(spec))
    assert f"--plan {updated.id} " in command_for(spec) + " "
    text = evaluation.texts[0]
    assert row["perplexity"][text]["value"] != plain["perplexity"][text]["value"]
    assert (row["update"], row["update_run_id"], row["allocate_run_id"]) == (kind, updated.id, allocated.id)
    assert row["cost"]["params"] == plain["cost"]["params"]
    assert "update" not in plain


def test_weights_are_enough_when_the_decomposition_is_gone(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocated = run(AllocateSpec(model, keep=0.5, calibration=calibration))
    updated = run(update_of_run(allocated, calibration))
    found = find_plan(updated.id, RunStore())

    def must_not_run(*_: Any) -> Any:
        raise AssertionError("decomposed for a plan that brings its factors along")

    monkeypatch.setattr("lrc_core.pipeline.session.factors_for", must_not_run)
    run(EvaluateSpec(model, found.plan, found.folder, calibration, evaluation))
    (updated.path / "weights.safetensors").unlink()
    with pytest.raises(PlanError, match=r"needs the file weights\.safetensors"):
        run(EvaluateSpec(model, found.plan, found.folder, calibration, replace(evaluation, seed=1)))


def test_recorded_and_updated_plans_can_be_updated(model: ModelRef, calibration: CalibrationSpec) -> None:
    """Any-k plans with indices of their own, and plans with weights of their own."""
    allocated = run(AllocateSpec(model, keep=0.5, calibration=calibration))
    plan = Plan.load(allocated.path / "plan.json")
    any_k = {name: (*range(1, rank), rank + 1) for name, rank in plan.ranks.items()}
    (allocated.path / "plans").mkdir()
    replace(plan, kept=any_k).save(allocated.path / "plans" / "40.json")
    found = find_plan(f"{allocated.id}@40", RunStore())
    once = run(UpdateSpec(model, found.plan, found.folder, LEFT, calibration))
    assert Plan.load(once.path / "plan.json").kept is None
    spec = update_of_run(once, calibration, kind="both")
    twice = run(replace(spec, plan_folder=once.id))
    assert result_of(twice)["details"]["layers"] > 0
    origin = Plan.load(twice.path / "plan.json").origin
    assert (origin["run_id"], origin["allocate_run_id"], origin["update"]["kind"]) == (twice.id, allocated.id, "both")


def test_a_dense_plan_stays_what_it_is(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec
) -> None:
    allocated = run(AllocateSpec(model, keep=1.0, calibration=calibration))
    updated = run(update_of_run(allocated, calibration))
    plan = Plan.load(updated.path / "plan.json")
    assert (plan.weights_file, dict(plan.ranks)) == (None, {})
    assert not (updated.path / "weights.safetensors").exists()
    dense = result_of(run(EvaluateSpec(model, evaluation=evaluation)))
    row = result_of(run(EvaluateSpec(model, plan.to_dict(), "", calibration, evaluation)))
    assert row["perplexity"] == dense["perplexity"]


def test_a_cancelled_update_goes_on_behind_its_finished_blocks(
    model: ModelRef, calibration: CalibrationSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = update_of_run(run(AllocateSpec(model, keep=0.5, calibration=calibration)), calibration)
    whole = run(spec)
    monkeypatch.setenv("LRC_RUNS", str(tmp_path / "other-runs"))
    with pytest.raises(CancelledError):
        run(spec, stop_at="updating factors", stop_after=40)  # five rounds of five batches a block
    stopped = RunStore().create(spec)
    assert stopped.status().state == "cancelled"
    assert not (stopped.path / "plan.json").exists()
    assert len(list((stopped.path / "checkpoint" / "update").glob("*.safetensors"))) == 1
    resumed = run(spec)
    first, second = (load_file(found.path / "weights.safetensors") for found in (whole, resumed))
    assert all((first[name] == second[name]).all() for name in first)
    assert result_of(resumed)["details"] == result_of(whole)["details"]


@pytest.mark.parametrize(
    ("settings", "stop", "file"),
    [
        (LEFT, ("updating factors", 40), "block-0000.safetensors"),
        (asdict(TuningSettings(documents=40, window=32, check_windows=8)), ("tuning factors", 3), "tuning.pt"),
    ],
    ids=["left", "tuned"],
)
def test_an_update_goes_on_from_a_damaged_checkpoint(
    model: ModelRef,
    calibration: CalibrationSpec,
    settings: dict[str, Any],
    stop: tuple[str, int],
    file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = update_of_run(run(AllocateSpec(model, keep=0.5, calibration=calibration)), calibration)
    spec = replace(spec, settings=settings)
    whole = run(spec)
    monkeypatch.setenv("LRC_RUNS", str(tmp_path / "other-runs"))
    with pytest.raises(CancelledError):
        run(spec, stop_at=stop[0], stop_after=stop[1])
    found = (RunStore().create(spec).path / "checkpoint" / "update").glob("*.*")
    (kept,) = (path for path in found if path.suffix != ".sha256")
    assert kept.name == file
    kept.write_bytes(kept.read_bytes()[:300])
    resumed = run(spec)
    first, second = (load_file(found.path / "weights.safetensors") for found in (whole, resumed))
    assert all((first[name] == second[name]).all() for name in first)
    assert any(f"{file}.damaged" in warning for warning in result_of(resumed)["warnings"])


def test_fewer_windows_and_the_other_target_give_other_factors(model: ModelRef, calibration: CalibrationSpec) -> None:
    allocated = run(AllocateSpec(model, keep=0.5, calibration=calibration))
    runs = [
        run(update_of_run(allocated, calibration, **settings))
        for settings in ({}, {"use_windows": 10}, {"use_windows": 400}, {"target": "compressed"})
    ]
    found = [load_file(part.path / "weights.safetensors") for part in runs]
    name = f"{max(result_of(runs[0])['plan']['ranks'])}.left"
    same = [bool((found[0][name] == other[name]).all()) for other in found]
    assert same == [True, False, True, False]


def test_a_comparison_measures_every_method_updated(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec
) -> None:
    parts: dict[str, Any] = {"calibration": calibration, "evaluation": evaluation}
    plain = run(CompareSpec(model, methods=("uniform",), keeps=(1.0, 0.6, 0.5), **parts))
    store = RunStore()
    before = set(store.ids())
    updated = run(CompareSpec(model, methods=("uniform",), keeps=(1.0, 0.6, 0.5), update="both", **parts))
    rows, other = result_of(updated)["rows"], result_of(plain)["rows"]
    assert [(row["method"], row.get("update")) for row in rows] == [("dense", None), *[("uniform", "both")] * 3]
    assert rows[0] == other[0]
    assert rows[1]["perplexity"] == other[1]["perplexity"]  # nothing was compressed, nothing changes
    for row, plain_row in zip(rows[2:], other[2:], strict=True):
        assert row["keep_achieved"] == plain_row["keep_achieved"]
        assert row["allocate_run_id"] == plain_row["allocate_run_id"]
        assert row["perplexity"] != plain_row["perplexity"]
    kinds = [name.split("-")[0] for name in set(store.ids()) - before]
    assert {kind: kinds.count(kind) for kind in kinds} == {"compare": 1, "update": 3, "evaluate": 3}
    evaluated = store.open(rows[2]["run_id"]).spec
    assert isinstance(evaluated, EvaluateSpec)
    assert evaluated.plan_folder == rows[2]["update_run_id"]  # no path of this machine in the record


def test_a_tuned_plan_is_measured_with_its_weights(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec
) -> None:
    allocated = run(AllocateSpec(model, keep=0.5, calibration=calibration))
    before = Plan.load(allocated.path / "plan.json")
    settings = asdict(TuningSettings(documents=40, window=32, check_windows=8, rate=0.02))
    tuned = run(UpdateSpec(model, before.to_dict(), "", settings, calibration))
    plan, details = Plan.load(tuned.path / "plan.json"), result_of(tuned)["details"]
    assert (plan.ranks, plan.keep_achieved, plan.update) == (before.ranks, before.keep_achieved, "tuned")
    assert (details["layers"], details["steps"]) == (len(plan.ranks), 10)
    assert details["loss_after"] < details["loss_before"]
    assert not (tuned.path / "checkpoint" / "update").exists()
    spec = EvaluateSpec(model, plan.to_dict(), tuned.id, calibration, evaluation)
    row = result_of(run(spec))
    assert (row["update"], row["update_run_id"], row["allocate_run_id"]) == ("tuned", tuned.id, allocated.id)
    assert row["cost"]["params"] == plan_params(model, before, calibration, evaluation)
    line = command_for(tuned.spec)
    assert f"--plan {allocated.id} --kind tuned " in line
    assert "--set rate=0.02" in line
    arguments = build_parser().parse_args(shlex.split(line)[1:])
    assert KINDS["update"].spec_from(arguments, RunStore()).run_id == tuned.id


def test_a_plan_is_refined_block_by_block_then_tuned_and_measured(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec
) -> None:
    small = {"documents": 24, "window": 32, "check_windows": 8, "rate": 0.01}
    allocated = run(AllocateSpec(model, keep=0.5, calibration=calibration, storage="pivoted"))
    before = Plan.load(allocated.path / "plan.json")
    settings = asdict(BlockwiseSettings(**small, passes=1))
    refined = run(UpdateSpec(model, before.to_dict(), "", settings, calibration))
    plan, details = Plan.load(refined.path / "plan.json"), result_of(refined)["details"]
    assert (plan.ranks, plan.keep_achieved, plan.storage, plan.update) == (
        before.ranks, before.keep_achieved, "pivoted", "blockwise",
    )  # fmt: skip
    assert details["mean_error_after"] < details["mean_error_before"]
    assert details["steps"] == 6 * result_of(refined)["card"]["n_blocks"]
    assert not (refined.path / "checkpoint" / "update").exists()
    tuned = run(UpdateSpec(model, plan.to_dict(), refined.id, asdict(TuningSettings(**small)), calibration))
    both = Plan.load(tuned.path / "plan.json")
    assert (both.update, both.origin["allocate_run_id"]) == ("blockwise+tuned", allocated.id)
    row = result_of(run(EvaluateSpec(model, both.to_dict(), tuned.id, calibration, evaluation)))
    assert (row["update"], row["storage"]) == ("blockwise+tuned", "pivoted")
    assert row["cost"]["params"] == plan_params(model, before, calibration, evaluation)
    again = run(UpdateSpec(model, both.to_dict(), tuned.id, LEFT, calibration))
    assert Plan.load(again.path / "plan.json").update == "left"  # a fit begins anew from the dense outputs
    line = command_for(refined.spec)
    assert "--kind blockwise " in line
    arguments = build_parser().parse_args(shlex.split(line)[1:])
    assert KINDS["update"].spec_from(arguments, RunStore()).run_id == refined.id


def test_a_stopped_refinement_goes_on_to_the_same_bytes(
    model: ModelRef, calibration: CalibrationSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = asdict(BlockwiseSettings(documents=24, window=32, check_windows=8, rate=0.01, passes=1))
    allocated = run(AllocateSpec(model, keep=0.5, calibration=calibration))
    spec = replace(update_of_run(allocated, calibration), settings=settings)
    whole = run(spec)
    monkeypatch.setenv("LRC_RUNS", str(tmp_path / "other-runs"))
    with pytest.raises(CancelledError):
        run(spec, stop_at="refining", stop_after=9)  # inside the second block
    parts = RunStore().open(spec.run_id).path / "checkpoint" / "update"
    assert (parts / "block-0000.safetensors").exists()
    assert (parts / "training-0001.pt").exists()
    resumed = run(spec)
    assert (resumed.path / "weights.safetensors").read_bytes() == (whole.path / "weights.safetensors").read_bytes()
    assert result_of(resumed)["details"] == result_of(whole)["details"]


def plan_params(model: ModelRef, plan: Plan, calibration: CalibrationSpec, evaluation: EvaluationSpec) -> int:
    """Parameters that a plan as allocated is measured to have."""
    return int(result_of(run(EvaluateSpec(model, plan.to_dict(), "", calibration, evaluation)))["cost"]["params"])


def test_gains_come_along_into_an_update(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that brings a file along is updated from that file, also inside a comparison."""
    only_preset(monkeypatch, "successive", SUCCESSIVE)
    parts: dict[str, Any] = {"calibration": calibration, "evaluation": evaluation}
    compared = run(CompareSpec(model, methods=("successive",), keeps=(0.6, 0.5), update="left", **parts))
    rows = result_of(compared)["rows"][1:]
    assert [row["update"] for row in rows] == ["left", "left"]
    for row in rows:
        update = RunStore().open(row["update_run_id"]).spec
        assert isinstance(update, UpdateSpec)
        assert update.plan["weights_file"]
        assert (RunStore().root / update.plan_folder / update.plan["weights_file"]).is_file()


def test_older_runs_keep_their_ids() -> None:
    """A field that came later is not in the record while it is at its default."""
    for path in SAMPLES.glob("*/spec.json"):
        spec = spec_from_dict(json.loads(path.read_text()))
        assert spec.run_id == path.parent.name
    assert "update" not in CompareSpec().to_dict()
    assert CompareSpec(update="left").to_dict()["update"] == "left"
    assert CompareSpec(update="left").run_id != CompareSpec().run_id
    for found in (CompareSpec(), CompareSpec(update="left"), UpdateSpec(settings=LEFT)):
        assert spec_from_dict(found.to_dict()) == found
