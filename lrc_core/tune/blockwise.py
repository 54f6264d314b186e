"""Block-wise refinement: the factors of a plan, trained by gradient steps one decoder block after the other.

Two sets of hidden states move on together, as in :mod:`lrc_core.calibrate.update_factors`: what enters a block of the
dense model, and what enters it behind blocks that are already compressed and refined. A block's factors are trained so
that what it puts out on the second comes nearest to what the dense block puts out on the first (as in AA-SVD, arXiv
2604.02119, which does so after its closed form). So errors of earlier blocks are taken back instead of passed on, all
layers of a block learn together what a closed form can only ask of one by one, and no step runs more than one block.

Held at a time, beyond the model: both sets of hidden states on the CPU, and float32 factors of one block, their
gradients and Adam's two moments, 16 bytes a parameter, with the graph of one block on one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lrc_core.budget import stored
from lrc_core.calibrate.update_factors import low_rank_layers
from lrc_core.errors import CancelledError
from lrc_core.lowrank.apply import FactorSource
from lrc_core.lowrank.linear import LowRankLinear
from lrc_core.models.blocks.linears import block_linears, swapped
from lrc_core.models.blocks.partial import first_block_input, run_block
from lrc_core.plan import Plan
from lrc_core.tune.block_training import BlockTask, BlockTraining, RefinedBlock
from lrc_core.tune.tuner import TuningCallbacks
from lrc_core.types import LinearShape
from lrc_core.updates import BlockwiseSettings


@dataclass(frozen=True)
class BlockwiseCallbacks(TuningCallbacks):
    """The same, and what is already done.

    Attributes:
        finished: blocks that an earlier attempt has refined.
        known: their factors, by layer name and block.
    """

    finished: Collection[int] = ()
    known: Callable[[str, int], tuple[Tensor, Tensor]] | None = None


def refined_blocks(
    model: nn.Module,
    plan: Plan,
    source: FactorSource,
    windows: Tensor,
    settings: BlockwiseSettings,
    watch: BlockwiseCallbacks,
    *,
    seed: int = 0,
) -> Iterator[tuple[int, RefinedBlock]]:
    """Walk the blocks in order and yield the new factors of each that has low-rank layers.

    Args:
        model: the dense causal language model in evaluation mode; left as it was found, also between two blocks.
        plan: which layers are low-rank, and with which components.
        windows: [documents + check windows, window] token ids; fewer where the text is short.
        watch: callbacks and checkpoint; blocks that are finished are run and not yielded.

    Yields:
        Block index and what its training gave. It is finished once the next one is asked for.

    Raises:
        CancelledError: asked to stop; the next attempt goes on bit for bit.
        NumericalError: a loss is not finite.
        PlanError: the plan does not fit the model or its factors.
    """
    layers = stored(block_linears(model), plan.storage)
    plan.full_ranks(layers)  # refuses a plan of other layers before anything is run
    by_block: dict[int, list[LinearShape]] = {}
    for layer in layers:
        if layer.name in plan.ranks:
            by_block.setdefault(layer.block, []).append(layer)
    if not by_block:
        return
    walk = _Walk(model, windows, settings, watch, len(by_block), seed)
    for index in range(max(by_block) + 1):
        low = low_rank_layers(model, by_block.get(index, []), plan, source)
        walk.run_dense(index)
        if low and index in watch.finished and watch.known is not None:
            low = {name: _with(module, *watch.known(name, index)) for name, module in low.items()}
            walk.blocks_done += 1
        elif low:
            checkpoint = watch.checkpoint / f"training-{index:04d}.pt"
            found = walk.train(index, low, checkpoint)
            yield index, found
            checkpoint.unlink(missing_ok=True)
            low = {name: _with(module, *found.factors[name]) for name, module in low.items()}
        walk.run_small(index, low)


class _Walk:
    """Both streams of hidden states at the same block."""

    def __init__(
        self,
        model: nn.Module,
        windows: Tensor,
        settings: BlockwiseSettings,
        watch: BlockwiseCallbacks,
        blocks: int,
        seed: int,
    ) -> None:
        self._model, self._windows, self._settings, self._watch = model, windows, settings, watch
        self._blocks, self._seed = blocks, seed
        self._device = next(model.parameters()).device
        self.blocks_done = 0
        self._held_back = min(settings.check_windows, len(windows) // 4)  # a short text is mostly learned from
        learned = len(windows) - self._held_back
        self._steps = settings.passes * (learned // min(settings.batch, learned))
        self._small = torch.cat([first_block_input(model, tokens.to(self._device)).cpu() for tokens in self._split()])
        self._dense = self._small.clone()

    def _split(self) -> tuple[Tensor, ...]:
        return self._windows.split(self._settings.batch)

    def train(self, index: int, low: Mapping[str, LowRankLinear], checkpoint: Path) -> RefinedBlock:
        """Train a block between what both streams hold: its input and, since the dense one is ahead, its target."""
        task = BlockTask(self._model, index, low, self._windows, self._small, self._dense, self._held_back)
        place = self.blocks_done * self._steps, self._blocks * self._steps
        training = BlockTraining(
            task, self._settings, checkpoint, self._watch.on_progress, self._watch.should_stop, place, seed=self._seed
        )
        self.blocks_done += 1
        return training.run()

    def run_dense(self, index: int) -> None:
        """Move what the dense model makes of the text behind a block."""
        self._run(index, self._dense)

    def run_small(self, index: int, low: Mapping[str, nn.Module]) -> None:
        """The same for the compressed model, whose low-rank layers of this block are given."""
        with swapped(self._model, low.items()):
            self._run(index, self._small)

    def _run(self, index: int, stream: Tensor) -> None:
        size = self._settings.batch
        for number, tokens in enumerate(self._split()):
            if self._watch.should_stop():
                raise CancelledError("Refinement was cancelled.", "Resume the run: what is trained is kept.")
            part = slice(number * size, number * size + len(tokens))
            hidden = stream[part].to(self._device)
            stream[part] = run_block(self._model, tokens.to(self._device), index, hidden).cpu()


def _with(module: LowRankLinear, left: Tensor, right: Tensor) -> LowRankLinear:
    """A low-rank layer with other factors. Its own may share their memory with the plan's and stay as they are."""
    return LowRankLinear(left.to(module.left.device), right.to(module.right.device), module.bias)
