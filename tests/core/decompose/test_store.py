"""Moments and factors on disk: written whole, computed once, keyed by everything that changes them."""

from __future__ import annotations

import errno
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from lrc_core.calibrate import factor_model
from lrc_core.calibrate.factor_model import Calibrated, factors, moments, spectra
from lrc_core.decompose import ASVD, SVD, WHITENED
from lrc_core.decompose.factorise import factorise, whitened
from lrc_core.decompose.store import FactorStore, disk_cost
from lrc_core.errors import CancelledError, ResourceError, RunError
from lrc_core.models.blocks.linears import block_linears, get_module, weight_of
from lrc_core.types import Progress
from tests.factories.tiny_methods import random_windows, statistics_of
from tests.factories.tiny_models import BLOCKS, tiny_model


@pytest.fixture
def calibrated(tmp_path: Path) -> Calibrated:
    model = tiny_model("llama")
    return Calibrated(model, block_linears(model), "weights", random_windows(6, 32), tmp_path / "cache")


def test_factors_read_from_disk_are_those_computed(calibrated: Calibrated) -> None:
    store = factors(calibrated, WHITENED, WHITENED.settings())
    assert store.complete
    assert store.description["decomposition"] == "whitened"
    statistics = statistics_of(calibrated.model, calibrated.windows)
    for layer in calibrated.layers:
        weight = weight_of(get_module(calibrated.model, layer.name))
        expected = factorise(weight, whitened(statistics[layer.name], WHITENED.settings()))
        found = store.factors(layer.name, layer.block)
        torch.testing.assert_close(found.sigma, expected.sigma, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.left @ found.right, weight, rtol=1e-3, atol=1e-4)
        assert torch.equal(store.sigma(layer.name, layer.block), found.sigma)
    values = spectra(calibrated, WHITENED, WHITENED.settings())
    for layer in calibrated.layers:
        expected_values = store.sigma(layer.name, layer.block).double()
        torch.testing.assert_close(values[layer.name], expected_values, rtol=1e-5, atol=1e-5)


def test_everything_is_computed_once(calibrated: Calibrated, monkeypatch: pytest.MonkeyPatch) -> None:
    first = factors(calibrated, WHITENED, WHITENED.settings())
    monkeypatch.setattr(factor_model, "factorise", _must_not_run)
    monkeypatch.setattr(factor_model, "block_statistics", _must_not_run)
    assert factors(calibrated, WHITENED, WHITENED.settings()).folder == first.folder
    spectra(calibrated, ASVD, ASVD.settings())  # from the same moments


def _must_not_run(*_: Any, **__: Any) -> Any:
    raise AssertionError("computed twice")


def test_plain_svd_asks_for_no_text(calibrated: Calibrated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factor_model, "block_statistics", _must_not_run)
    store = factors(calibrated, SVD, SVD.settings())
    other_text = replace(calibrated, windows=random_windows(3, 16, seed=9))
    assert factors(other_text, SVD, SVD.settings()).folder == store.folder


def test_keys_hold_everything_that_changes_a_result(calibrated: Calibrated) -> None:
    reordered = replace(calibrated, windows=calibrated.windows.flip(0))
    reshaped = replace(calibrated, windows=calibrated.windows.reshape(12, 16))
    other_weights = replace(calibrated, fingerprint="others")
    half = replace(calibrated, model=tiny_model("llama").to(torch.bfloat16))
    keys = [found.key("whitened", {}) for found in (calibrated, reordered, reshaped, other_weights, half)]
    keys += [
        calibrated.key("whitened", {"damping": 1}),
        calibrated.key("asvd", {}),
        calibrated.key("asvd", {}, text=False),
    ]
    assert len(set(keys)) == len(keys)
    assert calibrated.key("whitened", {}) == keys[0]


def test_a_cancelled_decomposition_is_not_taken_for_complete(calibrated: Calibrated) -> None:
    done: list[Progress] = []
    with pytest.raises(CancelledError):
        factors(calibrated, SVD, SVD.settings(), done.append, lambda: len(done) >= 2)
    folder = next((calibrated.cache / "decompositions").iterdir())
    assert not FactorStore(folder).complete
    assert FactorStore(folder).has_block(1)
    store = factors(calibrated, SVD, SVD.settings(), done.append)
    assert store.complete
    assert (done[-1].step, done[-1].total) == (BLOCKS, BLOCKS)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _garble(path: Path) -> None:
    path.write_bytes(b"\xff" * 64)


