"""Pruned linears put on a model and taken off, the file that describes them, and what belongs together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from lrc_core.errors import PlanError
from lrc_core.lowrank.coupling import CoupledUnits, coupled_units, structure_of
from lrc_core.lowrank.structure import read_structure, restructured, write_structure
from lrc_core.models.blocks.linears import block_linears, get_module, weight_of
from lrc_core.types import Structure
from tests.factories.tiny_methods import modules_of, random_windows, same_state, state_of
from tests.factories.tiny_models import BLOCKS, FAMILIES, tiny_model

TOKENS = random_windows(2, 24)
WITHOUT_HEADS = {"gpt2"}  # query, key and value side by side in one matrix: its heads stay whole


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=TOKENS, use_cache=False).logits
        return found


def some_of(units: CoupledUnits) -> list[int]:
    """About half of the units, not the first ones and not in a row."""
    return sorted({*range(units.count - 1, 0, -2), units.count - 1})


def pruned(model: Any) -> tuple[tuple[CoupledUnits, ...], Structure]:
    sets = coupled_units(model, block_linears(model))
    return sets, structure_of((units, some_of(units)) for units in sets)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_offers_its_channels_and_heads(family: str) -> None:
    model = tiny_model(family)
    state, modules = state_of(model), modules_of(model)
    sets = coupled_units(model, block_linears(model))
    kinds = ["channels"] if family in WITHOUT_HEADS else ["channels", "heads"]
    assert sorted((units.block, units.kind) for units in sets) == [(b, kind) for b in range(BLOCKS) for kind in kinds]
    config = model.config
    for units in sets:
        wanted = getattr(config, "num_key_value_heads", config.num_attention_heads)
        assert units.count == (wanted if units.kind == "heads" else sets_width(model, units))
    covered = [layer for units in sets for layer in (*units.rows, *units.columns)]
    assert len(set(covered)) == len(covered)
    if family not in WITHOUT_HEADS:
        assert {layer.name for layer in covered} == {layer.name for layer in block_linears(model)}
        assert sum(units.count * units.params for units in sets) == sum(layer.params for layer in covered)
    assert modules_of(model) == modules
    assert same_state(model, state)


def sets_width(model: Any, units: CoupledUnits) -> int:
    (reader,) = units.columns
    return reader.in_features


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pruned_model_is_the_dense_one_with_those_weights_zeroed(family: str) -> None:
    model, zeroed = tiny_model(family), tiny_model(family)
    sets, structure = pruned(model)
    before, modules, state = logits(model), modules_of(model), state_of(model)
    with torch.no_grad():
        for units in sets:
            dropped = [i for i in range(units.count) if i not in some_of(units)]
            for layer, index in units.columns.items():
                weight_of(get_module(zeroed, layer.name))[:, index[dropped].ravel()] = 0
            for layer, index in units.rows.items():  # these change nothing more: nobody reads them
                weight_of(get_module(zeroed, layer.name))[index[dropped].ravel()] = 0
    with restructured(model, structure) as small:
        assert small is model
        torch.testing.assert_close(logits(model), logits(zeroed), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(logits(model), before, atol=1e-2)
        left = {name: tuple(weight_of(get_module(model, name)).shape) for name in structure.rows}
        assert left == {name: structure.shapes(block_linears(model))[name] for name in structure.rows}
    assert modules_of(model) == modules
    assert same_state(model, state)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_pruned_model_writes_with_its_cache(family: str) -> None:
    """Token by token, keys and values of fewer heads kept in between, gives what one pass gives."""
    model = tiny_model(family)
    with restructured(model, pruned(model)[1]), torch.no_grad():
        whole, cache, parts = logits(model), None, []
        for position in range(6):
            output = model(input_ids=TOKENS[:, position : position + 1], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            parts.append(output.logits)
        torch.testing.assert_close(torch.cat(parts, 1), whole[:, :6], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_a_structure_that_keeps_everything_is_bit_identical(family: str) -> None:
    model = tiny_model(family)
    layers, before = block_linears(model), logits(model)
    with restructured(model, Structure()):
        assert torch.equal(logits(model), before)
    everything = Structure(
        {layer.name: tuple(range(layer.out_features)) for layer in layers},
        {layer.name: tuple(range(layer.in_features)) for layer in layers},
    )
    with restructured(model, everything):
        assert all(get_module(model, layer.name).training is False for layer in layers)
        assert torch.equal(logits(model), before)


def test_a_number_of_heads_that_a_module_counts_is_put_back() -> None:
    model = tiny_model("opt")
    sets, structure = pruned(model)
    attention = get_module(model, next(units.name for units in sets if units.kind == "heads"))
    with pytest.raises(RuntimeError, match="inside"), restructured(model, structure):
        assert attention.num_heads == 2
        raise RuntimeError("inside")
    assert attention.num_heads == 4


def test_a_structure_of_another_model_changes_nothing() -> None:
    model = tiny_model("llama")
    modules = modules_of(model)
    wrong = Structure({"model.layers.0.mlp.up_proj": (0, 1)}, {"model.layers.9.mlp.down_proj": (0, 1)})
    with pytest.raises(Exception, match=r"layers\.9"), restructured(model, wrong):
        pass
    assert modules_of(model) == modules


@pytest.mark.parametrize("conv", [False, True])
def test_a_linear_keeps_rows_columns_bias_and_precision(conv: bool) -> None:
    dense: nn.Module = Conv1D(6, 10) if conv else nn.Linear(10, 6)
    dense.to(torch.bfloat16)
    nn.init.normal_(dense.bias)  # type: ignore[arg-type]
    holder = nn.Module()
    holder.add_module("part", dense)
    inputs = torch.randn(4, 3, dtype=torch.bfloat16)
    random = torch.get_rng_state()
    with restructured(holder, Structure({"part": (1, 4)}, {"part": (0, 5, 9)})):
        small = get_module(holder, "part")
        assert type(small) is type(dense)
        assert {parameter.dtype for parameter in small.parameters()} == {torch.bfloat16}
        assert not any(parameter.requires_grad for parameter in small.parameters())
        expected = inputs @ weight_of(dense)[[1, 4]][:, [0, 5, 9]].T + dense.bias[[1, 4]]  # type: ignore[index]
        torch.testing.assert_close(small(inputs), expected, rtol=0.02, atol=0.02)
    assert torch.equal(torch.get_rng_state(), random)


# -- the file -----------------------------------------------------------------------------------------------------


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    model = tiny_model("llama")
    layers, (_, structure) = block_linears(model), pruned(model)
    shapes = structure.shapes(layers)
    weights = {name: torch.randn(shape) for name, shape in shapes.items()}
    path = tmp_path / "structure.safetensors"
    write_structure(path, structure, weights)
    found, brought = read_structure(path, layers, shapes)
    assert found == structure
    assert brought.keys() == weights.keys()
    with restructured(model, found, brought):
        for name, weight in weights.items():
            assert torch.equal(weight_of(get_module(model, name)), weight)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"
ATTENTION = "model.layers.0.self_attn"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({f"{UP}.rows": torch.tensor([0, 0, 1])}, UP),
        ({f"{UP}.rows": torch.tensor([1, 0])}, UP),
        ({f"{UP}.rows": torch.tensor([-1, 0])}, UP),
        ({f"{UP}.rows": torch.tensor([0, 48])}, UP),
        ({f"{UP}.rows": torch.tensor([0.0, 1.0])}, UP),
        ({f"{UP}.rows": torch.zeros(0, dtype=torch.int32)}, UP),
        ({f"{UP}.rows": torch.tensor([0, 1])}, UP),  # not what the plan says is left
        ({f"{UP}.columns": torch.tensor([0, 1])}, UP),
        ({"model.layers.9.mlp.up_proj.rows": torch.tensor([0])}, "layers.9"),
        ({f"{UP}.surprise": torch.tensor([0])}, "surprise"),
        ({f"{DOWN}.weight": torch.zeros(3, 3)}, DOWN),
        ({f"{ATTENTION}.heads": torch.tensor([3, 2])}, ATTENTION),
        ({f"{ATTENTION}.heads": torch.tensor([1])}, ATTENTION),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, changes: dict[str, torch.Tensor], named: str) -> None:
    model = tiny_model("llama")
    layers, (_, structure) = block_linears(model), pruned(model)
    path = tmp_path / "structure.safetensors"
    write_structure(path, structure)
    save_file({**load_file(path), **changes}, path)
    with pytest.raises(PlanError, match=named):
        read_structure(path, layers, structure.shapes(layers))


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 40])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "structure.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PlanError, match=r"structure\.safetensors cannot be read"):
        read_structure(path, block_linears(tiny_model("llama")))


def test_half_a_file_is_damage(tmp_path: Path) -> None:
    model = tiny_model("llama")
    path = tmp_path / "structure.safetensors"
    write_structure(path, pruned(model)[1])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(PlanError, match="cannot be read"):
        read_structure(path, block_linears(model))


# -- layouts ------------------------------------------------------------------------------------------------------


def test_one_key_and_value_head_for_all_queries_is_left_whole() -> None:
    model: Any = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=1,
        )
    ).eval()
    assert [units.kind for units in coupled_units(model, block_linears(model))] == ["channels", "channels"]


def test_gate_and_up_in_one_matrix() -> None:
    """Phi-3 writes gate and up side by side: a channel is a row of each half."""
    model: Any = transformers.Phi3ForCausalLM(
        transformers.Phi3Config(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            pad_token_id=0,
        )
    ).eval()
    sets = [units for units in coupled_units(model, block_linears(model)) if units.name.endswith("mlp")]
    assert [units.count for units in sets] == [40, 40]
    (index,) = sets[0].rows.values()
    assert index[3].tolist() == [3, 43]
