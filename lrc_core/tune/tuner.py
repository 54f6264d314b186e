"""Tuning: the factors of a plan, trained by gradient steps on calibration text.

Ranks, and so the size, stay as the plan has them; layers that it leaves dense are not touched. Every method's plan can
be tuned, so that one with a recovery stage of its own (LLM-Pruner with LoRA, arXiv 2305.11627) is compared with
plans that were tuned as well. The loss is KL(dense || compressed) over the tokens plus a share of the next-token loss:
soft and hard targets (Hinton et al., arXiv 1503.02531). The first is least where the compressed model says what the
dense one says. The second is that of LLM-Pruner's recovery; it also fits the model to the kind of text it is shown.

Two things make one learning rate serve all layers, decompositions and models. Factors are balanced first: the two
vectors of a component get the same length, which leaves their product as it is. And the rate of each factor is relative
to the root mean square of its entries. Both are trained in float32 and used in the model's precision.

Held at a time, beyond the model: float32 factors, their gradients and Adam's two moments, 16 bytes a parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrc_core.allocate.masks.driver import Training
from lrc_core.allocate.masks.teacher import Distiller
from lrc_core.allocate.masks.training import batch_of, require_finite, rise_and_fall
from lrc_core.budget import stored
from lrc_core.errors import CancelledError
from lrc_core.lowrank.apply import FactorSource, compressed
from lrc_core.lowrank.linear import LowRankLinear
from lrc_core.models.blocks.linears import block_linears, get_module, replace_module
from lrc_core.models.device import memory_in_use
from lrc_core.plan import Plan
from lrc_core.tune.settings import TuningSettings
from lrc_core.types import OnProgress, Progress, ShouldStop, ignore_progress, never_stop

PHASE = "tuning factors"
_WARM_UP = 0.05  # share of the steps in which the rate rises

Pairs = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Tuned:
    """What tuning gave.

    Attributes:
        factors: left [m, k] and right [k, n] of every low-rank layer, in the model's precision on the CPU; the plan's
            own where tuning did not help.
        before: mean loss in nats per token on the windows held back; nan without any.
        after: the same with the tuned factors.
        losses: mean loss of every step on its batch.
    """

    factors: Pairs
    before: float
    after: float
    losses: tuple[float, ...]

    @property
    def helped(self) -> bool:
        """Whether the tuned factors are the ones that were taken."""
        return math.isnan(self.before) or self.after < self.before


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


@dataclass(frozen=True)
class TuningCallbacks:
    """Callbacks, and where to go on.

    Attributes:
        checkpoint: a folder of its own, kept between attempts of the same run.
        on_progress: called at every step.
        should_stop: asked at every step.
    """

    checkpoint: Path
    on_progress: OnProgress = ignore_progress
    should_stop: ShouldStop = never_stop


class Tuner(Training):
    """One run of tuning.

    Args:
        model: the dense causal language model in evaluation mode; left as it was found.
        plan: which layers are low-rank, and with which components.
        source: factors of the plan's layers.
        windows: [documents + check windows, window] token ids; fewer where the text is short.
        settings: see :class:`~lrc_core.tune.settings.TuningSettings`.
        watch: callbacks and checkpoint.
        seed: of the order of the windows.
    """

    phase = PHASE
    save_every = 180.0  # a checkpoint holds 12 bytes for every parameter of the factors

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        source: FactorSource,
        windows: Tensor,
        settings: TuningSettings,
        watch: TuningCallbacks,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(watch.checkpoint / "tuning.pt", watch.on_progress, watch.should_stop)
        self._model, self._plan, self._source = model, plan, source
        self._layers = stored(block_linears(model), plan.storage)
        self._settings, self._seed = settings, seed
        held_back = min(settings.check_windows, len(windows) // 4)  # a short text is mostly learned from
        self._windows, self._check = windows[: len(windows) - held_back], windows[len(windows) - held_back :]
        self._batch = min(settings.batch, len(self._windows))
        self._device = next(model.parameters()).device
        self._distiller = Distiller(model, "logits")
        self._losses: list[float] = []

    def run(self) -> Tuned:
        """Train to the end.

        Raises:
            CancelledError: asked to stop; the checkpoint lets the next attempt go on bit for bit.
            NumericalError: the loss is not finite.
            PlanError: the plan does not fit the model or its factors.
        """
        self._ask_the_teacher()
        ranks = self._plan.full_ranks(self._layers)
        with compressed(self._model, self._layers, ranks, self._source, self._plan.kept, as_pairs=True):
            before = self._check_loss()
            with _trained(self._model, list(self._plan.ranks)) as pairs:
                self._tune(pairs)
                after = self._check_loss()
                tuned = {name: _on_cpu(pair.rounded()) for name, pair in pairs.items()}
            found = Tuned(tuned, before, after, tuple(self._losses))
            if found.helped:
                return found
            return Tuned({name: _on_cpu(_factors(self._model, name)) for name in tuned}, before, after, found.losses)

    def _ask_the_teacher(self) -> None:
        """Have the dense model's answers to all windows remembered while the model is dense."""
        numbers = torch.arange(len(self._windows)).split(self._settings.batch)
        for done, indices in enumerate((*numbers, *self._check_batches())):
            self._tick("reading the dense model's answers", done, len(numbers))
            self._distiller.teacher(indices, self._text(indices))

    def _tune(self, pairs: Mapping[str, TrainedPair]) -> None:
        self._parameters = [parameter for pair in pairs.values() for parameter in (pair.left, pair.right)]
        self._rates = [self._settings.rate * float(one.detach().square().mean().sqrt()) for one in self._parameters]
        groups = [{"params": [one], "lr": rate} for one, rate in zip(self._parameters, self._rates, strict=True)]
        self._optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self._resume()
        self._train(self._step, self._batch * self._windows.shape[1])

    def _total(self) -> int:
        return self._settings.passes * (len(self._windows) // self._batch)

    def _step(self) -> dict[str, float]:
        pace = rise_and_fall(self.step, self._total(), _WARM_UP)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * pace
        chosen, tokens = batch_of(self._windows, self._batch, self.step, self._seed)
        loss = self._loss(chosen, tokens.to(self._device))
        self._optimizer.zero_grad()
        loss.backward()
        require_finite(loss, self.step, self._parameters)
        self._optimizer.step()
        self._losses.append(float(loss.detach()))
        return {"loss": round(self._losses[-1], 6), "memory_mb": round(memory_in_use(self._device) / 1e6, 1)}

    def _loss(self, chosen: Tensor, tokens: Tensor) -> Tensor:
        teacher = self._distiller.teacher(chosen, tokens)
        return self._distiller.loss(tokens, teacher, self._settings.text_weight)

    @torch.no_grad()
    def _check_loss(self) -> float:
        """Mean loss on the windows held back."""
        if not len(self._check):
            return math.nan
        total = 0.0
        for indices in self._check_batches():
            self._tick("checking", int(indices[0]) - len(self._windows), len(self._check))
            tokens = self._text(indices)
            total += float(self._loss(indices, tokens)) * len(tokens)
        return total / len(self._check)

    def _check_batches(self) -> tuple[Tensor, ...]:
        """Numbers of the windows held back."""
        first = len(self._windows)
        return torch.arange(first, first + len(self._check)).split(self._settings.batch) if len(self._check) else ()

    def _text(self, indices: Tensor) -> Tensor:
        """Tokens of windows by number, those held back behind those of training."""
        held_back = int(indices[0]) >= len(self._windows)
        windows = self._check[indices - len(self._windows)] if held_back else self._windows[indices]
        return windows.to(self._device)

    def _tick(self, phase: str, step: int, total: int) -> None:
        if self._should_stop():
            raise CancelledError("Tuning was cancelled.", "Resume the run: what is trained is kept.")
        self._on_progress(Progress(phase, step, total))

    def _state(self) -> dict[str, Any]:
        factors = [parameter.detach().cpu() for parameter in self._parameters]
        return {"losses": self._losses, "factors": factors, "optimizer": self._optimizer.state_dict()}

    def _restore(self, state: Mapping[str, Any]) -> None:
        for parameter, saved in zip(self._parameters, state["factors"], strict=True):
            parameter.data.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._losses = list(state["losses"])
        self.step = len(self._losses)


@contextmanager
def _trained(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, TrainedPair]]:
    """The model with the named low-rank layers trained; they themselves are put back at the end."""
    plain: dict[str, Any] = {name: get_module(model, name) for name in names}
    pairs = {name: TrainedPair(module) for name, module in plain.items()}
    try:
        for name, pair in pairs.items():
            replace_module(model, name, pair)
        yield pairs
    finally:
        for name, module in plain.items():
            replace_module(model, name, module)


def _factors(model: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    module: Any = get_module(model, name)
    return module.left, module.right


def _on_cpu(factors: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    left, right = factors
    return left.detach().cpu(), right.detach().cpu()
