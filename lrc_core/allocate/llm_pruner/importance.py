"""What the loss would suffer from losing a head or an MLP channel, by Taylor expansion at the dense model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lrc_core.allocate.llm_pruner.settings import LlmPrunerSettings
from lrc_core.allocate.protocol import Context
from lrc_core.damage import earlier
from lrc_core.errors import CancelledError, NumericalError, RunError
from lrc_core.files import write_arrays
from lrc_core.lowrank.coupling import CoupledUnits
from lrc_core.models.blocks.hooks import hooked
from lrc_core.models.blocks.linears import get_module, weight_of
from lrc_core.types import LinearShape, Progress

Scores = dict[str, NDArray[np.float64]]
_TOKENS_PER_PASS = 1024
_ELEMENTS_AT_ONCE = 2**29  # of gradients held in float32: a large model is gone through some blocks at a time
_SECOND_ORDER = ("param_second", "param_mix")


def unit_scores(context: Context, settings: LlmPrunerSettings, sets: Sequence[CoupledUnits]) -> Scores:
    """Importance of every unit of every set, as LLM-Pruner's section 3.2 defines it.

    The scores do not depend on the target; they are kept in the shared folder.

    Returns:
        [count] scores by the set's name; larger is more important.

    Raises:
        NumericalError: a gradient is not finite; names the layer.
    """
    path = context.shared / "importance.npz"
    if (known := earlier(path, lambda file: _load(file, sets))) is not None:
        return known
    windows = context.windows(settings.windows, settings.window, context.seed)
    scores: Scores = {}
    parts = list(_parts(sets))
    for number, part in enumerate(parts):
        layers = [layer for units in part for layer in (*units.rows, *units.columns)]
        gradients = _Gradients(context.model, layers, second=settings.importance in _SECOND_ORDER)
        _backward(context, gradients, windows, (number, len(parts)))
        for units in part:
            scores[units.name] = _scores_of(context.model, units, gradients, settings.importance)
    context.shared.mkdir(parents=True, exist_ok=True)
    write_arrays(path, scores)
    return scores


def _load(path: Path, sets: Sequence[CoupledUnits]) -> Scores:
    """Scores of an earlier run."""
    with np.load(path) as arrays:
        scores = {units.name: arrays[units.name] for units in sets}
    if any(scores[units.name].shape != (units.count,) for units in sets):
        raise RunError("its scores are of other sizes")
    return scores


def _parts(sets: Sequence[CoupledUnits]) -> Iterator[list[CoupledUnits]]:
    """As many sets at a time as their gradients' memory allows."""
    part: list[CoupledUnits] = []
    elements = 0
    for units in sets:
        size = sum(layer.params for layer in (*units.rows, *units.columns))
        if part and elements + size > _ELEMENTS_AT_ONCE:
            yield part
            part, elements = [], 0
        part.append(units)
        elements += size
    if part:
        yield part


class _Gradients:
    """Gradients of the mean loss with respect to weights, [out, in] in float32, from forward and backward hooks.

    Attributes:
        first: dL/dW of the mean over all windows.
        second: mean over windows of the squared gradient of each window's loss (the diagonal of the empirical
            Fisher information); empty unless asked for.
    """

    def __init__(self, model: nn.Module, layers: Sequence[LinearShape], *, second: bool) -> None:
        self._modules = {layer.name: get_module(model, layer.name) for layer in layers}

        def zeros() -> dict[str, Tensor]:
            return {
                layer.name: torch.zeros(
                    layer.out_features, layer.in_features, device=weight_of(self._modules[layer.name]).device
                )
                for layer in layers
            }

        self.first = zeros()
        self.second = zeros() if second else {}

    @contextmanager
    def collecting(self, share: float) -> Iterator[None]:
        """Add the gradients of backward passes inside the context, times ``share``."""
        with hooked(module.register_forward_hook(self._hook(name, share)) for name, module in self._modules.items()):
            yield

    def _hook(self, name: str, share: float) -> Any:
        def on_forward(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            inputs = args[0].detach()

            def on_gradient(grad: Tensor) -> None:
                found = grad.reshape(-1, grad.shape[-1]).float().T @ inputs.reshape(-1, inputs.shape[-1]).float()
                self.first[name].add_(found, alpha=share)
                if self.second:
                    self.second[name].addcmul_(found, found, value=share)

            output.register_hook(on_gradient)

        return on_forward


def _backward(context: Context, gradients: _Gradients, windows: Tensor, part: tuple[int, int]) -> None:
    """One backward pass of the next-token loss a batch; for second order a batch is a window."""
    device = next(context.model.parameters()).device
    size = 1 if gradients.second else max(1, _TOKENS_PER_PASS // windows.shape[1])
    batches = windows.split(size)
    done, total = part[0] * len(batches), part[1] * len(batches)
    for number, batch in enumerate(batches):
        if context.should_stop():
            raise CancelledError("Measuring the importance of heads and channels was cancelled.", "Resume the run.")
        with gradients.collecting(len(batch) / len(windows)):
            loss = _backward_batch(context.model, batch.to(device))
        if not np.isfinite(loss):
            raise NumericalError("The loss of the dense model is not finite.", "Compute in float32.")
        context.on_progress(Progress("measuring importance", done + number + 1, total, {"loss": round(loss, 6)}))


def _backward_batch(model: nn.Module, tokens: Tensor) -> float:
    """Backward pass of the mean next-token loss; gradients flow through activations only."""
    with torch.enable_grad():
        embedded = model.get_input_embeddings()(tokens).detach().requires_grad_()  # type: ignore[operator]
        logits = model(inputs_embeds=embedded, use_cache=False).logits[:, :-1].flatten(0, 1)
        loss = nn.functional.cross_entropy(logits.float(), tokens[:, 1:].flatten())
    torch.autograd.backward(loss, inputs=[embedded])
    return float(loss.detach())


def _scores_of(model: nn.Module, units: CoupledUnits, gradients: _Gradients, importance: str) -> NDArray[np.float64]:
    """Scores of the units of one set: those of their rows and columns added up (the paper's summation)."""
    total = np.zeros(units.count)
    for axis, members in ((1, units.rows), (0, units.columns)):
        for layer, index in members.items():
            weight = weight_of(get_module(model, layer.name)).detach().float()
            second = gradients.second.get(layer.name)
            salience = salience_of(weight, gradients.first[layer.name], second, importance)
            one = (salience.sum(axis).abs() if importance == "vectorize" else salience.abs().sum(axis)).double()
            if not torch.isfinite(one).all():
                raise NumericalError(f"The importance of {layer.name} is not finite.", "Compute in float32.")
            total += one.cpu().numpy()[index].sum(1)
    return total


def salience_of(weight: Tensor, first: Tensor, second: Tensor | None, importance: str) -> Tensor:
    """How much the loss falls, to that order, when each element of a weight becomes zero (section 3.2).

    Args:
        weight: [m, n].
        first: dL/dW.
        second: mean squared gradient, where the importance needs it.
        importance: see :class:`~lrc_core.allocate.llm_pruner.settings.LlmPrunerSettings`.
    """
    if importance in ("param_first", "vectorize"):
        return weight * first
    assert second is not None
    quadratic = weight * second * weight
    return quadratic if importance == "param_second" else weight * first - 0.5 * quadratic
