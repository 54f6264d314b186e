"""The ``update`` job: the factors of any method's plan, fitted or trained; see lrc_core/updates.py."""

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
from lrc_core.calibrate.update_factors import UpdateCallbacks, updated_blocks
from lrc_core.decompose.blockfiles import BlockFiles
from lrc_core.decompose.update import named_factors
from lrc_core.files import write_tensors
from lrc_core.kinds.checks import needs_whole
from lrc_core.models.checks.fit import require_fit
from lrc_core.models.onload.residence import require_whole
from lrc_core.pipeline.session import Session, factors_of, write_card
from lrc_core.plan import Plan
from lrc_core.registry import DECOMPOSITIONS, load
from lrc_core.runs.spec import UpdateSpec
from lrc_core.runs.store import Run
from lrc_core.tune import tuner
from lrc_core.tune.blockwise import BlockwiseCallbacks, refined_blocks
from lrc_core.types import ModelCard
from lrc_core.updates import BOTH, UPDATES, AnyUpdate, UpdateSettings, update_settings

WEIGHTS = "weights.safetensors"
_FIGURES = "block"  # error before, error after, steps, whether the factors are other than before
Errors = tuple[float, float]
"""Of a layer's output before and after, nan where unknown."""


def update_run(run: Run, session: Session) -> dict[str, Any]:
    """``plan.json`` with the same ranks, and ``weights.safetensors`` with the factors that it names.

    Only the plan that was asked for is updated: plans that an allocation recorded on its way stay as they are, and are
    updated one by one where that is wanted. A plan without low-rank layers comes out as it went in.
    """
    spec = run.spec_as(UpdateSpec)
    result = write_card(run, session)
    plan = Plan.from_dict(dict(spec.plan))
    plan.check_model(session.loaded.card)
    settings = update_settings(spec.settings)
    if reason := needs_whole(spec):
        require_whole(session.loaded.model, reason)
    fit = load(UPDATES.get(settings.kind).stage)
    found = fit(run, session, plan, settings) if plan.ranks else FoundFactors({}, {"layers": 0})
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
class FoundFactors:
    """Weights of all low-rank layers, figures for the record, and what the user should know."""

    weights: Mapping[str, Tensor]
    details: Mapping[str, Any]
    warnings: Sequence[str] = ()


class _DoneBlocks(BlockFiles):
    """New factors of the blocks that are finished, so that a stopped run goes on in the one behind."""

    def keep(self, block: int, factors: Mapping[str, tuple[Tensor, Tensor]], figures: dict[str, Tensor]) -> None:
        tensors = figures
        for name, pair in factors.items():
            tensors = tensors | named_factors(name, *pair)
        self.write(block, tensors)

    def factors(self, name: str, block: int) -> tuple[Tensor, Tensor]:
        return self.read(block, f"{name}.left"), self.read(block, f"{name}.right")

    def weights(self, plan: Plan, card: ModelCard) -> dict[str, Tensor]:
        """Of all low-rank layers."""
        return {
            f"{layer.name}.{part}": self.read(layer.block, f"{layer.name}.{part}")
            for layer in card.layers
            if layer.name in plan.ranks
            for part in ("left", "right", "sigma")
        }


def _checkpoint(run: Run) -> Path:
    return run.path / "checkpoint" / "update"


def tuned_factors(run: Run, session: Session, plan: Plan, settings: Any) -> FoundFactors:
    """Trained by gradient steps, on other windows than ranks were learned from where the text has them."""
    spec, loaded = run.spec_as(UpdateSpec), session.loaded
    seed = spec.calibration.seed
    windows = session.fitting(spec.calibration, settings.documents + settings.check_windows, settings.window, seed + 2)
    answers = session.answers_to(windows, settings.batch, settings.check_windows)
    tuned = tuner.Tuner(
        loaded.model,
        plan,
        factors_of(session, plan, spec.plan_folder, spec.calibration, run.path.parent),
        windows,
        settings,
        tuner.TuningCallbacks(_checkpoint(run), session.on_progress, session.should_stop, answers),
        seed=seed,
    ).run()
    weights: dict[str, Tensor] = {}
    for name, factors in tuned.factors.items():
        weights |= named_factors(name, *factors)
    details = {
        "layers": len(tuned.factors) if tuned.helped else 0,
        "steps": len(tuned.losses),
        "loss_before": _figure(tuned.before),
        "loss_after": _figure(tuned.after),
    }
    warnings = ["Tuning did not lower the loss on text held back; factors stay as they were."]
    return FoundFactors(weights, details, [] if tuned.helped else warnings)


