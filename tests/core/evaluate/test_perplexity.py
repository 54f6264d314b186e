from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lrc_core.errors import CancelledError, EvaluationError, NumericalError
from lrc_core.evaluate.perplexity import perplexity
from lrc_core.types import Progress
from tests.factories.tiny_models import VOCAB, tiny_model


class TableModel(nn.Module):
    """Predicts the next token from the present one by a table of logits [vocab, vocab]."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=self.table[input_ids])

    def get_input_embeddings(self) -> Any:
        return SimpleNamespace(weight=self.table)


def uniform(vocab: int = 50) -> TableModel:
    return TableModel(torch.zeros(vocab, vocab))


def random_windows(n: int, window: int, vocab: int = VOCAB, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, vocab, (n, window), generator=torch.Generator().manual_seed(seed))


def test_uniform_logits_give_the_vocabulary_size() -> None:
    score = perplexity(uniform(50), random_windows(5, 9, 50), batch_size=2)
    assert score.value == pytest.approx(50)
    assert (score.tokens, score.windows) == (40, 5)
    assert score.window_losses == pytest.approx([8 * math.log(50)] * 5)


def test_agrees_with_the_model_own_loss() -> None:
    model, windows = tiny_model("llama"), random_windows(3, 24)
    with torch.no_grad():
        expected = math.exp(model(input_ids=windows, labels=windows).loss.item())
    assert perplexity(model, windows, batch_size=2).value == pytest.approx(expected, rel=1e-5)


def test_batch_size_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model, windows = tiny_model("llama"), random_windows(5, 24)
    one = perplexity(model, windows, batch_size=1)
    monkeypatch.setattr("lrc_core.models.token_loss._CPU_BYTES", 7 * 4 * VOCAB)
    many = perplexity(model, windows, batch_size=4)
    assert many.window_losses == pytest.approx(one.window_losses, rel=1e-5)
    assert many.stderr == pytest.approx(one.stderr, rel=1e-4)


def test_every_token_weighs_the_same_whatever_its_window() -> None:
    table = torch.zeros(4, 4)
    table[1, 1] = 5.0  # token 1 is easy to predict after itself
    windows = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 2, 3]])
    score = perplexity(TableModel(table), windows, stride=2)
    # The second window scores its last two tokens only, so the weights are 5 and 2, not equal.
    assert score.window_tokens == (5, 2)
    assert score.value == pytest.approx(math.exp(sum(score.window_losses) / 7))
    easy = -torch.log_softmax(table[1], 0)[1].item()
    assert score.window_losses == pytest.approx([5 * easy, 2 * math.log(4)])


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_a_stride_scores_each_token_exactly_once(stride: int) -> None:
    window, count = 8, 6
    text = torch.arange(window + stride * (count - 1))
    windows = text.unfold(0, window, stride)
    # The loss of predicting token t is t * step, so the sum tells which tokens were scored.
    vocab = len(text)
    losses = torch.arange(vocab, dtype=torch.float64) * 0.01 + 5
    table = torch.full((vocab, vocab), -1e9, dtype=torch.float64)
    for t in range(1, vocab):
        table[t - 1, t] = -losses[t]
        table[t - 1, 0] = torch.log(1 - torch.exp(-losses[t]))  # the rest of the probability
    table[-1] = 0
    score = perplexity(TableModel(table), windows, stride=stride, batch_size=4)
    assert score.tokens == vocab - 1
    assert sum(score.window_losses) == pytest.approx(losses[1:].sum().item(), rel=1e-5)


def test_a_stride_of_the_window_is_no_stride() -> None:
    model, windows = tiny_model("llama"), random_windows(3, 16)
    assert perplexity(model, windows, stride=16) == perplexity(model, windows)


def test_identical_windows_have_no_standard_error_and_one_window_has_none() -> None:
    model, windows = tiny_model("llama"), random_windows(1, 16)
    assert perplexity(model, windows.repeat(4, 1)).stderr == pytest.approx(0, abs=1e-6)
    assert perplexity(model, windows).stderr is None


def test_standard_error_is_seeded_and_near_the_delta_method() -> None:
    model, windows = tiny_model("llama"), random_windows(60, 8)
    score = perplexity(model, windows, batch_size=60, seed=3)
    assert perplexity(model, windows, batch_size=60, seed=3).stderr == score.stderr
    assert perplexity(model, windows, batch_size=60, seed=4).stderr != score.stderr
    means = torch.tensor(score.window_losses) / 7
    expected = score.value * means.std().item() / math.sqrt(60)
    assert score.stderr == pytest.approx(expected, rel=0.2)


def test_a_loss_that_is_not_finite_names_its_window() -> None:
    table = torch.zeros(4, 4)
    table[3] = float("nan")
    windows = torch.tensor([[0, 1, 2], [0, 1, 2], [1, 3, 2]])
    with pytest.raises(NumericalError, match="window 2"):
        perplexity(TableModel(table), windows, batch_size=2)


def test_bad_windows_are_refused() -> None:
    with pytest.raises(EvaluationError, match="one window"):
        perplexity(uniform(), torch.zeros(0, 8, dtype=torch.long))
    with pytest.raises(EvaluationError, match="one window"):
        perplexity(uniform(), torch.zeros(3, 1, dtype=torch.long))
    with pytest.raises(EvaluationError, match="stride"):
        perplexity(uniform(), torch.zeros(3, 4, dtype=torch.long), stride=-1)


def test_cancel_and_progress_and_the_model_is_left_as_found() -> None:
    model = tiny_model("llama")
    model.train()
    seen: list[Progress] = []
    with pytest.raises(CancelledError):
        perplexity(model, random_windows(6, 8), batch_size=2, on_progress=seen.append, should_stop=lambda: bool(seen))
    assert [(tick.step, tick.total) for tick in seen] == [(2, 6)]
    assert all(module.training for module in model.modules())
