"""Finding and replacing the linears of a model's decoder blocks, by structure and not by model names.

The decoder blocks are the list of modules that holds most of the model's parameters, of those lists that run on text.
Whatever stands outside that list (embeddings, head, final norm, a vision tower) is never compressed. They are found
once, on the dense model, and remembered by name: behind a plan another list may be the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lrc_core.coverage import EXPERTS, Coverage, count_coverage, is_expert
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


@dataclass(frozen=True)
class Blocks:
    """The decoder blocks of a model.

    Attributes:
        prefix: module name of their list, e.g. ``model.layers``.
        layers: every linear in them that can be compressed, in the order in which the blocks define them.
        never_called: names of linears in them that no pass runs, though their weight may be read: never compressed.
        coverage: what of all lists of modules that run on text can be compressed, by part.
    """

    prefix: str
    layers: tuple[LinearShape, ...]
    never_called: tuple[str, ...] = ()
    coverage: Coverage = field(default_factory=dict)


_KNOWN: WeakKeyDictionary[nn.Module, Blocks] = WeakKeyDictionary()


def find_blocks(model: nn.Module, called: Collection[str] | None = None) -> Blocks:
    """Find the decoder blocks of a dense model and remember them for it.

    Lists within a block (experts, for instance) are not candidates.

    Args:
        called: names of the modules that run on text; None where that is not known. Lists of which none runs are not
            candidates then, and linears that are not called (a family may read their weight) are left out; experts
            stay in, because which of them run depends on the text. Routers are always left out.

    Raises:
        ModelError: no decoder blocks, or no linears in them.
    """
    prefix = _find_prefix(model, called)
    layers, never_called = [], []
    # One walk over the whole list, so that a module shared by several blocks is counted once.
    for name, module in model.get_submodule(prefix).named_modules():
        if not is_linear(module):
            continue
        block, _, kind = name.partition(".")
        rows, columns = weight_of(module).shape
        full_name = f"{prefix}.{name}" if prefix else name
        if not is_expert(kind) and called is not None and full_name not in called:
            never_called.append(full_name)
        elif is_expert(kind) or not _chooses_experts(model, full_name, rows):
            layers.append(LinearShape(full_name, int(block), kind, rows, columns))
    if not layers:
        raise ModelError(
            f"The blocks {prefix} of {type(model).__name__} hold no dense linear layers.",
            "If the model is quantised, load its full-precision original.",
        )
    running = [prefix] if called is None else [name for name, _ in _running(model, called)]
    own = prefix.rpartition(".")[2]
    matrices = (layer for layer in layers if layer.full_rank > 1)  # a gate of one output is a vector on both sides
    coverage = count_coverage(_matrices(model, running), ((f"{own}.{layer.kind}", layer.params) for layer in matrices))
    _KNOWN[model] = Blocks(prefix, tuple(layers), tuple(never_called), coverage)
    return _KNOWN[model]


def _matrices(model: nn.Module, lists: Collection[str]) -> Iterator[tuple[str, int]]:
    """Path inside its block and size of every matrix, or stack of matrices, in lists of modules."""
    for name in lists:
        for full_name, parameter in model.get_submodule(name).named_parameters():
            if parameter.ndim >= 2 and min(parameter.shape[-2:]) > 1:
                yield f"{name.rpartition('.')[2]}.{full_name.partition('.')[2]}", parameter.numel()


def blocks_of(model: nn.Module) -> Blocks:
    """The decoder blocks as they were found on the dense model; found now where nobody has looked yet."""
    return _KNOWN.get(model) or find_blocks(model)


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The list of decoder blocks.

    Raises:
        ModelError: the model has no list of blocks.
    """
    known = _KNOWN.get(model)
    found = model.get_submodule(_find_prefix(model, None) if known is None else known.prefix)
    assert isinstance(found, nn.ModuleList)
    return found


def block_linears(model: nn.Module) -> tuple[LinearShape, ...]:
    """Every linear of the decoder blocks that can be compressed, block by block, in the order of definition.

    Raises:
        ModelError: no decoder blocks, or no linears in them.
    """
    return blocks_of(model).layers


_LISTENERS: WeakKeyDictionary[nn.Module, Callable[[str], None]] = WeakKeyDictionary()


def on_request(model: nn.Module, listener: Callable[[str], None]) -> None:
    """Have a function told the full name of every module that :func:`get_module` is asked for, before it is given."""
    _LISTENERS[model] = listener


def get_module(model: nn.Module, name: str) -> nn.Module:
    """The module of that full name.

    Raises:
        ModelError: there is none.
    """
    if (listener := _LISTENERS.get(model)) is not None:
        listener(name)
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


@contextmanager
def swapped(model: nn.Module, others: Iterable[tuple[str, nn.Module]]) -> Iterator[None]:
    """The model with other modules in place of the named ones; the very same modules are put back at the end.

    Args:
        model: whose modules they are.
        others: by full name. A generator can make each from the module that it takes the place of, which is asked for
            once: of a model whose blocks are brought in one after the other, no block then comes in twice.
    """
    originals: dict[str, nn.Module] = {}
    try:
        for name, module in others:
            originals[name] = replace_module(model, name, module)
        yield
    finally:
        for name, module in originals.items():
            replace_module(model, name, module)


def _chooses_experts(model: nn.Module, name: str, rows: int) -> bool:
    """Whether a linear is the router of a mixture: one output for every expert beside it.

    Cutting it would send tokens elsewhere, and it holds next to nothing.
    """
    parent = name.rpartition(".")[0]
    for above in (parent, parent.rpartition(".")[0]):
        for child_name, child in model.get_submodule(above).named_children():
            if EXPERTS.search(child_name) and sum(key.isdecimal() for key, _ in child.named_children()) == rows:
                return True
    return False


def _find_prefix(model: nn.Module, called: Collection[str] | None) -> str:
    lists = _running(model, called)
    # Blocks repeat; where every member is of a kind of its own it is a collection of parts.
    stacks = [found for found in lists if len({type(block) for block in found[1]}) < max(len(found[1]), 4)]
    best = max(stacks or lists, key=lambda found: (_params(found[1]), len(found[1])), default=None)
    if best is None:
        raise ModelError(
            f"{type(model).__name__} has no list of decoder blocks.",
            "Only causal language models made of equal decoder blocks can be compressed.",
        )
    return best[0]


def _running(model: nn.Module, called: Collection[str] | None) -> list[tuple[str, nn.ModuleList]]:
    """The outer lists of modules that run on text; all of them where that is not known."""
    lists = [found for found in outer_lists(model) if _params(found[1])]
    if called is None:
        return lists
    running = {name.rpartition(".")[0] for name in called}
    return [found for found in lists if found[0] in running] or lists


def outer_lists(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.ModuleList]]:
    """Module lists that are not inside another one, with their names."""
    for name, child in module.named_children():
        full_name = f"{prefix}.{name}" if prefix else name
        if isinstance(child, nn.ModuleList):
            if len(child):
                yield full_name, child
        else:
            yield from outer_lists(child, full_name)


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
