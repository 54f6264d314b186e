"""Plans whose components have gains: their files, what applies them, what measures them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lrc_core.lowrank.apply import PlanWeights, WithGains
from lrc_core.plan import Plan
from lrc_core.results.plans import find_plan
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec, EvaluateSpec, EvaluationSpec, ModelRef
from lrc_core.runs.store import RunStore
from tests.factories.pipeline_helpers import SUCCESSIVE, result_of, run
from tests.factories.tiny_methods import MemoryFactors, random_windows
from tests.factories.tiny_models import tiny_model


def test_gains_multiply_the_first_components_of_the_layers_that_have_them(tmp_path: Path) -> None:
    source = MemoryFactors(tiny_model("llama"), random_windows(4, 16))
    name, other = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
    gain = torch.tensor([2.0, 0.5, -1.0])
    plain, found = source.factors(name, 0), WithGains(source, {name: gain}).factors(name, 0)
    torch.testing.assert_close(found.left @ found.right, plain.left[:, :3] @ torch.diag(gain) @ plain.right[:3])
    assert torch.equal(WithGains(source, {name: gain}).factors(other, 0).left, source.factors(other, 0).left)
    save_file({f"{name}.gain": gain}, tmp_path / "plan.gains.safetensors")
    read = PlanWeights(tmp_path / "plan.gains.safetensors", source)
    assert torch.equal(read.factors(name, 0).left, found.left)
    assert torch.equal(read.factors(other, 0).left, source.factors(other, 0).left)


def test_plans_with_gains_are_written_found_and_measured(model: ModelRef, calibration: CalibrationSpec) -> None:
    """The plan at the end and those recorded on the way, each with a file of its own."""
    allocated = run(
        AllocateSpec(
            model, keep=0.6, method="successive", decomposition="kfac", settings=SUCCESSIVE, calibration=calibration
        )
    )
    evaluation = EvaluationSpec(calibration.texts, window=48, max_windows=6)
    for words, stem in ((allocated.id, "plan"), (f"{allocated.id}@20", "plans/20")):
        path = allocated.path / f"{stem}.json"
        plan = Plan.load(path)
        assert plan.weights_file == f"{path.stem}.gains.safetensors"
        gains = load_file(path.with_name(plan.weights_file))
        assert {name: len(gain) for name, gain in gains.items()} == {
            f"{name}.gain": rank for name, rank in plan.ranks.items()
        }
        found = find_plan(words, RunStore())
        parts: dict[str, Any] = {"calibration": calibration, "evaluation": evaluation}
        measured = result_of(run(EvaluateSpec(model, plan=found.plan, plan_folder=found.folder, **parts)))
        bare = result_of(run(EvaluateSpec(model, plan={**found.plan, "weights_file": None}, **parts)))
        assert measured["perplexity"] != bare["perplexity"]
