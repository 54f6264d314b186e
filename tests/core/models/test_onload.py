"""A model that is brought in block after block comes to the very same numbers as one that is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lrc_core.calibrate.gradients import block_gradients
from lrc_core.calibrate.moments import block_statistics
from lrc_core.errors import ModelError, ResourceError, SettingsError
from lrc_core.evaluate import losses
from lrc_core.evaluate.cost import count_bytes, count_params
from lrc_core.evaluate.perplexity import perplexity
from lrc_core.folders.check import READ_BACK
from lrc_core.kinds import check
from lrc_core.kinds.checks import needs_whole
from lrc_core.models import load
from lrc_core.models.fingerprint import forward_digest
from lrc_core.models.load import LoadedModel, load_model
from lrc_core.models.onload import hidden_states
from lrc_core.models.onload.choice import LAYER_LOCAL, ONLOAD
from lrc_core.models.onload.residence import residence_of
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.runs.spec import (
    AllocateSpec,
    CalibrationSpec,
    EvaluateSpec,
    EvaluationSpec,
    ExportSpec,
    ModelRef,
    SpectraSpec,
    UpdateSpec,
)
from tests.factories.pipeline_helpers import result_of, run
from tests.factories.tiny_models import save_tiny

FAMILIES = ("llama", "qwen2", "gpt2", "gemma2")
"""Tied embeddings and grouped queries; biases; fused projections that store [in, out]; capped logits."""


def both(folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str = "float32") -> tuple[LoadedModel, LoadedModel]:
    """The same model whole, and block after block."""
    monkeypatch.setenv(ONLOAD, "never")
    whole = load_model(ModelRef(str(folder)), dtype=dtype)
    monkeypatch.setenv(ONLOAD, "blocks")
    return whole, load_model(ModelRef(str(folder)), dtype=dtype)


def windows(count: int = 5, length: int = 12) -> Tensor:
    return torch.randint(3, 120, (count, length), generator=torch.Generator().manual_seed(1))


def in_memory(loaded: LoadedModel) -> list[int]:
    """Blocks that have their weights."""
    blocks = loaded.model.get_submodule(residence_of(loaded.model).prefix)  # type: ignore[union-attr]
    return [n for n, block in enumerate(blocks) if not any(p.is_meta for p in block.parameters())]


def equal(one: Iterator[Any], other: Iterator[Any]) -> bool:
    pairs = list(zip(one, other, strict=True))
    assert pairs
    return all(
        i == j and a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for (i, a), (j, b) in pairs
    )


def moments_of(loaded: LoadedModel) -> Iterator[tuple[int, dict[str, Tensor]]]:
    for block, found in block_statistics(loaded.model, loaded.card.layers, windows(), batch=2):
        yield block, {name: inputs.second_moment for name, inputs in found.groups.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_and_perplexity_have_the_same_bits(
    family: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, streamed = both(save_tiny(tmp_path, family), monkeypatch, dtype)
    assert residence_of(whole.model) is None
    assert whole.card == streamed.card
    assert forward_digest(whole.model) == forward_digest(streamed.model)
    assert equal(moments_of(whole), moments_of(streamed))
    slopes = [block_gradients(one.model, one.card.layers, windows(), batch=2) for one in (whole, streamed)]
    assert equal(*slopes)
    assert perplexity(whole.model, windows(), batch_size=2) == perplexity(streamed.model, windows(), batch_size=2)
    assert count_params(whole.model) == count_params(streamed.model)
    assert count_bytes(whole.model) == count_bytes(streamed.model)
    assert len(in_memory(streamed)) == 1


def test_states_wait_in_a_mapped_file_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, streamed = both(save_tiny(tmp_path), monkeypatch)
    monkeypatch.setattr(hidden_states, "cpu_memory_available", lambda: 1000)
    mapped: list[int] = []
    make = hidden_states._mapped
    monkeypatch.setattr(hidden_states, "_mapped", lambda size: mapped.append(size) or make(size))
    found = [block_gradients(one.model, one.card.layers, windows(), batch=2) for one in (whole, streamed)]
    assert equal(*found)
    assert mapped


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_logits_of_a_large_vocabulary_are_never_all_held(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, streamed = both(save_tiny(tmp_path, family), monkeypatch)
    wanted = perplexity(whole.model, windows(), stride=5)
    sizes: list[int] = []
    whole.model.get_output_embeddings().register_forward_hook(lambda _, __, logits: sizes.append(logits.numel()))
    monkeypatch.setattr(losses, "MOST_LOGITS", 128 * 4 * 3)
    found = perplexity(whole.model, windows(), stride=5)
    assert found.window_losses == pytest.approx(wanted.window_losses, rel=1e-5)
    assert found == perplexity(streamed.model, windows(), stride=5)
    assert max(sizes) <= max(128 * 4 * 3, 128 * 8)  # 8 tokens are tried first


def test_it_is_decided_by_memory_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path)
    assert residence_of(load_model(ModelRef(str(folder))).model) is None
    monkeypatch.setattr(load, "cpu_memory_available", lambda: 1000)
    loaded = load_model(ModelRef(str(folder)))
    assert load.BY_BLOCKS in loaded.warnings
    assert in_memory(loaded)
    monkeypatch.setenv(ONLOAD, "never")
    with pytest.raises(ResourceError, match=r"1\.0 kB"):
        load_model(ModelRef(str(folder)))
    monkeypatch.setenv(ONLOAD, "sometimes")
    with pytest.raises(SettingsError, match=ONLOAD):
        load_model(ModelRef(str(folder)))


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_what_is_stored_otherwise_than_it_runs_is_refused(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ONLOAD, "blocks")
    with pytest.raises(ModelError, match="block after block"):
        load_model(ModelRef(str(save_tiny(tmp_path, family))))


def test_a_copy_of_tied_weights_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    monkeypatch.setenv(ONLOAD, "blocks")
    for offset in (0.0, 1.0):
        tied = tensors["model.embed_tokens.weight"] + offset
        save_file({**tensors, "lm_head.weight": tied}, folder / "model.safetensors", metadata={"format": "pt"})
        if offset:
            with pytest.raises(ModelError, match="lm_head"):
                load_model(ModelRef(str(folder)))
        else:
            assert load_model(ModelRef(str(folder))).model.lm_head.weight.shape == tied.shape


BLOCKWISE = {"kind": "blockwise", "documents": 4, "check_windows": 2, "window": 12, "batch": 2, "passes": 1}


def all_jobs(model: ModelRef, calibration: CalibrationSpec, evaluation: EvaluationSpec) -> dict[str, Any]:
    """What can be done block after block, and what comes of it, by name."""
    found: dict[str, Any] = {}
    spectra = run(SpectraSpec(model, ("svd", "whitened", "kfac"), calibration))
    with np.load(spectra.path / "spectra.npz") as arrays:
        found |= {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    wanted = AllocateSpec(
        model, "lagrangian", "kfac", keep=0.6, settings={"curve": "auto"}, calibration=calibration, storage="pivoted"
    )
    plan = result_of(run(wanted))["plan"]
    found["ranks"] = plan["ranks"]
    dense = result_of(run(EvaluateSpec(model, calibration=calibration, evaluation=evaluation)))
    found |= {"dense": dense["perplexity"], "counted": (dense["cost"]["params"], dense["cost"]["bytes"])}
    for settings in ({"kind": "left"}, BLOCKWISE):
        updated = run(UpdateSpec(model, plan, settings=settings, calibration=calibration))
        folder = updated.path.name
        found |= {f"{settings['kind']} {k}": v for k, v in load_file(updated.path / "weights.safetensors").items()}
        evaluated = run(EvaluateSpec(model, result_of(updated)["plan"], folder, calibration, evaluation))
        found[f"perplexity {settings['kind']}"] = result_of(evaluated)["perplexity"]
        exported = result_of(run(ExportSpec(model, result_of(updated)["plan"], folder, calibration)))
        for path in Path(exported["folder"]).glob("*.safetensors"):
            found |= {f"export {settings['kind']} {name}": tensor for name, tensor in load_file(path).items()}
        config = json.loads((Path(exported["folder"]) / "config.json").read_text(encoding="utf-8"))
        found[f"config {settings['kind']}"] = {**config, "quantization_config": config["quantization_config"]["ranks"]}
    return found


def test_whole_jobs_come_to_the_same_results(
    texts: tuple[str, str], evaluation: EvaluationSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelRef(str(save_tiny(tmp_path / "model", "qwen2")))
    monkeypatch.setattr("lrc_core.pipeline.exporting.check_folder", lambda *_, **__: READ_BACK)  # of a whole model only
    found = {}
    for mode in ("never", "blocks"):
        monkeypatch.setenv(ONLOAD, mode)
        monkeypatch.setenv("LRC_RUNS", str(tmp_path / mode / "runs"))
        monkeypatch.setenv("LRC_CACHE", str(tmp_path / mode / "cache"))
        found[mode] = all_jobs(model, CalibrationSpec((texts[0],), windows=8, window=24), evaluation)
    whole, streamed = found["never"], found["blocks"]
    assert whole.keys() == streamed.keys()
    for name, value in whole.items():
        same = torch.equal(value, streamed[name]) if isinstance(value, Tensor) else value == streamed[name]
        assert same, name


def test_what_needs_the_whole_model_is_refused_with_what_would_do(
    tmp_path: Path, texts: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelRef(str(save_tiny(tmp_path)))
    calibration = CalibrationSpec((texts[0],), windows=4, window=12)
    wanted = AllocateSpec(model, "llrc", "whitened", keep=0.6, calibration=calibration)
    monkeypatch.setattr("lrc_core.models.preflight.cpu_memory_available", lambda: 100_000)
    with pytest.raises(ModelError, match="block"):  # not even that fits
        check(wanted)
    monkeypatch.setattr("lrc_core.models.preflight.by_blocks_memory", lambda _: 1000)
    with pytest.raises(ResourceError, match="llrc") as caught:
        check(wanted)
    assert caught.value.remedy == LAYER_LOCAL
    check(replace(wanted, method="uniform", settings={}))
    check(SpectraSpec(model, ("kfac",), calibration))


def test_what_is_said_to_go_block_after_block_does() -> None:
    local = {entry.name for entry in ALLOCATORS if entry.layer_local}
    assert all(name in LAYER_LOCAL for name in local)
    assert not any(entry.name in LAYER_LOCAL for entry in ALLOCATORS if not entry.layer_local)
    for entry in ALLOCATORS:
        for decomposition in DECOMPOSITIONS.names():
            spec = AllocateSpec(method=entry.name, decomposition=decomposition)
            assert bool(needs_whole(spec)) == (decomposition not in entry.layer_local)
    assert needs_whole(UpdateSpec(settings={"kind": "tuned"}))
    assert needs_whole(EvaluateSpec(evaluation=EvaluationSpec(tasks=("piqa",))))
    assert needs_whole(SpectraSpec(calibration=CalibrationSpec(("generated",))))


def test_the_command_line_tells_the_worker_and_no_spec(monkeypatch: pytest.MonkeyPatch, lrc: Any) -> None:
    told: list[Any] = []

    def submitted(spec: Any, arguments: Any, *, resume: bool, env: Any = None) -> Any:
        told.append((spec.run_id, env))
        raise SettingsError("enough")

    monkeypatch.setattr("lrc_core.cli.jobs.start", submitted)
    for words in ((), ("--onload", "never"), ("--onload", "blocks")):
        assert lrc("spectra", "starter", *words)[0] == 1
    assert [env for _, env in told] == [None, {ONLOAD: "never"}, {ONLOAD: "blocks"}]
    assert len({run_id for run_id, _ in told}) == 1
    assert "llrc" in lrc("allocate", "starter", "--method", "llrc", "--onload", "blocks")[2]
    assert len(told) == 3
