"""What ``lrc export`` prints."""

from __future__ import annotations

from typing import Any

from lrc_core.cli.output import emit, emit_table
from lrc_core.runs.store import Run
from lrc_core.words import data_size, percent


def print_export(_: Run, result: dict[str, Any]) -> None:
    """Where the folder is, how large, what the check found, and how to load it."""
    check = result["check"]
    emit_table(
        ["form", "weights", "of the original", "precision", "loaded again", "perplexity", "in memory"],
        [
            [
                result["form"],
                data_size(result["weight_bytes"]),
                percent(result["weight_bytes"] / result["base_weight_bytes"]),
                result["dtype"],
                *(_compared(check) if check["windows"] else ("no, read back", "–", "–")),
            ]
        ],
    )
    for way in result["ways"]:
        emit(f"\n{way['title']}:\n")
        emit("\n".join(f"    {line}" for line in way["code"].splitlines()))
    emit(f"\nFolder: {result['folder']}")


def _compared(check: dict[str, Any]) -> tuple[str, str, str]:
    bits = "same bits" if check["equal"] else f"within {check['difference']:.1e}"
    return bits, f"{check['perplexity']:.4f}", f"{check['expected']:.4f}"
