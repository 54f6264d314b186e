"""Rows of finished measurements, grouped so that only what was measured alike stands side by side. No Streamlit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from lrc_core import words
from lrc_core.errors import LrcError
from lrc_core.names import split_variant
from lrc_core.plan import Plan, variant_name
from lrc_core.quality.variants import MIX
from lrc_core.results.archive import AnyRun, RunView, archive, read_content
from lrc_core.results.plans import load_plan, nearest, recorded_plans
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

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]
Measured: TypeAlias = RunView[CompareSpec | QualitySpec | EvaluateSpec]
"""A run whose rows stand in groups."""


@dataclass(frozen=True)
class Group:
    """Rows measured with the same texts, windows, tasks, items and seed.

    Attributes:
        evaluation: how all of them were measured.
        rows: newest first, one a cell; the dense model's method is ``dense``.
        hidden: older rows of the same cells that are left out.
        calibrations: the calibrations behind the rows, more than one when they differ.
        views: the runs that the rows come from.
    """

    evaluation: EvaluationSpec
    rows: tuple[Row, ...]
    hidden: int
    calibrations: tuple[CalibrationSpec, ...]
    views: tuple[Measured, ...]

    @property
    def sample(self) -> bool:
        return all(view.sample for view in self.views)

    @property
    def label(self) -> str:
        spec = self.evaluation
        windows = (
            f"{spec.max_windows} windows of {spec.window}" if spec.max_windows else f"all windows of {spec.window}"
        )
        items = f"{spec.items} items" if spec.items else "all items"
        tasks = f" · {len(spec.tasks)} tasks, {items} each" if spec.tasks else ""
        return f"{' + '.join(spec.texts)} · {windows} tokens{tasks}" + (" · sample" if self.sample else "")

    def at(self, decomposition: str, keep: float | None) -> list[Row]:
        """The dense row and the rows of one decomposition, at one budget or (None) at all.

        Pruned models have no decomposition and stand beside the rows of every one.
        """
        return [
            row
            for row in self.rows
            if row["method"] == "dense"
            or (row["decomposition"] in (decomposition, "") and (keep is None or abs(row["keep_target"] - keep) < 1e-6))
        ]


def groups(ref: ModelRef) -> list[Group]:
    """All measurements of a model, the largest group first."""
    found: dict[EvaluationSpec, list[tuple[Row, Measured]]] = {}
    views = archive().runs(ref=ref)
    aside = _set_aside(views)
    for view in views:
        if not _measures(view):
            continue
        for row in rows_of(view):
            if isinstance(view.spec, EvaluateSpec) and row.get("run_id") in aside:
                continue
            found.setdefault(view.spec.evaluation, []).append((row, view))
    made = [_group(evaluation, entries) for evaluation, entries in found.items()]
    return sorted(made, key=lambda group: (group.sample, -len(group.rows)))


def _measures(view: AnyRun) -> TypeGuard[Measured]:
    return isinstance(view.spec, CompareSpec | QualitySpec | EvaluateSpec)


def rows_of(view: Measured) -> list[Row]:
    """The rows of a compare or evaluate run that are there by now."""
    spec = view.spec
    try:
        if isinstance(spec, CompareSpec):
            path = view.path / "rows.json"
            content = read_content(path) if path.is_file() else (view.run.result() or {}).get("rows", [])
            return [_named(row) for row in content if _usable(row)]
        if isinstance(spec, QualitySpec):
            rows = [row for row in _bench_rows(view) if row.get("seed", spec.seeds[0]) == spec.seeds[0]]
            return [_named(row) for row in rows]
        result = view.run.result()
        return [_named(result)] if result is not None and _usable(result) else []
    except LrcError:
        return []


def _bench_rows(view: AnyRun) -> list[Row]:
    """Measured rows of a quality or ablation run that are about this model."""
    path = view.path / "rows.json"
    content = read_content(path) if path.is_file() else (view.run.result() or {}).get("rows", [])
    return [row for row in content if _usable(row) and row["method"] != "reference"]


def _set_aside(views: Sequence[AnyRun]) -> set[str]:
    """Evaluations that do not stand for themselves: ablated variants, and a bench's cells, which the bench shows."""
    aside: set[str] = set()
    for view in views:
        if isinstance(view.spec, QualitySpec | AblationSpec):
            with suppress(LrcError):
                rows = _bench_rows(view)
                aside |= {
                    str(row.get("run_id")) for row in rows if isinstance(view.spec, QualitySpec) or _is_variant(row)
                }
    return aside


def _is_variant(row: Row) -> bool:
    return row.get("variant") not in (None, MIX)


def _usable(row: Any) -> bool:
    return isinstance(row, Mapping) and {"method", "keep_target", "perplexity"} <= row.keys()


def _named(row: Row) -> Row:
    """The row under the name that it has in charts: a plan with updated factors is not the one as allocated."""
    update = str(row.get("update") or "")
    return {**row, "method": variant_name(str(row["method"]), update)} if update else row


