"""Finding and replacing the linears of a model's decoder blocks, by structure and not by model names.

The decoder blocks are the list of equal modules that holds most of the model's parameters. Whatever stands
outside that list (embeddings, head, final norm) is never compressed.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lrc_core.errors import ModelError
from lrc_core.types import LinearShape


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a dense linear whose weight can be factorised.

    Packed weights of quantised linears (integers, or not two-dimensional) do not count.
    """
    if not isinstance(module, nn.Linear | Conv1D):
        return False
    weight = module.weight
    return weight.ndim == 2 and weight.is_floating_point()


def weight_of(module: nn.Module) -> Tensor:
    """The weight as [out, in]; of a Conv1D, which stores [in, out], the transposed view.

    Raises:
        ModelError: the module is not a dense linear.
    """
    if not isinstance(module, nn.Linear | Conv1D) or not is_linear(module):
        raise ModelError(f"A {type(module).__name__} is not a dense linear layer.")
    return module.weight.T if isinstance(module, Conv1D) else module.weight


def bias_of(module: nn.Module) -> Tensor | None:
    """The bias [out], or None."""
    bias = getattr(module, "bias", None)
    return bias if isinstance(bias, Tensor) else None


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The list of decoder blocks.

    Lists within a block (experts, for instance) are not candidates. Among the others the one that holds most
    parameters wins, so that a deep but small vision tower is not mistaken for the language model.

    Raises:
        ModelError: the model has no list of blocks.
    """
    return _find_blocks(model)[1]


def blocks_prefix(model: nn.Module) -> str:
    """Module name of the list of decoder blocks, e.g. ``model.layers``."""
    return _find_blocks(model)[0]


def block_linears(model: nn.Module) -> tuple[LinearShape, ...]:
    """Every linear of the decoder blocks, block by block, in the order in which the block defines them.

    Raises:
        ModelError: no decoder blocks, or no linears in them.
    """
    prefix, blocks = _find_blocks(model)
    found = []
    # One walk over the whole list, so that a module shared by several blocks is counted once.
    for name, module in blocks.named_modules():
        if is_linear(module):
            block, _, kind = name.partition(".")
            rows, columns = weight_of(module).shape
            full_name = f"{prefix}.{name}" if prefix else name
            found.append(LinearShape(full_name, int(block), kind, rows, columns))
    if not found:
        raise ModelError(
            f"The blocks {prefix} of {type(model).__name__} hold no dense linear layers.",
            "If the model is quantised, load its full-precision original.",
        )
    return tuple(found)


def get_module(model: nn.Module, name: str) -> nn.Module:
    """The module of that full name.

    Raises:
        ModelError: there is none.
    """
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise ModelError(f"The model has no module {name}.", "Use a plan that was made for this model.") from None


def replace_module(model: nn.Module, name: str, new: nn.Module) -> nn.Module:
    """Put ``new`` where the module of that full name is, and return the one that was there.

    Raises:
        ModelError: there is no such module.
    """
    old = get_module(model, name)
    parent, _, leaf = name.rpartition(".")
    get_module(model, parent).add_module(leaf, new)
    return old


def _find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    lists = list(_outer_lists(model))
    # Blocks of one class are the rule; mixed ones (attention and state-space blocks) count where there are no others.
    equal = [found for found in lists if len({type(block) for block in found[1]}) == 1]
    best = max(equal or lists, key=lambda found: (_params(found[1]), len(found[1])), default=None)
    if best is None or _params(best[1]) == 0:
        raise ModelError(
            f"{type(model).__name__} has no list of decoder blocks.",
            "Only causal language models made of equal decoder blocks can be compressed.",
        )
    return best


def _outer_lists(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.ModuleList]]:
    """Module lists that are not inside another one, with their names."""
    for name, child in module.named_children():
        full_name = f"{prefix}.{name}" if prefix else name
        if isinstance(child, nn.ModuleList):
            if len(child):
                yield full_name, child
        else:
            yield from _outer_lists(child, full_name)


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
