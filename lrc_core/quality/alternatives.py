"""Why not just quantise? One sentence that the measured rows answer, also where the answer is: do. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrc_core.formats.grids import METHODS
from lrc_core.quality.paired import LEVEL, log_perplexity, normal_test
from lrc_core.quality.quantised import compresses, share_of
from lrc_core.quality.rows import Scores, mean_loss, same_windows
from lrc_core.quality.tables import row_label
from lrc_core.texts.label import text_labels
from lrc_core.words import measured, percent, removed

Row = Mapping[str, Any]
QUESTION = "Why not just quantise?"
SLACK = 1.005
"""Sizes count as equal up to half a percent: no budget is met to the byte."""


@dataclass(frozen=True)
class Difference:
    """Log-perplexity of one row minus that of another, in nats.

    Attributes:
        value: above 0 where the first is worse.
        stderr: its standard error; None where it is not known.
        p: two-sided p-value of "no difference"; None where the error is not known.
        paired: over the same windows.
    """

    value: float
    stderr: float | None
    p: float | None
    paired: bool

    @property
    def sign(self) -> int:
        """-1 or 1 where it is more than chance, else 0: the one rule, whoever says that two models differ."""
        return int(math.copysign(1, self.value)) if self.p is not None and self.p < LEVEL else 0


def difference(row: Row, other: Row, text: str, scores: Scores | None = None) -> Difference:
    """How two rows differ on a text that both were measured on, over the same windows where those are kept.

    A bench's recorded test against the dense model counts where they are not.

    Args:
        scores: single outcomes of the runs.
    """
    if scores is not None:
        mine, theirs = (
            (scores.of(str(one.get("run_id") or "-")).get("windows") or {}).get(text) for one in (row, other)
        )
        if mine and theirs and same_windows(mine, theirs):
            found = log_perplexity(mine["losses"], theirs["losses"], mine["tokens"])
            return Difference(found.difference, found.stderr, found.p, paired=True)
    recorded = (row.get("paired") or {}).get("dense") if other["method"] == "dense" else None
    if test := ((recorded or {}).get("perplexity") or {}).get(text):
        return Difference(test["difference"], test["stderr"], test["p"], paired=True)
    one, two = row["perplexity"][text], other["perplexity"][text]
    errors = [score["stderr"] / score["value"] for score in (one, two) if score.get("stderr") is not None]
    stderr = math.hypot(*errors) if len(errors) == 2 else None
    value = math.log(one["value"] / two["value"])
    return Difference(value, stderr, normal_test(value, stderr), paired=False)


def mean_difference(row: Row, other: Row, texts: Sequence[str], scores: Scores | None = None) -> Difference:
    """:func:`difference` as mean over texts that both rows were measured on, taken as independent."""
    found = [difference(row, other, text, scores) for text in texts]
    if len(found) == 1:
        return found[0]
    value = sum(one.value for one in found) / len(found)
    errors = [one.stderr for one in found if one.stderr is not None]
    stderr = math.hypot(*errors) / len(found) if len(errors) == len(found) else None
    return Difference(value, stderr, normal_test(value, stderr), all(one.paired for one in found))


def why_not_quantise(rows: Sequence[Row], scores: Scores | None = None) -> str:
    """The answer, for the best plan among the rows and the best number format that takes no more bytes.

    Args:
        rows: measured alike: formats alone, and the compressed models in question.
        scores: single outcomes of the runs, for paired errors.

    Returns:
        One sentence behind the question; "" where there is no compressed model.
    """
    known = [row for row in rows if "error" not in row and row.get("perplexity") and share_of(row) is not None]
    plans = [row for row in known if compresses(row)]
    formats = [row for row in known if row["method"] in METHODS]
    if not plans:
        return ""
    plan = min(plans, key=mean_loss)
    if not formats:
        return f"{QUESTION} That was not measured here: no row stores the layers in a number format of fewer bits."
    small = [row for row in formats if _share(row) <= SLACK * _share(plan)]
    if not small:
        least = min(formats, key=_share)
        return (
            f"{QUESTION} No format that was measured is as small: {_named(plan)} takes {_bytes(plan)} of the layers' "
            f"bytes in 16 bits, {row_label(least)} {_bytes(least)}."
        )
    return _answer(plan, min(small, key=mean_loss), scores)


def _answer(plan: Row, other: Row, scores: Scores | None) -> str:
    texts = [text for text in plan["perplexity"] if text in other["perplexity"]]
    found = {text: difference(plan, other, text, scores) for text in texts}
    signs = {one.sign for one in found.values()}
    sizes = (
        f"{row_label(other)} takes {_bytes(other)} of the layers' bytes in 16 bits; {_named(plan)} takes {_bytes(plan)}"
    )
    if not texts:
        return f"{QUESTION} {sizes}. They were measured on no text in common."
    verdict = "Do" if signs == {1} else "There is a reason" if signs == {-1} else "Not decided by perplexity"
    return f"{QUESTION} {verdict}: {sizes} and has {_ratios(found)} times its perplexity{_how(found)}."


def _ratios(found: Mapping[str, Difference]) -> str:
    """``1.24 ± 0.02 (gensim) and 1.3 (c4)``: the plan's perplexity over the format's."""
    labels, parts = text_labels(list(found)), []
    for text, one in found.items():
        ratio = math.exp(one.value)
        said = measured(ratio, None if one.stderr is None else ratio * one.stderr)
        parts.append(f"{said} ({labels[text]})")
    return " and ".join(parts)


def _how(found: Mapping[str, Difference]) -> str:
    paired = all(one.paired for one in found.values())
    said = " (± standard error, over the same windows)" if paired else " (± standard error, as if independent)"
    unsure = [text for text, one in found.items() if not one.sign]
    return said + (", which may be chance" if len(unsure) == len(found) else "")


def _named(row: Row) -> str:
    return f"{row_label(row)} at {removed(float(row['keep_target']))}"


def _share(row: Row) -> float:
    share = share_of(row)
    assert share is not None
    return share


def _bytes(row: Row) -> str:
    return percent(_share(row), 1)
