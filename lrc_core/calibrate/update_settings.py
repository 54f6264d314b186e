"""Settings of the closed-form update. No torch, so that forms and the command line can read them."""

from __future__ import annotations

from dataclasses import dataclass

from lrc_core.settings import setting

KINDS = ("left", "both")


@dataclass(frozen=True)
class UpdateSettings:
    """Settings of the closed-form update of a plan's factors."""

    kind: str = setting(
        "left",
        "What is updated",
        "left: the left factors, given the right ones (SVD-LLM). both: both factors, which lowers the error of every "
        "layer further and leans more on the calibration text.",
        choices=KINDS,
    )
    target: str = setting(
        "dense",
        "Target",
        "dense: the output that the layer has in the dense model, so that errors of earlier layers are corrected "
        "instead of passed on. compressed: the dense weight on the inputs as they come (SVD-LLM), at half the time.",
        choices=("dense", "compressed"),
    )
    damping: float = setting(
        1e-4,
        "Damping",
        "Share of the mean input energy that pulls towards the dense weight where the text says little; raised tenfold "
        "until the moments can be inverted.",
        minimum=0.0,
        maximum=1.0,
    )
    use_windows: int = setting(
        0,
        "Windows used",
        "Calibration windows that both models read; 0 for all. Fewer are faster; keep several tokens for every input "
        "of the widest layer.",
        minimum=0,
    )
