"""A model from its files without its blocks' weights, which are brought in when they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn

from lrc_core.errors import ModelError
from lrc_core.models.onload.residence import Residence, settle
from lrc_core.models.onload.tensor_places import WHOLE, Place, places_of


def open_model(folder: Path, *, trust: bool, stored: torch.dtype, device: torch.device, dtype: torch.dtype) -> Any:
    """The model with everything in its place but the weights of its blocks.

    Args:
        folder: holds config.json and safetensors files.
        trust: the model's own code may run.
        stored: type of most of the weights; the others are converted to it first, as transformers' loader does.
        device: where it goes.
        dtype: in which it runs.

    Raises:
        ModelError: its files cannot be read tensor by tensor, see
            :func:`~lrc_core.models.onload.tensor_places.places_of`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust, local_files_only=True)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=stored, trust_remote_code=trust)
    model.tie_weights()
    if getattr(model, "_keep_in_fp32_modules", None) or getattr(model, "_keep_in_fp32_modules_strict", None):
        raise ModelError(f"{type(model).__name__} keeps some of its parts in float32, block after block or not.", WHOLE)
    if model.can_generate() and (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    places = places_of(model, folder)
    residence = Residence(model, places, stored, device, dtype)
    _furnish(model, places, residence)
    settle(model, residence)
    return model


def _furnish(model: nn.Module, places: Mapping[str, Place], residence: Residence) -> None:
    """Read what stands outside the blocks; of what is in them only the precision is set."""
    shared: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}  # the empty one is kept, so that its id stays its own
    for path, module in model.named_modules():
        for leaf, parameter in module._parameters.items():
            if parameter is None:
                continue
            name = f"{path}.{leaf}"
            if name.startswith(f"{residence.prefix}."):
                parameter.data = parameter.data.to(residence.dtype)
            else:
                if id(parameter) not in shared:
                    found = residence.read(name).to(device=residence.device, dtype=residence.dtype)
                    shared[id(parameter)] = parameter, nn.Parameter(found, requires_grad=False)
                module._parameters[leaf] = shared[id(parameter)][1]
        for leaf, buffer in module.named_buffers(recurse=False):
            place = places.get(f"{path}.{leaf}".lstrip("."))
            module._buffers[leaf] = (buffer if place is None else place.read()).to(residence.device)
