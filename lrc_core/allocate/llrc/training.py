"""The training loop of LLRC: masks on, steps, plans passed on the way, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lrc_core.allocate.llrc.losses import (
    log_ratio,
    mean_logit,
    oscillating_alpha,
    total_variation,
    weighted_logit,
)
from lrc_core.allocate.llrc.settings import LlrcSettings
from lrc_core.allocate.llrc.start import starting_logits
from lrc_core.allocate.masks.driver import RankTraining
from lrc_core.allocate.masks.gumbel import draw_noise, gumbel_sigmoid, on_probability, undecided
from lrc_core.allocate.masks.training import load_factors, record_passed, tick_figures
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import fit_budget, is_dense, keep_ratio, params_per_component
from lrc_core.lowrank.masked import MaskedLinear


class MaskTraining(RankTraining[LlrcSettings]):
    """One LLRC run."""

    def __init__(self, context: Context, settings: LlrcSettings) -> None:
        super().__init__(context, settings, settings.distillation)
        self.noise_generator = torch.Generator().manual_seed(context.seed)
        self.factors = load_factors(context)
        self.reached: int | None = None  # step at which the target was first met
        self.recorded: list[dict[str, Any]] = []
        self.logits = torch.nn.Parameter(torch.zeros(sum(self.sizes), device=self.device))
        self.optimizer = torch.optim.Adam([self.logits], lr=settings.learning_rate)
        if not self._resume():
            self.logits.data.copy_(self._start())

    # -- preparation ---------------------------------------------------------------------------------------------

    def _start(self) -> Tensor:
        batches = [self._batch(step)[1] for step in range(self.settings.ramp_batches)]
        return torch.cat(starting_logits(self.context, self.settings, self.factors, batches))

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self) -> Allocation:
        """Train until the target has settled, then return the plan."""
        self._record_passed(self.count())
        return super().run()

    def _finished(self) -> bool:
        settled = self.reached is not None and self.step >= self.reached + self.settings.settle_steps
        return settled or self.step >= self.settings.max_steps

    def _total(self) -> int:
        settings = self.settings
        reaching = settings.pace_steps or settings.max_steps if self.reached is None else self.reached
        return min(reaching + settings.settle_steps, settings.max_steps)

    def _step(self, masked: dict[str, MaskedLinear]) -> dict[str, float]:
        """One optimizer step; returns the figures a live view shows."""
        noise = draw_noise(self.settings.noise, self.logits.numel(), self.noise_generator).to(self.device)
        mask, probabilities = gumbel_sigmoid(self.logits, noise, self.settings.temperature)
        masks, trained = mask.split(self.sizes), undecided(probabilities).split(self.sizes)
        ranks = self.count()
        for layer, values, open_ones in zip(self.layers, masks, trained, strict=True):
            dense = self.settings.dense_switch and is_dense(layer, ranks[layer.name])
            masked[layer.name].mask = None if dense else values
            masked[layer.name].trained = open_ones
        distill, compression, tv, alpha = self._losses(masked, masks, ranks)
        loss = alpha * compression + self.settings.distill_weight * distill + self.settings.tv_weight * tv
        self._descend(loss)  # of no parameter where every layer is dense and nothing presses
        parts = {"loss": loss, "distill": distill, "compression": compression, "tv": tv}
        return {**tick_figures(parts), "alpha": round(alpha, 6)}

    def _losses(
        self, masked: dict[str, MaskedLinear], masks: Sequence[Tensor], ranks: dict[str, int]
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        zero = torch.zeros((), device=self.device)
        distill = self._task(masked)
        alpha = self._alpha(keep_ratio(self.layers, ranks))
        compression = self._compression(masks) if self.settings.compression != "none" else zero
        tv = total_variation(masks) if self.settings.tv_weight else zero
        return distill, compression, tv, alpha

    def _compression(self, masks: Sequence[Tensor]) -> Tensor:
        if self.settings.compression == "mean_logit":
            return mean_logit(self.logits.split(self.sizes))
        if self.settings.compression == "weighted_logit":
            # Not what one more costs at present: of pivots that is nothing for a square layer that is still whole.
            return weighted_logit(self.logits.split(self.sizes), [params_per_component(layer) for layer in self.layers])
        kept = torch.stack(self._soft_params(mask.sum() for mask in masks)).sum()
        return log_ratio(kept / sum(layer.params for layer in self.layers), self.context.keep)

    def _alpha(self, keep: float) -> float:
        """Weight of the compression loss at this step; 0 while the kept share is where it should be."""
        settings = self.settings
        goal = self.context.keep
        if settings.pace_steps:
            goal = 1 + (goal - 1) * min(1.0, (self.step + 1) / settings.pace_steps)
        # At the end of the pace the target itself must be reached, on the way a line is followed.
        slack = settings.tolerance if goal <= self.context.keep and self.reached is not None else 0.0
        low = goal - settings.tolerance
        if settings.compression == "none" or (keep <= goal + slack and not (settings.hold and keep < low)):
            return 0.0
        alpha = oscillating_alpha(self.step, settings.alpha_low, settings.alpha_high, settings.alpha_period)
        return alpha if keep > goal else -alpha

    # -- counting and recording ---------------------------------------------------------------------------

    def count(self) -> dict[str, int]:
        """Rank of every layer under the noise-free mask (logit > 0), at least 1."""
        counts = [max(1, int((part > 0).sum())) for part in self.logits.detach().split(self.sizes)]
        return {layer.name: count for layer, count in zip(self.layers, counts, strict=True)}

    def probabilities(self) -> Tensor:
        """[components of all layers] how likely every component is kept."""
        return on_probability(self.logits.detach(), self.settings.noise)

    def _after_step(self) -> dict[str, int]:
        ranks = self.count()
        if self.reached is None and keep_ratio(self.layers, ranks) <= self.context.keep + 1e-9:
            self.reached = self.step
        self._record_passed(ranks)
        return ranks

    def _record_passed(self, ranks: dict[str, int]) -> None:
        record_passed(self.context, self.recorded, ranks, self.step, self._export)

    def _export(self, ranks: Mapping[str, int], keep: float) -> Allocation:
        """Ranks that use the budget exactly and, for any-k, the indices with the largest logits."""
        fitted = fit_budget(self.layers, ranks, keep)
        if self.settings.export == "top_k":
            return Allocation(fitted)
        parts = self.logits.detach().split(self.sizes)
        kept = {
            layer.name: sorted(part.topk(fitted[layer.name]).indices.tolist())
            for layer, part in zip(self.layers, parts, strict=True)
        }
        return Allocation(fitted, kept)

    def _result(self) -> Allocation:
        ranks = self.count()
        details = {**self._details(ranks), "reached_at": self.reached}
        return replace(self._export(ranks, self.context.keep), details=details)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {
            "logits": self.logits.detach().cpu(),
            "optimizer": self.optimizer.state_dict(),
            "noise": self.noise_generator.get_state(),
            "step": self.step,
            "reached": self.reached,
            "recorded": self.recorded,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.logits.data.copy_(state["logits"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.noise_generator.set_state(state["noise"])
        self.step, self.reached, self.recorded = state["step"], state["reached"], state["recorded"]