def _group(evaluation: EvaluationSpec, entries: Sequence[tuple[Row, Measured]]) -> Group:
    cells: dict[tuple[Any, ...], tuple[Row, Measured]] = {}
    seen, hidden = set(), 0
    for row, view in entries:
        if row.get("run_id") in seen:
            continue
        seen.add(row.get("run_id"))
        dense = row["method"] == "dense"
        cell = (row["method"], None if dense else row.get("decomposition"), round(float(row["keep_target"]), 6))
        if cell in cells:
            hidden += 1
        else:
            cells[cell] = (row, view)
    ordered = sorted(cells.values(), key=lambda entry: (-float(entry[0]["keep_target"]), str(entry[0]["method"])))
    views = tuple({view.id: view for _, view in ordered}.values())
    calibrated = {view.spec.calibration: None for row, view in ordered if row["method"] != "dense"}
    return Group(evaluation, tuple(row for row, _ in ordered), hidden, tuple(calibrated), views)


def keeps_of(group: Group, decomposition: str) -> list[float]:
    """Targets measured under a decomposition, least compression first."""
    return sorted(
        {float(row["keep_target"]) for row in group.at(decomposition, None) if row["method"] != "dense"}, reverse=True
    )


def decompositions_of(group: Group) -> list[str]:
    """Decompositions among the rows."""
    return list(dict.fromkeys(str(row["decomposition"]) for row in group.rows if row["decomposition"]))


def missing(group: Group, decomposition: str, methods: Iterable[str]) -> list[tuple[str, float]]:
    """Cells of the grid of methods and targets that nobody has measured, as allocated or with updated factors."""
    have = {
        (split_variant(str(row["method"]))[0], round(float(row["keep_target"]), 6))
        for row in group.at(decomposition, None)
    }
    return [
        (method, keep)
        for keep in keeps_of(group, decomposition)
        for method in methods
        if (method, round(keep, 6)) not in have
    ]


def differences(rows: Sequence[Row], group: Group) -> list[str]:
    """What is not equal among the rows shown, and what their runs warned of; empty when the comparison is clean."""
    notes = []
    by_target: dict[float, list[float]] = {}
    for row in rows:
        if row["method"] != "dense" and row.get("keep_achieved") is not None:
            by_target.setdefault(float(row["keep_target"]), []).append(float(row["keep_achieved"]))
    for target, achieved in by_target.items():
        if max(achieved) - min(achieved) > 0.005:
            notes.append(
                f"At {words.percent(1 - target)} the achieved compressions differ: from "
                f"{words.percent(1 - max(achieved), 2)} to {words.percent(1 - min(achieved), 2)}."
            )
    if len(group.calibrations) > 1:
        notes.append("The rows were calibrated on different texts or windows; see the settings of each run.")
    if group.hidden:
        notes.append(f"{group.hidden} older measurements of the same cells are not shown.")
    told = dict.fromkeys(str(warning) for row in rows for warning in row.get("warnings", []))
    return notes + list(told)


def table(rows: Sequence[Row], label: Any) -> pd.DataFrame:
    """Rows as a flat table, one column a figure; standard errors in columns of their own."""
    import pandas as pd  # Home reads rows, too, and must not wait for it

    records = []
    for row in rows:
        record: dict[str, Any] = {
            "method": label(str(row["method"])),
            "decomposition": row.get("decomposition") if row["method"] != "dense" else "",
            "compression_target": 1 - float(row["keep_target"]),
            "compression_achieved": 1 - float(row.get("keep_achieved", row["keep_target"])),
            "compression_whole_model": 1 - float(row["keep_whole_model"])
            if row.get("keep_whole_model") is not None
            else None,
        }
        for text, score in (row.get("perplexity") or {}).items():
            record[f"perplexity_{text}"], record[f"perplexity_{text}_stderr"] = score["value"], score.get("stderr")
        for task, score in (row.get("zero_shot") or {}).items():
            for name in ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr", "n"):
                record[f"{task}_{name}"] = score.get(name)
        for name, value in (row.get("cost") or {}).items():
            record[name] = value
        record["run_id"] = row.get("run_id", "")
        records.append(record)
    return pd.DataFrame(records)


def plan_of(row: Row) -> Plan | None:
    """The plan that a row measured: the evaluate run's own, else the allocate run's recorded one."""
    view = archive().open(str(row.get("run_id") or "-"), EvaluateSpec)
    if view is not None and view.spec.plan:
        return Plan.from_dict(dict(view.spec.plan))
    source = archive().open(str(row.get("allocate_run_id") or "-"), AllocateSpec)
    if source is None:
        return None
    found = nearest(recorded_plans([source]), 1 - float(row["keep_target"]))
    if found is None or abs(found.compression - (1 - float(row["keep_target"]))) > 0.0051:
        return None
    return load_plan(found.path)
