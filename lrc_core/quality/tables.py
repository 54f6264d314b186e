"""A bench's result as a table: every figure as CSV, what people compare as Markdown. No torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lrc_core.escape import csv_cell
from lrc_core.plan import bits_word, split_variant, storage_of
from lrc_core.quality.over_seeds import SeedCell, Spread, over_seeds
from lrc_core.quality.paired import LEVEL
from lrc_core.quality.quantised import FORMAT_LABELS, share_of, targeted
from lrc_core.quality.rows import accuracy_of, named
from lrc_core.quality.speeds import flat_cost
from lrc_core.registry import ALLOCATORS
from lrc_core.texts.label import text_labels
from lrc_core.updates import update_words
from lrc_core.words import data_size, in_percent, measured, megabytes, percent

Row = Mapping[str, Any]
MARKS = ("*", "†", "‡", "§")
"""Signs of a significant difference from the first, second, ... baseline."""
_SAMPLE = 110


def row_label(row: Row) -> str:
    """The method as the app calls it, with its update or variant; a reference model by its own name."""
    method = str(row["method"])
    if method == "reference":
        return str(row.get("name", "reference"))
    word = str(row.get("update") or "") or bits_word(method, row.get("formats"))
    name = _label(method.partition("+")[0]) + update_words(word, storage_of(row))
    return f"{name}, {row['variant']}" if row.get("variant") else name


def _label(method: str) -> str:
    known = {"dense": "Dense model", **FORMAT_LABELS}
    return ALLOCATORS.get(method).label if method in ALLOCATORS else known.get(method, method)


def texts_of(rows: Sequence[Row]) -> list[str]:
    """Texts that any row has a perplexity on."""
    return list(dict.fromkeys(text for row in rows for text in row.get("perplexity") or {}))


def tasks_of(rows: Sequence[Row]) -> list[str]:
    """Tasks that any row has an accuracy on."""
    return list(dict.fromkeys(task for row in rows for task in row.get("zero_shot") or {}))


def marks(row: Row, baselines: Sequence[str], *path: str) -> str:
    """Signs of the baselines from which a row differs with p < 0.05.

    Args:
        row: with its paired tests.
        baselines: their names, in the order of ``MARKS``.
        path: which test, such as ``("perplexity", "c4")`` or ``("mean",)``.
    """
    found = ""
    for sign, name in zip(MARKS, baselines, strict=False):
        p = p_of(row, name, *path)
        found += sign if p is not None and p < LEVEL else ""
    return found


def p_of(row: Row, baseline: str, *path: str) -> float | None:
    """p-value of a test, None where it could not be made."""
    return _test(row, baseline, path).get("p")


def _test(row: Row, baseline: str, path: Sequence[str]) -> Mapping[str, Any]:
    test: Any = (row.get("paired") or {}).get(baseline)
    for name in path:
        test = test.get(name) if isinstance(test, Mapping) else None
    return test if isinstance(test, Mapping) else {}


def records(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every row flat, one column per figure; the same columns in all; models stand beside their own dense ones."""
    rows, names = result["rows"], ["dense", *result.get("baselines", [])]
    labels = text_labels(texts_of([row for row in rows if "error" not in row]))
    dense = {row.get("model"): row for row in reversed(rows) if row["method"] == "dense"}
    flat = [_record(row, names, labels, dense.get(row.get("model"))) for row in rows]
    columns = list(dict.fromkeys(key for key in _ORDER if any(key in one for one in flat)))
    columns += [key for key in dict.fromkeys(key for one in flat for key in one) if key not in columns]
    return [{column: one.get(column) for column in columns} for one in flat]


_ORDER = (
    *("model", "method", "update", "storage", "label", "variant", "part", "decomposition", "seed", "keep_target"),
    *(
        "keep_achieved",
        "keep_whole_model",
        "bytes_share",
        "model_bytes",
        "predicted_loss",
        "params",
        "bytes",
        "dense_layers",
        "layers",
    ),
    *("error", "note"),
)


