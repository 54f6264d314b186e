"""A model's identity: by its weights, with the check that they are finite, and by what else its outputs depend on."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.errors import CancelledError, NumericalError
from lrc_core.types import OnProgress, Progress, ShouldStop, ignore_progress, never_stop


@torch.no_grad()
def fingerprint(
    model: nn.Module,
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
    read: Callable[[str], Tensor] | None = None,
) -> str:
    """Hash over every parameter's name, shape and bytes (tied ones once), sorted by name; all bytes are read.

    Taken from the weights in their stored precision on the CPU, it depends neither on the device nor on the precision
    that is computed in. Hashing runs in threads (hashlib frees the interpreter): about a second a gigabyte.

    Args:
        model: its parameters may be empty where they can be read.
        read: gives the parameter of a full name where the model does not hold it.

    Returns:
        64 hexadecimal digits.

    Raises:
        NumericalError: a weight is NaN or infinite; names the tensor.
    """
    named = sorted(model.named_parameters())
    total = hashlib.sha256()

    def digest_one(item: tuple[str, Tensor]) -> bytes:
        return _checked_digest(item[0], item[1] if read is None else read(item[0]))

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        digests = threads.map(digest_one, named)
        for step, ((name, tensor), digest) in enumerate(zip(named, digests, strict=True), start=1):
            total.update(f"{name} {tuple(tensor.shape)} ".encode() + digest)
            on_progress(Progress("checking the weights", step, len(named)))
            if should_stop():
                threads.shutdown(cancel_futures=True)
                raise CancelledError("Stopped while checking the weights.")
    return total.hexdigest()


@torch.no_grad()
def all_zero(model: nn.Module, read: Callable[[str], Tensor] | None = None) -> list[str]:
    """Names of matrices of nothing but zeros: blocks that were added so, or a file that was never filled."""
    matrices = [(name, tensor) for name, tensor in model.named_parameters() if tensor.ndim > 1]
    return [name for name, tensor in matrices if _is_zero(tensor if read is None else read(name))]


def _is_zero(tensor: Tensor) -> bool:
    return not tensor.flatten()[:_GLANCE].any() and not tensor.any()


_GLANCE = 1024
"""Elements that tell most matrices from zeros, so that hardly any is read again."""
_SAYS_NOTHING = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache")
"""Entries of a configuration that change no output, or that are told elsewhere."""


@torch.no_grad()
def forward_digest(model: nn.Module) -> str:
    """Hash over what the forward pass depends on besides the parameters: configuration, buffers, the model's own code.

    Two models of equal weights may differ in their rotary base, their windows or the scales of their norms.
    Returns 64 hexadecimal digits.
    """
    config = getattr(model, "config", None)
    entries = config.to_dict() if config is not None and hasattr(config, "to_dict") else {}
    told = {key: value for key, value in entries.items() if key not in _SAYS_NOTHING}
    attention = getattr(config, "_attn_implementation", "")
    total = hashlib.sha256(
        json.dumps([type(model).__qualname__, attention, told], sort_keys=True, default=str).encode()
    )
    for name, buffer in sorted(model.named_buffers()):
        data = buffer.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        total.update(f"{name} {tuple(buffer.shape)} {buffer.dtype} ".encode() + data.tobytes())
    total.update(_own_code(model))
    return total.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Hash over what a tokenizer does: its whole state where it is a fast one, else its vocabulary and settings.

    Returns:
        64 hexadecimal digits.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    settings = {key: value for key, value in tokenizer.init_kwargs.items() if key != "name_or_path"}
    state = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    text = json.dumps([type(tokenizer).__qualname__, settings], sort_keys=True, default=str)
    return hashlib.sha256((state + text).encode()).hexdigest()


def _own_code(model: nn.Module) -> bytes:
    """Digest of the file of a model class that is not the library's."""
    module = sys.modules.get(type(model).__module__)
    file = getattr(module, "__file__", None)
    if file is None or not type(model).__module__.startswith("transformers_modules"):
        return b""
    return hashlib.sha256(Path(file).read_bytes()).digest()


@torch.no_grad()
def _checked_digest(name: str, tensor: Tensor) -> bytes:
    if tensor.numel() and tensor.is_floating_point():
        # One pass without a mask in memory: NaN goes through both, an infinity shows in one of them.
        low, high = torch.aminmax(tensor.detach())
        if not (torch.isfinite(low) and torch.isfinite(high)):
            bad = int((~torch.isfinite(tensor)).sum())
            raise NumericalError(
                f"The weights of {name} are not all finite: {bad} of {tensor.numel()} are NaN or infinite.",
                "The model is damaged; download or save it again.",
            )
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(data.data).digest()
