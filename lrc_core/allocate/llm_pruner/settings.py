"""Settings of LLM-Pruner."""

from __future__ import annotations

from dataclasses import dataclass

from lrc_core.settings import setting


@dataclass(frozen=True)
class LlmPrunerSettings:
    """Settings of the pruning itself; the defaults are the paper's."""

    importance: str = setting(
        "param_first",
        "Importance",
        "param_first: |w dL/dw| of every weight, added up (the authors' script). param_second: w² F with the Fisher "
        "diagonal F; param_mix: both orders; vectorize: |sum of w dL/dw| of every row or column.",
        choices=("param_first", "param_second", "param_mix", "vectorize"),
    )
    windows: int = setting(
        10,
        "Calibration windows",
        "Token windows whose loss is differentiated; 10 in the paper.",
        minimum=1,
        maximum=4096,
    )
    window: int = setting(128, "Window", "Tokens in a calibration window; 128 in the paper.", minimum=2, maximum=65536)
    ranking: str = setting(
        "uniform",
        "Ranking",
        "uniform: the same ratio in every module that is pruned (the paper's); global: all units in one ranking by "
        "importance per parameter.",
        choices=("uniform", "global"),
    )
    first_whole: float = setting(
        0.125,
        "First blocks whole",
        "Share of the depth at the input that is not pruned: 4 of 32 blocks in the authors' script.",
        minimum=0.0,
        maximum=0.9,
    )
    last_whole: float = setting(
        0.0625,
        "Last blocks whole",
        "Share of the depth at the output that is not pruned: 2 of 32 blocks.",
        minimum=0.0,
        maximum=0.9,
    )


@dataclass(frozen=True)
class LlmPrunerLoraSettings(LlmPrunerSettings):
    """Settings of pruning and recovery; the defaults are the paper's and its code's."""

    lora_rank: int = setting(8, "LoRA rank", "Rank of the adapters; 8 in the paper.", minimum=1, maximum=512)
    lora_alpha: float = setting(
        16.0, "LoRA alpha", "Adapters are scaled by alpha over rank; 16 in the authors' code.", minimum=0.01
    )
    lora_dropout: float = setting(
        0.05, "LoRA dropout", "Of what the adapters read; 0.05 in the authors' code.", minimum=0.0, maximum=0.9
    )
    learning_rate: float = setting(
        1e-4, "Learning rate", "Of AdamW: a linear warm-up, then linearly to zero.", minimum=1e-7, maximum=1.0
    )
    warmup: float = setting(
        0.06, "Warm-up", "Share of the steps in which the rate rises; 100 of about 1,600.", minimum=0.0, maximum=1.0
    )
    documents: int = setting(50000, "Training windows", "How many token windows there are to learn from.", minimum=1)
    training_window: int = setting(
        256, "Training window", "Tokens in a training window; 256 in the paper.", minimum=2, maximum=65536
    )
    batch: int = setting(64, "Batch", "Windows in a step; 64 in the authors' script.", minimum=1, maximum=4096)
    at_once: int = setting(4, "At once", "Windows of a batch that are computed together.", minimum=1, maximum=4096)
    epochs: int = setting(2, "Epochs", "How often the training windows are gone through.", minimum=1, maximum=1000)
