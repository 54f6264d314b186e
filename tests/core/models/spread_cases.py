"""A model on two devices comes to what it comes to on one; run by ``test_spread.py`` in a process of its own.

The first backward pass of a process settles which devices PyTorch knows, so the pretended card must be there before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lrc_core.allocate  # noqa: F401  registers them
from lrc_core.calibrate.gradients import block_gradients
from lrc_core.calibrate.moments import block_statistics
from lrc_core.evaluate.likelihood import continuation_likelihoods
from lrc_core.evaluate.perplexity import perplexity
from lrc_core.models import load
from lrc_core.models.blocks.experts import unstack_experts
from lrc_core.models.onload.spread import spread
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.runs.spec import (
    AllocateSpec,
    AnswerSpec,
    CalibrationSpec,
    EvaluateSpec,
    EvaluationSpec,
    GenerateSpec,
    ModelRef,
    SamplingSpec,
    UpdateSpec,
)
from tests.factories.pipeline_helpers import result_of, run
from tests.factories.pretend_card import pretend_card
from tests.factories.tiny_methods import MemoryFactors, context_for, random_windows
from tests.factories.tiny_models import save_tiny, tiny_model, tiny_text

FAMILIES = ("llama", "gpt2", "gemma2", "gpt_neox")
"""Tied embeddings and grouped queries; Conv1D; capped logits; fused projections."""
UNLIKE = ("opt", "phi", "mpt", "gptj", "mixtral", "deepseek_v2", "gpt_oss", "dbrx", "nemotron_h", "gemma3", "git")
"""Norms and positions outside of blocks; mixtures; blocks of several kinds; towers for pictures."""
UPDATES: tuple[dict[str, Any], ...] = (
    {"kind": "left"},
    {"kind": "both"},
    {"kind": "blockwise", "documents": 4, "check_windows": 2, "window": 12, "batch": 2, "passes": 1},
    {"kind": "tuned", "documents": 6, "check_windows": 2, "window": 12, "batch": 2, "passes": 1},
)


@pytest.fixture
def card() -> Iterator[torch.device]:
    with pretend_card() as found:
        yield found


def on_two(model: nn.Module, card: torch.device) -> nn.Module:
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert spread(model, {card: size, torch.device("cpu"): size}, torch.float32)
    assert {parameter.device.type for parameter in model.parameters()} == {card.type, "cpu"}
    return model


def close(one: Any, other: Any) -> bool:
    return torch.allclose(torch.as_tensor(one), torch.as_tensor(other).cpu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", UNLIKE)
def test_logits_of_unlike_architectures_are_the_same(family: str, card: torch.device) -> None:
    whole, two, ids = tiny_model(family), tiny_model(family), random_windows(3, 16)
    assert unstack_experts(whole) == unstack_experts(two)
    with torch.no_grad():
        assert close(whole(input_ids=ids).logits, on_two(two, card)(input_ids=ids.to(card)).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_statistics_and_losses_are_the_same(family: str, card: torch.device) -> None:
    whole, two = tiny_model(family), on_two(tiny_model(family), card)
    ids = random_windows(4, 16)
    with torch.no_grad():
        found: Tensor = two(input_ids=ids.to(card)).logits
    assert found.device == card
    assert close(whole(input_ids=ids).logits.detach(), found)
    layers = load.find_blocks(whole, load.first_look(whole).called).layers
    for (_, one), (_, other) in zip(
        block_statistics(whole, layers, ids, batch=2), block_statistics(two, layers, ids, batch=2), strict=True
    ):
        assert all(close(one.groups[name].second_moment, other.groups[name].second_moment) for name in one.groups)
    for (_, slopes), (_, others) in zip(
        block_gradients(whole, layers, ids, batch=2), block_gradients(two, layers, ids, batch=2), strict=True
    ):
        assert all(close(slopes[name], others[name]) for name in slopes)
    pairs = [([5, 6, 7], [8, 9]), ([5, 6, 7], [10]), ([11, 12], [13, 14, 15])]  # two of them share a cache
    scored = [continuation_likelihoods(model, pairs) for model in (whole, two)]
    assert close(*([score for score, _ in scores] for scores in scored))
    assert close(perplexity(whole, ids).window_losses, perplexity(two, ids).window_losses)


@pytest.mark.parametrize("entry", list(ALLOCATORS), ids=lambda entry: entry.name)
def test_every_method_chooses_the_same_ranks(entry: MethodEntry, card: torch.device, tmp_path: Path) -> None:
    family = "gpt_neox" if entry.learns else "llama"  # the head is with the last block, or with the embeddings
    whole = tiny_model(family)
    source = MemoryFactors(whole, random_windows(8, 32, seed=1))
    settings = entry.settings(next(iter(entry.presets)), entry.tiny)
    made = [
        entry.load()(context_for(model, tmp_path / name, keep=0.6, source=source), settings)
        for name, model in (("whole", whole), ("two", on_two(tiny_model(family), card)))
    ]
    assert made[0].ranks == made[1].ranks


def all_jobs(model: ModelRef, text: str, report: str) -> dict[str, Any]:
    """What comes of jobs of every kind that work on the whole model."""
    calibration, evaluation = CalibrationSpec((text,), windows=6, window=24), EvaluationSpec((report,), 32, 4)
    wanted = AllocateSpec(model, "lagrangian", "kfac", keep=0.6, calibration=calibration, storage="pivoted")
    plan = result_of(run(wanted))["plan"]
    found: dict[str, Any] = {"ranks": plan["ranks"]}
    for settings in UPDATES:
        updated = run(UpdateSpec(model, plan, settings=settings, calibration=calibration))
        place = (result_of(updated)["plan"], updated.path.name)
        evaluated = result_of(run(EvaluateSpec(model, *place, calibration, evaluation)))
        found[settings["kind"]] = evaluated["perplexity"][report]["value"]
    answers = (AnswerSpec(), AnswerSpec(plan, "", calibration))
    spoken = result_of(run(GenerateSpec(model, "the rank", answers, SamplingSpec(max_new_tokens=6))))
    found["answers"] = [answer["text"] for answer in spoken["answers"]]
    return found


def test_jobs_come_to_the_same_results(card: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelRef(str(save_tiny(tmp_path / "model", "qwen2")))
    for seed, name in enumerate(("text", "report")):
        (tmp_path / name).write_text(tiny_text(3000, seed), encoding="utf-8")
    found = []
    for name, cards in (("whole", {}), ("two", {card: 10**5, torch.device("cpu"): 10**6})):
        monkeypatch.setattr(load, "cards_for", lambda *_, cards=cards: cards)
        monkeypatch.setenv("LRC_RUNS", str(tmp_path / name / "runs"))
        monkeypatch.setenv("LRC_CACHE", str(tmp_path / name / "cache"))
        found.append(all_jobs(model, str(tmp_path / "text"), str(tmp_path / "report")))
    whole, two = found
    assert whole.keys() == two.keys()
    for key, value in whole.items():
        assert two[key] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), key
