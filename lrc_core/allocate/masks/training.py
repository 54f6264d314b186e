"""What everything that trains needs around its steps, as plain functions: factors, batches, checkpoints, telling.

The loop itself is that of :class:`~lrc_core.allocate.masks.driver.Training`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrc_core.allocate.protocol import Allocation, Context, PassedPlan
from lrc_core.budget import keep_at, keep_ratio, removed_percent, size_key
from lrc_core.damage import earlier, require_whole_zip
from lrc_core.errors import NumericalError
from lrc_core.files import replacing
from lrc_core.models.blocks.linears import get_module, weight_of
from lrc_core.models.device import memory_in_use
from lrc_core.types import Progress

PHASE = "training masks"
_RANKS_EVERY = 5  # steps between the rank snapshots that a live view draws

Fit = Callable[[Mapping[str, int], float], Allocation]
"""``fit(ranks, keep)`` makes a plan that meets a budget of ranks that may not."""


def load_factors(context: Context, components: Mapping[str, int] | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """Factors of every layer on the model's device in its dtype.

    Args:
        components: how many components of a layer are wanted; all where it is not given.

    Returns:
        left [m, r] and right [r, n] by layer name.
    """
    loaded = {}
    for layer in context.layers:
        weight = weight_of(get_module(context.model, layer.name))
        found = context.source.factors(layer.name, layer.block)
        wanted = layer.full_rank if components is None else components[layer.name]
        left, right = found.left[:, :wanted], found.right[:wanted]
        loaded[layer.name] = (
            left.to(weight.device, weight.dtype).contiguous(),
            right.to(weight.device, weight.dtype).contiguous(),
        )
    return loaded


def batch_of(windows: Tensor, batch: int, step: int, seed: int) -> tuple[Tensor, Tensor]:
    """Windows of a step: a new seeded order every time the text has been seen once.

    Args:
        windows: [n, window] token ids.
        batch: windows wanted in a step; fewer are given where there are not as many.
        step: from 0.
        seed: of the orders.

    Returns:
        Indices [batch] and tokens [batch, window].
    """
    count, size = len(windows), min(batch, len(windows))
    epoch, position = divmod(step, count // size)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 7919 + epoch))
    chosen = order[position * size : (position + 1) * size]
    return chosen, windows[chosen]


def rise_and_fall(step: int, steps: int, warm_up: float) -> float:
    """Share of the learning rate at a step: up in a line, then down in a line.

    Args:
        steps: of the whole run.
        warm_up: share of the steps in which it rises.
    """
    rising = max(1, round(warm_up * steps))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)


def require_finite(loss: Tensor, step: int, parameters: Iterable[Tensor] = ()) -> None:
    """Raise where a loss cannot be learned from, before it spoils the parameters.

    Args:
        loss: scalar.
        parameters: after the backward pass, those whose gradients are to be finite as well.

    Raises:
        NumericalError: something is NaN or infinite; names the step.
    """
    gradients = (parameter.grad for parameter in parameters if parameter.grad is not None)
    if not torch.isfinite(loss) or not all(bool(gradient.isfinite().all()) for gradient in gradients):
        raise NumericalError(
            f"The loss of step {step} is not finite.", "Lower the learning rate, or compute in float32."
        )


def tick_figures(parts: Mapping[str, Tensor]) -> dict[str, float]:
    """Loss terms as the figures of a tick."""
    return {name: round(float(part.detach()), 6) for name, part in parts.items()}


def mask_entropy(probabilities: Tensor) -> float:
    """How undecided masks are: the mean of -p log2 p - (1 - p) log2 (1 - p), in bits per component.

    1 where every component is a toss-up, 0 where all are decided.

    Args:
        probabilities: [components] of being kept, of all layers together.
    """
    chances = probabilities.detach().to("cpu", torch.float64).clamp(0, 1)  # mps knows no doubles; sums end above 1
    return round(float((torch.special.entr(chances) + torch.special.entr(1 - chances)).mean()) / math.log(2), 6)


def report(
    context: Context, progress: tuple[int, int], ranks: Mapping[str, int], values: Mapping[str, Any], *, last: bool
) -> None:
    """Tell how training stands: a tick at every step, the ranks at every fifth one and at the last.

    Args:
        progress: steps done, steps expected.
        ranks: how they stand, under the noise-free mask.
        values: figures of the step.
        last: whether training ends with this step.
    """
    step, total = progress
    keep = keep_ratio(context.layers, ranks)
    memory = memory_in_use(next(context.model.parameters()).device)
    figures = {**values, "keep": size_key(keep), "memory_mb": round(memory / 1e6, 1)}
    if context.by_parameters:
        figures["target"] = context.keep
    context.on_progress(Progress(PHASE, step, max(total, step), figures))
    if step % _RANKS_EVERY == 0 or last:
        context.on_ranks(step, keep, ranks)


def record_passed(
    context: Context, recorded: list[dict[str, Any]], ranks: Mapping[str, int], step: int, fit: Fit
) -> None:
    """Record a plan at every whole percent of compression that the training has passed for the first time.

    Args:
        context: target and callbacks.
        recorded: entries made so far, which a checkpoint keeps; new ones are added.
        ranks: of this step, under the noise-free mask.
        fit: makes a plan of them at a rate.
    """
    keep = keep_ratio(context.layers, ranks)
    done = {entry["percent"] for entry in recorded}
    for percent in range(1, math.floor(removed_percent(max(keep, context.keep))) + 1):
        if percent not in done:
            target = keep_at(percent)
            plan = fit(ranks, target)
            recorded.append({"percent": percent, "ranks": plan.ranks, "kept": plan.kept, "step": step})
            context.on_recorded(PassedPlan(target, plan.ranks, plan.kept, step, plan.gains))


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; what was there before is replaced only once the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save(dict(state), temporary)


def load_state(path: Path) -> dict[str, Any] | None:
    """The checkpoint of an earlier attempt, on the CPU; None where there is none or it is damaged."""
    return earlier(path, _state_in)


def _state_in(path: Path) -> dict[str, Any]:
    require_whole_zip(path)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
