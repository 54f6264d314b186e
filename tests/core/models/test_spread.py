"""Models over several cards: when, and that nothing comes out otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lrc_core.folders.check import SEVERAL, check_folder, keep_reference
from lrc_core.models import load, resources
from lrc_core.models.load import load_model
from lrc_core.models.onload import spread
from lrc_core.models.source import look_through
from lrc_core.runs.spec import ModelRef
from tests.factories.tiny_methods import random_windows
from tests.factories.tiny_models import save_tiny
from tests.tree import ROOT

GIB = 2**30


def test_a_model_on_two_devices_comes_to_the_same() -> None:
    cases = Path(__file__).with_name("spread_cases.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert found.returncode == 0, found.stdout[-6000:]


@pytest.mark.parametrize(
    ("device", "free", "wanted"),
    [
        ("cuda", (10, 10), 0),  # four times its size is there on one card
        ("cuda", (7, 10, 10), 3),
        ("cuda", (7,), 0),
        ("cuda:0", (7, 10), 0),  # that card was asked for
        ("cpu", (7, 10), 0),
    ],
)
def test_a_model_is_spread_where_one_card_is_too_small_to_work_on_it(
    device: str, free: tuple[int, ...], wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (free[number] * GIB, 80 * GIB))
    found = spread.cards_for(torch.device(device), 2 * GIB)
    assert list(found.values()) == [size * GIB for size in free[:wanted]]


def test_a_process_of_a_team_keeps_to_its_own_card_and_others_are_asked_only_where_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: asked.append(number) or (8 * GIB, 80 * GIB))
    assert not spread.cards_for(torch.device("cuda"), 2 * GIB) and asked == [0]
    assert len(spread.cards_for(torch.device("cuda"), 3 * GIB)) == 4
    monkeypatch.setattr(spread.distributed, "is_initialized", lambda: True)
    assert not spread.cards_for(torch.device("cuda"), 3 * GIB)


@pytest.mark.parametrize(
    ("cards", "short"),
    [((0.6, 0.6), False), ((0.4, 0.4), True), ((0.6,), True), ((9.0, 0.1), False)],  # of what the weights take
)
def test_what_all_cards_together_hold_is_not_brought_in_by_blocks(
    cards: tuple[float, ...], short: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = ModelRef(str(save_tiny(tmp_path)))
    files = look_through(tmp_path, allow_pickle=False)
    weights = 4 * sum(tensor.numel for tensor in files.tensors)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number=0: (int(cards[number or 0] * weights), 0))
    monkeypatch.setattr(load, "memory_available", lambda _: int(cards[0] * weights))
    found = load._shortage(files, ref, torch.device("cuda"), torch.float32)
    assert (found is not None) == short


def test_a_model_that_all_cards_together_do_not_hold_stays_where_it_is(tmp_path: Path) -> None:
    loaded = load_model(ModelRef(str(save_tiny(tmp_path))))
    cards = {torch.device("cuda", number): 10_000 for number in range(2)}
    assert not spread.spread(loaded.model, cards, torch.float32)
    loaded.model(input_ids=random_windows(1, 8))


def test_an_exported_folder_is_looked_at_on_as_many_devices(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    loaded = load_model(ModelRef(str(folder)))
    keep_reference(loaded.model, random_windows(2, 12), tmp_path / "reference.safetensors")
    found = check_folder(folder, tmp_path / "reference.safetensors", SEVERAL, exact=True, should_stop=lambda: False)
    assert found.bound > 0
    assert found.difference <= found.bound


def test_free_memory_of_all_cards_that_may_be_used_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncase "$*" in *--id=1*) echo 300 ;; *) printf "100\\n300\\n" ;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert resources.gpu_memory_available() == 400 * 2**20
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert resources.gpu_memory_available() == 300 * 2**20
