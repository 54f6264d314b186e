"""Reading the header of a GGUF file (versions 2 and 3): its keys, its tensors, and whether it is complete. No torch.

Everything is little-endian: the magic, the version, two counts, the keys with their values, the tensors with shape,
type and offset; then, from the next multiple of the alignment on, the data.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrc_core.errors import ModelError
from lrc_core.models.headers import MAX_DIMENSIONS, MAX_TENSORS, REMEDY, TensorHeader, check_name

MAX_KEYS = 100_000
MAX_STRING = 16_000_000
"""Bytes; a chat template is the longest text that files hold."""
MAX_ARRAY = 10_000_000
"""Elements of one array; the largest vocabularies have some hundred thousand."""
_MAX_KEY = 512
_MAX_KEPT = 4096
_MAX_TEXTS = 2_000_000
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufHeader:
    """Keys and tensors of a GGUF file, or of all the parts of one.

    Attributes:
        metadata: values by key; of arrays only short ones of numbers, as tuples.
        lengths: number of elements of every array.
        tensors: in the file's order; shapes as torch would report them.
    """

    metadata: Mapping[str, Any]
    lengths: Mapping[str, int]
    tensors: tuple[TensorHeader, ...]

    @property
    def architecture(self) -> str:
        """The file's own name of the architecture, e.g. ``llama``."""
        return str(self.metadata.get("general.architecture", ""))


def gguf_header(path: Path) -> GgufHeader:
    """Keys and tensors of one GGUF file, checked against the file's size.

    Raises:
        ModelError: not readable, not GGUF, of an unknown version, damaged, cut short, or with a header larger than any
            model's; names the file.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise ModelError(f"{path} is not a GGUF file.", "Choose a file that ends in .gguf.")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                size = len(data)
                header, end = _Reader(data).read()
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror}.") from error
    except (struct.error, ValueError, KeyError, OverflowError) as error:
        raise ModelError(f"The header of {path} is damaged or cut short: {error}.", REMEDY) from error
    if size < end:
        raise ModelError(f"{path} is cut short: it has {size:,} bytes where its header asks for {end:,}.", REMEDY)
    return header


class _Reader:
    """Walks through a header."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._offset = 4  # after the magic
        self._skipped = 0

    def read(self) -> tuple[GgufHeader, int]:
        version = self._scalar("I")
        if version not in (2, 3):
            raise ValueError(f"version {version} is unknown")
        n_tensors, n_keys = self._scalar("Q"), self._scalar("Q")
        if n_tensors > MAX_TENSORS or n_keys > MAX_KEYS:
            raise ValueError(f"it announces {n_tensors:,} tensors and {n_keys:,} keys")
        metadata, lengths = self._keys(n_keys)
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 2**20 or alignment % 8:
            raise ValueError(f"general.alignment is {str(alignment)[:40]}, not a multiple of 8")
        found = [self._tensor(alignment) for _ in range(n_tensors)]
        if len({tensor.name for tensor in found}) != n_tensors:
            raise ValueError("a tensor stands in it twice")
        start = -(-self._offset // alignment) * alignment
        tensors = tuple(replace(tensor, start=start + tensor.start) for tensor in found)
        return GgufHeader(metadata, lengths, tensors), max((t.start + t.bytes for t in tensors), default=self._offset)

    def _keys(self, count: int) -> tuple[dict[str, Any], dict[str, int]]:
        metadata: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        for _ in range(count):
            key = self._string(_MAX_KEY)
            if not key or key in metadata or key in lengths:
                raise ValueError(f"the key {key[:80]!r} is empty or stands in it twice")
            kind = self._scalar("I")
            if kind == _ARRAY:
                lengths[key], kept = self._array()
                if kept is not None:
                    metadata[key] = kept
            else:
                metadata[key] = self._string(MAX_STRING) if kind == _STRING else self._scalar(_type(kind))
        return metadata, lengths

    def _tensor(self, alignment: int) -> TensorHeader:
        """A tensor; its start counts from where the data begin."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._string(MAX_STRING)
        check_name(name)
        rank = self._scalar("I")
        if rank > MAX_DIMENSIONS:
            raise ValueError(f"tensor {name} has {rank:,} dimensions")
        dimensions = [self._scalar("Q") for _ in range(rank)]
        kind = GGMLQuantizationType(self._scalar("I"))
        offset = self._scalar("Q")
        block, width = GGML_QUANT_SIZES[kind]
        if dimensions and dimensions[0] % block:
            raise ValueError(f"rows of tensor {name} are no multiple of the {block} elements of a {kind.name} block")
        if offset % alignment:
            raise ValueError(f"tensor {name} does not begin at a multiple of {alignment}")
        size = math.prod(dimensions) // block * width
        # GGUF lists dimensions fastest first.
        return TensorHeader(name, tuple(reversed(dimensions)), kind.name, size, offset)

    def _scalar(self, code: str) -> Any:
        layout = "<" + code
        value = struct.unpack_from(layout, self._data, self._offset)[0]
        self._offset += struct.calcsize(layout)
        return value

    def _length(self, width: int, most: int) -> int:
        count: int = self._scalar("Q")
        if count * width > len(self._data) - self._offset:
            raise ValueError("it announces more data than the file holds")
        if count > most:
            raise ValueError(f"a text or array of {count:,} is longer than any model's")
        return count

    def _string(self, most: int) -> str:
        count = self._length(1, most)
        self._offset += count
        return self._data[self._offset - count : self._offset].decode("utf-8", errors="replace")

    def _array(self) -> tuple[int, tuple[Any, ...] | None]:
        """Its length, and its elements where they are few numbers."""
        kind = self._scalar("I")
        if kind == _ARRAY:
            raise ValueError("arrays of arrays are unknown")
        if kind == _STRING:
            return self._skip_strings(), None
        code = _type(kind)
        width = struct.calcsize("<" + code)
        count = self._length(width, MAX_ARRAY)
        values = struct.unpack_from(f"<{count}{code}", self._data, self._offset) if count <= _MAX_KEPT else None
        self._offset += count * width
        return count, values

    def _skip_strings(self) -> int:
        count = self._length(8, MAX_ARRAY)
        self._skipped += count  # each is a step, so many arrays must not be long ones
        if self._skipped > _MAX_TEXTS:
            raise ValueError(f"its arrays hold more than {_MAX_TEXTS:,} texts")
        data, offset, read = self._data, self._offset, struct.Struct("<Q").unpack_from
        for _ in range(count):
            (length,) = read(data, offset)
            offset += 8 + length
            if length > MAX_STRING or offset > len(data):
                raise ValueError("it announces more data than the file holds")
        self._offset = offset
        return count


def _type(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"values of type {kind} are unknown")
    return _SCALARS[kind]
