"""What follows from the measured rows of a bench: ratios to the dense model, mean accuracy, paired tests. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lrc_core.budget import LAWS, same_size
from lrc_core.errors import RecordError
from lrc_core.paths import samples_home
from lrc_core.plan import bits_word, split_variant, storage_of, variant_name
from lrc_core.quality.paired import log_perplexity, mcnemar, mean_accuracy
from lrc_core.records import load_record, typed
from lrc_core.runs.integrity import unaltered
from lrc_core.texts.label import text_labels

Row = dict[str, Any]
_AnyRow = TypeVar("_AnyRow", bound=Mapping[str, Any])
Partners = Callable[[Row, Sequence[Row]], Mapping[str, Row]]
"""Rows that a row is tested against, by the name of the column."""


@dataclass(frozen=True)
class _Scores:
    """A file of scores: by text what was lost in every window, by task how every item came out."""

    windows: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, Any] = field(default_factory=dict)


class Scores:
    """``scores.json`` of evaluate runs, the user's and the shipped ones, read once each.

    Args:
        roots: folders of run folders, the first that has a run first.
    """

    def __init__(self, *roots: Path) -> None:
        self._roots = (*roots, samples_home())
        self._read: dict[str, dict[str, Any]] = {}

    def of(self, run_id: str) -> dict[str, Any]:
        """Losses of every window and outcomes of every item; empty where the run was deleted."""
        if run_id not in self._read:
            root = next((root for root in self._roots if (root / run_id).is_dir()), self._roots[-1])
            try:
                path = unaltered(root / run_id / "scores.json")
                found = typed(_Scores, load_record(path), str(path))
                self._read[run_id] = {"windows": found.windows, "tasks": found.tasks}
            except RecordError:
                return {}
        return self._read[run_id]


def dense_row(rows: Sequence[_AnyRow]) -> _AnyRow | None:
    """The dense model's, which the others are compared with."""
    return next((row for row in rows if row["method"] == "dense"), None)


def completed(rows: Sequence[Row], partners: Partners, scores: Scores) -> list[Row]:
    """Rows with what follows from them and their partners.

    Args:
        rows: as measured, failed cells among them.
        partners: which rows each is tested against; the dense model always is one.
    """
    dense = next((row for row in rows if row["method"] == "dense" and "error" not in row), None)
    found = []
    for row in rows:
        if "error" in row:
            found.append(dict(row))
            continue
        made = _in_dense_tokens(row, dense, scores) if row["method"] == "reference" and dense else dict(row)
        made["relative"] = times_dense(made, dense)
        made["zero_shot_mean"] = mean_of(row.get("zero_shot") or {})
        against = dict(partners(row, rows))
        if dense is not None and row is not dense:
            against["dense"] = dense
        tested = {name: _tested(row, other, scores) for name, other in against.items()}
        made["paired"] = {name: found for name, found in tested.items() if found}
        found.append(made)
    return found


def allocated_by(row: Mapping[str, Any], methods: Sequence[str]) -> bool:
    """Whether a row of a group shows one of these methods as allocated: nothing updated, however layers are stored."""
    method, update, _ = split_variant(str(row["method"]))
    return not update and method in methods


def named(row: Mapping[str, Any]) -> str:
    """The variant that a row is of: ``llrc``, ``llrc+tuned``, ``llrc+tuned+pivoted``."""
    method = str(row["method"])
    word = str(row.get("update") or "") or bits_word(method, row.get("formats"))
    return variant_name(method, word, storage_of(row))


def baselines(methods: Sequence[str]) -> Partners:
    """Partners of a quality bench: the rows of some methods in the same decomposition, at the same target and seed.

    A method whose factors were updated goes by ``llrc+tuned``, and is not meant by ``llrc``. A name without a storage
    law means rows stored as the tested one is, or by pairs where those are its own. What prunes structure is under no
    decomposition and no law; its partners are those under the bench's first ones.
    """

    def find(row: Row, rows: Sequence[Row]) -> Mapping[str, Row]:
        able = [other for other in rows if "error" not in other and _same_cell(row, other)]
        found: dict[str, Row] = {}
        for method in methods:
            for meant in _meant(method, row):
                partners = [other for other in able if named(other) == meant != named(row)]
                if partners:
                    found[method] = partners[0]
                    break
        return found

    return find


def _meant(method: str, row: Row) -> list[str]:
    """Variants that a baseline's name stands for beside this row, the first to be preferred."""
    name, update, law = split_variant(method)
    if method != variant_name(name, update):
        return [variant_name(name, update, law)]
    laws = [storage_of(row), law] + ([] if row.get("decomposition") else list(LAWS))
    return [variant_name(name, update, one) for one in dict.fromkeys(laws)]


def variants_of(names: Sequence[str]) -> Partners:
    """Partners of an ablation: the named variant of the same part, method, target and seed."""

    def find(row: Row, rows: Sequence[Row]) -> Mapping[str, Row]:
        if row.get("variant") in names:
            return {}
        same = ("part", "method", "keep_target", "seed")
        for other in rows:
            if other.get("variant") in names and "error" not in other and all(other[k] == row.get(k) for k in same):
                return {"base": other}
        return {}

    return find


