"""Rows of finished measurements, grouped so that only what was measured alike stands side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from lrc_core import words
from lrc_core.budget import removed_share, same_percent, same_size, size_key
from lrc_core.errors import LrcError
from lrc_core.formats.grids import QUANTISED
from lrc_core.names import method_label
from lrc_core.plan import Plan, split_variant
from lrc_core.quality.quantised import at_rate, compresses, share_of
from lrc_core.quality.rows import dense_row, mean_loss, named
from lrc_core.quality.speeds import beside_its_dense, flat_cost
from lrc_core.quality.variants import MIX
from lrc_core.registry import ALLOCATORS
from lrc_core.results.archive import AnyRun, RunView, Stamp, archive, recorded_rows, stamp_of
from lrc_core.results.identity import changed, measured_contents
from lrc_core.results.plans import load_plan, nearest, recorded_plans
from lrc_core.runs.run import Run
from lrc_core.runs.spec import (
    AblationSpec,
    AllocateSpec,
    CalibrationSpec,
    CompareSpec,
    EvaluateSpec,
    EvaluationSpec,
    ModelRef,
    QualitySpec,
)

Row = Mapping[str, Any]
Contents: TypeAlias = tuple[tuple[str, str], ...]
EVERY = "every"
"""In place of a decomposition: whichever did best."""
_NEGLIGIBLE = 1e-5
"""Share of a perplexity below which nobody sees a difference."""
_NAMED_TASKS = 3
Measured: TypeAlias = RunView[CompareSpec | QualitySpec | EvaluateSpec]
"""A run whose rows stand in groups."""


@dataclass(frozen=True)
class Group:
    """Rows measured with the same texts, windows, tasks, items and seed.

    Attributes:
        evaluation: how all of them were measured.
        rows: newest first, one per cell; the dense model's method is ``dense``.
        hidden: older rows of the same cells that are left out.
        calibrations: the calibrations behind the rows, more than one when they differ.
        views: the runs that the rows come from.
        changed: what is no longer as it was when the rows were measured, in words.
        unsteady: by how much the dense model's perplexity differs between the runs, as a share of it.
    """

    evaluation: EvaluationSpec
    rows: tuple[Row, ...]
    hidden: int
    calibrations: tuple[CalibrationSpec, ...]
    views: tuple[Measured, ...]
    changed: tuple[str, ...] = ()
    unsteady: float = 0.0

    @property
    def sample(self) -> bool:
        """Whether all of it ships with the program."""
        return all(view.sample for view in self.views)

    @property
    def tells(self) -> bool:
        """Whether it is a comparison: the dense model and two others, or more."""
        methods = {row["method"] for row in self.rows if row["method"] == "dense" or compresses(row)}
        return "dense" in methods and len(methods) >= 3

    @property
    def label(self) -> str:
        """Texts, windows and tasks, as a list offers them."""
        spec = self.evaluation
        windows = (
            f"{spec.max_windows} windows of {spec.window}" if spec.max_windows else f"all windows of {spec.window}"
        )
        items = f"{spec.items} items" if spec.items else "all items"
        names = ", ".join(spec.tasks) if len(spec.tasks) <= _NAMED_TASKS else f"{len(spec.tasks)} tasks"
        tasks = f" · {names}: {items}{' each' if len(spec.tasks) > 1 else ''}" if spec.tasks else ""
        return f"{' + '.join(spec.texts)} · {windows} tokens{tasks}" + self._whose

    @property
    def _whose(self) -> str:
        return (" · sample" if self.sample else "") + (" · measured before a change" if self.changed else "")

    def at(self, decomposition: str, keep: float | None) -> list[Row]:
        """The dense row, number formats alone, and the rows of one decomposition, at one budget or (None) at all.

        What was chosen for a budget in bytes is not among them, see :attr:`by_bytes`. Pruned models have no
        decomposition and stand beside the rows of every one. Under :data:`EVERY` of each method the row that lost least
        at each budget.
        """
        rows = [row for row in self.rows if at_rate(row) or not compresses(row)]
        if decomposition == EVERY:
            best = [row for size in (self.sizes if keep is None else [keep]) for row in self.best_at(size)]
            chosen = {id(row) for row in best}
            return [row for row in rows if id(row) in chosen or not compresses(row)]
        return [
            row
            for row in rows
            if not compresses(row)
            or (row["decomposition"] in (decomposition, "") and (keep is None or same_size(row["keep_target"], keep)))
        ]

    def best_at(self, keep: float) -> list[Row]:
        """The dense row, number formats alone, and of each method the row that lost least at one budget.

        Whichever the decomposition: for whoever wants the best of a method, and not to tell decompositions apart.
        """
        found: dict[str, Row] = {}
        for row in self.rows:
            if compresses(row) and not (at_rate(row) and same_size(row["keep_target"], keep)):
                continue
            held = found.setdefault(str(row["method"]), row)
            if mean_loss(row) < mean_loss(held):
                found[str(row["method"])] = row
        return list(found.values())

    @property
    def sizes(self) -> list[float]:
        """Targets measured under any decomposition, least compression first."""
        return sorted({float(row["keep_target"]) for row in self.rows if at_rate(row)}, reverse=True)

    @property
    def by_bytes(self) -> list[Row]:
        """Ranks and number formats that were chosen together for budgets in bytes."""
        return [row for row in self.rows if compresses(row) and not at_rate(row)]


def groups(ref: ModelRef) -> list[Group]:
    """All measurements of a model: of what is on the disk now before those of what was there, the largest first.

    What says something by itself comes first: one quick measurement of the user's own does not take the place of the
    samples before it is a comparison.
    """
    found: dict[tuple[EvaluationSpec, Contents], list[tuple[Row, Measured]]] = {}
    views = archive().runs(ref=ref)
    aside = _set_aside(views)
    for view in views:
        if not _measures(view):
            continue
        for row in rows_of(view):
            if isinstance(view.spec, EvaluateSpec) and row.get("run_id") in aside:
                continue
            found.setdefault((view.spec.evaluation, measured_contents(view.spec)), []).append((row, view))
    made = [_group(evaluation, entries) for (evaluation, _), entries in found.items()]
    return sorted(made, key=lambda group: (bool(group.changed), not group.tells, group.sample, -len(group.rows)))


def _measures(view: AnyRun) -> TypeGuard[Measured]:
    return isinstance(view.spec, CompareSpec | QualitySpec | EvaluateSpec)


def rows_of(view: Measured) -> list[Row]:
    """The rows of a compare or evaluate run that are there by now."""
    spec = view.spec
    try:
        if isinstance(spec, CompareSpec):
            return [_named(row) for row in beside_its_dense([row for row in recorded_rows(view) if _usable(row)])]
        if isinstance(spec, QualitySpec):
            rows = [
                row for row in beside_its_dense(_bench_rows(view)) if row.get("seed", spec.seeds[0]) == spec.seeds[0]
            ]
            return [_named(row) for row in rows]
        row = _measured_row(str(view.path), stamp_of(view.path / "result.json"), stamp_of(view.path / "status.json"))
        return [] if row is None else [dict(row)]
    except LrcError:
        return []


@lru_cache(maxsize=20_000)  # asked for at every click, and a bench makes thousands
def _measured_row(folder: str, *_stamps: Stamp) -> Row | None:
    """The row of an evaluation as its files were at those stamps."""
    result = Run(Path(folder)).result()
    return _named(result) if result is not None and _usable(result) else None


def _bench_rows(view: AnyRun) -> list[Row]:
    """Measured rows of a quality or ablation run that are about this model."""
    return [row for row in recorded_rows(view) if _usable(row) and row["method"] != "reference"]


def _set_aside(views: Sequence[AnyRun]) -> set[str]:
    """Evaluations that do not stand for themselves: ablated variants, and a bench's cells, which the bench shows."""
    aside: set[str] = set()
    for view in views:
        if isinstance(view.spec, QualitySpec | AblationSpec):
            with suppress(LrcError):
                rows = _bench_rows(view)
                ablated = [row for row in rows if row.get("variant") not in (None, MIX)]
                aside |= {str(row.get("run_id")) for row in (rows if isinstance(view.spec, QualitySpec) else ablated)}
    return aside


