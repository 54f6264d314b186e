"""The training loop of ARS: logits from the hypernetwork, masks, losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrc_core.allocate.ars.network import Hypernetwork, alignment, log_ratio, noisy_share
from lrc_core.allocate.ars.settings import ArsSettings
from lrc_core.allocate.masks.gumbel import draw_noise, gumbel_sigmoid, on_probability, undecided
from lrc_core.allocate.masks.teacher import Distiller
from lrc_core.allocate.masks.training import (
    batch_of,
    load_factors,
    load_state,
    mask_entropy,
    report,
    require_finite,
    rounded,
    save_state,
    training_steps,
)
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import fit_budget, is_dense, keep_ratio
from lrc_core.lowrank.masked import MaskedLinear, masked_layers, without_masks


class HypernetworkTraining:
    """One ARS run.

    Args:
        context: model, factors, text and target.
        settings: see :class:`~lrc_core.allocate.ars.method.ArsSettings`.
    """

    def __init__(self, context: Context, settings: ArsSettings) -> None:
        self.context, self.settings = context, settings
        self.layers = context.layers
        self.sizes = [layer.full_rank for layer in self.layers]
        self.costs = [layer.out_features + layer.in_features for layer in self.layers]
        self.device = next(context.model.parameters()).device
        self.factors = load_factors(context)
        self.windows = context.windows(settings.documents, settings.window, context.seed)
        self.distiller = Distiller(context.model, settings.task)
        self.energies = [self._energy(context.source.sigma(layer.name, layer.block)) for layer in self.layers]
        self.noise_generator = torch.Generator().manual_seed(context.seed)
        self.network = Hypernetwork(self.sizes, settings.start, context.seed).to(self.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self.step = 0
        self.reached: int | None = None  # step at which the target was first met
        if state := load_state(self._path):
            self._restore(state)
        self._look()

    def _energy(self, sigma: Tensor) -> Tensor:
        energy = sigma.to(self.device).float().square()
        return energy / energy.sum().clamp_min(1e-30)

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self) -> Allocation:
        """Train until the target has settled, then return the plan."""
        size = self.settings.batch * self.settings.window
        with masked_layers(self.context.model, self.factors) as masked:
            for speed in training_steps(
                self.context.should_stop, finished=self._finished, save=self._save, tokens=size
            ):
                values = self._step(masked)
                self.step += 1
                self._look()
                entropy = mask_entropy(on_probability(torch.cat(self.logits).detach(), self.settings.noise))
                self._report({**values, "entropy": entropy, "tokens_per_s": speed()})
        return self._result()

    def _finished(self) -> bool:
        settled = self.reached is not None and self.step >= self.reached + self.settings.settle_steps
        return settled or self.step >= self.settings.max_steps

    def _step(self, masked: dict[str, MaskedLinear]) -> dict[str, float]:
        """One optimizer step; returns the figures a live view shows."""
        settings = self.settings
        masks = self._set_masks(masked, torch.cat(self.logits))
        task = self._task(masked) if settings.task != "none" else torch.zeros((), device=self.device)
        budget = log_ratio(self._share(masks), self.context.keep)
        align = alignment(masks, self.energies)
        loss = task + settings.budget_weight * budget + settings.align_weight * align
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        require_finite(loss, self.step, self.network.parameters())
        self.optimizer.step()
        return rounded({"loss": loss, "task": task, "budget": budget, "align": align})

    def _set_masks(self, masked: dict[str, MaskedLinear], logits: Tensor) -> Sequence[Tensor]:
        noise = draw_noise(self.settings.noise, logits.numel(), self.noise_generator).to(self.device)
        mask, probabilities = gumbel_sigmoid(logits, noise, self.settings.temperature)
        masks, trained = mask.split(self.sizes), undecided(probabilities).split(self.sizes)
        for layer, values, open_ones in zip(self.layers, masks, trained, strict=True):
            module = masked[layer.name]
            module.mask, module.trained = values, open_ones
            module.run_dense = self.settings.dense_switch and is_dense(layer, self.ranks[layer.name])
        return masks

    def _share(self, masks: Sequence[Tensor]) -> Tensor:
        """The kept share that the budget loss sees."""
        share = noisy_share(masks, self.costs, sum(layer.params for layer in self.layers))
        if self.settings.counting == "factors":
            return share
        return keep_ratio(self.layers, self.ranks) + (share - share.detach())

    def _task(self, masked: dict[str, MaskedLinear]) -> Tensor:
        chosen, tokens = batch_of(self.windows, self.settings.batch, self.step, self.context.seed)
        tokens = tokens.to(self.device)
        with without_masks(masked):
            target = self.distiller.teacher(chosen, tokens)
        return self.distiller.loss(tokens, target)

    # -- counting and reporting ----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Ask the network for the logits of the next step and count: logit > 0, the noise-free mask, at least 1."""
        self.logits = self.network()
        kept = torch.stack([(part.detach() > 0).sum() for part in self.logits]).tolist()
        self.ranks = {layer.name: max(1, count) for layer, count in zip(self.layers, kept, strict=True)}
        if self.reached is None and keep_ratio(self.layers, self.ranks) <= self.context.keep + 1e-9:
            self.reached = self.step

    def _report(self, values: dict[str, float]) -> None:
        settings = self.settings
        total = settings.max_steps if self.reached is None else self.reached + settings.settle_steps
        progress = (self.step, min(total, settings.max_steps))
        report(self.context, progress, self.ranks, values, last=self._finished())

    def _result(self) -> Allocation:
        details = {
            "steps": self.step,
            "reached_at": self.reached,
            "keep_before_fitting": keep_ratio(self.layers, self.ranks),
        }
        return Allocation(fit_budget(self.layers, self.ranks, self.context.keep), details=details)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    @property
    def _path(self) -> Path:
        return self.context.checkpoint / "masks.pt"

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "noise": self.noise_generator.get_state(),
            "step": self.step,
            "reached": self.reached,
        }
        save_state(self._path, state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.noise_generator.set_state(state["noise"])
        self.step, self.reached = state["step"], state["reached"]
