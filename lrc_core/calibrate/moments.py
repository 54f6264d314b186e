"""Second moments and mean absolute values of the inputs of every block linear, accumulated in a stream.

The model is walked block by block: the hidden states of all windows move on together, so at any time only one block's
statistics and one set of hidden states are held, however deep the model is. Linears that receive the same tensor
(query, key and value; gate and up) share one statistic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.calibrate.sums import add_absolute, add_square, mirror, square_sum
from lrc_core.calibrate.team import ALONE, Team, merged, share
from lrc_core.decompose.factorise import InputStatistics, is_finite_matrix
from lrc_core.errors import CancelledError, NumericalError
from lrc_core.models.blocks.linears import get_module
from lrc_core.models.blocks.partial import first_block_input, run_block
from lrc_core.models.onload.hidden_states import Shelf
from lrc_core.types import LinearShape, OnProgress, Progress, ShouldStop, ignore_progress, never_stop


@dataclass(frozen=True)
class BlockStatistics:
    """Statistics of one block.

    Attributes:
        group_of: input group of every linear, by full module name; experts that no token reached have none.
        groups: statistics of every input group.
    """

    group_of: dict[str, str]
    groups: dict[str, InputStatistics]

    def of(self, name: str) -> InputStatistics:
        """Statistics of a linear's inputs."""
        return self.groups[self.group_of[name]]


class _Accumulator:
    """Running sums over the inputs of one group."""

    def __init__(self, features: int, device: torch.device) -> None:
        self.second = square_sum(features, device)
        self.absolute = self.second.new_zeros(features)
        self.tokens = 0

    def add(self, inputs: Tensor) -> None:
        rows = inputs.detach().reshape(-1, inputs.shape[-1])
        add_square(self.second, rows)
        add_absolute(self.absolute, rows)
        self.tokens += rows.shape[0]

    def add_up(self, team: Team) -> None:
        """The sums over all members of a team."""
        team.add_up(self.second)
        rest = torch.cat([self.absolute, self.absolute.new_tensor([self.tokens])])
        team.add_up(rest)
        self.absolute, self.tokens = rest[:-1], int(rest[-1])

    def finish(self, name: str) -> InputStatistics:
        second = mirror(self.second.div_(self.tokens)).float().cpu()  # in place: of a wide layer it is half a gigabyte
        if not is_finite_matrix(second):
            raise NumericalError(
                f"The inputs of {name} are not finite on the calibration text.",
                "Check the model for NaN weights, or compute in float32.",
            )
        return InputStatistics(second, (self.absolute / self.tokens).float().cpu(), self.tokens)


class _Recorder:
    """Forward pre-hooks on the linears of one block; removes its own handles."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.group_of: dict[str, str] = {}
        self.sums: dict[str, _Accumulator] = {}
        self._seen: dict[tuple[int, int], str] = {}
        self._alive: list[Tensor] = []
        self._handles = [get_module(model, name).register_forward_pre_hook(self._hook(name)) for name in names]

    def _hook(self, name: str) -> Any:
        def record(_: nn.Module, args: tuple[Any, ...]) -> None:
            inputs: Tensor = args[0]
            # The same storage at the same version is the same input; it is kept alive so that no address is reused.
            key = (inputs.data_ptr(), inputs._version)
            if key not in self._seen:
                self._seen[key] = name
                self._alive.append(inputs)
                self.sums.setdefault(name, _Accumulator(inputs.shape[-1], inputs.device)).add(inputs)
            self.group_of[name] = self._seen[key]

        return record

    def next_batch(self) -> None:
        """Forget which tensors were seen; statistics stay."""
        self._seen.clear()
        self._alive.clear()

    def add_up(self, team: Team, device: torch.device) -> None:
        """The sums over all members of a team, some of which no token may have reached (of an expert, say)."""
        if team.size == 1:
            return
        self.group_of = merged(team, self.group_of)
        widths = merged(team, {name: len(sums.absolute) for name, sums in self.sums.items()})
        self.sums = {name: self.sums.get(name) or _Accumulator(width, device) for name, width in widths.items()}
        for sums in self.sums.values():
            sums.add_up(team)

    def finished(self) -> dict[str, InputStatistics]:
        """Statistics of every group, whose sums are given up one by one."""
        return {name: self.sums.pop(name).finish(name) for name in [*self.sums]}

    def __enter__(self) -> _Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self.next_batch()


def block_statistics(
    model: nn.Module,
    layers: Sequence[LinearShape],
    windows: Tensor,
    *,
    batch: int = 8,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    team: Team = ALONE,
) -> Iterator[tuple[int, BlockStatistics]]:
    """Walk the blocks in order and yield the statistics of each.

    Args:
        model: a causal language model in evaluation mode; left as it was found.
        windows: [n, window] token ids.
        team: who shares the windows; every member yields the statistics of all of them.

    Yields:
        Block index and its statistics.

    Raises:
        NumericalError: inputs are not finite; names the layer.
    """
    device = next(model.parameters()).device
    chunks = windows.split(batch)
    batches = [chunks[number].to(device) for number in share(team, len(chunks))]
    blocks = range(max(layer.block for layer in layers) + 1)  # also through blocks that have none of the layers
    shelf = Shelf(model, 0)  # one set of states is small beside a block
    hidden = [shelf.put(first_block_input(model, tokens)) for tokens in batches]
    for index in blocks:
        names = [layer.name for layer in layers if layer.block == index]
        with _Recorder(model, names) as recorder:
            for position, tokens in enumerate(batches):
                if should_stop():
                    raise CancelledError("Calibration was cancelled.")
                recorder.next_batch()
                output = run_block(model, tokens, index, hidden[position].to(device))
                hidden[position] = shelf.put(output)
                done = index * len(batches) + position + 1
                on_progress(Progress("collecting second moments", done, len(blocks) * len(batches)))
            recorder.add_up(team, device)
        yield index, BlockStatistics(recorder.group_of, recorder.finished())  # nothing here holds them any longer
