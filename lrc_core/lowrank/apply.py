"""Putting a plan on a model and taking it off again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lrc_core.budget import Ranks, is_dense
from lrc_core.decompose.factorise import Factors
from lrc_core.digests import is_altered
from lrc_core.errors import PlanError
from lrc_core.formats.grids import BF16, FORMATS, Format
from lrc_core.formats.sizes import is_pivoted
from lrc_core.lowrank.linear import LowRankLinear, PivotedLinear
from lrc_core.lowrank.pivots import pivot_form
from lrc_core.lowrank.rounding import let_go, round_into, rounded_linear, unit_columns
from lrc_core.models.blocks.linears import get_module, swapped, weight_of
from lrc_core.types import LinearShape


class FactorSource(Protocol):
    """Whatever can hand out the factors of a layer; :class:`~lrc_core.decompose.store.FactorStore` does."""

    def factors(self, name: str, block: int) -> Factors:
        """Factors of one layer at every rank."""

    def sigma(self, name: str, block: int) -> Tensor:
        """Singular values of one layer, descending."""


def require_unaltered(path: Path, digest: str) -> None:
    """Refuse a file of a plan that is not the one that the plan was written with.

    Raises:
        PlanError: names the file.
    """
    if is_altered(path, digest):
        raise PlanError(
            f"The plan's file {path} is damaged: it is not the one that the plan was written with (SHA-256).",
            "Allocate again, or copy the file once more from the run that made it.",
        )


class PlanWeights:
    """Factors that a plan brings along in a safetensors file.

    ``<layer>.left`` [m, k] and ``<layer>.right`` [k, n], and perhaps ``<layer>.sigma`` [k], the singular values of
    their product; or ``<layer>.gain`` [k] alone, what the first k components of the decomposition are multiplied by.

    Args:
        path: the file that the plan names.
        rest: where the factors of layers that are not in the file come from.
        digest: SHA-256 of the file as the plan has it; "" where it has none.

    Raises:
        PlanError: the file cannot be read, or is not the one that the plan was written with.
    """

    def __init__(self, path: Path, rest: FactorSource, digest: str = "") -> None:
        self._path, self._rest = path, rest
        require_unaltered(path, digest)
        try:
            self._tensors: dict[str, Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise PlanError(f"The plan's weights {path} cannot be read: {error}.") from error

    def factors(self, name: str, block: int) -> Factors:
        """Factors of one layer at the plan's rank."""
        if (gain := self._tensors.get(f"{name}.gain")) is not None:
            return WithGains(self._rest, {name: gain}).factors(name, block)
        if f"{name}.left" not in self._tensors:
            return self._rest.factors(name, block)
        try:
            left, right = self._tensors[f"{name}.left"], self._tensors[f"{name}.right"]
        except KeyError as error:
            raise PlanError(f"The plan's weights lack {error.args[0]}.", "Allocate again.") from error
        sigma = self._tensors.get(f"{name}.sigma")
        return Factors(left, right, self._rest.sigma(name, block)[: left.shape[1]] if sigma is None else sigma)

    def sigma(self, name: str, block: int) -> Tensor:
        """Singular values of one layer before its weights were updated."""
        return self._rest.sigma(name, block)


class WithGains:
    """Factors whose first k components are multiplied by gains, for the layers that have any.

    Args:
        rest: the decomposition's factors.
        gains: [k] by layer name.
    """

    def __init__(self, rest: FactorSource, gains: Mapping[str, Tensor]) -> None:
        self._rest, self._gains = rest, gains

    def factors(self, name: str, block: int) -> Factors:
        """Factors of one layer, k components where it has gains."""
        found, gain = self._rest.factors(name, block), self._gains.get(name)
        if gain is None:
            return found
        k = len(gain)
        return Factors(found.left[:, :k] * gain, found.right[:k], found.sigma[:k] * gain.to(found.sigma.dtype))

    def sigma(self, name: str, block: int) -> Tensor:
        """Singular values of one layer without gains."""
        return self._rest.sigma(name, block)


def compute_factors(model: nn.Module, layer: LinearShape, source: FactorSource) -> tuple[Tensor, Tensor]:
    """Left [m, r] and right [r, n] of a layer in the dtype and on the device of its weight."""
    weight = weight_of(get_module(model, layer.name))
    found = source.factors(layer.name, layer.block)
    return found.left.to(weight.device, weight.dtype), found.right.to(weight.device, weight.dtype)


