"""``lrc bench jobs``: what many jobs cost: those that wait, and the folders of those that are done.

Processor time in shares of one core and in seconds, which a busy machine does not change much.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from lrc_core.cli.output import answer, emit
from lrc_core.errors import ResourceError, SettingsError
from lrc_core.jobs import dispatcher
from lrc_core.jobs.queue import DeviceQueue
from lrc_core.results.archive import Archive
from lrc_core.runs.process import host_name, identity
from lrc_core.runs.records import Status
from lrc_core.runs.spec import AllocateSpec, CalibrationSpec
from lrc_core.runs.store import Run, RunStore

SHARE, LIST_S = 0.02, 1.5
"""What waiting jobs are meant to take of a core, and what a list of all runs is meant to take."""
ROUNDS = 3


def jobs(arguments: argparse.Namespace) -> None:
    """``lrc bench jobs``."""
    if min(arguments.waiting, arguments.folders) < 0 or arguments.seconds <= 0:
        raise SettingsError("Numbers of jobs and seconds cannot be negative.", "Take --waiting 200 --seconds 20.")
    with tempfile.TemporaryDirectory(prefix="lrc-bench-") as folder:
        waiting = measure_waiting(RunStore(Path(folder) / "waiting"), arguments.waiting, arguments.seconds)
        listing = measure_listing(RunStore(Path(folder) / "done"), arguments.folders)
    found = {**waiting, **listing, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    answer(arguments, found, _print)


def _print(found: Mapping[str, Any]) -> None:
    emit(
        f"{found['waiting']} waiting jobs: {100 * found['share']:.2f} % of a core, meant to be under "
        f"{100 * SHARE:g} %; {found['processes']} process, {found['memory_mb']:.0f} MB"
    )
    for name, words in (
        ("first_s", "listed for the first time"),
        ("again_s", "again"),
        ("command_s", "`lrc runs list`"),
    ):
        emit(
            f"{found['folders']:,} runs {words}: {found[name]:.2f} s of processor time, meant to be under {LIST_S:g} s"
        )
    emit(f"load while measuring {found['load']:.1f} on {found['cores']} cores")


def measure_waiting(store: RunStore, count: int, seconds: float) -> dict[str, Any]:
    """Let that many jobs wait behind this process, and watch what does the waiting.

    Returns:
        ``waiting``, ``share`` of a core, ``processes`` and ``memory_mb``.

    Raises:
        ResourceError: the dispatcher does not start.
    """
    queue = DeviceQueue(store)
    for number in range(count + 1):
        spec = AllocateSpec(calibration=CalibrationSpec(seed=number))
        run = store.create(spec)
        status = replace(run.status(), queued_at=float(number + 1), host=host_name())
        if number == 0:
            status = replace(status, state="running", **identity(os.getpid()))
        run.write_status(status)
        queue.enter(run, status.queued_at)
    dispatcher.ensure(store)
    process = _dispatcher_of(store)
    before, began = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after, took = process.cpu_times(), time.monotonic() - began
    memory = process.memory_info().rss / 1e6
    process.kill()
    process.wait()  # here, so that its time is not another child's
    used = after.user + after.system - before.user - before.system
    return {"waiting": count, "share": used / took, "processes": 1, "memory_mb": memory}


def _dispatcher_of(store: RunStore) -> psutil.Process:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for process in psutil.Process().children():
            if str(store.root.resolve()) in process.cmdline():
                time.sleep(3)  # past its imports
                return process
        time.sleep(0.1)
    raise ResourceError("The dispatcher of jobs does not start.", "Close other programs and try again.")


def measure_listing(store: RunStore, count: int) -> dict[str, Any]:
    """List that many finished runs.

    Returns:
        ``folders``, and processor seconds: ``first_s``, ``again_s`` and ``command_s`` (of ``lrc runs list``).
    """
    now = time.time()
    for number in range(count):
        spec = AllocateSpec(calibration=CalibrationSpec(seed=number))
        run = Run(store.root / spec.run_id)
        run.path.mkdir(parents=True)
        (run.path / "spec.json").write_text(json.dumps(spec.to_dict()), encoding="utf-8")
        status = Status(state="done", created_at=now, started_at=now, ended_at=now, updated_at=now)
        (run.path / "status.json").write_text(json.dumps(status.to_dict()), encoding="utf-8")
    found = Archive((store,))
    times = []
    for _ in range(2):
        began = time.process_time()
        found.runs()
        times.append(time.process_time() - began)
    return {"folders": count, "first_s": times[0], "again_s": times[1], "command_s": _spent_listing(store)}


def _spent_listing(store: RunStore) -> float:
    """Processor seconds of ``lrc runs list``: the least of several, as other programs can only add to them."""
    command = [sys.executable, "-m", "lrc_core.cli", "runs", "list"]
    environment = {**os.environ, "LRC_RUNS": str(store.root)}
    spent = []
    for _ in range(ROUNDS):
        before = os.times()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(spent)
