"""Overlaps of neighbouring blocks: exact where the answer is known, and stored by the spectra job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lrc_core.calibrate.subspaces import compared, leading_directions, neighbour_overlaps
from lrc_core.decompose.measures import subspace_overlap
from lrc_core.errors import CancelledError
from lrc_core.models.blocks.linears import block_linears, get_module
from tests.factories.tiny_models import tiny_model


@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_leading_directions_are_those_of_the_svd(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    left = torch.linalg.qr(torch.randn(shape[0], 30, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(shape[1], 30, generator=generator))[0]
    weight = left @ torch.diag(0.7 ** torch.arange(30.0)) @ right.T
    found = leading_directions(weight, 6)
    assert subspace_overlap(found.outputs.numpy(), left[:, :6].numpy()) == pytest.approx(1, abs=1e-5)
    assert subspace_overlap(found.inputs.numpy(), right[:, :6].numpy()) == pytest.approx(1, abs=1e-5)


def test_equal_neighbours_overlap_fully_and_random_ones_by_chance() -> None:
    model = tiny_model()
    layers = block_linears(model)
    by_block = {layer.block: layer for layer in layers if layer.kind == "mlp.up_proj"}
    with torch.no_grad():
        get_module(model, by_block[1].name).weight.copy_(get_module(model, by_block[0].name).weight)
    found = neighbour_overlaps(model, layers)["layers"]
    assert set(found) == {layer.name for layer in layers}
    first, middle, last = (found[by_block[block].name] for block in range(3))
    assert first["inputs"] == pytest.approx(1, abs=1e-4) and first["outputs"] == pytest.approx(1, abs=1e-4)
    assert middle["inputs"] == pytest.approx((1 + last["inputs"]) / 2, abs=1e-4), "the mean over both neighbours"
    assert first["directions"] == compared(by_block[0]) == 4
    assert first["chance_inputs"] == 4 / 32 and first["chance_outputs"] == 4 / 48
    assert last["inputs"] < 0.6


def test_it_stops_when_asked() -> None:
    model = tiny_model()
    with pytest.raises(CancelledError):
        neighbour_overlaps(model, block_linears(model), should_stop=lambda: True)


def test_the_spectra_job_stores_them(tmp_path: Path) -> None:
    from lrc_core.pipeline import execute
    from lrc_core.runs.spec import CalibrationSpec, ModelRef, SpectraSpec
    from lrc_core.runs.store import RunStore
    from lrc_core.types import ignore_progress, never_stop
    from tests.factories.tiny_models import save_tiny, tiny_text

    text = tmp_path / "text.txt"
    text.write_text(tiny_text(6000))
    ref = ModelRef(str(save_tiny(tmp_path / "model")))
    spec = SpectraSpec(ref, ("svd",), CalibrationSpec((str(text),), 4, 32), subspaces=True)
    run = RunStore().create(spec)
    result = execute(run, on_progress=ignore_progress, should_stop=never_stop)
    stored = json.loads((run.path / "subspaces.json").read_text())["layers"]
    assert set(stored) == {layer["name"] for layer in result["card"]["layers"]}
