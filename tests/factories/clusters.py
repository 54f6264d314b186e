"""Real engines for tests: a Slurm controller with two nodes on this machine, and a Ray cluster of two node processes.

Debian's slurmd is one program for many nodes: `slurmd -N NAME` answers for that node on the port that the configuration
gives it, so no special build and no name spaces are needed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

NODES = ("node1", "node2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
_SBIN = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_CONFIGURATION = """
ClusterName=lrc
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SchedulerParameters=bf_interval=1,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdTimeout=300
KillWait=5
MinJobAge=600
JobRequeue=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=all Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
"""


def why_no_slurm() -> str:
    """Why Slurm cannot be started here, "" where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_SBIN) is None]
    if missing:
        return f"no {', '.join(missing)} on this machine (apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started by root"


class SlurmCluster:
    """A controller and two nodes of one CPU each.

    Args:
        folder: short, since the path of a socket is limited.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "PATH": _SBIN, "SLURM_CONF": str(folder / "slurm.conf")}

    @property
    def configuration(self) -> str:
        """For ``SLURM_CONF``."""
        return str(self.folder / "slurm.conf")

    def start(self) -> None:
        """Start all daemons."""
        (self.folder / "state").mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(256))
        key.chmod(0o400)
        words = {"folder": self.folder, "host": socket.gethostname(), "user": "root", "ports": _free_ports(3)}
        Path(self.configuration).write_text(_CONFIGURATION.format(**words))
        options = {"key-file": key, "socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log"}
        options |= {"seed-file": "munge.seed"}
        self._call("munged", "--force", *(f"--{name}={self.folder / value}" for name, value in options.items()))
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait_until(lambda: self.ask("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split() == list(NODES), "idle nodes")

    def start_controller(self) -> None:
        """As after a boot: it reads what it knew from the disk."""
        self._call("slurmctld")

    def stop_controller(self) -> None:
        """As a machine that is shut down: what it knows is on the disk. Killed, it would forget some seconds."""
        self._kill("slurmctld", signal.SIGTERM)

    def _is_on(self, process: psutil.Process, name: str) -> bool:
        with suppress(psutil.Error):
            found = process.environ()
            return (found.get("SLURM_CONF"), found.get("SLURMD_NODENAME")) == (self.configuration, name)
        return False

    def start_node(self, name: str) -> None:
        """Start a node's daemon."""
        self._call("slurmd", "-N", name)

    def lose_node(self, name: str) -> None:
        """Kill a node with everything on it, and let the controller know at once what it would find out in minutes."""
        self._kill(f"slurmd-{name}")
        jobs = [process for process in psutil.process_iter() if self._is_on(process, name)]
        for process in (*filter(None, (job.parent() for job in jobs)), *jobs):
            if process.name() == "slurmstepd" or process in jobs:  # the former first: it would tell of their end
                with suppress(psutil.Error):
                    process.kill()
        self.ask("scontrol", "update", f"nodename={name}", "state=down", "reason=lost")

    def ask(self, *words: str) -> str:
        """What a command of Slurm says."""
        return subprocess.run(words, env=self._environment, capture_output=True, text=True, check=True).stdout

    def stop(self) -> None:
        """End everything."""
        with suppress(subprocess.SubprocessError):
            self.ask("scancel", "--user=root", "--state=pending,running")
            time.sleep(0.2)
        for name in ("slurmctld", *(f"slurmd-{node}" for node in NODES)):
            self._kill(name)
        for process in psutil.process_iter():  # steps outlive their daemons, to tell of their end
            with suppress(psutil.Error):
                if process.environ().get("SLURM_CONF") == self.configuration:
                    process.kill()
        self._kill("munged")

    def _call(self, *words: str) -> None:
        subprocess.run(words, env=self._environment, check=True, capture_output=True)

    def _kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        file = self.folder / f"{name}.pid"
        with suppress(OSError, ValueError):
            pid = int(file.read_text())
            os.kill(pid, number)
            wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", f"{name} gone")
            file.unlink()


def wait_until(condition: object, what: str, seconds: float = 60.0) -> None:
    """Poll until the condition holds; what it raises counts as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(subprocess.SubprocessError, psutil.Error):
            if condition():  # type: ignore[operator]
                return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def add_ray_node(cluster: Any, **more: Any) -> None:
    """Start a node process of one CPU."""
    cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, **more)


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Two node processes of one CPU each; None where Ray's agents do not start in the 15 s that it gives them."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        try:
            add_ray_node(cluster, include_dashboard=False)
            add_ray_node(cluster)
        except Exception as error:  # of no type of its own
            if "timed out" not in str(error):
                raise
            yield None
        else:
            yield cluster
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
