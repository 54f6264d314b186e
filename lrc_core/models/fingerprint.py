"""A model's identity by its weights, and the check that they are finite."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from lrc_core.errors import CancelledError, NumericalError
from lrc_core.types import OnProgress, Progress, ShouldStop, ignore_progress, never_stop


@torch.no_grad()
def fingerprint(
    model: nn.Module, on_progress: OnProgress = ignore_progress, should_stop: ShouldStop = never_stop
) -> str:
    """Hash over every parameter's name, shape and bytes (tied ones once), sorted by name; all bytes are read.

    Taken from the weights in their stored precision on the CPU, it depends neither on the device nor on the precision
    that is computed in. Hashing runs in threads (hashlib frees the interpreter): about a second a gigabyte.

    Returns:
        64 hexadecimal digits.

    Raises:
        NumericalError: a weight is NaN or infinite; names the tensor.
        CancelledError: the user asked to stop.
    """
    named = sorted(model.named_parameters())
    total = hashlib.sha256()
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        digests = threads.map(_checked_digest, (name for name, _ in named), (tensor for _, tensor in named))
        for step, ((name, tensor), digest) in enumerate(zip(named, digests, strict=True), start=1):
            total.update(f"{name} {tuple(tensor.shape)} ".encode() + digest)
            on_progress(Progress("checking the weights", step, len(named)))
            if should_stop():
                threads.shutdown(cancel_futures=True)
                raise CancelledError("Stopped while checking the weights.")
    return total.hexdigest()


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
