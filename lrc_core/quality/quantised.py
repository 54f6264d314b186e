"""Rows that need no ranks: every block linear in one number format, what a user could pick instead of a plan. No torch.

Such a row is a plan like any other, measured like any other: all layers dense, and a format for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lrc_core.budget import dense_ranks
from lrc_core.formats.grids import BF16, FORMATS, METHODS, QUANTISED, format_named, method_of
from lrc_core.formats.sizes import rest_bytes, whole_bytes
from lrc_core.plan import Plan, make_plan
from lrc_core.types import ModelCard

Row = Mapping[str, Any]
FORMAT_LABELS = {method_of(name): f"{name} alone" for name in QUANTISED}
"""What such rows are called."""
_NO_FACTORS = "svd"
"""Decomposition of plans that have no factors; it reads no text."""


def quantised_plan(card: ModelCard, name: str) -> Plan:
    """Every block linear in a format; those whose rows are no whole blocks stay in 16 bits.

    Args:
        name: of the format.

    Raises:
        UnknownNameError: there is no such format.
    """
    form = format_named(name)
    plan = make_plan(
        card, dense_ranks(card.layers), decomposition=_NO_FACTORS, method=method_of(form.name), keep_target=1.0
    )
    return replace(plan, formats={layer.name: form.name for layer in card.layers if form.fits(layer.in_features)})


def targeted(row: Row) -> bool:
    """Whether a row stands at a target, which neither another model does nor a number format alone."""
    return row["method"] not in ("reference", *METHODS)


def compresses(row: Row) -> bool:
    """Whether a row is a compressed model at a target: not the dense one, no reference, no format alone."""
    return row["method"] != "dense" and targeted(row)


def at_rate(row: Row) -> bool:
    """Whether a compressed model's budget was a share of parameters, so that it stands beside others of that share.

    Ranks and formats that were chosen for a budget in bytes do not: what they keep of the parameters says little.
    """
    return compresses(row) and not row.get("budget")


def sizes_of(card: ModelCard, plan: Plan | None) -> dict[str, Any]:
    """Columns of a row: bytes of its block linears as a share of 16 bits, and bytes of the whole model."""
    share = 1.0 if plan is None else plan.bytes_share(card.layers)
    blocks = round(share * whole_bytes(card.layers))
    return {"bytes_share": share, "model_bytes": blocks + rest_bytes(card)}


def served_bytes(row: Row) -> int | None:
    """Bytes of the whole model as it is served: in its number formats, and in 16 bits where it has none.

    Never what the computer held that measured it, which may run in 32 bits: rows of two computers stand side by side.
    """
    params = (row.get("cost") or {}).get("params")
    size = row.get("model_bytes") or (params and BF16.block_bytes * params)
    return int(size) if size else None


def share_of(row: Row) -> float | None:
    """Share of the bytes of a row; of one that was measured before bytes were counted, its share of parameters."""
    share = row.get("bytes_share", row.get("keep_achieved"))
    return None if share is None else float(share)


def format_notes(card: ModelCard, plan: Plan, packed: str) -> list[str]:
    """What has to be known to read the figures of a plan with number formats.

    Args:
        plan: the plan.
        packed: types that its weights were packed in before, with their bits per weight; "" where they never were.
    """
    if not plan.formats:
        return []
    notes = []
    if packed:
        notes.append(
            f"this model's weights come from a file in {packed}: a format of as many bits or more loses less on them "
            "than on weights in 16 bits"
        )
    widths = {FORMATS[form].block for form in plan.formats.values()}
    left_out = [layer for layer in card.layers if layer.name in plan.dense and layer.name not in plan.formats]
    odd = [layer.name for layer in left_out if any(layer.in_features % width for width in widths)]
    if odd:
        notes.append(
            f"{len(odd)} of {len(card.layers)} layers stay in 16 bits because their rows are no multiple of the "
            f"{max(widths)} numbers of a block, {odd[0]} for one"
        )
    notes.append("computed on the rounded numbers in 16 bits, so no speed was measured")
    return notes