def low_rank_layer(
    module: nn.Module, factors: Factors, kept: slice | Sequence[int], form: Format = BF16
) -> LowRankLinear:
    """The low-rank form of a linear, in the dtype and on the device of the original.

    Args:
        module: nn.Linear or Conv1D.
        kept: which components: a slice (the first k) or indices.
        form: the number format that both factors are rounded to.
    """
    weight = weight_of(module)
    index = kept if isinstance(kept, slice) else torch.as_tensor(list(kept), dtype=torch.long)
    parts = {"left": factors.left[:, index], "right": factors.right[index]}
    if form is not BF16:
        parts = dict(zip(parts, unit_columns(**parts), strict=True))
    held = {name: part.to(weight.device, weight.dtype).contiguous() for name, part in parts.items()}
    return _rounded(LowRankLinear(**held, bias=getattr(module, "bias", None)), form, parts)


def pivoted_layer(
    module: nn.Module, factors: Factors, kept: slice | Sequence[int], form: Format = BF16
) -> PivotedLinear:
    """The same matrix as :func:`low_rank_layer` makes of it, stored as pivot rows and coefficients.

    Raises:
        NumericalError: the factors are not finite.
    """
    weight = weight_of(module)
    index = kept if isinstance(kept, slice) else torch.as_tensor(list(kept), dtype=torch.long)
    found = pivot_form(factors.left[:, index].to(weight.device), factors.right[index].to(weight.device))
    parts = {"rows": found.rows, "coefficients": found.coefficients}
    held = {name: part.to(weight.device, weight.dtype) for name, part in parts.items()}
    return _rounded(PivotedLinear(**held, pivots=found.pivots, bias=getattr(module, "bias", None)), form, parts)


_Made = TypeVar("_Made", bound=nn.Module)


def _rounded(made: _Made, form: Format, parts: Mapping[str, Tensor]) -> _Made:
    if form is not BF16:
        round_into(made, form, **parts)
    return made


@contextmanager
def compressed(  # noqa: PLR0913 - the last two say how layers are held
    model: nn.Module,
    layers: Sequence[LinearShape],
    ranks: Ranks,
    source: FactorSource,
    kept: Mapping[str, Sequence[int]] | None = None,
    formats: Mapping[str, str] | None = None,
    *,
    as_pairs: bool = False,
    packed: bool = False,
) -> Iterator[nn.Module]:
    """The model with every low-rank layer swapped in; the very same modules are put back at the end.

    Args:
        ranks: rank of every layer; a rank at or above break-even leaves the layer dense, bit for bit.
        source: where the factors come from.
        kept: indices of the kept components where they are not the first k (LLRC's any-k).
        formats: number formats by layer, dense and low-rank ones; the others stay in 16 bits.
        as_pairs: factors whatever the storage law, for what trains or fits them: the same matrices, sooner made.
        packed: rounded layers remember what they are stored as (:func:`~lrc_core.lowrank.rounding.packed_in`).

    Raises:
        PlanError: kept indices disagree with the rank or lie outside the spectrum; factors are too few for the rank.
    """

    def replacements() -> Iterator[tuple[str, nn.Module]]:
        for layer in layers:
            rank, form = ranks[layer.name], FORMATS[(formats or {}).get(layer.name, BF16.name)]
            if is_dense(layer, rank):
                if form is BF16:
                    continue
                made: nn.Module = rounded_linear(get_module(model, layer.name), form)
            else:
                chosen, found = _chosen(layer, rank, kept), source.factors(layer.name, layer.block)
                if found.left.shape[1] < rank or found.right.shape[0] < rank:
                    raise PlanError(f"The factors of {layer.name} have fewer components than its rank {rank}.")
                make = pivoted_layer if is_pivoted(layer, rank, form) and not as_pairs else low_rank_layer
                made = make(get_module(model, layer.name), found, chosen, form)
            if not packed:
                let_go(made)
            yield layer.name, made

    with swapped(model, replacements()):
        yield model


def _chosen(layer: LinearShape, rank: int, kept: Mapping[str, Sequence[int]] | None) -> slice | Sequence[int]:
    """Which components of a layer are kept."""
    if kept is None or layer.name not in kept:
        return slice(0, rank)
    chosen = kept[layer.name]
    if not len(chosen) == len(set(chosen)) == rank or not all(0 <= i < layer.full_rank for i in chosen):
        raise PlanError(f"The kept components of {layer.name} do not match its rank {rank}.")
    return chosen
