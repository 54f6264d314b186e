"""A graphics card that is not there: what lies on it is computed by the processor, and meets nothing from elsewhere.

PyTorch lets Python stand in for a device ("PrivateUse1"). Tensors on this one hold a tensor of the processor, every
operation is done there, bit for bit, and refused as a real card refuses it where its tensors are on two devices. So
what a model spread over devices does can be tested without any, for mistakes that only several devices show.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CARD = "card"
_ATEN = torch.ops.aten
_ACROSS = (_ATEN.copy_.default, _ATEN._to_copy.default)
_INDEXED = (_ATEN.index.Tensor, _ATEN.index_put_.default, _ATEN.index_put.default)
"""A card's tensor may be indexed by places that are counted on the processor."""


class OnCard(Tensor):
    """A tensor that says it is on the card; ``elem`` is where its numbers are."""

    elem: Tensor

    @staticmethod
    def __new__(cls, elem: Tensor, device: torch.device) -> OnCard:
        found: OnCard = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, elem.shape, strides=elem.stride(), dtype=elem.dtype, device=device, requires_grad=False
        )
        found.elem = elem
        return found

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnCard({self.elem})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.elem.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        made = OnCard(self.elem.clone(), self.device).requires_grad_(self.requires_grad)
        return torch.nn.Parameter(made, self.requires_grad) if isinstance(self, torch.nn.Parameter) else made

    def tolist(self) -> Any:
        return self.elem.tolist()

    def data_ptr(self) -> int:
        return self.elem.data_ptr()

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        self.elem = value.elem  # type: ignore[attr-defined]  # of another device it has none, as on a real card

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Everywhere(TorchDispatchMode):
    """Sees tensors being made on the card as well, which no tensor of it takes part in."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    given = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
    devices = {part.device for part in given if part.dim() or isinstance(part, OnCard)}
    if func in _INDEXED and isinstance(given[0], OnCard):
        devices = {given[0].device} | {part.device for part in given[1:] if isinstance(part, OnCard)}
    if len(devices) > 1 and func not in _ACROSS:
        raise RuntimeError(f"{func} expected all tensors to be on the same device, but found {devices}.")
    target = given[0].device if func is _ATEN.copy_.default else next(iter(devices), torch.device("cpu"))
    if kwargs.get("device") is not None:
        target, kwargs = torch.device(kwargs["device"]), {**kwargs, "device": torch.device("cpu")}
    known = {id(_plain(part)): part for part in given}
    made = func(*tree_map(_plain, args), **tree_map(_plain, kwargs))
    return tree_map(lambda part: known.get(id(part), _on(part, target)), made)


def _plain(part: Any) -> Any:
    return part.elem if isinstance(part, OnCard) else part


def _on(part: Any, device: torch.device) -> Any:
    if not isinstance(part, Tensor) or device.type != CARD:
        return part
    return OnCard(part, torch.device(CARD, device.index or 0))


@cache
def _registered() -> None:
    """Once in a process: PyTorch knows one such device."""
    backend_registration._setup_privateuseone_for_python_backend(CARD)


@contextmanager
def _recurrent_on_the_processor() -> Iterator[None]:
    """Of a recurrent network cards have kernels of their own, which nothing here stands in for."""
    original = torch.nn.GRU.forward

    def forward(gru: torch.nn.GRU, inputs: Tensor) -> Any:
        if not isinstance(inputs, OnCard):
            return original(gru, inputs)
        twin = torch.nn.GRU(gru.input_size, gru.hidden_size, batch_first=True, bidirectional=gru.bidirectional)
        held = {name: parameter.to("cpu") for name, parameter in gru.named_parameters()}
        found = torch.func.functional_call(twin, held, (inputs.to("cpu"),))
        return tuple(part.to(inputs.device) for part in found)

    torch.nn.GRU.forward = forward  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.nn.GRU.forward = original  # type: ignore[method-assign]


@contextmanager
def pretend_card() -> Iterator[torch.device]:
    """The card, for the length of a with-block."""
    _registered()
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=card) begins on the processor
    try:
        # Backward passes stay in this thread: in others nothing can be made on the card.
        with _Everywhere(), torch.autograd.set_multithreading_enabled(False), _recurrent_on_the_processor():
            yield torch.device(CARD, 0)
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
