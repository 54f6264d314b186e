"""The types that a GGUF file's matrices are packed in. No torch."""

from __future__ import annotations

from lrc_core.errors import ModelError
from lrc_core.models.gguf.header import GgufHeader

_FLOATS = ("F32", "F16", "BF16", "F64")


def packed_types(header: GgufHeader) -> str:
    """Types of packed tensors, most parameters first: ``Q4_K, Q6_K``; "" where none is packed."""
    sizes: dict[str, int] = {}
    for tensor in header.tensors:
        if tensor.dtype not in _FLOATS:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel
    return ", ".join(sorted(sizes, key=lambda name: -sizes[name]))


def bits_of(packed: str) -> float:
    """Bits a weight of the first of some packed types, its scales included: ``Q4_1`` -> 5."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[packed.split(", ")[0]]]
    return float(8 * size / block)


def stored_bytes(header: GgufHeader) -> tuple[int, int]:
    """Bytes of the matrices of the blocks, and of all tensors, as they lie in the file."""
    blocks = (tensor for tensor in header.tensors if tensor.name.startswith("blk.") and len(tensor.shape) > 1)
    return sum(tensor.bytes for tensor in blocks), sum(tensor.bytes for tensor in header.tensors)


def check_types(header: GgufHeader, where: str) -> None:
    """Refuse tensors that cannot be unpacked: integers, and packings that the gguf package does not know.

    Raises:
        ModelError: names the tensor and its type.
    """
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import _type_traits

    known = {"F32", "F16", *(GGMLQuantizationType(kind).name for kind in _type_traits)}
    for tensor in header.tensors:
        if tensor.dtype not in known:
            raise ModelError(
                f"{where} stores {tensor.name} as {tensor.dtype}, which cannot be unpacked.",
                "Use a file with another quantisation (Q8_0 or Q4_K, for instance), or the model's safetensors.",
            )
