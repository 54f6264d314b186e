"""Streaming a model from the hub: the headers by ranges, then one shard at a time, none kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lrc_core.errors import CancelledError
from lrc_core.models.blocks.linears import block_linears
from lrc_core.models.hub import fetch_snapshot
from lrc_core.models.outline import read_outline
from lrc_core.paths import cache_home
from lrc_core.pipeline import streaming
from lrc_core.pipeline.streaming import streamed_spectra_run
from lrc_core.runs.spec import SpectraSpec
from lrc_core.runs.store import RunStore
from lrc_core.types import Progress, ignore_progress, never_stop
from tests.factories.hub_stand_in import COMMIT, REF, Hub
from tests.factories.tiny_models import tiny_model

SPEC = SpectraSpec(REF, ("svd",), stream=True)


def in_shards(folder: Path) -> list[str]:
    (folder / "model.safetensors").unlink()
    tiny_model().save_pretrained(folder, max_shard_size="30KB")
    return sorted(path.name for path in folder.glob("*.safetensors"))


def test_shard_after_shard_and_none_stays(hub: type[Hub], tmp_path: Path) -> None:
    shards = in_shards(hub.folder)
    outline = read_outline(REF)
    assert outline.folder is None and outline.card.identity.revision == COMMIT
    run = RunStore(tmp_path / "runs").create(SPEC)
    lying: list[int] = []

    def watch(_: Progress) -> None:
        lying.append(len(list(cache_home().rglob("*.safetensors"))))

    streamed_spectra_run(run, watch, never_stop)
    assert set(outline.shard_bytes) <= set(shards) and len(shards) >= 3
    assert max(lying) == 1 and not list(cache_home().rglob("*.safetensors"))
    model = tiny_model()
    with np.load(run.path / "spectra.npz") as arrays:
        for layer in block_linears(model):
            expected = np.linalg.svd(model.get_submodule(layer.name).weight.numpy(), compute_uv=False)
            assert np.allclose(arrays[f"svd/{layer.name}"], expected, atol=1e-5)


def test_a_stopped_run_fetches_only_what_is_missing(hub: type[Hub], tmp_path: Path) -> None:
    in_shards(hub.folder)
    run = RunStore(tmp_path / "runs").create(SPEC)
    parts = run.path / streaming.PARTS
    with pytest.raises(CancelledError):
        streamed_spectra_run(run, ignore_progress, lambda: parts.exists() and len(list(parts.glob("*.npy"))) >= 10)
    assert not list(cache_home().rglob("*.safetensors"))
    borrowed: list[str] = []
    ticks: list[Progress] = []
    borrow = streaming.borrowed_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "borrowed_file", lambda *a: borrowed.append(a[2]) or borrow(*a))
        streamed_spectra_run(run, ticks.append, never_stop)
    outline = read_outline(REF)
    assert set(borrowed) < set(outline.shard_bytes)
    assert any(tick.phase.startswith("downloading model-") for tick in ticks)


def test_a_model_in_the_hubs_cache_is_read_where_it_lies(hub: type[Hub], tmp_path: Path) -> None:
    folder = fetch_snapshot(REF, ignore_progress, never_stop)
    hub.asked.clear()
    assert read_outline(REF).folder == folder
    streamed_spectra_run(RunStore(tmp_path / "runs").create(SPEC), ignore_progress, never_stop)
    assert not hub.asked and (folder / "model.safetensors").exists()
