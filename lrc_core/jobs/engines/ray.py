"""Ray: each job is a task with its CPUs and GPUs, owned by an actor that outlives whoever submitted it. No torch.

Tasks know two things that Ray's Jobs interface does not: they begin after one another, and where a node dies they begin
again on another one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lrc_core.errors import ResourceError
from lrc_core.jobs.engines import conductor
from lrc_core.jobs.engines.engine import EngineTask, JobState
from lrc_core.jobs.engines.profile import Profile
from lrc_core.jobs.queue import kept_environment
from lrc_core.paths import child_environment

CONNECT_S = 5.0
"""How long the head of a cluster may take to take up a connection."""
ADDRESS_VARIABLE = "RAY_ADDRESS"
log = logging.getLogger(__name__)


class RayEngine:
    """A Ray cluster: the one that the profile or ``RAY_ADDRESS`` names, one on this machine, or one started for now.

    Args:
        profile: what a job asks for.
    """

    def __init__(self, profile: Profile, runs: Path) -> None:
        self._profile = profile
        self._name = f"lrc-{hashlib.sha256(str(runs).encode()).hexdigest()[:12]}"

    @property
    def lasting(self) -> bool:
        """Whether the cluster outlives this process: one that was started for now does not."""
        return not _started_here

    def reach(self) -> None:
        """See :class:`~lrc_core.jobs.engines.engine.Engine`; connects this process, and starts a cluster if none is."""
        try:
            import ray
        except ImportError as error:
            words = 'Install it: `pip install "low-rank-compression-explorer[cluster]"`.'
            raise ResourceError("The package ray is not installed.", words) from error
        if not ray.is_initialized():
            _connect(self._profile.address or os.environ.get(ADDRESS_VARIABLE, ""))
        self._require_nodes(ray)

    def _require_nodes(self, ray: Any) -> None:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for name, wanted, words in (("GPU", self._profile.gpus, "GPUs"), ("CPU", self._profile.cpus, "CPUs")):
            most = max((node.get(name, 0) for node in nodes), default=0)
            if wanted > most:
                raise ResourceError(
                    f"The profile asks for {wanted} {words} for a job; no node of the Ray cluster has more than "
                    f"{most:g}.",
                    f"Ask for fewer, or add a node (`ray start --address ... --num-{words.lower()} {wanted}`).",
                )

    def submit(self, works: Sequence[EngineTask], jobs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """See :class:`~lrc_core.jobs.engines.engine.Engine`."""
        import ray

        actor, known = self._conductor(), dict(jobs)
        asked = self._profile
        options: dict[str, Any] = {"num_cpus": asked.cpus, "num_gpus": asked.gpus, "max_retries": -1}
        if asked.memory_gb:
            options["memory"] = asked.memory_gb * 2**30
        path = child_environment()["PYTHONPATH"]
        environment = {**kept_environment(), **({"PYTHONPATH": path} if path else {}), **asked.env}
        environment.pop("CUDA_VISIBLE_DEVICES", None)  # Ray gives each task its own
        for work in works:
            command = [*asked.words(sys.executable), "-m", "lrc_core.jobs.node", *work.words]
            sent = {"command": command, "environment": environment, "log": str(work.log)}
            after = [known[key] for key in work.after if key in known]
            job = ray.get(actor.submit.remote(sent, {**options, "name": work.label}, after))
            known[work.key] = job
            yield work.key, job

    def look(self, jobs: Sequence[str]) -> dict[str, JobState]:
        """See :class:`~lrc_core.jobs.engines.engine.Engine`; unknown unless this process is connected already."""
        actor = self._known_conductor()
        if actor is None:
            return {job: JobState("unknown") for job in jobs}
        import ray

        found = ray.get(actor.look.remote(list(jobs)))
        waits = JobState("pending", reason=self._reason(ray) if None in found.values() else "")
        return {job: waits if ending is None else JobState("ended", ending=ending) for job, ending in found.items()}

    def _reason(self, ray: Any) -> str:
        free = ray.available_resources()
        lacking = [
            f"{wanted} {name} wanted, {free.get(name, 0):g} free"
            for name, wanted in (("CPU", self._profile.cpus), ("GPU", self._profile.gpus))
            if wanted > free.get(name, 0)
        ]
        return ", ".join(lacking)

    def cancel(self, jobs: Sequence[str]) -> None:
        """As of :class:`Engine`; nothing where this process is not connected: nodes see the flag in the folder."""
        actor = self._known_conductor()
        if actor is not None:
            import ray

            ray.get(actor.cancel.remote(list(jobs)))

    def _conductor(self) -> Any:
        """The actor, made where there is none: on the head, with which a cluster stands and falls; it takes no CPU."""
        import ray

        ray.cloudpickle.register_pickle_by_value(conductor)
        options = {"name": self._name, "namespace": conductor.NAMESPACE, "lifetime": "detached", "num_cpus": 0}
        options["resources"] = {"node:__internal_head__": 0.001}
        actor = ray.remote(conductor.Conductor).options(**options, get_if_exists=True).remote()
        ray.get(actor.ping.remote())
        return actor

    def _known_conductor(self) -> Any:
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return None
        with suppress(ValueError):
            return ray.get_actor(self._name, namespace=conductor.NAMESPACE)
        return None


_started_here = False


def _connect(address: str) -> None:
    """Join a cluster; where none is named and none is on this machine, start one that ends with this process.

    Raises:
        ResourceError: the named one does not answer, or is of another version.
    """
    global _started_here
    import ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": conductor.NAMESPACE}
    if address not in ("", "auto", "local"):
        _require_answer(address)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address or "auto", **quiet)
    except Exception as error:  # of many types
        said = str(error).strip().splitlines()
        if address or not isinstance(error, ConnectionError):
            raise ResourceError(
                f"The Ray cluster {address or 'of this machine'} cannot be joined: {said[0] if said else error!r}",
                "`ray status` on its head shows whether it is up; its version must be that of this machine's ray.",
            ) from error
        log.info("no Ray cluster is running: one is started")
        ray.init(address="local", include_dashboard=False, **quiet)
        _started_here = True


def _require_answer(address: str) -> None:
    """Ray itself tries for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), CONNECT_S):
            return
    except (OSError, ValueError) as error:
        raise ResourceError(
            f"The Ray cluster at {address} does not answer: {getattr(error, 'strerror', None) or error}.",
            "Is its head up (`ray status`), and is the address HOST:PORT, usually port 6379?",
        ) from error
