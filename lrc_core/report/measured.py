"""The rows of the runs that a report is about: as recorded, one per cell, tested, and the cells that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias, TypeGuard

from lrc_core.budget import size_key
from lrc_core.errors import RunError
from lrc_core.plan import split_variant
from lrc_core.quality.quantised import compresses
from lrc_core.quality.rows import Scores, baselines, completed, named
from lrc_core.quality.speeds import beside_its_dense
from lrc_core.registry import ALLOCATORS
from lrc_core.results.archive import Archive, same_model
from lrc_core.results.identity import measured_contents
from lrc_core.runs.spec import CompareSpec, EvaluateSpec, QualitySpec, Spec
from lrc_core.runs.store import Run

Row = dict[str, Any]
MeasuringSpec: TypeAlias = CompareSpec | QualitySpec | EvaluateSpec
"""What a run that measures was asked to do."""
Wanted: TypeAlias = tuple[str, str, float, int]
"""A cell that was asked for: method, decomposition, share to keep, seed."""
TESTED_AGAINST = ("uniform", "strs")
"""Methods that the rows of a comparison are tested against; a bench names its own."""
_FIGURES = ("perplexity", "zero_shot", "sample", "warnings")


def is_measuring(spec: Spec) -> TypeGuard[MeasuringSpec]:
    """Whether a report can be about such a run."""
    return isinstance(spec, CompareSpec | QualitySpec | EvaluateSpec)


def spec_of(run: Run) -> MeasuringSpec:
    """What a run that measures was asked to do."""
    spec = run.spec
    assert is_measuring(spec)
    return spec


def require_alike(first: Run, other: Run) -> None:
    """Refuse to set rows side by side that were measured on different things.

    Raises:
        RunError: names both runs and what differs.
    """
    one, another = spec_of(first), spec_of(other)
    apart = [
        thing
        for thing, differs in {
            "another model": not same_model(one.model, another.model),
            "other texts, windows or tasks": one.evaluation != another.evaluation,
            "other contents": measured_contents(one) != measured_contents(another),
        }.items()
        if differs
    ]
    if apart:
        raise RunError(
            f"Run {other.id} cannot stand beside {first.id}: it measured {apart[0]}.", "Make a report of each."
        )


def measured_rows(runs: Sequence[Run], found: Archive) -> tuple[Row, ...]:
    """Rows of all runs, least compression first; of a cell that several measured, the first run's.

    Raises:
        RunError: a run holds no rows.
    """
    cells: dict[tuple[Any, ...], Row] = {}
    for run in runs:
        seeds = _seeds(spec_of(run))
        for row in _recorded(run, found):
            if not compresses(row):  # the dense model, a number format, another model
                cells.setdefault((row["method"], row.get("name")), row)
                continue
            row.setdefault("seed", seeds[0])
            size = row.get("budget") or size_key(row["keep_target"])
            cell = (row["method"], row.get("decomposition"), size, row["seed"])
            cells.setdefault(cell, row)
    return tuple(sorted(cells.values(), key=lambda row: (compresses(row), -float(row["keep_target"]))))


def with_tests(runs: Sequence[Run], rows: Sequence[Row], scores: Scores) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    """What rows are tested against, and the rows with their tests; those of a bench were tested as they were then."""
    asked = (spec.baselines if isinstance(spec, QualitySpec) else TESTED_AGAINST for spec in map(spec_of, runs))
    parts = [split_variant(str(row["method"])) for row in rows]
    present = {method for method, update, _ in parts if not update}  # however it is stored
    names = tuple(name for name in dict.fromkeys(chain.from_iterable(asked)) if name in present)
    made = completed(rows, baselines(names), scores)
    return names, tuple(row if "paired" in row else new for row, new in zip(rows, made, strict=True))


def missing_cells(runs: Sequence[Run], rows: Sequence[Row]) -> tuple[Wanted, ...]:
    """Cells that comparisons and benches were asked for and that no run has measured."""
    have = {
        _cell(split_variant(str(row["method"]))[0], row.get("decomposition"), row["keep_target"], row["seed"])
        for row in rows
        if compresses(row)
    }
    wanted = (
        _cell(method, decomposition, keep, seed)
        for spec in map(spec_of, runs)
        if not isinstance(spec, EvaluateSpec)
        for keep in sorted(spec.keeps, reverse=True)
        for decomposition in (spec.decompositions if isinstance(spec, QualitySpec) else (spec.decomposition,))
        for method in spec.methods
        for seed in _seeds(spec)
    )
    return tuple(cell for cell in dict.fromkeys(wanted) if cell not in have)


def _cell(method: str, decomposition: Any, keep: float, seed: int) -> Wanted:
    """A method that prunes structure runs once, under no decomposition."""
    structured = method in ALLOCATORS and ALLOCATORS.get(method).structured
    return method, "" if structured else str(decomposition), size_key(keep), seed


def _seeds(spec: MeasuringSpec) -> tuple[int, ...]:
    """Seeds of the methods and their calibration windows."""
    if isinstance(spec, QualitySpec):
        return spec.seeds
    return (spec.seed if isinstance(spec, CompareSpec) else spec.calibration.seed,)


def _recorded(run: Run, found: Archive) -> list[Row]:
    result, spec = run.result() or {}, spec_of(run)
    content = [result] if isinstance(spec, EvaluateSpec) else result.get("rows") or ()
    rows = [dict(row) for row in content if isinstance(row, Mapping) and {"method", "keep_target"} <= row.keys()]
    if not rows:
        raise RunError(f"Run {run.id} holds no rows.", "Delete it and start it again.")
    if not isinstance(spec, QualitySpec):
        rows = [_as_recorded(dict(row), found) for row in beside_its_dense(rows)]
    for row in rows:
        row["method"] = named(row)
    return rows


def _as_recorded(row: Row, found: Archive) -> Row:
    """A row with the figures of the evaluation that it names, which may have been made again since it was copied."""
    view = found.open(str(row.get("run_id") or "-"), EvaluateSpec)
    result = view.run.result() if view is not None and view.done else None
    if not result or (result.get("method"), result.get("keep_target")) != (row["method"], row["keep_target"]):
        return row
    cost = result.get("cost") or {}
    if base := (row.get("cost") or {}).get("dense"):
        cost = {"dense": base, **cost}
    return {**row, **{name: result[name] for name in _FIGURES if name in result}, "cost": cost}
