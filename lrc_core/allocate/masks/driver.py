"""The driver of everything that trains: steps, counting, checkpoints, going on, cancelling, telling.

What trains gives its step, its state, how far it is and what it tells. :class:`Training` is for anything with an
optimizer, :class:`RankTraining` for methods that learn ranks with masks over frozen factors.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from lrc_core.allocate.masks.teacher import Distiller
from lrc_core.allocate.masks.training import (
    batch_of,
    load_state,
    mask_entropy,
    report,
    require_finite,
    save_state,
)
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import factor_params, fit_budget, keep_ratio
from lrc_core.damage import set_aside
from lrc_core.errors import CancelledError
from lrc_core.lowrank.masked import MaskedLinear, masked_layers, without_masks
from lrc_core.types import OnProgress, Progress, ShouldStop


class Training(ABC):
    """One run of steps, which goes on from its checkpoint bit for bit.

    Args:
        checkpoint: the file that the state is kept in.

    Attributes:
        phase: what a tick of it is called.
        save_every: seconds from one checkpoint to the next.
        step: steps done.
    """

    phase: str
    save_every = 30.0

    def __init__(self, checkpoint: Path, on_progress: OnProgress, should_stop: ShouldStop) -> None:
        self._checkpoint, self._on_progress, self._should_stop = checkpoint, on_progress, should_stop
        self.step = 0

    @abstractmethod
    def _total(self) -> int:
        """Steps of the whole run, as far as is known."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds: all that a resumed run needs to go on bit for bit."""

    @abstractmethod
    def _restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`_state` gave an earlier attempt."""

    def _finished(self) -> bool:
        return self.step >= self._total()

    def _tell(self, values: Mapping[str, Any]) -> None:
        """Told after every step."""
        self._on_progress(Progress(self.phase, self.step, self._total(), dict(values)))

    def _resume(self) -> bool:
        """Go on where an earlier attempt stopped; returns whether there was one whose checkpoint can be read."""
        state = load_state(self._checkpoint)
        if state is None:
            return False
        beginning = deepcopy(self._state())
        try:
            self._restore(state)
        except Exception as error:  # a state of something else: what of it was taken over is put back
            set_aside(self._checkpoint, error)
            self._restore(beginning)
            return False
        return True

    def _train(self, advance: Callable[[], Mapping[str, Any]], tokens: int) -> None:
        """Take steps to the end.

        Args:
            advance: one step; returns its figures.
            tokens: how many a step trains on.

        The state is saved now and then, at the end and when the run is cancelled. Speed is that of this attempt so far.

        Raises:
            CancelledError: asked to stop, after a save.
        """
        saved = started = time.monotonic()
        first = self.step
        while not self._finished():
            if self._should_stop():
                self._save()
                raise CancelledError("Training was cancelled.", "Resume the run: it goes on from this step.")
            values = advance()
            self.step += 1
            speed = (self.step - first) * tokens / (time.monotonic() - started)
            self._tell({**values, "tokens_per_s": round(speed, 1)})
            if time.monotonic() - saved > self.save_every:
                self._save()
                saved = time.monotonic()
        self._save()

    def _save(self) -> None:
        save_state(self._checkpoint, self._state())


class RankSettings(Protocol):
    """What the settings of every method that learns ranks say."""

    @property
    def documents(self) -> int:
        """Windows of text."""

    @property
    def window(self) -> int:
        """Tokens of one."""

    @property
    def batch(self) -> int:
        """Windows of a step."""


S = TypeVar("S", bound=RankSettings)


class RankTraining(Training, Generic[S]):
    """One run of a method that learns ranks.

    A subclass sets its parameters, ``optimizer`` and ``factors`` up and calls ``_resume`` at the end of that.

    Args:
        settings: of the method.
        task: what the masked model is held to; see :class:`~lrc_core.allocate.masks.teacher.Distiller`.
        more_windows: windows of text beyond those that are trained on.
        file: the name of the checkpoint.
    """

    factors: dict[str, tuple[Tensor, Tensor]]
    optimizer: torch.optim.Optimizer

    def __init__(
        self, context: Context, settings: S, task: str, *, more_windows: int = 0, file: str = "masks.pt"
    ) -> None:
        super().__init__(context.checkpoint / file, context.on_progress, context.should_stop)
        self.context, self.settings = context, settings
        self.layers = context.layers
        self.sizes = [layer.full_rank for layer in self.layers]
        self.device = next(context.model.parameters()).device
        self.windows = context.windows(settings.documents + more_windows, settings.window, context.seed)
        self.distiller = Distiller(context.model, task)
        self._has_task = task != "none"

    @abstractmethod
    def _step(self, masked: dict[str, MaskedLinear]) -> dict[str, float]:
        """One optimizer step; returns the figures a live view shows."""

    @abstractmethod
    def count(self) -> dict[str, int]:
        """Rank of every layer as it stands."""

    @abstractmethod
    def probabilities(self) -> Tensor:
        """[components of all layers] how likely every component is kept."""

    def run(self) -> Allocation:
        """Train to the end, then return the plan."""
        with masked_layers(self.context.model, self.factors) as masked:
            self._train(partial(self._step, masked), self.settings.batch * self.settings.window)
        return self._result()

    def _after_step(self) -> dict[str, int]:
        """Look at what the step has changed; returns the ranks."""
        return self.count()

    def _figures(self, ranks: Mapping[str, int]) -> dict[str, float]:
        """Figures that are known only after a step."""
        return {}

    def _tell(self, values: Mapping[str, Any]) -> None:
        ranks = self._after_step()
        figures = {**values, **self._figures(ranks), "entropy": mask_entropy(self.probabilities())}
        report(self.context, (self.step, self._total()), ranks, figures, last=self._finished())

    def _result(self) -> Allocation:
        ranks = self.count()
        return Allocation(fit_budget(self.layers, ranks, self.context.keep), details=self._details(ranks))

    def _details(self, ranks: Mapping[str, int]) -> dict[str, Any]:
        """Figures of the whole run for the record."""
        return {"steps": self.step, "keep_before_fitting": keep_ratio(self.layers, ranks)}

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Indices and tokens of a step."""
        chosen, tokens = batch_of(self.windows, self.settings.batch, step, self.context.seed)
        return chosen, tokens.to(self.device)

    def _soft_params(self, kept: Iterable[Tensor]) -> list[Tensor]:
        """Parameters of every layer at a number of kept components that need not be whole, with its gradient."""
        return [factor_params(layer, count) for layer, count in zip(self.layers, kept, strict=True)]

    def _task(self, masked: dict[str, MaskedLinear]) -> Tensor:
        """What the masks cost on the text of this step; 0 without a task."""
        if not self._has_task:
            return torch.zeros((), device=self.device)
        chosen, tokens = self._batch(self.step)
        with without_masks(masked):
            target = self.distiller.teacher(chosen, tokens)
        return self.distiller.loss(tokens, target)

    def _descend(self, loss: Tensor, parameters: Iterable[Tensor] = ()) -> None:
        """A step of the optimizer down a loss.

        Args:
            loss: scalar; nothing moves where it depends on no parameter.
            parameters: those whose gradients are to be finite.
        """
        self.optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        require_finite(loss, self.step, parameters)
        if loss.requires_grad:
            self.optimizer.step()
