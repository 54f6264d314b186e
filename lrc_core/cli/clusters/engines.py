"""``lrc bench engines``: what an engine costs per job, beside the job itself."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lrc_core.cli.output import answer, emit_table, note
from lrc_core.errors import LrcError
from lrc_core.jobs.engines.choice import engine_of
from lrc_core.jobs.engines.engine import Engine, EngineTask
from lrc_core.jobs.engines.profile import Profile, chosen_profile
from lrc_core.kinds.words.flags import ENGINES
from lrc_core.paths import child_environment, runs_home

LOOK_S = 0.1


def engines(arguments: argparse.Namespace) -> None:
    """Every engine that answers gets one job, then many: the program starts on a node, and finds nothing to do."""
    bare = _bare_call()
    rows = []
    for name in [arguments.only] if arguments.only else ENGINES:
        profile = chosen_profile(name, arguments.profile)
        runs_home().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=runs_home(), prefix=".bench-") as folder:
            try:
                rows.append({"engine": name, "jobs": arguments.jobs, **measure(profile, Path(folder), arguments.jobs)})
            except LrcError as error:
                note(f"{name}: {error}")
    found = {"bare_s": bare, "rows": rows, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    answer(arguments, found, partial(_print, count=arguments.jobs))


def _print(found: Mapping[str, Any], count: int) -> None:
    emit_table(
        ["engine", "one job, s", "submitting one, ms", f"all {count}, s", "per job, s"],
        [
            [
                row["engine"],
                f"{row['one_s']:.2f}",
                f"{1000 * row['submit_s']:.1f}",
                f"{row['all_s']:.1f}",
                f"{row['all_s'] / count:.3f}",
            ]
            for row in found["rows"]
        ],
    )
    bare, load = found["bare_s"], found["load"]
    note(f"The same call without an engine: {bare:.2f} s. Load {load:.1f} on {found['cores']} cores.")


def measure(profile: Profile, folder: Path, count: int) -> dict[str, Any]:
    """Seconds for one job, for submitting each of many, and for all of them.

    Raises:
        LrcError: the engine does not answer.
    """
    engine = engine_of(profile, folder)
    engine.reach()
    one, _ = _through(engine, folder, 1)
    every, submitting = _through(engine, folder, count)
    return {"one_s": one, "submit_s": submitting / count, "all_s": every}


def _through(engine: Engine, folder: Path, count: int) -> tuple[float, float]:
    """Seconds until that many jobs have ended, and seconds until they were submitted."""
    words = (str(folder), "nobody")
    works = [EngineTask(str(number), words, f"trivial {number}", folder / "log") for number in range(count)]
    began = time.monotonic()
    waiting = [job for _, job in engine.submit(works, {})]
    submitted = time.monotonic() - began
    while waiting:
        time.sleep(LOOK_S)
        states = engine.look(waiting[:50])
        waiting = [job for job in waiting if job not in states or states[job].state != "ended"]
    return time.monotonic() - began, submitted


def _bare_call() -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        command = [sys.executable, "-m", "lrc_core.jobs.node", folder, "nobody"]
        subprocess.run(command, env=child_environment(), capture_output=True, check=False)
        return time.monotonic() - began
