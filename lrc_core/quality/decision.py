"""What a decision hangs on: bytes against loss for every way to make a model smaller that was measured. No torch.

A size is of the whole model and a share of the dense model in 16 bits. A loss is perplexity over the dense model's,
as geometric mean over the texts that every row was measured on.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from lrc_core.formats.grids import METHODS
from lrc_core.plan import PAIR, bits_word, storage_of
from lrc_core.quality.alternatives import SLACK, Difference, mean_difference
from lrc_core.quality.quantised import compresses, share_of
from lrc_core.quality.rows import Scores, dense_row
from lrc_core.quality.tables import row_label
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.words import percent, removed

Row = Mapping[str, Any]
DENSE, FORMAT, RANKS, PIVOTS, TUNED, BITS, PRUNED, REFERENCE = (
    "dense", "format", "ranks", "pivots", "tuned", "bits", "pruned", "reference",
)  # fmt: skip
KINDS = {
    DENSE: "Dense model",
    FORMAT: "Just quantised",
    RANKS: "Ranks, pairs",
    PIVOTS: "Ranks, pivots",
    TUNED: "Ranks, updated or tuned",
    BITS: "Ranks and bits",
    PRUNED: "Pruned",
    REFERENCE: "Other models",
}
"""Ways to a smaller model, in the order of legends."""
LOW_RANK = (RANKS, PIVOTS, TUNED, BITS)
"""Those that choose ranks."""


@dataclass(frozen=True)
class Choice:
    """One model that was measured.

    Attributes:
        row: as measured.
        name: of the model.
        kind: one of :data:`KINDS`.
        share: of the bytes of the dense model in 16 bits, all parameters.
        size: bytes of the whole model.
        loss: log-perplexity minus the dense model's, in nats, mean over the texts; 0 for the dense model.
        stderr: its standard error; None where it is not known.
        texts: that the loss is the mean over.
        scores: single outcomes of the runs, where there are any.
    """

    row: Row
    name: str
    kind: str
    share: float
    size: float
    loss: float
    stderr: float | None
    texts: tuple[str, ...]
    scores: Scores | None = field(default=None, compare=False, repr=False)

    def against(self, other: Choice) -> Difference:
        """How much more it loses than another one."""
        return mean_difference(self.row, other.row, self.texts, self.scores)

    @property
    def times(self) -> float:
        """Perplexity over the dense model's."""
        return math.exp(self.loss)

    @property
    def times_error(self) -> float | None:
        """Standard error of :attr:`times`."""
        return None if self.stderr is None else self.times * self.stderr


def choices(rows: Sequence[Row], whole: int, scores: Scores | None = None) -> list[Choice]:
    """All rows that have a size and a loss, the smallest first.

    Args:
        rows: measured alike.
        whole: bytes of the dense model in 16 bits.
        scores: single outcomes of the runs, for paired errors.

    Returns:
        None of them where the dense model was not measured: there is no loss without it.
    """
    measured = [row for row in rows if "error" not in row and row.get("perplexity")]
    dense = dense_row(measured)
    if dense is None:
        return []
    texts = tuple(text for text in dense["perplexity"] if all(text in row["perplexity"] for row in measured))
    bases: dict[str, set[str]] = {}
    for row in measured:
        if compresses(row) and row.get("decomposition"):
            bases.setdefault(row_label(row), set()).add(str(row["decomposition"]))
    several = {name for name, found in bases.items() if len(found) > 1}
    found = [_choice(row, dense, texts, whole, scores, row_label(row) in several) for row in measured] if texts else []
    return sorted((one for one in found if one is not None), key=lambda one: (one.size, one.loss))


def series_of(found: Sequence[Choice]) -> list[tuple[str, list[Choice]]]:
    """Choices that are one way at several sizes, the smallest first, with what a picture writes beside them.

    That is the method, as shapes say the way; its decomposition too where that alone tells two of a shape apart.
    """
    grouped: dict[tuple[str, str, str], list[Choice]] = {}
    for one in sorted(found, key=lambda choice: choice.size):
        name = one.name if one.kind == REFERENCE else row_label({"method": str(one.row["method"]).partition("+")[0]})
        basis = str(one.row.get("decomposition") or "") if one.kind in LOW_RANK else ""
        grouped.setdefault((name.removesuffix(" alone"), one.kind, basis), []).append(one)
    alike = Counter((name, kind) for name, kind, _ in grouped)
    return [
        (
            f"{name}, {DECOMPOSITIONS.get(basis).label}" if alike[name, kind] > 1 and basis in DECOMPOSITIONS else name,
            ways,
        )
        for (name, kind, basis), ways in grouped.items()
        if kind != DENSE
    ]


def _choice(
    row: Row, dense: Row, texts: tuple[str, ...], whole: int, scores: Scores | None, several: bool
) -> Choice | None:
    size = _size(row, whole)
    if size is None:
        return None
    lost = mean_difference(row, dense, texts, scores)
    loss, stderr = (0.0, 0.0) if row is dense else (lost.value, lost.stderr)
    return Choice(row, _name(row, several), _kind(row), size / whole, size, loss, stderr, texts, scores)


def _size(row: Row, whole: int) -> float | None:
    """Bytes of the whole model, as counted when it was measured, else from its share of the parameters."""
    if row["method"] == "dense":
        return float(whole)
    if row.get("model_bytes"):
        return float(row["model_bytes"])
    kept = row.get("keep_whole_model")
    return None if kept is None else float(kept) * whole


def _kind(row: Row) -> str:
    method = str(row["method"]).partition("+")[0]
    if method in (DENSE, REFERENCE):
        return method
    if method in METHODS or (row.get("formats") and row.get("dense_layers", -1) == row.get("layers")):
        return FORMAT
    if method in ALLOCATORS and ALLOCATORS.get(method).structured:
        return PRUNED
    if bits_word(method, row.get("formats")):
        return BITS
    if row.get("update"):
        return TUNED
    return RANKS if storage_of(row) == PAIR else PIVOTS


def _name(row: Row, several: bool) -> str:
    name = row_label(row)
    if several and compresses(row) and row.get("decomposition"):
        basis = str(row["decomposition"])
        name += f", {DECOMPOSITIONS.get(basis).label if basis in DECOMPOSITIONS else basis}"
    if not compresses(row):
        return name
    if row.get("formats"):  # its budget was one in bytes, and its target says nothing of them
        share = share_of(row)
        return name if share is None else f"{name} in {percent(share, 0)} of the layers' bytes"
    return f"{name} at {removed(float(row['keep_target']))}"


def frontier(found: Sequence[Choice]) -> list[Choice]:
    """Choices that no other one beats: none is as small and loses less, or smaller and loses as little.

    Returns:
        The smallest first, each losing less than the one before it.
    """
    ordered = sorted(found, key=lambda choice: (choice.size, choice.loss))
    sizes = [one.size for one in ordered]
    least = list(accumulate((one.loss for one in ordered), min))  # of this choice and all smaller ones

    def unbeaten(one: Choice) -> bool:
        alike, smaller = bisect_right(sizes, SLACK * one.size), bisect_left(sizes, one.size / SLACK)
        return one.loss <= least[alike - 1] and (not smaller or one.loss < least[smaller - 1])

    return [one for one in ordered if unbeaten(one)]
