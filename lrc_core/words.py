"""Numbers as people read them: shares, sizes, durations, values with their errors. No torch."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from typing import Any

from lrc_core.budget import removed_share

_EXACT = 1e-9
"""Shares this close to nothing or to all are that: sums of floats are no closer."""


def percent(share: float | None, digits: int = 1, *, fixed: bool = False) -> str:
    """0.2 -> ``20 %``; at most ``digits`` decimals, none where they say nothing; ``fixed`` keeps them, for columns.

    What is not nothing is not rounded to it, nor what is not all: 0.0003 -> ``under 0.1 %``, 0.9997 -> ``over 99.9 %``.
    """
    if share is None or not math.isfinite(share):
        return "–"
    text = f"{100 * share:.{digits}f}"
    least = 10.0**-digits
    if _EXACT < share < 1 - _EXACT and not fixed and float(text) in (0.0, 100.0):
        return f"under {least:g} %" if share < 0.5 else f"over {100 - least:g} %"
    return f"{text.rstrip('0').rstrip('.') if '.' in text and not fixed else text} %"


def removed(keep: float, digits: int = 1) -> str:
    """What is removed where ``keep`` is kept: 0.8 -> ``20 %``."""
    return percent(removed_share(keep), digits)


def count(number: float) -> str:
    """106_168_320 -> ``106.2 M``."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"


def how_many(number: int, noun: str) -> str:
    """``1 layer``, ``1,200 layers``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def stay_dense(dense: int, layers: int) -> str:
    """``17 of 210 layers stay dense``, ``No layer stays dense``."""
    if not dense:
        return "No layer stays dense"
    return f"{dense} of {how_many(layers, 'layer')} {'stays' if dense == 1 else 'stay'} dense"


def data_size(number: float) -> str:
    """Bytes in decimal units: ``212.3 MB``."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(number) >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} bytes"


def megabytes(number: float) -> str:
    """Bytes for a column in MB, to four digits whatever their size: ``269.0``, ``0.05123``."""
    return significant(number / 1e6, 4)


def duration(seconds: float | None) -> str:
    """75 -> ``1 min 15 s``."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ago(moment: float | None) -> str:
    """A moment in the past as a distance from now."""
    if not moment:
        return "–"
    distance = max(0.0, time.time() - moment)
    if distance < 10:
        return "just now"
    if distance < 86_400:
        return f"{duration(distance)} ago"
    return time.strftime("%-d %b %Y", time.localtime(moment))


def figure(value: Any, digits: int = 4) -> str:
    """A number with so many significant digits; ``–`` for what is not one."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def times(factor: Any) -> str:
    """1.068 -> ``1.07``, 5.253 -> ``5.3``: below 2 two decimals, as there the excess over 1 is what is told."""
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not math.isfinite(factor):
        return "–"
    return f"{factor:.2f}" if abs(factor) < 1.995 else figure(factor, 2)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as lines of columns: words to the left, numbers to the right."""
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    numeric = [all(_is_number(row[column]) for row in table[1:]) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in table
    )


def _is_number(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell[0] in "-–+."


def with_error(value: float, error: float | None, digits: int = 2) -> str:
    """``17.31 ± 0.42``."""
    if not error:
        return f"{value:,.{digits}f}"
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def in_percent(share: float, error: float | None) -> str:
    """0.437 -> ``43.7 ± 1.8``: a share and its error in percent, where the heading has the sign."""
    return with_error(100 * share, None if error is None else 100 * error, 1)


def significant(value: Any, digits: int = 3) -> str:
    """11.04 -> ``11.0``, 1134.2 -> ``1,130``: always so many digits, zeros at the end too; ``–`` for no number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return "–"
    if not value:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"


def rounded(value: float, error: float | None) -> str:
    """``38.7``, ``560``: a value alone, to the place that its error allows."""
    return measured(value, error).split(" ± ")[0]


def measured(value: float, error: float | None) -> str:
    """``38.7 ± 1.9``, ``560 ± 240``: two digits of the error, the value to the same place."""
    if not error or not math.isfinite(error) or error < 0:
        return figure(value, 3)
    digits = 1 - math.floor(math.log10(error))
    shown = round(error, digits)
    digits = 1 - math.floor(math.log10(shown))  # 0.996 has become 1.0
    decimals = max(0, digits)
    return f"{round(value, digits):,.{decimals}f} ± {shown:,.{decimals}f}"


def short_kind(kind: str) -> str:
    """``self_attn.q_proj`` -> ``q_proj``: the last part, which is what columns have room for."""
    return kind.rsplit(".", 1)[-1]


def kind_labels(kinds: tuple[str, ...]) -> dict[str, str]:
    """A short label for every kind; the full path where the last part alone would be ambiguous."""
    short = [short_kind(kind) for kind in kinds]
    return {kind: label if short.count(label) == 1 else kind for kind, label in zip(kinds, short, strict=True)}


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def words_in(text: str) -> list[str]:
    """The words of a text as one counts different ones: without capitals and the marks around them."""
    return [re.sub(r"^\W+|\W+$", "", word).casefold() or word for word in text.split()]
