"""Whole jobs on models outside the llama mould: mixtures, recurrent and hybrid ones, towers, blocks that start at zero.

Perplexities are compared with a plain loop over transformers' own model.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from lrc_core.errors import EvaluationError
from lrc_core.models.load import load_model
from lrc_core.plan import Plan
from lrc_core.runs.spec import (
    AllocateSpec,
    CalibrationSpec,
    EvaluateSpec,
    EvaluationSpec,
    ModelRef,
    SpectraSpec,
    UpdateSpec,
)
from tests.factories.pipeline_helpers import result_of, run
from tests.factories.tiny_models import POSITIONS, save_tiny, tiny_text, tiny_tokenizer

WINDOW, MOST = 48, 6


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(tiny_text(WINDOW * MOST))
    return str(path)


def saved(folder: Path, name: str) -> ModelRef:
    return ModelRef(str(save_tiny(folder / name, name)))


def true_perplexity(ref: ModelRef, text: str) -> float:
    model = AutoModelForCausalLM.from_pretrained(ref.source, dtype=torch.float32).eval()
    ids = torch.tensor(tiny_tokenizer()(Path(text).read_text(), add_special_tokens=False).input_ids)
    rows = ids[: WINDOW * MOST].view(MOST, WINDOW)
    losses: list[Tensor] = []
    with torch.no_grad():
        for row in rows:
            logits = model(input_ids=row[None], use_cache=False).logits[0].float()
            losses.append(torch.nn.functional.cross_entropy(logits[:-1], row[1:]))
    return math.exp(float(torch.stack(losses).mean()))


@pytest.mark.parametrize(
    "name", ["mamba", "rwkv", "recurrent_gemma", "gpt1", "xlm", "gpt_oss", "deepseek_v2", "jetmoe", "jamba", "git"]
)
def test_the_perplexity_is_that_of_a_plain_loop(name: str, tmp_path: Path, text: str) -> None:
    ref = saved(tmp_path, name)
    measured = EvaluationSpec((text,), window=WINDOW, max_windows=MOST, bos="no")
    row = result_of(run(EvaluateSpec(ref, evaluation=measured)))
    assert row["perplexity"][text]["value"] == pytest.approx(true_perplexity(ref, text), rel=2e-3)
    speed = row["cost"]["decode_tokens_per_s"]
    assert (speed is None) == any("speed" in warning for warning in row["warnings"])


@pytest.mark.parametrize(
    ("name", "onload"),
    [
        *((name, "never") for name in ("mamba", "gpt1", "xlm", "gpt_oss", "deepseek_v2", "jetmoe", "jamba", "git")),
        ("gpt1", "blocks"),
    ],
)
def test_a_processor_with_bfloat16_runs_it_as_well(
    name: str, onload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRC_ONLOAD", onload)
    loaded = load_model(saved(tmp_path, name), dtype="bfloat16")
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.arange(8)[None]).logits
    assert bool(logits.isfinite().all())
    assert loaded.card.dtype == str(loaded.dtype).removeprefix("torch.")


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_model_that_sees_what_follows_has_no_perplexity_but_spectra(name: str, tmp_path: Path, text: str) -> None:
    ref = saved(tmp_path, name)
    with pytest.raises(EvaluationError, match="bidirectional"):
        run(EvaluateSpec(ref, evaluation=EvaluationSpec((text,), window=WINDOW, max_windows=MOST)))
    found = run(SpectraSpec(ref, ("svd",), calibration=CalibrationSpec((text,), windows=4, window=WINDOW)))
    assert any("bidirectional" in warning for warning in result_of(found)["warnings"])


def test_a_window_beyond_what_rotary_positions_were_made_for_is_measured_with_a_word(tmp_path: Path, text: str) -> None:
    Path(text).write_text(tiny_text(4 * POSITIONS))
    long = EvaluationSpec((text,), window=POSITIONS + 40, max_windows=1)
    row = result_of(run(EvaluateSpec(saved(tmp_path, "llama"), evaluation=long)))
    assert any(str(POSITIONS) in warning and str(POSITIONS + 40) in warning for warning in row["warnings"])


@pytest.mark.parametrize("name", ["jamba", "mamba"])
@pytest.mark.parametrize("decomposition", ["whitened", "kfac"])
def test_layers_that_are_never_called_stay_dense_and_are_named(
    name: str, decomposition: str, tmp_path: Path, text: str
) -> None:
    calibration = CalibrationSpec((text,), windows=6, window=WINDOW)
    ref = saved(tmp_path, name)
    found = run(AllocateSpec(ref, "lagrangian", decomposition=decomposition, keep=0.8, calibration=calibration))
    result = result_of(found)
    assert any("dt_proj" in warning for warning in result["warnings"])
    assert not any("dt_proj" in layer for layer in (*result["plan"]["ranks"], *result["plan"]["dense"]))
    measured = EvaluationSpec((text,), window=WINDOW, max_windows=MOST)
    row = result_of(run(EvaluateSpec(ref, result["plan"], calibration=calibration, evaluation=measured)))
    assert math.isfinite(row["perplexity"][text]["value"])


@pytest.mark.parametrize(
    ("zeroed", "decomposition"),
    [
        (("o_proj", "down_proj"), "kfac"),
        (("o_proj", "down_proj", "v_proj"), "whitened"),
        (("o_proj", "down_proj", "v_proj"), "asvd"),
        (("down_proj",), "kfac"),
    ],
)
def test_blocks_that_start_at_zero_cost_nothing_to_cut(
    zeroed: tuple[str, ...], decomposition: str, tmp_path: Path, text: str
) -> None:
    ref = saved(tmp_path, "llama")
    path = Path(ref.source) / "model.safetensors"
    tensors = {
        name: tensor * 0 if "layers.1." in name and any(kind in name for kind in zeroed) else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, {"format": "pt"})
    calibration = CalibrationSpec((text,), windows=6, window=WINDOW)
    spec = AllocateSpec(ref, "lagrangian", decomposition=decomposition, keep=0.7, calibration=calibration)
    result = result_of(run(spec))
    unused = [f"model.layers.1.mlp.{kind}" for kind in ("gate_proj", "up_proj")]
    if decomposition == "kfac":
        assert any("costs nothing" in warning for warning in result["warnings"])
        assert all(result["plan"]["ranks"][name] <= 4 for name in unused), "what a remainder may add to rank 1"


def test_a_mixture_goes_through_every_job(tmp_path: Path, text: str) -> None:
    ref = saved(tmp_path, "mixtral")
    calibration = CalibrationSpec((text,), windows=6, window=WINDOW)
    measured = EvaluationSpec((text,), window=WINDOW, max_windows=MOST, bos="no")
    spectra = run(SpectraSpec(ref, ("svd", "whitened", "kfac"), calibration=calibration, subspaces=True))
    with np.load(spectra.path / "spectra.npz") as arrays:
        assert sum(".experts." in name for name in arrays.files) == 3 * 3 * 4 * 3
    allocated = run(AllocateSpec(ref, "lagrangian", keep=0.7, decomposition="kfac", calibration=calibration))
    plan = Plan.load(allocated.path / "plan.json")
    assert any(".experts." in name for name in plan.ranks)
    row = result_of(run(EvaluateSpec(ref, plan.to_dict(), calibration=calibration, evaluation=measured)))
    dense = result_of(run(EvaluateSpec(ref, evaluation=measured)))
    # Embeddings, head, norms and routers are what is not counted among the linears.
    saved_params = dense["cost"]["params"] - row["cost"]["params"]
    linear = result_of(allocated)["card"]["params_linear"]
    assert saved_params == pytest.approx((1 - plan.keep_achieved) * linear, abs=1)
    update = run(UpdateSpec(ref, plan.to_dict(), "", {"kind": "left"}, calibration))
    assert not any(math.isnan(value) for value in result_of(update)["details"].values())


@pytest.mark.parametrize("name", ["gemma3", "git"])
def test_the_language_model_beside_a_tower_is_compressed_updated_and_measured(
    name: str, tmp_path: Path, text: str
) -> None:
    ref = saved(tmp_path, name)
    calibration = CalibrationSpec((text,), windows=6, window=WINDOW)
    allocated = run(AllocateSpec(ref, "uniform", keep=0.4, calibration=calibration))
    plan = Plan.load(allocated.path / "plan.json")
    update = run(UpdateSpec(ref, plan.to_dict(), "", {"kind": "left"}, calibration))
    assert result_of(update)["details"]["layers"] > 0