def _record(
    row: Row, names: Sequence[str], labels: Mapping[str, str], dense: Mapping[str, Any] | None
) -> dict[str, Any]:
    record: dict[str, Any] = {key: row.get(key) for key in _ORDER if key in row}
    record["label"] = row_label(row)
    record |= flat_cost(row, dense)
    for text, score in (row.get("perplexity") or {}).items():
        name = f"perplexity_{labels[text]}"
        record |= {name: score["value"], f"{name}_stderr": score.get("stderr")}
        record[f"{name}_relative"] = (row.get("relative") or {}).get(text)
        if own := score.get("own_tokens"):
            record[f"{name}_own_tokens"] = own["value"]
        record |= _tests(row, names, f"{name}_log", "perplexity", text)
    for task, score in (row.get("zero_shot") or {}).items():
        record |= {f"{task}_{key}": score.get(key) for key in ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr", "n")}
        record |= _tests(row, names, task, "zero_shot", task)
    if mean := row.get("zero_shot_mean"):
        record |= {"mean_accuracy": mean["value"], "mean_accuracy_stderr": mean["stderr"]}
        record |= _tests(row, names, "mean_accuracy", "mean")
    record |= {f"allocation_{key}": value for key, value in (row.get("allocation") or {}).items()}
    record["allocate_run"], record["evaluate_run"] = row.get("allocate_run_id"), row.get("run_id")
    if text := (row.get("sample") or {}).get("text"):
        record["sample"] = " ".join(str(text).split())  # one line per row
    return record


def _tests(row: Row, names: Sequence[str], prefix: str, *path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        if test := _test(row, name, path):
            found |= {f"{prefix}_vs_{name}_{key}": test.get(key) for key in ("difference", "stderr", "p")}
    return found


def rows_csv(result: Mapping[str, Any]) -> str:
    """Every row with every figure."""
    flat = records(result)
    output = io.StringIO()
    if flat:
        writer = csv.DictWriter(output, fieldnames=list(flat[0]), lineterminator="\n")
        writer.writerow({name: csv_cell(name) for name in flat[0]})
        writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in flat)
    return output.getvalue()


def to_markdown(result: Mapping[str, Any]) -> str:
    """Perplexity, zero-shot accuracy where it was measured, what the signs mean, notes and text samples."""
    rows, names = result["rows"], list(result.get("baselines", []))
    parts = [_perplexities(rows, names)]
    if tested := [row for row in rows if row.get("zero_shot")]:
        parts.append(_accuracies(tested, names))
    parts.append(_legend(names))
    if cells := over_seeds(rows):
        parts += [_table(*seed_table(cells, names)), SEED_LEGEND]
    notes = dict.fromkeys(f"- {_titled(row)}: {row['note']}." for row in rows if row.get("note"))
    if notes:
        parts.append("\n".join(notes))
    if samples := [row for row in rows if (row.get("sample") or {}).get("text") and row.get("zero_shot")]:
        prompt = samples[0]["sample"].get("prompt", "")
        lines = [f"- {_titled(row)}: {_short(row['sample']['text'])}" for row in samples]
        parts.append(f"“{prompt} …”\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def evaluated_table(rows: Sequence[Row], name_of: Callable[[Row], str] = named) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a table of evaluations, for reading: sizes, perplexities and accuracies with their errors."""
    texts, tasks = texts_of(rows), tasks_of(rows)
    labels = text_labels(texts)

    def line(row: Row) -> list[str]:
        scores = [row["perplexity"].get(text) or {} for text in texts]
        found = [(score.get("value"), score.get("stderr")) for score in scores]
        found += [accuracy_of(row["zero_shot"].get(task) or {})[1:] for task in tasks]
        size = row.get("model_bytes")
        return [
            name_of(row),
            percent(row["keep_target"], fixed=True),
            percent(row["keep_achieved"], fixed=True),
            percent(share_of(row)) + ("" if size is None else f", {data_size(size)}"),
            *("–" if value is None else measured(value, error) for value, error in found),
        ]

    header = ["method", "target", "kept", "bytes", *(f"{labels[text]} ppl" for text in texts), *tasks]
    return header, [line(row) for row in rows]


def seed_table(
    cells: Sequence[SeedCell], names: Sequence[str], size: Column | None = None
) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a table of cells under several seeds, for reading.

    Args:
        names: of the baselines that cells are compared with.
        size: the first column, where it is not what is kept.
    """
    heads = [column for column in _heads([cell.row for cell in cells]) if column[0] in _OF_A_CELL]
    heads = [size or heads[0], *heads[1:]]
    labels = text_labels(list(dict.fromkeys(text for cell in cells for text in cell.relative)))
    against = [name for name in names if any(name in cell.against for cell in cells)]
    accuracy = any(cell.accuracy for cell in cells)

    def line(cell: SeedCell) -> list[str]:
        return [
            *(said(cell.row) for _, said in heads),
            ", ".join(map(str, cell.seeds)),
            *(_spread(cell.relative.get(text)) for text in labels),
            *([_spread(cell.accuracy, in_percent)] if accuracy else []),
            *(_above(cell.against.get(name) or {}, labels) for name in against),
        ]

    header = [name for name, _ in heads] + ["seeds", *(f"× dense, {label}" for label in labels.values())]
    header += ["mean accuracy"] if accuracy else []
    header += [f"nats above {_baseline(name)}: {' / '.join(labels.values())}" for name in against]
    return header, [line(cell) for cell in cells]


_OF_A_CELL = ("kept", "method", "decomposition")
SEED_LEGEND = (
    "Mean over seeds ± the standard deviation between them; each seed draws other calibration windows, and everything "
    "that a method chooses by chance. Nats per token are of rows of the same seed. * other than 0 with p < 0.05, "
    "t-test over seeds."
)


def _spread(found: Spread | None, say: Callable[[float, float | None], str] = measured) -> str:
    return "–" if found is None else say(found.mean, found.deviation)


def _above(found: Mapping[str, Spread], texts: Iterable[str]) -> str:
    said = [_spread(found.get(text)) + ("*" if text in found and found[text].differs else "") for text in texts]
    return " / ".join(said) if found else "–"


def _perplexities(rows: Sequence[Row], names: Sequence[str]) -> str:
    texts = texts_of(rows)
    columns = [*_heads(rows), *_columns_of_texts(texts, names)]
    if any(row.get("allocation") for row in rows):
        columns.append(("allocation", _cost))
    return _markdown(rows, columns)


def _accuracies(rows: Sequence[Row], names: Sequence[str]) -> str:
    columns = _heads(rows)[:-1]
    columns.append(("mean", lambda row: _mean(row, names)))
    columns += [(task, _task_cell(task, names)) for task in tasks_of(rows)]
    return _markdown(rows, columns)


Column = tuple[str, Callable[[Row], str]]


def _heads(rows: Sequence[Row]) -> list[Column]:
    columns: list[Column] = [
        ("kept", lambda row: f"{100 * row['keep_target']:.4g} %" if targeted(row) else "–"),
        ("method", row_label),
    ]
    if len({row["decomposition"] for row in rows if row.get("decomposition")}) > 1:
        columns.append(("decomposition", lambda row: str(row.get("decomposition") or "")))
    if len({row["seed"] for row in rows if row.get("seed") is not None}) > 1:
        columns.append(("seed", lambda row: str(row.get("seed", ""))))
    columns.append(("linears / model kept", _kept))
    if any(share_of(row) is not None for row in rows):
        columns.append(("bytes / MB", _bytes))
    columns.append(("dense layers", lambda row: str(row.get("dense_layers", "–"))))
    return columns


def _kept(row: Row) -> str:
    shares = [row.get("keep_achieved"), row.get("keep_whole_model")]
    return "–" if "error" in row else " / ".join("–" if share is None else f"{100 * share:.1f}" for share in shares)


def _bytes(row: Row) -> str:
    """Share of the block linears' bytes in 16 bits, and megabytes of the whole model."""
    share, size = share_of(row), row.get("model_bytes")
    if "error" in row or share is None:
        return "–"
    return f"{share:.3f}" + ("" if size is None else f" / {megabytes(size)}")


def _columns_of_texts(texts: Sequence[str], names: Sequence[str]) -> list[Column]:
    columns: list[Column] = []
    labels = text_labels(texts)
    for number, text in enumerate(texts):

        def value(row: Row, text: str = text, first: bool = number == 0) -> str:
            if "error" in row:
                return f"failed: {row['error']}" if first else ""
            score = (row.get("perplexity") or {}).get(text)
            if score is None:
                return "–"
            return measured(score["value"], score.get("stderr")) + marks(row, names, "perplexity", text)

        def ratio(row: Row, text: str = text) -> str:
            known = (row.get("relative") or {}).get(text)
            return "" if known is None else f"{known:.3g}"

        columns += [(labels[text], value), ("× dense", ratio)]
    return columns


def _mean(row: Row, names: Sequence[str]) -> str:
    mean = row.get("zero_shot_mean")
    return "–" if mean is None else in_percent(mean["value"], mean["stderr"]) + marks(row, names, "mean")


def _task_cell(task: str, names: Sequence[str]) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        score = (row.get("zero_shot") or {}).get(task)
        if score is None:
            return "–"
        _, value, error = accuracy_of(score)
        return "–" if value is None else in_percent(value, error) + marks(row, names, "zero_shot", task)

    return cell


def _cost(row: Row) -> str:
    spent = row.get("allocation") or {}
    seconds, memory, shared = spent.get("wall_s"), spent.get("peak_memory_mb"), spent.get("shared_from")
    if seconds is None:
        return "–"
    updated = spent.get("update_wall_s")
    more = "" if updated is None else f" + {_duration(updated)}"
    if shared is not None:
        return f"of {100 * shared:.4g} %{more}"
    found = " ¹" if spent.get("found_probes") else ""
    return _duration(seconds) + more + ("" if not memory else f", {memory / 1024:.1f} GiB") + found


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _legend(names: Sequence[str]) -> str:
    signs = [f"{sign} {_baseline(name)}" for sign, name in zip(MARKS, names, strict=False)]
    against = f" Different with p < 0.05 from: {', '.join(signs)}." if signs else ""
    return (
        "Perplexity ± its bootstrap standard error over windows; accuracy in % (normalised by length where the task "
        "has it) ± one standard error." + against + " Tests are paired: t over windows for log-perplexity, exact "
        "McNemar over items for accuracy. “of N %”: a plan recorded by the run to N % kept, whose cost "
        "stands there. “+ N s”: for updating its factors. ¹ with probes that an earlier run had left."
    )


def _baseline(name: str) -> str:
    if name == "base":
        return "the first variant of the same kind"
    method, update, storage = split_variant(name)
    return _label(method) + update_words(update, storage)


def _titled(row: Row) -> str:
    words = [row_label(row)]
    if targeted(row) and row["method"] != "dense":
        words.append(f"{100 * row['keep_target']:.4g} % kept")
    words += [str(row["decomposition"])] if row.get("decomposition") else []
    words += [f"seed {row['seed']}"] if row.get("seed") else []  # the first is what is meant where none is named
    return ", ".join(words)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _SAMPLE else words[:_SAMPLE] + " …"


def _markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    return _table([name for name, _ in columns], [[cell(row) for _, cell in columns] for row in rows])


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    first, *rest = ("| " + " | ".join(row) + " |" for row in (header, *cells))
    return "\n".join([first, "|" + "---|" * len(header), *rest])
