"""Tuning: the factors of a plan, trained by gradient steps on calibration text.

Ranks, and so the size, stay as the plan has them; layers that it leaves dense are not touched. Every method's plan can
be tuned, so that one with a recovery stage of its own (LLM-Pruner with LoRA, arXiv 2305.11627) is compared with
plans that were tuned as well. The loss is KL(dense || compressed) over the tokens plus a share of the next-token loss:
soft and hard targets (Hinton et al., arXiv 1503.02531). The first is least where the compressed model says what the
dense one says. The second is that of LLM-Pruner's recovery; it also fits the model to the kind of text it is shown.

Held at a time, beyond the model: float32 factors, their gradients and Adam's two moments, 16 bytes a parameter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.allocate.masks.teacher import Distiller, TeacherStates
from lrc_core.allocate.masks.training import batch_of
from lrc_core.budget import stored
from lrc_core.errors import CancelledError
from lrc_core.lowrank.apply import FactorSource, compressed
from lrc_core.models.blocks.linears import block_linears, get_module, swapped
from lrc_core.plan import Plan
from lrc_core.tune.trained_pairs import Pairs, PairTraining, TrainedPair, on_cpu
from lrc_core.types import OnProgress, Progress, ShouldStop, ignore_progress, never_stop
from lrc_core.updates import TuningSettings

PHASE = "tuning factors"


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


@dataclass(frozen=True)
class TuningCallbacks:
    """Callbacks, and where to go on.

    Attributes:
        checkpoint: a folder of its own, kept between attempts of the same run.
        on_progress: called at every step.
        should_stop: asked at every step.
        answers: the dense model's to the same windows in the same batches, where another plan was tuned on them.
    """

    checkpoint: Path
    on_progress: OnProgress = ignore_progress
    should_stop: ShouldStop = never_stop
    answers: TeacherStates = field(default_factory=dict)


class Tuner(PairTraining):
    """One run of tuning.

    Args:
        model: the dense causal language model in evaluation mode; left as it was found.
        plan: which layers are low-rank, and with which components.
        source: factors of the plan's layers.
        windows: [documents + check windows, window] token ids; fewer where the text is short.
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
        device = next(model.parameters()).device
        super().__init__(watch.checkpoint / "tuning.pt", watch.on_progress, watch.should_stop, device)
        self._model, self._plan, self._source = model, plan, source
        self._layers = stored(block_linears(model), plan.storage)
        self._settings, self._seed = settings, seed
        held_back = min(settings.check_windows, len(windows) // 4)  # a short text is mostly learned from
        self._windows, self._check = windows[: len(windows) - held_back], windows[len(windows) - held_back :]
        self._batch = min(settings.batch, len(self._windows))
        self._distiller = Distiller(model, "logits", watch.answers)

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
            plain: dict[str, Any] = {name: get_module(self._model, name) for name in self._plan.ranks}
            pairs = {name: TrainedPair(module) for name, module in plain.items()}
            with swapped(self._model, pairs.items()):
                self._optimise(pairs.values(), self._settings.rate)
                self._resume()
                self._train(self._step, self._batch * self._windows.shape[1])
                after = self._check_loss()
            tuned = on_cpu({name: pair.rounded() for name, pair in pairs.items()})
            found = Tuned(tuned, before, after, tuple(self._losses))
            if found.helped:
                return found
            own = on_cpu({name: (module.left, module.right) for name, module in plain.items()})
            return Tuned(own, before, after, found.losses)

    def _ask_the_teacher(self) -> None:
        """Have the dense model's answers to all windows remembered while the model is dense."""
        batches = (*torch.arange(len(self._windows)).split(self._settings.batch), *self._check_batches())
        for done, indices in enumerate(batches):
            self._tick("reading the dense model's answers", done, len(batches))
            self._distiller.teacher(indices, self._text(indices))

    def _total(self) -> int:
        return self._settings.passes * (len(self._windows) // self._batch)

    def _step(self) -> dict[str, float]:
        chosen, tokens = batch_of(self._windows, self._batch, self.step, self._seed)
        return self._descend(self._loss(chosen, tokens.to(self._device)), digits=6)

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
