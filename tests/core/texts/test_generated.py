"""Text that the model writes itself: its own statistics, seeded, kept, and no special tokens at the start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lrc_core.calibrate.generated import BATCH, Wanted, generated_windows
from lrc_core.errors import CancelledError, TextError
from lrc_core.texts.documents import load_documents
from lrc_core.texts.windows import mixed_windows
from tests.factories.tiny_models import VOCAB, tiny_model, tiny_text, tiny_tokenizer


def test_same_seed_same_text_and_fewer_are_a_beginning(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    many = generated_windows(model, tokenizer, Wanted(BATCH + 3, 12, 5), tmp_path / "one")
    few = generated_windows(model, tokenizer, Wanted(4, 12, 5), tmp_path / "two")
    assert many.shape == (BATCH + 3, 12)
    assert many.dtype == torch.long
    assert torch.equal(many[:4], few)
    other = generated_windows(model, tokenizer, Wanted(4, 12, 6), tmp_path / "two")
    assert not torch.equal(few, other)
    assert not set(many[:, 0].tolist()) & set(tokenizer.all_special_ids)
    assert int(many.min()) >= 0 and int(many.max()) < VOCAB


def test_the_cache_is_used_and_a_cancel_keeps_finished_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer, wanted = tiny_model(), tiny_tokenizer(), Wanted(2 * BATCH, 6, 0)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 7  # in the second batch: a batch of 6 tokens asks five times

    with pytest.raises(CancelledError):
        generated_windows(model, tokenizer, wanted, tmp_path, should_stop=stop)
    (kept,) = tmp_path.rglob("*.npy")
    before = kept.stat().st_mtime_ns
    whole = generated_windows(model, tokenizer, wanted, tmp_path)
    assert kept.stat().st_mtime_ns == before
    monkeypatch.setattr(model, "forward", None)
    assert torch.equal(generated_windows(model, tokenizer, wanted, tmp_path), whole)


def test_it_samples_the_models_own_distribution(tmp_path: Path) -> None:
    """The mean log-probability of what was drawn is minus the entropy of the model's predictions."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    tokens = generated_windows(model, tokenizer, Wanted(1600, 2, 1), tmp_path)
    with torch.no_grad():
        logs = torch.log_softmax(model(tokens[:, :1]).logits[:, -1].float(), -1)
    got = float(logs.gather(1, tokens[:, 1:]).mean())
    entropy = float((logs.exp() * logs).sum(-1).mean())
    assert got == pytest.approx(entropy, abs=0.12)


def test_after_an_end_a_new_text_begins(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    tokens = generated_windows(model, tokenizer, Wanted(96, 24, 2), tmp_path)
    ended = tokens[:, :-1] == tokenizer.eos_token_id
    assert bool(ended.any())
    assert not set(tokens[:, 1:][ended].tolist()) & set(tokenizer.all_special_ids)


def test_it_mixes_with_other_texts_and_is_no_file(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    path = tmp_path / "text.txt"
    path.write_text(tiny_text(2000))
    made = {"generated": lambda *wanted: generated_windows(model, tokenizer, Wanted(*wanted), tmp_path / "cache")}
    mixed = mixed_windows(("generated", str(path)), tokenizer, part="calibrate", window=16, count=5, seed=3, made=made)
    alone = generated_windows(model, tokenizer, Wanted(3, 16, 3), tmp_path / "cache")
    assert torch.equal(mixed[::2], alone)
    with pytest.raises(TextError, match="only be calibrated"):
        load_documents("generated")
    with pytest.raises(TextError, match="how many windows"):
        generated_windows(model, tokenizer, Wanted(0, 16, 3), tmp_path)
