"""Second moments of the gradients at the outputs of every block linear, accumulated in a stream.

The gradients are those of the model's own predictive distribution: labels are drawn from its predictions, which makes
the moments those of the true Fisher information, whatever the text says next. They are of the SUMMED loss, so that a
token's gradient does not shrink with the number of tokens.

The model is walked forward once, keeping what enters every block, and then backward block by block: every block runs
once more, with gradients, and hands the gradient at its input to the block before. So at any time one block's graph
and one block's statistics are held, however deep the model is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.calibrate.sums import add_square, mirror, square_sum
from lrc_core.calibrate.team import ALONE, Team, merged, share
from lrc_core.decompose.factorise import is_finite_matrix
from lrc_core.errors import CancelledError, NumericalError
from lrc_core.models.blocks.hooks import hooked
from lrc_core.models.blocks.linears import get_module
from lrc_core.models.blocks.partial import block_output, final_states, first_block_input, run_block
from lrc_core.models.head import output_head
from lrc_core.models.onload.hidden_states import Shelf
from lrc_core.types import LinearShape, OnProgress, Progress, ShouldStop, ignore_progress, never_stop

_SEED = 0  # of the labels that are drawn
_HEAD_ROWS, _HEAD_LOGITS = 512, 2**26  # the head is run on so many tokens at a time, and on fewer of a huge vocabulary


def block_gradients(
    model: nn.Module,
    layers: Sequence[LinearShape],
    windows: Tensor,
    *,
    batch: int = 4,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    team: Team = ALONE,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Walk the blocks from the last to the first and yield the second moments of each.

    Args:
        model: a causal language model in evaluation mode; left as it was found.
        windows: [n, window] token ids.
        team: who shares the windows; every member yields the moments of all of them.

    Yields:
        Block index, and for each of its linears [m, m] float32 on the CPU: the mean over tokens of g g^T; nothing for
        experts that no token reached.

    Raises:
        NumericalError: gradients are not finite; names the layer.
    """
    chunks, device = windows.split(batch), next(model.parameters()).device
    mine = share(team, len(chunks))
    batches = [chunks[number].to(device) for number in mine]
    blocks = range(max(layer.block for layer in layers) + 1)  # also through blocks that have none of the layers
    tick = _counted(2 * len(blocks) * len(batches), on_progress, should_stop)
    inputs = _entering(model, batches, blocks, tick)
    generator = _label_generator(model, chunks[: mine.start])
    slopes: list[Tensor | None] = [None] * len(batches)  # gradient at the output of the current block
    for index in reversed(blocks):
        names = [layer.name for layer in layers if layer.block == index]
        sums: dict[str, Tensor] = {}
        with _recorded(model, names, sums):
            for position, (tokens, entering) in enumerate(zip(batches, inputs.pop(), strict=True)):
                hidden = entering.to(tokens.device).requires_grad_()
                slopes[position] = _backward(model, tokens, index, hidden, slopes[position], generator)
                tick()
        if team.size > 1:
            sums = _added_up(sums, team, device)
        yield index, {name: _mean(name, sums.pop(name), windows.numel()) for name in names if name in sums}


def _counted(steps: int, on_progress: OnProgress, should_stop: ShouldStop) -> Callable[[], None]:
    """What is called after every step."""
    numbers = count(1)

    def tick() -> None:
        on_progress(Progress("collecting output gradients", next(numbers), steps))
        if should_stop():
            raise CancelledError("Collecting output gradients was cancelled.")

    return tick


def _label_generator(model: nn.Module, before: Sequence[Tensor]) -> torch.Generator:
    """Draws labels as one process would that had drawn those of the batches before, which are other members'."""
    generator = torch.Generator().manual_seed(_SEED)
    for chunk in before:
        for size in _head_parts(model, chunk.numel()):
            _uniform(size, generator)
    return generator


def _entering(
    model: nn.Module, batches: Sequence[Tensor], blocks: Sequence[int], tick: Callable[[], None]
) -> list[list[Tensor]]:
    """What enters every block, batch by batch, on the CPU: the walk forward."""
    first = [first_block_input(model, tokens).cpu() for tokens in batches]
    shelf = Shelf(model, len(blocks) * sum(states.numel() * states.element_size() + 64 for states in first))
    inputs = [[shelf.put(states) for states in first]]
    for index in blocks[:-1]:
        outputs = []
        for tokens, hidden in zip(batches, inputs[-1], strict=True):
            outputs.append(shelf.put(run_block(model, tokens, index, hidden.to(tokens.device)).cpu()))
            tick()
        inputs.append(outputs)
    return inputs


