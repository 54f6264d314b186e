"""Probes equal running the whole model, on the dense model and on top of a plan, and are remembered."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from lrc_core.allocate.probing.grid import ProbeText, ratio_grid
from lrc_core.allocate.probing.prober import DensePredictions, Effect, LayerProber, checked, token_loss
from lrc_core.allocate.probing.probes import BASE, PlanProber, probe_layers
from lrc_core.allocate.probing.records import RecordFile
from lrc_core.budget import break_even, dense_ranks, is_dense, whole_rank_of_share
from lrc_core.errors import CancelledError, NumericalError
from lrc_core.lowrank.apply import compressed
from lrc_core.models.blocks.linears import block_linears
from tests.factories.tiny_methods import (
    MemoryFactors,
    context_for,
    grid_of_shapes,
    modules_of,
    random_windows,
    same_state,
    state_of,
)
from tests.factories.tiny_models import FAMILIES, tiny_model

TEXT = ProbeText(2, 16)


def naive(dense: torch.Tensor, own: torch.Tensor, tokens: torch.Tensor, text: ProbeText) -> Effect:
    """Both figures in double precision, in one piece."""
    target, mine = (torch.log_softmax(part[:, text.skipped :].double() / text.temperature, -1) for part in (dense, own))
    return Effect(token_loss(own, tokens), float((target.exp() * (target - mine)).sum(-1).mean()))


def whole(context, ranks, tokens):  # type: ignore[no-untyped-def]
    with torch.no_grad(), compressed(context.model, context.layers, ranks, context.source):
        return context.model(input_ids=tokens, use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_probes_on_a_plan_are_that_plan_with_one_layer_changed(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    context = context_for(model, tmp_path)
    state, modules = state_of(model), modules_of(model)
    rng = random.Random(0)
    base = {layer.name: rng.choice([3, 6, layer.full_rank]) for layer in context.layers}
    wanted = [(layer, rank) for layer in context.layers[::3] for rank in (2, 5, layer.full_rank)]
    text = ProbeText(2, 16, temperature=0.6, offset=4)
    found = probe_layers(context, text, wanted, base)
    assert modules_of(model) == modules and same_state(model, state)
    tokens = random_windows(2, 16, seed=0)
    dense = whole(context, dense_ranks(context.layers), tokens)
    for key, ranks in [(BASE, base), *(((layer.name, r), {**base, layer.name: r}) for layer, r in wanted)]:
        expected = naive(dense, whole(context, ranks, tokens), tokens, text)
        assert found[key].loss == pytest.approx(expected.loss, rel=1e-5)
        assert found[key].divergence == pytest.approx(expected.divergence, rel=1e-3, abs=1e-6)
    assert list((tmp_path / "checkpoint").iterdir()) and not (tmp_path / "common").exists()


def test_temperature_and_offset_change_the_divergence_only(tmp_path: Path) -> None:
    context = context_for(tiny_model("llama"), tmp_path)
    wanted = [(context.layers[2], 3)]
    key = (wanted[0][0].name, 3)
    texts = [TEXT, ProbeText(2, 16, temperature=0.6), ProbeText(2, 16, offset=5)]
    found = [probe_layers(context, text, wanted)[key] for text in texts]
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-6) == pytest.approx(found[2].loss, rel=1e-6)
    assert len({round(effect.divergence, 6) for effect in found}) == 3
    assert len(list((tmp_path / "common").iterdir())) == 3


def test_the_dense_model_does_not_diverge(tmp_path: Path) -> None:
    context = context_for(tiny_model("gpt2"), tmp_path)
    assert probe_layers(context, TEXT, [])[BASE].divergence == 0.0
    assert PlanProber(context, TEXT).effect(dense_ranks(context.layers)).divergence == 0.0


@pytest.mark.parametrize(
    ("offset", "window", "skipped"), [(256, 2048, 256), (256, 256, 32), (256, 257, 256), (0, 4, 0)]
)
def test_a_window_no_longer_than_the_offset_loses_an_eighth(offset: int, window: int, skipped: int) -> None:
    assert ProbeText(1, window, offset=offset).skipped == skipped


def test_probed_ranks_keep_the_ratio() -> None:
    for layer in grid_of_shapes([(48, 48), (16, 48), (96, 40), (1536, 576)]):
        for ratio in ratio_grid(0.1, 1.0, 0.1):
            rank = whole_rank_of_share(layer, ratio)
            assert rank <= max(1.0, ratio * break_even(layer) + 1e-6) < rank + 1 + 1e-6
            assert is_dense(layer, rank) == (ratio == 1.0 and rank == break_even(layer))
    assert ratio_grid(0.4, 0.9, 0.1) == [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert ratio_grid(0.5, 0.4, 0.1) == [0.5]


def test_what_is_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 4

    wanted = [(layer, rank) for layer in block_linears(model)[:3] for rank in (2, 5, 5)]
    with pytest.raises(CancelledError, match="Resume"):
        probe_layers(context_for(model, tmp_path, should_stop=stop), TEXT, wanted)
    calls: list[int] = []
    real = LayerProber.effect
    monkeypatch.setattr(LayerProber, "effect", lambda self, *args: calls.append(1) or real(self, *args))
    ticks: list[int] = []
    context = context_for(model, tmp_path, on_progress=lambda tick: ticks.append(tick.step))
    found = probe_layers(context, TEXT, wanted)
    assert len(calls) == 6 - 4 and ticks == [5, 6]
    assert set(found) == {BASE, *((layer.name, rank) for layer, rank in wanted)}
    silent = context_for(model, tmp_path, windows=None)  # no text is asked for
    assert probe_layers(silent, TEXT, wanted) == found


def test_a_loss_that_is_not_finite_names_the_layer(tmp_path: Path) -> None:
    model = tiny_model("llama")
    source = MemoryFactors(model, random_windows(6, 32))
    layer = block_linears(model)[3]
    source._factors[layer.name].left.fill_(float("inf"))
    context = context_for(model, tmp_path, source=source)
    with pytest.raises(NumericalError, match=layer.name):
        probe_layers(context, TEXT, [(layer, 3)])
    with pytest.raises(NumericalError, match="whole plan"):
        PlanProber(context, TEXT).effect({**dense_ranks(context.layers), layer.name: 3})
    with pytest.raises(NumericalError):
        checked(Effect(1.0, float("nan")), "something")


def test_the_fast_way_to_the_loss_is_the_loss() -> None:
    tokens, logits = random_windows(3, 10), torch.randn(3, 10, 128)
    other = torch.randn(3, 10, 128)
    for reference in (
        DensePredictions(logits, tokens),
        DensePredictions(logits, tokens, 0.5),
        DensePredictions(logits, tokens, 1.0, 3),
    ):
        assert reference.effect(other).loss == pytest.approx(token_loss(other, tokens), rel=1e-6)


def test_broken_records_are_dropped(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "new" / "records.jsonl", ("a", "b"))
    assert file.read() == []
    file.append({"a": 1, "b": 2.5})
    path = tmp_path / "new" / "records.jsonl"
    with path.open("a") as text:
        text.write('{"a": 1}\n[]\nnull\n{"a": 1, "b": 3')
    file.append({"a": 2, "b": 0.1})
    assert file.read() == [{"a": 1, "b": 2.5}, {"a": 2, "b": 0.1}]
    assert [json.loads(line)["a"] for line in path.read_text().splitlines()] == [1, 2]
