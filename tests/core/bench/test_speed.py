"""`lrc bench speed`: forms of one model, what a pass of each needs, and a table of them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lrc_core.bench.contenders import Contender, contenders, low_rank_copy, shallow_copy, two_blocks
from lrc_core.bench.eight_bits import rowwise_int8
from lrc_core.bench.inference import SpeedGrid, inference
from lrc_core.bench.layer import Siblings, StackedSiblings
from lrc_core.bench.limits import Need, Rates
from lrc_core.bench.passes import DECODE, EAGER, GRAPHS, PREFILL, Workload, cache_seed, need_of, timed
from lrc_core.budget import plan_params, stored, uniform_ranks
from lrc_core.cli import main
from lrc_core.lowrank.linear import LowRankLinear
from lrc_core.lowrank.structure import STRUCTURE_FILE, write_structure
from lrc_core.models.blocks.linears import block_linears
from lrc_core.plan import make_plan, pruned_plan
from lrc_core.types import Structure
from tests.factories.tiny_methods import card_of
from tests.factories.tiny_models import save_tiny, tiny_model

FAMILIES = ("llama", "qwen2", "gpt2")


def small() -> nn.Module:
    return two_blocks(torch.device("cpu"), torch.float32, width=64, inner=96)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("storage", ["pair", "pivoted"])
def test_a_form_has_what_its_ranks_cost_and_shares_the_rest(family: str, storage: str) -> None:
    model = tiny_model(family)
    layers = stored(block_linears(model), storage)  # type: ignore[arg-type]
    ranks = uniform_ranks(layers, 0.5)
    made = low_rank_copy(model, layers, ranks)
    mine = {id(parameter) for parameter in model.parameters()}
    own = sum(p.numel() for p in made.parameters() if p.ndim > 1 and id(p) not in mine)
    assert own == plan_params(layers, ranks)
    assert made.get_input_embeddings().weight is model.get_input_embeddings().weight  # type: ignore[operator]
    assert torch.isfinite(made(torch.ones(1, 4, dtype=torch.long)).logits).all()
    assert block_linears(model) == block_linears(shallow_copy(model))


def test_what_a_pass_needs_is_counted() -> None:
    model = small()
    seed, inside, head = cache_seed(model), 2 * (4 * 64 * 64 + 3 * 64 * 96), 2000 * 64
    norms = 5 * 64
    reading = need_of(model, Workload(EAGER, PREFILL, 2, 10), seed, 0)
    writing = need_of(model, Workload(EAGER, DECODE, 2, 10), seed, 7)
    cache = 2 * 10 * 2 * 2 * 64 * 4  # sequences, positions, blocks, keys and values, width, bytes
    assert writing.bytes == 4 * (inside + head + norms) + cache == reading.bytes
    assert writing.flops == 2 * 2 * (inside + head) + 4 * 2 * 2 * 10 * 64
    assert reading.flops == 2 * (20 * inside + 2 * head) + 4 * 2 * 20 * 10 * 64
    rates = Rates(bytes_per_s=1e9, flops_per_s=1e12, launch_s=1e-9)
    assert writing.limit(rates) == "bytes" and Need(1, 10**12, 1).limit(rates) == "arithmetic"
    assert Need(1, 1, 10**9).floors(rates)["launch"] == pytest.approx(1.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_writing_goes_on_after_a_cache_of_the_asked_length(family: str) -> None:
    model, lengths = tiny_model(family), []
    handle = model.register_forward_pre_hook(
        lambda _, __, words: lengths.append(words["past_key_values"].get_seq_length()), with_kwargs=True
    )
    with torch.no_grad():
        seed = cache_seed(tiny_model(family))
        action = timed(model, Workload(EAGER, DECODE, 3, 20), seed)
        for _ in range(2):
            action.ready()
            action.run()
    handle.remove()
    assert lengths == [20, 21, 22, 23] * 2


def test_every_form_of_every_cell_has_a_row() -> None:
    model = small()
    with ExitStack() as stack:
        forms = contenders(model, (0.6,), (), stack)
        found = inference(forms, SpeedGrid((EAGER, GRAPHS), (1, 2), (8,), 0.01))
    rows = found["rows"]
    assert len(rows) == len(forms) * 2 * 2 * 2
    timed_rows = [row for row in rows if row["seconds"]]
    assert {row["name"] for row in timed_rows} == {"dense", "pair 0.6", "pivoted 0.6", "int8 rows"}
    assert all(row["ratio"] == 1 for row in timed_rows if row["name"] == "dense")
    assert all(row["low"] <= row["ratio"] <= row["high"] and row["turns"] >= 3 for row in timed_rows)
    assert all(row["reason"] for row in rows if not row["seconds"])
    dense, pair = (next(row for row in timed_rows if row["name"] == name) for name in ("dense", "pair 0.6"))
    assert pair["bytes"] < dense["bytes"] and pair["limit"] in pair["floors"]


def test_cells_that_would_take_too_long_are_left_out_by_name() -> None:
    found = inference([Contender("dense", 1.0, small())], SpeedGrid((EAGER,), (1,), (10**6,), 1e-6, phases=(PREFILL,)))
    assert [row["seconds"] for row in found["rows"]] == [None] and found["rows"][0]["reason"]


def test_eight_bits_are_the_product_with_rounded_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, inputs, bias = (torch.randn(shape, generator=generator) for shape in ((48, 64), (2, 3, 64), (48,)))
    found = rowwise_int8(weight, bias)(inputs)
    wanted = nn.functional.linear(inputs, weight, bias)
    assert found.dtype == torch.float32 and (found - wanted).norm() / wanted.norm() < 0.02


def test_plans_are_timed_as_they_are_stored(tmp_path: Path) -> None:
    model = tiny_model("llama")
    card, layers = card_of(model), block_linears(model)
    plan = make_plan(card, uniform_ranks(layers, 0.5), decomposition="svd", method="uniform", keep_target=0.5)
    ends = tuple(range(20))
    smaller = Structure(
        rows={f"model.layers.0.mlp.{name}": ends for name in ("gate_proj", "up_proj")},
        columns={"model.layers.0.mlp.down_proj": ends},
    )
    write_structure(tmp_path / STRUCTURE_FILE, smaller)
    cut = pruned_plan(plan, card, smaller.shapes(layers), STRUCTURE_FILE)
    quantised = replace(plan, formats={layers[0].name: "Q8_0"})
    with ExitStack() as stack:
        named = [("plan", plan, tmp_path), ("cut", cut, tmp_path), ("in blocks", quantised, tmp_path)]
        forms = {form.name: form for form in contenders(model, (), named, stack)}
        assert forms["in blocks"].model is None and "Q8_0" in forms["in blocks"].reason
        ranked, made = forms["plan"].model, forms["cut"].model
        assert ranked is not None and made is not None
        assert {name: ranked.get_submodule(name).rank for name in plan.ranks} == plan.ranks
        assert made.get_submodule("model.layers.0.mlp.up_proj").weight.shape == (20, 32)
        assert model.get_submodule("model.layers.0.mlp.up_proj").weight.shape == (48, 32)


def test_the_command_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny(tmp_path / "tiny", "qwen2")
    words = ["bench", "speed", str(folder), "--keep", "0.5", "--batch", "1", "--prompt", "8", "--seconds", "0.01"]
    assert main(words) == 0
    assert "pivoted 0.5" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["phase"] for row in found["rows"]} == {PREFILL, DECODE}
    assert main([*words[:3], "--prompt", "0"]) != 0


def test_siblings_with_their_right_factors_in_one_matrix_compute_the_same() -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = ((24, 5), (12, 3), (12, 4))
    pairs = [
        LowRankLinear(
            torch.randn(m, k, generator=draw), torch.randn(k, 16, generator=draw), torch.randn(m, generator=draw)
        )
        for m, k in shapes
    ]
    apart, inputs = Siblings(pairs), torch.randn(2, 3, 16, generator=draw)
    for one, other in zip(apart(inputs), StackedSiblings(apart)(inputs), strict=True):
        torch.testing.assert_close(one, other)
