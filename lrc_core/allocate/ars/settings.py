"""Settings of ARS."""

from __future__ import annotations

from dataclasses import dataclass

from lrc_core.settings import setting


@dataclass(frozen=True)
class ArsSettings:
    """Settings of ARS; the defaults are the paper's, or those of its public reimplementation."""

    task: str = setting(
        "text",
        "Task loss",
        "text: cross-entropy (the paper's); logits: KL divergence from the dense model's predictions; none: switched "
        "off.",
        choices=("text", "logits", "none"),
    )
    budget_weight: float = setting(
        16.0, "Budget weight (lambda)", "Of the log-ratio of parameters to the target; 0 is off.", minimum=0
    )
    align_weight: float = setting(
        1.0, "Alignment weight (gamma)", "Of the distance to the sorted mask; 0 is off.", minimum=0
    )
    counting: str = setting(
        "factors",
        "Counting",
        "What the budget loss sees. factors: k(m+n) under the noisy masks, even above the dense layer's mn (as "
        "published); stored: what a plan would store, noise-free and at most mn, with the gradient of the noisy masks.",
        choices=("factors", "stored"),
    )
    dense_switch: bool = setting(
        False,
        "Dense switch",
        "Run a layer dense while its mask saves nothing, as the plan will store it; its mask keeps its gradient.",
    )
    temperature: float = setting(0.4, "Temperature", "Of the Gumbel-sigmoid.", minimum=0.01)
    noise: str = setting(
        "gumbel",
        "Noise",
        "gumbel: one Gumbel variable; logistic: the difference of two; none.",
        choices=("gumbel", "logistic", "none"),
    )
    start: float = setting(
        3.0, "Start", "Added to every logit, so that training starts at full rank.", minimum=0.0, maximum=100
    )
    learning_rate: float = setting(0.001, "Learning rate", "Of Adam on the hypernetwork.", minimum=1e-6, maximum=1)
    max_steps: int = setting(12500, "Most steps", "Training ends here even above the target.", minimum=1)
    settle_steps: int = setting(500, "Settling steps", "Steps after the target is first reached.", minimum=0)
    documents: int = setting(50000, "Training windows", "How many token windows there are to learn from.", minimum=1)
    window: int = setting(256, "Window", "Tokens in a training window.", minimum=2, maximum=65536)
    batch: int = setting(4, "Batch", "Windows in a step.", minimum=1, maximum=1024)