def refined_factors(run: Run, session: Session, plan: Plan, settings: Any) -> FoundFactors:
    """Trained block by block; see :mod:`lrc_core.tune.blockwise`. Each is stored when it is finished, as below."""
    spec = run.spec_as(UpdateSpec)
    seed, done = spec.calibration.seed, _DoneBlocks(_checkpoint(run))
    windows = session.fitting(spec.calibration, settings.documents + settings.check_windows, settings.window, seed + 2)
    blocks = {layer.block for layer in session.loaded.card.layers if layer.name in plan.ranks}
    watch = BlockwiseCallbacks(
        done.folder,
        finished=[block for block in blocks if done.has_block(block)],
        known=done.factors,
        on_progress=session.on_progress,
        should_stop=session.should_stop,
    )
    source = factors_of(session, plan, spec.plan_folder, spec.calibration, run.path.parent)
    for block, found in refined_blocks(session.loaded.model, plan, source, windows, settings, watch, seed=seed):
        figures = [found.before, found.after, len(found.losses), found.helped]
        done.keep(block, found.factors, {_FIGURES: torch.tensor(figures, dtype=torch.float64)})
    details = _refinement(plan, session.loaded.card, done)
    warnings = ["Refinement brought no block's output nearer on text held back; factors stay as they were."]
    return FoundFactors(done.weights(plan, session.loaded.card), details, [] if details["blocks"] else warnings)


def _refinement(plan: Plan, card: ModelCard, done: BlockFiles) -> dict[str, Any]:
    """Errors of the blocks' outputs as shares of what the dense ones hold, and what was done for it."""
    layers = [layer.block for layer in card.layers if layer.name in plan.ranks]
    figures = {block: done.read(block, _FIGURES).tolist() for block in set(layers)}
    before, after, steps, _ = (sum(column) for column in zip(*figures.values(), strict=True))
    return {
        "layers": sum(bool(figures[block][3]) for block in layers),
        "blocks": sum(bool(found[3]) for found in figures.values()),
        "steps": int(steps),
        "mean_error_before": before / len(figures),
        "mean_error_after": after / len(figures),
    }


def _figure(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(value) else round(value, 6)


def fitted_factors(run: Run, session: Session, plan: Plan, settings: Any) -> FoundFactors:
    """Fitted in closed form to what their layers really get."""
    done = _DoneBlocks(_checkpoint(run))
    _update_blocks(run, session, plan, settings, done)
    card, errors = session.loaded.card, {}
    for layer in card.layers:
        if layer.name in plan.ranks:
            before, after = done.read(layer.block, f"{layer.name}.errors").tolist()
            errors[layer.name] = (before, after)
    return FoundFactors(done.weights(plan, card), _details(errors), _warnings(errors))


def _update_blocks(run: Run, session: Session, plan: Plan, settings: UpdateSettings, done: _DoneBlocks) -> None:
    """Update block by block; each is stored when it is finished, so that a stopped run goes on behind it."""
    spec, loaded = run.spec_as(UpdateSpec), session.loaded
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
        known=done.factors,
        on_progress=session.on_progress,
        should_stop=session.should_stop,
    )
    if settings.kind == BOTH.name:
        roots = output_roots(calibrated, entry, entry.settings(), session.on_progress, session.should_stop)
        watch = replace(watch, output_root=roots)
    for block, found in updated_blocks(loaded.model, plan, source, windows, settings, watch):
        factors = {name: (update.left, update.right) for name, update in found.items()}
        errors = {f"{name}.errors": torch.tensor([update.before, update.after]) for name, update in found.items()}
        done.keep(block, factors, errors)


def _origin(run: Run, plan: Plan, settings: AnyUpdate) -> dict[str, Any]:
    """Where the plan came from, this run in front of the one that allocated it."""
    origin = dict(plan.origin)
    allocated = origin.get("allocate_run_id", origin.get("run_id"))
    origin.pop("update_before", None)
    goes_on = UPDATES.get(settings.kind).trains and plan.update not in ("", settings.kind)
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
