"""Real workers are killed at moments drawn from a seed, and resumed until they are done.

What must hold: after every death the state is true, nothing is lost, the resumed run is bit for bit the one that nobody
killed, and no file stays that nobody needs.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from lrc_core.jobs import manager
from lrc_core.jobs.queue import DeviceQueue
from lrc_core.registry import ALLOCATORS
from lrc_core.runs.records import Status
from lrc_core.runs.spec import (
    AllocateSpec,
    CalibrationSpec,
    EvaluateSpec,
    EvaluationSpec,
    ModelRef,
    Spec,
    SpectraSpec,
    UpdateSpec,
)
from lrc_core.runs.store import Run, RunStore
from lrc_core.runs.sweep import DAY_S, sweep
from tests.campaign.tally import Tally
from tests.campaign.workers import START, fork, forked_workers, start_real_worker
from tests.factories.job_helpers import wait_for
from tests.factories.tiny_models import save_tiny, tiny_text

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SLICE = ("drank", "llrc")
"""A closed form and a trained method, for the tests of every day."""
_VOLATILE = re.compile(
    r"(.*_)?(wall_s|seconds|peak_memory_mb|memory_mb|tokens_per_s|spent|created_at|at)|paces|(prefill|decode)_stderr"
)
_LONGER: dict[str, dict[str, Any]] = {
    "llrc": {"max_steps": 40},
    "ars": {"max_steps": 60},
    "dobi": {"steps": 60},
    "ara": {"steps": 40},
    "llm_pruner_lora": {"epochs": 6},
}
"""Steps enough that a kill meets one."""
_HALF_MADE = re.compile(r"\.(gone|new)-.*|.*\.tmp(\..*)?")


@dataclass(frozen=True)
class Ground:
    """Where a campaign runs: a folder with a tiny model and a text, and what jobs there have in common."""

    folder: Path

    @property
    def model(self) -> ModelRef:
        """The tiny model."""
        return ModelRef(str(self.folder / "model"))

    @property
    def calibration(self) -> CalibrationSpec:
        """A few windows of the text."""
        return CalibrationSpec((str(self.folder / "text.txt"),), windows=16, window=32)

    @classmethod
    def made(cls, folder: Path) -> Ground:
        """A new one."""
        save_tiny(folder / "model")
        (folder / "text.txt").write_text(tiny_text(6000), encoding="utf-8")
        return cls(folder)

    def allocation(self, method: str) -> AllocateSpec:
        """A tiny job of a method."""
        entry = ALLOCATORS.get(method)
        settings = {**entry.presets[next(iter(entry.presets))], **entry.tiny, **_LONGER.get(method, {})}
        return AllocateSpec(self.model, method, "whitened", 0.8, settings=settings, calibration=self.calibration)

    def others(self, plan: Mapping[str, Any]) -> dict[str, Spec]:
        """Jobs of other kinds."""
        evaluation = EvaluationSpec(self.calibration.texts, window=32, max_windows=6)
        calibration = self.calibration
        return {
            "spectra": SpectraSpec(self.model, calibration=calibration),
            "update left": UpdateSpec(self.model, plan, settings={"kind": "left"}, calibration=calibration),
            "evaluate": EvaluateSpec(self.model, plan, calibration=calibration, evaluation=evaluation),
        }


def kill_workers_of(
    ground: Ground, methods: tuple[str, ...], *, seed: int, kills: int, rounds: int = 1, others: bool = True
) -> Tally:
    """Kill the workers of a job of every method, and of other kinds.

    Args:
        ground: where.
        methods: by name.
        seed: of signals and moments.
        kills: how often a run is killed at most before it is left alone.
        rounds: how many runs of each job are killed.
        others: jobs of other kinds too.
    """
    tally = Tally("kills")
    with forked_workers():
        jobs: dict[str, Spec] = {method: ground.allocation(method) for method in methods}
        if others:
            plan = _finished(jobs[methods[0]], ground.folder / "plan", tally).path / "plan.json"
            jobs |= ground.others(json.loads(plan.read_text()))
        for name, spec in jobs.items():
            folder = ground.folder / name.replace(" ", "-")
            whole = _finished(spec, folder, tally)
            for number in range(rounds):
                chance = random.Random(f"{seed} {name} {number}")  # whatever else is killed
                try:
                    _kill_one(name, whole, folder / f"killed-{number}", chance, kills, tally)
                except AssertionError as error:  # it hangs
                    tally.require(False, f"{name}: {error}")
            tally.note(name)
    return tally


def _kill_one(name: str, whole: Run, folder: Path, chance: random.Random, kills: int, tally: Tally) -> None:
    status = whole.status()
    lasts = status.ended_at - status.queued_at
    store = RunStore(folder / "runs")
    with _cache(folder):
        run = manager.submit(whole.spec, store=store)
        for _ in range(kills):
            _die(name, run, chance.choice(SIGNALS), lasts * chance.random() ** 1.5, tally)
            if run.status().state == "done":
                break
            if chance.random() < 0.05:
                with patch(START, start_real_worker):
                    manager.resume(run.id, store=store)
                _die(f"{name}, importing", run, chance.choice(SIGNALS), chance.uniform(0, 8), tally)
                if run.status().state == "done":
                    break
            manager.resume(run.id, store=store)
        _ended(run)
        tally.count("runs resumed to the end", f"of {name}")
        _same(name, whole, run, tally)
        nothing_left(name, store, folder / "cache", tally)


def _finished(spec: Spec, folder: Path, tally: Tally) -> Run:
    """The run of a spec that nobody kills."""
    with _cache(folder):
        run = manager.submit(spec, store=RunStore(folder / "runs"))
        status = _ended(run)
    assert status.state == "done", f"{status.error} {run.log_tail()}"
    tally.count("runs that nobody killed")
    return run


def _cache(folder: Path) -> Any:
    return patch.dict(os.environ, {"LRC_CACHE": str(folder / "cache")})


def _ended(run: Run) -> Status:
    def final() -> Status | None:
        status = manager.poll(run.id, store=RunStore(run.path.parent))
        return status if status.final else None

    found: Status = wait_for(final, f"the end of {run}", 300)
    return found


def _die(name: str, run: Run, number: signal.Signals, after: float, tally: Tally) -> None:
    """Send a signal, wait for the end, and see whether what the run says of itself is true."""
    time.sleep(after)
    pid, phase = run.status().pid, run.status().phase
    assert pid is not None
    was_final = run.status().final
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        was_final = True
    try:
        wait_for(lambda: not lives(pid), f"the death of {pid}, {run}", 60)
    except AssertionError as hangs:
        os.kill(pid, signal.SIGUSR1)  # it writes where it is
        time.sleep(1)
        raise AssertionError(f"{hangs}\n{run.log_tail()}") from None
    store = RunStore(run.path.parent)
    manager.reconcile(store=store)
    status = run.status()
    tally.count("kills", number.name, "after the end" if was_final else "in the middle")
    if not was_final:
        tally.count(f"phase: {phase or 'before the first'}")
    said = f"{name}: {number.name} in {phase!r} after {after:.2f} s: {status.state} {status.error!r}"
    true = {"done", "interrupted"} if number == signal.SIGKILL else {"done", "cancelled", "interrupted"}
    tally.require(status.state in true, f"untrue state: {said}")
    tally.require((status.state == "done") == (run.result() is not None), f"result and state differ: {said}")
    tally.require([row.state for row in store.list()] == [status.state], f"the list differs: {said}")
    tally.require(not DeviceQueue(store).order(), f"a place in the queue is left: {said}")


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _same(name: str, whole: Run, run: Run, tally: Tally) -> None:
    status = run.status()
    tally.require(status.state == "done", f"{name}: not done when resumed: {status.state} {status.error}")
    for path in sorted(whole.path.rglob("*")):
        kind, inner = path.suffix, path.relative_to(whole.path)
        if kind not in (".json", ".jsonl", ".npz", ".safetensors") or path.name in ("status.json", "events.jsonl"):
            continue
        if "checkpoint" in inner.parts or path.name == "spent.json":
            continue
        other = run.path / inner
        tally.count("files compared bit for bit")
        tally.require(other.is_file() and figures_in(path) == figures_in(other), f"{name}: {inner} differs")


def figures_in(path: Path) -> Any:
    """The content of a file; of JSON without what time and memory something took, of lines every one once.

    Steps behind the last checkpoint are taken again, and say the same again.
    """
    raw = path.read_bytes()
    if path.suffix == ".jsonl":
        return sorted(set(raw.splitlines()))
    return _steady(json.loads(raw)) if path.suffix == ".json" else raw


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(inner) for key, inner in value.items() if not _VOLATILE.fullmatch(key)}
    return [_steady(inner) for inner in value] if isinstance(value, list) else value


def nothing_left(name: str, store: RunStore, cache: Path, tally: Tally) -> None:
    """A day later, after a look at the store, nothing half-made lies about; and the run can be deleted."""
    _days_pass(store.root, cache)
    with store.lock():
        sweep(store.root, cache)
    left = [path for root in (store.root, cache) for path in root.rglob("*") if _HALF_MADE.fullmatch(path.name)]
    tally.require(not left, f"{name}: left over: {left}")


def _days_pass(*roots: Path) -> None:
    then = time.time() - 2 * DAY_S
    for root in roots:
        for path in [root, *root.rglob("*")] if root.is_dir() else []:
            with suppress(FileNotFoundError):  # what somebody has just tidied away
                os.utime(path, (then, then))


def kill_makers(folder: Path, *, seed: int, kills: int) -> Tally:
    """Kill processes that make and delete runs: what is listed is whole, the rest is swept."""
    tally, chance = Tally("kills of makers"), random.Random(seed)
    store, cache = RunStore(folder / "runs"), folder / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(kills):
        pid = fork(_make_and_delete, folder / "log", str(store.root))
        time.sleep(chance.uniform(0.05, 0.4))
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: not lives(pid), "the maker's death")
        tally.count("kills")
        for row in store.list():
            tally.count("runs listed")
            tally.require(row.state == "queued", f"{row.id} is {row.state}: {row.damaged}")
    for run_id in store.ids():
        manager.cancel(run_id, store=store)
        manager.delete(run_id, store=store)
    tally.require(not store.ids(), f"cannot be deleted: {store.ids()}")
    nothing_left("makers", store, cache, tally)
    return tally


def _make_and_delete(root: str) -> None:
    store = RunStore(Path(root))
    for number in range(10**6):
        made = [store.create(SpectraSpec(calibration=CalibrationSpec(seed=number + extra))) for extra in (0, 10**7)]
        with store.lock():
            store.discard(made[0])
