"""Successive Lagrangian: the closed-form plan, solved again and again with losses measured where the plan stands.

The Lagrangian allocation predicts what dropping a component costs at the DENSE model, one component at a time. At a
compressed model that is no longer so: errors add up, saturate and hide each other. So, as in sequential linear
programming (Griffith and Stewart 1961), the problem is solved where it stands, measured there, and solved again:

1. Start from the predicted losses p_i = sigma_i^2 / 2 of the two-sided decomposition, or measured Fisher information.
2. Find the cheapest plan for the current rate exactly (:func:`~lrc_core.allocate.curves.loss_curves.cheapest_ranks`):
   every component has mask 1 or 0, dense layers run dense, the budget holds at every step.
3. Measure, over one round of text, the slope g_i of KL(dense || compressed) with respect to EVERY mask: of kept and
   dropped components, in layers that are low-rank and in layers that are dense. A second-order step from there says
   that dropping a kept component costs -g_i + p_i and that leaving out a dropped one costs -g_i - p_i. That is how a
   layer crosses the dense switch in both directions: both sides have a measured price.
4. One round is too little text to price a single component, so prices are pooled: the components of a layer fall into
   groups along the spectrum, kept and dropped ones apart, and a group's measured loss, not below zero, is spread over
   its components as the prediction spreads it.
5. Mix the measured losses into the running ones, raise the rate a little, and go back to 2.

The slopes of kept components are put to use a second time: as masks of 1 are only where one starts, each kept component
of a low-rank layer has a gain that Adam moves down its slope at every batch. Gains are folded into the factors, so they
cost neither parameters nor time; what is returned is their running average. With rate 0 masks stay at 1, and the plan
is ranks alone.

The rate rises slowly, so one run passes every whole percent with losses measured there, and records a plan. At the
target the rate stands still for some rounds, and of the plans found there, and the one that would have come without
measuring, the one with the least KL on text of the calibration part that was not used in training is returned.

A budget in bytes or in time is followed down in the same way, in shares of it; in bytes from where ranks begin to be
cut, as 8 bits are cheaper than ranks. What is measured there is what ranks cost, in 16 bits: what rounding costs
stays as it is predicted, until the last choice, for which plans are rounded as they will be stored.
"""

from __future__ import annotations

from lrc_core.allocate.curves.budgeted import budget_of
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.allocate.successive.settings import SuccessiveSettings
from lrc_core.budget import dense_ranks
from lrc_core.registry import ALLOCATORS, MethodEntry, Term

ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="successive",
        label="Successive Lagrangian",
        summary="Solves the Lagrangian again and again, with losses measured at the compressed model.",
        source="this project; Griffith and Stewart 1961 (successive programming); Everett 1963",
        color="#f72585",
        implementation="lrc_core.allocate.successive.method:allocate",
        settings_class=SuccessiveSettings,
        presets={
            "quick": {"pace": 0.0125, "settle_rounds": 6},
            "standard": {},
        },
        learns=True,
        by_bytes=True,
        tiny={
            "pace": 0.2,
            "settle_rounds": 1,
            "batches": 1,
            "documents": 6,
            "check_windows": 2,
            "window": 12,
            "batch": 2,
            "curve_batches": 1,
        },
        terms={
            "measuring": Term({"mixing": 0.0}),
            "gains": Term({"gain_rate": 0.0}),
            "pooling": Term({"groups": 4096}),
        },
        reports=("dense",),
    )
)


def allocate(context: Context, settings: SuccessiveSettings) -> Allocation:
    """Follow the rate down to the target; see :class:`~lrc_core.allocate.protocol.Allocator`.

    Resumes from its checkpoint bit for bit.
    """
    if budget_of(context).target >= 1:
        return Allocation(dense_ranks(context.layers))
    from lrc_core.allocate.successive.training import SuccessiveTraining  # torch

    return SuccessiveTraining(context, settings).run()
