"""What the charts of a bench say, each in one sentence computed from its rows. No Streamlit."""

from __future__ import annotations

from collections.abc import Sequence

from lrc_core import words
from lrc_core.escape import escaped
from lrc_core.names import method_label
from lrc_core.results.benches import ACCURACY, BenchRows, Row, lines, measures, points, value_of


def leaders(bench: BenchRows, measure: str, title: str) -> str:
    """The best method at every target that more than one method reached."""
    by_keep: dict[float, dict[str, float]] = {}
    for (method, _), rows in lines(bench).items():
        for keep in {float(row["keep_target"]) for row in rows}:
            found = points([row for row in rows if float(row["keep_target"]) == keep], measure, "linear")
            if found:
                values = by_keep.setdefault(keep, {})
                values[method] = _better(measure, values.get(method, found[0].y), found[0].y)
    wins: dict[str, list[str]] = {}
    for keep, values in sorted(by_keep.items(), reverse=True):
        if len(values) > 1:
            best = (max if measure == ACCURACY else min)(values, key=lambda method: values[method])
            wins.setdefault(best, []).append(words.removed(keep))
    if not wins:
        return "No target was reached by more than one method."
    said = "; ".join(f"**{method_label(method)}** at {', '.join(rates)}" for method, rates in wins.items())
    return f"Best {title[:1].lower()}{title[1:]}: {said} removed."


def _better(measure: str, one: float, two: float) -> float:
    return max(one, two) if measure == ACCURACY else min(one, two)


def worst_variant(bench: BenchRows, rows: Sequence[Row]) -> str:
    """Which variants are worst and best beside the one that the others are tested against, on the first text."""
    base = next((row for row in rows if "base" not in (row.get("paired") or {})), None)
    text = next((text for row in rows for text in row.get("perplexity") or {}), "")
    own = value_of(base, text) if base is not None else None
    if base is None or own is None:
        return ""
    values = {str(row["variant"]): value[0] for row in rows if row is not base and (value := value_of(row, text))}
    apart = {name: value for name, value in values.items() if words.figure(value, 3) != words.figure(own[0], 3)}
    read = escaped(measures(bench)[text].split(", ", 1)[1])
    start = f"“{escaped(str(base['variant']))}” has perplexity {words.figure(own[0], 3)} on {read}"
    if not apart:
        return f"{start}, and no variant differs from it."
    named = sorted(apart, key=lambda name: apart[name])
    ends = dict.fromkeys([named[-1], named[0]])
    return f"{start}; " + ", ".join(f"“{escaped(name)}” {words.figure(apart[name], 3)}" for name in ends) + "."
