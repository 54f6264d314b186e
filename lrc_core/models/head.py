"""From the last hidden state to the logits: the output embedding and what some families do behind it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def output_head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function from the states that enter the output embedding to the model's logits.

    Cohere multiplies the logits by ``logit_scale``, Granite divides them by ``logits_scaling``, Gemma 2 and later
    cap them softly at ``final_logit_softcapping``; each says so in its configuration.
    Returns [..., hidden] to [..., vocab].
    """
    embedding: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    config = model.config.get_text_config()  # type: ignore[operator,union-attr]
    factor = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)

    def logits(states: Tensor) -> Tensor:
        found: Tensor = embedding(states)
        if factor != 1:
            found = found * factor
        return torch.tanh(found / cap) * cap if cap else found

    return logits
