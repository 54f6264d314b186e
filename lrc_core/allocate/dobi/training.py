"""The training loop of Dobi-SVD: truncation positions, their masks and losses."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from lrc_core.allocate.dobi.settings import DobiSettings
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
from lrc_core.budget import break_even, fit_budget, is_dense, keep_ratio
from lrc_core.lowrank.masked import MaskedLinear, masked_layers, without_masks

_FLAT = 1e-6  # share of the largest slope of a soft step below which its gradient is not computed


def soft_step(position: Tensor, components: int, sharpness: float) -> Tensor:
    """0.5 tanh(beta (k - i)) + 0.5 for i = 1, ..., r (equation of the differentiable truncation).

    Args:
        position: k, scalar.
        components: r.
        sharpness: beta.
    """
    places = torch.arange(1, components + 1, device=position.device, dtype=position.dtype)
    return 0.5 * torch.tanh(sharpness * (position - places)) + 0.5


def sloping(mask: Tensor) -> Tensor:
    """[r] booleans: components whose mask has a slope worth computing, 4 m (1 - m) of the largest one."""
    return 4 * mask * (1 - mask) > _FLAT


def budget_term(positions: Tensor, costs: Tensor, params: Tensor, target: float) -> Tensor:
    """|sum min(k (m + n), mn) / sum mn - target|.

    Args:
        positions: [layers] k.
        costs: [layers] m + n.
        params: [layers] mn.
        target: share to keep.
    """
    return (torch.minimum(positions * costs, params).sum() / params.sum() - target).abs()


def cosine_rate(step: int, high: float, low: float, period: int) -> float:
    """From ``high`` to ``low`` in ``period`` steps, and back."""
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * step / period))


class PositionTraining:
    """One run of Dobi-SVD's rank learning.

    Args:
        context: model, factors, text and target.
        settings: see :class:`~lrc_core.allocate.dobi.method.DobiSettings`.
    """

    def __init__(self, context: Context, settings: DobiSettings) -> None:
        self.context, self.settings = context, settings
        self.layers = context.layers
        self.device = next(context.model.parameters()).device
        self.factors = load_factors(context)
        self.windows = context.windows(settings.documents, settings.window, context.seed)
        self.distiller = Distiller(context.model, "text" if settings.task == "perplexity" else settings.task)
        self.costs = self._per_layer([layer.out_features + layer.in_features for layer in self.layers])
        self.params = self._per_layer([layer.params for layer in self.layers])
        self.highest = self._per_layer([layer.full_rank for layer in self.layers])
        unit = [break_even(layer) if settings.unit == "break_even" else 1.0 for layer in self.layers]
        self.unit = self._per_layer(unit)
        state = load_state(self._path) or {"places": self._start(), "optimizer": None, "step": 0}
        self.step = int(state["step"])
        self.places = torch.nn.Parameter(state["places"].to(self.device))  # k in units, [layers]
        self.optimizer = torch.optim.Adam([self.places], lr=settings.learning_rate)
        if state["optimizer"] is not None:
            self.optimizer.load_state_dict(state["optimizer"])

    def _per_layer(self, values: list[int] | list[float]) -> Tensor:
        return torch.tensor([float(value) for value in values], device=self.device)

    def _start(self) -> Tensor:
        """Every layer at the target."""
        wanted = self._per_layer([self.context.keep * break_even(layer) for layer in self.layers])
        return (wanted.clamp_min(1) / self.unit).cpu()

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self) -> Allocation:
        """Train, then make the ranks meet the budget."""
        size = self.settings.batch * self.settings.window
        with masked_layers(self.context.model, self.factors) as masked:
            for speed in training_steps(
                self.context.should_stop, finished=self._finished, save=self._save, tokens=size
            ):
                values = self._step(masked)
                self.step += 1
                values |= {"entropy": mask_entropy(self.softness()), "tokens_per_s": speed()}
                progress = (self.step, self.settings.steps)
                report(self.context, progress, self.count(), values, last=self._finished())
        return self._result()

    def _finished(self) -> bool:
        return self.step >= self.settings.steps

    def _step(self, masked: dict[str, MaskedLinear]) -> dict[str, float]:
        """One optimizer step; returns the figures a live view shows."""
        settings = self.settings
        positions = self.places * self.unit  # k, [layers]
        self._set_masks(masked, positions)
        task = self._task(masked) if settings.task != "none" else torch.zeros((), device=self.device)
        budget = budget_term(positions, self.costs, self.params, self.context.keep)
        loss = task + settings.budget_weight * budget
        rate = cosine_rate(self.step, settings.learning_rate, settings.lowest_rate, settings.rate_period)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        require_finite(loss, self.step, [self.places])
        self.optimizer.step()
        with torch.no_grad():  # back into 1..r
            self.places.copy_((self.places * self.unit).clamp_min(1).minimum(self.highest) / self.unit)
        return rounded({"loss": loss, "task": task, "budget": budget})

    def _set_masks(self, masked: dict[str, MaskedLinear], positions: Tensor) -> None:
        ranks = self.count()
        for layer, position in zip(self.layers, positions.unbind(), strict=True):
            module, mask = masked[layer.name], soft_step(position, layer.full_rank, self.settings.sharpness)
            module.mask, module.trained = mask, sloping(mask.detach())
            module.run_dense = self.settings.dense_switch and is_dense(layer, ranks[layer.name])

    def _task(self, masked: dict[str, MaskedLinear]) -> Tensor:
        chosen, tokens = batch_of(self.windows, self.settings.batch, self.step, self.context.seed)
        tokens = tokens.to(self.device)
        with without_masks(masked):
            target = self.distiller.teacher(chosen, tokens)
        loss = self.distiller.loss(tokens, target)
        return loss.exp() if self.settings.task == "perplexity" else loss

    @torch.no_grad()
    def softness(self) -> Tensor:
        """[components of all layers] the soft steps as they stand, read as how likely every component is kept."""
        positions = (self.places * self.unit).unbind()
        steps = zip(self.layers, positions, strict=True)
        return torch.cat([soft_step(k, layer.full_rank, self.settings.sharpness) for layer, k in steps])

    # -- counting and the result ---------------------------------------------------------------------------------

    def count(self) -> dict[str, int]:
        """Rank of every layer as it stands: k, rounded."""
        values = (self.places.detach() * self.unit).tolist()
        return {
            layer.name: max(1, min(round(value), layer.full_rank))
            for layer, value in zip(self.layers, values, strict=True)
        }

    def _result(self) -> Allocation:
        ranks = self.count()
        details = {"steps": self.step, "keep_before_fitting": keep_ratio(self.layers, ranks)}
        return Allocation(fit_budget(self.layers, ranks, self.context.keep), details=details)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    @property
    def _path(self) -> Path:
        return self.context.checkpoint / "masks.pt"

    def _save(self) -> None:
        state = {"places": self.places.detach().cpu(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        save_state(self._path, state)
