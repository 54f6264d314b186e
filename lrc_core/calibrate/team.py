"""Processes that calibrate together, each on a share of the windows: what they agree on and add up.

Batches are dealt out whole and in order, so that the members' sums are those of one process, added in another order:
equal to the rounding of float64.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

_WAIT = timedelta(hours=12)
"""How long a member waits for the others, who may be decomposing or reading a large model meanwhile."""


class Team(Protocol):
    """Members that walk through one model at the same time, each with weights of its own.

    Attributes:
        rank: which one this is, from 0.
        size: how many there are.
    """

    rank: int
    size: int

    def add_up(self, tensor: Tensor) -> None:
        """Put the sum over all members in its place; every member calls this in the same order."""
        ...

    def told(self, value: Any) -> list[Any]:
        """What every member says, in order."""
        ...


class _Alone:
    """One process that does everything."""

    rank, size = 0, 1

    def add_up(self, tensor: Tensor) -> None:
        """It is the sum already."""

    def told(self, value: Any) -> list[Any]:
        return [value]


ALONE: Team = _Alone()


class Processes:
    """The processes that torchrun has started, on one computer or several."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def add_up(self, tensor: Tensor) -> None:
        """One reduction over all processes."""
        dist.all_reduce(tensor)

    def told(self, value: Any) -> list[Any]:
        """Gathered from all processes, which wait for each other."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found


@contextmanager
def started_by_torchrun() -> Iterator[Team]:
    """The team of this process: alone, unless torchrun started it with others. Every process has a GPU of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_WAIT)
    try:
        yield Processes()
    finally:
        dist.destroy_process_group()


def share(team: Team, batches: int) -> range:
    """The batches that a member runs: as many as the others, or one more."""
    return range(team.rank * batches // team.size, (team.rank + 1) * batches // team.size)


def merged(team: Team, known: Mapping[str, Any]) -> dict[str, Any]:
    """What any member knows, by name; the first that knows it counts."""
    found: dict[str, Any] = {}
    for one in team.told(dict(known)):
        found = {**one, **found}
    return found
