"""What models of real sizes take: measured by ``lrc bench memory``, and on paper in ``lrc doctor MODEL``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrc_core.cli.follow import ProgressLine
from lrc_core.cli.output import answer, emit, emit_table, note
from lrc_core.errors import SettingsError
from lrc_core.words import count, data_size, duration

if TYPE_CHECKING:
    from lrc_core.models.preflight import Preflight

_PEAKS = ("data", "anonymous", "resident")


def memory(arguments: argparse.Namespace) -> None:
    """Run the bench and print a table of phases."""
    from lrc_core.bench.memory import PARTS  # torch
    from lrc_core.bench.memory import memory as measure

    with ProgressLine() as line:
        found = measure(
            arguments.size,
            tuple(arguments.part or PARTS),
            limit=round(arguments.limit * 2**30),
            blocks=arguments.blocks,
            folder=Path(arguments.folder) if arguments.folder else None,
            on_progress=line.on_progress,
        )
    answer(arguments, found, _print)


def _print(found: dict[str, Any]) -> None:
    emit(f"limit {data_size(found['limit'])} of data (RLIMIT_DATA)")
    for part in ("blocks", "stream"):
        if part not in found:
            continue
        model = found[part]["model"]
        emit(f"\n{part}: {count(model['params'])} parameters in {model['blocks']} blocks")
        emit_table(
            ["phase", "time", "processor", "on paper", "data", "in use", "with files", "on paper"],
            [
                [
                    one["phase"],
                    duration(one["seconds"]),
                    duration(one["processor_seconds"]),
                    duration(one["paper_seconds"]) if "paper_seconds" in one else "",
                    *(data_size(one[name]) for name in _PEAKS),
                    data_size(one["paper_memory"]) if "paper_memory" in one else "",
                ]
                for one in found[part]["phases"]
            ],
        )
    if stream := found.get("stream"):
        for kind, seconds in stream["phases"][-1]["matrices"].items():
            emit(f"{kind}: {seconds:.1f} s")
        every = duration(stream["seconds_of_all_blocks"])
        emit(f"{stream['seconds_per_block']:.0f} s a block: {every} for the 80 blocks of a 70B model")


def costs_of(model: Preflight, cards: Sequence[str]) -> dict[str, Any] | None:
    """What everything costs for a model, on this machine and with cards; None where its shapes are not known.

    Raises:
        SettingsError: a card that is not known.
    """
    from lrc_core.bench.cost import CARDS, Reading, estimates, with_card
    from lrc_core.bench.machine import machine_speeds  # torch

    if unknown := set(cards) - set(CARDS):
        raise SettingsError(f"There are no figures of a GPU {sorted(unknown)[0]!r}.", f"Known: {', '.join(CARDS)}.")
    if model.sizes is None:
        return None
    here, reading = machine_speeds(), Reading()
    machines = {"here": here, **{name: with_card(here, CARDS[name]) for name in cards}}
    known = {name: estimates(model.sizes, speeds, reading, model.memory_needed) for name, speeds in machines.items()}
    rows = [
        {**asdict(one), "seconds": {name: known[name][number].seconds for name in machines}}
        for number, one in enumerate(known["here"])
    ]
    return {"reading": asdict(reading), "speeds": asdict(here), "rows": rows}


def print_costs(costs: dict[str, Any] | None, model: dict[str, Any]) -> None:
    """A row for each thing that can be asked for."""
    if costs is None:
        return
    free, disk = model["memory_available"], model["disk_available"]
    machines = list(costs["rows"][0]["seconds"])
    emit_table(
        ["costs", "memory", "fits", "disk", *(f"time {name}" for name in machines)],
        [
            [
                one["what"],
                data_size(one["memory"]),
                "no" if one["memory"] > free or one["disk"] > disk else "yes, whole" if one["whole"] else "yes",
                data_size(one["disk"]),
                *(duration(one["seconds"][name]) for name in machines),
            ]
            for one in costs["rows"]
        ],
    )
    reading = costs["reading"]
    note(
        f"For {reading['windows']} windows of {reading['window']} tokens, from throughputs measured here: an estimate, "
        "without the seconds in which a job starts; the long phases of a 1.1 B model came within 1.4 times of it "
        "(docs/scale.md). What does not need the whole model has one block in memory at a time."
    )
    if costs["speeds"]["busy"]:
        note("This machine was busy while its throughputs were measured: it takes less time when it is not.")
