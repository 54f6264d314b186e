"""A model over several cards: every block lies on one of them, and what runs through it is brought there.

Nothing else needs to know: who works with a layer asks its weight where it is, and logits come back to where the
tokens are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from accelerate import infer_auto_device_map
from accelerate.utils import get_balanced_memory, send_to_device
from torch import distributed, nn

from lrc_core.models.blocks.linears import decoder_blocks

WORK = 4
"""Room that work on a whole model takes, in weights: they, factors of full rank (up to twice as much), the rest."""


def cards_for(device: torch.device, weights: int) -> dict[torch.device, int]:
    """Cards that a model is to be spread over, with their free bytes; none where one card holds it and the work on it.

    Args:
        device: that was chosen; a card that is named by its number stays the only one, as does that of a process that
            works in a team.
        weights: bytes of the model in the precision in which it runs.
    """
    in_team = distributed.is_available() and distributed.is_initialized()
    if device != torch.device("cuda") or torch.cuda.device_count() < 2 or in_team:
        return {}
    if _free(0) >= WORK * weights:  # the others are not even asked, which would take memory on each
        return {}
    return {torch.device("cuda", number): _free(number) for number in range(torch.cuda.device_count())}


def _free(number: int) -> int:
    return int(torch.cuda.mem_get_info(number)[0])


def spread(model: nn.Module, cards: Mapping[torch.device, int], dtype: torch.dtype) -> bool:
    """Lay a model out over cards, in place; tied parameters stay tied, buffers keep their precision.

    Args:
        model: a causal language model, in main memory.
        cards: free bytes by card. Blocks are not divided, and are shared out evenly.

    Returns:
        Whether it fits; nothing is moved where it does not.
    """
    places = _places(model, cards, dtype)
    if not set(places.values()) <= set(cards):
        return False
    moved: dict[int, nn.Parameter] = {}
    for name, place in places.items():
        part = model.get_submodule(name)
        there = [moved[id(parameter)].device for parameter in part.parameters() if id(parameter) in moved]
        _send(part, there[0] if there else place, dtype, moved)  # a tied weight lies where it was sent first
    for module in _entered(model, places):
        module.register_forward_pre_hook(_bringing(model, _device_of(module)), with_kwargs=True)
    first = _device_of(model.get_input_embeddings())  # type: ignore[operator]
    model.register_forward_hook(lambda _, __, output: _returned(output, first))
    return True


def _entered(model: nn.Module, parts: Collection[str]) -> Iterator[nn.Module]:
    """Parts, blocks, and what has tensors of its own outside of blocks: whatever else is there hands on to these."""
    blocks = {id(block) for block in decoder_blocks(model)}
    inside = {id(part) for block in decoder_blocks(model) for part in block.modules() if part is not block}
    for name, module in model.named_modules():
        own = any(True for _ in chain(module.parameters(recurse=False), module.buffers(recurse=False)))
        holds = any(True for _ in module.parameters())
        if id(module) in blocks or (own and id(module) not in inside) or (holds and name in parts):
            yield module


def _device_of(module: nn.Module) -> torch.device:
    return next(chain(module.parameters(), module.buffers())).device


def _places(model: nn.Module, cards: Mapping[torch.device, int], dtype: torch.dtype) -> dict[str, torch.device]:
    """A card by the full name of every part of the model, in the model's order; blocks are whole parts."""
    whole = sorted({type(block).__name__ for block in decoder_blocks(model)})
    listed = list(cards)
    room: dict[int | str, int] = dict(enumerate(cards.values()))
    for limits in (get_balanced_memory(model, dict(room), whole, dtype=dtype), room):
        found = infer_auto_device_map(model, {**limits, "cpu": 0}, whole, dtype=dtype)
        if all(isinstance(place, int) for place in found.values()):
            break  # even shares leave no place for a large part, which there is all the same
    elsewhere = torch.device("meta")
    return {name: listed[place] if isinstance(place, int) else elsewhere for name, place in found.items()}


def _send(part: nn.Module, device: torch.device, dtype: torch.dtype, moved: dict[int, nn.Parameter]) -> None:
    """Move a part and convert its parameters; a parameter that was moved with an earlier part stays where that is."""
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in moved:
                kept = parameter.dtype if not parameter.is_floating_point() else dtype
                here = nn.Parameter(parameter.detach().to(device, kept), requires_grad=parameter.requires_grad)
                moved[id(parameter)] = moved[id(here)] = here
            module._parameters[name] = moved[id(parameter)]
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)


def _bringing(model: nn.Module, device: torch.device) -> Callable[..., Any]:
    skipped = getattr(model, "_skip_keys_device_placement", None)  # caches lie with the blocks that they are of

    def bring(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return send_to_device(args, device), send_to_device(kwargs, device, skip_keys=skipped)

    return bring


def _returned(output: Any, device: torch.device) -> Any:
    if getattr(output, "logits", None) is not None:
        output.logits = output.logits.to(device)
    return output
