"""The training loop of LLRC: masks on, steps, plans passed on the way, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrc_core.allocate.llrc.losses import (
    draw_noise,
    gumbel_sigmoid,
    log_ratio,
    mean_logit,
    on_probability,
    oscillating_alpha,
    total_variation,
    undecided,
    weighted_logit,
)
from lrc_core.allocate.llrc.settings import LlrcSettings
from lrc_core.allocate.llrc.start import starting_logits
from lrc_core.allocate.masks.teacher import Distiller
from lrc_core.allocate.masks.training import (
    batch_of,
    load_factors,
    load_state,
    mask_entropy,
    record_passed,
    report,
    require_finite,
    rounded,
    save_state,
    training_steps,
)
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import fit_budget, is_dense, keep_ratio
from lrc_core.lowrank.masked import MaskedLinear, masked_layers, without_masks


@dataclass
class _State:
    """Everything a resumed run needs to go on bit for bit."""

    logits: Tensor
    optimizer: dict[str, Any] | None = None
    noise: Tensor | None = None
    step: int = 0
    reached: int | None = None  # step at which the target was first met
    recorded: list[dict[str, Any]] = field(default_factory=list)


class MaskTraining:
    """One LLRC run.

    Args:
        context: model, factors, text and target.
        settings: see :class:`~lrc_core.allocate.llrc.method.LlrcSettings`.
    """

    def __init__(self, context: Context, settings: LlrcSettings) -> None:
        self.context, self.settings = context, settings
        self.layers = context.layers
        self.sizes = [layer.full_rank for layer in self.layers]
        self.device = next(context.model.parameters()).device
        self.noise_generator = torch.Generator()
        self.factors = load_factors(context)
        self.windows = context.windows(settings.documents, settings.window, context.seed)
        self.distiller = Distiller(context.model, settings.distillation)
        self.state = self._restore() or self._start()
        self.logits = torch.nn.Parameter(self.state.logits.to(self.device))
        self.optimizer = torch.optim.Adam([self.logits], lr=settings.learning_rate)
        if self.state.optimizer is not None:
            self.optimizer.load_state_dict(self.state.optimizer)
        if self.state.noise is not None:
            self.noise_generator.set_state(self.state.noise)

    # -- preparation ---------------------------------------------------------------------------------------------

    def _start(self) -> _State:
        self.noise_generator.manual_seed(self.context.seed)
        batches = [self._batch(step)[1] for step in range(self.settings.ramp_batches)]
        return _State(torch.cat(starting_logits(self.context, self.settings, self.factors, batches)))

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Indices and tokens of a step."""
        chosen, tokens = batch_of(self.windows, self.settings.batch, step, self.context.seed)
        return chosen, tokens.to(self.device)

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self) -> Allocation:
        """Train until the target has settled, then return the plan."""
        self._record_passed(self.count())
        size = self.settings.batch * self.settings.window
        with masked_layers(self.context.model, self.factors) as masked:
            for speed in training_steps(
                self.context.should_stop, finished=self._finished, save=self._save, tokens=size
            ):
                values = self._step(masked)
                self.state.step += 1
                ranks = self._after_step()
                entropy = mask_entropy(on_probability(self.logits.detach(), self.settings.noise))
                self._report(ranks, {**values, "entropy": entropy, "tokens_per_s": speed()})
        return self._result()

    def _finished(self) -> bool:
        state, settings = self.state, self.settings
        settled = state.reached is not None and state.step >= state.reached + settings.settle_steps
        return settled or state.step >= settings.max_steps

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
        chosen, tokens = self._batch(self.state.step)
        distill, compression, tv, alpha = self._losses(masked, chosen, tokens, masks, ranks)
        loss = alpha * compression + self.settings.distill_weight * distill + self.settings.tv_weight * tv
        require_finite(loss, self.state.step)
        self.optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:  # it does not where every layer is dense and nothing presses
            loss.backward()
            self.optimizer.step()
        parts = {"loss": loss, "distill": distill, "compression": compression, "tv": tv}
        return {**rounded(parts), "alpha": round(alpha, 6)}

    def _losses(
        self,
        masked: dict[str, MaskedLinear],
        chosen: Tensor,
        tokens: Tensor,
        masks: Sequence[Tensor],
        ranks: dict[str, int],
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        zero = torch.zeros((), device=self.device)
        with self._dense(masked):
            target = self.distiller.teacher(chosen, tokens)
        distill = self.distiller.loss(tokens, target) if self.settings.distillation != "none" else zero
        alpha = self._alpha(keep_ratio(self.layers, ranks))
        compression = self._compression(masks) if self.settings.compression != "none" else zero
        tv = total_variation(masks) if self.settings.tv_weight else zero
        return distill, compression, tv, alpha

    def _dense(self, masked: dict[str, MaskedLinear]) -> Any:
        """A context in which the model is the dense one; nothing to do when the teacher's answer is remembered."""
        return without_masks(masked) if self.distiller.needs_teacher else nullcontext()

    def _compression(self, masks: Sequence[Tensor]) -> Tensor:
        if self.settings.compression == "mean_logit":
            return mean_logit(self.logits.split(self.sizes))
        if self.settings.compression == "weighted_logit":
            costs = [layer.out_features + layer.in_features for layer in self.layers]
            return weighted_logit(self.logits.split(self.sizes), costs)
        kept = sum(
            (
                mask.sum() * (layer.out_features + layer.in_features)
                for layer, mask in zip(self.layers, masks, strict=True)
            ),
            torch.zeros((), device=self.device),
        )
        return log_ratio(kept / sum(layer.params for layer in self.layers), self.context.keep)

    def _alpha(self, keep: float) -> float:
        """Weight of the compression loss at this step; 0 while the kept share is where it should be."""
        settings = self.settings
        goal = self.context.keep
        if settings.pace_steps:
            goal = 1 - (1 - goal) * min(1.0, (self.state.step + 1) / settings.pace_steps)
        # At the end of the pace the target itself must be reached, on the way a line is followed.
        slack = settings.tolerance if goal <= self.context.keep and self.state.reached is not None else 0.0
        low = goal - settings.tolerance
        if settings.compression == "none" or (keep <= goal + slack and not (settings.hold and keep < low)):
            return 0.0
        alpha = oscillating_alpha(self.state.step, settings.alpha_low, settings.alpha_high, settings.alpha_period)
        return alpha if keep > goal else -alpha

    # -- counting, recording, reporting ---------------------------------------------------------------------------

    def count(self) -> dict[str, int]:
        """Rank of every layer under the noise-free mask (logit > 0), at least 1."""
        counts = [max(1, int((part > 0).sum())) for part in self.logits.detach().split(self.sizes)]
        return {layer.name: count for layer, count in zip(self.layers, counts, strict=True)}

    def _after_step(self) -> dict[str, int]:
        ranks = self.count()
        if self.state.reached is None and keep_ratio(self.layers, ranks) <= self.context.keep + 1e-9:
            self.state.reached = self.state.step
        self._record_passed(ranks)
        return ranks

    def _record_passed(self, ranks: dict[str, int]) -> None:
        record_passed(self.context, self.state.recorded, ranks, self.state.step, self._export)

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

    def _report(self, ranks: dict[str, int], values: dict[str, float]) -> None:
        step, settings = self.state.step, self.settings
        reaching = settings.pace_steps or settings.max_steps if self.state.reached is None else self.state.reached
        total = min(reaching + settings.settle_steps, settings.max_steps)
        report(self.context, (step, total), ranks, values, last=self._finished())

    def _result(self) -> Allocation:
        details = {
            "steps": self.state.step,
            "reached_at": self.state.reached,
            "keep_before_fitting": keep_ratio(self.layers, self.count()),
        }
        return replace(self._export(self.count(), self.context.keep), details=details)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    @property
    def _path(self) -> Path:
        return self.context.checkpoint / "masks.pt"

    def _save(self) -> None:
        state = {
            "logits": self.logits.detach().cpu(),
            "optimizer": self.optimizer.state_dict(),
            "noise": self.noise_generator.get_state(),
            "step": self.state.step,
            "reached": self.state.reached,
            "recorded": self.state.recorded,
        }
        save_state(self._path, state)

    def _restore(self) -> _State | None:
        state = load_state(self._path)
        return None if state is None else _State(**state)
