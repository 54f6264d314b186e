"""A session's model as a plan makes it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lrc_core.budget import stored
from lrc_core.lowrank.apply import compressed
from lrc_core.lowrank.structure import read_structure, restructured
from lrc_core.models.onload.residence import require_whole, residence_of
from lrc_core.pipeline.session import Session, factors_of
from lrc_core.plan import Plan
from lrc_core.runs.spec import CalibrationSpec


def under_plan(
    session: Session, plan: Plan, folder: str, calibration: CalibrationSpec, runs: Path, *, packed: bool = False
) -> AbstractContextManager[Any]:
    """The session's model while a plan is on it: pruned, or with low-rank layers. As it was afterwards.

    Args:
        folder: where its weights or structure file lies, relative to ``runs`` or absolute.
        calibration: the text that its decomposition comes from.
        packed: layers in number formats remember the blocks that they are stored as.

    Raises:
        PlanError: the plan's files cannot be read, or do not fit.
    """
    model, layers = session.loaded.model, stored(session.loaded.card.layers, plan.storage)
    if plan.structure_file:
        require_whole(model, "A plan that prunes structure")
        path, digest = runs / folder / plan.structure_file, plan.digest(plan.structure_file)
        return restructured(model, *read_structure(path, layers, plan.pruned, digest))
    source = factors_of(session, plan, folder, calibration, runs)
    ranks, residence = plan.full_ranks(layers), residence_of(model)
    if residence is None:
        return compressed(model, layers, ranks, source, plan.kept, plan.formats, packed=packed)

    def on_block(index: int) -> AbstractContextManager[Any]:
        mine = [layer for layer in layers if layer.block == index]
        return compressed(model, mine, ranks, source, plan.kept, plan.formats, packed=packed)

    return residence.dressed(on_block)
