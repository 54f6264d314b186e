"""The training loop of ARS: logits from the hypernetwork, masks, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lrc_core.allocate.ars.network import Hypernetwork, alignment, ratio_penalty
from lrc_core.allocate.ars.settings import ArsSettings
from lrc_core.allocate.masks.driver import RankTraining
from lrc_core.allocate.masks.gumbel import draw_noise, gumbel_sigmoid, on_probability, undecided
from lrc_core.allocate.masks.training import load_factors, tick_figures
from lrc_core.allocate.protocol import Context
from lrc_core.budget import is_dense, keep_ratio, params_per_component
from lrc_core.lowrank.masked import MaskedLinear


class HypernetworkTraining(RankTraining[ArsSettings]):
    """One ARS run."""

    def __init__(self, context: Context, settings: ArsSettings) -> None:
        super().__init__(context, settings, settings.task)
        self.factors = load_factors(context)
        self.energies = [self._energy(context.source.sigma(layer.name, layer.block)) for layer in self.layers]
        self.noise_generator = torch.Generator().manual_seed(context.seed)
        self.network = Hypernetwork(self.sizes, settings.start, context.seed).to(self.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self.reached: int | None = None  # step at which the target was first met
        self._resume()
        self._after_step()

    def _energy(self, sigma: Tensor) -> Tensor:
        energy = sigma.to(self.device).float().square()
        return energy / energy.sum().clamp_min(1e-30)

    # -- the run -------------------------------------------------------------------------------------------------

    def _total(self) -> int:
        total = self.settings.max_steps if self.reached is None else self.reached + self.settings.settle_steps
        return min(total, self.settings.max_steps)

    def _step(self, masked: dict[str, MaskedLinear]) -> dict[str, float]:
        """One optimizer step; returns the figures a live view shows."""
        settings = self.settings
        masks = self._set_masks(masked, torch.cat(self.logits))
        task = self._task(masked)
        budget = ratio_penalty(self._share(masks), self.context.keep)
        align = alignment(masks, self.energies)
        loss = task + settings.budget_weight * budget + settings.align_weight * align
        self._descend(loss, self.network.parameters())
        return tick_figures({"loss": loss, "task": task, "budget": budget, "align": align})

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
        total = sum(layer.params for layer in self.layers)
        if self.settings.counting == "factors":  # T(m): what the components kept by the noisy masks cost
            return torch.stack(self._soft_params(mask.sum() for mask in masks)).sum() / total
        # Not what one more costs at present: of pivots that is nothing for a square layer that is still whole.
        prices = [params_per_component(layer) for layer in self.layers]
        share = torch.stack([mask.sum() * price for mask, price in zip(masks, prices, strict=True)]).sum() / total
        return keep_ratio(self.layers, self.ranks) + (share - share.detach())

    # -- counting ----------------------------------------------------------------------------------

    def _after_step(self) -> dict[str, int]:
        """Ask the network for the logits of the next step and count: logit > 0, the noise-free mask, at least 1."""
        self.logits = self.network()
        kept = torch.stack([(part.detach() > 0).sum() for part in self.logits]).tolist()
        self.ranks = {layer.name: max(1, count) for layer, count in zip(self.layers, kept, strict=True)}
        if self.reached is None and keep_ratio(self.layers, self.ranks) <= self.context.keep + 1e-9:
            self.reached = self.step
        return self.ranks

    def count(self) -> dict[str, int]:
        """Rank of every layer as it stands."""
        return self.ranks

    def probabilities(self) -> Tensor:
        """[components of all layers] how likely every component is kept."""
        return on_probability(torch.cat(self.logits).detach(), self.settings.noise)

    def _details(self, ranks: Mapping[str, int]) -> dict[str, Any]:
        return {**super()._details(ranks), "reached_at": self.reached}

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "noise": self.noise_generator.get_state(),
            "step": self.step,
            "reached": self.reached,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.noise_generator.set_state(state["noise"])
        self.step, self.reached = state["step"], state["reached"]
