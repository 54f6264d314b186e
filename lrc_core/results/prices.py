"""What a job will take, from what like ones took: on this computer, else where the samples were made. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from lrc_core import words
from lrc_core.registry import ALLOCATORS
from lrc_core.results.archive import AnyRun, archive
from lrc_core.results.outcomes import read_result
from lrc_core.runs.spec import (
    AllocateSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    ModelRef,
    Spec,
    SpectraSpec,
    UpdateSpec,
)
from lrc_core.updates import NO_UPDATE

_QUESTION = 150
"""Tokens that a zero-shot question takes with all its answers, about."""
_SPARE = 1.4
"""How far a run strays from another one of the same work, from what else the computer does."""
_NEWEST = 5


@dataclass(frozen=True)
class Price:
    """How long a job will take.

    Attributes:
        low: seconds, at least about.
        high: seconds, at most about.
        runs: how many runs it is taken from.
        here: whether they ran on this computer.
    """

    low: float
    high: float
    runs: int
    here: bool

    def __add__(self, other: Price) -> Price:
        return Price(self.low + other.low, self.high + other.high, min(self.runs, other.runs), self.here and other.here)

    def times(self, count: int) -> Price:
        """The price of so many of it."""
        return Price(count * self.low, count * self.high, self.runs, self.here)

    @property
    def said(self) -> str:
        """``4 to 9 min on this computer, by 3 runs``."""
        basis = f"on this computer, from {self.runs} run{'s' if self.runs > 1 else ''}"
        if not self.here:
            basis = "where the samples were made; not yet done on this computer"
        return f"{span(self.low, self.high)} {basis}"


def span(low: float, high: float) -> str:
    """``40 to 90 s``, ``4 to 9 min``, ``2 to 5 h``."""
    for size, unit in ((5400.0, "h"), (100.0, "min"), (0.0, "s")):
        if high >= size:
            scale = {"h": 3600.0, "min": 60.0, "s": 1.0}[unit]
            first, last = (words.significant(max(value, scale / 10) / scale, 1 if value < 10 * scale else 2)
                           for value in (low, high))  # fmt: skip
            return f"about {last} {unit}" if first == last else f"{first} to {last} {unit}"
    return ""


def price(spec: Spec) -> Price | None:
    """What a job will take; None where no like job has been done anywhere."""
    if isinstance(spec, EvaluateSpec):
        return _measuring(spec.model, spec.evaluation)
    if isinstance(spec, AllocateSpec):
        return _allocating(spec.model, spec.method, spec.preset, spec.calibration)
    if isinstance(spec, UpdateSpec):
        return _updating(spec.model, str(spec.settings.get("kind", "")))
    if isinstance(spec, SpectraSpec):
        return _from(SpectraSpec, spec.model, lambda other: other.stream == spec.stream, lambda other: 1.0)
    return _comparing(spec) if isinstance(spec, CompareSpec) else None


def _comparing(spec: CompareSpec) -> Price | None:
    """Every method learns once for all sizes; every plan is updated, and measured as the dense model and formats are.

    None where any part of it has never been done.
    """
    methods, updated = list(spec.methods), [name for name in spec.methods if not ALLOCATORS.get(name).structured]
    found = [_allocating(spec.model, name, spec.presets.get(name, ""), spec.calibration) for name in methods]
    for kind in spec.update.split("+") if spec.update != NO_UPDATE and updated else ():
        one = _updating(spec.model, kind)
        found.append(one and one.times(len(updated) * len(spec.keeps)))
    measured = _measuring(spec.model, spec.evaluation)
    found.append(measured and measured.times(1 + len(spec.formats) + len(methods) * len(spec.keeps)))
    known = [part for part in found if part is not None]
    return reduce(add, known) if len(known) == len(found) else None


def _allocating(ref: ModelRef, method: str, preset: str, calibration: CalibrationSpec) -> Price | None:
    def alike(other: Any) -> bool:
        return bool(other.method == method and (not preset or other.preset == preset))

    wanted = _tokens(calibration)
    return _from(AllocateSpec, ref, alike, lambda other: wanted / _tokens(other.calibration))


def _updating(ref: ModelRef, kind: str) -> Price | None:
    return _from(UpdateSpec, ref, lambda other: bool(other.settings.get("kind") == kind), lambda other: 1.0)


def _tokens(calibration: CalibrationSpec) -> int:
    return calibration.windows * calibration.window


def _measuring(ref: ModelRef, evaluation: EvaluationSpec) -> Price | None:
    wanted = work(evaluation)
    if not wanted:
        return None
    return _from(EvaluateSpec, ref, lambda other: bool(work(other.evaluation)),
                 lambda other: wanted / (work(other.evaluation) or 1))  # fmt: skip


def work(evaluation: EvaluationSpec) -> int:
    """Tokens that are scored, about; 0 where it is not known, as of whole texts."""
    if (evaluation.texts and not evaluation.max_windows) or (evaluation.tasks and not evaluation.items):
        return 0
    windows = len(evaluation.texts) * evaluation.max_windows * evaluation.window
    return windows + len(evaluation.tasks) * evaluation.items * _QUESTION


def _from(kind: type[Any], ref: ModelRef, alike: Callable[[Any], bool], share: Callable[[Any], float]) -> Price | None:
    """From the newest like runs: of this computer where there are any, else of the samples."""
    views = [view for view in archive().runs(kind, ref) if view.done and alike(view.spec)]
    for here in (True, False):
        took = list(_seconds((view for view in views if view.sample != here), share))[:_NEWEST]
        if took:
            return Price(min(took) / _SPARE, max(took) * _SPARE, len(took), here)
    return None


def _seconds(views: Iterable[AnyRun], share: Callable[[Any], float]) -> Iterable[float]:
    for view in views:
        wall = read_result(view).get("wall_s")
        if isinstance(wall, int | float) and wall > 0:
            yield float(wall) * share(view.spec)
