"""Cells of a bench or comparison: plans that a training passed on its way, and specs that take a plan. No torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from lrc_core.budget import keep_at, same_size, whole_percent
from lrc_core.plan import Plan
from lrc_core.runs.integrity import unaltered
from lrc_core.runs.spec import AllocateSpec, CompareSpec, UpdateSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.updates import update_settings


def update_spec(path: Path, kind: str, like: AllocateSpec | CompareSpec, store: RunStore) -> UpdateSpec:
    """The update of a plan file, with that kind's own settings.

    Args:
        kind: see :data:`~lrc_core.updates.KINDS`.
        like: whose model and calibration text it has.
    """
    plan = Plan.load(unaltered(path))
    settings = asdict(update_settings({"kind": kind}))
    return UpdateSpec(like.model, plan.to_dict(), folder_of(plan, path, store), settings, like.calibration)


def recorded_plan(run: Run, keep: float) -> Path | None:
    """File of the plan that a learned run passed at that rate, if it is a whole percent and was passed."""
    percent = whole_percent(keep)
    if not same_size(keep, keep_at(percent)):
        return None
    path = run.path / "plans" / f"{percent:02d}.json"
    return path if path.exists() else None


def folder_of(plan: Plan, path: Path, store: RunStore) -> str:
    """The folder, relative to that of the runs, with the files of this plan file; "" where it has none."""
    return str(path.parent.relative_to(store.root)) if plan.files else ""
