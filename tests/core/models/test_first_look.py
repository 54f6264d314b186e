"""What is seen of a model before its first real pass: what runs, whether it looks ahead, what fits its positions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lrc_core.errors import EvaluationError, ModelError
from lrc_core.kinds import checks
from lrc_core.lowrank.linear import LowRankLinear
from lrc_core.models.blocks.linears import (
    block_linears,
    blocks_of,
    decoder_blocks,
    find_blocks,
    get_module,
    replace_module,
)
from lrc_core.models.blocks.partial import require_chain
from lrc_core.models.checks.first_look import first_look
from lrc_core.models.checks.fit import model_positions, require_fit
from lrc_core.models.checks.positions import length_warning, positions_of, require_length
from lrc_core.models.headers import TensorHeader
from lrc_core.models.preflight import preflight
from lrc_core.runs.spec import AllocateSpec, EvaluateSpec, EvaluationSpec, ModelRef
from tests.factories.tiny_models import FAMILIES, MIXTURES, POSITIONS, UNLIKE, VOCAB, save_tiny, tiny_model

BIDIRECTIONAL = ("bert", "roberta")


@pytest.mark.parametrize("name", [*FAMILIES, *MIXTURES, *UNLIKE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_bidirectional_models_look_ahead(name: str, dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and name in ("rwkv", "xlm"):
        pytest.skip("its own code computes in float32 only")
    look = first_look(tiny_model(name).to(dtype))
    assert look.called is not None
    assert look.causal == (name not in BIDIRECTIONAL)


@pytest.mark.parametrize("name", ["jamba", "mamba"])
def test_linears_that_are_never_called_stay_out(name: str) -> None:
    model = tiny_model(name)
    blocks = find_blocks(model, first_look(model).called)
    assert blocks.never_called and all(name.endswith("dt_proj") for name in blocks.never_called)
    assert not any(layer.kind.endswith("dt_proj") for layer in blocks.layers)
    assert blocks_of(model) is blocks, "found once"


@pytest.mark.parametrize("name", ["gemma3", "git"])
def test_blocks_are_those_that_run_on_text_and_stay_those(name: str) -> None:
    model = tiny_model(name)
    blocks = find_blocks(model, first_look(model).called)
    assert "vision" not in blocks.prefix and "image" not in blocks.prefix
    for layer in blocks.layers:  # behind the hardest plan the tower is the larger list
        small = LowRankLinear(torch.zeros(layer.out_features, 1), torch.zeros(1, layer.in_features))
        replace_module(model, layer.name, small)
    assert decoder_blocks(model) is model.get_submodule(blocks.prefix)
    assert block_linears(model) == blocks.layers


def test_a_model_that_does_not_run_on_ids_alone_is_no_error() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    look = first_look(Other())
    assert look.called is None and look.causal
    assert find_blocks(Other(), look.called).prefix == "layers"


def test_blocks_that_do_not_follow_each_other_are_refused_for_statistics() -> None:
    ids = torch.arange(8)[None]
    require_chain(tiny_model("llama"), ids)
    require_chain(tiny_model("gpt2"), ids)
    with pytest.raises(ModelError, match="block 1"):  # attention runs between its lists of feed-forward modules
        require_chain(tiny_model("xlm"), ids)


LEARNED = ("gpt2", "opt", "gpt1", "bert", "roberta", "xlm", "mpt", "gptj", "git")


@pytest.mark.parametrize("name", [*LEARNED, "llama", "gpt_neox", "mamba"])
def test_the_last_position_is_the_last_that_runs(name: str) -> None:
    model = tiny_model(name)
    found = model_positions(model)
    assert found.ends == (name in LEARNED)

    def runs(length: int) -> bool:
        try:
            model(input_ids=torch.full((1, length), 5), use_cache=False)
        except (IndexError, RuntimeError):
            return False
        return True

    if found.ends:
        assert found.limit is not None and runs(found.limit) and not runs(found.limit + 1)
        with pytest.raises(EvaluationError, match=rf"{found.limit + 7}.*{found.limit}"):
            require_length(found, found.limit + 7)
    else:
        assert runs(POSITIONS + 40)
        assert (str(POSITIONS) in length_warning(found, POSITIONS + 40)) == (found.limit is not None)


def test_positions_are_read_from_headers_too() -> None:
    table = TensorHeader("transformer.wpe.weight", (77, 8), "F32", 4 * 77 * 8)
    assert positions_of({"model_type": "gpt2"}, [table]).limit == 77
    tower = TensorHeader("vision_model.embeddings.position_embedding.weight", (50, 8), "F32", 4 * 50 * 8)
    assert not positions_of({"model_type": "llama", "max_position_embeddings": 64}, [tower]).ends
    offset = TensorHeader("model.decoder.embed_positions.weight", (66, 8), "F32", 4 * 66 * 8)
    assert positions_of({"model_type": "opt", "max_position_embeddings": 64}, [offset]).limit == 64


def test_too_long_a_window_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "gpt2", "gpt2")
    ref = ModelRef(str(folder))
    assert preflight(ref).positions == POSITIONS
    long, short = EvaluationSpec(window=POSITIONS + 1), EvaluationSpec(window=POSITIONS)
    with pytest.raises(EvaluationError, match=rf"{POSITIONS + 1}.*{POSITIONS}"):
        checks.check_model(ref, checks.windows_of(EvaluateSpec(ref, evaluation=long)))
    checks.check_model(ref, checks.windows_of(EvaluateSpec(ref, evaluation=short)))
    weights_only = AllocateSpec(ref, method="uniform", decomposition="svd")
    assert weights_only.calibration.window > POSITIONS
    checks.check_model(ref, checks.windows_of(weights_only))  # no window is run
    with pytest.raises(EvaluationError, match=str(POSITIONS)):
        checks.check_model(ref, checks.windows_of(AllocateSpec(ref, method="uniform", decomposition="whitened")))


def test_every_window_that_is_too_long_is_named_by_the_word_that_changes_it(tmp_path: Path) -> None:
    ref = ModelRef(str(save_tiny(tmp_path / "gpt2", "gpt2")))
    spec = AllocateSpec(
        ref, method="lagrangian", decomposition="whitened", settings={"window": POSITIONS + 2, "curve": "auto"}
    )
    with pytest.raises(EvaluationError, match=rf"calibration window .*'window' of {POSITIONS + 2}"):
        checks.check_model(ref, checks.windows_of(spec))
    fits = replace(spec, calibration=replace(spec.calibration, window=POSITIONS))
    with pytest.raises(EvaluationError) as caught:
        checks.check_model(ref, checks.windows_of(fits))
    assert "'window'" in str(caught.value) and "calibration" not in str(caught.value)


def test_ids_without_a_row_in_the_embedding_are_refused() -> None:
    model = tiny_model("llama")
    require_fit(model, torch.full((2, 8), VOCAB - 1))
    with pytest.raises(EvaluationError, match=rf"{VOCAB}.*{VOCAB - 1}"):
        require_fit(model, torch.full((2, 8), VOCAB))
    assert get_module(model, "model.embed_tokens").weight.shape[0] == VOCAB
