"""One matrix out of a safetensors file into memory of the caller's, a few megabytes at a time. No torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrc_core.errors import ModelError, NumericalError
from lrc_core.models.headers import TensorHeader

_PANEL = 2**20  # bytes read at once: what is needed beside the matrix stays a few megabytes
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def read_matrix(path: Path, tensor: TensorHeader, buffer: NDArray[np.float32]) -> NDArray[np.float32]:
    """Read a stored matrix as float32.

    The file is read, not mapped: mapped pages would count as this process's memory.

    Args:
        path: a safetensors file.
        tensor: a two-dimensional tensor of it, with its place.
        buffer: [at least rows * columns]; overwritten.

    Returns:
        [rows, columns] as stored, a view of ``buffer``.

    Raises:
        ModelError: the file cannot be read, is cut short, or the element type is not a float.
        NumericalError: an element is NaN or infinite; names the tensor.
    """
    if tensor.dtype not in _TYPES:
        raise ModelError(f"{tensor.name} in {path} is stored as {tensor.dtype}.", "Use a full-precision model.")
    flat = buffer[: tensor.numel]
    kind = np.dtype(_TYPES[tensor.dtype])
    step = max(1, _PANEL // kind.itemsize)
    try:
        with path.open("rb") as file:
            file.seek(tensor.start)
            for first in range(0, tensor.numel, step):
                part = flat[first : first + step]
                data = file.read(kind.itemsize * len(part))
                if len(data) != kind.itemsize * len(part):
                    raise ModelError(f"{path} is cut short within {tensor.name}.", "Download or copy the file again.")
                _widen(np.frombuffer(data, kind), tensor.dtype, part)
                if not np.isfinite(part).all():
                    raise NumericalError(
                        f"The weights of {tensor.name} in {path} are not all finite.",
                        "The model is damaged; download or save it again.",
                    )
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror or error}.") from error
    rows, columns = tensor.shape
    return flat.reshape(rows, columns)


def _widen(stored: NDArray[np.generic], dtype: str, into: NDArray[np.float32]) -> None:
    """Convert into float32. numpy knows no bfloat16: it is the upper half of a float32."""
    if dtype == "BF16":
        np.left_shift(stored, 16, out=into.view(np.uint32), dtype=np.uint32, casting="unsafe")
    else:
        into[:] = stored
