"""Number formats: their grids by hand, their bytes in packed arrays, and models that run on rounded numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lrc_core.budget import dense_ranks, uniform_ranks
from lrc_core.errors import NumericalError, PlanError, UnknownNameError
from lrc_core.formats.grids import BF16, FORMATS, Q4_0, Q5_1, Q8_0, QUANTISED, Format, check_formats, format_named
from lrc_core.formats.rounding import on_grid, packed, unpacked
from lrc_core.formats.sizes import layer_bytes, layer_states, stored_matrices, whole_bytes
from lrc_core.lowrank.apply import compressed
from lrc_core.lowrank.rounding import unit_columns
from lrc_core.models.blocks.linears import block_linears, get_module, weight_of
from lrc_core.plan import Plan, make_plan
from lrc_core.quality.footprint import footprint
from lrc_core.quality.quantised import quantised_plan, sizes_of
from lrc_core.results.answers import without_factors
from lrc_core.runs.spec import AnswerSpec
from lrc_core.types import LinearShape, ModelCard, ModelIdentity
from tests.factories.run_factory import make_card
from tests.factories.tiny_methods import MemoryFactors, modules_of, random_windows, same_state, state_of
from tests.factories.tiny_models import tiny_model

Array = NDArray[np.float32]


def matrix(rows: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def by_hand(data: NDArray[np.uint8], form: Format) -> Array:
    """llama.cpp's block layouts, read byte by byte (ggml-common.h and dequantize_row_* of ggml-quants.c)."""
    rows = []
    for row in data:
        numbers: list[float] = []
        for start in range(0, len(row), form.block_bytes):
            block = row[start : start + form.block_bytes]
            scale = float(block[:2].view(np.float16)[0])
            if form is Q8_0:
                numbers += [scale * int(q) for q in block[2:].view(np.int8)]
                continue
            lowest = float(block[2:4].view(np.float16)[0]) if form is Q5_1 else 0.0
            fifth = int(block[4:8].view(np.uint32)[0]) if form is Q5_1 else 0
            nibbles = block[8:] if form is Q5_1 else block[2:]
            levels = [int(byte) & 15 for byte in nibbles] + [int(byte) >> 4 for byte in nibbles]
            if form is Q5_1:
                numbers += [scale * (q + 16 * (fifth >> i & 1)) + lowest for i, q in enumerate(levels)]
            else:
                numbers += [scale * (q - 8) for q in levels]
        rows.append(numbers)
    return np.array(rows, dtype=np.float32)


@pytest.mark.parametrize("form", [Q8_0, Q5_1, Q4_0], ids=lambda form: form.name)
@pytest.mark.parametrize("width", [32, 96, 50, 1])
def test_grids_are_those_of_llama_cpp(form: Format, width: int) -> None:
    plain = matrix(5, width)
    data = packed(plain, form)
    assert data.nbytes == form.bytes_of(5, width)  # a padded last block counts
    found = unpacked(data, form, width)
    assert found.shape == plain.shape
    np.testing.assert_allclose(found, by_hand(data, form)[:, :width], rtol=1e-6, atol=1e-7)
    again = unpacked(packed(found, form), form, width)
    assert np.abs(again - found).max() < 0.02 * np.abs(found).max()


