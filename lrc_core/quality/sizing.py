"""How large a model becomes at every rate, and where it fits: arithmetic on its shapes, before anything is loaded.

Sizes are of the model as it is served, in 16 bits, or in a number format where a row says so. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lrc_core.budget import keep_at, removed_share
from lrc_core.formats.grids import Q4_0, Q8_0, Format
from lrc_core.models.onload.memory import Shapes
from lrc_core.quality.footprint import SERVED_BYTES, Footprint, footprint
from lrc_core.types import LinearShape, ModelCard, ModelIdentity
from lrc_core.words import percent

RATES = (0, 10, 20, 30, 40)
"""Percent that ranks remove of the block linears."""
MEMORIES = (8, 16, 24, 80)
"""Memory of usual graphics cards, in GiB."""
CONTEXT = 4096
"""Positions that a request is counted with, where the model has as many."""


@dataclass(frozen=True)
class Sizing:
    """One way to store a model.

    Attributes:
        name: in words.
        size: bytes of weights, cache and overhead while it answers.
        share: of the dense model's weights in 16 bits.
    """

    name: str
    size: Footprint
    share: float

    def fits(self, memory: int) -> bool:
        """Whether weights, cache and overhead fit into so many GiB."""
        return self.size.total <= memory * 2**30


def context_of(shapes: Shapes) -> int:
    """Positions that a request is counted with: as many as usual, or as the model has."""
    return min(CONTEXT, shapes.positions or CONTEXT)


def context_words(shapes: Shapes) -> str:
    """``one request of 512 positions, which is all that the model was made for``."""
    context = context_of(shapes)
    few = ", which is all that the model was made for" if context < CONTEXT else ""
    return f"one request of {context:,} positions{few}"


def sizings(shapes: Shapes) -> list[Sizing]:
    """A model dense, at the usual rates, and dense in fewer bits; all answer one request of :func:`context_of`."""
    whole = footprint(card_of(shapes), None, context_of(shapes))

    def sizing(name: str, weights: float) -> Sizing:
        size = Footprint(round(weights), whole.cache, whole.overhead)
        return Sizing(name, size, size.weights / whole.weights)

    found = [
        sizing(
            "dense, 16 bits" if not rate else f"{rate} % removed",
            SERVED_BYTES * (shapes.params - removed_share(keep_at(rate)) * shapes.linear),
        )
        for rate in RATES
    ]
    return found + [sizing(f"{each.name}, no rank removed", quantised_bytes(shapes, each)) for each in (Q8_0, Q4_0)]


def quantised_bytes(shapes: Shapes, form: Format) -> int:
    """Bytes of the weights with every block linear in a number format, and everything else in 16 bits."""
    blocks = sum(form.bytes_of(rows, columns) for block in shapes.blocks for _, rows, columns in block)
    return int(blocks) + SERVED_BYTES * shapes.outside


def card_of(shapes: Shapes) -> ModelCard:
    """The figures of a card that follow from shapes, in 16 bits."""
    layers = tuple(
        LinearShape(f"{number}.{kind}", number, kind, rows, columns)
        for number, block in enumerate(shapes.blocks)
        for kind, rows, columns in block
    )
    return ModelCard(
        identity=ModelIdentity("", "", "", ""), name="", params_total=shapes.params, params_linear=shapes.linear,
        n_blocks=len(shapes.blocks), hidden_size=shapes.hidden, vocab_size=shapes.vocabulary, max_positions=0,
        dtype="16 bits", dtype_bytes=SERVED_BYTES, device="", layers=layers,
    )  # fmt: skip


def fitting_words(found: Sequence[Sizing]) -> str:
    """What compression changes about the cards that a model fits on, in a sentence."""
    dense, smallest = found[0], min((one for one in found if "removed" in one.name), key=lambda one: one.size.total)
    least = next((memory for memory in MEMORIES if dense.fits(memory)), None)
    gained = [memory for memory in MEMORIES if not dense.fits(memory)]
    for memory in gained[::-1]:
        by_rank = next((one for one in found[1 : len(RATES)] if one.fits(memory)), None)
        by_bits = next((one for one in found[len(RATES) :] if one.fits(memory)), None)
        if by_rank or by_bits:
            ways = [one.name for one in (by_rank, by_bits) if one is not None]
            return f"It does not fit a card of {memory} GB as it is; it does with {' or '.join(ways)}."
    if least is None:
        return f"It fits none of these cards; at its smallest it is {percent(smallest.share)} of its size."
    return f"It fits a card of {least} GB as it is."
