"""Spectra of a model that is never loaded: headers, matrices from disk, shards from the hub, memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file

from lrc_core.decompose.inplace import singular_values_in_place
from lrc_core.errors import CancelledError, ModelError, NumericalError, ResourceError, SettingsError
from lrc_core.kinds import check, command_for
from lrc_core.models import outline as outline_module
from lrc_core.models.allocator import release_freed_memory
from lrc_core.models.blocks.linears import block_linears
from lrc_core.models.headers import safetensors_header
from lrc_core.models.matrix_files import read_matrix
from lrc_core.models.outline import read_outline
from lrc_core.models.resources import own_peak_memory
from lrc_core.pipeline import streaming
from lrc_core.pipeline.streaming import streamed_spectra_run
from lrc_core.runs.spec import ModelRef, SpectraSpec, spec_from_dict
from lrc_core.runs.store import RunStore
from lrc_core.types import Progress, ignore_progress, never_stop
from tests.factories.tiny_models import save_tiny, tiny_model, tiny_tokenizer


def spec_of(source: object) -> SpectraSpec:
    return SpectraSpec(ModelRef(str(source)), ("svd",), stream=True)


def sharded(folder: Path, shards: int = 3) -> Path:
    """A tiny llama in several files."""
    folder.mkdir(parents=True)
    tiny_model().save_pretrained(folder, max_shard_size="30KB")
    tiny_tokenizer().save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) >= shards
    return folder


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt"])
def test_the_outline_is_what_loading_finds(tmp_path: Path, family: str) -> None:
    outline = read_outline(ModelRef(str(save_tiny(tmp_path / family, family))))
    loaded = {(layer.block, layer.kind): layer for layer in block_linears(tiny_model(family))}
    found = {(layer.block, layer.kind): layer for layer in outline.card.layers}
    assert set(found) == set(loaded)
    for key, layer in found.items():
        assert (layer.out_features, layer.in_features) == (loaded[key].out_features, loaded[key].in_features)
    assert outline.card.params_total == sum(p.numel() for p in tiny_model(family).parameters())
    assert outline.card.identity.header_only and outline.card.hidden_size == 32


def test_layers_come_in_the_order_of_a_block(tmp_path: Path) -> None:
    kinds = [
        m.layer.kind for m in read_outline(ModelRef(str(save_tiny(tmp_path / "t")))).matrices if m.layer.block == 1
    ]
    assert kinds == [layer.kind for layer in block_linears(tiny_model()) if layer.block == 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_matrix_is_read_as_it_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr("lrc_core.models.matrix_files._PANEL", 64)
    weight = torch.randn(7, 11).to(dtype)
    save_file({"before": torch.ones(3), "w": weight}, str(tmp_path / "m.safetensors"))
    header = next(t for t in safetensors_header(tmp_path / "m.safetensors") if t.name == "w")
    found = read_matrix(tmp_path / "m.safetensors", header, np.empty(100, np.float32))
    assert np.array_equal(found, weight.float().numpy())


def test_a_nan_names_its_tensor(tmp_path: Path) -> None:
    save_file({"w": torch.tensor([[1.0, float("nan")]])}, str(tmp_path / "m.safetensors"))
    header = safetensors_header(tmp_path / "m.safetensors")[0]
    with pytest.raises(NumericalError, match="of w in"):
        read_matrix(tmp_path / "m.safetensors", header, np.empty(2, np.float32))


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (33, 33), (1, 5), (300, 20)])
def test_singular_values_in_place_are_those_of_numpy(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    found = singular_values_in_place(matrix.copy())
    assert np.abs(found - expected).max() < 1e-5 * expected[0]
    assert (np.diff(found) <= 0).all()


def test_working_memory_stays_below_three_matrices(tmp_path: Path) -> None:
    """As a job has it: matrices of 10 MB in bfloat16, beside which the libraries' own buffers are small."""
    path = tmp_path / "m.safetensors"
    save_file({"w": torch.randn(1200, 4000).bfloat16()}, str(path))
    header = safetensors_header(path)[0]
    singular_values_in_place(np.ones(streaming._WARM, np.float32))
    release_freed_memory()
    before = psutil.Process().memory_info().rss
    with own_peak_memory() as peak:
        buffer = np.empty(header.numel, np.float32)
        for _ in range(2):
            values = singular_values_in_place(read_matrix(path, header, buffer))
        used = peak() - before
    assert len(values) == 1200
    assert header.bytes < used < 3 * header.bytes, "float32 is twice the stored size, and little else is held"


