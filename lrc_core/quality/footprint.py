"""What a model needs in memory while it answers: weights, key-value cache and overhead, counted from shapes. No torch.

All three are counted, not measured: weights exactly, the cache exactly for models that keep keys and values of every
position, the overhead as an estimate of the tensors that are alive while a prompt is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from lrc_core.errors import SettingsError
from lrc_core.formats.grids import BF16
from lrc_core.plan import Plan
from lrc_core.types import LinearShape, ModelCard

_KEYS = ("k_proj", "key", "k_lin", "wk", "k")
_VALUES = ("v_proj", "value", "v_lin", "wv", "v")
_FUSED = ("qkv_proj", "c_attn", "query_key_value", "wqkv", "Wqkv", "qkv", "in_proj", "att_proj")
_OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense", "wo", "attn_out", "out_lin")
_LOGIT_BYTES = 4
"""Scores over the vocabulary are made in float32."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a model needs to answer.

    Attributes:
        weights: parameters at the model's precision, those with a number format in that.
        cache: keys and values of every position of every sequence; None where the architecture is not known.
        overhead: activations while the prompt is read, and the scores over the vocabulary; an estimate.
    """

    weights: int
    cache: int | None
    overhead: int

    @property
    def total(self) -> int:
        """Everything that is known."""
        return self.weights + (self.cache or 0) + self.overhead

    def monthly(self, price_per_gb: float) -> float:
        """Money a month at a price for every 10^9 bytes."""
        return self.total / 1e9 * price_per_gb


def footprint(card: ModelCard, plan: Plan | None, context: int, sequences: int = 1) -> Footprint:
    """Memory of a model under a plan, at the precision that it is served in.

    Args:
        card: the model's, of whatever precision it was loaded in.
        plan: a plan of it, None for the dense model.
        context: positions that every sequence holds.
        sequences: how many are answered at once.

    Raises:
        SettingsError: no positions or no sequences.
    """
    if context < 1 or sequences < 1:
        raise SettingsError(f"A context of {context} tokens for {sequences} requests cannot be.", "Take at least 1.")
    card = served(card)
    each = cache_bytes_per_token(card, plan)
    return Footprint(
        weights=weight_bytes(card, plan, card.dtype_bytes),
        cache=None if each is None else each * context * sequences,
        overhead=overhead_bytes(card, context, sequences),
    )


def params_under(card: ModelCard, plan: Plan | None) -> int:
    """Parameters of the whole model under a plan, tied ones once."""
    if plan is None:
        return card.params_total
    return card.params_total - card.params_linear + sum(state.params for state in plan.states(card.layers))


SERVED_BYTES = 2
"""Per parameter where a model is served: 16 bits, whatever precision this computer had to load it in."""


def served(card: ModelCard) -> ModelCard:
    """The card at the precision that the model is served in: what sizes are said of.

    A processor without 16-bit arithmetic loads 32 bits, which doubles every size and is nobody's question.
    """
    if card.dtype_bytes <= SERVED_BYTES:
        return card
    return replace(card, dtype="16 bits", dtype_bytes=SERVED_BYTES)


def weight_bytes(card: ModelCard, plan: Plan | None, each: int) -> int:
    """Bytes of a model's weights: ``each`` for a parameter; layers in number formats what those take."""
    packed = [state for state in plan.states(card.layers) if state.form is not BF16] if plan is not None else []
    plain = params_under(card, plan) - sum(state.params for state in packed)
    return plain * each + sum(state.bytes for state in packed)


def cache_bytes_per_token(card: ModelCard, plan: Plan | None = None) -> int | None:
    """Bytes of keys and values that one position adds, over all blocks; None where that is unknown.

    The outputs of the key and value layers are what is kept, which with grouped-query attention is less than the
    width. Low-rank factors leave them as they are; pruned heads are gone from them.
    """
    left = dict(plan.pruned or {}) if plan is not None else {}
    total = 0
    for _, block in groupby(card.layers, key=lambda layer: layer.block):
        width = _kept_width(list(block), left)
        if width is None:
            return None
        total += width
    return total * card.dtype_bytes


def _kept_width(block: Sequence[LinearShape], left: Mapping[str, tuple[int, int]]) -> int | None:
    """Numbers of keys and values that one block keeps of a position."""
    attention = {layer.kind.rsplit(".", 1)[-1]: layer for layer in block if _is_attention(layer)}
    keys, values = _named(attention, _KEYS), _named(attention, _VALUES)
    if keys is not None and values is not None:
        return _rows(keys, left) + _rows(values, left)
    fused, output = _named(attention, _FUSED), _named(attention, _OUTPUTS)
    if fused is None or output is None:
        return None
    # Queries are as wide as the input of the output layer; the rest of the fused layer are keys and values.
    queries = left.get(output.name, (output.out_features, output.in_features))[1]
    return _rows(fused, left) - queries


def _is_attention(layer: LinearShape) -> bool:
    return "mlp" not in layer.kind and "fc" not in layer.kind.rsplit(".", 1)[-1]


def _named(layers: Mapping[str, LinearShape], names: Sequence[str]) -> LinearShape | None:
    return next((layers[name] for name in names if name in layers), None)


def _rows(layer: LinearShape, left: Mapping[str, tuple[int, int]]) -> int:
    return left.get(layer.name, (layer.out_features, layer.in_features))[0]


def overhead_bytes(card: ModelCard, context: int, sequences: int = 1) -> int:
    """What is alive at the widest point while prompts of that length are read at once.

    Of one block: the residual stream and its normalised copy (2 x width), the widest layer's output twice (a gate and
    what it multiplies), each in the model's precision; and float32 scores over the vocabulary for the last position.
    Attention is taken to be computed without writing its scores out, as all current kernels do. The program itself
    (Python, torch, a GPU's context) is not counted: it is the same for every model.
    """
    widest = max(layer.out_features for layer in card.layers)
    alive = (2 * card.hidden_size + 2 * widest) * card.dtype_bytes
    return sequences * (context * alive + card.vocab_size * _LOGIT_BYTES)
