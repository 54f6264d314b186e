"""The parts of a GGUF file that was split (NAME-00001-of-00003.gguf), found and read as one. No torch."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path

from lrc_core.errors import ModelError
from lrc_core.models.gguf.header import GgufHeader, gguf_header

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
_MOST_PARTS = 1000
_MOST_FLOATS = 65_536


def gguf_parts(path: Path) -> tuple[Path, ...]:
    """All parts of the file that ``path`` is one part of, in order; the file alone where it was not split.

    Raises:
        ModelError: a part is missing, or the file says that it is a part and its name does not.
    """
    match = _PART.fullmatch(path.stem)
    if match is None:
        count = gguf_header(path).metadata.get("split.count", 0)
        if isinstance(count, int) and count > 1:
            raise ModelError(
                f"{path} is one of {count} parts of a split GGUF file, and its name does not say which.",
                f"Name the parts NAME-00001-of-{count:05}.gguf and so on, as they were made, and keep them together.",
            )
        return (path,)
    count = int(match["count"])
    if not 0 < int(match["number"]) <= count <= _MOST_PARTS:
        raise ModelError(f"{path.name} cannot be a part of a split GGUF file.", "Give it a name without numbers.")
    parts = tuple(
        path.with_name(f"{match['stem']}-{number:05}-of-{count:05}{path.suffix}") for number in range(1, count + 1)
    )
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise ModelError(
            f"{path.name} is one of {count} parts of a split GGUF file, and {missing[0]} is missing"
            f" ({len(missing)} of them are).",
            f"Put all {count} parts into {path.parent}.",
        )
    return parts


def whole_header(path: Path) -> GgufHeader:
    """Keys and tensors of a GGUF file with all its parts.

    Raises:
        ModelError: a part is missing, damaged, or belongs to another file.
    """
    return _joined(gguf_parts(path))


def read_floats(path: Path, name: str) -> tuple[float, ...] | None:
    """Elements of a small float32 tensor of a GGUF file or one of its parts; None where there is none of that name.

    Raises:
        ModelError: it is of another type, large, or cannot be read.
    """
    for part in gguf_parts(path):
        tensor = next((tensor for tensor in gguf_header(part).tensors if tensor.name == name), None)
        if tensor is None:
            continue
        if tensor.dtype != "F32" or tensor.numel > _MOST_FLOATS:
            raise ModelError(f"{name} in {part} is not a short list of float32.", "Download the file again.")
        try:
            with part.open("rb") as file:
                file.seek(tensor.start)
                return struct.unpack(f"<{tensor.numel}f", file.read(tensor.bytes))
        except (OSError, struct.error) as error:
            raise ModelError(f"Cannot read {name} in {part}: {error}.", "Download the file again.") from error
    return None


def stem_of(path: Path) -> str:
    """The file's name without its ending, and without the number of the part."""
    match = _PART.fullmatch(path.stem)
    return match["stem"] if match else path.stem


def _joined(parts: tuple[Path, ...]) -> GgufHeader:
    headers = [gguf_header(part) for part in parts]
    first = headers[0]
    if len(parts) == 1 and "split.count" not in first.metadata:
        return first
    for number, (part, header) in enumerate(zip(parts, headers, strict=True)):
        _check_part(part, header, number, len(parts))
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    expected = first.metadata.get("split.tensors.count", len(tensors))
    if expected != len(tensors) or len({tensor.name for tensor in tensors}) != len(tensors):
        raise ModelError(
            f"The parts of {parts[0].name} hold {len(tensors)} tensors, and its header promises {expected}.",
            "They are of different files; download all parts again.",
        )
    return replace(first, tensors=tensors)


def _check_part(path: Path, header: GgufHeader, number: int, count: int) -> None:
    said = (header.metadata.get("split.no", number), header.metadata.get("split.count", count))
    if said != (number, count):
        raise ModelError(
            f"{path.name} calls itself part {said[0]} (from 0) of {said[1]}, and its name says {number} of {count}.",
            "It was renamed or belongs to another file; download all parts again.",
        )
    others = sorted(key for key in header.metadata if not key.startswith(("split.", "general.")))
    if number and others:
        raise ModelError(
            f"{path.name} holds keys of its own ({others[0]}), which only the first part of a split file does.",
            "It is no part of that file; download all parts again.",
        )
