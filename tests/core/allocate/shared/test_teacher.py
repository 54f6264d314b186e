"""The dense model's answers: what distillation compares with, and what is remembered of them."""

from __future__ import annotations

import pytest
import torch
import transformers

from lrc_core.allocate.masks.teacher import Distiller
from lrc_core.models.head import output_head
from tests.factories.tiny_methods import random_windows, same_state, state_of
from tests.factories.tiny_models import FAMILIES, tiny_model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["hidden", "logits"])
def test_the_dense_model_is_at_no_distance_from_itself(family: str, kind: str) -> None:
    model = tiny_model(family)
    state = state_of(model)
    distiller, tokens, chosen = Distiller(model, kind), random_windows(3, 16), torch.tensor([4, 0, 2])
    teacher = distiller.teacher(chosen, tokens)
    assert len(teacher) == (2 if kind == "hidden" else 1)
    with torch.no_grad():
        assert float(distiller.loss(tokens, teacher)) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits
        torch.testing.assert_close(output_head(model)(teacher[-1]), logits)
    assert same_state(model, state)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "phi", "gemma2"])
@pytest.mark.parametrize("text_weight", [0.0, 0.7])
def test_logit_distillation_is_the_divergence_of_predictions(family: str, text_weight: float) -> None:
    """Value and gradient of KL(teacher || student) and the text's loss, by autograd, also behind a bias and a cap."""
    model, tokens = tiny_model(family), random_windows(3, 250)
    distiller = Distiller(model, "logits")
    teacher = distiller.teacher(torch.arange(3), tokens)
    student = (teacher[0] + 0.3 * torch.randn(teacher[0].shape)).requires_grad_()
    labels = tokens.clone().flatten()
    labels[::5] = -1  # no label
    found = distiller._divergence(student.flatten(0, 1), teacher[0].flatten(0, 1), labels, text_weight)
    head = output_head(model)
    mine, theirs = (torch.log_softmax(head(states).flatten(0, 1), -1) for states in (student, teacher[0]))
    expected = torch.nn.functional.kl_div(mine, theirs, log_target=True, reduction="batchmean")
    text = torch.nn.functional.nll_loss(mine, labels, ignore_index=-1, reduction="sum") / len(labels)
    expected = expected + text_weight * text
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    torch.testing.assert_close(
        *(torch.autograd.grad(3 * value, student)[0] for value in (found, expected)), rtol=1e-3, atol=1e-7
    )


def test_windows_seen_before_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    distiller, tokens = Distiller(tiny_model("llama"), "hidden"), random_windows(4, 16)
    first = distiller.teacher(torch.tensor([0, 1]), tokens[:2])
    asked: list[int] = []
    real = distiller._states
    monkeypatch.setattr(distiller, "_states", lambda rows: asked.append(len(rows)) or real(rows))
    second = distiller.teacher(torch.tensor([1, 3, 0]), tokens[[1, 3, 0]])
    assert asked == [3]  # a batch is always run whole, so that its last bits do not depend on what is remembered
    for old, new in zip(first, second, strict=True):
        assert torch.equal(new[[2, 0]], old)
    distiller.teacher(torch.tensor([3, 1]), tokens[[3, 1]])
    assert asked == [3]


@pytest.mark.parametrize(
    "config",
    [
        transformers.CohereConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
        ),
        transformers.GraniteConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            logits_scaling=4.0,
        ),
    ],
    ids=["cohere", "granite"],
)
def test_what_a_family_does_behind_its_head_is_done(config: transformers.PreTrainedConfig) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    tokens = torch.randint(3, 64, (2, 16))
    with torch.no_grad():
        (states,) = Distiller(model, "logits").teacher(torch.arange(2), tokens)
        torch.testing.assert_close(output_head(model)(states), model(input_ids=tokens, use_cache=False).logits)
