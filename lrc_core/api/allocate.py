"""``allocate``: a method chooses the rank of every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lrc_core.api.load import NamedModel
from lrc_core.api.parts import calibration_spec
from lrc_core.api.plan import ChosenPlan
from lrc_core.errors import SettingsError
from lrc_core.plan import DEFAULT_STORAGE, Plan
from lrc_core.registry import ALLOCATORS
from lrc_core.results.archive import AnyRun, card_of
from lrc_core.results.plans import find_plan
from lrc_core.runs.spec import STORAGES, AllocateSpec, CalibrationSpec, UpdateSpec
from lrc_core.runs.store import RunStore
from lrc_core.types import Storage
from lrc_core.updates import update_settings


def allocate(  # noqa: PLR0913 - each is a setting of its own
    model: NamedModel, method: str = "llrc", keep: float = 0.8, *, decomposition: str = "whitened",
    preset: str = "", settings: Mapping[str, Any] | None = None, storage: Storage = DEFAULT_STORAGE, update: str = "",
    calibration: Mapping[str, Any] | None = None, seed: int = 0,
) -> ChosenPlan:  # fmt: skip
    """Choose the rank of every layer, so that a share of the parameters is kept and as little as possible is lost.

    Args:
        model: see :func:`~lrc_core.api.load.load`.
        method: as ``lrc methods`` lists them.
        keep: share of the block linears' parameters to keep, above 0 and at most 1.
        decomposition: what the factors are of: ``svd``, ``asvd``, ``whitened``, ``kfac``.
        preset: named settings of the method; its first one by default.
        settings: single settings over the preset.
        storage: how layers of low rank are stored: ``pair`` (two factors) or ``pivoted`` (rows and coefficients).
        update: what is done to the factors afterwards: ``left``, ``both``, ``tuned``; nothing by default.
        calibration: ``texts``, ``windows``, ``window`` (tokens), ``seed``.
        seed: of the method and its calibration.

    Returns:
        The plan of the finished run.

    Raises:
        UnknownNameError: no such method, decomposition or preset; with the closest names.
        SettingsError: a setting does not fit.
        BudgetError: the model cannot be made that small.
        LrcError: the run failed; in its words.
    """
    if storage not in STORAGES:
        raise SettingsError(f"There is no storage {storage!r}.", f"Choose one of {', '.join(STORAGES)}.")
    entry = ALLOCATORS.get(method)
    preset = preset or next(iter(entry.presets), "")
    text = calibration_spec(calibration or {}, seed)
    spec = AllocateSpec(
        model.ref, method, decomposition, keep, preset, asdict(entry.settings(preset or None, dict(settings or {}))),
        text, seed=seed, storage=entry.storage(storage),
    )  # fmt: skip
    chosen = chosen_by(model.work.done(spec))
    return _updated(model, chosen, update) if update else chosen


def chosen_by(view: AnyRun) -> ChosenPlan:
    """The plan of a finished run that allocates or updates."""
    assert isinstance(view.spec, AllocateSpec | UpdateSpec)
    found = find_plan(view.id, RunStore())
    calibration = found.calibration or CalibrationSpec()
    return ChosenPlan(Plan.from_dict(found.plan), card_of(view), found.folder, calibration, view.run)


def _updated(model: NamedModel, chosen: ChosenPlan, update: str) -> ChosenPlan:
    settings = asdict(update_settings({"kind": update}))
    plan = chosen.plan.to_dict()
    return chosen_by(model.work.done(UpdateSpec(model.ref, plan, chosen.folder, settings, chosen.calibration)))
