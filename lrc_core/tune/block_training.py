"""Training the factors of one block: its output on what it gets is brought to what the dense block puts out.

The model holds the block's low-rank layers as trained pairs while a block trains, and no other parameter moves. Adam
and its relative rates are those of :mod:`lrc_core.tune.trained_pairs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.allocate.masks.training import batch_of
from lrc_core.lowrank.linear import LowRankLinear
from lrc_core.models.blocks.linears import swapped
from lrc_core.models.blocks.partial import block_output
from lrc_core.tune.trained_pairs import Pairs, PairTraining, TrainedPair, on_cpu
from lrc_core.types import OnProgress, Progress, ShouldStop
from lrc_core.updates import BlockwiseSettings

PHASE = "refining factors"


@dataclass(frozen=True)
class RefinedBlock:
    """What training a block gave.

    Attributes:
        factors: left [m, k] and right [k, n] of its low-rank layers, in the model's precision on the CPU; those that it
            came with where training did not help.
        before: loss on the windows held back (on all where none are) with the factors that it came with.
        after: the same with these; never above ``before``.
        losses: of every step on its batch.
    """

    factors: Pairs
    before: float
    after: float
    losses: tuple[float, ...]

    @property
    def helped(self) -> bool:
        """Whether the factors are other than before."""
        return self.after < self.before


@dataclass(frozen=True)
class BlockTask:
    """A block, what it gets and what it should put out.

    Attributes:
        model: the dense model.
        index: the block's number.
        low: its low-rank layers, by full module name; off the model.
        windows: [n, window] token ids.
        inputs: [n, window, hidden], behind compressed blocks; on the CPU.
        targets: [n, window, hidden], what the dense block puts out behind dense blocks; on the CPU.
        held_back: how many windows, the last ones, are not trained on.
    """

    model: nn.Module
    index: int
    low: Mapping[str, LowRankLinear]
    windows: Tensor
    inputs: Tensor
    targets: Tensor
    held_back: int


class BlockTraining(PairTraining):
    """One run of training a block; see the module's description.

    Args:
        task: the block.
        settings: rate, batch and passes.
        checkpoint: the file that the state is kept in.
        place: steps of the blocks before, and of all blocks together.
        seed: of the order of the windows.
    """

    phase = PHASE

    def __init__(
        self,
        task: BlockTask,
        settings: BlockwiseSettings,
        checkpoint: Path,
        on_progress: OnProgress,
        should_stop: ShouldStop,
        place: tuple[int, int],
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(checkpoint, on_progress, should_stop, next(task.model.parameters()).device)
        self._task, self._settings, self._place, self._seed = task, settings, place, seed
        self._learned = task.windows[: len(task.windows) - task.held_back]
        self._batch = min(settings.batch, len(self._learned))
        self._best: list[Tensor] = []
        self._best_loss = 0.0

    def run(self) -> RefinedBlock:
        """Train to the end and take the best of what was seen.

        Raises:
            CancelledError: asked to stop; the checkpoint lets the next attempt go on bit for bit.
            NumericalError: the loss is not finite.
        """
        task = self._task
        with swapped(task.model, task.low.items()):
            before = self._check_loss()
        pairs = {name: TrainedPair(module) for name, module in task.low.items()}
        self._optimise(pairs.values(), self._settings.rate)
        self._best, self._best_loss = [], before
        self._resume()
        with swapped(task.model, pairs.items()):
            self._train(self._step, self._batch * task.windows.shape[1])
        if not self._best:
            kept = {name: (module.left, module.right) for name, module in task.low.items()}
            return RefinedBlock(on_cpu(kept), before, before, tuple(self._losses))
        for parameter, value in zip(self._parameters, self._best, strict=True):
            parameter.data.copy_(value)
        found = {name: pair.rounded() for name, pair in pairs.items()}
        return RefinedBlock(on_cpu(found), before, self._best_loss, tuple(self._losses))

    def _total(self) -> int:
        return self._settings.passes * self._steps_of_a_pass()

    def _steps_of_a_pass(self) -> int:
        return len(self._learned) // self._batch

    def _step(self) -> dict[str, float]:
        chosen, _ = batch_of(self._learned, self._batch, self.step, self._seed)
        figures = self._descend(self._loss(chosen), digits=8)
        if (self.step + 1) % self._steps_of_a_pass() == 0:
            self._keep_the_best()
        return figures

    def _loss(self, chosen: Tensor) -> Tensor:
        """Of the windows with these numbers."""
        task = self._task
        tokens, inputs = task.windows[chosen].to(self._device), task.inputs[chosen].to(self._device)
        output = block_output(task.model, tokens, task.index, inputs)
        return distance(output, task.targets[chosen].to(output.device))

    def _keep_the_best(self) -> None:
        loss = self._check_loss()
        if loss < self._best_loss:
            self._best_loss, self._best = loss, [parameter.detach().cpu().clone() for parameter in self._parameters]

    @torch.no_grad()
    def _check_loss(self) -> float:
        """Mean loss on the windows held back, on all where there are none."""
        count = len(self._task.windows)
        first = count - self._task.held_back if self._task.held_back else 0
        total = 0.0
        for chosen in torch.arange(first, count).split(self._settings.batch):
            total += float(self._loss(chosen)) * len(chosen)
        return total / (count - first)

    def _tell(self, values: Mapping[str, Any]) -> None:
        done, total = self._place
        told = {"block": self._task.index, **values}
        self._on_progress(Progress(self.phase, done + self.step, total, told))

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "best": self._best, "best_loss": self._best_loss}

    def _restore(self, state: Mapping[str, Any]) -> None:
        super()._restore(state)
        self._best, self._best_loss = list(state["best"]), float(state["best_loss"])


def distance(output: Tensor, target: Tensor) -> Tensor:
    """Squared error of every token as a share of what its target holds, averaged over tokens.

    What reads the output behind it normalises every token, so that an error counts by the token's own size; in a plain
    mean the few tokens with very large states (the first of a text) would hide all others.

    Args:
        output: [..., hidden].
        target: [..., hidden].
    """
    wanted = target.float()
    least = torch.finfo(torch.float32).tiny  # of a token that should be zero
    return ((output.float() - wanted).square().sum(-1) / wanted.square().sum(-1).clamp(min=least)).mean()
