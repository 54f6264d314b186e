"""Frozen records and small callables that every floor shares. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from lrc_core.records import Count, Label, Place, Positive, typed

HEADER_ONLY = "header-"
"""How the fingerprint of a model begins of which only the headers were read."""


Storage = Literal["pair", "pivoted"]
"""How a matrix of low rank is stored; see :mod:`lrc_core.budget.laws`."""


@dataclass(frozen=True)
class LinearShape:
    """One linear layer of a decoder block, by its full module name.

    Attributes:
        name: full module name, e.g. ``model.layers.3.mlp.up_proj``.
        block: index of the decoder block, from 0.
        kind: path inside the block, e.g. ``mlp.up_proj``; one column of a heatmap.
        out_features: m, rows of the weight.
        in_features: n, columns of the weight.
        storage: the law by which it counts once it is of low rank; a plan's, not the model's.
        rank_multiple: what its rank is a multiple of where ranks are fitted to a budget.
    """

    name: Label
    block: Count
    kind: Label
    out_features: Positive
    in_features: Positive
    storage: Storage = "pair"
    rank_multiple: Positive = 1

    @property
    def params(self) -> int:
        """Parameters of the dense weight (biases are never compressed and not counted)."""
        return self.out_features * self.in_features

    @property
    def full_rank(self) -> int:
        """min(m, n)."""
        return min(self.out_features, self.in_features)


@dataclass(frozen=True)
class Structure:
    """What a method that prunes structure leaves of the block linears: whole rows and columns of their weights.

    Attributes:
        rows: kept output features, ascending, of every layer that loses some.
        columns: kept input features, likewise.
        heads: of every attention module that loses heads, how many key/value groups it keeps and how many it had.
    """

    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    columns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    heads: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def shapes(self, layers: Sequence[LinearShape]) -> dict[str, tuple[int, int]]:
        """Rows and columns that are left of every layer that loses some."""
        return {
            layer.name: (
                len(self.rows.get(layer.name, range(layer.out_features))),
                len(self.columns.get(layer.name, range(layer.in_features))),
            )
            for layer in layers
            if layer.name in self.rows or layer.name in self.columns
        }


@dataclass(frozen=True)
class ModelIdentity:
    """What a plan, a decomposition or a run was made for.

    Attributes:
        source: what the user typed: ``starter``, a hub id, a directory or a GGUF file.
        revision: hub revision (commit), or "" for local models.
        fingerprint: hash over the weights' names, shapes and contents; equal weights, equal fingerprint. Of a model
            whose weights were not all read: ``header-`` and a hash over the headers of its files.
        architecture: the model class, e.g. ``LlamaForCausalLM``.
    """

    source: Place
    revision: Place
    fingerprint: Label
    architecture: Label

    @property
    def header_only(self) -> bool:
        """Whether the fingerprint is that of the headers alone, which no loaded model has."""
        return self.fingerprint.startswith(HEADER_ONLY)


@dataclass(frozen=True)
class ModelCard:
    """The figures a page shows of a model without holding it.

    Attributes:
        params_total: all parameters, tied ones once.
        params_linear: parameters of the block linears, what a budget is about.
        dtype_bytes: bytes per parameter as loaded.
        coverage: of every part of the blocks (attention, MLP, experts, other) how many parameters of its matrices can
            be compressed, and how many there are; empty where nobody counted.
    """

    identity: ModelIdentity
    name: Place
    params_total: Count
    params_linear: Count
    n_blocks: Count
    hidden_size: Count
    vocab_size: Count
    max_positions: Count
    dtype: Label
    dtype_bytes: Count
    device: Label
    layers: tuple[LinearShape, ...]
    coverage: Mapping[str, tuple[int, int]] = field(default_factory=dict, hash=False)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of layer in the order of their first appearance in a block; the columns of a heatmap."""
        return tuple(dict.fromkeys(layer.kind for layer in self.layers))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able form, without what belongs to a plan."""
        data = asdict(self)
        for layer in data["layers"]:
            del layer["storage"], layer["rank_multiple"]
        return data

    @classmethod
    def from_dict(cls, data: Any, where: str = "The model card") -> Self:
        """Inverse of :meth:`to_dict`.

        Raises:
            RecordError: names the field that is not what it should be.
        """
        return typed(cls, data, where)


@dataclass(frozen=True)
class Progress:
    """One tick of a long computation.

    Attributes:
        phase: what is being done, in plain words ("collecting second moments").
        step: steps done in this phase.
        total: steps of this phase, 0 when unknown.
        values: named figures of this tick (losses, achieved ratio, ...), JSON-able.
    """

    phase: str
    step: int = 0
    total: int = 0
    values: dict[str, Any] | None = None


OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]
"""Asked now and then; whoever is told yes raises :class:`~lrc_core.errors.CancelledError`."""


def ignore_progress(_: Progress) -> None:
    """The default ``on_progress``: does nothing."""


def never_stop() -> bool:
    """The default ``should_stop``."""
    return False
