"""The closed-form update of a plan's factors, streamed block by block through the dense and the compressed model.

Two sets of hidden states move on together: what enters a block of the dense model, and what enters it behind blocks
that are already compressed and updated. Inside a block, linears that share their input are one group, and the groups
take turns in the order in which they run (query, key and value; output; gate and up; down): each is updated before the
next one's inputs are computed. The model itself is dense between two calls.

Cost, in runs of a block over all windows: for a group only what stands before it is run, in both models, and at the
end of the block both once in full; about four in all for four groups (a little over two of the compressed model and
under two of the dense one), against one for plain second moments, and two matrix products a group instead of one.
Groups without a low-rank layer are passed over. With the target ``compressed`` the dense model is not run. Held at a
time: the hidden states of both models, and one group's two moments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.budget import stored
from lrc_core.calibrate.paired_inputs import PairedSums, input_groups, outputs_summed
from lrc_core.coverage import is_expert
from lrc_core.decompose.update import Damped, PairedMoments, damped, output_error, update_both, update_left
from lrc_core.errors import CancelledError
from lrc_core.lowrank.apply import FactorSource, compressed
from lrc_core.lowrank.linear import LowRankLinear
from lrc_core.models.blocks.linears import block_linears, get_module, swapped, weight_of
from lrc_core.models.blocks.partial import first_block_input, run_block
from lrc_core.plan import Plan
from lrc_core.types import LinearShape, OnProgress, Progress, ShouldStop, ignore_progress, never_stop
from lrc_core.updates import UpdateSettings

Pair = tuple[Tensor, Tensor]
_PROBE_TOKENS = 8  # enough to see which linears share their input


@dataclass(frozen=True)
class LayerUpdate:
    """New factors of one layer, in the model's precision.

    Attributes:
        left: [m, k].
        right: [k, n].
        before: mean squared error of the output on the calibration text as a share of the target's energy (both weighed
            by the output root where there is one), with the plan's own factors behind updated layers; nan where the
            layer could not be looked at.
        after: the same with the new factors; never above ``before``, because factors that do not help are not taken.
    """

    left: Tensor
    right: Tensor
    before: float
    after: float


@dataclass(frozen=True)
class UpdateCallbacks:
    """Callbacks and what is already done.

    Attributes:
        finished: blocks that an earlier attempt has updated.
        known: their factors, by layer name and block.
        output_root: R of a layer for ``kind="both"``, where the plan's decomposition weighs outputs; see
            :func:`~lrc_core.decompose.update.update_both`.
        on_progress: called after every batch.
        should_stop: asked before every batch.
    """

    finished: Collection[int] = ()
    known: Callable[[str, int], Pair] | None = None
    output_root: Callable[[str], Tensor | None] = lambda _: None
    on_progress: OnProgress = ignore_progress
    should_stop: ShouldStop = never_stop


def updated_blocks(
    model: nn.Module,
    plan: Plan,
    source: FactorSource,
    windows: Tensor,
    settings: UpdateSettings,
    watch: UpdateCallbacks | None = None,
    *,
    batch: int = 8,
) -> Iterator[tuple[int, dict[str, LayerUpdate]]]:
    """Walk the blocks in order and yield the new factors of each that has low-rank layers.

    Args:
        model: the dense causal language model in evaluation mode; left as it was found, also between two blocks.
        plan: which layers are low-rank, and with which components.
        windows: [n, window] token ids.
        watch: callbacks; blocks that are finished are run and not yielded.

    Yields:
        Block index and the update of every low-rank layer in it. Layers that do not see every token once (experts)
        keep their factors, with errors that are nan.

    Raises:
        CancelledError: asked to stop; blocks that were yielded are finished.
        NumericalError: inputs are not finite; names the layer.
        PlanError: the plan does not fit the model or its factors.
    """
    if not plan.ranks:
        return
    device = next(model.parameters()).device
    layers = stored(block_linears(model), plan.storage)
    watch = watch or UpdateCallbacks()
    plan.full_ranks(layers)  # refuses a plan of other layers before anything is run
    groups = input_groups(model, layers, windows[:1, :_PROBE_TOKENS].to(device))
    by_block: dict[int, list[LinearShape]] = {}
    for layer in layers:
        by_block.setdefault(layer.block, []).append(layer)
    todo = {
        index: [] if index in watch.finished else list(_low_rank_groups(groups, mine, plan))
        for index, mine in by_block.items()
    }
    total = sum(len(mine) + 1 for mine in todo.values()) * math.ceil(len(windows) / batch)
    walk = _Walk(model, [chunk.to(device) for chunk in windows.split(batch)], settings, watch, total)
    for index, mine in by_block.items():
        low = low_rank_layers(model, mine, plan, source)
        if index in watch.finished and watch.known is not None:
            for name, module in low.items():
                _set(module, *watch.known(name, index))
        updates = walk.through(index, low, todo[index])
        if low and index not in watch.finished:
            yield index, updates


def low_rank_layers(
    model: nn.Module, mine: Sequence[LinearShape], plan: Plan, source: FactorSource
) -> dict[str, LowRankLinear]:
    """A block's low-rank layers as the plan has them, off the model."""
    ranks = {layer.name: plan.ranks.get(layer.name, layer.full_rank) for layer in mine}
    with compressed(model, mine, ranks, source, plan.kept, as_pairs=True):
        found = {layer.name: get_module(model, layer.name) for layer in mine}
    return {name: module for name, module in found.items() if isinstance(module, LowRankLinear)}


