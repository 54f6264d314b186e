"""Exported folders of every kind of model and plan: the same logits when loaded again, the size that was promised."""

from __future__ import annotations

import ast
import json
import shlex
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import lrc_core.hf  # noqa: F401 - folders are loaded with the format known
from lrc_core.allocate.llm_pruner.settings import LlmPrunerSettings
from lrc_core.budget import stored_card
from lrc_core.cli.parser import build_parser
from lrc_core.errors import CancelledError, ModelError, PlanError, SettingsError
from lrc_core.folders import reload, write
from lrc_core.folders.tensors import put_in_own_memory, stock_of
from lrc_core.folders.ways import ways_to_load
from lrc_core.formats.grids import FORMATS
from lrc_core.formats.rounding import packed, unpacked
from lrc_core.kinds import KINDS, check, command_for, export
from lrc_core.kinds.export import require_place
from lrc_core.models.load import load_model
from lrc_core.plan import Plan, make_plan
from lrc_core.quality.quantised import sizes_of
from lrc_core.runs.spec import (
    AllocateSpec,
    CalibrationSpec,
    EvaluateSpec,
    EvaluationSpec,
    ExportSpec,
    ModelRef,
    UpdateSpec,
)
from lrc_core.runs.store import Run
from lrc_core.types import Storage
from lrc_core.updates import UpdateSettings
from lrc_core.words import measured
from tests.factories.pipeline_helpers import result_of, run
from tests.factories.tiny_models import save_tiny


@pytest.fixture(autouse=True)
def _checked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check runs in this process; that it works in one of its own is tested in test_hf.py."""
    monkeypatch.setattr("lrc_core.folders.check._asked", lambda question, _: {**reload.main(question), "alone": True})


def export_of(made: Run, calibration: CalibrationSpec, **words: Any) -> ExportSpec:
    plan = Plan.load(made.path / "plan.json")
    return ExportSpec(made.spec.model, plan.to_dict(), made.id if plan.files else "", calibration, **words)


def folder_of(spec: ExportSpec) -> Path:
    result = result_of(run(spec))
    assert result["check"]["equal"] or spec.form == "dense"
    return Path(result["folder"])


@pytest.mark.parametrize("family", ["opt", "gpt2", "gpt_neox"])
def test_any_family_comes_back_bit_for_bit(family: str, calibration: CalibrationSpec, tmp_path: Path) -> None:
    """Tied embeddings, biases, Conv1D, fused projections; and layers that stay dense beside the others."""
    ref = ModelRef(str(save_tiny(tmp_path / family, family)))
    allocated = run(AllocateSpec(ref, keep=0.6, decomposition="svd", calibration=calibration))
    plan = Plan.load(allocated.path / "plan.json")
    left_dense = sorted(plan.ranks)[::5]
    layers = load_model(ref).card.layers
    ranks = {**plan.full_ranks(layers), **{layer.name: layer.full_rank for layer in layers if layer.name in left_dense}}
    mixed = make_plan(load_model(ref).card, ranks, decomposition="svd", method="hand", keep_target=0.9)
    spec = ExportSpec(ref, mixed.to_dict(), "", calibration)
    folder = folder_of(spec)
    config, base = (json.loads((path / "config.json").read_text()) for path in (folder, Path(ref.source)))
    assert {**config, **base} == {**base, **{key: config[key] for key in ("quantization_config", "auto_map")}}
    assert config["quantization_config"]["ranks"] == dict(mixed.ranks)
    tensors = load_file(folder / "model.safetensors")
    assert not any(name.endswith((".left", ".right")) for name in tensors)
    for name in left_dense:
        weight = next(tensor for key, tensor in tensors.items() if name.endswith(key.removesuffix(".weight")))
        assert min(weight.shape) > 4 and not any(key.startswith(f"{name}.weight_in") for key in tensors)
    assert Plan.load(folder / "plan.json") == mixed


def test_precision_shards_and_companions(model: ModelRef, calibration: CalibrationSpec, tmp_path: Path) -> None:
    allocated = run(AllocateSpec(model, keep=0.6, calibration=calibration))
    spec = export_of(allocated, calibration, to=str(tmp_path / "new" / "small"), dtype="bfloat16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "SHARD", 20_000)
        folder = folder_of(spec)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shards = sorted(folder.glob("*.safetensors"))
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in shards)
    assert len(shards) == 2 and {path.name for path in shards} == set(index["weight_map"].values())
    assert index["metadata"]["total_size"] == sum(t.numel() * 2 for path in shards for t in load_file(path).values())
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert again.dtype == torch.bfloat16 and not (folder.parent / "small.partial").exists()
    words = "the rank of a layer"
    assert AutoTokenizer.from_pretrained(folder)(words) == AutoTokenizer.from_pretrained(model.source)(words)


def test_logits_are_those_of_an_independent_computation(model: ModelRef, calibration: CalibrationSpec) -> None:
    """Weights put together here from the decomposition of each layer's own weight, any-k indices included."""
    allocated = run(AllocateSpec(model, keep=0.5, decomposition="svd", calibration=calibration))
    plan = Plan.load(allocated.path / "plan.json")
    kept = {name: (*range(1, rank), rank + 1) for name, rank in plan.ranks.items()}
    folder = folder_of(ExportSpec(model, replace(plan, kept=kept).to_dict(), "", calibration))
    twin = folder_of(ExportSpec(model, replace(plan, kept=kept).to_dict(), "", calibration, form="dense"))
    loaded = AutoModelForCausalLM.from_pretrained(model.source)
    for name, index in kept.items():
        weight = loaded.get_submodule(name).weight
        left, sigma, right = torch.linalg.svd(weight.detach().double(), full_matrices=False)
        chosen = torch.tensor(index)
        weight.data = ((left[:, chosen] * sigma[chosen]) @ right[chosen]).float()
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        wanted = loaded(ids).logits
        for path in (folder, twin):
            torch.testing.assert_close(
                AutoModelForCausalLM.from_pretrained(path)(ids).logits, wanted, rtol=1e-3, atol=1e-3
            )
    assert (folder.name, twin.name) == ("tiny-uniform-50", "tiny-uniform-50-dense")
    config = json.loads((twin / "config.json").read_text())
    assert "quantization_config" not in config and "auto_map" not in config and not (twin / "lowrank.py").exists()
    assert {t.shape for t in load_file(twin / "model.safetensors").values()} == {
        t.shape for t in load_file(Path(model.source) / "model.safetensors").values()
    }


