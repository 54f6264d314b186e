"""Rotary frequencies that older files store: they must be those that the configuration gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lrc_core.errors import ModelError
from lrc_core.models.headers import TensorHeader
from lrc_core.models.matrix_files import read_matrix
from lrc_core.models.weights.shards import weight_files

_TOLERANCE = 0.01
"""Relative; bfloat16 keeps three digits."""


def check_rotary(model: Any, folder: Path, unused: Sequence[TensorHeader]) -> None:
    """Refuse stored rotary frequencies that are neither the configuration's nor unscaled ones of its base.

    Older versions of transformers scaled positions instead of frequencies, and stored the frequencies as they were.

    Raises:
        ModelError: names the tensor.
    """
    stored = [tensor for tensor in unused if tensor.name.endswith("rotary_emb.inv_freq") and tensor.start]
    known = list(_known(model)) if stored else []
    if not known:
        return
    for tensor in stored:
        values = _values(folder, tensor)
        if values is not None and not any(_close(values, frequencies) for frequencies in known):
            raise ModelError(
                f"{tensor.name} in {folder} holds rotary frequencies that are not those of config.json.",
                "Put the scaling that the model was trained with into rope_parameters of config.json.",
            )


def _known(model: Any) -> Iterator[NDArray[np.float32]]:
    for module in model.modules():
        if "inv_freq" not in dict(module.named_buffers(recurse=False)):
            continue
        try:
            frequencies = type(module)(config=model.config.get_text_config()).inv_freq
        except Exception:  # of another make; nothing to compare with
            continue
        yield frequencies.float().numpy()
        yield _unscaled(model, len(frequencies))


def _unscaled(model: Any, count: int) -> NDArray[np.float32]:
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    base = float(rope.get("rope_theta", 10_000.0))
    return (base ** -(torch.arange(count, dtype=torch.float64) / count)).float().numpy()


def _values(folder: Path, tensor: TensorHeader) -> NDArray[np.float32] | None:
    flat = TensorHeader(tensor.name, (1, tensor.numel), tensor.dtype, tensor.bytes, tensor.start)
    from lrc_core.models.headers import safetensors_header

    for file in weight_files(folder):
        if any(other.name == tensor.name for other in safetensors_header(file)):
            return read_matrix(file, flat, np.empty(tensor.numel, np.float32))[0].copy()
    return None


def _close(values: NDArray[np.float32], frequencies: NDArray[np.float32]) -> bool:
    return values.shape == frequencies.shape and bool(np.allclose(values, frequencies, rtol=_TOLERANCE, atol=0))
