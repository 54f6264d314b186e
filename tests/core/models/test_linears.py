"""Linears are found by structure in every family, and can be swapped and put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lrc_core.errors import ModelError, ResourceError
from lrc_core.models.blocks.linears import (
    bias_of,
    block_linears,
    blocks_of,
    decoder_blocks,
    get_module,
    replace_module,
    weight_of,
)
from lrc_core.models.device import named_dtype, pick_device, pick_dtype
from tests.factories.tiny_models import BLOCKS, FAMILIES, tiny_model

GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2")
LINEARS_A_BLOCK = {**dict.fromkeys(GATED, 7), "opt": 6, "gpt2": 4, "gpt_neox": 4}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_of_the_blocks_and_nothing_else(family: str) -> None:
    model = tiny_model(family)
    layers = block_linears(model)
    assert len(decoder_blocks(model)) == BLOCKS
    assert len(layers) == BLOCKS * LINEARS_A_BLOCK.get(family, 6)
    prefix = blocks_of(model).prefix
    for layer in layers:
        assert layer.name == f"{prefix}.{layer.block}.{layer.kind}"
        module = get_module(model, layer.name)
        assert weight_of(module).shape == (layer.out_features, layer.in_features)
    everywhere = {name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    outside = everywhere - {layer.name for layer in layers}
    assert all(not name.startswith(prefix) for name in outside)
    assert [layer.block for layer in layers] == sorted(layer.block for layer in layers)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
def test_weight_of_is_what_the_layer_multiplies_by(family: str) -> None:
    model = tiny_model(family)
    layer = block_linears(model)[-1]
    module = get_module(model, layer.name)
    x = torch.randn(5, layer.in_features)
    bias = bias_of(module)
    expected = x @ weight_of(module).T + (0 if bias is None else bias)
    torch.testing.assert_close(module(x), expected)
    assert weight_of(module).data_ptr() == module.weight.data_ptr()


def test_replace_and_put_back_leaves_the_model_as_it_was() -> None:
    model = tiny_model()
    tokens = torch.arange(12)[None]
    before = model(tokens).logits
    name = block_linears(model)[4].name
    old = replace_module(model, name, nn.Identity())
    assert isinstance(get_module(model, name), nn.Identity)
    assert replace_module(model, name, old).__class__ is nn.Identity
    assert torch.equal(model(tokens).logits, before)
    with pytest.raises(ModelError, match=r"model\.layers\.9"):
        get_module(model, "model.layers.9.mlp.up_proj")
    with pytest.raises(ModelError):
        weight_of(nn.Embedding(3, 3))


def _block(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU())


def test_a_deep_small_tower_and_experts_are_not_the_decoder() -> None:
    class Expert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(_block(16) for _ in range(9))

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision = nn.ModuleList(_block(4) for _ in range(20))
            self.text = nn.Module()
            self.text.layers = nn.ModuleList(Expert() for _ in range(3))

    layers = block_linears(Both())
    assert blocks_of(Both()).prefix == "text.layers"
    assert len(layers) == 27 and layers[0].kind == "experts.0.0" and layers[-1].block == 2


def test_models_without_blocks_or_linears_are_refused() -> None:
    with pytest.raises(ModelError, match="decoder blocks"):
        block_linears(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(ModelError, match="no dense linear"):
        model = nn.Module()
        model.layers = nn.ModuleList(nn.LayerNorm(4) for _ in range(3))
        block_linears(model)


def test_devices_and_precisions() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_dtype(torch.device("cpu")) in (torch.float32, torch.bfloat16)
    assert named_dtype("float32", torch.device("cpu")) is torch.float32
    for name in ("gpu", "cuda:77"):
        with pytest.raises(ResourceError, match=name):
            pick_device(name)
    with pytest.raises(ResourceError, match="int3"):
        named_dtype("int3", torch.device("cpu"))
