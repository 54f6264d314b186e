"""The model that a job holds, and what every stage needs of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lrc_core.calibrate.factor_model import Calibrated, factors
from lrc_core.calibrate.generated import Wanted, generated_windows
from lrc_core.decompose.factorise import Factors
from lrc_core.decompose.store import FactorStore
from lrc_core.errors import PlanError, ResourceError
from lrc_core.lowrank.apply import FactorSource, PlanWeights
from lrc_core.models.load import LoadedModel, load_model
from lrc_core.models.resources import own_peak_memory
from lrc_core.paths import cache_home
from lrc_core.plan import Plan
from lrc_core.registry import DECOMPOSITIONS
from lrc_core.runs.files import disk_errors
from lrc_core.runs.spec import GENERATED, CalibrationSpec, ModelRef
from lrc_core.runs.store import Run
from lrc_core.texts import mixed_windows
from lrc_core.types import OnProgress, ShouldStop


@dataclass
class Session:
    """One model in memory, with the callbacks of the job that holds it.

    Attributes:
        ref: the model as the user names it.
        on_progress: told at every step.
        should_stop: asked at every step.
        stores: decompositions that were asked for: finding one means reading its whole calibration text.
    """

    ref: ModelRef
    on_progress: OnProgress
    should_stop: ShouldStop
    stores: dict[tuple[str, CalibrationSpec], FactorStore] = field(default_factory=dict)

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model, loaded when first needed."""
        return load_model(self.ref, on_progress=self.on_progress, should_stop=self.should_stop)

    def watched_by(self, on_progress: OnProgress, should_stop: ShouldStop) -> Session:
        """The same model for another job's callbacks."""
        other = replace(self, on_progress=on_progress, should_stop=should_stop)
        other.__dict__["loaded"] = self.loaded
        return other

    def calibrated(self, spec: CalibrationSpec) -> Calibrated:
        """The model with the text its statistics come from; only calibration parts of built-in texts are read."""
        loaded = self.loaded
        windows = self.windows(spec, spec.windows, spec.window, spec.seed)
        return Calibrated(loaded.model, loaded.card.layers, loaded.card.identity.fingerprint, windows, cache_home())

    def windows(self, spec: CalibrationSpec, count: int, window: int, seed: int, part: str = "calibrate") -> Tensor:
        """[n, window] token ids of the calibration text, or of another part of it."""
        return mixed_windows(
            spec.texts,
            self.loaded.tokenizer,
            part=part,
            window=window,
            count=count,
            seed=seed,
            made={GENERATED: self._generated},
        )

    def _generated(self, count: int, window: int, seed: int) -> Tensor:
        """[count, window] token ids that the dense model itself wrote; kept in the cache."""
        loaded = self.loaded
        return generated_windows(
            loaded.model,
            loaded.tokenizer,
            Wanted(count, window, seed),
            cache_home() / "generated" / loaded.card.identity.fingerprint[:20],
            on_progress=self.on_progress,
            should_stop=self.should_stop,
        )


def write_card(run: Run, session: Session) -> dict[str, Any]:
    """Load the model and leave its card in the folder."""
    card = session.loaded.card.to_dict()
    write_json(run.path / "card.json", card)
    return {"card": card, "warnings": list(session.loaded.warnings)}


def factors_for(session: Session, decomposition: str, spec: CalibrationSpec) -> FactorStore:
    """Factors of the session's model under a decomposition, computed when they are not in the cache."""
    known = session.stores.get((decomposition, spec))
    if known is None or not known.complete:  # the cache may have been cleaned meanwhile
        entry = DECOMPOSITIONS.get(decomposition)
        known = factors(session.calibrated(spec), entry, entry.settings(), session.on_progress, session.should_stop)
        session.stores[decomposition, spec] = known
    return known


def factors_of(session: Session, plan: Plan, folder: str, spec: CalibrationSpec, runs: Path) -> FactorSource:
    """Factors of a plan: those that it brings along, else those of its decomposition.

    Args:
        session: the model.
        plan: a plan of this model.
        folder: where its weights file lies, relative to ``runs`` or absolute.
        spec: the text that its decomposition comes from.
        runs: the folder of runs.

    Raises:
        PlanError: it prunes structure, or its weights cannot be read.
    """
    if plan.structure_file:
        raise PlanError(f"This plan prunes structure ({plan.structure_file}), which this version cannot apply.")
    rest = _WhenNeeded(session, plan.decomposition, spec)
    return PlanWeights(runs / folder / plan.weights_file, rest) if plan.weights_file else rest.store


class _WhenNeeded:
    """Factors of a decomposition that are not computed for a plan that brings all of its own."""

    def __init__(self, session: Session, decomposition: str, spec: CalibrationSpec) -> None:
        self._asked = session, decomposition, spec

    @cached_property
    def store(self) -> FactorStore:
        return factors_for(*self._asked)

    def factors(self, name: str, block: int) -> Factors:
        return self.store.factors(name, block)

    def sigma(self, name: str, block: int) -> Tensor:
        return self.store.sigma(name, block)


def write_json(path: Path, data: Any) -> None:
    """Write JSON in one step, so that a page never reads half a file."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")
    temporary.replace(path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file in one step.

    Raises:
        ResourceError: the disk is full.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with disk_errors(path):
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(temporary))
            temporary.replace(path)
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise ResourceError(f"Cannot write {path}: {error}.", "Free some disk space, then resume the run.") from error


def with_warnings(result: dict[str, Any], session: Session) -> dict[str, Any]:
    """A stage's result with what there is to know of the model it was computed from, and of the models of its rows."""
    loaded = vars(session).get("loaded")
    told = [
        *(loaded.warnings if loaded else ()),
        *(warning for row in result.get("rows", []) for warning in row.get("warnings", [])),
        *result.get("warnings", []),
    ]
    return {**result, "warnings": list(dict.fromkeys(told))} if told else result


def measured(stage: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a stage with its wall-clock time and its own peak of memory."""
    started = time.monotonic()
    with own_peak_memory() as peak:
        result = stage()
        reached = peak()
    wall = round(time.monotonic() - started, 2)
    return {**result, "wall_s": wall, "peak_memory_mb": round(reached / 2**20)}
