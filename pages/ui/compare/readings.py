"""What the charts of measurements say, each in one sentence computed from the rows. No Streamlit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lrc_core import words
from lrc_core.budget import removed_share
from lrc_core.escape import escaped
from lrc_core.figures.measured import bar_name
from lrc_core.formats.grids import METHODS
from lrc_core.names import method_label
from lrc_core.plan import Plan, plan_variant
from lrc_core.quality.alternatives import difference
from lrc_core.quality.quantised import compresses, served_bytes
from lrc_core.quality.rows import Scores, accuracy_of, dense_row
from lrc_core.quality.speeds import DECODE, PREFILL, pace_of
from lrc_core.texts.label import text_label
from lrc_core.types import ModelCard

Row = Mapping[str, Any]


def best(rows: Sequence[Row], outcomes: Scores | None = None) -> str:
    """Which method is best on the first text at one budget, and whether that is more than chance.

    Args:
        outcomes: single ones of the runs, for paired errors.
    """
    name = _first_text(rows)
    found = {str(row["method"]): row for row in rows if name in row["perplexity"] and row["method"] not in METHODS}
    scores = {method: row["perplexity"][name] for method, row in found.items()}
    text = escaped(text_label(name))
    dense = scores.pop("dense", None)
    ordered = sorted(scores, key=lambda method: scores[method]["value"])
    if not ordered:
        return _no_ranks(rows, text)
    first = scores[ordered[0]]
    if not ordered[1:]:
        said = f"On {text} only **{method_label(ordered[0])}** was measured at this budget ({_with_error(first)})"
    else:
        said = f"On {text} **{method_label(ordered[0])}** is best at this budget ({_with_error(first)})"
        gap = difference(found[ordered[1]], found[ordered[0]], name, outcomes)
        clear = "which is more than chance" if gap.sign > 0 else "which may be chance"
        second = words.figure(scores[ordered[1]]["value"], 3)
        said += f"; {method_label(ordered[1])} follows at {second}, {clear}"
    if dense:
        here, there = (words.figure(score["value"], 3) for score in (first, dense))
        verdict = " too" if here == there else ", more" if first["value"] < dense["value"] else ": nothing here is free"
        said += f". The dense model has {there}{verdict}"
    else:
        said += ". The dense model was not measured alike, so that what was lost is not known"
    return f"{said}."


def _no_ranks(rows: Sequence[Row], text: str) -> str:
    """What there is where no plan was measured, on a text whose name is escaped."""
    formats = list(dict.fromkeys(str(row["method"]) for row in rows if row["method"] in METHODS))
    beside = f" and {', '.join(method_label(name) for name in formats)}" if formats else ""
    return f"No ranks yet: only the dense model{beside} {'were' if formats else 'was'} measured on {text}."


def _first_text(rows: Sequence[Row]) -> str:
    return next((text for row in rows for text in row["perplexity"]), "no text")


def _with_error(score: Mapping[str, Any]) -> str:
    return words.measured(score["value"], score.get("stderr"))


def growth(rows: Sequence[Row]) -> str:
    """How much the first text's perplexity grows over the measured rates under the best and the worst method."""
    text = _first_text(rows)
    by_method: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if compresses(row) and text in row["perplexity"]:
            place = (removed_share(float(row["keep_target"])), float(row["perplexity"][text]["value"]))
            by_method.setdefault(str(row["method"]), []).append(place)
    if not by_method:
        return _no_ranks(rows, escaped(text_label(text)))
    furthest = max(rate for places in by_method.values() for rate, _ in places)
    ends = {name: value for name, places in by_method.items() for rate, value in places if rate == furthest}
    first, last = min(ends, key=lambda name: ends[name]), max(ends, key=lambda name: ends[name])
    said = (
        f"At {words.percent(furthest)} removed **{method_label(first)}** stands at "
        f"{words.figure(ends[first], 3)} on {escaped(text_label(text))}"
    )
    begins = min(by_method[first])
    if begins[0] < furthest:
        said += f", up from {words.figure(begins[1], 3)} at {words.percent(begins[0])}"
    if first != last:
        said += f"; {method_label(last)} at {words.figure(ends[last], 3)}"
    return f"{said}."


