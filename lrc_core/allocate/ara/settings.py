"""Settings of ARA."""

from __future__ import annotations

from dataclasses import dataclass

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
