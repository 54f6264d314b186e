"""Training a mask over one row of singular values, in numpy: LLRC's loss on the smallest problem it has.

The row's decomposition is whitened, so what a mask loses is the energy of the components it drops, and the gradient of
the distillation loss is known exactly. Everything else is as in arXiv 2512.13733: Gumbel-sigmoid with straight-through,
mean logit as compression loss, total variation, Adam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float64]
COMPONENTS, STEPS = 32, 180
PACE = 0.75
"""Share of the steps in which the allowed number falls from all to the target."""
TERMS = ("compression", "distillation", "tv")
RATE, ALPHA, BETA, GAMMA = 0.1, 1.0, 1.0, 0.05
_RAMP = (6.0, 3.0)


@dataclass(frozen=True)
class Setting:
    """What the reader can change.

    Attributes:
        terms: the loss terms that are on.
        noise: ``gumbel``, ``logistic`` or ``none``.
        temperature: of the sigmoid.
        target: components to keep.
        ramp: whether logits start falling along the spectrum, or all alike.
    """

    terms: tuple[str, ...] = TERMS
    noise: str = "gumbel"
    temperature: float = 0.4
    target: int = 16
    ramp: bool = True


@dataclass(frozen=True)
class MaskStep:
    """One step of training.

    Attributes:
        logits: [r] before the step.
        noise: [r] of the step.
        soft: [r] sigmoid of logits and noise over the temperature.
        forces: minus the gradient of each term's share of the loss at the logits, [r] each; zeros for a term that is
            off.
    """

    logits: Row
    noise: Row
    soft: Row
    forces: dict[str, Row]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """[r] what this step's forward pass used."""
        return self.soft > 0.5

    @property
    def kept(self) -> NDArray[np.bool_]:
        """[r] the noise-free mask, which is what counts."""
        return self.logits > 0


def row_of(sigma: Row) -> Row:
    """Thirty-two values of a spectrum, evenly spread along it and scaled so that their energies sum to one.

    Args:
        sigma: [r] singular values, descending.
    """
    picked: Row = sigma[np.linspace(0, len(sigma) - 1, min(COMPONENTS, len(sigma))).round().astype(int)]
    size = float(np.sqrt((picked**2).sum()))
    return picked / size if size > 0 else picked


def train(sigma: Row, setting: Setting, seed: int = 0) -> list[MaskStep]:
    """All steps of one training.

    Args:
        sigma: [r] as of :func:`row_of`.
    """
    count = len(sigma)
    logits = np.linspace(*_RAMP, count) if setting.ramp else np.full(count, sum(_RAMP) / 2)
    generator = np.random.default_rng(seed)
    first, second = np.zeros(count), np.zeros(count)
    steps = []
    for number in range(1, STEPS + 1):
        noise = draw_noise(setting.noise, count, generator)
        soft = sigmoid((logits + noise) / setting.temperature)
        found = forces(sigma, logits, soft, setting, allowed(number, count, setting.target))
        steps.append(MaskStep(logits.copy(), noise, soft, found))
        gradient = -sum(found.values(), np.zeros(count))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - 0.9**number), second / (1 - 0.999**number)
        logits = logits - RATE * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    return steps


def allowed(number: int, count: int, target: int) -> float:
    """How many components may be kept at a step: a line from all of them to the target, then the target."""
    return count - (count - target) * min(1.0, number / (PACE * STEPS))


def forces(sigma: Row, logits: Row, soft: Row, setting: Setting, goal: float) -> dict[str, Row]:
    """What each term pulls every logit by: minus its gradient, through the straight-through estimator.

    Args:
        sigma: [r].
        logits: [r].
        soft: [r] sigmoid of logits and noise over the temperature.
        goal: how many may be kept; compression rests within one of it and turns round below.
    """
    mask = (soft > 0.5).astype(float)
    slope = soft * (1 - soft) / setting.temperature  # d mask / d logit, as if the mask were the sigmoid
    zero = np.zeros(len(sigma))
    over = int((logits > 0).sum()) - goal
    pressing = ALPHA * float(np.sign(over)) if abs(over) >= 1 else 0.0
    jumps = np.sign(np.diff(mask))
    variation = np.append(0.0, jumps) - np.append(jumps, 0.0)  # d sum |m_{i+1} - m_i| / d m_i
    pulls = {
        "compression": np.full(len(sigma), -pressing / len(sigma)),
        "distillation": BETA * sigma**2 * slope,
        "tv": -GAMMA * variation / max(1, len(sigma) - 1) * slope,
    }
    return {name: pull if name in setting.terms else zero for name, pull in pulls.items()}


def draw_noise(kind: str, count: int, generator: np.random.Generator) -> Row:
    """[count] one Gumbel variable each, the difference of two, or zeros."""
    if kind == "none":
        return np.zeros(count)
    noise = generator.gumbel(size=count)
    return noise if kind == "gumbel" else noise - generator.gumbel(size=count)


def sigmoid(values: Row) -> Row:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * values))


def energy(sigma: Row, kept: NDArray[np.bool_]) -> float:
    """Share of the row's energy in the kept components."""
    total = float((sigma**2).sum())
    return float((sigma[kept] ** 2).sum()) / total if total > 0 else 1.0


def best_energy(sigma: Row, count: int) -> float:
    """Share of the energy in the ``count`` largest components: no mask of that size keeps more."""
    return energy(sigma, np.arange(len(sigma)) < count)
