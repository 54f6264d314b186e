"""What a bench is made of: its allocations at every target, and what each plan is measured on. No torch.

The bench's own job does them one after the other; a sweep sends them to many machines. Both make the same specs, so
that their runs are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lrc_core.budget import same_size
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS, MethodEntry
from lrc_core.runs.spec import AblationSpec, AllocateSpec, CalibrationSpec, EvaluationSpec, QualitySpec
from lrc_core.types import Storage
from lrc_core.updates import NO_UPDATE, update_words


@dataclass(frozen=True)
class BenchLine:
    """Allocations that differ in nothing but their target.

    Attributes:
        base: the allocation at any target.
        label: what progress calls it.
        columns: put into every row.
        update: what is done to the factors of every plan before it is measured.
    """

    base: AllocateSpec
    label: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    update: str = NO_UPDATE


def quality_lines(spec: QualitySpec) -> list[BenchLine]:
    """Every method with every seed, storage, decomposition and update; what prunes structure once for every seed."""
    return [
        _method_line(spec, ALLOCATORS.get(method), decomposition, seed, update, storage)
        for seed in spec.seeds
        for storage in spec.storages
        for decomposition in spec.decompositions
        for method in spec.methods
        for update in spec.updates
        if not ALLOCATORS.get(method).structured
        or (decomposition, update, storage) == (spec.decompositions[0], spec.updates[0], spec.storages[0])
    ]


def evaluation_at(spec: QualitySpec | AblationSpec, keep: float | None) -> EvaluationSpec:
    """What is measured at a target (None: of a dense model); without tasks nothing about tasks tells runs apart."""
    if spec.evaluation.tasks and (
        any(same_size(keep, other) for other in spec.task_keeps) if keep is not None else spec.task_keeps
    ):
        return spec.evaluation
    return replace(spec.evaluation, tasks=(), items=EvaluationSpec.items, include_path="")


def preset_of(spec: QualitySpec | AblationSpec, method: str) -> str:
    """The preset of a method: the one named, else its first."""
    return spec.presets.get(method, next(iter(ALLOCATORS.get(method).presets)))


def line_base(
    spec: QualitySpec | AblationSpec,
    entry: MethodEntry,
    preset: str,
    decomposition: str,
    seed: int,
    overrides: Mapping[str, Any] | None = None,
) -> AllocateSpec:
    """The allocation of a line; the same spec as a comparison or `lrc allocate` makes, so that runs are shared."""
    calibration: CalibrationSpec = replace(spec.calibration, seed=seed)
    settings = asdict(entry.settings(preset, overrides))
    changed = settings != asdict(entry.settings(preset))
    return AllocateSpec(
        model=spec.model,
        method=entry.name,
        decomposition=decomposition,
        preset=preset if not changed else "",
        settings=settings,
        calibration=calibration,
        seed=seed,
    )


def _method_line(
    spec: QualitySpec, entry: MethodEntry, decomposition: str, seed: int, update: str, storage: Storage
) -> BenchLine:
    """A method under a decomposition and a storage law, with an update; what prunes structure knows none of them."""
    base = line_base(spec, entry, preset_of(spec, entry.name), decomposition, seed)
    if entry.structured:
        return BenchLine(base, _label(spec, entry, "", seed), {"decomposition": ""})
    base = replace(base, storage=storage)
    changed = update_words(update.removeprefix(NO_UPDATE), storage)
    return BenchLine(base, _label(spec, entry, decomposition, seed) + changed, update=update)


def _label(spec: QualitySpec, entry: MethodEntry, decomposition: str, seed: int) -> str:
    words = [entry.label]
    if decomposition and len(spec.decompositions) > 1:
        words.append(DECOMPOSITIONS.get(decomposition).label)
    if len(spec.seeds) > 1:
        words.append(f"seed {seed}")
    return ", ".join(words)
