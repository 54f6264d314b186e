"""What one short forward pass tells of a model: which modules run on text, and whether it sees what follows.

Two windows run together that differ behind their middle. In a causal model the logits before it are the same, to the
last bits: both rows go through the very same products. A model that reads in both directions betrays itself there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.models.blocks.hooks import hooked

_WINDOW = 12
_MOST_ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-4}
_MOST_ROUNDING_HALF = 2e-3
"""How far early logits may move, in standard deviations of the logits."""


@dataclass(frozen=True)
class FirstLook:
    """What the pass told.

    Attributes:
        called: full names of the modules that ran; None where the model does not run on token ids alone.
        causal: no early logit moved.
    """

    called: frozenset[str] | None
    causal: bool


@torch.no_grad()
def first_look(model: nn.Module) -> FirstLook:
    """Run two short windows, and two others where those make the model seem to look ahead.

    A model whose own code fails on them is taken for causal, and nothing is known of its modules: the first real pass
    will say what is wrong.

    Args:
        model: in evaluation mode; left as it was found.
    """
    called: set[str] = set()
    try:
        with hooked(module.register_forward_pre_hook(_noting(called, name)) for name, module in model.named_modules()):
            causal = _is_causal(model, 3) or _is_causal(model, 11)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a family's own code raises whatever it likes
        return FirstLook(None, True)
    return FirstLook(frozenset(called), causal)


def _noting(called: set[str], name: str) -> Any:
    def note(*_: Any) -> None:
        called.add(name)

    return note


def _is_causal(model: nn.Module, step: int) -> bool:
    tokens = _two_windows(model, step)
    logits: Tensor = model(input_ids=tokens, use_cache=False).logits.float()  # [2, window, vocab]
    early = logits[:, : _WINDOW // 2]
    moved = float((early[0] - early[1]).abs().max())
    most = _MOST_ROUNDING.get(next(model.parameters()).dtype, _MOST_ROUNDING_HALF)
    return not moved > most * float(early.std())  # what is not a number is for others to report


def _two_windows(model: nn.Module, step: int) -> Tensor:
    """[2, window] token ids that differ in their second half, none of them special."""
    vocabulary = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    first = vocabulary // 4
    row = first + (step * torch.arange(_WINDOW)) % max(1, vocabulary // 4)
    other = row.clone()
    other[_WINDOW // 2 :] = vocabulary // 2 + (step * torch.arange(_WINDOW // 2)) % max(1, vocabulary // 4)
    return torch.stack([row, other]).to(next(model.parameters()).device)