def _usable(row: Any) -> bool:
    return isinstance(row, Mapping) and {"method", "keep_target", "perplexity"} <= row.keys()


def _named(row: Row) -> Row:
    """The row under the name that it has in charts: a plan with updated factors is not the one as allocated."""
    return {**row, "method": named(row)}


def _group(evaluation: EvaluationSpec, entries: Sequence[tuple[Row, Measured]]) -> Group:
    cells: dict[tuple[Any, ...], tuple[Row, Measured]] = {}
    seen, hidden = set(), 0
    # A comparison's rows are evaluations of their own as well, begun after it: they belong to what asked for them.
    asked = [(row, view) for row, view in reversed(entries) if isinstance(view.spec, CompareSpec)]
    askers = {row["run_id"]: view for row, view in asked if row.get("run_id")}
    for row, view in entries:
        if row.get("run_id") in seen:
            continue
        seen.add(row.get("run_id"))
        dense = row["method"] == "dense"
        size = row.get("budget") or size_key(row["keep_target"])
        cell = (row["method"], None if dense else row.get("decomposition"), size)
        if cell in cells:
            hidden += 1
        else:
            cells[cell] = (row, askers.get(row.get("run_id"), view))
    ordered = sorted(cells.values(), key=lambda entry: (-float(entry[0]["keep_target"]), str(entry[0]["method"])))
    views = tuple({view.id: view for _, view in ordered}.values())
    calibrated = {view.spec.calibration: None for row, view in ordered if compresses(row)}
    looked: dict[str, str | None] = {}
    stale = tuple(dict.fromkeys(words for view in views for words in changed(view.spec, looked)))
    rows = tuple(row for row, _ in ordered)
    return Group(evaluation, rows, hidden, tuple(calibrated), views, stale, _unsteady([row for row, _ in entries]))


