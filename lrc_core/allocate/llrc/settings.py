"""Settings of LLRC."""

from __future__ import annotations

from dataclasses import dataclass

from lrc_core.settings import setting


@dataclass(frozen=True)
class LlrcSettings:
    """Settings of LLRC; the defaults are the paper's, or stated where the paper leaves a choice open."""

    distillation: str = setting(
        "hidden",
        "Distillation",
        "hidden: mean squared error to the dense model's states at the middle and last layer, each divided by their "
        "mean square (the paper does not publish its distance); logits: KL divergence from the dense model's "
        "predictions; text: plain cross-entropy, which the paper says yields similar results.",
        choices=("hidden", "logits", "text", "none"),
    )
    distill_weight: float = setting(1.0, "Distillation weight (beta)", "Not published; 1 is the unit.", minimum=0)
    compression: str = setting(
        "mean_logit",
        "Compression loss",
        "mean_logit: the mean logit of every layer, averaged (the paper's); weighted_logit: the mean over all "
        "components weighted by their parameters, one price per parameter whatever the layer; log_ratio: the log of "
        "the kept share over the target (the authors' simplified code, from ARS); none: switched off.",
        choices=("mean_logit", "weighted_logit", "log_ratio", "none"),
    )
    alpha_low: float = setting(0.1, "Lowest alpha", "Lower bound of the oscillating compression weight.", minimum=0)
    alpha_high: float = setting(1.0, "Highest alpha", "Upper bound of it; the bounds are not published.", minimum=0)
    alpha_period: int = setting(200, "Alpha period", "Steps of one oscillation (cyclical annealing).", minimum=1)
    tv_weight: float = setting(
        0.01,
        "TV weight (gamma)",
        "Weight of the total variation that keeps selections contiguous; 0 is off.",
        minimum=0,
    )
    temperature: float = setting(
        0.1, "Temperature", "Of the Gumbel-sigmoid: 0.1 in the paper, 0.4 in its code.", minimum=0.01
    )
    noise: str = setting(
        "gumbel",
        "Noise",
        "gumbel: one Gumbel variable; logistic: the difference of two; none.",
        choices=("gumbel", "logistic", "none"),
    )
    ramp: str = setting(
        "linear",
        "Ramp",
        "How logits start. linear: falling along each spectrum (the paper's). sensitivity: falling with what each "
        "component is measured to cost the loss per parameter it frees, so that the first rates passed are already "
        "sensible ones and training time goes into corrections.",
        choices=("linear", "sensitivity"),
    )
    ramp_high: float = setting(
        6.0, "Ramp start", "Logit of the component that is to go last.", minimum=0.01, maximum=100
    )
    ramp_low: float = setting(3.0, "Ramp end", "Logit of the component that is to go first.", minimum=0.01, maximum=100)
    ramp_batches: int = setting(
        16, "Sensitivity batches", "Batches for the sensitivity ramp (unused by the linear one).", minimum=1
    )
    dense_switch: bool = setting(
        False,
        "Dense switch",
        "Run a layer dense while its mask would not save parameters: that is how the plan will store it. Without it "
        "a layer above break-even is trained against damage that its plan will not have.",
    )
    pace_steps: int = setting(
        0,
        "Pace",
        "Steps in which the compression rate may rise to the target: compression presses only while the kept share is "
        "above a line from 1 to the target. 0: it always presses.",
        minimum=0,
    )
    hold: bool = setting(
        False,
        "Hold the target",
        "Let the compression loss press the other way when the kept share falls below the line by more than the "
        "tolerance, so that training settles at the target instead of drifting past it.",
    )
    learning_rate: float = setting(0.01, "Learning rate", "Of Adam on the logits.", minimum=1e-5, maximum=10)
    max_steps: int = setting(20000, "Most steps", "Training ends here even above the target.", minimum=1)
    settle_steps: int = setting(750, "Settling steps", "Steps after the target is first reached.", minimum=0)
    tolerance: float = setting(
        0.002,
        "Tolerance",
        "The compression loss is switched off within this distance of the target.",
        minimum=0,
        maximum=0.1,
    )
    documents: int = setting(3000, "Training windows", "How many token windows there are to learn from.", minimum=1)
    window: int = setting(256, "Window", "Tokens in a training window.", minimum=2, maximum=65536)
    batch: int = setting(4, "Batch", "Windows in a step.", minimum=1, maximum=1024)
    export: str = setting(
        "top_k",
        "Export",
        "top_k: as many of the largest singular values as are kept (the authors' code); any_k: exactly the kept ones.",
        choices=("top_k", "any_k"),
    )
