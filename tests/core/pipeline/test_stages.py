"""Jobs of every kind, on a tiny model saved as a folder and a text file, through real run folders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lrc_core.budget import fit_budget, plan_params, uniform_ranks
from lrc_core.errors import CancelledError, LrcError, ModelError, NumericalError, PlanError, TextError
from lrc_core.evaluate.perplexity import perplexity
from lrc_core.kinds import check
from lrc_core.lowrank.apply import compressed
from lrc_core.lowrank.structure import read_structure, restructured
from lrc_core.models.blocks.linears import block_linears, get_module, weight_of
from lrc_core.models.load import load_model
from lrc_core.pipeline import allocation
from lrc_core.pipeline.session import Session
from lrc_core.plan import Plan
from lrc_core.quality.speeds import DECODE, pace_of
from lrc_core.registry import ALLOCATORS
from lrc_core.results.plans import find_plan
from lrc_core.runs.spec import (
    AllocateSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    FetchSpec,
    ModelRef,
    Spec,
    SpectraSpec,
)
from lrc_core.runs.store import Run, RunStore
from lrc_core.texts.windows import sequential_windows
from lrc_core.types import ModelCard
from tests.factories.pipeline_helpers import LLRC, only_preset, result_of, run
from tests.factories.tiny_methods import MemoryFactors, random_windows
from tests.factories.tiny_models import BLOCKS, save_tiny

STRS: dict[str, Any] = {"windows": 2, "window": 16, "step": 0.4}
PRUNER: dict[str, Any] = {"windows": 4, "window": 16}
TUNED: dict[str, Any] = {
    **PRUNER,
    "documents": 8,
    "training_window": 24,
    "batch": 4,
    "epochs": 4,
    "learning_rate": 1e-2,
}


@pytest.fixture(autouse=True)
def small_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons take the first preset of a method: make it one for a tiny model."""
    for name, settings in (("llrc", LLRC), ("strs", STRS), ("llm_pruner", PRUNER), ("llm_pruner_lora", TUNED)):
        only_preset(monkeypatch, name, settings)


def card_of(found: Run) -> ModelCard:
    return ModelCard.from_dict(json.loads((found.path / "card.json").read_text()))


def fails(spec: Spec, error: type[LrcError], words: str) -> None:
    """The error reaches the caller, and whoever reads the run folder."""
    with pytest.raises(error, match=words):
        run(spec)
    status = RunStore().create(spec).status()
    assert status.state == "failed"
    assert status.error


# -- looking at a model -------------------------------------------------------------------------------------------


def test_fetch_leaves_the_card(model: ModelRef) -> None:
    found = run(FetchSpec(model))
    card = card_of(found)
    assert result_of(found)["card"] == json.loads(json.dumps(card.to_dict()))
    assert (card.n_blocks, len(card.layers), card.identity.source) == (BLOCKS, 7 * BLOCKS, model.source)
    assert card.params_linear == sum(layer.params for layer in card.layers)
    assert len(card.identity.fingerprint) == 64


def test_spectra_leave_every_layer_under_every_decomposition(model: ModelRef, calibration: CalibrationSpec) -> None:
    found = run(SpectraSpec(model, calibration=calibration))
    assert result_of(found)["decompositions"] == ["svd", "asvd", "whitened"]
    card = card_of(found)
    arrays = np.load(found.path / "spectra.npz")
    assert set(arrays) == {f"{name}/{layer.name}" for name in ("svd", "asvd", "whitened") for layer in card.layers}
    loaded = load_model(model, dtype="auto").model
    for layer in card.layers:
        values = arrays[f"svd/{layer.name}"]
        assert (values.dtype, values.shape) == (np.float32, (layer.full_rank,))
        assert (np.diff(values) <= 0).all()
        expected = torch.linalg.svdvals(weight_of(get_module(loaded, layer.name)).double().cpu()).numpy()
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-3 * expected[0])


# -- choosing ranks -----------------------------------------------------------------------------------------------


def test_allocate_leaves_a_plan(model: ModelRef, calibration: CalibrationSpec) -> None:
    found = run(AllocateSpec(model, keep=0.7, calibration=calibration))
    result, plan = result_of(found), Plan.load(found.path / "plan.json")
    plan.check_model(card_of(found))
    assert result["plan"] == plan.to_dict()
    assert result["recorded"] == []
    assert (plan.method, plan.decomposition, plan.keep_target) == ("uniform", "whitened", 0.7)
    assert 0.68 < plan.keep_achieved <= 0.7
    assert plan.origin["run_id"] == found.id
    assert plan.origin["calibration"]["windows"] == 40


