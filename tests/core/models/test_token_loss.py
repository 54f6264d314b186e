"""Losses over the vocabulary in pieces: the same as in one piece."""

from __future__ import annotations

import pytest
import torch

from lrc_core.models import token_loss
from lrc_core.models.token_loss import divergences, log_normalisers, rows_at_once, token_losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 10, 11, 1000])
def test_pieces_do_not_change_the_losses(monkeypatch: pytest.MonkeyPatch, rows: int, dtype: torch.dtype) -> None:
    monkeypatch.setattr(token_loss, "_CPU_BYTES", rows * 4 * 50)
    logits, labels = (5 * torch.randn(11, 50)).to(dtype), torch.randint(0, 50, (11,))
    assert rows_at_once(logits) == rows
    expected = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    torch.testing.assert_close(token_losses(logits, labels), expected)


def test_a_vocabulary_larger_than_the_cache_goes_row_by_row() -> None:
    assert rows_at_once(torch.empty(1, 10**6)) == 1


def test_losses_that_are_not_finite_stay_so() -> None:
    logits = torch.randn(4, 8)
    logits[2, 3] = float("nan")
    assert token_losses(logits, torch.zeros(4, dtype=torch.long)).isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 12, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_divergences_are_those_of_the_softmaxes(
    monkeypatch: pytest.MonkeyPatch, rows: int, dtype: torch.dtype, temperature: float
) -> None:
    monkeypatch.setattr(token_loss, "_CPU_BYTES", rows * 4 * 50)
    wanted = (5 * torch.randn(11, 50)).to(dtype)
    own = (wanted.float() + torch.randn(11, 50)).to(dtype)
    copies = own.clone(), wanted.clone()
    found, normalisers = divergences(own, wanted, log_normalisers(wanted, temperature), temperature)
    target, mine = (torch.log_softmax(part.double() / temperature, -1) for part in (wanted, own))
    torch.testing.assert_close(found.double(), (target.exp() * (target - mine)).sum(-1), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(normalisers, torch.logsumexp(own.float() / temperature, -1))
    assert torch.equal(own, copies[0]) and torch.equal(wanted, copies[1])


def test_equal_logits_do_not_diverge_at_all() -> None:
    logits = 5 * torch.randn(11, 50)
    assert divergences(logits.clone(), logits, log_normalisers(logits))[0].tolist() == [0.0] * 11


def test_a_small_divergence_keeps_its_digits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(200, 1000, generator=generator)
    changed = logits + 1e-2 * torch.randn(200, 1000, generator=generator)
    target, mine = torch.log_softmax(logits.double(), -1), torch.log_softmax(changed.double(), -1)
    exact = float((target.exp() * (target - mine)).sum(-1).mean())
    assert 1e-5 < exact < 1e-4
    found = divergences(changed, logits, log_normalisers(logits))[0].double().mean()
    assert float(found) == pytest.approx(exact, rel=0.02)
