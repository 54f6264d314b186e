"""Folders of other projects, built by hand: read as plans whose factors are the very ones that were written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lrc_core.errors import ModelError
from lrc_core.folders import reload
from lrc_core.formats.grids import QUANTISED
from lrc_core.models.load import load_model
from lrc_core.plan import Plan
from lrc_core.results.answers import plans_of
from lrc_core.results.archive import archive
from lrc_core.results.plans import find_plan
from lrc_core.runs.spec import (
    AdoptSpec,
    AllocateSpec,
    CalibrationSpec,
    EvaluateSpec,
    EvaluationSpec,
    ExportSpec,
    ModelRef,
)
from lrc_core.runs.store import RunStore
from tests.factories.pipeline_helpers import result_of, run
from tests.factories.tiny_models import save_tiny

RANK = 5
Names = Callable[[str], tuple[str, str, str]]
"""From a layer's name to those of its left factor, its right factor and its bias."""


def beside(name: str) -> tuple[str, str, str]:
    """SVD-LLM: ``q_proj`` becomes ``q_u_proj`` and ``q_v_proj``."""
    stem = name.removesuffix("_proj")
    return f"{stem}_u_proj.weight", f"{stem}_v_proj.weight", f"{stem}_u_proj.bias"


LAYOUTS: dict[str, Names] = {
    "LEMS": lambda name: (f"wrapped_model.{name}.mod_b.weight", f"wrapped_model.{name}.mod_a.weight", f"{name}.bias"),
    "ASVD": lambda name: (f"{name}.ALinear.weight", f"{name}.BLinear.weight", f"{name}.ALinear.bias"),
    "Zero Sum SVD": lambda name: (f"{name}.u_proj.weight", f"{name}.v_proj.weight", f"{name}.u_proj.bias"),
    "SVD-LLM": beside,
}


def written(
    folder: Path, base: Path, layers: list[str], names: Names, rank: int = RANK, **other: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """A folder of that layout with every second layer factorised; the factors by layer."""
    tensors = {**load_file(base / "model.safetensors"), **other}
    made = {}
    for name in layers[::2]:
        left, right, bias = names(name)
        weight = tensors.pop(f"{name}.weight")
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        made[name] = (u[:, :rank] * s[:rank]).contiguous(), v[:rank].contiguous()
        tensors[left], tensors[right] = made[name]
        if f"{name}.bias" in tensors:
            tensors[bias] = tensors.pop(f"{name}.bias")
    folder.mkdir(exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"rank_dict": dict.fromkeys(made, rank)}))
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelRef, list[str]]:
    """A model with biases on some of its layers, and the names of its block linears."""
    ref = ModelRef(str(save_tiny(tmp_path_factory.mktemp("base") / "qwen2", "qwen2")))
    return ref, [layer.name for layer in load_model(ref).card.layers]


@pytest.mark.parametrize("project", LAYOUTS)
def test_factors_are_taken_over_as_they_are(project: str, base: tuple[ModelRef, list[str]], tmp_path: Path) -> None:
    ref, layers = base
    made = written(tmp_path / "theirs", Path(ref.source), layers, LAYOUTS[project])
    adopted = run(AdoptSpec(ref, str(tmp_path / "theirs")))
    assert result_of(adopted)["details"] == {"layers": len(made), "project": project}
    plan = Plan.load(adopted.path / "plan.json")
    assert dict(plan.ranks) == dict.fromkeys(made, RANK) and plan.method == "imported"
    weights = load_file(adopted.path / "weights.safetensors")
    for name, (left, right) in made.items():
        assert torch.equal(weights[f"{name}.left"], left) and torch.equal(weights[f"{name}.right"], right)
        wanted = torch.linalg.svdvals(left @ right)[:RANK]
        torch.testing.assert_close(weights[f"{name}.sigma"], wanted, rtol=1e-3, atol=1e-4)


