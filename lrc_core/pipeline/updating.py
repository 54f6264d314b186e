"""The ``update`` job: the factors of any method's plan, fitted or trained; see lrc_core/tune/kinds.py."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrc_core.calibrate.factor_model import output_roots
from lrc_core.calibrate.update_factors import LayerUpdate, UpdateCallbacks, updated_blocks
from lrc_core.calibrate.update_settings import UpdateSettings
from lrc_core.decompose.blockfiles import BlockFiles
from lrc_core.decompose.update import component_sizes
from lrc_core.files import write_tensors
from lrc_core.kinds.checks import needs_whole
from lrc_core.models.checks.fit import require_fit
from lrc_core.models.onload.residence import require_whole
from lrc_core.pipeline.refining import refined
from lrc_core.pipeline.session import Session, factors_of, write_card
from lrc_core.plan import Plan
from lrc_core.registry import DECOMPOSITIONS
from lrc_core.runs.spec import UpdateSpec
from lrc_core.runs.store import Run
from lrc_core.tune import tuner
from lrc_core.tune.kinds import CLOSED_FORMS, AnyUpdate, update_settings
from lrc_core.tune.settings import BLOCKWISE, TUNED
from lrc_core.types import ModelCard

WEIGHTS = "weights.safetensors"
Errors = tuple[float, float]
"""Of a layer's output before and after, nan where unknown."""


def update_run(run: Run, session: Session) -> dict[str, Any]:
    """``plan.json`` with the same ranks, and ``weights.safetensors`` with the factors that it names.

    Only the plan that was asked for is updated: plans that an allocation recorded on its way stay as they are, and are
    updated one by one where that is wanted. A plan without low-rank layers comes out as it went in.
    """
    spec = run.spec
    assert isinstance(spec, UpdateSpec)
    result = write_card(run, session)
    plan = Plan.from_dict(dict(spec.plan))
    plan.check_model(session.loaded.card)
    settings = update_settings(spec.settings)
    if reason := needs_whole(spec):
        require_whole(session.loaded.model, reason)
    fit = {TUNED: _tuned, BLOCKWISE: _refined}.get(settings.kind, _fitted)
    found = fit(run, session, plan, settings) if plan.ranks else _Found({}, {"layers": 0})
    if found.weights:
        write_tensors(run.path / WEIGHTS, found.weights)
    updated = replace(
        plan,
        kept=None if found.weights else plan.kept,
        weights_file=WEIGHTS if found.weights else plan.weights_file,
        origin=_origin(run, plan, settings),
    )
    updated = updated.with_digests(run.path) if found.weights else updated
    updated.save(run.path / "plan.json")
    shutil.rmtree(_checkpoint(run), ignore_errors=True)
    return {
        **result,
        "warnings": [*result["warnings"], *found.warnings],
        "plan": updated.to_dict(),
        "recorded": [],
        "details": found.details,
    }


@dataclass(frozen=True)
class _Found:
    """Weights of all low-rank layers, figures for the record, and what the user should know."""

    weights: Mapping[str, Tensor]
    details: Mapping[str, Any]
    warnings: Sequence[str] = ()


def _checkpoint(run: Run) -> Path:
    return run.path / "checkpoint" / "update"


def _tuned(run: Run, session: Session, plan: Plan, settings: Any) -> _Found:
    """Trained by gradient steps, on other windows than ranks were learned from where the text has them."""
    spec, loaded = run.spec, session.loaded
    assert isinstance(spec, UpdateSpec)
    seed = spec.calibration.seed
    windows = session.fitting(spec.calibration, settings.documents + settings.check_windows, settings.window, seed + 2)
    tuned = tuner.Tuner(
        loaded.model,
        plan,
        factors_of(session, plan, spec.plan_folder, spec.calibration, run.path.parent),
        windows,
        settings,
        tuner.TuningCallbacks(_checkpoint(run), session.on_progress, session.should_stop),
        seed=seed,
    ).run()
    weights: dict[str, Tensor] = {}
    for name, (left, right) in tuned.factors.items():
        sizes = component_sizes(left, right)
        weights |= {f"{name}.left": left, f"{name}.right": right, f"{name}.sigma": sizes}
    details = {
        "layers": len(tuned.factors) if tuned.helped else 0,
        "steps": len(tuned.losses),
        "loss_before": _figure(tuned.before),
        "loss_after": _figure(tuned.after),
    }
    warnings = ["Tuning did not lower the loss on text held back; factors stay as they were."]
    return _Found(weights, details, [] if tuned.helped else warnings)


