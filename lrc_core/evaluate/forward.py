"""What the measurements share about running a causal language model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lrc_core.models.checks.fit import model_positions


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients; the model is left in the mode it was found in.

    Not inference mode: a buffer that a forward pass renews (rotary tables) could then not be used in training later.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def max_positions(model: nn.Module) -> int | None:
    """The longest sequence the model takes, or was made for, in tokens; None where nothing says."""
    return model_positions(model).limit