def test_a_run_gives_the_spectra_of_the_loaded_model(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    run = RunStore(tmp_path / "runs").create(spec_of(folder))
    ticks: list[Progress] = []
    seen: list[int] = []

    def watch(tick: Progress) -> None:
        ticks.append(tick)
        seen.append(len(list((run.path / streaming.PARTS).glob("*.npy"))))

    result = streamed_spectra_run(run, watch, never_stop)
    model = tiny_model()
    with np.load(run.path / "spectra.npz") as arrays:
        for layer in block_linears(model):
            weight = model.get_submodule(layer.name).weight.double().numpy()
            expected = np.linalg.svd(weight, compute_uv=False)
            assert np.allclose(arrays[f"svd/{layer.name}"], expected, atol=1e-5)
        assert len(arrays.files) == len(block_linears(model))
    assert seen[-1] == len(block_linears(model)) and seen[len(seen) // 2] < seen[-1], "results appear as they come"
    assert ticks[-1].step == ticks[-1].total == len(block_linears(model))
    memory = result["stream"]
    assert memory["limit_bytes"] == 3 * memory["largest_bytes"] == 3 * 4 * 48 * 32
    assert not (run.path / streaming.PARTS).exists()


def test_a_stopped_run_goes_on_behind_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunStore(tmp_path / "runs").create(spec_of(save_tiny(tmp_path / "model")))
    parts = run.path / streaming.PARTS
    with pytest.raises(CancelledError):
        streamed_spectra_run(run, ignore_progress, lambda: parts.exists() and len(list(parts.glob("*.npy"))) >= 4)
    assert len(list(parts.glob("*.npy"))) == 4 and (run.path / "card.json").exists()
    read: list[str] = []
    monkeypatch.setattr(streaming, "read_matrix", lambda f, t, b: read.append(t.name) or read_matrix(f, t, b))
    total = len(streamed_spectra_run(run, ignore_progress, never_stop)["card"]["layers"])
    assert len(read) == total - 4


def test_what_cannot_be_streamed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path / "model")
    with pytest.raises(SettingsError, match="plain SVD"):
        check(SpectraSpec(ModelRef(str(folder)), ("whitened",), stream=True))
    check(spec_of(folder))
    monkeypatch.setattr(outline_module, "cpu_memory_available", lambda: 1000)
    with pytest.raises(ResourceError, match="mlp"):
        check(spec_of(folder))
    save_file({f"{word}.weight": torch.ones(2, 2) for word in ("one", "two", "three")}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="no matrices"):
        read_outline(ModelRef(str(folder)))
    with pytest.raises(ModelError, match="lrc starter"):
        read_outline(ModelRef())


def test_a_model_too_large_to_load_can_still_be_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = ModelRef(str(save_tiny(tmp_path / "model")))
    monkeypatch.setattr("lrc_core.models.preflight.cpu_memory_available", lambda: 20_000)
    monkeypatch.setattr(outline_module, "cpu_memory_available", lambda: 20_000)
    with pytest.raises(ModelError, match="--stream"):
        check(SpectraSpec(ref))
    check(spec_of(ref.source))


def test_the_command_line_says_the_same(tmp_path: Path) -> None:
    spec = spec_of("owner/model")
    assert command_for(spec) == "lrc spectra owner/model --stream"
    assert spec_from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert "stream" not in SpectraSpec().to_dict() and "subspaces" not in SpectraSpec().to_dict()
