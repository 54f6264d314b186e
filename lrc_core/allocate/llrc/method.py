"""LLRC: learned masks over singular values (arXiv 2512.13733).

All factors stay frozen; one logit per singular value is trained. Every component is kept with the Gumbel-sigmoid of
its logit (straight-through at one half), the loss is ``alpha * L_comp + beta * L_distill + gamma * L_TV``, and what
counts as kept, for progress, for stopping and in the plan, is the noise-free mask: logit > 0.

Preset ``paper`` is the published recipe. ``quick`` and ``standard`` are for small machines: they change where the
logits start (ramp), how fast they move (rate) and when compression presses (schedule).
"""

from __future__ import annotations

from lrc_core.allocate.llrc.settings import LlrcSettings
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.registry import ALLOCATORS, MethodEntry, Term

_SMALL_MACHINE = {
    "distillation": "logits",
    "compression": "weighted_logit",
    "alpha_low": 30.0,
    "alpha_high": 30.0,
    "temperature": 0.4,
    "ramp": "sensitivity",
    "ramp_high": 30.0,
    "ramp_low": 0.5,
    "dense_switch": True,
    "hold": True,
    "learning_rate": 0.1,
    "tv_weight": 0.0,
    "documents": 512,
}

ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="llrc",
        label="LLRC",
        summary="Learns a mask over all singular values while holding the dense model's predictions.",
        source="arXiv 2512.13733",
        color="#009e73",
        implementation="lrc_core.allocate.llrc.method:allocate",
        settings_class=LlrcSettings,
        presets={
            "quick": {**_SMALL_MACHINE, "ramp_batches": 8, "pace_steps": 100, "settle_steps": 15, "max_steps": 130},
            "standard": {**_SMALL_MACHINE, "pace_steps": 300, "settle_steps": 60, "max_steps": 420},
            "paper": {},
        },
        learns=True,
        versions={"pivoted": 2},
        tiny={"documents": 3, "window": 12, "batch": 2, "ramp_batches": 1, "max_steps": 6, "pace_steps": 4},
        terms={
            "distill": Term({"distillation": "none"}, {"distillation": "logits"}),
            "compression": Term({"compression": "none"}, {"compression": "weighted_logit"}, presses=True),
            "tv": Term({"tv_weight": 0.0}, {"tv_weight": 0.01}),
        },
        reports=("distill", "compression", "tv", "alpha"),
    )
)


def allocate(context: Context, settings: LlrcSettings) -> Allocation:
    """Train masks; see :class:`~lrc_core.allocate.protocol.Allocator`. Resumes from its checkpoint bit for bit."""
    from lrc_core.allocate.llrc.training import MaskTraining  # torch

    return MaskTraining(context, settings).run()
