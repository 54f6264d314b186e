"""Decompositions: a weight (and what is known of its inputs) in, factors of every rank at once out.

Importing this package registers the methods and loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from lrc_core.errors import BudgetError
from lrc_core.registry import DECOMPOSITIONS, DecompositionEntry
from lrc_core.settings import setting


@dataclass(frozen=True)
class NoSettings:
    """No settings."""


@dataclass(frozen=True)
class AsvdSettings:
    """Settings of ASVD."""

    alpha: float = setting(
        0.5,
        "Exponent",
        "How strongly inputs with large activations count; 0.5 is the paper's.",
        minimum=0.0,
        maximum=2.0,
    )


@dataclass(frozen=True)
class WhitenedSettings:
    """Settings of the whitened decomposition."""

    damping: float = setting(
        1e-6,
        "Damping",
        "Share of the mean input energy added to the second moment when it is not positive definite; raised tenfold "
        "until it is.",
        minimum=0.0,
        maximum=1.0,
    )


@dataclass(frozen=True)
class KfacSettings:
    """Settings of the two-sided decomposition."""

    input_damping: float = setting(
        1e-4,
        "Input damping",
        "Share of the mean input energy that is added to the inputs' second moment.",
        minimum=0.0,
        maximum=10.0,
    )
    output_damping: float = setting(
        1e-2,
        "Output damping",
        "Share of the mean gradient energy that is added to the gradients' second moment. It wants more than the "
        "inputs: directions in which the loss was flat on the calibration text are not free elsewhere.",
        minimum=1e-8,
        maximum=10.0,
    )


SVD = DECOMPOSITIONS.register(
    DecompositionEntry(
        name="svd",
        label="Plain SVD",
        summary="Best approximation of the weight itself; knows nothing of the data.",
        source="Eckart and Young 1936",
        color="#7f7f7f",
        implementation="lrc_core.decompose.factorise:plain",
        settings_class=NoSettings,
        statistics="none",
    )
)
ASVD = DECOMPOSITIONS.register(
    DecompositionEntry(
        name="asvd",
        label="ASVD",
        summary="Scales every input by how large it usually is before decomposing.",
        source="arXiv 2312.05821, section 3",
        color="#cc79a7",
        implementation="lrc_core.decompose.factorise:activation_scaled",
        settings_class=AsvdSettings,
    )
)
WHITENED = DECOMPOSITIONS.register(
    DecompositionEntry(
        name="whitened",
        label="Whitened (SVD-LLM)",
        summary="Best approximation of the layer's output on the calibration text.",
        source="arXiv 2403.07378, section 3.1",
        color="#0072b2",
        implementation="lrc_core.decompose.factorise:whitened",
        settings_class=WhitenedSettings,
    )
)
KFAC = DECOMPOSITIONS.register(
    DecompositionEntry(
        name="kfac",
        label="Two-sided (K-FAC)",
        summary="Best second-order approximation of the model's loss: weighs outputs by how much the loss feels them.",
        source="K-FAC (arXiv 1503.05671, section 3) as a norm for SVD; IO-SVD, arXiv 2605.15626",
        color="#d55e00",
        implementation="lrc_core.decompose.factorise:two_sided",
        settings_class=KfacSettings,
        statistics="gradients",
        loss_in_nats=True,
    )
)
TWO_SIDED = KFAC.name
ALL = DECOMPOSITIONS.names()
IN_NATS = tuple(entry.name for entry in DECOMPOSITIONS if entry.loss_in_nats)
"""Those whose spectra predict a loss."""


def require_loss(decomposition: str) -> None:
    """Refuse to put ranks and formats on one scale where no loss is predicted.

    Raises:
        BudgetError: names a decomposition that will do.
    """
    if decomposition not in IN_NATS:
        raise BudgetError(
            f"A budget in bytes needs predicted losses, which the decomposition {decomposition} does not give.",
            f"Choose the decomposition {TWO_SIDED}.",
        )