@pytest.mark.parametrize("damage", [_truncate, _garble, Path.unlink])
def test_a_damaged_file_is_named_with_the_remedy(calibrated: Calibrated, damage: Callable[[Path], None]) -> None:
    store = factors(calibrated, SVD, SVD.settings())
    damage(store.folder / "block-0001.safetensors")
    first, second = (next(layer for layer in calibrated.layers if layer.block == block) for block in (0, 1))
    store.factors(first.name, 0)
    with pytest.raises(RunError, match=r"block-0001\.safetensors.*lrc doctor --clean"):
        store.factors(second.name, 1)


def test_a_damaged_description_is_named_with_the_remedy(calibrated: Calibrated) -> None:
    store = factors(calibrated, SVD, SVD.settings())
    (store.folder / "complete.json").write_text('{"decomposition": "sv')
    with pytest.raises(RunError, match=r"complete\.json .*lrc doctor --clean"):
        _ = store.description


def test_an_unknown_layer_is_an_error_in_words(calibrated: Calibrated) -> None:
    store = factors(calibrated, SVD, SVD.settings())
    with pytest.raises(RunError, match=r"nothing\.left cannot be read"):
        store.factors("nothing", 0)


def test_a_full_disk_says_so_and_leaves_no_half_file(calibrated: Calibrated, monkeypatch: pytest.MonkeyPatch) -> None:
    written = safetensors.torch.save_file

    def full_after_the_first(tensors: Any, path: Path, **more: Any) -> None:
        if "0000" not in path.name:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        written(tensors, path, **more)

    monkeypatch.setattr(safetensors.torch, "save_file", full_after_the_first)
    with pytest.raises(ResourceError, match=r"block-0001.*Free"):
        factors(calibrated, SVD, SVD.settings())
    folder = next((calibrated.cache / "decompositions").iterdir())
    assert [path.name for path in folder.glob("block-*.safetensors")] == ["block-0000.safetensors"]
    monkeypatch.setattr(safetensors.torch, "save_file", written)
    assert factors(calibrated, SVD, SVD.settings()).complete


def test_too_small_a_disk_is_told_before_anything_is_computed(
    calibrated: Calibrated, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    monkeypatch.setattr(factor_model, "factorise", _must_not_run)
    with pytest.raises(ResourceError, match=r"0\.0 GB"):
        factors(calibrated, SVD, SVD.settings())


def test_the_cost_said_beforehand_is_the_cost(calibrated: Calibrated) -> None:
    cost = disk_cost(calibrated.layers, calibrated.cache / "not" / "there" / "yet")
    store = factors(calibrated, SVD, SVD.settings())
    on_disk = sum(path.stat().st_size for path in store.folder.glob("*.safetensors"))
    headers = on_disk - cost.bytes
    assert 0 < headers < 20_000
    assert cost.free > 0


def test_damping_is_reported(calibrated: Calibrated) -> None:
    short = replace(calibrated, windows=random_windows(1, 12))
    damped = factors(short, WHITENED, WHITENED.settings()).description["damped"]
    assert set(damped) == {layer.name for layer in calibrated.layers}
    assert all(0 < value < 0.1 for value in damped.values())
    plenty = replace(calibrated, windows=random_windows(40, 64))
    assert factors(plenty, WHITENED, WHITENED.settings()).description["damped"] == {}


def test_moments_come_back_with_their_tokens(calibrated: Calibrated) -> None:
    store = moments(calibrated)
    expected = statistics_of(calibrated.model, calibrated.windows)
    for layer in calibrated.layers:
        found = store.statistics(layer)
        torch.testing.assert_close(found.second_moment, expected[layer.name].second_moment, rtol=1e-4, atol=1e-5)
        assert found.tokens == calibrated.windows.numel()
    store.delete()
    assert not store.folder.exists()