def test_more_bits_are_more_exact() -> None:
    plain = matrix(16, 256)
    errors = [
        np.linalg.norm(plain - unpacked(packed(plain, form), form, 256)) / np.linalg.norm(plain)
        for form in (Q8_0, Q5_1, Q4_0)
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.01 < errors[1] < errors[2] < 0.1
    assert [form.bits for form in (BF16, Q8_0, Q5_1, Q4_0)] == [16, 8.5, 6, 4.5]
    tensor = torch.tensor(plain).bfloat16()
    assert on_grid(tensor, BF16) is tensor
    assert on_grid(tensor, Q8_0).dtype == torch.bfloat16
    zeros = np.zeros((2, 40), dtype=np.float32)
    np.testing.assert_array_equal(unpacked(packed(zeros, Q5_1), Q5_1, 40), zeros)


def test_unknown_formats_and_numbers_are_refused() -> None:
    for name in ("Q4_1", "Q3_K", "int8", ""):
        with pytest.raises(UnknownNameError, match="Known: bf16, Q8_0, Q5_1, Q4_0"):
            format_named(name)
    assert format_named("q8_0") is Q8_0
    with pytest.raises(UnknownNameError, match="dense model itself"):
        check_formats(["Q8_0", "bf16"])
    broken = matrix(2, 32)
    broken[1, 3] = np.nan
    with pytest.raises(NumericalError, match="not finite"):
        packed(broken, Q8_0)


def card_of(model: Any, layers: tuple[LinearShape, ...]) -> ModelCard:
    linear = sum(layer.params for layer in layers)
    total = sum(parameter.numel() for parameter in model.parameters())
    identity = ModelIdentity("tiny", "", "0123456789abcdef", type(model).__name__)
    return ModelCard(identity, "tiny", total, linear, 3, 64, 128, 128, "float32", 2, "cpu", layers)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("form", [Q8_0, Q4_0], ids=lambda form: form.name)
def test_the_forward_pass_runs_on_the_numbers_that_come_back(family: str, form: Format) -> None:
    """Dense and low-rank layers alike, biases and Conv1D included; and the model is as it was afterwards."""
    model = tiny_model(family)
    layers, source = block_linears(model), MemoryFactors(model, random_windows(6, 32))
    ranks = {**dense_ranks(layers), **dict(list(uniform_ranks(layers, 0.5).items())[::2])}
    modules, state = modules_of(model), state_of(model)
    inputs = {layer.name: torch.randn(3, layer.in_features) for layer in layers}
    plain = {layer.name: weight_of(get_module(model, layer.name)).clone() for layer in layers}
    bias = {layer.name: getattr(get_module(model, layer.name), "bias", None) for layer in layers}
    with compressed(model, layers, ranks, source, None, dict.fromkeys(ranks, form.name)), torch.no_grad():
        for layer in layers:
            got = get_module(model, layer.name)(inputs[layer.name])
            if ranks[layer.name] == layer.full_rank:
                weight = torch.tensor(unpacked(packed(plain[layer.name].numpy(), form), form, layer.in_features))
            else:
                found, k = source.factors(layer.name, layer.block), ranks[layer.name]
                left, right = (on_grid(part, form) for part in unit_columns(found.left[:, :k], found.right[:k]))
                weight = left @ right
            wanted = inputs[layer.name] @ weight.T
            wanted = wanted if bias[layer.name] is None else wanted + bias[layer.name]
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert modules_of(model) == modules and same_state(model, state)


def test_balancing_changes_the_scale_of_components_and_nothing_else() -> None:
    draw = torch.Generator().manual_seed(0)
    sizes = torch.logspace(2, -4, 31)
    left = torch.cat([torch.randn(40, 31, generator=draw) * sizes, torch.zeros(40, 1)], 1)
    right = torch.randn(32, 64, generator=draw) / torch.cat([sizes, torch.ones(1)])[:, None]
    one, two = unit_columns(left, right)
    torch.testing.assert_close(one @ two, left @ right, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.linalg.vector_norm(one, dim=0)[:31], torch.ones(31))
    error = torch.linalg.norm(torch.matmul(*(on_grid(part, Q8_0) for part in unit_columns(left, right))) - left @ right)
    uneven = torch.linalg.norm(on_grid(left, Q8_0) @ on_grid(right, Q8_0) - left @ right)
    assert error < uneven / 10


def test_bytes_of_a_plan_are_those_of_its_packed_arrays() -> None:
    model = tiny_model()
    layers = block_linears(model)
    card = card_of(model, layers)
    ranks = {**dense_ranks(layers), layers[0].name: 5, layers[3].name: 7}
    formats = {layers[0].name: "Q8_0", layers[1].name: "Q4_0", layers[2].name: "Q5_1"}
    counted = 0
    for layer in layers:
        form = FORMATS[formats.get(layer.name, "bf16")]
        for rows, width in stored_matrices(layer, ranks[layer.name]):
            plain = matrix(rows, width)
            counted += 2 * plain.size if form is BF16 else packed(plain, form).nbytes
    assert sum(one.bytes for one in layer_states(layers, ranks, formats)) == counted
    plan = replace(make_plan(card, ranks, decomposition="svd", method="uniform", keep_target=0.9), formats=formats)
    assert sizes_of(card, plan) == {
        "bytes_share": counted / whole_bytes(layers),
        "model_bytes": counted + 2 * (card.params_total - card.params_linear),
    }
    assert footprint(card, plan, 16).weights == sizes_of(card, plan)["model_bytes"]
    assert sizes_of(card, None)["bytes_share"] == 1


@pytest.mark.parametrize("name", QUANTISED)
def test_what_is_no_whole_blocks_stays_in_16_bits(name: str) -> None:
    layers = (LinearShape("a.0.x", 0, "x", 64, 96), LinearShape("a.0.y", 0, "y", 64, 100))
    plan = quantised_plan(card_of(tiny_model(), layers), name)
    assert plan.formats == {"a.0.x": name}
    assert plan.dense == ("a.0.x", "a.0.y") and not plan.ranks
    wanted = layer_bytes(layers[0], 64, FORMATS[name]) + 2 * layers[1].params
    assert plan.bytes_share(layers) == wanted / whole_bytes(layers)


def test_plan_files_say_formats_and_old_ones_mean_16_bits() -> None:
    model = tiny_model()
    layers = block_linears(model)
    plan = quantised_plan(card_of(model, layers), "Q5_1")
    data = plan.to_dict()
    assert Plan.from_dict(data) == plan
    old = {key: value for key, value in data.items() if key != "formats"}
    assert Plan.from_dict(old).formats == {} and "formats" not in Plan.from_dict(old).to_dict()
    assert Plan.from_dict(old).bytes_share(layers) == 1
    for wrong in ({layers[0].name: "Q9_9"}, {"no.such.layer": "Q8_0"}):
        with pytest.raises(PlanError, match=r"Q9_9|no\.such\.layer"):
            Plan.from_dict({**data, "formats": wrong})


def test_an_answer_of_a_number_format_alone_waits_for_no_factors(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("LRC_CACHE", str(tmp_path))
    card = make_card()
    low = make_plan(
        card, {layer.name: 1 for layer in card.layers}, decomposition="whitened", method="uniform", keep_target=0.5
    )
    answers = [AnswerSpec(plan=plan.to_dict()) for plan in (quantised_plan(card, "Q8_0"), low)]
    assert without_factors(answers[:1]) == []
    assert without_factors(answers) == ["whitened"]