def _refined(run: Run, session: Session, plan: Plan, settings: Any) -> _Found:
    """Trained block by block."""
    weights, details = refined(run, session, plan, settings, _checkpoint(run))
    warnings = ["Refinement brought no block's output nearer on text held back; factors stay as they were."]
    return _Found(weights, details, [] if details["blocks"] else warnings)


def _figure(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(value) else round(value, 6)


def _fitted(run: Run, session: Session, plan: Plan, settings: Any) -> _Found:
    """Fitted in closed form to what their layers really get."""
    done = BlockFiles(_checkpoint(run))
    _update_blocks(run, session, plan, settings, done)
    weights, errors = _collected(plan, session.loaded.card, done)
    return _Found(weights, _details(errors), _warnings(errors))


def _update_blocks(run: Run, session: Session, plan: Plan, settings: UpdateSettings, done: BlockFiles) -> None:
    """Update block by block; each is stored when it is finished, so that a stopped run goes on behind it."""
    spec, loaded = run.spec, session.loaded
    assert isinstance(spec, UpdateSpec)
    calibration = spec.calibration
    source = factors_of(session, plan, spec.plan_folder, calibration, run.path.parent)
    calibrated = session.calibrated(calibration)
    windows = calibrated.windows
    if 0 < settings.use_windows < len(windows):
        windows = session.windows(calibration, settings.use_windows, calibration.window, calibration.seed)
    require_fit(loaded.model, windows)
    entry = DECOMPOSITIONS.get(plan.decomposition)
    watch = UpdateCallbacks(
        finished=[layer.block for layer in loaded.card.layers if done.has_block(layer.block)],
        known=lambda name, block: (done.read(block, f"{name}.left"), done.read(block, f"{name}.right")),
        on_progress=session.on_progress,
        should_stop=session.should_stop,
    )
    if settings.kind == "both":
        roots = output_roots(calibrated, entry, entry.settings(), session.on_progress, session.should_stop)
        watch = replace(watch, output_root=roots)
    for block, found in updated_blocks(loaded.model, plan, source, windows, settings, watch):
        done.write(block, _tensors(found))


def _tensors(found: Mapping[str, LayerUpdate]) -> dict[str, Tensor]:
    tensors = {}
    for name, update in found.items():
        tensors[f"{name}.left"], tensors[f"{name}.right"] = update.left, update.right
        tensors[f"{name}.sigma"] = component_sizes(update.left.cpu(), update.right.cpu())
        tensors[f"{name}.errors"] = torch.tensor([update.before, update.after])
    return tensors


def _collected(plan: Plan, card: ModelCard, done: BlockFiles) -> tuple[dict[str, Tensor], dict[str, Errors]]:
    """Weights of all low-rank layers, and their errors before and after."""
    weights: dict[str, Tensor] = {}
    errors = {}
    for layer in card.layers:
        if layer.name in plan.ranks:
            for part in ("left", "right", "sigma"):
                weights[f"{layer.name}.{part}"] = done.read(layer.block, f"{layer.name}.{part}")
            before, after = done.read(layer.block, f"{layer.name}.errors").tolist()
            errors[layer.name] = (before, after)
    return weights, errors


def _origin(run: Run, plan: Plan, settings: AnyUpdate) -> dict[str, Any]:
    """Where the plan came from, this run in front of the one that allocated it."""
    origin = dict(plan.origin)
    allocated = origin.get("allocate_run_id", origin.get("run_id"))
    origin.pop("update_before", None)
    goes_on = plan.update and settings.kind not in (*CLOSED_FORMS, plan.update)  # what trains keeps what it is given
    before = {"update_before": plan.update} if goes_on else {}
    return {**origin, "run_id": run.id, "allocate_run_id": allocated, **before, "update": asdict(settings)}


def _warnings(errors: Mapping[str, Errors]) -> list[str]:
    skipped = [name for name, (before, _) in errors.items() if math.isnan(before)]
    if not skipped:
        return []
    return [f"{len(skipped)} layers do not see every token and kept their factors, {skipped[0]} for one."]


def _details(errors: Mapping[str, Errors]) -> dict[str, Any]:
    """Figures of the update: errors of the layers' outputs, as shares of what they should put out."""
    known = [(before, after) for before, after in errors.values() if not math.isnan(before)]
    if not known:
        return {"layers": 0}
    return {
        "layers": sum(after < before for before, after in known),
        "mean_error_before": sum(before for before, _ in known) / len(known),
        "mean_error_after": sum(after for _, after in known) / len(known),
    }
