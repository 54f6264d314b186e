"""Where hidden states wait for their block: in main memory, or in a mapped file where they take too much of it."""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor, nn

from lrc_core.files import disk_errors
from lrc_core.models.onload.residence import residence_of
from lrc_core.models.resources import cpu_memory_available
from lrc_core.paths import require_cache

_SHARE = 0.1
"""Of the free memory that may be taken."""
_ALIGNED = 64  # bytes: as torch's own memory is


class Shelf:
    """Room for tensors that come one by one and are as large together as is known from the start.

    Of a model that is whole they stay where they are.

    Args:
        model: what they go through.
        size: bytes of all of them.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        self._moves = residence_of(model) is not None
        self._mapped: Tensor | None = None
        self._used = 0
        if self._moves and size > _SHARE * cpu_memory_available():
            self._mapped = _mapped(size)

    def put(self, tensor: Tensor) -> Tensor:
        """The same values where they may wait; on the CPU if the model's blocks come and go."""
        if not self._moves:
            return tensor
        size = tensor.numel() * tensor.element_size()
        if self._mapped is None or self._used + size > len(self._mapped):
            return tensor.cpu()
        place = self._mapped[self._used : self._used + size].view(tensor.dtype).view(tensor.shape)
        self._used += -(-size // _ALIGNED) * _ALIGNED
        return place.copy_(tensor)


def _mapped(size: int) -> Tensor:
    """Bytes of a file that goes when nobody looks at it any more.

    Raises:
        ResourceError: the disk is full.
    """
    folder = require_cache()
    with disk_errors(folder), tempfile.NamedTemporaryFile(dir=folder, prefix="states-") as file:
        file.truncate(size)
        return torch.from_file(file.name, shared=True, size=size, dtype=torch.uint8)
