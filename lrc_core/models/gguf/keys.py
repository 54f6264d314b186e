"""Keys of a GGUF file as they are asked for: what nobody asked for is found at the end and refused. No torch."""

from __future__ import annotations

import math
from typing import Any

from lrc_core.errors import ModelError
from lrc_core.models.gguf.header import GgufHeader

REMEDY = "Use the model's safetensors instead."
_WITHOUT_EFFECT = {
    "tensor_data_layout",  # every writer's layout of queries and keys is the same one
    "pooling_type",  # of embeddings that are made from the hidden states, behind the model
    "rope.scaling.finetuned",  # history: whether the scaling was trained
    "source.url",
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.scale": (0.0,),
    "attention.sliding_window": (0,),
    "attention.temperature_scale": (0.0, 1.0),
    "attn_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "expert_shared_count": (0,),
    "expert_used_count": (0,),
    "expert_weights_norm": (False,),
    "expert_weights_scale": (0.0, 1.0),
    "final_logit_softcapping": (0.0,),
    "leading_dense_block_count": (0,),
    "logit_scale": (0.0, 1.0),
    "nextn_predict_layers": (0,),
    "residual_scale": (0.0, 1.0),
    "ssm.dt_b_c_rms": (False,),
    "use_parallel_residual": (False,),
}
"""Values with which a key says what holds without it."""


class Keys:
    """What a GGUF file says of its architecture, without the architecture's prefix.

    Args:
        header: of the file, or of all its parts.
        where: the file's name, for messages.
    """

    def __init__(self, header: GgufHeader, where: str) -> None:
        self._prefix = prefix = f"{header.architecture}."
        self._values = {
            key.removeprefix(prefix): value for key, value in header.metadata.items() if key.startswith(prefix)
        }
        arrays = {key.removeprefix(prefix) for key in header.lengths if key.startswith(prefix)}
        self._values |= dict.fromkeys(arrays - set(self._values))  # too long to be kept, or of texts
        self._left = set(self._values)
        self.where = where

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number.

        Raises:
            ModelError: it is none, or it is missing and has no default.
        """
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.refusal(name, value)
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 0.

        Raises:
            ModelError: it is none, or it is missing and has no default.
        """
        value = self._take(name, default)
        if type(value) is not int or value < 0:
            raise self.refusal(name, value)
        return value

    def text(self, name: str, default: str) -> str:
        """A text.

        Raises:
            ModelError: it is none.
        """
        value = self._take(name, default)
        if not isinstance(value, str):
            raise self.refusal(name, value)
        return value

    def value(self, name: str) -> Any:
        """Whatever the key holds; None where it is missing."""
        self._left.discard(name)
        return self._values.get(name)

    def has(self, name: str) -> bool:
        """Whether the file has this key."""
        return name in self._values

    def refusal(self, name: str, value: Any) -> ModelError:
        """The error that names a key that cannot be followed."""
        full = name if name.endswith(".weight") else self._prefix + name
        return ModelError(f"{self.where} sets {full[:100]} to {str(value)[:60]}, which cannot be carried over.", REMEDY)

    def require_all_read(self) -> None:
        """Refuse keys that were not asked for, unless they are known to change nothing.

        Raises:
            ModelError: names the first one.
        """
        for name in sorted(self._left - _WITHOUT_EFFECT):
            value = self._values[name]
            if value not in _NEUTRAL.get(name, ()):
                raise self.refusal(name, "a list" if value is None else value)

    def _take(self, name: str, default: Any) -> Any:
        self._left.discard(name)
        if name in self._values:
            return self._values[name]
        if default is None:
            raise ModelError(f"{self.where} does not say its {self._prefix}{name}.", "It is incomplete. " + REMEDY)
        return default
