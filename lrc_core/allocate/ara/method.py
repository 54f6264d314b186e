"""ARA, adaptive rank allocation by staircase masks (arXiv 2510.19389).

Every layer keeps its dense weight beside factors that are cut a little above break-even, and learns how much of it to
keep: a distribution over the levels 1, 0.99, ..., 0 of those factors, whose mean is the kept share. A layer at or above
break-even runs dense. The loss is ``task + budget + guidance``; see :mod:`lrc_core.allocate.ara.terms`.

Choices made where the paper is silent: the kept rank is rounded, never 0, and counted in whole components of the cut
factors, so that what a layer runs is what it counts; the start has two levels of probability, one from the target up
and one below it; guidance looks up its truncation error at the rounded rank; layers that are scaled up at the end stop
below break-even.
"""

from __future__ import annotations

from lrc_core.allocate.ara.settings import AraSettings
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.registry import ALLOCATORS, MethodEntry, Term

_SMALL_MACHINE = {"learning_rate": 0.01, "window": 256, "batch": 4}

ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="ara",
        label="ARA",
        summary="Learns what share of every layer to keep, and which layers to leave dense.",
        source="arXiv 2510.19389",
        color="#4361ee",
        implementation="lrc_core.allocate.ara.method:allocate",
        settings_class=AraSettings,
        presets={
            "quick": {**_SMALL_MACHINE, "learning_rate": 0.02, "steps": 150, "documents": 512},
            "standard": {**_SMALL_MACHINE, "steps": 400, "documents": 1024},
            "paper": {},
        },
        learns=True,
        tiny={"documents": 3, "window": 12, "batch": 2, "steps": 5},
        terms={
            "task": Term({"task": "none"}),
            "budget": Term({"budget_weight": 0.0}, presses=True),
            "guidance": Term({"guidance_weight": 0.0}),
        },
        reports=("task", "budget", "guidance", "dense"),
    )
)


def allocate(context: Context, settings: AraSettings) -> Allocation:
    """Train staircases; see :class:`~lrc_core.allocate.protocol.Allocator`. Resumes bit for bit.

    Training starts at the target and stays around it, so there are no plans of other rates on its way.
    """
    from lrc_core.allocate.ara.training import StaircaseTraining  # torch

    return StaircaseTraining(context, settings).run()
