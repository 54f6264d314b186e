"""Which engine a profile names. No torch."""

from __future__ import annotations

from pathlib import Path

from lrc_core.jobs.engines.engine import Engine
from lrc_core.jobs.engines.local import LocalEngine
from lrc_core.jobs.engines.profile import RAY, SLURM, Profile
from lrc_core.jobs.engines.ray import RayEngine
from lrc_core.jobs.engines.slurm import SlurmEngine


def engine_of(profile: Profile, runs: Path) -> Engine:
    """The engine of a profile.

    Args:
        runs: the folder of runs, which its nodes see.
    """
    runs = runs.resolve()
    if profile.engine == SLURM:
        return SlurmEngine(profile, runs)
    return RayEngine(profile, runs) if profile.engine == RAY else LocalEngine(runs)
