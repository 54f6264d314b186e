"""A training run of an allocator with everything it told on the way, for the tests of the methods that learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lrc_core.allocate.protocol import Allocation, Context, Recorded
from lrc_core.lowrank.apply import FactorSource
from lrc_core.types import Progress
from tests.tiny_methods import context_for


class WatchedRun:
    """One run; a method's tests derive theirs and say what is run on what.

    Attributes:
        method: ``allocate`` of the method.
        settings_of: makes its settings of what a test changes.
        model: that is compressed, unless a test brings its own; so ``source`` for the factors.
        decomposition: of the factors.
        phase: of the ticks that count as steps, "" for all.
        ticks, recorded, ranks: all that was told.
    """

    method: ClassVar[Callable[..., Allocation]]
    settings_of: ClassVar[Callable[..., Any]]
    model: ClassVar[nn.Module]
    source: ClassVar[FactorSource]
    decomposition: ClassVar[str] = "whitened"
    keep: ClassVar[float] = 0.8
    phase: ClassVar[str] = ""

    def __init__(self, folder: Path, *, keep: float | None = None, stop_after: int | None = None, **more: Any) -> None:
        self.ticks: list[Progress] = []
        self.recorded: list[Recorded] = []
        self.ranks: list[tuple[int, float, dict[str, int]]] = []
        self.context: Context = context_for(
            more.pop("model", self.model),
            folder,
            keep=self.keep if keep is None else keep,
            source=more.pop("source", self.source),
            decomposition=self.decomposition,
            on_progress=self.ticks.append,
            on_recorded=self.recorded.append,
            on_ranks=lambda step, share, ranks: self.ranks.append((step, share, dict(ranks))),
            should_stop=lambda: stop_after is not None and len(self.steps) >= stop_after,
        )
        self.settings = type(self).settings_of(**more)

    def run(self) -> Allocation:
        return type(self).method(self.context, self.settings)

    @property
    def steps(self) -> list[Progress]:
        return [tick for tick in self.ticks if not self.phase or tick.phase == self.phase]

    def figures(self, *names: str) -> list[tuple[Any, ...]]:
        """Some figures of every step that told any."""
        return [tuple(tick.values[name] for name in names) for tick in self.steps if tick.values]

    @property
    def saved(self) -> dict[str, Any]:
        """What the run would resume from."""
        found: dict[str, Any] = torch.load(self.context.checkpoint / "masks.pt", weights_only=True)
        return found


def equal_states(one: Any, other: Any) -> bool:
    """Whether two checkpoints are equal, tensors bit for bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal_states(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal_states, one, other))
    return bool(one == other)
