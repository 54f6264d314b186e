"""Settings of the successive Lagrangian."""

from __future__ import annotations

from dataclasses import dataclass

from lrc_core.allocate.curves.predicted import CURVE_HELP, CURVES
from lrc_core.settings import setting


@dataclass(frozen=True)
class SuccessiveSettings:
    """Settings of the successive Lagrangian allocation."""

    curve: str = setting("auto", "Loss curve", f"Predicted losses to start from. {CURVE_HELP}", choices=CURVES)
    curve_batches: int = setting(
        16, "Curve batches", "Batches for the measured sensitivity (unused by sigma).", minimum=1
    )
    pace: float = setting(
        0.005, "Pace", "By how much the compression rate rises from round to round.", minimum=0.001, maximum=1.0
    )
    settle_rounds: int = setting(12, "Settling rounds", "Rounds at the target itself.", minimum=1)
    batches: int = setting(4, "Batches a round", "Between two solutions.", minimum=1)
    mixing: float = setting(
        0.25,
        "Mixing",
        "Share of a round's measured losses in the running ones. 0: the predicted losses stand.",
        minimum=0.0,
        maximum=1.0,
    )
    gain_rate: float = setting(
        0.01,
        "Gain rate",
        "Learning rate of the gains of kept components; it falls over the settling rounds. 0: no gains, ranks alone.",
        minimum=0.0,
        maximum=1.0,
    )
    groups: int = setting(
        18,
        "Groups",
        "Into how many groups a layer's spectrum is pooled. Fewer are less noisy, more are finer.",
        minimum=1,
        maximum=4096,
    )
    check_windows: int = setting(
        16,
        "Check windows",
        "Windows held back from training, to choose among the last plans; 0: the last one is taken.",
    )
    documents: int = setting(512, "Training windows", "How many token windows there are to learn from.", minimum=1)
    window: int = setting(256, "Window", "Tokens in a training window.", minimum=2, maximum=65536)
    batch: int = setting(4, "Batch", "Windows in a batch.", minimum=1, maximum=1024)