def test_a_learned_run_leaves_plans_ranks_and_figures(model: ModelRef, calibration: CalibrationSpec) -> None:
    found = run(AllocateSpec(model, method="llrc", keep=0.8, settings=LLRC, calibration=calibration))
    result, card = result_of(found), card_of(found)
    assert [entry["compression"] for entry in result["recorded"]] == list(range(1, 21))
    for entry in result["recorded"]:
        plan = Plan.load(found.path / entry["file"])
        plan.check_model(card)
        assert entry["file"] == f"plans/{entry['compression']:02d}.json"
        assert plan.keep_target == (100 - entry["compression"]) / 100
        assert plan.keep_achieved == entry["keep_achieved"] <= plan.keep_target
        assert plan.origin["recorded_at_step"] >= 0
    snapshots = [json.loads(line) for line in (found.path / "ranks.jsonl").read_text().splitlines()]
    assert [len(line["ranks"]) for line in snapshots] == [len(card.layers)] * len(snapshots)
    last = dict(zip((layer.name for layer in card.layers), snapshots[-1]["ranks"], strict=True))
    assert snapshots[-1]["keep"] == pytest.approx(plan_params(card.layers, last) / card.params_linear, abs=1e-6)
    ticks = [event for event in found.events() if event["phase"] == "training masks"]
    assert {"keep", "target", "loss", "compression", "distill", "tv", "alpha"} <= set(ticks[-1]["values"])


