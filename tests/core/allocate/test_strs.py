"""STRS: the cut through all probes, and probes that equal running the whole model."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch

from lrc_core.allocate.probing import prober as probing
from lrc_core.allocate.probing.prober import DensePredictions, Effect, LayerProber, token_loss
from lrc_core.allocate.strs.method import Probe, StrsSettings, allocate, choose, probe_grid
from lrc_core.budget import break_even, dense_ranks, fit_budget, is_dense, plan_params
from lrc_core.errors import CancelledError, NumericalError
from lrc_core.lowrank.apply import compressed
from lrc_core.models.blocks.linears import block_linears
from lrc_core.types import LinearShape, Progress
from tests.factories.tiny_methods import (
    MemoryFactors,
    context_for,
    grid_of_shapes,
    random_windows,
    same_state,
    state_of,
)
from tests.factories.tiny_models import FAMILIES, tiny_model

SETTINGS = StrsSettings(windows=2, window=16, lowest=0.3, highest=0.9, step=0.3)
LAYERS = grid_of_shapes([(48, 48), (16, 48), (96, 48)], blocks=2)
GRID = (0.4, 0.6, 0.8, 0.9)


def probes_for(layers: tuple[LinearShape, ...], seed: int) -> list[Probe]:
    """Perplexities that mostly, but not always, fall with the ratio; some are equal."""
    rng = random.Random(seed)
    return [
        Probe(
            layer.name, ratio, max(1, math.floor(ratio * break_even(layer))), round(20 + rng.expovariate(1) / ratio, 1)
        )
        for layer in layers
        for ratio in GRID
    ]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("keep", [0.35, 0.6, 0.8, 0.9, 0.97])
def test_the_cut_is_the_last_of_all_that_fits(seed: int, keep: float) -> None:
    probes = probes_for(LAYERS, seed)
    ordered = sorted(probes, key=lambda probe: (-probe.perplexity, probe.layer, probe.ratio))
    allowed = keep * sum(layer.params for layer in LAYERS)
    best = None
    for cut in range(len(ordered) + 1):
        ranks = dense_ranks(LAYERS)
        for layer in LAYERS:
            left = [probe for probe in ordered[cut:] if probe.layer == layer.name]
            if left:
                ranks[layer.name] = min(left, key=lambda probe: probe.ratio).rank
        if plan_params(LAYERS, ranks) <= allowed or best is None:
            best = ranks
    assert best is not None
    assert choose(LAYERS, probes, keep) == fit_budget(LAYERS, best, keep)


def test_a_layer_that_hurts_stays_dense() -> None:
    probes = [Probe(layer.name, ratio, 5, 20.0) for layer in LAYERS for ratio in GRID]
    hurt = LAYERS[2].name
    probes = [Probe(p.layer, p.ratio, p.rank, 900.0 if p.layer == hurt else p.perplexity) for p in probes]
    ranks = choose(LAYERS, probes, 0.85)
    assert is_dense(LAYERS[2], ranks[hurt])


def test_the_grid_is_the_papers() -> None:
    assert probe_grid(StrsSettings()) == [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert probe_grid(StrsSettings(lowest=0.1)) == [round(0.1 * i, 6) for i in range(1, 10)]
    assert probe_grid(StrsSettings(lowest=0.5, highest=0.4)) == [0.5]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_probe_is_the_whole_model_with_one_layer_truncated(family: str) -> None:
    model = tiny_model(family)
    layers, state = block_linears(model), state_of(model)
    source, windows = MemoryFactors(model, random_windows(6, 32)), random_windows(3, 20, seed=5)
    prober = LayerProber(model, source, windows)
    with torch.no_grad():
        for layer in layers[:: max(1, len(layers) // 6)]:
            with compressed(model, layers, {**dense_ranks(layers), layer.name: 4}, source):
                whole = token_loss(model(input_ids=windows, use_cache=False).logits, windows)
            assert prober.loss(layer, 4) == pytest.approx(whole, rel=1e-6)
    assert same_state(model, state)


def test_token_loss_is_the_mean_over_all_next_tokens() -> None:
    windows = random_windows(5, 130)
    logits = torch.randn(5, 130, 128, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), windows[:, 1:].flatten())
    assert token_loss(logits, windows) == pytest.approx(float(expected), rel=1e-5)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    calls: list[tuple[str, int]] = []
    real = probing.LayerProber.effect

    def effect(self: LayerProber, layer: LinearShape, rank: int, reference: DensePredictions) -> Effect:
        calls.append((layer.name, rank))
        return real(self, layer, rank, reference)

    monkeypatch.setattr(probing.LayerProber, "effect", effect)
    return calls


def test_finished_probes_survive_a_cancel_and_serve_every_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    state = state_of(model)
    whole = allocate(context_for(model, tmp_path / "whole"), SETTINGS)
    calls = counted(monkeypatch)
    ticks: list[Progress] = []
    stopping = context_for(model, tmp_path / "parts", on_progress=ticks.append, should_stop=lambda: len(ticks) >= 10)
    with pytest.raises(CancelledError, match="Resume"):
        allocate(stopping, SETTINGS)
    assert same_state(model, state)
    assert len(calls) == 10
    with next((tmp_path / "parts" / "common").iterdir()).open("a") as file:
        file.write('{"layer": "model.layers.0.se\n[]\n{"layer": "model.layers.0.se')  # killed while writing, twice
    resumed = allocate(context_for(model, tmp_path / "parts"), SETTINGS)
    everything = len(block_linears(model)) * len(probe_grid(SETTINGS))
    assert len(calls) == len(set(calls)) == everything
    assert resumed.ranks == whole.ranks
    assert resumed.details == whole.details
    lines = next((tmp_path / "parts" / "common").iterdir()).read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == everything + 1  # and the dense model
    # Another target needs no probe and no text.
    allocate(context_for(model, tmp_path / "parts", keep=0.5, windows=None), SETTINGS)
    assert len(calls) == everything


def test_progress_names_layers_and_perplexities(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    ticks: list[Progress] = []
    found = allocate(context_for(model, tmp_path, on_progress=ticks.append), SETTINGS)
    assert [tick.step for tick in ticks] == list(range(1, ticks[0].total + 1))
    dense, *probes = map(json.loads, next((tmp_path / "common").iterdir()).read_text().splitlines())
    assert (dense["layer"], dense["divergence"]) == ("", 0.0)
    assert found.details == {"probes": len(probes)}
    for tick, probe in zip(ticks, probes, strict=True):
        shown = {"perplexity": math.exp(probe["loss"]), "divergence": probe["divergence"]}
        assert tick.values == {"layer": probe["layer"], **shown}


def test_a_loss_that_is_not_finite_names_the_layer() -> None:
    model = tiny_model("llama")
    source = MemoryFactors(model, random_windows(6, 32))
    layer = block_linears(model)[3]
    source._factors[layer.name].left.fill_(float("inf"))
    prober = LayerProber(model, source, random_windows(2, 16))
    with pytest.raises(NumericalError, match=layer.name):
        prober.loss(layer, 3)
