"""What a model of any size takes, on paper: seconds, memory and disk of every phase, from its shapes. No torch.

Seconds are operations over measured throughputs; ``lrc bench memory`` prints them beside what it measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from lrc_core.models.onload.memory import Shapes, inputs_of, phase_memory, whole_memory

_EIGENVALUES = 0.45  # of the time that vectors take as well
_GPU_SHARE = 0.4  # of a card's peak that long products reach


@dataclass(frozen=True)
class Speeds:
    """Throughputs of a machine, per second.

    Attributes:
        model: operations of products in passes of a model, with what such a pass does between them.
        single: in float32.
        double: in float64; Cholesky factors and triangular solutions reach about the same.
        eigen: cubes of the size of a symmetric float64 eigenproblem with vectors.
        disk: bytes written or read.
        busy: the machine did other work meanwhile, so that it can do more than that.
    """

    model: float
    single: float
    double: float
    eigen: float
    disk: float
    busy: bool = False

    def or_better(self, other: Speeds) -> Speeds:
        """Of each throughput the higher one, with whether the machine was busy this time."""
        names = [one.name for one in fields(self) if one.name != "busy"]
        return replace(self, **{name: max(getattr(self, name), getattr(other, name)) for name in names})


@dataclass(frozen=True)
class Card:
    """A graphics card on paper.

    Attributes:
        label: its name.
        memory: bytes.
        bf16: operations a second of dense bfloat16 products, as its maker says.
        price: of an hour in dollars, as clouds asked in 2025; roughly.
    """

    label: str
    memory: int
    bf16: float
    price: float


CARDS: Mapping[str, Card] = {
    "l4": Card("NVIDIA L4 24 GB", 24 * 10**9, 121e12, 0.7),
    "rtx4090": Card("NVIDIA RTX 4090 24 GB", 24 * 10**9, 165e12, 0.5),
    "a100": Card("NVIDIA A100 80 GB", 80 * 10**9, 312e12, 1.8),
    "h100": Card("NVIDIA H100 80 GB", 80 * 10**9, 989e12, 3.0),
}
"""By the word that names them."""


def with_card(speeds: Speeds, card: Card) -> Speeds:
    """The same machine with that card: passes of the model and their moments go there, decompositions do not."""
    return replace(speeds, model=_GPU_SHARE * card.bf16)


@dataclass(frozen=True)
class Reading:
    """How much text goes through the model.

    Attributes:
        windows: of calibration.
        window: tokens in one.
        scored: windows that perplexity is measured on.
    """

    windows: int = 128
    window: int = 512
    scored: int = 80

    @property
    def tokens(self) -> int:
        """Of the calibration text."""
        return self.windows * self.window


def phase_seconds(shapes: Shapes, speeds: Speeds, reading: Reading) -> dict[str, float]:
    """Seconds of every phase, named as ``lrc bench memory`` names them; loading the weights is in each of them."""
    weights = shapes.params * shapes.width / speeds.disk
    forward = 2 * shapes.linear / speeds.model
    half = reading.tokens / 2
    # A product and a sum for every number of a moment that lies on or above its diagonal.
    inputs = sum(side**2 for block in shapes.blocks for side in inputs_of(block)) / speeds.model
    outputs = sum(rows**2 for block in shapes.blocks for _, rows, _ in block) / speeds.model
    head = 6 * shapes.vocabulary * shapes.hidden / speeds.model
    scored = reading.scored * reading.window
    return {
        "plain spectra": weights + _decomposed(shapes, speeds, "values"),
        "second moments": weights + reading.tokens * (forward + inputs) + moment_bytes(shapes)[0] / speeds.disk,
        "whitened factors": weights + _decomposed(shapes, speeds, "whitened") + factor_bytes(shapes) / speeds.disk,
        "output gradients": 2 * weights + half * (3 * forward + outputs + head) + moment_bytes(shapes)[1] / speeds.disk,
        "K-FAC factors": weights + _decomposed(shapes, speeds, "kfac") + factor_bytes(shapes) / speeds.disk,
        "perplexity": 2 * weights + factor_bytes(shapes) / speeds.disk + scored * (forward + head / 3),
        "export": 2 * weights + factor_bytes(shapes) / speeds.disk,
    }


def _decomposed(shapes: Shapes, speeds: Speeds, how: str) -> float:
    """Seconds of the decompositions of all layers: roots, products with them, the eigenproblem, the factors."""
    return sum(_layer(rows, columns, speeds, how) for block in shapes.blocks for _, rows, columns in block)


def _layer(rows: int, columns: int, speeds: Speeds, how: str) -> float:
    small, large = min(rows, columns), max(rows, columns)
    gram = 2 * small**2 * large / speeds.double
    eigen = small**3 / speeds.eigen
    if how == "values":
        return gram + _EIGENVALUES * eigen
    double = columns**3 / 3 + 2 * rows * columns**2
    single = 2 * rows * columns * small + 2 * columns**2 * small
    if how == "kfac":
        double += rows**3 / 3 + 2 * rows**2 * columns
        single += 2 * rows**2 * columns
    return gram + eigen + double / speeds.double + single / speeds.single


def factor_bytes(shapes: Shapes) -> int:
    """Of the full-rank factors of one decomposition, in float32."""
    every = (matrix for block in shapes.blocks for matrix in block)
    return sum(4 * (rows + columns) * min(rows, columns) for _, rows, columns in every)


def moment_bytes(shapes: Shapes) -> tuple[int, int]:
    """Of the second moments of inputs, and of output gradients, in float32."""
    inputs = sum(4 * side**2 for block in shapes.blocks for side in inputs_of(block))
    return inputs, sum(4 * rows**2 for block in shapes.blocks for _, rows, _ in block)


@dataclass(frozen=True)
class Estimate:
    """What one thing that a user may ask for takes, from nothing to its end.

    Attributes:
        what: it is.
        memory: bytes of main memory with one block there at a time; of what needs the whole model, with all of it.
        disk: bytes of caches and results; the model's own files are not counted.
        seconds: of the machine.
        whole: it needs the whole model in memory.
    """

    what: str
    memory: int
    disk: int
    seconds: float
    whole: bool = False


def estimates(shapes: Shapes, speeds: Speeds, reading: Reading, training_memory: int) -> list[Estimate]:
    """What can be asked for, the least costly first.

    Args:
        reading: how much text.
        training_memory: what training ranks takes, see :class:`~lrc_core.models.preflight.Preflight`.
    """
    seconds, memory = phase_seconds(shapes, speeds, reading), phase_memory(shapes)
    inputs, outputs = moment_bytes(shapes)
    factors = factor_bytes(shapes)
    largest = max((rows * columns for block in shapes.blocks for _, rows, columns in block), default=0)
    values = sum(4 * min(rows, columns) for block in shapes.blocks for _, rows, columns in block)
    white = seconds["second moments"] + seconds["whitened factors"]
    both = seconds["second moments"] + seconds["output gradients"] + seconds["K-FAC factors"]
    wide = max(memory["moments"], memory["decomposition"])
    most = max(wide, memory["gradients"])
    # A step reads a window of 256 tokens with the dense model and, forward and back, with full-rank factors.
    training = white + 2048 * 256 * 2 * (shapes.linear + 3 * factors / 4) / speeds.model
    return [
        Estimate("spectra, streamed", 3 * 2 * largest + 2 * 10**8, values, seconds["plain spectra"]),
        Estimate("whitened, uniform ranks", wide, inputs + factors, white),
        Estimate("K-FAC, Lagrangian ranks", most, inputs + outputs + factors, both),
        Estimate("perplexity of a plan", memory["perplexity"], 0, seconds["perplexity"]),
        Estimate("export", memory["decomposition"], shapes.params * 2, seconds["export"]),
        Estimate("ranks by training (LLRC)", training_memory, inputs + factors, training, whole=True),
        Estimate("text, timing, tasks", whole_memory(shapes), 0, seconds["perplexity"], whole=True),
    ]
