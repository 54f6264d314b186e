"""Settings of Dobi-SVD."""

from __future__ import annotations

from dataclasses import dataclass

from lrc_core.settings import setting


@dataclass(frozen=True)
class DobiSettings:
    """Settings of Dobi-SVD; the defaults are the public code's."""

    task: str = setting(
        "perplexity",
        "Task loss",
        "perplexity: exp of the cross-entropy (the public code); text: cross-entropy (the paper); logits: KL "
        "divergence from the dense model's predictions; none: switched off.",
        choices=("perplexity", "text", "logits", "none"),
    )
    budget_weight: float = setting(
        200.0, "Budget weight", "Of the distance between kept share and target; 0 is off.", minimum=0
    )
    sharpness: float = setting(
        10.0,
        "Sharpness (beta)",
        "Of the truncation: with 10 hardly more than one component has a slope, with less the cut is softer than a "
        "plan's but reacts to more of the spectrum.",
        minimum=0.01,
        maximum=100,
    )
    unit: str = setting(
        "ranks",
        "Unit of k",
        "What the learning rate is measured in. ranks: as published, for models with thousands of components a "
        "layer; break_even: shares of a layer's break-even rank, which suits layers of any size.",
        choices=("ranks", "break_even"),
    )
    dense_switch: bool = setting(
        False,
        "Dense switch",
        "Run a layer dense once its rank saves nothing, as the plan will store it; k keeps its gradient.",
    )
    learning_rate: float = setting(5.0, "Learning rate", "Of Adam on k, at its highest.", minimum=1e-5, maximum=100)
    lowest_rate: float = setting(4.0, "Lowest rate", "Of the cosine schedule.", minimum=0, maximum=100)
    rate_period: int = setting(
        256, "Rate period", "Steps from the highest to the lowest rate; it then rises again.", minimum=1
    )
    steps: int = setting(5120, "Steps", "Twenty times through 256 windows in the public code.", minimum=1)
    documents: int = setting(256, "Training windows", "How many token windows there are to learn from.", minimum=1)
    window: int = setting(2048, "Window", "Tokens in a training window.", minimum=2, maximum=65536)
    batch: int = setting(1, "Batch", "Windows in a step.", minimum=1, maximum=1024)