def test_an_imported_plan_is_measured_and_exported_like_any_other(
    base: tuple[ModelRef, list[str]],
    tmp_path: Path,
    calibration: CalibrationSpec,
    evaluation: EvaluationSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ref, layers = base
    written(tmp_path / "theirs", Path(ref.source), layers, LAYOUTS["LEMS"])
    adopted = run(AdoptSpec(ref, str(tmp_path / "theirs")))
    found = find_plan(adopted.id, RunStore())
    row = result_of(run(EvaluateSpec(ref, found.plan, found.folder, calibration, evaluation)))
    assert row["method"] == "imported" and row["perplexity"][evaluation.texts[0]]["value"] > 1
    view = archive().job(adopted.id)
    assert view is not None and [choice.key for choice in plans_of(view)] == [adopted.id]
    monkeypatch.setattr("lrc_core.folders.check._asked", lambda question, _: {**reload.main(question), "alone": True})
    for storage in ("pair", "pivoted"):  # what this program wrote is read again as well
        spec = ExportSpec(ref, found.plan, found.folder, calibration)
        if storage == "pivoted":
            allocated = run(
                AllocateSpec(ref, keep=0.7, decomposition="svd", calibration=calibration, storage="pivoted")
            )
            plan = Plan.load(allocated.path / "plan.json")
            forms = dict(zip([*plan.dense, *plan.ranks], cycle(QUANTISED), strict=False))
            spec = ExportSpec(ref, replace(plan, formats=forms).to_dict(), "", calibration)
        folder = result_of(run(spec))["folder"]
        back = result_of(run(AdoptSpec(ref, folder)))["plan"]
        assert back["ranks"] == spec.plan["ranks"] and back.get("storage", "pair") == storage
        formats = spec.plan.get("formats", {})  # of low-rank layers the numbers are taken over
        assert back.get("formats", {}) == {name: form for name, form in formats.items() if name in back["dense"]}
    other = shutil.copytree(folder, tmp_path / "unsaid")
    config = json.loads((other / "config.json").read_text())
    name, _ = config["quantization_config"]["packed"].popitem()
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=re.escape(name)):
        run(AdoptSpec(ref, str(other)))


def test_what_is_no_such_folder_is_refused(base: tuple[ModelRef, list[str]], tmp_path: Path) -> None:
    ref, layers = base
    source, theirs = Path(ref.source), tmp_path / "theirs"
    other = save_tiny(tmp_path / "other", "qwen2", seed=1)
    wrong: dict[str, dict[str, Any]] = {
        "too large": {"rank": 24},
        "of another model": {"base": other},
        "trained further": {"model.norm.weight": 2 * load_file(source / "model.safetensors")["model.norm.weight"]},
    }
    for words in wrong.values():
        written(theirs, words.pop("base", source), layers, LAYOUTS["ASVD"], words.pop("rank", RANK), **words)
        with pytest.raises(ModelError):
            run(AdoptSpec(ref, str(theirs)))
    written(theirs, source, layers, LAYOUTS["ASVD"])
    tensors = load_file(theirs / "model.safetensors")
    half = next(name for name in tensors if "BLinear" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != half}, theirs / "model.safetensors")
    with pytest.raises(ModelError, match="one factor"):
        run(AdoptSpec(ref, str(theirs)))
    with pytest.raises(ModelError, match="no factors"):
        run(AdoptSpec(ref, str(source)))


def test_pickled_folders_need_consent_and_hold_tensors_alone(base: tuple[ModelRef, list[str]], tmp_path: Path) -> None:
    ref, layers = base
    made = written(tmp_path / "theirs", Path(ref.source), layers, LAYOUTS["SVD-LLM"])
    tensors = load_file(tmp_path / "theirs" / "model.safetensors")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "theirs" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="--allow-pickle"):
        run(AdoptSpec(ref, str(tmp_path / "theirs")))
    trusting = ModelRef(ref.source, allow_pickle=True)
    assert result_of(run(AdoptSpec(trusting, str(tmp_path / "theirs"))))["details"]["layers"] == len(made)
    (tmp_path / "object").mkdir()
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "object" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="Cannot read"):
        run(AdoptSpec(trusting, str(tmp_path / "object")))
