"""Slurm: jobs are submitted through submitit, and asked after with Slurm's own commands. No torch.

submitit asks ``sacct`` where a job stands, which clusters without accounting do not have; ``squeue`` and ``scontrol``
know every job until minutes after its end, and the run folders know the rest.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from lrc_core.errors import ResourceError, SettingsError
from lrc_core.jobs import node
from lrc_core.jobs.engines.engine import EngineTask, JobState
from lrc_core.jobs.engines.profile import Profile
from lrc_core.paths import child_environment

ANSWER_S = 20.0
"""How long Slurm may take to answer."""
SEEN_S = 1.0
"""How long its list of jobs is believed: many runs cost one question."""
_WAITS = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING", "SPECIAL_EXIT", "SUSPENDED", "RESV_DEL_HOLD")
_RUNS = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING")
_NO_OUTPUT = "0:53"
"""Exit code of a job whose log the node could not open: it does not see the folder."""
_seen: tuple[float, dict[str, JobState]] = (0.0, {})


class NodeCall:
    """What submitit carries to the node."""

    def __init__(self, words: Sequence[str], requeues: int) -> None:
        self.words, self.requeues = tuple(words), requeues

    def __call__(self) -> int:
        """Work on a run; where the time limit came first, go on in the same job once more."""
        node.log_to_stderr()
        warned: list[int] = []

        def on_warning(number: int, _: FrameType | None) -> None:
            warned.append(number)
            os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(signal.SIGUSR2, on_warning)
        code = node.main(self.words, job=os.environ.get("SLURM_JOB_ID", ""), name=os.environ.get("SLURMD_NODENAME", ""))
        if code == node.HANDED_BACK and warned and int(os.environ.get("SLURM_RESTART_COUNT", 0)) < self.requeues:
            _ask("scontrol", "requeue", os.environ["SLURM_JOB_ID"])
        return code


class SlurmEngine:
    """Slurm's controller.

    Args:
        profile: what a job asks for.
        runs: the folder of runs; scripts and logs of submitit go into a hidden folder there.
    """

    lasting = True

    def __init__(self, profile: Profile, runs: Path) -> None:
        self._profile, self._folder = profile, runs / ".slurm"

    def reach(self) -> None:
        """See :class:`~lrc_core.jobs.engines.engine.Engine`."""
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            words = "The package submitit is not installed, through which jobs are sent to Slurm."
            raise ResourceError(words, '`pip install "low-rank-compression-explorer[cluster]"`.') from error
        partitions = _ask("sinfo", "--noheader", "--format=%R|%a|%D").split()
        known = {line.split("|")[0]: line for line in partitions}
        if self._profile.partition and not set(self._profile.partition.split(",")) <= known.keys():
            raise SettingsError(
                f"Slurm has no partition {self._profile.partition!r}.", f"It has {', '.join(sorted(known))}."
            )

    def submit(self, works: Sequence[EngineTask], jobs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """See :class:`~lrc_core.jobs.engines.engine.Engine`."""
        known = dict(jobs)
        executor = self._executor()
        for work in works:
            after = [known[key] for key in work.after if key in known]
            extra = {"requeue": True, "signal": f"B:USR2@{self._profile.grace_s}", "error": str(work.log)}
            extra |= {"output": str(work.log), "kill-on-invalid-dep": "no"}
            if after:
                extra["dependency"] = "afterany:" + ":".join(after)
            try:
                executor.update_parameters(job_name=work.label[:60], additional_parameters=extra)
                job = executor.submit(NodeCall(work.words, self._profile.requeues)).job_id
            except ValueError as error:
                raise SettingsError(f"The profile's table [slurm] is refused: {str(error).splitlines()[0]}") from error
            except Exception as error:  # submitit's own, which quotes sbatch
                said = str(error).strip().splitlines()
                raise ResourceError(f"Slurm does not take the job: {said[-1] if said else error!r}") from error
            known[work.key] = job
            yield work.key, job

    def _executor(self) -> Any:
        from submitit import SlurmExecutor

        asked = self._profile
        # Without srun, and in place of the batch script's shell: signals reach the program itself.
        executor = SlurmExecutor(self._folder, python=f"exec {shlex.join(asked.words(sys.executable))}")
        path = child_environment()["PYTHONPATH"]
        environment = {**({"PYTHONPATH": path} if path else {}), **asked.env}
        exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
        executor.update_parameters(
            setup=[*exports, *asked.setup],
            cpus_per_task=asked.cpus,
            time=asked.minutes or None,
            mem=f"{asked.memory_gb}GB" if asked.memory_gb else None,
            gpus_per_node=asked.gpus or None,
            use_srun=False,
            wckey=None,
            **{name: getattr(asked, name) or None for name in ("partition", "account", "qos")},
            **asked.slurm,
        )
        return executor

    def look(self, jobs: Sequence[str]) -> dict[str, JobState]:
        """See :class:`~lrc_core.jobs.engines.engine.Engine`."""
        global _seen
        try:
            if not abs(time.monotonic() - _seen[0]) < SEEN_S:
                lines = _ask("squeue", "--noheader", "--all", "--format=%i|%T|%N|%r").splitlines()
                _seen = time.monotonic(), {line.split("|")[0]: _listed(*line.split("|")[1:4]) for line in lines}
        except ResourceError as error:
            return {job: JobState("unknown", reason=error.message) for job in jobs}
        return {job: _seen[1].get(job) or _ended(job) for job in jobs}

    def cancel(self, jobs: Sequence[str]) -> None:
        """See :class:`~lrc_core.jobs.engines.engine.Engine`."""
        global _seen
        for start in range(0, len(jobs), 100):
            _ask("scancel", *jobs[start : start + 100])
        _seen = (0.0, {})


def _listed(state: str, nodes: str, reason: str) -> JobState:
    if state in _WAITS:
        return JobState("pending", reason=reason)
    return JobState("running", node=nodes) if state in _RUNS else JobState("ended", nodes, ending=state)


def _ended(job: str) -> JobState:
    """What is still known of a job that is in no list any more."""
    try:
        said = _ask("scontrol", "show", "job", "--oneliner", job)
    except ResourceError as error:
        if "Invalid job id" in error.message:  # it ended long ago, or its controller went down before it wrote of it
            return JobState("ended", ending="lost")
        return JobState("unknown", reason=error.message)
    found = dict(re.findall(r"(\w+)=(\S*)", said))
    state = found.get("JobState", "")
    if state in (*_WAITS, *_RUNS):
        return _listed(state, found.get("NodeList", ""), found.get("Reason", ""))
    ending = "cannot see the folder" if found.get("ExitCode") == _NO_OUTPUT else state
    return JobState("ended", node=found.get("NodeList", "").replace("(null)", ""), ending=ending)


def _ask(*words: str) -> str:
    """What a command of Slurm says.

    Raises:
        ResourceError: it is not there, does not answer, or refuses.
    """
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except FileNotFoundError as error:
        remedy = "Run this on a machine from which the cluster takes jobs, or have it done here (`--on local`)."
        raise ResourceError(f"Slurm is not on this machine: there is no command {words[0]}.", remedy) from error
    except subprocess.TimeoutExpired as error:
        raise ResourceError(f"Slurm does not answer {words[0]} within {ANSWER_S:g} s.", "Try again later.") from error
    if found.returncode:
        said = (found.stderr or found.stdout).strip().splitlines()
        raise ResourceError(f"Slurm does not answer: {said[-1] if said else words[0]}", "Is its controller running?")
    return found.stdout