def _low_rank_groups(
    groups: Sequence[tuple[str, ...]], mine: Sequence[LinearShape], plan: Plan
) -> Iterator[tuple[str, ...]]:
    """Of a block's input groups, in running order, the low-rank layers."""
    names = {layer.name for layer in mine if not is_expert(layer.kind)} & set(plan.ranks)
    for group in groups:
        if low := tuple(name for name in group if name in names):
            yield low


class _Reached(Exception):  # noqa: N818 - control flow, not an error
    """Leaves a block as soon as the wanted input is there."""


class _Walk:
    """Both streams of hidden states at the same block."""

    def __init__(
        self, model: nn.Module, batches: list[Tensor], settings: UpdateSettings, watch: UpdateCallbacks, total: int
    ) -> None:
        self._model, self._batches, self._settings, self._watch = model, batches, settings, watch
        self._two = settings.target == "dense"
        self._small = [first_block_input(model, tokens) for tokens in batches]
        self._dense = list(self._small) if self._two else []
        self._roots: dict[str, Tensor] = {}
        self._tokens = sum(tokens.numel() for tokens in batches)
        self._step, self._total = 0, total

    def through(
        self, index: int, low: dict[str, LowRankLinear], groups: Sequence[tuple[str, ...]]
    ) -> dict[str, LayerUpdate]:
        """Update one block's groups in turn and move both streams behind it."""
        energies = {name: 0.0 for group in groups for name in group}
        self._roots = self._read_roots(list(energies))
        parts: dict[str, tuple[float, float]] = {}
        for number, group in enumerate(groups):
            last = number == len(groups) - 1
            moments = self._moments(index, low, group[0], energies if last else None)
            if moments is not None and moments.second.any():  # of zeros nothing can be learned
                parts.update(self._update(low, group, moments, energies))
        if self._two and not groups:
            self._run_dense(index)
        self._run_small(index, low)
        shares = {name: self._shares(parts.get(name), energies.get(name, 0.0)) for name in low}
        return {name: LayerUpdate(module.left.data, module.right.data, *shares[name]) for name, module in low.items()}

    def _read_roots(self, names: Sequence[str]) -> dict[str, Tensor]:
        """How outputs are weighed; all alike for the left factors, on which it has no influence."""
        if self._settings.kind == "left":
            return {}
        found = {name: self._watch.output_root(name) for name in names}
        return {name: root.to(self._double_device(name)).double() for name, root in found.items() if root is not None}

    def _double_device(self, name: str) -> torch.device:
        """Where a layer's double precision is computed: on its device, or the CPU where that has none."""
        device = weight_of(get_module(self._model, name)).device
        return torch.device("cpu") if device.type == "mps" else device

    # -- one group -----------------------------------------------------------------------------------------------

    def _moments(
        self, index: int, low: Mapping[str, LowRankLinear], name: str, energies: dict[str, float] | None
    ) -> PairedMoments | None:
        """Paired moments of a group's inputs; None when its layers do not see every token once.

        With ``energies`` (the block's last group) the dense stream is run to the end of the block on the way.
        """
        sums: PairedSums | None = None
        paired = True
        for position, tokens in enumerate(self._batches):
            self._tick(index)
            with swapped(self._model, low.items()):
                inputs, _ = self._reach(index, name, position, self._small)
            other = inputs
            if self._two:
                other, output = self._reach(index, name, position, self._dense, energies)
                if output is not None:
                    self._dense[position] = output
            if inputs is None or other is None or not inputs[..., 0].numel() == other[..., 0].numel() == tokens.numel():
                paired = False
            elif paired:
                sums = sums or PairedSums(inputs)
                sums.add(inputs, other)
        return sums.finish(name) if sums is not None and paired else None

    def _reach(
        self,
        index: int,
        name: str,
        position: int,
        stream: Sequence[Tensor],
        energies: dict[str, float] | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The input of a linear, if it runs. With ``energies`` the block goes to its end, and its output comes too."""
        caught: list[Tensor] = []

        def catch(_: nn.Module, args: tuple[Any, ...]) -> None:
            caught.append(args[0].detach())
            if energies is None:
                raise _Reached

        output = None
        reaching = get_module(self._model, name).register_forward_pre_hook(catch)
        with reaching, suppress(_Reached), outputs_summed(self._model, energies or {}, self._roots):
            output = run_block(self._model, self._batches[position], index, stream[position])
        return (caught[0] if caught else None), output

    def _update(
        self,
        low: Mapping[str, LowRankLinear],
        group: Sequence[str],
        moments: PairedMoments,
        energies: dict[str, float],
    ) -> dict[str, tuple[float, float]]:
        """Fit a group's layers and put their new factors in; errors before and after, without the target's energy."""
        safe = damped(moments, self._settings.damping)
        parts = {}
        for name in group:
            weight = weight_of(get_module(self._model, name)).detach().to(moments.second.device)
            module, own = low[name], (low[name].left.to(weight.device), low[name].right.to(weight.device))
            root = self._roots.get(name)
            found = self._fit(weight, own, safe, root)
            before = output_error(*_seen_by(root, weight, own), moments, 0.0)
            after = output_error(*_seen_by(root, weight, found), moments, 0.0)
            if after < before:
                _set(module, *found)
            parts[name] = (before, min(before, after))
            if not self._two:
                wide = weight.double() if root is None else root.T @ weight.double()
                energies[name] = self._tokens * float((wide @ moments.cross * wide).sum())
        return parts

    def _fit(self, weight: Tensor, own: Pair, moments: Damped, root: Tensor | None) -> Pair:
        """New factors, in the precision in which the layer will use them."""
        left, right = own
        if self._settings.kind == "left":
            left = update_left(weight, right, moments)
        else:
            left, right = update_both(weight, right.shape[0], moments, root)
        return left.to(own[0].dtype), right.to(own[1].dtype)

    # -- moving on -----------------------------------------------------------------------------------------------

    def _run_dense(self, index: int) -> None:
        for position, tokens in enumerate(self._batches):
            self._dense[position] = run_block(self._model, tokens, index, self._dense[position])

    def _run_small(self, index: int, low: Mapping[str, LowRankLinear]) -> None:
        for position, tokens in enumerate(self._batches):
            self._tick(index)
            with swapped(self._model, low.items()):
                self._small[position] = run_block(self._model, tokens, index, self._small[position])

    def _shares(self, parts: tuple[float, float] | None, energy: float) -> tuple[float, float]:
        """Errors as shares of the target's energy; nan where there are none."""
        if parts is None or energy <= 0:
            return math.nan, math.nan
        before, after = (1 + part * self._tokens / energy for part in parts)
        return max(before, 0.0), max(after, 0.0)

    def _tick(self, index: int) -> None:
        if self._watch.should_stop():
            raise CancelledError("The update was cancelled.", "Resume the run: finished blocks are kept.")
        self._step += 1
        self._watch.on_progress(Progress("updating factors", self._step, self._total, {"block": index}))


def _seen_by(root: Tensor | None, weight: Tensor, pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Weight and factors with outputs weighed by R."""
    if root is None:
        return weight, *pair
    return root.T @ weight.double(), root.T @ pair[0].double(), pair[1]


def _set(module: LowRankLinear, left: Tensor, right: Tensor) -> None:
    """Give a low-rank layer other factors of the same shapes; those it had may be the source's own and stay."""
    module.left.data = left.to(module.left, copy=True)
    module.right.data = right.to(module.right, copy=True)
