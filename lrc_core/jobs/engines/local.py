"""This machine as an engine: one detached process that does what was submitted, one after the other. No torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from lrc_core.files import write_json
from lrc_core.jobs.engines.engine import EngineTask, JobState
from lrc_core.jobs.launch import start_process
from lrc_core.runs.process import birth


class LocalEngine:
    """The device of this machine, for which other jobs may wait as well.

    Args:
        runs: the folder of runs; lists of work go into a hidden folder there.
    """

    lasting = True

    def __init__(self, runs: Path) -> None:
        self._folder = runs / ".local"

    def reach(self) -> None:
        """It is here."""

    def submit(self, works: Sequence[EngineTask], jobs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """See :class:`~lrc_core.jobs.engines.engine.Engine`; all of it has the name of the one process."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = self._folder / f"{uuid.uuid4().hex[:12]}.json"
        write_json(name, [{"words": list(work.words), "log": str(work.log)} for work in works])
        pid = start_process(("engines.local", str(name)), name.with_suffix(".log"), "The process that does the work")
        job = f"{pid}@{birth(pid)}"
        yield from ((work.key, job) for work in works)

    def look(self, jobs: Sequence[str]) -> dict[str, JobState]:
        """Whether its process lives; where each piece of work stands is for its folder to say."""
        return {job: JobState("running" if _lives(job) else "ended") for job in jobs}

    def cancel(self, jobs: Sequence[str]) -> None:
        """End the process: nothing more is begun."""
        for job in set(jobs):
            if _lives(job):
                with suppress(psutil.Error):
                    psutil.Process(int(job.split("@")[0])).terminate()


def _lives(job: str) -> bool:
    pid, _, born = job.partition("@")
    return bool(born) and pid.isdigit() and birth(int(pid)) == born


def serve(name: Path) -> None:
    """Do what a list says, in order; what fails hinders nothing, since each part looks at what lies before it."""
    environment = {**os.environ, "LRC_JOB": f"{os.getpid()}@{birth(os.getpid())}"}
    for work in json.loads(name.read_text(encoding="utf-8")):
        with Path(work["log"]).open("ab") as log:
            command = [sys.executable, "-m", "lrc_core.jobs.node", *work["words"]]
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, env=environment)
    name.unlink(missing_ok=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