def _unsteady(rows: Sequence[Row]) -> float:
    """How far apart the dense model came out on one text, whatever the machine, precision and version of a run."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == "dense":
            for text, score in row["perplexity"].items():
                found.setdefault(text, []).append(float(score["value"]))
    return max((max(values) / min(values) - 1 for values in found.values()), default=0.0)


def keeps_of(group: Group, decomposition: str) -> list[float]:
    """Targets measured under a decomposition, least compression first."""
    return sorted({float(row["keep_target"]) for row in group.at(decomposition, None) if compresses(row)}, reverse=True)


def decompositions_of(group: Group) -> list[str]:
    """Decompositions among the rows."""
    return list(dict.fromkeys(str(row["decomposition"]) for row in group.rows if row["decomposition"]))


def asked_for(group: Group, decomposition: str) -> tuple[str, ...]:
    """Methods of a group's grid under a decomposition: those that were measured, or that a comparison asked for."""
    known = {split_variant(str(row["method"]))[0] for row in group.at(decomposition, None)}
    for view in group.views:
        if isinstance(view.spec, CompareSpec) and view.spec.decomposition == decomposition:
            known |= set(view.spec.methods)
    return tuple(name for name in ALLOCATORS.names() if name in known)


def missing(group: Group, decomposition: str, methods: Iterable[str]) -> list[tuple[str, float]]:
    """Cells of the grid of methods and targets that have not been measured, as allocated or with updated factors."""
    have = {
        (split_variant(str(row["method"]))[0], size_key(row["keep_target"])) for row in group.at(decomposition, None)
    }
    return [
        (method, keep)
        for keep in keeps_of(group, decomposition)
        for method in methods
        if (method, size_key(keep)) not in have
    ]


