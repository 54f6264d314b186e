"""The loop of the successive Lagrangian: solve, measure a round of slopes there, mix, solve again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrc_core.allocate.curves.budgeted import Losses, budget_of
from lrc_core.allocate.curves.mixtures import Mixture
from lrc_core.allocate.curves.predicted import Measuring, predicted_losses
from lrc_core.allocate.masks.driver import RankTraining
from lrc_core.allocate.masks.training import load_factors, record_passed, require_finite
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.allocate.successive.gains import Gains
from lrc_core.allocate.successive.losses import Array, measured_losses
from lrc_core.allocate.successive.settings import SuccessiveSettings
from lrc_core.budget import is_dense, kept_share, removed_share
from lrc_core.errors import CancelledError
from lrc_core.lowrank.apply import WithGains, compressed
from lrc_core.lowrank.masked import MaskedLinear
from lrc_core.types import LinearShape, Progress


@dataclass
class _State:
    """What a resumed run needs beside the gains and its step; arrays of all layers one behind the other."""

    losses: Tensor  # running losses, float64
    slopes: Tensor  # sum of this round's slopes so far, float64
    divergence: float = 0.0  # mean KL of the last whole round
    round_divergence: float = 0.0  # sum of this round's KL so far
    candidates: list[dict[str, Any]] = field(default_factory=list)  # ranks, gains and formats of plans at the target
    recorded: list[dict[str, Any]] = field(default_factory=list)


class SuccessiveTraining(RankTraining[SuccessiveSettings]):
    """One run."""

    def __init__(self, context: Context, settings: SuccessiveSettings) -> None:
        super().__init__(context, settings, "logits", more_windows=settings.check_windows, file="successive.pt")
        windows = self.windows
        held_back = min(settings.check_windows, len(windows) // 4)  # a short text is mostly learned from
        self.windows, self.check = windows[: len(windows) - held_back], windows[len(windows) - held_back :]
        self.budget = budget_of(context)
        measuring = Measuring(settings.curve_batches, settings.batch, settings.window)
        self.predicted = predicted_losses(context, self.budget.curve(settings.curve), measuring)
        losses = torch.from_numpy(np.concatenate([self.predicted[layer.name] for layer in self.layers]))
        self.state = _State(losses, torch.zeros_like(losses))
        self.gains = Gains(sum(self.sizes), settings.gain_rate)
        self.gone = removed_share(self.budget.first_cut(self.predicted))  # before there is anything to measure
        way = removed_share(self.budget.target) - self.gone
        falling = max(1, math.ceil(way / settings.pace - 1e-9))  # rounds until the target is reached
        self.rounds = falling - 1 + settings.settle_rounds
        self.first_settling = falling - 1
        self._resume()
        self.ranks = self._solved(self._goal(self.step // settings.batches)).ranks

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self) -> Allocation:
        """Follow the rate to the target, then choose among the plans found there."""
        if removed_share(self.budget.target) <= self.gone:  # formats alone are cheaper than any rank
            return self._closed()
        self.factors = load_factors(self.context)
        return super().run()

    def _total(self) -> int:
        return self.rounds * self.settings.batches

    def _goal(self, number: int) -> float:
        """Share of the dense model's cost that a round (from 0) is within."""
        if number >= self.first_settling:
            return self.budget.target
        return kept_share(self.gone + self.settings.pace * (number + 1))

    def _solved(self, share: float) -> Mixture:
        """The cheapest plan under the running losses."""
        return self.budget.solve(self._by_layer(self.state.losses), share)

    def _by_layer(self, losses: Tensor) -> Losses:
        parts = losses.split(self.sizes)
        return {layer.name: part.numpy() for layer, part in zip(self.layers, parts, strict=True)}

    def _step(self, masked: dict[str, MaskedLinear]) -> dict[str, float]:
        """Add the slopes of one batch at the plan as it stands."""
        gains = self.gains.now.to(self.device).split(self.sizes)
        masks = [
            _mask(masked[layer.name], self._kept(layer, self.ranks), gain)
            for layer, gain in zip(self.layers, gains, strict=True)
        ]
        loss = self._task(masked)
        require_finite(loss, self.step)
        loss.backward()
        # A layer that no token went through (an expert) has no slope: its prediction stands.
        slopes = torch.cat([torch.zeros_like(mask) if mask.grad is None else mask.grad for mask in masks]).cpu()
        self.state.slopes += slopes.double()
        self.state.round_divergence += float(loss.detach())
        self.gains.step(slopes, self._low_rank(self.ranks), self._gain_pace())
        return {}

    def _kept(self, layer: LinearShape, ranks: Mapping[str, int]) -> int:
        """Components of a layer that are on: all of a dense one."""
        return layer.full_rank if is_dense(layer, ranks[layer.name]) else ranks[layer.name]

    def _low_rank(self, ranks: Mapping[str, int]) -> Tensor:
        """Of all components, those kept in low-rank layers."""
        counts = [0 if is_dense(layer, ranks[layer.name]) else ranks[layer.name] for layer in self.layers]
        return torch.cat([torch.arange(size) < count for size, count in zip(self.sizes, counts, strict=True)])

    def _gain_pace(self) -> float:
        """Full until the target is reached, then falling to a tenth."""
        first = self.first_settling * self.settings.batches
        settled = (self.step - first) / (self.rounds * self.settings.batches - first)
        return 1 - 0.9 * max(0.0, settled)

    def count(self) -> dict[str, int]:
        """The plan as it stands."""
        return self.ranks

    def probabilities(self) -> Tensor:
        """[components of all layers] how likely every component is kept: none is ever undecided."""
        return torch.zeros(1)

    def _after_step(self) -> dict[str, int]:
        if self.step % self.settings.batches == 0:
            self.ranks = self._after_round(self.ranks)
        return self.ranks

    def _after_round(self, ranks: Mapping[str, int]) -> dict[str, int]:
        """Mix the round's measured losses in; returns the plan of the next round."""
        state, settings = self.state, self.settings
        number = self.step // settings.batches - 1
        slopes = (state.slopes / settings.batches).split(self.sizes)
        measured: list[Array] = [
            measured_losses(self.predicted[layer.name], part.numpy(), self._kept(layer, ranks), settings.groups)
            for layer, part in zip(self.layers, slopes, strict=True)
        ]
        state.losses.lerp_(torch.from_numpy(np.concatenate(measured)), settings.mixing)
        state.slopes.zero_()
        state.divergence, state.round_divergence = state.round_divergence / settings.batches, 0.0
        if self.context.by_parameters:  # plans on the way are of such shares
            record_passed(self.context, state.recorded, ranks, self.step, self._plan)
        if number >= self.first_settling:
            found = self._plan(ranks, self.budget.target)
            state.candidates.append({"ranks": found.ranks, "gains": found.gains, "formats": found.formats})
        return self._solved(self._goal(number + 1)).ranks

    def _figures(self, ranks: Mapping[str, int]) -> dict[str, float]:
        done = self.step % self.settings.batches
        loss = self.state.round_divergence / done if done else self.state.divergence
        return {"loss": round(loss, 6), "dense": sum(is_dense(layer, ranks[layer.name]) for layer in self.layers)}

    # -- the end -------------------------------------------------------------------------------------------------

    def _plan(self, _: Mapping[str, int], share: float) -> Allocation:
        """The cheapest plan at a share as things stand, with the gains of what it keeps."""
        found = self._solved(share)
        plan = Allocation(found.ranks, formats=found.formats or None)
        if not self.settings.gain_rate:
            return plan
        gains = zip(self.layers, self.gains.average.split(self.sizes), strict=True)
        kept = {
            layer.name: gain[: found.ranks[layer.name]].clone()
            for layer, gain in gains
            if not is_dense(layer, found.ranks[layer.name])
        }
        return replace(plan, gains=kept)

    def _closed(self) -> Allocation:
        """The plan that is predicted to be the cheapest, without measuring."""
        found = self.budget.solve(self.predicted, self.budget.target)
        return Allocation(found.ranks, formats=found.formats or None)

    def _result(self) -> Allocation:
        """The plan of least KL on the text held back: of those found at the target and the one that was predicted."""
        plans = [self._closed(), *(Allocation(**found) for found in self.state.candidates)]
        details: dict[str, Any] = {"rounds": self.rounds, "steps": self.step}
        if not len(self.check):
            return replace(plans[-1], details=details)
        found = [self._divergence(number, len(plans), plan) for number, plan in enumerate(plans)]
        best = int(np.argmin(found))
        details |= {"check_kl": round(found[best], 6), "check_kl_predicted_plan": round(found[0], 6), "chosen": best}
        return replace(plans[best], details=details)

    @torch.no_grad()
    def _divergence(self, number: int, total: int, plan: Allocation) -> float:
        """Mean KL of a plan on the windows held back."""
        self.context.on_progress(Progress("choosing a plan", number, total))
        source = WithGains(self.context.source, plan.gains) if plan.gains else self.context.source
        losses = []
        for start in range(0, len(self.check), self.settings.batch):
            if self.context.should_stop():
                raise CancelledError("The choice was cancelled.", "Resume the run: its training is done.")
            tokens = self.check[start : start + self.settings.batch].to(self.device)
            chosen = torch.arange(start, start + len(tokens)) + len(self.windows)
            teacher = self.distiller.teacher(chosen, tokens)
            # In 16 bits a pair is as good as its pivot form, which takes a while to find; rounded it is not.
            pairs = not plan.formats
            with compressed(self.context.model, self.layers, plan.ranks, source, None, plan.formats, as_pairs=pairs):
                losses.append(float(self.distiller.loss(tokens, teacher)) * len(tokens))
        return sum(losses) / len(self.check)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {**vars(self.state), "gains": self.gains.state(), "step": self.step}

    def _restore(self, state: Mapping[str, Any]) -> None:
        given = dict(state)
        self.step = given.pop("step")
        self.gains = Gains(sum(self.sizes), self.settings.gain_rate, given.pop("gains"))
        self.state = _State(**given)


def _mask(module: MaskedLinear, kept: int, gain: Tensor) -> Tensor:
    """Switch the first ``kept`` components on, each with its gain, and the others off; every one gets a gradient.

    A layer that keeps all of them is dense, and dense layers are left as they are.
    """
    dense = kept == len(gain)
    mask = (
        torch.ones_like(gain) if dense else torch.where(torch.arange(len(gain), device=gain.device) < kept, gain, 0.0)
    )
    module.mask, module.trained, module.run_dense = mask.requires_grad_(), None, dense
    return mask
