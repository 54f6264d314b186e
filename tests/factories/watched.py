"""A training run of an allocator with everything it told on the way, and what holds for every method that learns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from lrc_core.allocate.protocol import Allocation, Context, PassedPlan
from lrc_core.errors import CancelledError, NumericalError
from lrc_core.lowrank.apply import FactorSource
from lrc_core.models.blocks.linears import block_linears
from lrc_core.types import Progress
from tests.factories.tiny_methods import MemoryFactors, context_for, modules_of, random_windows, same_state, state_of


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
        self.recorded: list[PassedPlan] = []
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


def check_resuming(
    watched: type[WatchedRun], folder: Path, figures: Sequence[str], *, stops: Sequence[int], **more: Any
) -> WatchedRun:
    """A run that is cancelled and taken up again comes bit for bit to what one in a single go comes to.

    Args:
        watched: the method's runs.
        folder: for both.
        figures: that have to agree at every step.
        stops: after how many steps, counted from where it is taken up, the one is cancelled.
        more: settings of both.

    Returns:
        The run in a single go.
    """
    whole = watched(folder / "whole", **more)
    expected = whole.run()
    parts = [watched(folder / "parts", stop_after=steps, **more) for steps in stops]
    for part in parts:
        with pytest.raises(CancelledError):
            part.run()
    parts.append(watched(folder / "parts", **more))
    assert parts[-1].run() == expected
    assert list(itertools.chain(*(part.figures(*figures) for part in parts))) == whole.figures(*figures)
    assert list(itertools.chain(*(part.recorded for part in parts))) == whole.recorded
    assert equal_states(parts[-1].saved, whole.saved)
    return whole


def check_model_is_left(
    watched: type[WatchedRun], folder: Path, *, whole: dict[str, Any], broken: dict[str, Any] | None = None
) -> None:
    """The model is as found behind a whole run, a cancelled one and one that meets a factor that is not finite.

    Args:
        watched: the method's runs.
        folder: for them.
        whole: settings of the first.
        broken: settings of the last.
    """
    model = watched.model
    state, modules = state_of(model), modules_of(model)
    watched(folder / "whole", **whole).run()
    with pytest.raises(CancelledError):
        watched(folder / "cancelled", stop_after=2).run()
    source = MemoryFactors(model, random_windows(4, 32))
    source._factors[block_linears(model)[0].name].left.fill_(float("nan"))
    with pytest.raises(NumericalError, match=r"step \d+ "):
        watched(folder / "broken", source=source, **(broken or {})).run()
    assert modules_of(model) == modules
    assert same_state(model, state)
    assert not any(parameter.requires_grad for parameter in model.parameters())
