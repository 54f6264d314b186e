"""What every allocator is given and returns. An allocator knows neither text nor tokenizer: it gets token windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lrc_core.budget import check_target, dense_ranks
from lrc_core.types import LinearShape, OnProgress, ShouldStop, Structure, ignore_progress, never_stop

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lrc_core.decompose.factorise import Transform
    from lrc_core.lowrank.apply import FactorSource
    from lrc_core.registry import MethodEntry


@dataclass(frozen=True)
class PassedPlan:
    """A plan passed on the way to the target.

    Attributes:
        keep: the share of parameters it keeps, a whole percent.
        ranks: rank of every layer.
        kept: kept indices where they are not the first k.
        step: training step at which it was passed.
        gains: as of :class:`Allocation`.
    """

    keep: float
    ranks: Mapping[str, int]
    kept: Mapping[str, Sequence[int]] | None = None
    step: int = 0
    gains: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Allocation:
    """What an allocator found.

    Attributes:
        ranks: rank of every layer, within the budget.
        kept: kept indices where they are not the first k.
        details: figures worth keeping in the run's result, JSON-able.
        structure: rows and columns that are left, from a method that prunes structure; every rank is then full.
        weights: updated weights by layer, [rows, columns] as the structure leaves them.
        gains: [rank] by low-rank layer, what its first components are multiplied by; not together with ``kept``.
        formats: number formats of layers that are not in 16 bits, from a method that was given bytes.
    """

    ranks: Mapping[str, int]
    kept: Mapping[str, Sequence[int]] | None = None
    details: Mapping[str, Any] | None = None
    structure: Structure | None = None
    weights: Mapping[str, Tensor] | None = None
    gains: Mapping[str, Tensor] | None = None
    formats: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Bytes:
    """A budget in bytes.

    Attributes:
        allowed: bytes that the block linears may take.
        vary: what may be chosen, one of :data:`~lrc_core.formats.budgets.VARY`.
    """

    allowed: int
    vary: str


@dataclass(frozen=True)
class Latency:
    """A budget in time, one token at a time on this device.

    Attributes:
        share: of what the block linears take dense.
        times: seconds of every layer by rank, at some ranks; the full rank is the dense layer.
    """

    share: float
    times: Mapping[str, Mapping[int, float]]


def _ignore_recorded(_: PassedPlan) -> None:
    """Nobody wants the plans on the way."""


def _no_weighing() -> Iterator[tuple[int, Mapping[str, Transform]]]:
    """Nobody knows how errors weigh."""
    yield from ()


def _ignore_ranks(_: int, __: float, ___: Mapping[str, int]) -> None:
    """Nobody watches the ranks change."""


@dataclass(frozen=True)
class Context:
    """What an allocator works with.

    Attributes:
        model: the dense model in evaluation mode; every allocator leaves it as it found it.
        layers: its block linears.
        source: factors and spectra of every layer.
        decomposition: name of the decomposition that they come from.
        windows: ``windows(count, window, seed)`` gives [n, window] token ids of the calibration text.
        keep: share of the block linears' parameters to keep.
        seed: for everything random.
        checkpoint: a folder of the allocator's own, kept between attempts of the same run.
        shared: a folder of all runs that differ in nothing but their target, for what does not depend on it.
        common: a folder of all runs, whatever their method, of the same model, factors, calibration text and seed, for
            measurements that several methods read.
        on_progress: called at every step.
        should_stop: asked at every step.
        on_recorded: called with every plan passed on the way.
        on_ranks: ``on_ranks(step, keep, ranks)``, called now and then with the ranks as they stand.
        bytes: the budget where it is one in bytes; ``keep`` is not read then.
        latency: the budget where it is one in time; ``keep`` is not read then either.
        weighing: how the decomposition weighs the errors of every layer, block by block; read anew at every call.
    """

    model: nn.Module
    layers: tuple[LinearShape, ...]
    source: FactorSource
    decomposition: str
    windows: Callable[[int, int, int], Tensor]
    keep: float
    seed: int
    checkpoint: Path
    shared: Path
    common: Path
    on_progress: OnProgress = ignore_progress
    should_stop: ShouldStop = never_stop
    on_recorded: Callable[[PassedPlan], None] = _ignore_recorded
    on_ranks: Callable[[int, float, Mapping[str, int]], None] = _ignore_ranks
    bytes: Bytes | None = None
    latency: Latency | None = None
    weighing: Callable[[], Iterator[tuple[int, Mapping[str, Transform]]]] = _no_weighing

    @property
    def by_parameters(self) -> bool:
        """Whether the budget is the share of parameters to keep."""
        return self.bytes is None and self.latency is None


class Allocator(Protocol):
    """The function that a registry entry loads."""

    def __call__(self, context: Context, settings: Any) -> Allocation:
        """Choose the ranks.

        Raises:
            BudgetError: the target is impossible.
            CancelledError: ``context.should_stop`` said so; the checkpoint lets the next attempt go on.
        """


def allocated(entry: MethodEntry, context: Context, settings: Any) -> Allocation:
    """What a method finds; see :class:`Allocator`. Where every parameter is kept, the dense model."""
    if context.by_parameters:
        check_target(context.layers, context.keep)
        if context.keep >= 1:
            return Allocation(dense_ranks(context.layers))
    method: Allocator = entry.load()
    return method(context, settings)
