"""Memory counted by hand: grouped-query attention, fused projections, pruned heads, plans."""

from __future__ import annotations

import pytest

from lrc_core.budget import dense_ranks
from lrc_core.errors import SettingsError
from lrc_core.models.blocks.linears import block_linears
from lrc_core.plan import make_plan, pruned_plan
from lrc_core.quality.footprint import Footprint, cache_bytes_per_token, footprint, overhead_bytes, params_under
from lrc_core.types import LinearShape, ModelCard, ModelIdentity
from tests.factories.tiny_models import BLOCKS, HIDDEN, tiny_model


def card_of(shapes: dict[str, tuple[int, int]], blocks: int = 30, *, hidden: int = 576, bytes_: int = 2) -> ModelCard:
    layers = tuple(
        LinearShape(f"model.layers.{block}.{kind}", block, kind, out, inner)
        for block in range(blocks)
        for kind, (out, inner) in shapes.items()
    )
    linear = sum(layer.params for layer in layers)
    identity = ModelIdentity("x", "", "f" * 64, "X")
    return ModelCard(
        identity, "x", linear + 28_311_552, linear, blocks, hidden, 49_152, 8192, "bfloat16", bytes_, "cpu", layers
    )


SMOLLM = {
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576),
    "mlp.gate_proj": (1536, 576),
    "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}


def test_smollm_by_hand() -> None:
    """30 blocks, 3 key-value heads of 64, 2 bytes: 2 * 30 * 3 * 64 * 2 = 23,040 bytes a token."""
    card = card_of(SMOLLM)
    assert cache_bytes_per_token(card) == 23_040
    found = footprint(card, None, context=8192)
    assert found.weights == 2 * card.params_total
    assert found.cache == 188_743_680
    assert found.overhead == 8192 * (2 * 576 + 2 * 1536) * 2 + 4 * 49_152
    assert found.total == found.weights + 188_743_680 + found.overhead
    twice = footprint(card, None, context=8192, sequences=2)
    assert (twice.cache, twice.overhead, twice.weights) == (2 * 188_743_680, 2 * found.overhead, found.weights)


def test_llama_3_8b_by_hand() -> None:
    """32 blocks, 8 key-value heads of 128: 128 KiB a token, 1 GiB at 8192 tokens."""
    shapes = {**SMOLLM, "self_attn.k_proj": (1024, 4096), "self_attn.v_proj": (1024, 4096)}
    card = card_of(shapes, 32, hidden=4096)
    assert cache_bytes_per_token(card) == 131_072
    assert footprint(card, None, context=8192).cache == 2**30


@pytest.mark.parametrize(
    ("family", "width"), [("llama", 16), ("qwen3", 16), ("gpt2", 32), ("gpt_neox", 32), ("opt", 32), ("phi", 32)]
)
def test_what_the_models_really_keep(family: str, width: int) -> None:
    """Against the shapes in transformers' own cache; the grouped ones keep half of the width."""
    import torch

    model = tiny_model(family)
    card = card_like(model)
    with torch.no_grad():
        cache = model(input_ids=torch.tensor([[3, 4, 5]]), use_cache=True).past_key_values
    kept = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert kept == 3 * BLOCKS * 2 * width
    assert cache_bytes_per_token(card) == kept // 3 * card.dtype_bytes


def card_like(model: object) -> ModelCard:
    layers = block_linears(model)  # type: ignore[arg-type]
    linear, total = sum(layer.params for layer in layers), sum(p.numel() for p in model.parameters())  # type: ignore[attr-defined]
    return ModelCard(
        ModelIdentity("x", "", "f", "X"),
        "x",
        total,
        linear,
        BLOCKS,
        HIDDEN,
        128,
        256,
        "float32",
        4,
        "cpu",
        tuple(layers),
    )


def test_an_unknown_attention_is_said_not_guessed() -> None:
    card = card_of({"mixer.in_proj_special": (64, 32), "mlp.up_proj": (64, 32)}, 2)
    found = footprint(card, None, context=100)
    assert found.cache is None and found.total == found.weights + found.overhead


def test_a_plan_shrinks_weights_and_leaves_the_cache() -> None:
    card = card_of(SMOLLM, 2)
    ranks = {**dense_ranks(card.layers), "model.layers.1.mlp.up_proj": 100}
    plan = make_plan(card, ranks, decomposition="svd", method="uniform", keep_target=0.9)
    saved = 1536 * 576 - 100 * (1536 + 576)
    assert params_under(card, plan) == card.params_total - saved
    assert footprint(card, plan, 512).weights == footprint(card, None, 512).weights - 2 * saved
    assert footprint(card, plan, 512).cache == footprint(card, None, 512).cache


@pytest.mark.parametrize("fused", [False, True])
def test_pruned_heads_shrink_the_cache(fused: bool) -> None:
    """One of three key-value groups (64 wide, three query heads each) goes from one of two blocks."""
    shapes = (
        {"attn.c_attn": (960, 576), "attn.c_proj": (576, 576), "mlp.c_fc": (1536, 576)} if fused else SMOLLM
    )  # 576 + 2 * 192 = 960
    card = card_of(shapes, 2)
    dense = make_plan(card, dense_ranks(card.layers), decomposition="svd", method="llm_pruner", keep_target=0.9)
    left = (
        {"attn.c_attn": (640, 576), "attn.c_proj": (576, 384)}
        if fused
        else {
            "self_attn.q_proj": (384, 576),
            "self_attn.k_proj": (128, 576),
            "self_attn.v_proj": (128, 576),
            "self_attn.o_proj": (576, 384),
        }
    )
    plan = pruned_plan(dense, card, {f"model.layers.1.{kind}": shape for kind, shape in left.items()}, "s.safetensors")
    assert cache_bytes_per_token(card) == 2 * (2 * 192) * 2
    assert cache_bytes_per_token(card, plan) == (2 * 192 + 2 * 128) * 2


def test_money_and_limits() -> None:
    assert Footprint(1_500_000_000, 400_000_000, 100_000_000).monthly(3.5) == pytest.approx(7.0)
    with pytest.raises(SettingsError):
        footprint(card_of(SMOLLM, 1), None, context=0)
    assert overhead_bytes(card_of(SMOLLM, 1), 1) < overhead_bytes(card_of(SMOLLM, 1), 2)