def _backward(
    model: nn.Module, tokens: Tensor, index: int, hidden: Tensor, slope: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Gradient at a block's input, on the CPU, given the one at its output; None where nothing stands behind it."""
    if slope is None:
        return _through_head(model, tokens, index, hidden, generator)
    with torch.enable_grad():
        output = block_output(model, tokens, index, hidden)
    return _gradient(output, hidden, slope)


def _gradient(output: Tensor, hidden: Tensor, slope: Tensor) -> Tensor:
    """Gradient at a block's input, on the CPU; hooks see those in between."""
    (found,) = torch.autograd.grad(output, hidden, slope.to(output.device))
    return found.cpu()


def _through_head(model: nn.Module, tokens: Tensor, index: int, hidden: Tensor, generator: torch.Generator) -> Tensor:
    """Gradient at the last block's input: it comes from the loss on drawn labels."""
    with torch.enable_grad():
        states = final_states(model, tokens, index, hidden)
    head, rows = output_head(model), states.detach().flatten(0, 1)
    parts = []
    for part in rows.split(_head_parts(model, len(rows))):
        with torch.enable_grad():
            part.requires_grad_()
            logits = head(part)
        slope = torch.softmax(logits.detach().float(), -1)
        labels = drawn(slope, generator)
        slope[torch.arange(len(labels), device=labels.device), labels] -= 1
        parts.append(torch.autograd.grad(logits, part, slope.to(logits.dtype))[0])
    return _gradient(states, hidden, torch.cat(parts).view_as(states))


def _head_parts(model: nn.Module, rows: int) -> list[int]:
    """Into how many rows each the head's work on a batch is cut."""
    vocabulary = int(model.get_output_embeddings().weight.shape[0])  # type: ignore[operator]
    most = max(1, min(_HEAD_ROWS, _HEAD_LOGITS // vocabulary))
    return [min(most, rows - first) for first in range(0, rows, most)]


def _added_up(own: dict[str, Tensor], team: Team, device: torch.device) -> dict[str, Tensor]:
    """The sums over all members of a team, some of which may have reached no token of an expert."""
    widths = merged(team, {name: (len(found), found.dtype) for name, found in own.items()})
    found = {
        name: own[name] if name in own else torch.zeros(width, width, dtype=dtype, device=device)
        for name, (width, dtype) in widths.items()
    }
    for total in found.values():
        team.add_up(total)
    return found


def drawn(chances: Tensor, generator: torch.Generator) -> Tensor:
    """One label a row, by inverting the distribution function.

    Args:
        chances: [n, vocab], each row's sum 1; float32.
        generator: on the CPU, so that one seed means the same labels on every device.

    Returns:
        [n]
    """
    distribution = chances.cumsum(-1)
    uniform = _uniform(len(chances), generator).to(chances.device)
    labels = torch.searchsorted(distribution, uniform * distribution[:, -1:]).squeeze(1)
    return labels.clamp_max(chances.shape[-1] - 1)


def _uniform(rows: int, generator: torch.Generator) -> Tensor:
    return torch.rand(rows, 1, generator=generator)


@contextmanager
def _recorded(model: nn.Module, names: Sequence[str], sums: dict[str, Tensor]) -> Iterator[None]:
    """Add g g^T of the named linears to ``sums`` during backward passes inside the context."""

    def hook(name: str) -> Any:
        def on_forward(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            def on_gradient(gradient: Tensor) -> None:
                rows = gradient.detach().reshape(-1, gradient.shape[-1])
                if name not in sums:
                    sums[name] = square_sum(rows.shape[1], rows.device)
                add_square(sums[name], rows)

            output.register_hook(on_gradient)

        return on_forward

    with hooked(get_module(model, name).register_forward_hook(hook(name)) for name in names):
        yield


def _mean(name: str, total: Tensor, tokens: int) -> Tensor:
    found = mirror(total.div_(tokens)).float().cpu()
    if not is_finite_matrix(found):
        raise NumericalError(
            f"The gradients at the outputs of {name} are not finite on the calibration text.",
            "Check the model for NaN weights, or compute in float32.",
        )
    return found
