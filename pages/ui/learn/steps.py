"""The eight steps in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lrc_core.runs.spec import ModelRef
from pages.ui.learn import card, layers, mask, methods, outputs, pays, picture, weight


@dataclass(frozen=True)
class StepEntry:
    """One step.

    Attributes:
        short: on its button.
        text: name of its file in ``assets/text/learn``.
        draw: draws its picture.
    """

    short: str
    text: str
    draw: Callable[[ModelRef], None]


STEPS = (
    StepEntry("A picture", "picture", picture.draw),
    StepEntry("A weight", "weight", weight.draw),
    StepEntry("Break-even", "pays", pays.draw),
    StepEntry("Outputs", "outputs", outputs.draw),
    StepEntry("Layers", "layers", layers.draw),
    StepEntry("Methods", "methods", methods.draw),
    StepEntry("A mask", "mask", mask.draw),
    StepEntry("The card", "card", card.draw),
)
