"""What of the blocks can be compressed: counted once, the same from files and from the loaded model, and said."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from lrc_core.coverage import blocks_kept, coverage_words, covered, kept_words, part_of
from lrc_core.errors import PlanError
from lrc_core.models.blocks.experts import unstack_experts
from lrc_core.models.blocks.linears import find_blocks
from lrc_core.models.checks.first_look import first_look
from lrc_core.models.outline import read_outline
from lrc_core.models.preflight import preflight
from lrc_core.plan import make_plan
from lrc_core.runs.spec import ModelRef, SpectraSpec
from lrc_core.types import LinearShape, ModelCard
from tests.factories.pipeline_helpers import run
from tests.factories.tiny_methods import card_of
from tests.factories.tiny_models import FAMILIES, MIXTURES, UNLIKE, save_tiny, tiny_model

NOT_A_LIST = ("xlm",)  # several lists side by side: the files show no such thing as one list of blocks


@pytest.mark.parametrize("name", [name for name in (*FAMILIES, *MIXTURES, *UNLIKE) if name not in NOT_A_LIST])
def test_files_and_the_loaded_model_say_the_same(name: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / name, name)
    outline = read_outline(ModelRef(str(folder))).card
    model = tiny_model(name)
    unstack_experts(model)
    blocks = find_blocks(model, first_look(model).called)

    def sizes(layers: tuple[LinearShape, ...]) -> Counter[tuple[int, int, int]]:
        return Counter((layer.block, layer.out_features, layer.in_features) for layer in layers)

    assert sizes(outline.layers) == sizes(blocks.layers)
    for coverage in (outline.coverage, blocks.coverage):
        assert all(some <= whole for some, whole in coverage.values())
    assert covered(outline.coverage) == pytest.approx(covered(blocks.coverage), abs=0.02)
    assert (coverage_words(outline.coverage) == "") == (coverage_words(blocks.coverage) == "")


@pytest.mark.parametrize("name", [*FAMILIES, "mixtral", "qwen3_moe", "gpt_oss", "dbrx", "deepseek_v2"])
def test_where_all_can_be_compressed_nothing_is_added(name: str) -> None:
    model = tiny_model(name)
    unstack_experts(model)
    coverage = find_blocks(model, first_look(model).called).coverage
    assert covered(coverage) > 0.99 and coverage_words(coverage) == kept_words(0.7, coverage) == ""


def test_what_cannot_be_compressed_is_counted_by_part(tmp_path: Path) -> None:
    """The experts of a model whose experts are left as they are, by hand."""
    model = tiny_model("mixtral")
    blocks = find_blocks(model, first_look(model).called)
    attention = sum(layer.params for layer in blocks.layers)
    experts = sum(p.numel() for name, p in model.named_parameters() if name.endswith(("gate_up_proj", "down_proj")))
    assert blocks.coverage == {"attention": (attention, attention), "experts": (0, experts)}
    share = attention / (attention + experts)
    assert covered(blocks.coverage) == share
    assert blocks_kept(0.7, blocks.coverage) == pytest.approx((0.7 * attention + experts) / (attention + experts))
    words = coverage_words(blocks.coverage)
    assert "100 % of the attention" in words and "0 % of the experts" in words and f"{100 * share:.3g} %" in words
    assert "% of the blocks" in kept_words(0.7, blocks.coverage)
    card = replace(card_of(tiny_model("llama")), coverage=blocks.coverage)
    assert ModelCard.from_dict(card.to_dict()) == card and hash(card)
    old = {key: value for key, value in card.to_dict().items() if key != "coverage"}
    assert ModelCard.from_dict(old).coverage == {} and coverage_words({}) == ""
    assert any("can be compressed" in warning for warning in preflight(ModelRef(str(_mamba(tmp_path)))).warnings)


def _mamba(folder: Path) -> Path:
    return save_tiny(folder / "mamba", "mamba")


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "llama4_text", "dbrx", "jetmoe"])
def test_streamed_spectra_of_experts_are_those_of_numpy(name: str, tmp_path: Path) -> None:
    """Stacked, turned, gate and up in turn, one below the other: every matrix of the files, by hand."""
    folder = save_tiny(tmp_path / name, name)
    found = run(SpectraSpec(ModelRef(str(folder)), ("svd",), stream=True))
    model = tiny_model(name)
    unstack_experts(model)
    expected = sorted(
        tuple(np.linalg.svd(model.get_submodule(layer.name).weight.double().numpy(), compute_uv=False).round(4))
        for layer in find_blocks(model, first_look(model).called).layers
    )
    with np.load(found.path / "spectra.npz") as arrays:
        streamed = sorted(tuple(arrays[key].astype(float).round(4)) for key in arrays.files)
    assert len(streamed) == len(expected)
    for mine, theirs in zip(streamed, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-3)
    assert load_file(folder / "model.safetensors")


def test_a_plan_from_before_experts_were_compressed_leaves_them_dense() -> None:
    model = tiny_model("mixtral")
    before = card_of(model)
    plan = make_plan(
        before, {layer.name: 4 for layer in before.layers}, decomposition="svd", method="uniform", keep_target=0.5
    )
    later = tiny_model("mixtral")
    unstack_experts(later)
    layers = find_blocks(later, first_look(later).called).layers
    ranks = plan.full_ranks(layers)
    assert all(ranks[layer.name] == (4 if layer.name in plan.ranks else layer.full_rank) for layer in layers)
    with pytest.raises(PlanError):
        plan.full_ranks(layers[1:])


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("self_attn.q_proj", "attention"), ("attention.query_key_value", "attention"), ("attn.c_attn", "attention"),
        ("mlp.down_proj", "MLP"), ("fc1", "MLP"), ("mlp.experts.3.up_proj", "experts"), ("mixer.in_proj", "other"),
        ("mlp.shared_expert.up_proj", "MLP"),
    ],
)  # fmt: skip
def test_parts_by_name(kind: str, part: str) -> None:
    assert part_of(kind) == part