def test_a_cancelled_run_goes_on_to_the_same_plan(
    model: ModelRef, calibration: CalibrationSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = AllocateSpec(model, method="llrc", keep=0.8, settings=LLRC, calibration=calibration)
    whole = run(spec)
    monkeypatch.setenv("LRC_RUNS", str(tmp_path / "other-runs"))
    with pytest.raises(CancelledError):
        run(spec, stop_at="training masks", stop_after=9)
    assert RunStore().create(spec).status().state == "cancelled"
    resumed = run(spec)
    assert resumed.path != whole.path
    for name in ("plan", "recorded", "details"):
        assert result_of(resumed)[name] == result_of(whole)[name]


def test_probes_serve_every_target(model: ModelRef, calibration: CalibrationSpec) -> None:
    runs = [
        run(AllocateSpec(model, method="strs", keep=keep, settings=STRS, calibration=calibration))
        for keep in (0.8, 0.6)
    ]
    assert any(event["phase"] == "probing layers" for event in runs[0].events())
    assert not any(event["phase"] == "probing layers" for event in runs[1].events())


def test_short_calibration_is_damped_and_said(model: ModelRef, texts: tuple[str, str]) -> None:
    calibration = CalibrationSpec((texts[0],), windows=1, window=16)
    found = run(AllocateSpec(model, method="drank", calibration=calibration))
    assert any("damped" in warning for warning in result_of(found)["warnings"])


# -- measuring ----------------------------------------------------------------------------------------------------


def test_evaluate_measures_the_dense_model(model: ModelRef, evaluation: EvaluationSpec, texts: tuple[str, str]) -> None:
    row = result_of(run(EvaluateSpec(model, evaluation=evaluation)))
    loaded = load_model(model)
    windows = sequential_windows([Path(texts[1]).read_text()], loaded.tokenizer, window=48, max_windows=6)
    expected = perplexity(loaded.model, windows)
    assert row["perplexity"] == {texts[1]: {"value": expected.value, "stderr": expected.stderr}}
    assert (row["method"], row["keep_target"], row["keep_achieved"], row["zero_shot"]) == ("dense", 1.0, 1.0, {})
    assert row["allocate_run_id"] is None
    assert set(row["cost"]) >= {"params", "bytes", "prefill_tokens_per_s", "decode_tokens_per_s"}
    assert row["dtype"] in ("float32", "bfloat16"), "what it was computed in"
    assert set(row["sample"]) == {"prompt", "text"}


def test_keeping_everything_is_the_dense_model_exactly(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec
) -> None:
    dense = result_of(run(EvaluateSpec(model, evaluation=evaluation)))
    for method in ALLOCATORS.names():
        allocated = run(AllocateSpec(model, method=method, keep=1.0, calibration=calibration))
        plan = result_of(allocated)["plan"]
        row = result_of(run(EvaluateSpec(model, plan=plan, calibration=calibration, evaluation=evaluation)))
        assert row["perplexity"] == dense["perplexity"]
        assert row["cost"]["params"] == dense["cost"]["params"]
        assert row["keep_achieved"] == 1.0


def test_evaluate_measures_the_plan(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec, texts: tuple[str, str]
) -> None:
    allocated = run(AllocateSpec(model, keep=0.5, decomposition="svd", calibration=calibration))
    plan = Plan.load(allocated.path / "plan.json")
    found = run(EvaluateSpec(model, plan=plan.to_dict(), calibration=calibration, evaluation=evaluation))
    row = result_of(found)
    assert any("plan on" in event["phase"] for event in found.events()), "what takes longest is said"
    assert row["allocate_run_id"] == allocated.id
    assert row["keep_achieved"] == plan.keep_achieved
    loaded = load_model(model)
    layers = block_linears(loaded.model)
    windows = sequential_windows([Path(texts[1]).read_text()], loaded.tokenizer, window=48, max_windows=6)
    source = MemoryFactors(loaded.model, random_windows(2, 16), "svd")
    with compressed(loaded.model, layers, plan.full_ranks(layers), source):
        expected = perplexity(loaded.model, windows).value
    assert row["perplexity"][texts[1]]["value"] == pytest.approx(expected, rel=1e-4)
    dense = result_of(run(EvaluateSpec(model, evaluation=evaluation)))
    saved = dense["cost"]["params"] - row["cost"]["params"]
    assert (pace := pace_of(row, None, DECODE)) is not None and pace.stderr  # timed beside the dense model
    assert saved == round((1 - plan.keep_achieved) * card_of(found).params_linear)
    scores = json.loads((found.path / "scores.json").read_text())
    assert len(scores["windows"][texts[1]]["losses"]) == 6


@pytest.mark.parametrize(("method", "settings"), [("llm_pruner", PRUNER), ("llm_pruner_lora", TUNED)])
def test_a_pruned_plan_goes_through_the_same_jobs(
    method: str,
    settings: dict[str, Any],
    model: ModelRef,
    calibration: CalibrationSpec,
    evaluation: EvaluationSpec,
    texts: tuple[str, str],
) -> None:
    allocated = run(AllocateSpec(model, method=method, keep=0.7, settings=settings, calibration=calibration))
    result, plan = result_of(allocated), Plan.load(allocated.path / "plan.json")
    card = card_of(allocated)
    plan.check_model(card)
    assert Plan.from_dict(result["plan"]) == plan
    assert 0.99 * 0.7 < plan.keep_achieved <= 0.7
    assert plan.pruned
    assert plan.files == ("structure.safetensors",)
    source = find_plan(allocated.id, RunStore())
    assert source.folder == allocated.id
    spec = EvaluateSpec(model, source.plan, source.folder, calibration, evaluation)
    check(spec, model_too=False)
    row = result_of(run(spec))
    assert (row["method"], row["keep_achieved"], row["allocate_run_id"]) == (method, plan.keep_achieved, allocated.id)
    loaded = load_model(model)
    structure, weights = read_structure(allocated.path / plan.files[0], card.layers, plan.pruned)
    assert bool(weights) == (method == "llm_pruner_lora")
    windows = sequential_windows([Path(texts[1]).read_text()], loaded.tokenizer, window=48, max_windows=6)
    with restructured(loaded.model, structure, weights):
        assert row["perplexity"][texts[1]]["value"] == perplexity(loaded.model, windows).value
    dense = result_of(run(EvaluateSpec(model, evaluation=evaluation)))
    saved = dense["cost"]["params"] - row["cost"]["params"]
    assert saved == round((1 - plan.keep_achieved) * card.params_linear)
    again = run(AllocateSpec(model, method=method, keep=0.7, settings=settings, calibration=calibration, seed=1))
    assert Plan.load(again.path / "plan.json").pruned == plan.pruned  # shapes follow from the ratio, not from scores


def test_a_pruned_plan_without_its_file_is_refused(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec, tmp_path: Path
) -> None:
    allocated = run(AllocateSpec(model, method="llm_pruner", keep=0.7, settings=PRUNER, calibration=calibration))
    plan = result_of(allocated)["plan"]
    for folder in ("", str(tmp_path)):
        spec = EvaluateSpec(model, plan, folder, calibration, evaluation)
        with pytest.raises(PlanError, match=r"structure\.safetensors"):
            check(spec, model_too=False)
        fails(spec, PlanError, r"structure\.safetensors")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "structure.safetensors").write_bytes((allocated.path / "structure.safetensors").read_bytes()[:-3])
    fails(EvaluateSpec(model, plan, str(damaged), calibration, evaluation), PlanError, "SHA-256")


# -- comparing ----------------------------------------------------------------------------------------------------


