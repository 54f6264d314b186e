"""How jobs are sent to a cluster: a small TOML file. No torch."""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lrc_core.errors import RecordError, SettingsError
from lrc_core.kinds.words.flags import ENGINES
from lrc_core.paths import expanded
from lrc_core.records import Count, Label, Name, Place, Positive, typed

PROFILE_VARIABLE = "LRC_PROFILE"
LOCAL, SLURM, RAY = ENGINES


@dataclass(frozen=True)
class Profile:
    """What a job asks of an engine, and how the program starts on a node. Every key may be left out.

    Attributes:
        engine: ``local``, ``slurm`` or ``ray``; ``--on`` comes before it.
        runs: folder of run folders, which all nodes see under this name (``LRC_RUNS`` otherwise).
        cache: folder of the cache, likewise (``LRC_CACHE``); one that is not shared is computed on every node.
        partition: of Slurm.
        account: of Slurm.
        qos: of Slurm.
        gpus: for each job.
        cpus: for each job.
        memory_gb: for each job, 0 for what the cluster gives.
        minutes: time limit of a job, 0 for the partition's own; a job that reaches it goes on in another one.
        grace_s: seconds before the time limit at which a job is told to write its checkpoint.
        requeues: how often a job may go on after its time limit.
        python: of the nodes; by default the one that submits.
        container: words before it, such as ``apptainer exec --nv image.sif``.
        setup: shell lines before it, of Slurm's jobs.
        env: environment variables of the jobs. Not for secrets: they are kept in the run folders.
        slurm: further parameters of ``sbatch``, such as ``constraint``.
        address: of the Ray cluster, as ``ray.init`` takes it; by default ``RAY_ADDRESS``, else one on this machine.
    """

    engine: Name = LOCAL
    runs: Place = ""
    cache: Place = ""
    partition: Label = ""
    account: Label = ""
    qos: Label = ""
    gpus: Count = 0
    cpus: Positive = 1
    memory_gb: Count = 0
    minutes: Count = 0
    grace_s: Positive = 90
    requeues: Count = 100
    python: Place = ""
    container: Place = ""
    setup: tuple[Place, ...] = ()
    env: Mapping[str, Place] = field(default_factory=dict)
    slurm: Mapping[str, Any] = field(default_factory=dict)
    address: Place = ""

    def words(self, python: str) -> list[str]:
        """What starts Python on a node.

        Args:
            python: where the profile names none.
        """
        return [*shlex.split(self.container), self.python or python]


def read_toml(path: str) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        SettingsError: it is not there or no TOML.
    """
    try:
        return tomllib.loads(expanded(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML: {error}.") from error


def known_keys(data: Mapping[str, Any], record: type[Any], where: str) -> None:
    """Refuse keys that a record does not have.

    Raises:
        SettingsError: names the closest known one.
    """
    names = [known.name for known in fields(record)]
    for key in data:
        if key not in names:
            close = get_close_matches(key, names, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Known are {', '.join(names)}."
            raise SettingsError(f"{where} has an unknown key {key!r}.", hint)


def read_profile(path: str) -> Profile:
    """A profile from its file.

    Raises:
        SettingsError: naming the key.
    """
    data = read_toml(path)
    known_keys(data, Profile, f"The profile {path}")
    try:
        found = typed(Profile, data, f"The profile {path}", remedy="")
    except RecordError as error:
        raise SettingsError(error.message.replace(" is damaged", ""), "docs/cluster.md lists the keys.") from error
    if found.engine not in ENGINES:
        raise SettingsError(f"The profile {path} names the engine {found.engine!r}.", f"Choose {', '.join(ENGINES)}.")
    return found


def chosen_profile(on: str, path: str) -> Profile:
    """The profile of a command: its file or that of ``LRC_PROFILE``, with the engine that was named.

    Args:
        on: the engine, "" for the profile's own.
        path: the file, "" for none.
    """
    path = path or (os.environ.get(PROFILE_VARIABLE, "") if on != LOCAL else "")
    found = read_profile(path) if path else Profile()
    return Profile(**{**vars(found), "engine": on or found.engine})


def offer_profile(path: str) -> None:
    """Let everything that this process serves choose the cluster of a profile.

    Args:
        path: the file; "" for that of ``LRC_PROFILE``, if any.

    Raises:
        SettingsError: naming the file or the key.
    """
    if path := path or os.environ.get(PROFILE_VARIABLE, ""):
        use_folders(read_profile(path))
        os.environ[PROFILE_VARIABLE] = os.path.abspath(expanded(path))


def use_folders(profile: Profile) -> None:
    """Let this process, and what it starts, use the shared folders of a profile."""
    for name, place in (("LRC_RUNS", profile.runs), ("LRC_CACHE", profile.cache)):
        if place:
            os.environ[name] = str(Path(os.path.abspath(expanded(place))))
