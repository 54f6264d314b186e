"""How fast a model is beside the dense one. A ratio is only of timings that can be compared. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrc_core.quality.rows import dense_row
from lrc_core.words import measured

Row = Mapping[str, Any]
PREFILL, DECODE = "prefill", "decode"
PACES = {DECODE: "writes", PREFILL: "reads prompts"}
"""What is timed, as sentences call it."""


@dataclass(frozen=True)
class Pace:
    """Tokens per second over the dense model's.

    Attributes:
        value: above 1 is faster.
        stderr: its standard error; None where each was timed by a run of its own, so that it is not known.
    """

    value: float
    stderr: float | None

    @property
    def figure(self) -> str:
        """``0.93 ± 0.02``, and ``≈ 0.93`` where the error is not known."""
        return f"≈ {self.value:.2f}" if self.stderr is None else measured(self.value, self.stderr)


def pace_of(row: Row, dense: Row | None, what: str) -> Pace | None:
    """A row's speed over the dense model's.

    Args:
        row: as measured; ``cost`` holds ``paces`` where its run timed the dense model beside it, and ``dense`` where
            another run of the same comparison did.
        dense: the dense model's row, which serves where there is neither.
        what: ``prefill`` or ``decode``.

    Returns:
        None where nothing comparable was timed: a row without a speed, or a dense row of another precision, which
        means another computer.
    """
    cost = row.get("cost") or {}
    speed = cost.get(f"{what}_tokens_per_s")
    if not speed:
        return None
    if timed := (cost.get("paces") or {}).get(what):
        return Pace(timed["value"], timed["stderr"])
    if base := (cost.get("dense") or {}).get(f"{what}_tokens_per_s"):
        return Pace(speed / base, None)
    other = (dense or {}).get("cost") or {}
    base = other.get(f"{what}_tokens_per_s")
    return Pace(speed / base, None) if base and _width(cost) == _width(other) else None


def flat_cost(row: Row, dense: Row | None) -> dict[str, Any]:
    """A row's cost as columns of a table, paces with their errors among them."""
    record = {key: value for key, value in (row.get("cost") or {}).items() if not isinstance(value, Mapping | list)}
    for what in PACES:
        if pace := pace_of(row, dense, what):
            record |= {f"{what}_times_dense": pace.value, f"{what}_times_dense_stderr": pace.stderr}
    return record


def beside_its_dense(rows: Sequence[Row]) -> list[Row]:
    """Rows of one run, each with the speeds of that run's dense model, so that no other run's stand in for them."""
    cost = (dense_row(rows) or {}).get("cost") or {}
    base = {name: cost[name] for name in ("prefill_tokens_per_s", "decode_tokens_per_s") if cost.get(name)}
    return [
        {**row, "cost": {**row["cost"], "dense": base}}
        if base and row["method"] != "dense" and _lacks_dense(row, cost)
        else row
        for row in rows
    ]


def _lacks_dense(row: Row, dense: Mapping[str, Any]) -> bool:
    cost = row.get("cost") or {}
    return bool(cost) and not {"dense", "paces"} & cost.keys() and _width(cost) == _width(dense)


def _width(cost: Mapping[str, Any]) -> int:
    """Bytes of a parameter as the computer held it."""
    return round(cost["bytes"] / cost["params"]) if cost.get("bytes") and cost.get("params") else 0