def differences(rows: Sequence[Row], group: Group) -> list[str]:
    """What is not equal among the rows shown, and what their runs warned of; empty when the comparison is clean."""
    notes = []
    by_keep: dict[float, list[float]] = {}
    for row in rows:
        if compresses(row) and row.get("keep_achieved") is not None:
            by_keep.setdefault(float(row["keep_target"]), []).append(float(row["keep_achieved"]))
    for keep, achieved in by_keep.items():
        if not same_percent(max(achieved), min(achieved)):
            notes.append(
                f"At {words.removed(keep)} the achieved compressions differ: from "
                f"{words.removed(max(achieved), 2)} to {words.removed(min(achieved), 2)}."
            )
    if len(group.calibrations) > 1:
        notes.append("The rows were calibrated on different texts or windows; see the settings of each run.")
    digests: dict[str, set[str]] = {}
    for thing, digest in {pair for view in group.views for pair in view.spec.contents}:
        digests.setdefault(thing, set()).add(digest)
    if moved := sorted(thing for thing, found in digests.items() if len(found) > 1):
        notes.append(f"Between the rows the {', the '.join(moved)} changed.")
    precisions = list(dict.fromkeys(str(row["dtype"]) for row in rows if row.get("dtype")))
    if len(precisions) > 1:
        notes.append(
            f"The rows were computed in different precisions, {' and '.join(precisions)}: small gaps may be theirs."
        )
    if group.unsteady > _NEGLIGIBLE:
        notes.append(
            f"The dense model itself differs by {words.percent(group.unsteady, 2)} between these runs, which were "
            "computed on different machines or by different versions; smaller differences mean nothing."
        )
    if group.changed:
        notes.append(f"These rows were measured before a change: {'; '.join(group.changed)}.")
    if group.hidden:
        notes.append(f"{group.hidden} older measurements of the same cells are not shown.")
    return notes + warned([*rows, *group.by_bytes])  # which stand beside them where bytes decide


def warned(rows: Sequence[Row]) -> list[str]:
    """What the rows' runs warned of, each once; what is said of several number formats alike, of all of them."""
    by_words: dict[str, list[str]] = {}
    for warning in dict.fromkeys(str(warning) for row in rows for warning in row.get("warnings") or ()):
        name, _, rest = warning.partition(": ")
        known = name if name in QUANTISED else f"{method_label(name)} with formats" if name in ALLOCATORS else ""
        said, names = (rest, [known]) if known else (warning, [])
        by_words.setdefault(said, []).extend(names)
    return [f"{', '.join(names)}: {said}" if names else said for said, names in by_words.items()]


def _removed(keep: Any) -> float | None:
    """Of what is kept, without the digits that a subtraction leaves: 0.2, not 0.19999999999999996."""
    return None if keep is None else round(removed_share(float(keep)), 12)


def records(rows: Sequence[Row], label: Callable[[str], str]) -> list[dict[str, Any]]:
    """Rows as records of a flat table, one column per figure; standard errors in columns of their own."""
    found, dense = [], dense_row(rows)
    for row in rows:
        record: dict[str, Any] = {
            "method": label(str(row["method"])),
            "decomposition": row.get("decomposition") if compresses(row) else "",
            "compression_target": _removed(row["keep_target"]),
            "compression_achieved": _removed(row.get("keep_achieved", row["keep_target"])),
            "compression_whole_model": _removed(row.get("keep_whole_model")),
            "bytes_share": share_of(row),
            "model_bytes": row.get("model_bytes"),
        }
        for text, score in (row.get("perplexity") or {}).items():
            record[f"perplexity_{text}"], record[f"perplexity_{text}_stderr"] = score["value"], score.get("stderr")
        for task, score in (row.get("zero_shot") or {}).items():
            for name in ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr", "n"):
                record[f"{task}_{name}"] = score.get(name)
        record |= flat_cost(row, dense)
        record["run_id"] = row.get("run_id", "")
        found.append(record)
    return found


def plan_of(row: Row) -> Plan | None:
    """The plan that a row measured: the evaluate run's own, else the allocate run's recorded one."""
    view = archive().open(str(row.get("run_id") or "-"), EvaluateSpec)
    if view is not None and view.spec.plan:
        return Plan.from_dict(dict(view.spec.plan))
    source = archive().open(str(row.get("allocate_run_id") or "-"), AllocateSpec)
    if source is None:
        return None
    found = nearest(recorded_plans([source]), float(row["keep_target"]))
    if found is None or not same_percent(found.keep, float(row["keep_target"])):
        return None
    return load_plan(found.path)
