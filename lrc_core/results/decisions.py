"""The choices that a decision about one model is made from: its measured rows, and models beside it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from lrc_core.errors import LrcError
from lrc_core.formats.grids import BF16
from lrc_core.quality.decision import REFERENCE, Choice, choices
from lrc_core.quality.rows import Scores
from lrc_core.results.archive import archive, recorded_rows
from lrc_core.results.comparisons import Group, Row
from lrc_core.runs.spec import ModelRef, QualitySpec
from lrc_core.runs.store import RunStore


def decision_of(ref: ModelRef, group: Group, decomposition: str | None = None) -> list[Choice]:
    """Every choice of a group, and the reference models of its benches.

    Args:
        group: what was measured alike.
        decomposition: that plans of a rate are under, None for any; what has none is always among them, and what was
            chosen for a budget in bytes.
    """
    known = archive().newest_card(ref)
    if known is None:
        return []
    whole = BF16.block_bytes * known[0].params_total
    rows = group.rows if decomposition is None else [*group.at(decomposition, None), *group.by_bytes]
    return choices([*rows, *_references(group)], whole, Scores(RunStore().root))


def _references(group: Group) -> Sequence[Row]:
    """Other models that a bench of the group measured; its rows of this model are in the group."""
    found: list[Row] = []
    for view in group.views:
        if isinstance(view.spec, QualitySpec):
            with suppress(LrcError):
                found += [row for row in recorded_rows(view) if row.get("method") == REFERENCE and "error" not in row]
    return found
