"""Models that are quantised already, by what their configuration says or how their tensors are named. No torch.

Formats are recognised by the tensors that each stores beside or instead of a weight, whether or not config.json tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lrc_core.errors import ModelError
from lrc_core.models.headers import FLOAT_TYPES, TensorHeader

REMEDY = "Load the full-precision original of the model."
_SETTINGS = ("quantization_config", "compression_config", "quantization", "quant_config")
"""Entries of config.json: transformers and most others; older compressed-tensors; MLX; MPT and AWQ."""
_PACKED = (
    ("GPTQ", (".qweight", ".g_idx")),
    ("GPTQ or AWQ", (".qweight", ".scales")),
    ("GPTQ or AWQ", (".qweight",)),
    ("EXL2", (".q_weight", ".q_scale")),
    ("EXL3", (".trellis",)),
    ("bitsandbytes 4-bit", (".weight.quant_map",)),
    ("bitsandbytes 4-bit", (".weight.absmax",)),
    ("bitsandbytes 8-bit", (".SCB",)),
    ("bitsandbytes 8-bit", (".weight.SCB",)),
    ("compressed-tensors", (".weight_packed",)),
    ("compressed-tensors", (".weight_zero_point",)),
    ("MLX", (".scales", ".biases")),
    ("MXFP4", ("_blocks", "_scales")),
    ("NVFP4", (".weight_scale_2",)),
    ("FP8", (".weight_scale_inv",)),
    ("8-bit with scales", (".weight_scale",)),
    ("8-bit with scales", (".input_scale",)),
    ("AQLM", (".codes", ".codebooks")),
    ("QuIP#", (".Qidxs",)),
    ("HQQ", (".W_q",)),
    ("quanto", (".weight._data", ".weight._scale")),
    ("torchao", (".weight:qdata",)),
    ("VPTQ", (".centroids.weight", ".indices")),
)
"""Endings that stand together on one module, from the most telling to the least."""
_WEIGHT = re.compile(r"(^|\.)(weight|\w+_proj|[qkvowW]\d?)$")
_SMALL_FLOATS = ("F8_", "F6_", "F4")


def check_settings(config: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration that says its weights are quantised, its text model's included.

    Raises:
        ModelError: names the method.
    """
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, Mapping) else {}):
        for entry in _SETTINGS:
            if settings := part.get(entry):
                method = settings.get("quant_method", "") if isinstance(settings, Mapping) else ""
                raise ModelError(f"{where} is quantised already ({str(method)[:60] or entry}).", REMEDY)


def check_packed(tensors: Iterable[TensorHeader], where: str) -> None:
    """Refuse tensors that are packed weights, scales of such, or weights of a type that is no float of 16 bits or more.

    Raises:
        ModelError: names the tensor and, where it can be told, the format.
    """
    tensors = tuple(tensors)
    names = {tensor.name for tensor in tensors}
    for method, (first, *others) in _PACKED:
        for name in sorted(name for name in names if name.endswith(first)):
            if all(name.removesuffix(first) + other in names for other in others):
                raise ModelError(f"{where} is quantised already ({method}): it holds {name}.", REMEDY)
    for tensor in tensors:
        integer = tensor.dtype not in FLOAT_TYPES and len(tensor.shape) > 1 and _WEIGHT.search(tensor.name)
        if integer or tensor.dtype.startswith(_SMALL_FLOATS):
            raise ModelError(f"{where} is quantised already: {tensor.name} is stored as {tensor.dtype}.", REMEDY)
