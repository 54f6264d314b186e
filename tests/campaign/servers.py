"""Servers and dispatchers are killed while jobs run and wait, at moments drawn from a seed; then everything goes on.

Jobs are started as a visitor starts them, by a button of a page. What must hold after every death: no run is
lost or damaged, every state is true, and the next server brings all of them to their end.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import psutil
from websockets import WebSocketException

from lrc_core.jobs import manager
from lrc_core.jobs.ending import START_GRACE_S
from lrc_core.jobs.queue import DeviceQueue
from lrc_core.runs.spec import ModelRef, SpectraSpec
from lrc_core.runs.store import Run, RunStore
from tests.campaign.counting import STEPS
from tests.campaign.kills import SIGNALS, lives, nothing_left
from tests.campaign.served import Served
from tests.campaign.tally import Tally
from tests.campaign.visitor import Visitor
from tests.factories.job_helpers import EXECUTE_VARIABLE, kill_workers, processes_of, wait_for
from tests.factories.tiny_models import save_tiny
from tests.tree import ROOT

BUTTON = "Read this model's spectra"


def kill_servers(folder: Path, *, seed: int, rounds: int, jobs: int = 5) -> Tally:
    """In every round a server starts jobs for a visitor while it, the dispatcher and workers are killed.

    Args:
        folder: for models, runs and logs.
        seed: of victims, signals and moments.
        rounds: servers that are started, one after the other, on the same runs.
        jobs: that are asked for in each, two of five by a button.
    """
    tally, chance = Tally("servers"), random.Random(seed)
    store = RunStore(folder / "runs")
    with _stand_in(folder):
        try:
            for number in range(rounds):
                models = [_model(folder, jobs * number + job) for job in range(jobs)]
                try:
                    _one_round(folder, store, models, chance, tally)
                except (AssertionError, OSError, TimeoutError, WebSocketException) as error:  # it hangs
                    tally.require(False, f"round {number}: {type(error).__name__}: {error}")
                tally.note(f"round {number}, {tally.counts['kills']} kills")
        finally:
            kill_workers(store)
    tally.require(not processes_of(store), f"processes are left: {processes_of(store)}")
    nothing_left("servers", store, folder / "cache", tally)
    tally.say(f"{len(store.ids())} runs in the end")
    return tally


@contextmanager
def _stand_in(folder: Path) -> Iterator[None]:
    paths = [str(ROOT / "tests" / "stand_in"), os.environ.get("PYTHONPATH", "")]
    with patch.dict(
        os.environ,
        {
            "LRC_RUNS": str(folder / "runs"),
            "LRC_CACHE": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            EXECUTE_VARIABLE: "tests.campaign.counting:count",
        },
    ):
        yield


def _model(folder: Path, number: int) -> Path:
    """Another tiny model, also by its content."""
    first, path = folder / "models" / "first", folder / "models" / f"{number}"
    if not first.exists():
        save_tiny(first)
    shutil.copytree(first, path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-6 * (2 + number)}))
    return path


def _one_round(folder: Path, store: RunStore, models: list[Path], chance: random.Random, tally: Tally) -> None:
    server = Served(folder / "server.log", {})
    asked = models[: len(models) // 2]
    visitor = threading.Thread(target=_ask_for, args=(server.url, asked, tally), daemon=True)
    visitor.start()
    known = {manager.submit(SpectraSpec(ModelRef(str(model))), store=store).id for model in models[len(asked) :]}
    victims = chance.choices(("dispatcher", "worker"), k=3)
    victims.insert(chance.randrange(4), "server")
    try:
        for victim in victims:
            with suppress(AssertionError):  # all is done already
                wait_for(lambda victim=victim: _is_there(victim, store), f"a {victim}", 20)
            time.sleep(chance.uniform(0, 1.5))
            known |= set(store.ids())
            _kill(victim, chance.choice(SIGNALS), server, store, tally)
            _true(store, known, tally)
    finally:
        server.kill()
    visitor.join(timeout=60)
    _go_on(folder, store, asked, known, tally)


def _is_there(victim: str, store: RunStore) -> bool:
    manager.keep_going(store=store)  # whoever looks at jobs replaces a dispatcher that was killed
    return victim == "server" or bool(processes_of(store, victim))


def _ask_for(url: str, models: list[Path], tally: Tally) -> None:
    async def asking() -> None:
        async with Visitor(url) as visitor:
            for model in models:
                shown = await visitor.open(f"spectra?model={model}")
                tally.require(not shown.errors, f"a page: {shown.errors}")
                if button := shown.buttons.get(BUTTON):
                    shown = await visitor.press(button)
                    tally.require(not shown.errors, f"a start: {shown.errors}")
                    tally.count("jobs started by a button")

    with suppress(OSError, TimeoutError, WebSocketException):  # the server has been killed
        asyncio.run(asking())


def _kill(victim: str, number: signal.Signals, server: Served, store: RunStore, tally: Tally) -> None:
    if victim == "server":
        if lives(server.process.pid):
            took = server.kill(number)
            tally.count("kills", f"of a server, {number.name}")
            tally.require(took < 30, f"the server took {took:.0f} s to end after {number.name}")
        return
    for process in processes_of(store, victim)[:1]:
        with suppress(psutil.Error):
            process.send_signal(number)
            tally.count("kills", f"of a {victim}, {number.name}")
            wait_for(lambda process=process: not lives(process.pid), f"the death of {process}", 60)


def _true(store: RunStore, known: set[str], tally: Tally) -> None:
    """Nothing is lost, and each run is in the state that it says it is in."""
    manager.reconcile(store=store)
    rows = {row.id: row for row in store.list()}
    tally.require(known <= rows.keys(), f"lost: {known - rows.keys()}")
    for row in rows.values():
        tally.require(row.state != "damaged", f"{row.id} is damaged: {row.damaged}")
        said = _untrue(store, Run(row.path))
        tally.require(not said, f"untrue: {said}")
    tally.count("states looked at")


def _untrue(store: RunStore, run: Run) -> str:
    """What is wrong with what a run says of itself; looked at twice, for a state may change under the look."""
    for _ in range(2):
        status = run.status()
        alive = status.pid is not None and lives(status.pid)
        wrong = {
            "done": run.result() is None,
            "running": not alive,
            "cancelling": not alive,
            # Between its record and its ticket a run has neither; once the time for that is over, one who dies is told.
            "queued": not alive
            and not DeviceQueue(store).holds(run.id)
            and time.time() - status.updated_at > START_GRACE_S,
        }.get(status.state, run.result() is not None)
        if not wrong:
            return ""
        time.sleep(0.5)
        manager.reconcile(store=store)
    return f"{run.id} is {status.state} (process {status.pid}, alive: {alive}; {status.error})"


def _go_on(folder: Path, store: RunStore, models: list[Path], known: set[str], tally: Tally) -> None:
    """The next server: who looks at it sees every run end, those that were killed when they are resumed."""
    server = Served(folder / "server.log", {})
    try:
        _ask_for(server.url, models, tally)  # what the first could not start
        ends = time.monotonic() + START_GRACE_S + 120
        while any(not row.status.final for row in store.list() if row.status) and time.monotonic() < ends:
            asyncio.run(_look(server.url, tally))
            time.sleep(0.5)
        _true(store, known, tally)
        for row in store.list():
            tally.require(
                row.state in ("done", "interrupted", "cancelled"), f"{row.id} stays {row.state}: queue stands"
            )
            if row.state in ("interrupted", "cancelled"):
                tally.count(f"runs resumed, {row.state}")
                manager.resume(row.id, store=store)
        for row in store.list():
            run = Run(row.path)
            with suppress(AssertionError):
                wait_for(lambda run=run: manager.poll(run.id, store=store).final, "its end", 120)
            tally.require(run.status().state == "done", f"not done when resumed: {run.id} {run.status().error}")
            tally.require((run.result() or {}).get("steps") == STEPS, f"another result: {run.id}")
        tally.require(len(store.ids()) >= len(models), "jobs that were asked for are missing")
        tally.require(not DeviceQueue(store).order(), "a place in the queue is left")
    finally:
        server.kill(signal.SIGTERM)
    logged = [line for line in server.log().splitlines() if "Traceback" in line]
    tally.require(not logged, f"the server's log: {server.log()[-300:]}")


async def _look(url: str, tally: Tally) -> None:
    async with Visitor(url) as visitor:
        shown = await visitor.open("runs")
        tally.require(not shown.errors, f"the Runs page: {shown.errors}")
