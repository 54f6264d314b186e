"""Rotary positions as a GGUF file describes them, in the words of a transformers configuration. No torch.

Follows llama.cpp (src/llama-model.cpp, ggml's ``rope``): frequencies are divided by the factors of a tensor where there
is one, and by the linear factor; YaRN (Peng et al., 2023) and LongRoPE (Ding et al., 2024) are as in their papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from lrc_core.models.gguf.keys import Keys

ReadTensor = Callable[[str], Sequence[float] | None]
FACTORS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
TENSORS = (FACTORS, LONG, SHORT)
"""Tensors that describe positions and are no parameters of the model."""


def rope_parameters(keys: Keys, read: ReadTensor, context: int, rotated: int, default_base: float) -> dict[str, Any]:
    """The entry ``rope_parameters`` of a configuration.

    Args:
        read: gives the elements of a tensor, or None where the file has none of that name.
        context: the model's context length.
        rotated: how many elements of a head are rotated.
        default_base: the base where the file names none.

    Raises:
        ModelError: a scaling that transformers cannot compute; names the key.
    """
    base: dict[str, Any] = {"rope_theta": float(keys.number("rope.freq_base", default_base))}
    kind = keys.text("rope.scaling.type", "linear")  # llama.cpp's default, which changes nothing without a factor
    linear = keys.number("rope.scale_linear", 1.0)
    factor = keys.number("rope.scaling.factor", linear) or 1.0
    attention = keys.number("rope.scaling.attn_factor", 1.0) or 1.0
    original = keys.whole("rope.scaling.original_context_length", context) or context
    factors, long, short = (_checked(keys, name, read(name), rotated) for name in (FACTORS, LONG, SHORT))
    if kind == "none":
        factor = 1.0
    if long and short and factors is None and factor == 1 and kind in ("none", "linear", "longrope"):
        return {**base, **_longrope(short, long, attention, original)}
    if long or short:
        raise keys.refusal("rope.scaling.type", f"{kind} beside {LONG if long else SHORT}")
    if kind in ("none", "linear") and factors is None and attention == 1:
        return {**base, "rope_type": "linear", "factor": factor} if factor != 1 else {**base, "rope_type": "default"}
    if kind in ("none", "linear"):
        scaled = [element * factor for element in factors or [1.0] * (rotated // 2)]
        return {**base, **_longrope(scaled, scaled, attention, original)}
    if kind == "yarn" and factors is None:
        return {**base, **_yarn(keys, factor, attention, original)}
    raise keys.refusal("rope.scaling.type", kind)


def _longrope(short: Sequence[float], long: Sequence[float], attention: float, original: int) -> dict[str, Any]:
    """Any division of the frequencies; with equal lists it holds at every length."""
    return {
        "rope_type": "longrope",
        "short_factor": list(short),
        "long_factor": list(long),
        "attention_factor": attention,
        "original_max_position_embeddings": original,
    }


def _yarn(keys: Keys, factor: float, attention: float, original: int) -> dict[str, Any]:
    for name, neutral in (("yarn_ext_factor", 1.0), ("yarn_attn_factor", 1.0), ("yarn_log_multiplier", 0.0)):
        if (value := keys.number(f"rope.scaling.{name}", neutral)) != neutral:
            raise keys.refusal(f"rope.scaling.{name}", value)
    if factor < 1:
        raise keys.refusal("rope.scaling.factor", factor)
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original,
        "attention_factor": attention * (0.1 * math.log(factor) + 1),
        "beta_fast": keys.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": keys.number("rope.scaling.yarn_beta_slow", 1.0),
    }


def _checked(keys: Keys, name: str, values: Sequence[float] | None, rotated: int) -> Sequence[float] | None:
    if values is not None and (len(values) != rotated // 2 or not all(math.isfinite(v) and v > 0 for v in values)):
        raise keys.refusal(name, f"{len(values)} factors")
    return values
