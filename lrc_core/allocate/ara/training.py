"""The training loop of ARA: staircases become masks, masks become losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lrc_core.allocate.ara.settings import AraSettings
from lrc_core.allocate.ara.terms import (
    budget_term,
    counted_shares,
    cut_rank,
    final_ranks,
    guidance_errors,
    guidance_term,
    running_ranks,
    staircase_levels,
    stairs_above,
    starting_theta,
    straight_through,
)
from lrc_core.allocate.masks.driver import RankTraining
from lrc_core.allocate.masks.training import load_factors, tick_figures
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import fit_budget, is_dense, rank_of_share
from lrc_core.lowrank.masked import MaskedLinear


class StaircaseTraining(RankTraining[AraSettings]):
    """One ARA run.

    The latch: a layer at R >= 1 runs its dense weight, which no mask reaches, and min(R, 1) is flat there; so in the
    authors' code neither task nor budget moves it any more. Without the latch such a layer still runs dense, but
    its mask gets the gradient that it has at the dense layer (straight-through, two thin products in the backward
    pass; see :class:`~lrc_core.lowrank.masked.MaskedLinear`) and the budget presses on R itself. That gradient is
    first order: it knows the slope at the dense layer and not the step down at break-even, which is what the
    guidance term stands for.
    """

    def __init__(self, context: Context, settings: AraSettings) -> None:
        super().__init__(context, settings, settings.task)
        self.cuts = {layer.name: cut_rank(layer, settings.reach) for layer in self.layers}
        self.factors = load_factors(context, self.cuts)
        self.levels = staircase_levels(settings.levels).to(self.device)
        self.stairs = [stairs_above(self.cuts[layer.name], settings.levels).to(self.device) for layer in self.layers]
        self.components = torch.tensor([float(self.cuts[layer.name]) for layer in self.layers]).to(self.device)
        self.params = torch.tensor([float(layer.params) for layer in self.layers]).to(self.device)
        self.errors = [guidance_errors(context.source.sigma(layer.name, layer.block)) for layer in self.layers]
        self.theta = torch.nn.Parameter(self._start().to(self.device))
        self.optimizer = torch.optim.AdamW([self.theta], lr=settings.learning_rate, weight_decay=0.0)
        self._resume()

    def _start(self) -> Tensor:
        """[layers, levels]: every layer at the target."""
        shares = [rank_of_share(layer, self.context.keep) / self.cuts[layer.name] for layer in self.layers]
        return torch.stack([starting_theta(share, self.settings.levels) for share in shares])

    def _ratios(self, shares: Tensor) -> Tensor:
        """[layers] R: what the components that p keeps on average cost over the dense weight."""
        kept = (shares @ self.levels) * self.components
        return torch.stack(self._soft_params(kept.unbind())) / self.params

    # -- the run -------------------------------------------------------------------------------------------------

    def _total(self) -> int:
        return self.settings.steps

    def _step(self, masked: dict[str, MaskedLinear]) -> dict[str, float]:
        """One optimizer step; returns the figures a live view shows."""
        settings = self.settings
        shares = self.theta.softmax(-1)  # p, [layers, levels]
        ratios = self._ratios(shares)
        ranks = self._set_masks(masked, shares, ratios.detach())
        task = self._task(masked)
        budget = budget_term(counted_shares(ratios, settings.latch), self.params, self.context.keep)
        errors = torch.stack([part[rank] for part, rank in zip(self.errors, ranks, strict=True)]).to(self.device)
        guidance = guidance_term(ratios, errors)
        loss = task + settings.budget_weight * budget + settings.guidance_weight * guidance
        self._descend(loss, [self.theta])
        return tick_figures({"loss": loss, "task": task, "budget": budget, "guidance": guidance})

    def _set_masks(self, masked: dict[str, MaskedLinear], shares: Tensor, ratios: Tensor) -> Sequence[int]:
        """Masks of this step; returns the rank that every layer's factors would run at."""
        cumulated = shares.cumsum(-1)
        ranks = []
        for i, (layer, ratio) in enumerate(zip(self.layers, ratios.tolist(), strict=True)):
            module, dense = masked[layer.name], ratio >= 1
            rank = max(1, min(round(rank_of_share(layer, ratio)), self.cuts[layer.name]))
            module.run_dense = dense
            module.mask = (
                None if dense and self.settings.latch else straight_through(cumulated[i][self.stairs[i]], rank)
            )
            ranks.append(rank)
        return ranks

    # -- counting and the result ---------------------------------------------------------------------------------

    @torch.no_grad()
    def ratios(self) -> dict[str, float]:
        """R of every layer."""
        values = self._ratios(self.theta.softmax(-1))
        return {layer.name: value for layer, value in zip(self.layers, values.tolist(), strict=True)}

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """[components of all layers] p^T M: how likely every component is kept."""
        cumulated = self.theta.softmax(-1).cumsum(-1)
        return torch.cat([row[stairs] for row, stairs in zip(cumulated, self.stairs, strict=True)])

    def count(self) -> dict[str, int]:
        """Rank of every layer as it stands."""
        return running_ranks(self.layers, self.ratios())

    def _figures(self, ranks: Mapping[str, int]) -> dict[str, float]:
        return {"dense": sum(is_dense(layer, ranks[layer.name]) for layer in self.layers)}

    def _result(self) -> Allocation:
        ranks, factor = final_ranks(self.layers, self.ratios(), self.context.keep, self.settings.dense_above)
        details = {**self._details(self.count()), "final_factor": factor}
        return Allocation(fit_budget(self.layers, ranks, self.context.keep), details=details)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {"theta": self.theta.detach().cpu(), "optimizer": self.optimizer.state_dict(), "step": self.step}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.step = int(state["step"])
        self.theta.data.copy_(state["theta"])
        self.optimizer.load_state_dict(state["optimizer"])
