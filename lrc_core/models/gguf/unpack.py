"""From the tensors of a GGUF file to a model: transformers' names and layouts, every tensor accounted for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrc_core.errors import CancelledError, ModelError
from lrc_core.models.gguf.architectures import config_of
from lrc_core.models.gguf.header import GgufHeader
from lrc_core.models.gguf.keys import REMEDY
from lrc_core.models.gguf.rope import TENSORS
from lrc_core.models.gguf.split_files import gguf_parts, read_floats, whole_header
from lrc_core.models.headers import TensorHeader
from lrc_core.types import OnProgress, Progress, ShouldStop


def empty_model(path: Path) -> Any:
    """The model that a GGUF file describes, its parameters on the meta device.

    Raises:
        ModelError: see :func:`~lrc_core.models.gguf.architectures.config_of`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = config_of(whole_header(path), lambda name: read_floats(path, name), path.name)
    config = AutoConfig.for_model(**settings)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def target_names(model: Any, header: GgufHeader) -> dict[str, str]:
    """The model's own name of every tensor of the file.

    Raises:
        ModelError: a tensor belongs to nothing in the model, a parameter has no tensor, or their sizes differ.
    """
    names = _names(model, _processor(model, header), header)
    _check_targets(model, header.tensors, names)
    return names


def filled_model(path: Path, dtype: torch.dtype, on_progress: OnProgress, should_stop: ShouldStop) -> Any:
    """The model of a GGUF file with its weights unpacked, on the CPU.

    Args:
        path: the file, or any part of it.

    Raises:
        ModelError: a key, tensor or part that is missing, unknown or damaged.
    """
    header, model = whole_header(path), empty_model(path)
    names, processor = target_names(model, header), _processor(model, header)
    unpacked: dict[str, Tensor] = {}
    done = 0
    for part in gguf_parts(path):
        for name, weights in _arrays(part):
            if name not in TENSORS:
                _place(processor, name, weights, names, unpacked, dtype)
            done += 1
            on_progress(Progress(f"unpacking {path.name}", done, len(header.tensors)))
            if should_stop():
                raise CancelledError(f"Stopped while unpacking {path.name}.")
    _check_shapes(model, unpacked, path.name)
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in unpacked.items()}, strict=False, assign=True)
    model.tie_weights()
    return model


def _arrays(part: Path) -> Any:
    """Name and float32 elements of every tensor of one file."""
    from gguf import GGUFReader, dequantize

    for tensor in GGUFReader(part).tensors:
        yield tensor.name, dequantize(tensor.data, tensor.tensor_type)


def _processor(model: Any, header: GgufHeader) -> Any:
    """What undoes llama.cpp's changes of layout."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

    return TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config=model.config.to_dict())


def _names(model: Any, processor: Any, header: GgufHeader) -> dict[str, str]:
    from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map

    try:
        known: Mapping[str, str] = get_gguf_hf_weights_map(model, processor, model_type=header.architecture)
    except NotImplementedError as error:
        raise ModelError(
            f"The GGUF architecture {header.architecture!r} cannot be unpacked: {error}", REMEDY
        ) from error
    found = {}
    for tensor in header.tensors:
        if tensor.name in TENSORS:
            continue  # in the configuration already
        # The stacked weights of experts are known without their ending.
        name = known.get(tensor.name) or known.get(tensor.name.removesuffix(".weight"))
        if name is None:
            raise ModelError(
                f"The tensor {tensor.name} of the file belongs to nothing in {type(model).__name__} "
                f"({header.architecture}), and without it the model would be another one.",
                REMEDY,
            )
        found[tensor.name] = name
    return found


def _check_targets(model: Any, tensors: Sequence[TensorHeader], names: Mapping[str, str]) -> None:
    given: dict[str, int] = {}
    for tensor in tensors:
        if tensor.name in names:
            given[names[tensor.name]] = given.get(names[tensor.name], 0) + tensor.numel
    wanted = model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", {}))
    for name, parameter in wanted.items():
        if name not in given:
            if name in tied:
                continue
            raise ModelError(
                f"The file has no tensor for {name} of {type(model).__name__}.", "It is incomplete; download it again."
            )
        if given[name] != parameter.numel():
            raise ModelError(
                f"The tensor for {name} has {given[name]:,} elements, and the file's keys ask for "
                f"{parameter.numel():,} {tuple(parameter.shape)}.",
                "Keys and tensors are of different models; download the file again.",
            )


def _place(
    processor: Any,
    name: str,
    weights: np.ndarray[Any, Any],
    names: Mapping[str, str],
    unpacked: dict[str, Tensor],
    dtype: torch.dtype,
) -> None:
    """Put a tensor where it belongs; processors write stacked ones themselves."""
    result = processor.process(
        weights=weights, name=name, tensor_key_mapping=_Lenient(names), parsed_parameters={"tensors": unpacked}
    )
    if result.name is not None:
        unpacked[names[result.name]] = torch.from_numpy(np.array(result.weights)).to(dtype)


class _Lenient(dict[str, str]):
    """Names of tensors with and without ``.weight``; processors of experts ask without."""

    def __missing__(self, name: str) -> str:
        return self[f"{name}.weight"] if not name.endswith(".weight") else super().__missing__(name)  # type: ignore[misc]


def _check_shapes(model: Any, unpacked: Mapping[str, Tensor], where: str) -> None:
    for name, parameter in model.state_dict().items():
        if name in unpacked and unpacked[name].shape != parameter.shape:
            raise ModelError(
                f"{where}: {name} is unpacked as {tuple(unpacked[name].shape)} instead of {tuple(parameter.shape)}.",
                REMEDY,
            )
