"""Settings of tuning a plan's factors. No torch, so that forms and the command line can read them."""

from __future__ import annotations

from dataclasses import dataclass

from lrc_core.settings import setting

TUNED = "tuned"
BLOCKWISE = "blockwise"


@dataclass(frozen=True)
class TuningSettings:
    """Settings of tuning the factors of a plan."""

    kind: str = setting(
        TUNED,
        "What is updated",
        "tuned: both factors of every low-rank layer, by gradient steps.",
        choices=(TUNED,),
    )
    text_weight: float = setting(
        0.5,
        "Text weight",
        "Of the next-token loss on the calibration text beside the divergence from the dense model's predictions. The "
        "text also fits the model to its kind, as any tuning on text does; 0 only takes back what compression changed.",
        minimum=0.0,
        maximum=1000.0,
    )
    rate: float = setting(
        0.0007,
        "Learning rate",
        "Of Adam, relative to the root mean square of the factor that moves; it rises over the first steps, then "
        "falls in a line to zero.",
        minimum=1e-6,
        maximum=1.0,
    )
    documents: int = setting(512, "Training windows", "How many token windows there are to learn from.", minimum=1)
    window: int = setting(256, "Window", "Tokens in a training window.", minimum=2, maximum=65536)
    batch: int = setting(4, "Batch", "Windows in a step.", minimum=1, maximum=1024)
    passes: int = setting(1, "Passes", "How often the training windows are gone through.", minimum=1, maximum=1000)
    check_windows: int = setting(
        16,
        "Check windows",
        "Windows held back from training: where tuning did not lower the loss on them, the factors stay as they were. "
        "0: the tuned ones are taken.",
        minimum=0,
    )


@dataclass(frozen=True)
class BlockwiseSettings:
    """Settings of refining the factors of a plan block by block."""

    kind: str = setting(
        BLOCKWISE,
        "What is updated",
        "blockwise: both factors of every low-rank layer, by gradient steps, one block after the other.",
        choices=(BLOCKWISE,),
    )
    rate: float = setting(
        0.002,
        "Learning rate",
        "Of Adam, relative to the root mean square of the factor that moves; it rises over the first steps of a block, "
        "then falls in a line to zero.",
        minimum=1e-6,
        maximum=1.0,
    )
    documents: int = setting(256, "Training windows", "How many token windows there are to learn from.", minimum=1)
    window: int = setting(256, "Window", "Tokens in a training window.", minimum=2, maximum=65536)
    batch: int = setting(4, "Batch", "Windows in a step.", minimum=1, maximum=1024)
    passes: int = setting(2, "Passes", "How often a block goes through the training windows.", minimum=1, maximum=1000)
    check_windows: int = setting(
        16,
        "Check windows",
        "Windows held back from training: of a block's factors after every pass, those are taken whose output is "
        "nearest on them. 0: nearest on the training windows.",
        minimum=0,
    )
