"""What was measured: tables with errors and signs of significance, perplexity over size, accuracy by task, speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lrc_core.budget import removed_percent, size_key
from lrc_core.formats.grids import BF16
from lrc_core.names import method_label
from lrc_core.quality.decision import KINDS
from lrc_core.quality.decision_words import decision_words, texts_words
from lrc_core.quality.quantised import at_rate, served_bytes, share_of
from lrc_core.quality.rows import accuracy_of, mean_of, times_dense
from lrc_core.quality.speeds import DECODE, PREFILL, pace_of
from lrc_core.quality.tables import MARKS, marks, tasks_of
from lrc_core.report.content import (
    COUNTED,
    MEASURED,
    Block,
    Cell,
    Column,
    Picture,
    Pictures,
    Section,
    Table,
    TableRow,
    Words,
)
from lrc_core.report.drawing import charts
from lrc_core.report.drawing.decision import decision_drawing, decision_legend
from lrc_core.report.measured import Row
from lrc_core.report.sections.prose import report_prose
from lrc_core.report.sections.rows import Named, key_of, ranked, row_color
from lrc_core.words import data_size, in_percent, listed, measured, megabytes, removed, significant, times

_MOST_DOTS = 9

NOT_MEASURED, FAILED = "missing", "failed"


def comparison(named: Named) -> Section:
    """All measured rows; failed and missing cells among them."""
    blocks: list[Block] = []
    if named.rows:
        blocks += [Words(text) for text in report_prose("comparison")]
        blocks += [*_decision(named), *_curves(named), _perplexities(named), *_accuracies(named), *_speeds(named)]
    else:
        blocks.append(Words("Nothing was measured: no comparison stands behind this report.", "warning"))
    return Section("comparison", "The comparison", tuple(blocks))


Filled = Callable[[Row], Sequence[Cell]]


def _table(
    named: Named, caption: str, columns: Sequence[Column], cells: Filled, rows: Sequence[Row], note: str
) -> Table:
    """Rows by target with the cells that failed or that were not measured, which are never left out."""
    heads = (Column("Method"), Column("Target, %", True))
    lines = []
    for row in rows:
        failed = str(row["error"]) if "error" in row else ""
        plain = not at_rate(row)
        rate = 0.0 if plain else removed_percent(float(row["keep_target"]))
        shown = Cell("–" if plain else f"{rate:g}", rate)
        name = named.line(row) if at_rate(row) else named.name(row)
        first = (Cell(name, name), shown)
        rest = (Cell(f"Failed: {failed}"), *[Cell("")] * (len(columns) - 1)) if failed else tuple(cells(row))
        lines.append(TableRow((*first, *rest), named.key(row), row_color(row), FAILED if failed else ""))
    for method, decomposition, keep, seed in named.sources.missing:
        name = named.line({"method": method, "decomposition": decomposition, "seed": seed})
        first = (Cell(name, name), Cell(f"{removed_percent(keep):g}", removed_percent(keep)))
        rest = (Cell("Not measured"), *[Cell("")] * (len(columns) - 1))
        lines.append(TableRow((*first, *rest), key_of(method, keep), row_color({"method": method}), NOT_MEASURED))
    return Table(caption, (*heads, *columns), tuple(lines), note)


def _perplexities(named: Named) -> Table:
    texts, names = named.texts, named.sources.baselines
    columns = [
        Column("Linears removed, %", True, COUNTED),
        Column("Model removed, %", True, COUNTED),
        Column("Linears' bytes, %", True, COUNTED),
        Column("Size, MB", True, COUNTED),
    ]
    for text in texts:
        columns += [Column(f"Perplexity, {named.text(text)}", True, MEASURED), Column("× dense", True)]
    columns.append(Column("Run", mono=True))

    def cells(row: Row) -> list[Cell]:
        size = size_mb(named, row)
        found = [
            _share(row.get("keep_achieved", row["keep_target"])),
            _share(row.get("keep_whole_model")),
            _bytes(row),
            Cell("–" if size is None else megabytes(1e6 * size), size),
        ]
        times = times_dense(row, named.dense)
        for text in texts:
            score = row["perplexity"].get(text)
            if score is None:
                found += [Cell("–"), Cell("–")]
                continue
            sign = marks(row, names, "perplexity", text)
            found.append(Cell(measured(score["value"], score.get("stderr")), score["value"], sign))
            found.append(Cell(f"{times[text]:.2f}" if text in times else "–", times.get(text)))
        return [*found, Cell(str(row.get("run_id", "")), str(row.get("run_id", "")))]

    return _table(named, "Size and perplexity", columns, cells, named.rows, legend_of_marks(named))


def _share(kept: Any) -> Cell:
    if kept is None:
        return Cell("–")
    gone = removed_percent(float(kept))
    return Cell(f"{gone:.2f}", gone)


def _bytes(row: Row) -> Cell:
    """Bytes of the block linears in percent of 16 bits."""
    share = share_of(row)
    return Cell("–") if share is None else Cell(f"{100 * share:.1f}", 100 * share)


def size_mb(named: Named, row: Row) -> float | None:
    """Megabytes of the weights: as counted when the model was measured, else from its parameters."""
    if size := served_bytes(row):
        return size / 1e6
    card, kept = named.sources.card, row.get("keep_whole_model")
    return None if kept is None or row["method"] == "reference" else kept * card.params_total * BF16.block_bytes / 1e6


def legend_of_marks(named: Named) -> str:
    """What the signs mean; or why there are none."""
    names = named.sources.baselines
    if not names:
        return "No baseline was measured, so no row was tested against one."
    signs = [f"{sign} {method_label(name)}" for sign, name in zip(MARKS, names, strict=False)]
    if not named.sources.tested:
        return (
            "No paired tests: not all of these runs keep single outcomes of the same questions and windows. Compare "
            "values by their errors."
        )
    return (
        f"A sign behind a value: different with p < 0.05 from {listed(signs)}, at the same target. Tests are paired, "
        "on the same windows (t-test of log-perplexity) and the same questions (exact McNemar), so a difference can be "
        "certain although the errors overlap."
    )


def _decision(named: Named) -> list[Block]:
    """Bytes against loss, with every other way to a smaller model that was measured."""
    found = named.choices
    said = decision_words(found)
    if not said:
        return []
    title = f"What to decide by: bytes against loss on {texts_words(found)}"
    alt = f"{title}. {said}".replace("**", "").replace("`", "")
    picture = Picture(decision_drawing(found, lambda one: named.key(dict(one.row))), alt, reading=said)
    heads = (
        Column("Model"), Column("Way"), Column("Bytes, %", True, COUNTED), Column("Size, MB", True, COUNTED),
        Column("Perplexity over dense", True, MEASURED),
    )  # fmt: skip
    lines = [
        TableRow(
            (
                Cell(one.name, one.name), Cell(KINDS[one.kind], one.kind), Cell(f"{100 * one.share:.1f}", one.share),
                Cell(megabytes(one.size), one.size), Cell(measured(one.times, one.times_error), one.times),
            ),
            named.key(dict(one.row)), row_color(dict(one.row)),
        )
        for one in found
    ]  # fmt: skip
    table = Table(title, heads, tuple(lines), detail=True)
    return [Pictures(title, (picture,), 1, decision_legend(found), table=table)]


def _curves(named: Named) -> list[Block]:
    """Perplexity over size, one chart per text."""
    items = []
    for text in named.texts:
        series = _series(named, text)
        if not series:
            continue
        base = ((named.dense or {}).get("perplexity") or {}).get(text)
        reference = (base["value"], f"dense model {measured(base['value'], base.get('stderr'))}") if base else None
        drawing = charts.curves(series, "size of the weights, MB", "perplexity, lower is better", reference)
        said = _curve_reading(named, text)
        title = f"Perplexity on {named.text(text)}"
        alt = f"{title} over the size of the weights, one line per method, whiskers of one standard error. {said}"
        items.append(Picture(drawing, alt, title, reading=said))
    if not items:
        return []
    heads = (
        Column("Model"),
        Column("Size, MB", True, COUNTED),
        *(Column(named.text(text), True, MEASURED) for text in named.texts),
    )
    lines = []
    for row in [row for row in named.rows if "error" not in row]:
        size = size_mb(named, row)
        scores = [row["perplexity"].get(text) for text in named.texts]
        cells = [Cell(measured(s["value"], s.get("stderr")), s["value"]) if s else Cell("–") for s in scores]
        lines.append(
            TableRow(
                (
                    Cell(named.name(row), named.name(row)),
                    Cell("–" if size is None else megabytes(1e6 * size), size),
                    *cells,
                ),
                named.key(row),
                row_color(row),
            )
        )
    table = Table("Perplexity over size", heads, tuple(lines), detail=True)
    return [Pictures("Perplexity against size", tuple(items), 2, named.legend(), table=table)]


def _series(named: Named, text: str) -> list[charts.PointSeries]:
    found = []
    for entry in named.legend():
        points = []
        # The dense model makes the scale honest: how much smaller the others are.
        for row in [*([named.dense] if named.dense else []), *named.measured]:
            score, size = row["perplexity"].get(text), size_mb(named, row)
            if named.line(row) != entry.label or score is None or size is None:
                continue
            value = measured(score["value"], score.get("stderr"))
            tip = f"{named.name(row)}: perplexity {value}, {megabytes(1e6 * size)} MB, run {row.get('run_id', '')}"
            points.append(charts.ChartPoint(size, score["value"], score.get("stderr") or 0.0, named.key(row)[1], tip))
        if points:
            found.append(charts.PointSeries(entry.key, entry.color, entry.symbol, tuple(points)))
    return found


def _curve_reading(named: Named, text: str) -> str:
    """Who is lowest at the smallest size, and how much higher the highest is."""
    for keep in reversed(named.targets):
        rows = [row for row in ranked(named, keep) if text in row["perplexity"]]
        if len(rows) > 1:
            rows.sort(key=lambda row: row["perplexity"][text]["value"])
            low, high = rows[0], rows[-1]
            ratio = high["perplexity"][text]["value"] / low["perplexity"][text]["value"]
            return (
                f"At {removed(keep)} compression {named.line(low)} is lowest; "
                f"{named.line(high)} is {times(ratio)} times as high."
            )
    return ""


def _accuracies(named: Named) -> list[Block]:
    """Right answers by task: a dot for every method at one target, and the table of all."""
    tested = [row for row in named.rows if "error" in row or row.get("zero_shot")]
    answered = [row for row in tested if row.get("zero_shot")]
    tasks, names = tasks_of(answered), named.sources.baselines
    if not tasks:
        return [Words("No questions were asked of these models: the comparison had no zero-shot tasks.", "note")]
    columns = [Column("Mean, %", True, MEASURED), *(Column(f"{task}, %", True, MEASURED) for task in tasks)]

    def cells(row: Row) -> list[Cell]:
        mean = mean_of(row["zero_shot"])
        found = [_accuracy(mean["value"], mean["stderr"], marks(row, names, "mean")) if mean else Cell("–")]
        for task in tasks:
            _, value, error = accuracy_of(row["zero_shot"].get(task) or {})
            found.append(_accuracy(value, error, marks(row, names, "zero_shot", task)))
        return found

    blocks: list[Block] = [*_dots(named, answered, tasks)]
    untested = len([row for row in named.measured if not row.get("zero_shot")])
    note = legend_of_marks(named)
    if untested:
        note = f"{untested} measured plans were asked no questions and are not in this table. {note}"
    return [*blocks, _table(named, "Right answers by task", columns, cells, tested, note)]


def _accuracy(value: float | None, error: float | None, sign: str) -> Cell:
    return Cell("–") if value is None else Cell(in_percent(value, error), value, sign)


def _dots(named: Named, answered: Sequence[Row], tasks: Sequence[str]) -> list[Block]:
    targets = {size_key(row["keep_target"]) for row in answered if at_rate(row)}
    if not targets:
        return []
    keep = min(targets, key=lambda target: abs(target - named.focus))
    rows = [row for row in answered if row["method"] == "dense" or row in named.at(keep)]
    every, rows = len(rows), _foremost(rows)
    series = []
    looks = {entry.label: entry for entry in named.legend()}
    for row in rows:
        points = tuple(_point(named, row, task, number) for number, task in enumerate(tasks) if _has(row, task))
        look = looks[named.line(row)]
        series.append(charts.PointSeries(look.key, look.color, look.symbol, points))
    drawing = charts.dots(list(tasks), [one for one in series if one.points], "right answers, %")
    title = f"Right answers at {removed(keep)} compression"
    said = _dots_reading(named, rows)
    if every > len(rows):
        said += f" The chart shows the {len(rows)} of {every} models with the highest means; the table below has all."
    alt = f"{title}, a row for every task, a dot with one standard error for every model. {said}"
    shown = {named.line(row) for row in rows}
    legend = tuple(entry for entry in named.legend() if entry.label in shown)
    return [Pictures(title, (Picture(drawing, alt, reading=said),), 1, legend)]


def _foremost(rows: Sequence[Row]) -> list[Row]:
    """The dense model, and so many of the others, best first by mean, as can be distinguished in one chart."""
    dense = [row for row in rows if row["method"] == "dense"]
    means = [(mean_of(row["zero_shot"]) or {}).get("value", 0.0) for row in rows]
    best = sorted(range(len(rows)), key=lambda index: -means[index])
    kept = [index for index in best if rows[index]["method"] != "dense"][: _MOST_DOTS - len(dense)]
    return [row for index, row in enumerate(rows) if row["method"] == "dense" or index in kept]


def _has(row: Row, task: str) -> bool:
    return accuracy_of((row.get("zero_shot") or {}).get(task) or {})[1] is not None


def _point(named: Named, row: Row, task: str, number: int) -> charts.ChartPoint:
    _, value, error = accuracy_of(row["zero_shot"][task])
    assert value is not None
    tip = f"{named.name(row)}, {task}: {in_percent(value, error)} % right, run {row.get('run_id', '')}"
    return charts.ChartPoint(100 * value, number, 100 * (error or 0.0), named.key(row)[1], tip)


def _dots_reading(named: Named, rows: Sequence[Row]) -> str:
    means: list[tuple[str, Mapping[str, Any]]] = [
        (named.line(row), mean) for row in rows if row["method"] != "dense" and (mean := mean_of(row["zero_shot"]))
    ]
    if not means:
        return ""
    name, best = max(means, key=lambda pair: pair[1]["value"])
    most = "answers most:" if len(means) > 1 else "answers"  # the best of one is no best
    said = f"Over all tasks {name} {most} {in_percent(best['value'], best['stderr'])} % right"
    dense = next((mean_of(row["zero_shot"]) for row in rows if row["method"] == "dense"), None)
    if dense:
        said += f", the dense model {in_percent(dense['value'], dense['stderr'])} %"
    return said + "."


def _speeds(named: Named) -> list[Block]:
    timed = [row for row in named.rows if "error" not in row and (row.get("cost") or {}).get("decode_tokens_per_s")]
    if not timed:
        return [Words("No speed was measured in these runs.", "note")]
    columns = [
        Column("Held in memory", True, MEASURED),
        *(
            Column(f"{verb}, {unit}", True, MEASURED)
            for verb in ("Reads", "Writes")
            for unit in ("tokens/s", "times dense")
        ),
        Column("Run", mono=True),
    ]

    def cells(row: Row) -> list[Cell]:
        held = row["cost"].get("bytes")
        found = [Cell(data_size(held) if held else "–", held)]
        for what in (PREFILL, DECODE):
            speed = row["cost"].get(f"{what}_tokens_per_s")
            pace = None if row is named.dense else pace_of(row, named.dense, what)
            found += [Cell(significant(speed), speed), Cell(pace.figure, pace.value) if pace else Cell("–")]
        return [*found, Cell(str(row.get("run_id", "")), str(row.get("run_id", "")))]

    note = (
        "Tokens per second are of the computer that made the run. Times dense with an error were timed right beside "
        "the dense model in one process; with ≈, once each, so that other work on that computer shows in them."
    )
    return [_table(named, "Speed", columns, cells, timed, note)]
