"""Gains of kept components: masks that start at 1 and follow their slopes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_WARM_UP = 10  # steps in which the rate rises to its full height: Adam's first steps know no scale
_AVERAGED = 0.9  # of the running average a step; about the last ten steps count


class Gains:
    """One gain for every component of every layer, moved by Adam (Kingma and Ba 2015, arXiv 1412.6980).

    Only components that are kept in a low-rank layer move; others keep the gain that they last had, 1 at first.

    Args:
        count: components of all layers.
        rate: learning rate; 0 leaves all gains at 1.
        saved: what :meth:`state` gave.
    """

    def __init__(self, count: int, rate: float, saved: dict[str, Any] | None = None) -> None:
        self._rate = rate
        self._now = torch.nn.Parameter(torch.ones(count) if saved is None else saved["now"])
        self._average = torch.ones(count) if saved is None else saved["average"]
        self._steps = 0 if saved is None else saved["steps"]
        self._optimizer = torch.optim.Adam([self._now], lr=rate, betas=(0.9, 0.99))
        if saved is not None:
            self._optimizer.load_state_dict(saved["optimizer"])

    @property
    def now(self) -> Tensor:
        """[count] gains as they are in training."""
        return self._now.detach()

    @property
    def average(self) -> Tensor:
        """[count] running average: what a plan gets, with less of the last batches in it."""
        return self._average

    def step(self, slopes: Tensor, moving: Tensor, pace: float) -> None:
        """Move down the slopes of one batch.

        Args:
            slopes: [count] dKL/dm.
            moving: [count] booleans: kept components of low-rank layers.
            pace: share of the learning rate, 0 to 1.
        """
        if not self._rate:
            return
        self._steps += 1
        before = self.now.clone()
        self._now.grad = torch.where(moving, slopes.to(before.dtype), 0.0)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * pace * min(1.0, self._steps / _WARM_UP)
        self._optimizer.step()
        self._now.data = torch.where(moving, self.now, before)  # momentum of a component that has left does not count
        self._average = torch.where(moving, self._average.lerp(self.now, 1 - _AVERAGED), self.now)

    def state(self) -> dict[str, Any]:
        """Everything to go on bit for bit."""
        return {
            "now": self.now.clone(),
            "average": self._average.clone(),
            "steps": self._steps,
            "optimizer": self._optimizer.state_dict(),
        }