def test_compare_fills_a_table_and_shares_its_cells(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec
) -> None:
    dense = run(EvaluateSpec(model, calibration=calibration, evaluation=evaluation))
    measured_at = dense.status().ended_at
    parts: dict[str, Any] = {"calibration": calibration, "evaluation": evaluation}
    found = run(CompareSpec(model, methods=("uniform", "llrc"), keeps=(0.9, 0.8), **parts))
    result = result_of(found)
    cells = [(row["method"], row["keep_target"]) for row in result["rows"]]
    assert cells == [("dense", 1.0), ("uniform", 0.9), ("llrc", 0.9), ("uniform", 0.8), ("llrc", 0.8)]
    assert result["model"] == model.source
    assert result["rows"] == json.loads((found.path / "rows.json").read_text())
    assert result["rows"][0]["run_id"] == dense.id
    assert dense.status().ended_at == measured_at  # measured once
    store = RunStore()
    for row in result["rows"]:
        assert store.open(row["run_id"]).result() == row
    # One training serves both rates: the plan of the smaller one was recorded on the way to the other.
    learned = {row["allocate_run_id"] for row in result["rows"] if row["method"] == "llrc"}
    assert len(learned) == 1
    before = set(store.ids())
    more = run(CompareSpec(model, methods=("llrc", "strs"), keeps=(0.8,), **parts))
    rows = result_of(more)["rows"]
    assert [row["method"] for row in rows] == ["dense", "llrc", "strs"]
    assert rows[:2] == [result["rows"][0], result["rows"][4]]
    assert {name.split("-")[0] for name in set(store.ids()) - before} == {"allocate", "evaluate", "compare"}
    assert len(set(store.ids()) - before) == 3  # STRS's allocation, its measurement, and this comparison


def test_compare_measures_pruned_plans_beside_the_others(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec
) -> None:
    methods = ("uniform", "llm_pruner", "llm_pruner_lora")
    spec = CompareSpec(model, methods=methods, keeps=(0.8, 0.7), calibration=calibration, evaluation=evaluation)
    rows = result_of(run(spec))["rows"]
    assert [row["method"] for row in rows] == ["dense", *methods, *methods]
    assert all(row["keep_achieved"] <= row["keep_target"] for row in rows)
    assert len({row["allocate_run_id"] for row in rows}) == 7


# -- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_plan_of_another_model_is_refused(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec, tmp_path: Path
) -> None:
    plan = result_of(run(AllocateSpec(model, calibration=calibration)))["plan"]
    other = ModelRef(str(save_tiny(tmp_path / "other", seed=1)))
    fails(EvaluateSpec(other, plan=plan, calibration=calibration, evaluation=evaluation), PlanError, "made for")
    broken = {**plan, "ranks": {name: 10_000 for name in plan["ranks"]}}
    fails(EvaluateSpec(model, plan=broken, calibration=calibration, evaluation=evaluation), PlanError, "damaged")


def test_a_model_with_nan_weights_is_refused(tmp_path: Path, calibration: CalibrationSpec) -> None:
    path = save_tiny(tmp_path / "broken") / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][3, 4] = float("nan")
    save_file(tensors, path, {"format": "pt"})
    fails(SpectraSpec(ModelRef(str(path.parent)), calibration=calibration), NumericalError, name)


def test_texts_that_are_too_short_say_how_short(model: ModelRef, evaluation: EvaluationSpec, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("twelve chars")
    short = CalibrationSpec((str(path),), windows=4, window=64)
    fails(AllocateSpec(model, method="drank", calibration=short), TextError, "12 tokens")
    fails(EvaluateSpec(model, evaluation=dataclasses.replace(evaluation, texts=(str(path),))), TextError, "12 tokens")


def test_a_model_that_has_gone_is_named(tmp_path: Path) -> None:
    fails(FetchSpec(ModelRef(str(tmp_path / "gone"))), ModelError, "gone")


@pytest.mark.parametrize("keep", [0.0, -1.0, 1.5, 0.0001])
def test_an_impossible_target_is_refused(model: ModelRef, calibration: CalibrationSpec, keep: float) -> None:
    fails(AllocateSpec(model, keep=keep, calibration=calibration), LrcError, "keep|Keeping")


def test_ranks_that_are_arithmetic_need_neither_text_nor_factors(
    model: ModelRef, calibration: CalibrationSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those that the rule counts, and the plan still names the text that its factors will come from."""

    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing of this is needed")

    monkeypatch.setattr(Session, "windows", read)
    monkeypatch.setattr(allocation, "factors_for", read)
    found = run(AllocateSpec(model, method="uniform", decomposition="kfac", keep=0.6, calibration=calibration))
    plan, card = Plan.load(found.path / "plan.json"), card_of(found)
    assert plan.full_ranks(card.layers) == fit_budget(card.layers, uniform_ranks(card.layers, 0.6), 0.6)
    assert plan.decomposition == "kfac" and plan.origin["calibration"]["windows"] == 40
