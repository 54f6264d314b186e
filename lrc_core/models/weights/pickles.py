"""What pickled weights hold, without their data and without running anything that they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrc_core.errors import ModelError
from lrc_core.models.headers import TensorHeader
from lrc_core.models.weights.shards import pickle_files

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def pickled_tensors(folder: Path) -> tuple[TensorHeader, ...]:
    """Names, shapes and types of a folder's pickled weights.

    Raises:
        ModelError: a file is missing, damaged, holds a tensor twice, or wants more than tensors to be made.
    """
    found: dict[str, TensorHeader] = {}
    for path in pickle_files(folder):
        content = _content(path)
        if not isinstance(content, dict):
            raise ModelError(f"{path} holds no table of tensors.", "Use a safetensors version of the model.")
        for name, tensor in content.items():
            if not isinstance(tensor, Tensor):
                continue
            if name in found:
                raise ModelError(f"{name} stands in two of the files in {folder}.", "Download the model again.")
            kind = _NAMES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch.").upper())
            found[str(name)] = TensorHeader(
                str(name), tuple(tensor.shape), kind, tensor.numel() * tensor.element_size()
            )
    return tuple(found.values())


def _content(path: Path) -> Any:
    try:
        return torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # zip, pickle and torch raise many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"Cannot read {path}: {reason}", "Use a safetensors version of the model.") from error