def accuracy(rows: Sequence[Row], metric: str) -> str:
    """Mean accuracy of the best method beside the dense model's, over the tasks that both did, with their errors."""
    means: dict[str, tuple[float, float | None]] = {}
    for row in rows:
        scores = list((row.get("zero_shot") or {}).values())
        found = [accuracy_of(score, metric)[1:] for score in scores]
        known = [(value, error) for value, error in found if value is not None]
        if known and row["method"] not in METHODS:
            errors = [error for _, error in known if error is not None]
            error = math.hypot(*errors) / len(known) if len(errors) == len(known) else None
            means[str(row["method"])] = sum(value for value, _ in known) / len(known), error
    dense = means.pop("dense", None)
    if not means:
        return "No method's accuracy was measured at this budget."
    name = max(means, key=lambda method: means[method][0])
    said = f"On average over the tasks **{method_label(name)}** answers {words.in_percent(*means[name])} % right"
    return said + (f", the dense model {words.in_percent(*dense)} %." if dense is not None else ".")


def cost(rows: Sequence[Row]) -> str:
    """The smallest and the fastest of the compressed models, against the dense one."""
    dense, others = dense_row(rows), [row for row in rows if compresses(row)]
    if dense is None:
        return f"{len(others)} compressed models, without a dense one to compare them with."
    whole, sizes = served_bytes(dense), [size for row in others if (size := served_bytes(row))]
    said = []
    if sizes and whole:
        said.append(f"Plans of ranks are up to {words.percent(1 - min(sizes) / whole, 0)} smaller.")
        formats = [(size, row) for row in rows if row["method"] in METHODS and (size := served_bytes(row))]
        if formats:
            size, row = min(formats, key=lambda pair: pair[0])
            said.append(f"{bar_name(row)}: {words.percent(1 - size / whole, 0)}.")
    writing = [(pace, row) for row in others if (pace := pace_of(row, dense, DECODE))]
    if writing:
        beside = [pair for pair in writing if pair[0].stderr is not None]  # one timing each names no winner over them
        pace, fast = max(beside or writing, key=lambda pair: pair[0].value)
        name, number = method_label(str(fast["method"])), len(beside or writing)
        how = "timed beside the dense model" if beside else "timed"
        timed = "The fastest" if number == len(others) else f"The fastest of the {number} that were {how}"
        timed = timed if number > 1 else f"The only one that was {how}"
        said.append(f"{timed}, **{name}**, writes at {pace.figure} times the dense model's pace.")
    else:
        said.append("No speed was timed that can be compared with the dense model's.")
    if reading := [pace.value for row in others if (pace := pace_of(row, dense, PREFILL))]:
        ends = dict.fromkeys(f"{end:.2f}" for end in (min(reading), max(reading)))
        said.append(f"Prompts they read at {' to '.join(ends)} times its pace.")
    return " ".join(said)


def _points(share: float) -> str:
    """``−12 points``, with the sign that charts write."""
    text = f"{100 * share:+.0f}".replace("-", "−")
    return f"{text} points" if text[1:] != "0" else "under 1 point"


def spending(card: ModelCard, one: Plan, two: Plan) -> str:
    """Kinds of layer that one plan favours, and how many layers each leaves dense."""
    by_kind: dict[str, list[float]] = {}
    for mine, theirs in zip(one.states(card.layers), two.states(card.layers), strict=True):
        by_kind.setdefault(words.short_kind(mine.layer.kind), []).append(mine.kept - theirs.kept)
    means = {kind: float(np.mean(gaps)) for kind, gaps in by_kind.items()}
    more, less = max(means, key=lambda kind: means[kind]), min(means, key=lambda kind: means[kind])
    return (
        f"{method_label(plan_variant(one))} gives most to `{more}` ({_points(means[more])} of its parameters) "
        f"and takes most from `{less}` ({_points(means[less])}). It leaves {len(one.dense)} of "
        f"{len(card.layers)} layers dense, {method_label(plan_variant(two))} {len(two.dense)}."
    )