def test_pivots_are_stored_as_they_are_counted(calibration: CalibrationSpec, tmp_path: Path) -> None:
    ref = ModelRef(str(save_tiny(tmp_path / "gpt2", "gpt2")))
    spec = AllocateSpec(ref, keep=0.7, decomposition="svd", calibration=calibration, storage="pivoted")
    allocated = run(spec)
    plan = Plan.load(allocated.path / "plan.json")
    folder, twin = (
        folder_of(export_of(allocated, calibration)),
        folder_of(export_of(allocated, calibration, form="dense")),
    )
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["storage"] == "pivoted"
    tensors = load_file(folder / "model.safetensors")
    whole = load_file(twin / "model.safetensors")
    for name, rank in plan.ranks.items():
        weight = whole[f"{name}.weight"].T
        pivots = tensors[f"{name}.pivots"].long()
        assert torch.equal(weight[pivots], tensors[f"{name}.weight_in"]) and len(pivots) == rank
        assert tensors[f"{name}.weight"].shape == (len(weight) - rank, rank)
    again = AutoModelForCausalLM.from_pretrained(folder)
    again.save_pretrained(tmp_path / "again")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "again")(ids).logits, again(ids).logits)


@pytest.mark.parametrize(
    ("form", "family", "storage"),
    [("Q8_0", "gpt2", "pivoted"), ("Q5_1", "opt", "pivoted"), ("Q4_0", "llama", "pair")],
)
def test_number_formats_are_packed(
    form: str,
    family: str,
    storage: Storage,
    calibration: CalibrationSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dense layers, also those that the architecture stores the other way round, and both factors of the others."""
    ref = ModelRef(str(save_tiny(tmp_path / family, family)))
    card = stored_card(load_model(ref).card, storage)
    shapes = {layer.name: layer for layer in card.layers}
    dense, plain, *low = shapes
    ranks = {name: 7 for name in (plain, *low)} | {name: shapes[name].full_rank for name in (dense, *low[::3])}
    made = make_plan(card, ranks, decomposition="svd", method="hand", keep_target=0.5)
    plan = replace(made, formats=dict.fromkeys((dense, *low), form))
    spec = ExportSpec(ref, plan.to_dict(), "", calibration, dtype="bfloat16")
    check(spec, model_too=False)
    folder, twin = folder_of(spec), folder_of(replace(spec, form="dense"))
    tensors, before, after = (
        {key.removeprefix("transformer."): t for key, t in load_file(path / "model.safetensors").items()}
        for path in (folder, Path(ref.source), twin)
    )
    counted = sum(tensor.nbytes for tensor in tensors.values() if tensor.dtype != torch.int32)
    assert counted == sizes_of(card, plan)["model_bytes"]
    for free, enough in ((0.97 * counted, False), (1.03 * counted, True)):
        monkeypatch.setattr(export, "disk_available", lambda _, free=free: free)
        with nullcontext() if enough else pytest.raises(ModelError, match="disk"):
            export.KIND.check_models(spec)
    for name, layer in shapes.items():
        weight = tensors[key := f"{name.removeprefix('transformer.')}.weight"]
        assert (weight.dtype == torch.uint8) == (name != plain)
        if ranks[name] == layer.full_rank:
            was, became = (one[key].T if family == "gpt2" else one[key] for one in (before, after))
            wanted = packed(was.float().numpy(), FORMATS[form])
            assert torch.equal(weight.flatten(1), torch.from_numpy(wanted))
            numbers = torch.from_numpy(unpacked(wanted, FORMATS[form], layer.in_features)).bfloat16()
            assert torch.equal(became, numbers)
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    again.save_pretrained(tmp_path / "again")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "again")(ids).logits, again(ids).logits)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss", "dbrx"])
def test_experts_are_stored_one_by_one(family: str, calibration: CalibrationSpec, tmp_path: Path) -> None:
    """Experts of low rank, dense and packed ones; the twin has the architecture's own stacks."""
    ref = ModelRef(str(save_tiny(tmp_path / family, family)))
    card = load_model(ref).card
    ranks = {layer.name: layer.full_rank if number % 3 else 5 for number, layer in enumerate(card.layers)}
    made = make_plan(card, ranks, decomposition="svd", method="hand", keep_target=0.5)
    plan = replace(made, formats={layer.name: "Q8_0" for layer in card.layers[::4]})
    spec = ExportSpec(ref, plan.to_dict(), "", calibration)
    folder, twin = folder_of(spec), folder_of(replace(spec, form="dense"))
    assert result_of(run(spec))["weight_bytes"] < sum(
        tensor.nbytes for tensor in load_file(twin / "model.safetensors").values()
    )
    shapes = [
        {key: tensor.shape for key, tensor in load_file(path / "model.safetensors").items()}
        for path in (twin, Path(ref.source))
    ]
    assert shapes[0] == shapes[1]
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    loaded.save_pretrained(tmp_path / "again")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
        for one in (loaded, again):
            put_in_own_memory(one)
        wanted = loaded(ids).logits
        assert torch.equal(again(ids).logits, wanted)
        torch.testing.assert_close(AutoModelForCausalLM.from_pretrained(twin)(ids).logits, wanted, rtol=1e-3, atol=1e-4)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"], config["auto_map"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RuntimeError):  # without the format nothing is made up
        AutoModelForCausalLM.from_pretrained(folder)


def test_updated_factors_and_pruned_structures_go_along(model: ModelRef, calibration: CalibrationSpec) -> None:
    allocated = run(AllocateSpec(model, keep=0.5, calibration=calibration))
    plan = Plan.load(allocated.path / "plan.json").to_dict()
    updated = run(UpdateSpec(model, plan, "", asdict(UpdateSettings()), calibration))
    folder = folder_of(export_of(updated, calibration))
    tensors, weights = load_file(folder / "model.safetensors"), load_file(updated.path / "weights.safetensors")
    for name in plan["ranks"]:
        assert torch.equal(tensors[f"{name}.weight"], weights[f"{name}.left"])
    settings = asdict(LlmPrunerSettings(windows=4, window=16))
    pruned = run(AllocateSpec(model, method="llm_pruner", keep=0.7, calibration=calibration, settings=settings))
    folder = folder_of(export_of(pruned, calibration))
    block = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert block["pruned"] == {
        name: list(shape) for name, shape in (Plan.load(pruned.path / "plan.json").pruned or {}).items()
    }
    with pytest.raises(PlanError):
        check(export_of(pruned, calibration, form="dense"), model_too=False)


def test_the_card_has_the_figures_of_the_plan(
    model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec
) -> None:
    allocated = run(AllocateSpec(model, keep=0.5, calibration=calibration))
    spec = export_of(allocated, calibration)
    rows = [run(EvaluateSpec(model, plan, "", calibration, evaluation)) for plan in (None, spec.plan)]
    folder = folder_of(spec)
    card = (folder / "README.md").read_text()
    for row in rows:
        score = result_of(row)["perplexity"][evaluation.texts[0]]
        assert measured(score["value"], score["stderr"]) in card
    assert rows[1].id in card and allocated.id in card
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "transformers" and "low-rank" in head["tags"] and "base_model" not in head
    metric = head["model-index"][0]["results"][0]["metrics"][0]
    assert metric["value"] == pytest.approx(result_of(rows[1])["perplexity"][evaluation.texts[0]]["value"], abs=1e-4)


def test_it_stops_between_files_and_goes_on(model: ModelRef, calibration: CalibrationSpec) -> None:
    allocated = run(AllocateSpec(model, keep=0.5, calibration=calibration))
    spec = export_of(allocated, calibration)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "SHARD", 20_000)
        with pytest.raises(CancelledError):
            run(spec, stop_at="writing", stop_after=3)
        partial = next(allocated.path.parent.glob("export-*/*.partial"))
        before = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.safetensors")}
        assert len(before) == 3
        folder = folder_of(spec)
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before  # not written again


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    foreign = type("Own", (torch.nn.Linear,), {"__module__": "transformers_modules.somebody.model"})
    with pytest.raises(ModelError, match="Own"):
        stock_of(foreign(2, 2))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    for place in (tmp_path / "full", tmp_path / "full" / "note.txt"):
        with pytest.raises(SettingsError):
            require_place(place)
    require_place(tmp_path / "below" / "new")


@pytest.mark.parametrize("form", ["lowrank", "dense"])
@pytest.mark.parametrize("folder", ["/a/plain-one", '/my models/größer "v2"', "/it's $HOME/back\\slash"])
def test_commands_and_scripts_name_the_very_folder(folder: str, form: str) -> None:
    for way in ways_to_load(folder, form):
        if way.language == "python":
            tree = ast.parse(way.code)
            assert folder in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}, way.code
        else:
            words = shlex.split(way.code)
            assert folder in words or f"pretrained={folder},softmax_dtype=float32" in words, way.code


def test_where_no_model_is_named_it_is_the_plans(model: ModelRef, calibration: CalibrationSpec) -> None:
    allocated = run(AllocateSpec(model, keep=0.5, calibration=calibration))
    arguments = build_parser().parse_args(["export", allocated.id, "--to", "somewhere"])
    spec = KINDS["export"].spec_from(arguments)
    assert (spec.model, spec.calibration, spec.to) == (model, calibration, str(Path("somewhere").absolute()))
    assert command_for(spec).split()[:3] == ["lrc", "export", allocated.id]
