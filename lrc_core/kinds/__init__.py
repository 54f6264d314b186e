"""The kinds of runs, one file each: title, command, checks before it is queued, and the stage that does it. No torch.

A new kind is a class in :mod:`lrc_core.runs.spec`, a file here that is named after it, its stage in the pipeline, and
whatever page starts it. The command line, the manager, the worker and the pages ask :data:`KINDS`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import get_args

from lrc_core.kinds import checks
from lrc_core.kinds.kind import Kind
from lrc_core.paths import require_cache, runs_home
from lrc_core.plan import Plan
from lrc_core.runs.spec import FetchSpec, Spec
from lrc_core.runs.store import RunStore

KINDS: dict[str, Kind] = {spec.kind: import_module(f"lrc_core.kinds.{spec.kind}").KIND for spec in get_args(Spec)}
"""Every kind by its name."""


def command_for(spec: Spec, store: RunStore | None = None) -> str:
    """The ``lrc ...`` line that submits this spec.

    Args:
        store: where a plan's run is looked up; the user's runs by default.
    """
    return KINDS[spec.kind].words_of(spec, store)


def check(spec: Spec, *, model_too: bool = True, runs: Path | None = None) -> None:
    """Refuse a job that cannot succeed, before it waits for its turn.

    Args:
        model_too: look at the model's headers as well.
        runs: the folder of runs, which plans name their files' folders relative to; the user's by default.

    Raises:
        LrcError: naming the value, file or model that is wrong.
    """
    kind = KINDS[spec.kind]
    runs = runs or runs_home()
    holders = [one for one in getattr(spec, "answers", None) or [spec] if getattr(one, "plan", None) is not None]
    plans = [Plan.from_dict(dict(holder.plan)) for holder in holders]
    for holder, plan in zip(holders, plans, strict=True):
        plan.require_files(holder.plan_folder, runs)
    kind.check(spec)
    if _computes_statistics(spec):
        require_cache()
    if hasattr(spec, "calibration"):
        checks.check_calibration(spec.calibration)
    if hasattr(spec, "evaluation"):
        checks.check_evaluation(spec.evaluation)
    if model_too:
        kind.check_models(spec)
        checks.check_plans_model(spec, plans, runs)


def _computes_statistics(spec: Spec) -> bool:
    """Whether moments, factors or probes are kept in the cache on the way."""
    if isinstance(spec, FetchSpec) or getattr(spec, "stream", False):
        return False
    holders = getattr(spec, "answers", None) or [spec]
    return any(getattr(holder, "plan", True) is not None for holder in holders)


def title_of(spec: Spec) -> str:
    """What a job does, in a few words: plain text, which may hold a prompt."""
    kind = KINDS[spec.kind]
    return kind.title(spec) or kind.label
