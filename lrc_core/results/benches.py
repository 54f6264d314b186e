"""Bench and ablation runs with the rows they have by now: their lines, points and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrc_core import words
from lrc_core.budget import removed_share, size_key
from lrc_core.errors import LrcError
from lrc_core.names import decomposition_label, method_label
from lrc_core.quality.quantised import compresses, served_bytes, share_of
from lrc_core.quality.rows import accuracy_of, named
from lrc_core.quality.tables import MARKS, marks, row_label, tasks_of, texts_of
from lrc_core.results.archive import RunView, archive, recorded_rows
from lrc_core.runs.spec import AblationSpec, ModelRef, QualitySpec
from lrc_core.texts.label import text_labels

Row = Mapping[str, Any]
BenchSpec = QualitySpec | AblationSpec
AXES = {"linear": "Block linears", "model": "Whole model", "bytes": "Bytes"}
ACCURACY = "accuracy"


@dataclass(frozen=True)
class BenchRows:
    """Rows of a bench, wherever they come from.

    Attributes:
        rows: all of them.
    """

    rows: tuple[Row, ...]

    @property
    def measured(self) -> list[Row]:
        """Rows with figures."""
        return [row for row in self.rows if "error" not in row]

    @property
    def failed(self) -> list[Row]:
        """Rows with an error in place of figures."""
        return [row for row in self.rows if "error" in row]


@dataclass(frozen=True)
class Bench(BenchRows):
    """One quality or ablation run with the rows it has by now.

    Attributes:
        view: the run.
        baselines: what rows are tested against, in the order of the marks.
    """

    view: RunView[BenchSpec]
    baselines: tuple[str, ...]

    @property
    def result(self) -> dict[str, Any]:
        """As ``result.json`` has it, also while the run works."""
        return {"model": self.view.spec.model.source, "rows": list(self.rows), "baselines": list(self.baselines)}


def benches(ref: ModelRef, kind: type[QualitySpec] | type[AblationSpec]) -> list[Bench]:
    """Runs of a kind that have rows, newest first."""
    found = []
    for view in _runs(ref, kind):
        try:
            rows = tuple(row for row in recorded_rows(view) if _usable(row))
        except LrcError:
            continue
        if rows:
            names = view.spec.baselines if isinstance(view.spec, QualitySpec) else ("base",)
            found.append(Bench(rows, view, names))
    return found


def _runs(ref: ModelRef, kind: type[QualitySpec] | type[AblationSpec]) -> Sequence[RunView[BenchSpec]]:
    if issubclass(kind, QualitySpec):
        return archive().runs(QualitySpec, ref)
    return archive().runs(AblationSpec, ref)


def _usable(row: Any) -> bool:
    return isinstance(row, Mapping) and {"method", "keep_target"} <= row.keys() and ("error" in row or "run_id" in row)


def measures(bench: BenchRows) -> dict[str, str]:
    """What a chart can show: perplexity on each text, mean accuracy where it was measured."""
    labels = text_labels(texts_of(bench.measured))
    found = {text: f"Perplexity, {label}" for text, label in labels.items()}
    if any(row.get("zero_shot_mean") for row in bench.measured):
        found[ACCURACY] = "Mean zero-shot accuracy"
    return found


def value_of(row: Row, measure: str) -> tuple[float, float | None] | None:
    """A measure's value and standard error, None where the row has none."""
    if measure == ACCURACY:
        mean = row.get("zero_shot_mean")
        return None if not mean else (mean["value"], mean.get("stderr"))
    score = (row.get("perplexity") or {}).get(measure)
    return None if score is None else (score["value"], score.get("stderr"))


def place_of(row: Row, axis: str) -> float | None:
    """Where a row stands on an axis: the share that is removed, or megabytes."""
    if axis == "bytes":
        size = served_bytes(row)
        return None if size is None else size / 1e6
    value = row.get("keep_achieved" if axis == "linear" else "keep_whole_model")
    return None if value is None else removed_share(float(value))


@dataclass(frozen=True)
class Point:
    """Rows of one cell, seeds taken together."""

    x: float
    y: float
    error: float


