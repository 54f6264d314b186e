"""Where and in which precision a model runs."""

from __future__ import annotations

import psutil
import torch
from torch import nn

from lrc_core.errors import ResourceError
from lrc_core.models.resources import cpu_has_bf16, cpu_memory_available

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` takes cuda, then mps, then the CPU.

    Raises:
        ResourceError: unknown name, or a device that this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ResourceError(f"There is no device {name!r}.", "Choose auto, cuda, mps or cpu.") from None
    present = {
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if not present.get(device.type, False):
        raise ResourceError(f"This machine has no usable device {name!r}.", "Choose auto or cpu.")
    return device


def pick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, float32 elsewhere."""
    if device.type == "cuda":
        # Emulated bfloat16 on older GPUs is slower than float32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "mps" or cpu_has_bf16()
    return torch.bfloat16 if native else torch.float32


def named_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of that name; ``auto`` is :func:`pick_dtype`.

    Raises:
        ResourceError: unknown name.
    """
    if name == "auto":
        return pick_dtype(device)
    if name not in DTYPES:
        raise ResourceError(f"There is no precision {name!r}.", f"Choose auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def memory_available(device: torch.device) -> int:
    """Free bytes on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return cpu_memory_available()


def memory_in_use(device: torch.device) -> int:
    """Bytes that this process holds now: on GPUs what their allocators have taken, on the CPU its resident set."""
    if device.type == "cuda":
        return sum(int(torch.cuda.memory_reserved(number)) for number in range(torch.cuda.device_count()))
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    return int(psutil.Process().memory_info().rss)


def devices_of(model: nn.Module) -> list[torch.device]:
    """Devices that a model's weights lie on, the first one first; more than one where it is spread."""
    return list(dict.fromkeys(parameter.device for parameter in model.parameters()))
