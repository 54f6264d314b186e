"""ARA, adaptive rank allocation by staircase masks (arXiv 2510.19389).

Every layer keeps its dense weight beside factors that are cut a little above break-even, and learns how much of it to
keep: a distribution over the levels 1, 0.99, ..., 0 of those factors, whose mean is the kept share. A layer at or above
break-even runs dense. The loss is ``task + budget + guidance``; see :mod:`lrc_core.allocate.ara_terms`.

Choices made where the paper is silent: the kept rank is rounded, never 0, and counted in whole components of the cut
factors, so that what a layer runs is what it counts; the start has two levels of probability, one from the target up
and one below it; guidance looks up its truncation error at the rounded rank; layers that are scaled up at the end stop
below break-even.
"""

from __future__ import annotations

from dataclasses import dataclass

from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import check_target, dense_ranks
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.settings import setting


@dataclass(frozen=True)
class AraSettings:
    """Settings of ARA; the defaults are the paper's."""

    task: str = setting(
        "text",
        "Task loss",
        "text: cross-entropy (the paper's); logits: KL divergence from the dense model's predictions; none: switched "
        "off.",
        choices=("text", "logits", "none"),
    )
    budget_weight: float = setting(
        100.0, "Budget weight", "Of the squared distance between kept share and target; 0 is off.", minimum=0
    )
    guidance_weight: float = setting(
        50.0,
        "Guidance weight",
        "Of the term that pushes a layer to dense once it would save less than its truncation costs; 0 is off.",
        minimum=0,
    )
    reach: float = setting(
        1.2, "Reach (rho0)", "Factors are cut at this multiple of break-even.", minimum=1.01, maximum=2.0
    )
    levels: int = setting(101, "Levels", "Steps of the staircase from all to none.", minimum=2, maximum=1001)
    latch: bool = setting(
        True,
        "Latch",
        "A layer that reaches break-even gets no gradient any more and stays dense, as in the authors' code. Without "
        "it task and budget are differentiated through the dense switch, and a layer may come back.",
    )
    learning_rate: float = setting(0.001, "Learning rate", "Of AdamW without decay.", minimum=1e-5, maximum=1)
    steps: int = setting(2560, "Steps", "Ten times through 256 windows in the paper.", minimum=1)
    documents: int = setting(256, "Training windows", "How many token windows there are to learn from.", minimum=1)
    window: int = setting(512, "Window", "Tokens in a training window.", minimum=2, maximum=65536)
    batch: int = setting(1, "Batch", "Windows in a step.", minimum=1, maximum=1024)
    dense_above: float = setting(
        0.99, "Dense above", "Layers that end with at least this share are stored dense.", minimum=0.5, maximum=1.0
    )


_SMALL_MACHINE = {"learning_rate": 0.01, "window": 256, "batch": 4}

ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="ara",
        label="ARA",
        summary="Learns what share of every layer to keep, and which layers to leave dense.",
        source="arXiv 2510.19389",
        color="#4361ee",
        implementation="lrc_core.allocate.ara:allocate",
        settings_class=AraSettings,
        presets={
            "quick": {**_SMALL_MACHINE, "learning_rate": 0.02, "steps": 150, "documents": 512},
            "standard": {**_SMALL_MACHINE, "steps": 400, "documents": 1024},
            "paper": {},
        },
        learns=True,
    )
)


def allocate(context: Context, settings: AraSettings) -> Allocation:
    """Train staircases; see :class:`~lrc_core.allocate.protocol.Allocator`. Resumes bit for bit.

    Training starts at the target and stays around it, so there are no plans of other rates on its way.
    """
    check_target(context.layers, context.keep)
    if context.keep >= 1:
        return Allocation(dense_ranks(context.layers))
    from lrc_core.allocate.ara_training import StaircaseTraining  # torch

    return StaircaseTraining(context, settings).run()
