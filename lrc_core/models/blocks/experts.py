"""Experts of a mixture as linears of their own, see :mod:`lrc_core.hf.experts`, tried before they are relied on.

A layout that is put together wrongly would change every output: each class is tried against its own code once, and
left stacked where the two disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.hf.experts import is_dbrx, is_parallel, is_sorted, stacks_of, way_to_unstack

_PROBE_TOKENS = 6
_TOLERANCE = 2e-2  # of the outputs' norm: above rounding in bfloat16, far below any wrong layout


def unstack_experts(model: nn.Module) -> tuple[str, ...]:
    """Give the experts of every mixture linears of their own, in place.

    Returns:
        Names of the modules that were changed.
    """
    fits: dict[type[nn.Module], bool] = {}
    changed = []
    for name, module in list(model.named_modules()):
        unstack = way_to_unstack(module)
        if unstack is None or not fits.get(type(module), True):
            continue
        if type(module) not in fits:
            fits[type(module)] = _tried(module, unstack)
        else:
            unstack(module)
        if fits[type(module)]:
            changed.append(name)
    return tuple(changed)


# -- one module ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def _tried(module: nn.Module, unstack: Callable[[nn.Module], None]) -> bool:
    """Unstack a module if it then gives what it gave before; else leave it as it was."""
    parameters, attributes = dict(module._parameters), dict(vars(module))
    children, buffers = dict(module._modules), dict(module._buffers)
    try:
        inputs = _inputs(module)
        before = module(*inputs)
        unstack(module)
        after = module(*inputs)
        if before.shape == after.shape and (after - before).norm() <= _TOLERANCE * before.norm():
            return True
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError):
        pass  # a form that only looks like experts
    vars(module).clear()
    vars(module).update(attributes)
    module._parameters, module._modules, module._buffers = parameters, children, buffers
    return False


def _inputs(module: Any) -> tuple[Any, ...]:
    """Made-up tokens, and where a form asks for them, their experts and weights."""
    stack = next(iter(stacks_of(module).values()), None)
    stack = next(module.parameters()) if stack is None else stack
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(stack.device, stack.dtype)

    if is_parallel(module):
        sizes = [number % 3 for number in range(module.num_experts)]
        return drawn(sum(sizes), module.input_size), sizes
    count, width = int(_count(module)), int(_width(module))
    if is_sorted(module):
        return (drawn(count * _PROBE_TOKENS, width),)
    index = torch.stack([torch.arange(_PROBE_TOKENS) % count, (torch.arange(_PROBE_TOKENS) + 1) % count], 1)
    return drawn(_PROBE_TOKENS, width), index.to(stack.device), drawn(_PROBE_TOKENS, 2).abs()


def _count(module: Any) -> int:
    return module.num_experts if hasattr(module, "num_experts") else len(next(iter(stacks_of(module).values())))


def _width(module: Any) -> int:
    """How many inputs an expert has."""
    if is_dbrx(module):
        return int(module.hidden_size)
    down = module.down_proj
    return int(down.shape[2] if getattr(module, "is_transposed", is_sorted(module)) else down.shape[1])
