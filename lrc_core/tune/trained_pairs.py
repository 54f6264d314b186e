"""Low-rank layers whose factors are trained: the layers, and the steps of Adam that move them.

Two things make one learning rate serve all layers, decompositions and models. Factors are balanced first: the two
vectors of a component get the same length, which leaves their product as it is. And the rate of each factor is relative
to the root mean square of its entries. Both are trained in float32 and used in the model's precision.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrc_core.allocate.masks.driver import Training
from lrc_core.allocate.masks.training import require_finite, rise_and_fall
from lrc_core.lowrank.linear import LowRankLinear
from lrc_core.models.device import memory_in_use
from lrc_core.types import OnProgress, ShouldStop

_WARM_UP = 0.05  # share of the steps in which the rate rises

Pairs = dict[str, tuple[Tensor, Tensor]]
"""Left [m, k] and right [k, n] by layer name."""


class TrainedPair(nn.Module):
    """A low-rank linear whose factors are trained in float32.

    Args:
        plain: the layer as the plan has it.

    Attributes:
        left: [m, k].
        right: [k, n].
    """

    def __init__(self, plain: LowRankLinear) -> None:
        super().__init__()
        left, right = balanced(plain.left.detach().float(), plain.right.detach().float())
        self.left, self.right = nn.Parameter(left), nn.Parameter(right)
        self.bias = plain.bias
        self.dtype = plain.left.dtype

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., n] to [..., m]."""
        left, right = self.rounded()
        return functional.linear(functional.linear(inputs, right), left, self.bias)

    def rounded(self) -> tuple[Tensor, Tensor]:
        """Left and right in the model's precision."""
        return self.left.to(self.dtype), self.right.to(self.dtype)


def balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with components whose two vectors are of one length.

    Args:
        left: [m, k].
        right: [k, n].
    """
    columns, rows = torch.linalg.vector_norm(left, dim=0), torch.linalg.vector_norm(right, dim=1)
    there = (columns > 0) & (rows > 0)  # a component of no weight stays as it is
    scale = torch.where(there, (rows / columns).sqrt(), 1.0)
    return left * scale, right / scale[:, None]


class PairTraining(Training):
    """Training of pairs with Adam; a subclass has the loss.

    Args:
        checkpoint: the file that the state is kept in.
        device: of the model.
    """

    def __init__(
        self, checkpoint: Path, on_progress: OnProgress, should_stop: ShouldStop, device: torch.device
    ) -> None:
        super().__init__(checkpoint, on_progress, should_stop)
        self._device = device
        self._losses: list[float] = []

    def _optimise(self, pairs: Collection[TrainedPair], rate: float) -> None:
        """Take pairs whose factors are to be trained at a rate relative to the size of their entries."""
        self._parameters = [parameter for pair in pairs for parameter in (pair.left, pair.right)]
        self._rates = [rate * float(one.detach().square().mean().sqrt()) for one in self._parameters]
        groups = [{"params": [one], "lr": own} for one, own in zip(self._parameters, self._rates, strict=True)]
        self._optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))

    def _descend(self, loss: Tensor, digits: int) -> dict[str, float]:
        """One step down a loss; returns its figures, the loss rounded to so many digits."""
        pace = rise_and_fall(self.step, self._total(), _WARM_UP)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * pace
        self._optimizer.zero_grad()
        loss.backward()
        require_finite(loss, self.step, self._parameters)
        self._optimizer.step()
        self._losses.append(float(loss.detach()))
        return {"loss": round(self._losses[-1], digits), "memory_mb": round(memory_in_use(self._device) / 1e6, 1)}

    def _state(self) -> dict[str, Any]:
        factors = [parameter.detach().cpu() for parameter in self._parameters]
        return {"losses": self._losses, "factors": factors, "optimizer": self._optimizer.state_dict()}

    def _restore(self, state: Mapping[str, Any]) -> None:
        for parameter, saved in zip(self._parameters, state["factors"], strict=True):
            parameter.data.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._losses = list(state["losses"])
        self.step = len(self._losses)


def on_cpu(factors: Mapping[str, tuple[Tensor, Tensor]]) -> Pairs:
    """Factors without gradients, on the CPU."""
    return {name: (left.detach().cpu(), right.detach().cpu()) for name, (left, right) in factors.items()}