def points(rows: Sequence[Row], measure: str, axis: str) -> list[Point]:
    """One point per target, by place. Several seeds: their mean, the spread between them added to the error."""
    by_keep: dict[float, list[tuple[float, float, float]]] = {}
    for row in rows:
        value, place = value_of(row, measure), place_of(row, axis)
        if value is not None and place is not None:
            by_keep.setdefault(size_key(row["keep_target"]), []).append((place, value[0], value[1] or 0.0))
    found = []
    for cells in by_keep.values():
        mean = sum(value for _, value, _ in cells) / len(cells)
        spread = sum((value - mean) ** 2 for _, value, _ in cells) / max(1, len(cells) - 1)
        sampling = sum(error for *_, error in cells) / len(cells)
        found.append(Point(sum(place for place, *_ in cells) / len(cells), mean, math.sqrt(sampling**2 + spread)))
    return sorted(found, key=lambda point: point.x)


def lines(bench: BenchRows) -> dict[tuple[str, str], list[Row]]:
    """Rows by method (with its update) and decomposition, in the order of the run."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in bench.measured:
        if compresses(row):
            found.setdefault((named(row), str(row.get("decomposition", ""))), []).append(row)
    return found


def decompositions_of(bench: BenchRows) -> list[str]:
    """Decompositions that any row is under, in the order of the run."""
    return list(dict.fromkeys(name for _, name in lines(bench) if name))


def records(bench: Bench) -> list[dict[str, Any]]:
    """Rows for reading, with signs of significance behind the values."""
    several = len({row.get("decomposition") for row in bench.rows if row.get("decomposition")}) > 1
    seeds = len({row.get("seed") for row in bench.rows if row.get("seed") is not None}) > 1
    return [_readable(row, bench, several=several, seeds=seeds) for row in bench.rows]


def _readable(row: Row, bench: Bench, *, several: bool, seeds: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "Target": words.removed(float(row["keep_target"])) if compresses(row) else "–",
        "Method": row_label(row),
    }
    if several:
        record["Decomposition"] = decomposition_label(str(row["decomposition"])) if row.get("decomposition") else ""
    if seeds:
        record["Seed"] = str(row.get("seed", ""))
    if "error" in row:
        return {**record, "Note": f"Failed: {row['error']}"}
    record["Linears removed"] = _removed(row.get("keep_achieved"))
    record["Model removed"] = _removed(row.get("keep_whole_model"))
    record["Layers' bytes of 16 bits"] = words.percent(share_of(row), 1)
    record["Size"] = words.data_size(row["model_bytes"]) if row.get("model_bytes") else "–"
    record["Dense layers"] = str(row.get("dense_layers", "–"))
    for text, name in text_labels(texts_of(bench.measured)).items():
        score = (row.get("perplexity") or {}).get(text)
        if score is not None:
            shown = words.measured(score["value"], score.get("stderr"))
            record[f"Perplexity, {name}"] = shown + marks(row, bench.baselines, "perplexity", text)
            record[f"× dense, {name}"] = words.figure((row.get("relative") or {}).get(text), 3)
    if mean := row.get("zero_shot_mean"):
        record["Mean accuracy"] = words.in_percent(mean["value"], mean["stderr"]) + marks(row, bench.baselines, "mean")
    for task in tasks_of(bench.measured):
        if score := (row.get("zero_shot") or {}).get(task):
            _, value, error = accuracy_of(score)
            if value is not None:
                record[task] = words.in_percent(value, error) + marks(row, bench.baselines, "zero_shot", task)
    record["Allocation"] = _cost(row)
    record["Note"] = str(row.get("note", ""))
    return record


def _removed(keep: float | None) -> str:
    return "–" if keep is None else words.removed(keep, 2)


def _cost(row: Row) -> str:
    spent = row.get("allocation") or {}
    more = "" if spent.get("update_wall_s") is None else f" + {words.duration(spent['update_wall_s'])}"
    if spent.get("shared_from") is not None:
        return f"by the run to {words.removed(spent['shared_from'])}{more}"
    if spent.get("wall_s") is None:
        return "–"
    memory = spent.get("peak_memory_mb")
    return words.duration(spent["wall_s"]) + more + (f", {words.data_size(memory * 2**20)}" if memory else "")


def signs(bench: Bench) -> str:
    """What the signs behind the values mean, in words."""
    if isinstance(bench.view.spec, AblationSpec):
        against = "* the first variant of its kind (all terms; the preset's text)"
    else:
        against = ", ".join(f"{sign} {method_label(name)}" for sign, name in zip(MARKS, bench.baselines, strict=False))
    tested = (
        f"A sign behind a value: different with p < 0.05 from {against}, under the same decomposition, target and "
        "seed. "
        if against
        else ""
    )
    return (
        tested + "Tests are paired, on the same windows (t-test of log-perplexity) and the same items (exact McNemar), "
        "so a difference can be certain although the error bars overlap. Errors are one standard error."
    )
