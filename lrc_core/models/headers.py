"""Reading what a safetensors file says of itself, without its weights: names, shapes, sizes, and if it is whole.

A file is eight bytes of header length, JSON, and the data. No torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc_core.errors import ModelError

REMEDY = "Download or copy the file again."
MAX_TENSORS = 100_000
"""Of one file; the largest public models have about as many in all."""
MAX_NAME = 512
MAX_DIMENSIONS = 8
_MAX_HEADER = 25_000_000
_MAX_SIZE = 2**63
_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
FLOAT_TYPES = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True)
class TensorHeader:
    """One tensor of a weight file.

    Attributes:
        shape: as torch would report it, [out, in] for a linear.
        dtype: the file format's name of the element type.
        bytes: size in the file.
        start: where its data begins in the file; 0 where that is not known.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    start: int = 0

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def safetensors_header(path: Path) -> tuple[TensorHeader, ...]:
    """Tensors of a safetensors file, checked against the file's size.

    Raises:
        ModelError: not readable, not safetensors, damaged, or cut short; names the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > size - 8:
                raise ModelError(f"{path} is not a safetensors file, or its beginning is damaged.", REMEDY)
            if length > _MAX_HEADER:
                raise ModelError(f"The header of {path} is larger than {_MAX_HEADER:,} bytes.", REMEDY)
            header = json.loads(stream.read(length), object_pairs_hook=_without_repeats)
        if not isinstance(header, dict):
            raise ValueError("the header is not a table")
        tensors, end = parse_safetensors_header(header, 8 + length)
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror}.") from error
    except RecursionError as error:
        raise ModelError(f"The header of {path} is damaged: it is nested too deeply.", REMEDY) from error
    except ValueError as error:
        raise ModelError(f"The header of {path} is damaged: {error}.", REMEDY) from error
    if size != 8 + length + end:
        raise ModelError(
            f"{path} is cut short or damaged: it has {size:,} bytes where its header asks for {8 + length + end:,}.",
            REMEDY,
        )
    return tensors


def parse_safetensors_header(header: Mapping[str, Any], data_at: int = 0) -> tuple[tuple[TensorHeader, ...], int]:
    """Tensors of a parsed header, and the length of the data it describes.

    Args:
        data_at: where the data begins in the file, behind the header.

    Raises:
        ValueError: the header contradicts itself, or the data would have holes or lie over each other.
    """
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if len(entries) > MAX_TENSORS:
        raise ValueError(f"it lists more than {MAX_TENSORS:,} tensors")
    tensors = tuple(_tensor(name, entry, data_at) for name, entry in entries.items())
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.bytes)):
        if tensor.start != data_at + end:
            raise ValueError(f"the data of tensor {tensor.name} do not begin where the tensor before ends")
        end += tensor.bytes
    return tensors, end


def check_name(name: str) -> None:
    """Refuse a tensor's name that no model has.

    Raises:
        ValueError: empty, too long, or with characters that cannot be printed.
    """
    if not 0 < len(name) <= MAX_NAME:
        raise ValueError(f"a tensor's name has {len(name):,} characters")
    if not name.isprintable():
        raise ValueError(f"the name {name[:80]!r} cannot be printed")


def _tensor(name: str, entry: Any, data_at: int) -> TensorHeader:
    check_name(name)
    if not isinstance(entry, dict):
        raise ValueError(f"tensor {name} is not described by a table")
    offsets, shape = _numbers(entry.get("data_offsets"), name, 2), _numbers(entry.get("shape"), name, MAX_DIMENSIONS)
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"tensor {name} is of the unknown type {str(dtype)[:40]!r}")
    if len(offsets) != 2 or offsets[1] < offsets[0]:
        raise ValueError(f"tensor {name} has impossible offsets")
    found = TensorHeader(name, tuple(shape), dtype, offsets[1] - offsets[0], data_at + offsets[0])
    if found.bytes * 8 != _BITS[dtype] * found.numel:
        raise ValueError(f"tensor {name} has impossible offsets: its shape asks for another size")
    return found


def _numbers(value: Any, name: str, most: int) -> Sequence[int]:
    """A list of sizes; JSON also knows true, 1.5, -1 and Infinity."""
    if not isinstance(value, list) or len(value) > most or not all(type(item) is int for item in value):
        raise ValueError(f"shape or offsets of tensor {name} are not lists of whole numbers")
    if not all(0 <= item < _MAX_SIZE for item in value):
        raise ValueError(f"shape or offsets of tensor {name} are out of range")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands in it twice")
    return table
