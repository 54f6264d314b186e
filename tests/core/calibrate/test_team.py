"""Processes that calibrate together come to what one would: moments, gradients, labels, and the folder written."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lrc_core.calibrate.factor_model import Calibrated, moments, output_gradients
from lrc_core.calibrate.gradients import block_gradients
from lrc_core.calibrate.moments import block_statistics
from lrc_core.calibrate.team import ALONE, share
from lrc_core.models.blocks.linears import block_linears
from lrc_core.pipeline.session import Session
from lrc_core.runs.spec import CalibrationSpec, ModelRef
from lrc_core.types import ignore_progress, never_stop
from tests.factories.tiny_methods import random_windows
from tests.factories.tiny_models import tiny_model

WINDOWS = random_windows(11, 12)


class Threads:
    """A team of threads, which meet at a barrier as processes do in a reduction."""

    def __init__(self, rank: int, size: int, board: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self._board, self._barrier = rank, size, board, barrier

    def told(self, value: Any) -> list[Any]:
        self._board[self.rank] = value
        self._barrier.wait(60)
        found = list(self._board)
        self._barrier.wait(60)
        return found

    def add_up(self, tensor: Tensor) -> None:
        tensor.copy_(sum(self.told(tensor.clone())))


def together(family: str, size: int, work: Callable[[Any, Threads], Any]) -> list[Any]:
    """What every member of a team returns, each with a model of its own."""
    board, barrier = [None] * size, threading.Barrier(size)
    models = [tiny_model(family) for _ in range(size)]  # before the threads: they are filled from one stream of numbers

    def one(rank: int) -> Any:
        try:
            return work(models[rank], Threads(rank, size, board, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("size", [2, 3, 13])
def test_a_team_collects_what_one_process_does(family: str, size: int) -> None:
    """Thirteen members have some without a window; of a mixture, some whose tokens miss an expert."""
    layers = block_linears(tiny_model(family))

    def statistics(model: Any, team: Any) -> dict[str, Any]:
        found = block_statistics(model, layers, WINDOWS, batch=2, team=team)
        return {layer: one.of(layer) for _, one in found for layer in one.group_of}

    alone = statistics(tiny_model(family), ALONE)
    for member in together(family, size, statistics):
        assert member.keys() == alone.keys()
        for name, found in member.items():
            assert found.tokens == alone[name].tokens
            torch.testing.assert_close(found.second_moment, alone[name].second_moment, rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(found.abs_mean, alone[name].abs_mean, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize("size", [2, 3])
def test_members_draw_the_labels_that_one_process_draws(family: str, size: int) -> None:
    layers = block_linears(tiny_model(family))

    def gradients(model: Any, team: Any) -> dict[str, Tensor]:
        found = block_gradients(model, layers, WINDOWS, batch=2, team=team)
        return {name: one for _, block in found for name, one in block.items()}

    alone = gradients(tiny_model(family), ALONE)
    for member in together(family, size, gradients):
        assert member.keys() == alone.keys()
        for name, found in member.items():
            torch.testing.assert_close(found, alone[name], rtol=1e-5, atol=1e-9)


def test_one_member_writes_and_all_find_it(tmp_path: Path) -> None:
    layers = tuple(block_linears(tiny_model("llama")))

    def calibrated(model: Any, cache: str) -> Calibrated:
        return Calibrated(model, layers, "tiny", WINDOWS, tmp_path / cache)

    def collected(model: Any, team: Any) -> tuple[bool, ...]:
        mine = calibrated(model, "team")
        return moments(mine, team=team).complete, output_gradients(mine, team=team).complete

    assert together("llama", 2, collected) == [(True, True)] * 2
    model = tiny_model("llama")
    one, ours = moments(calibrated(model, "one")), moments(calibrated(model, "team"), _refused, _stop)
    assert ours.folder.name == one.folder.name and ours.description == one.description
    for layer in layers:
        torch.testing.assert_close(
            ours.statistics(layer).second_moment, one.statistics(layer).second_moment, rtol=1e-6, atol=1e-9
        )


def _refused(_: Any) -> None:
    raise AssertionError("it is in the cache: nothing is collected")


def _stop() -> bool:
    raise AssertionError("it is in the cache: nothing is collected")


@pytest.mark.parametrize("batches", [0, 1, 5, 8, 40])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_batch_is_run_by_one_member(batches: int, size: int) -> None:
    parts = [share(Threads(rank, size, [], threading.Barrier(1)), batches) for rank in range(size)]
    assert [number for part in parts for number in part] == list(range(batches))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_torchrun_fills_the_cache_that_jobs_read(model: ModelRef, calibration: CalibrationSpec) -> None:
    """Two real processes; what they leave is found by a session in this one."""
    words = ["calibrate", model.source, "--decomposition", "kfac", "--calibration-text", *calibration.texts, "--json"]
    sizes = ["--windows", str(calibration.windows), "--window", str(calibration.window), "--seed", "1"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lrc_core.cli"]
    ended = subprocess.run([sys.executable, *torchrun, *words, *sizes], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    found = Session(model, ignore_progress, never_stop).calibrated(replace(calibration, seed=1))
    ours = [moments(found, _refused, _stop), output_gradients(found, _refused, _stop)]
    assert said["processes"] == 2 and said["folders"] == [str(store.folder) for store in ours]


def test_alone_it_collects_as_well_and_the_plain_svd_has_nothing_to_collect(
    model: ModelRef, calibration: CalibrationSpec, lrc: Any
) -> None:
    words = ["--calibration-text", *calibration.texts, "--windows", "4", "--window", "8"]
    assert lrc("calibrate", model.source, "--decomposition", "whitened", *words)[0] == 0
    found = Session(model, ignore_progress, never_stop).calibrated(replace(calibration, windows=4, window=8))
    assert moments(found, _refused, _stop).complete
    code, _, said = lrc("calibrate", model.source, "--decomposition", "svd", *words)
    assert code == 1 and "svd" in said.lower()
