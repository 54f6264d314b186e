"""Reading what a weight file says of itself, without its weights: names, shapes, sizes, and whether it is complete.

Formats: safetensors (eight bytes of header length, JSON, data) and GGUF versions 2 and 3. No torch.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc_core.errors import ModelError

_REMEDY = "Download or copy the file again."
_MAX_HEADER = 100_000_000
_SAFETENSORS_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
FLOAT_TYPES = frozenset({"F64", "F32", "F16", "BF16"})
_GGUF_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_GGUF_STRING, _GGUF_ARRAY = 8, 9


@dataclass(frozen=True)
class TensorHeader:
    """One tensor of a weight file.

    Attributes:
        shape: as torch would report it, [out, in] for a linear.
        dtype: the file format's name of the element type.
        bytes: size in the file.
        start: where its data begins in the file; 0 where that is not known (only safetensors say).
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


@dataclass(frozen=True)
class GgufHeader:
    """Metadata and tensors of a GGUF file. Arrays are left out of the metadata; their lengths are in ``lengths``."""

    metadata: Mapping[str, Any]
    lengths: Mapping[str, int]
    tensors: tuple[TensorHeader, ...]

    @property
    def architecture(self) -> str:
        """The file's own name of the architecture, e.g. ``llama``."""
        return str(self.metadata.get("general.architecture", ""))


def safetensors_header(path: Path) -> tuple[TensorHeader, ...]:
    """Tensors of a safetensors file, checked against the file's size.

    Raises:
        ModelError: not readable, not safetensors, damaged, or cut short; names the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(_MAX_HEADER, size - 8):
                raise ModelError(f"{path} is not a safetensors file, or its beginning is damaged.", _REMEDY)
            header = json.loads(stream.read(length))
        if not isinstance(header, dict):
            raise ValueError("the header is not a table")
        tensors, end = parse_safetensors_header(header, 8 + length)
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The header of {path} is damaged: {error}.", _REMEDY) from error
    if size != 8 + length + end:
        raise ModelError(
            f"{path} is cut short or damaged: it has {size:,} bytes where its header asks for {8 + length + end:,}.",
            _REMEDY,
        )
    return tensors


def parse_safetensors_header(header: Mapping[str, Any], data_at: int = 0) -> tuple[tuple[TensorHeader, ...], int]:
    """Tensors of a parsed header, and the length of the data it describes.

    Args:
        header: the JSON of the header.
        data_at: where the data begins in the file, behind the header.

    Raises:
        ValueError, KeyError, TypeError: the header contradicts itself.
    """
    tensors = []
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, stop = (int(offset) for offset in entry["data_offsets"])
        shape = tuple(int(size) for size in entry["shape"])
        tensor = TensorHeader(name, shape, str(entry["dtype"]), stop - start, data_at + start)
        width = _SAFETENSORS_BYTES.get(tensor.dtype)
        if start < 0 or stop < start or (width is not None and tensor.bytes != width * tensor.numel):
            raise ValueError(f"tensor {name} has impossible offsets")
        tensors.append(tensor)
        end = max(end, stop)
    return tuple(tensors), end


def gguf_header(path: Path) -> GgufHeader:
    """Metadata and tensors of a GGUF file, checked against the file's size.

    Raises:
        ModelError: not readable, not GGUF, of an unknown version, damaged, or cut short; names the file.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise ModelError(f"{path} is not a GGUF file.", "Choose a file that ends in .gguf.")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                size = len(data)
                header, end = _GgufReader(data).read()
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror}.") from error
    except (struct.error, ValueError, KeyError, OverflowError) as error:
        raise ModelError(f"The header of {path} is damaged or cut short: {error}.", _REMEDY) from error
    if size < end:
        raise ModelError(f"{path} is cut short: it has {size:,} bytes where its header asks for {end:,}.", _REMEDY)
    return header


class _GgufReader:
    """Walks through a GGUF header. Everything is little-endian."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._offset = 4  # after the magic

    def read(self) -> tuple[GgufHeader, int]:
        version = self._scalar("I")
        if version not in (2, 3):
            raise ValueError(f"version {version} is unknown")
        n_tensors, n_keys = self._scalar("Q"), self._scalar("Q")
        metadata: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        for _ in range(n_keys):
            key = self._string()
            kind = self._scalar("I")
            if kind == _GGUF_ARRAY:
                lengths[key] = self._skip_array()
            else:
                metadata[key] = self._string() if kind == _GGUF_STRING else self._scalar(_GGUF_SCALARS[kind])
        tensors, data_end = [], 0
        for _ in range(n_tensors):
            tensor, offset = self._tensor()
            tensors.append(tensor)
            data_end = max(data_end, offset + tensor.bytes)
        alignment = int(metadata.get("general.alignment", 32))
        start = -(-self._offset // alignment) * alignment
        return GgufHeader(metadata, lengths, tuple(tensors)), start + data_end

    def _tensor(self) -> tuple[TensorHeader, int]:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._string()
        dimensions = [self._scalar("Q") for _ in range(self._scalar("I"))]
        kind = GGMLQuantizationType(self._scalar("I"))
        offset = self._scalar("Q")
        block, width = GGML_QUANT_SIZES[kind]
        size = math.prod(dimensions) // block * width
        # GGUF lists dimensions fastest first.
        return TensorHeader(name, tuple(reversed(dimensions)), kind.name, size), offset

    def _scalar(self, code: str) -> Any:
        layout = "<" + code
        value = struct.unpack_from(layout, self._data, self._offset)[0]
        self._offset += struct.calcsize(layout)
        return value

    def _length(self, width: int) -> int:
        count: int = self._scalar("Q")
        if count * width > len(self._data) - self._offset:
            raise ValueError("it announces more data than the file holds")
        return count

    def _string(self) -> str:
        count = self._length(1)
        self._offset += count
        return self._data[self._offset - count : self._offset].decode("utf-8", errors="replace")

    def _skip_array(self) -> int:
        kind = self._scalar("I")
        if kind == _GGUF_ARRAY:
            raise ValueError("arrays of arrays are unknown")
        if kind == _GGUF_STRING:
            count = self._length(8)
            for _ in range(count):
                length = self._length(1)  # reads, and thereby moves the offset
                self._offset += length
            return count
        width = struct.calcsize("<" + _GGUF_SCALARS[kind])
        count = self._length(width)
        self._offset += count * width
        return count
