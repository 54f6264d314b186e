"""``lrc calibrate``: what decompositions need to know of a text, into the cache where every later job finds it.

Started by torchrun, the processes share the windows, each with the model on a GPU of its own.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lrc_core.cli.output import answer, emit
from lrc_core.errors import SettingsError
from lrc_core.kinds import checks
from lrc_core.kinds.words.flags import add_model, calibration, flags, model_ref
from lrc_core.registry import DECOMPOSITIONS
from lrc_core.runs.spec import SpectraSpec
from lrc_core.runs.store import RunStore
from lrc_core.types import ignore_progress, never_stop

if TYPE_CHECKING:
    from lrc_core.calibrate.factor_model import Calibrated
    from lrc_core.calibrate.team import Team
    from lrc_core.pipeline.session import Session

_ASKED = SpectraSpec(decompositions=("kfac",))
_PARTS = (*flags(SpectraSpec, "decompositions"), *calibration(SpectraSpec, alone=True, seed="--seed"))


def add_calibrate_flags(parser: argparse.ArgumentParser) -> None:
    """The model, and the text as of `lrc spectra`."""
    add_model(parser)
    for part in _PARTS:
        part.add(parser, _ASKED)


def calibrate(arguments: argparse.Namespace) -> None:
    """``lrc calibrate``."""
    from lrc_core.calibrate.factor_model import moments, output_gradients
    from lrc_core.calibrate.team import started_by_torchrun
    from lrc_core.cli.follow import ProgressLine
    from lrc_core.pipeline.session import Session

    spec = SpectraSpec(model=model_ref(arguments), decompositions=_ASKED.decompositions)
    for part in _PARTS:
        spec = part.read(spec, arguments, RunStore())
    checks.check_decompositions(spec.decompositions)
    wanted = {DECOMPOSITIONS.get(name).statistics for name in spec.decompositions} - {"none"}
    if not wanted:
        raise SettingsError("The plain SVD needs no text.", "Name another decomposition: `lrc methods` lists them.")
    checks.check_model(spec.model, {"calibration window": spec.calibration.window})
    with started_by_torchrun() as team:
        line = ProgressLine()
        on_progress = line.on_progress if team.rank == 0 else ignore_progress
        calibrated = _same_for_all(Session(spec.model, on_progress, never_stop), spec, team)
        folders = [str(moments(calibrated, on_progress, never_stop, team).folder)]
        if "gradients" in wanted:
            folders.append(str(output_gradients(calibrated, on_progress, never_stop, team).folder))
        line.close()
        if team.rank == 0:
            found = {"processes": team.size, "windows": len(calibrated.windows), "folders": folders}
            answer(arguments, found, _print)


def _same_for_all(session: Session, spec: SpectraSpec, team: Team) -> Calibrated:
    """The model and its text in every process; the first reads alone, so that what has to be fetched comes once.

    Raises:
        SettingsError: the processes do not see the same.
    """
    for turn in (True, False):
        if (team.rank == 0) == turn:
            found = session.calibrated(spec.calibration)
        team.told(turn)
    if len(set(team.told(found.key()))) > 1:
        raise SettingsError(
            "The processes do not see the same model, text or version of the program.",
            "Give all computers the same files and the same environment.",
        )
    return found


def _print(found: dict[str, object]) -> None:
    by = f" by {found['processes']} processes" if found["processes"] != 1 else ""
    emit(f"Statistics of {found['windows']} windows, collected{by}; every later job on this model and text uses them.")
