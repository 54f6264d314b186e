"""ARS, adaptive rank selection by a hypernetwork (Gao et al., NAACL 2024, aclanthology.org/2024.naacl-long.13).

One small network, a bidirectional GRU over the layers with a linear head for each, puts out a logit for every singular
component of every layer; Gumbel-sigmoids of them are the masks. Only this network trains. The loss is
``task + lambda R + gamma R_align``: R(m) = log(max(T(m), pT) / pT) presses until the parameters T(m) meet the
target pT, and R_align = sum ((m - m_sorted) sigma)^2 draws every mask to that of the same number of largest singular
values, which is what is kept in the end.

The paper's weights, temperature and sizes are not all printed; those here are of the public reimplementation that
LLRC's authors compare with. Choices of our own: R_align is divided by the layer's sum of sigma^2, so that it means the
same on every decomposition; with ``counting=stored`` (not in preset ``paper``) the budget counts what a plan would
store.
"""

from __future__ import annotations

from lrc_core.allocate.ars.settings import ArsSettings
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.registry import ALLOCATORS, MethodEntry

_SMALL_MACHINE = {"counting": "stored", "dense_switch": True}

ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="ars",
        label="ARS",
        summary="A small network over all layers learns which singular components to keep.",
        source="NAACL 2024, aclanthology.org/2024.naacl-long.13",
        color="#b5a300",
        implementation="lrc_core.allocate.ars.method:allocate",
        settings_class=ArsSettings,
        presets={
            "quick": {**_SMALL_MACHINE, "max_steps": 150, "settle_steps": 75, "documents": 512},
            "standard": {**_SMALL_MACHINE, "max_steps": 400, "settle_steps": 250, "documents": 1024},
            "paper": {},
        },
        learns=True,
        versions={"pivoted": 2},
        tiny={"documents": 3, "window": 12, "batch": 2, "max_steps": 6},
        reports=("task", "budget", "align"),
    )
)


def allocate(context: Context, settings: ArsSettings) -> Allocation:
    """Train the hypernetwork; see :class:`~lrc_core.allocate.protocol.Allocator`. Resumes bit for bit.

    The budget loss goes straight for the target and all masks fall together, so what is passed on the way is hardly
    trained: no plans of other rates are recorded.
    """
    from lrc_core.allocate.ars.training import HypernetworkTraining  # torch

    return HypernetworkTraining(context, settings).run()
