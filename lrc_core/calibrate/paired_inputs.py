"""What two models put into the same linears, token by token: the sums behind the closed-form update, and its hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.calibrate.sums import add_products, add_square, mirror, square_sum
from lrc_core.decompose.factorise import is_finite_matrix
from lrc_core.decompose.update import PairedMoments
from lrc_core.errors import NumericalError
from lrc_core.models.blocks.hooks import hooked
from lrc_core.models.blocks.linears import bias_of, get_module
from lrc_core.types import LinearShape


class PairedSums:
    """Running sums over the paired inputs of linears that share them.

    Args:
        inputs: a batch of them, for size and device.
    """

    def __init__(self, inputs: Tensor) -> None:
        self._own, self._cross = (square_sum(inputs.shape[-1], inputs.device) for _ in range(2))
        self._tokens = 0

    def add(self, small: Tensor, other: Tensor) -> None:
        """Add a batch: [..., n] inputs in the compressed model and, of the same tokens, what the target is made of."""
        rows = small.reshape(-1, small.shape[-1])
        add_square(self._own, rows)
        add_products(self._cross, other.reshape(rows.shape), rows)
        self._tokens += rows.shape[0]

    def finish(self, name: str) -> PairedMoments:
        """Means over all tokens.

        Raises:
            NumericalError: they are not finite; names the layer.
        """
        own, cross = mirror(self._own.div_(self._tokens)), self._cross.div_(self._tokens)
        if own.device.type == "mps":
            own, cross = own.cpu().double(), cross.cpu().double()
        if not (is_finite_matrix(own) and is_finite_matrix(cross)):
            raise NumericalError(
                f"The inputs of {name} are not finite on the calibration text.",
                "Check the model for NaN weights, or compute in float32.",
            )
        return PairedMoments(own, cross, self._tokens)


def input_groups(model: nn.Module, layers: Sequence[LinearShape], tokens: Tensor) -> list[tuple[str, ...]]:
    """Linears that receive the same tensor, in the order in which the dense model runs them."""
    groups: dict[tuple[int, int], list[str]] = {}
    alive: list[Tensor] = []  # no address is used twice while its tensor is held

    def hook(name: str) -> Any:
        def note(_: nn.Module, args: tuple[Any, ...]) -> None:
            alive.append(args[0])
            groups.setdefault((args[0].data_ptr(), args[0]._version), []).append(name)

        return note

    handles = (get_module(model, layer.name).register_forward_pre_hook(hook(layer.name)) for layer in layers)
    with hooked(handles), torch.no_grad():
        model(input_ids=tokens, use_cache=False)
    return [tuple(names) for names in groups.values()]


@contextmanager
def outputs_summed(model: nn.Module, energies: dict[str, float], roots: Mapping[str, Tensor]) -> Iterator[None]:
    """Add the squared outputs (without bias, weighed by R) of the named linears to ``energies`` while they run."""

    def hook(name: str) -> Any:
        def add(module: nn.Module, _: Any, output: Tensor) -> None:
            bias = bias_of(module)
            plain = output.float() if bias is None else output.float() - bias.float()
            if name in roots:
                plain = plain @ roots[name].to(plain.device, plain.dtype)
            energies[name] += float(plain.square().sum())

        return add

    with hooked(get_module(model, name).register_forward_hook(hook(name)) for name in energies):
        yield