def _same_cell(row: Row, other: Row) -> bool:
    """Whether a row may be tested against another's figures."""
    return (
        same_size(row["keep_target"], other["keep_target"])
        and row.get("seed") == other.get("seed")
        and (row.get("decomposition") or other.get("decomposition")) == other.get("decomposition")
    )


def mean_loss(row: Mapping[str, Any]) -> float:
    """Mean log-perplexity over the texts, in nats per token: what rows are ranked by; infinite without any."""
    values = [math.log(float(score["value"])) for score in row["perplexity"].values()]
    return sum(values) / len(values) if values else math.inf


def accuracy_of(score: Mapping[str, Any], wanted: str = "acc_norm") -> tuple[str, float | None, float | None]:
    """Name, value and error of the accuracy that counts: the one wanted where the task has it, else the plain one."""
    name = wanted if score.get(wanted) is not None else "acc"
    return name, score.get(name), score.get(f"{name}_stderr")


def mean_of(zero_shot: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Mean accuracy over tasks and its standard error, the tasks being independent; None without tasks."""
    found = [accuracy_of(score)[1:] for score in zero_shot.values()]
    values = [(value, error) for value, error in found if value is not None]
    if not values:
        return None
    errors = [error for _, error in values if error is not None]
    stderr = math.sqrt(sum(error**2 for error in errors)) / len(values) if len(errors) == len(values) else None
    return {"value": sum(value for value, _ in values) / len(values), "stderr": stderr, "tasks": len(values)}


def times_dense(row: Row, dense: Row | None) -> dict[str, float]:
    """Perplexity as a multiple of the dense model's, by text."""
    known = (dense or {}).get("perplexity") or {}
    return {text: score["value"] / known[text]["value"] for text, score in row["perplexity"].items() if text in known}


def _tested(row: Row, other: Row, scores: Scores) -> dict[str, Any]:
    mine, theirs = scores.of(row["run_id"]), scores.of(other["run_id"])
    found: dict[str, Any] = {}
    texts = {
        text: log_perplexity(windows["losses"], theirs["windows"][text]["losses"], windows["tokens"]).to_dict()
        for text, windows in (mine.get("windows") or {}).items()
        if same_windows(windows, (theirs.get("windows") or {}).get(text), same_model=row["method"] != "reference")
    }
    if texts:
        found["perplexity"] = texts
    pairs = item_pairs(mine.get("tasks") or {}, theirs.get("tasks") or {})
    if pairs:
        found["zero_shot"] = {task: mcnemar(*pair).to_dict() for task, pair in pairs.items()}
        found["mean"] = mean_accuracy(pairs).to_dict()
    return found


def same_windows(one: Mapping[str, Any], other: Mapping[str, Any] | None, *, same_model: bool = True) -> bool:
    """Whether two runs scored the same tokens.

    Args:
        one: windows of one text.
        other: of the other run.
        same_model: both runs are of one model, whose tokenizer can be trusted to be the same where an older run kept
            no digest of its tokens.
    """
    if other is None or list(one["tokens"]) != list(other["tokens"]):
        return False
    digests = (one.get("digest"), other.get("digest"))
    return digests[0] == digests[1] if None not in digests else same_model


def item_pairs(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[list[int], list[int]]]:
    """Outcomes of the same items in two runs' ``scores.json``, by task; tasks whose items differ are left out."""
    pairs = {}
    for task, score in mine.items():
        name, *_ = accuracy_of(score)
        one = (score.get("items") or {}).get(name) or []
        other = ((theirs.get(task) or {}).get("items") or {}).get(name) or []
        if one and len(one) == len(other):
            pairs[task] = (list(one), list(other))
    return pairs


def _in_dense_tokens(row: Row, dense: Row, scores: Scores) -> Row:
    """A reference model's perplexity in tokens of the dense model's tokenizer, where it has one of its own.

    Perplexity is per token, and tokens of different tokenizers hold different amounts of text. The loss per byte is
    comparable; times the dense model's bytes per token it is a loss per token of the latter. The measured value stays
    beside it as ``own_tokens``.
    """
    mine, theirs = scores.of(row["run_id"]).get("windows") or {}, scores.of(dense["run_id"]).get("windows") or {}
    texts, notes, labels = {}, [], text_labels(row["perplexity"])
    for text, score in row["perplexity"].items():
        one, other = mine.get(text), theirs.get(text)
        if one is not None and same_windows(one, other, same_model=False):
            texts[text] = score
        elif one is None or other is None or not (one.get("bytes") and other.get("bytes")):
            texts[text] = score
            notes.append(f"perplexity on {labels[text]} is per token of its own tokenizer, not comparable")
        else:
            factor = sum(one["tokens"]) / sum(one["bytes"]) * sum(other["bytes"]) / sum(other["tokens"])
            value = score["value"] ** factor
            error = score.get("stderr")
            stderr = None if error is None else value * factor * error / score["value"]
            texts[text] = {"value": value, "stderr": stderr, "own_tokens": score}
            notes.append(f"perplexity on {labels[text]} converted to the compressed model's tokens by bytes")
    return {**row, "perplexity": texts, "note": "; ".join([*filter(None, [row.get("note")]), *notes])}
