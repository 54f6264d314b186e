"""Whether a written folder is the model in memory: loaded again by a process of its own, from the folder alone."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.errors import CancelledError, ExportError
from lrc_core.evaluate.forward import evaluating
from lrc_core.files import write_tensors
from lrc_core.folders import reload
from lrc_core.folders.tensors import put_in_own_memory
from lrc_core.types import ShouldStop

_BOUNDS = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 2e-2}
"""How far logits may lie apart, as a share of the largest, where other kernels or another order of products compute
them: on an accelerator, or in the dense twin. The same layers on the CPU give the same bits."""
SEVERAL = "several"
"""The device of a model that is spread over all there are."""
_POLL_S = 0.1


@dataclass(frozen=True)
class Check:
    """What came of it.

    Attributes:
        equal: every logit has the same bits.
        difference: largest difference of a logit, as a share of the largest logit.
        bound: what was allowed; 0 where the bits had to be equal.
        windows: texts that were read.
        tokens: scored tokens of all of them.
        perplexity: of the reloaded model on these windows; None where it was not loaded.
        expected: of the model in memory; likewise.
        loaded_s: seconds that loading took.
    """

    equal: bool
    difference: float
    bound: float
    windows: int
    tokens: int
    perplexity: float | None
    expected: float | None
    loaded_s: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


READ_BACK = Check(True, 0.0, 0.0, 0, 0, None, None, 0.0)
"""Of a folder that was written part by part, each read back and compared, and not loaded: it may be too large."""


def keep_reference(model: nn.Module, windows: Tensor, path: Path) -> None:
    """Write what the model in memory makes of some windows.

    Args:
        windows: [n, w] token ids.
    """
    put_in_own_memory(model)
    device = next(model.parameters()).device
    with evaluating(model):
        logits = [model(input_ids=row[None].to(device), use_cache=False).logits[0].cpu() for row in windows]
    write_tensors(path, {"windows": windows, "logits": torch.stack(logits)})


def check_folder(folder: Path, reference: Path, device: str, *, exact: bool, should_stop: ShouldStop) -> Check:
    """Load a folder in another process and compare it with what was kept.

    Args:
        reference: see :func:`keep_reference`.
        device: where the reference was computed; :data:`SEVERAL` where that was more than one.
        exact: the layers are the very same ones; on the CPU their logits must then have the same bits.

    Raises:
        ExportError: it cannot be loaded, leaves tensors out, or gives something else.
    """
    question = {
        "folder": str(folder),
        "reference": str(reference),
        "device": device,
        "threads": torch.get_num_threads(),
    }
    answer = _asked(question, should_stop)
    if answer["keys"]:
        name, keys = next(iter(answer["keys"].items()))
        raise _failed(folder, f"{keys[0]} is among its {name.replace('_', ' ')}")
    if not answer["alone"]:
        raise _failed(folder, "loading it imported this program")
    return _judged(folder, answer, exact and device == "cpu")


def _judged(folder: Path, answer: dict[str, Any], exact: bool) -> Check:
    dtype = json.loads((folder / "config.json").read_text(encoding="utf-8"))["dtype"]
    windows = len(answer["losses"])
    perplexity = _perplexity(answer["losses"], answer["tokens"])
    expected = _perplexity(answer["wanted_losses"], answer["tokens"])
    found = Check(
        equal=bool(answer["equal"]),
        difference=answer["difference"] / max(answer["largest"], 1e-30),
        bound=0.0 if exact else _BOUNDS[dtype],
        windows=windows,
        tokens=answer["tokens"],
        perplexity=perplexity,
        expected=expected,
        loaded_s=answer["loaded_s"],
    )
    if not (found.equal or found.difference <= found.bound):  # also where it is not a number
        raise _failed(
            folder, f"its logits differ by {found.difference:.2e} of the largest, and {found.bound:g} is allowed"
        )
    if abs(perplexity / expected - 1) > found.bound:
        raise _failed(folder, f"its perplexity is {perplexity:.4f}, and {expected:.4f} in memory")
    return found


def _perplexity(losses: Sequence[float], tokens: int) -> float:
    return math.exp(min(sum(losses) / tokens, 700.0))


def _failed(folder: Path, what: str) -> ExportError:
    return ExportError(
        f"The folder {folder.name} was written, loaded again, and is not the model in memory: {what}.",
        "It was removed. Please report the model's architecture; its plan and its figures here are not affected.",
    )


def _asked(question: dict[str, Any], should_stop: ShouldStop) -> dict[str, Any]:
    """What the other process says."""
    with (
        tempfile.TemporaryDirectory() as modules,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as log,
    ):
        # Code of folders is copied into a folder of the user's, where that of another export may lie.
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_MODULES_CACHE": modules,
            "TOKENIZERS_PARALLELISM": "false",
        }
        command = [sys.executable, "-P", str(Path(reload.__file__))]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=log, text=True, env=environment
        ) as child:
            try:
                assert child.stdin is not None
                child.stdin.write(json.dumps(question))
                child.stdin.close()
                while child.poll() is None:
                    if should_stop():
                        raise CancelledError("Stopped while the folder was loaded again.")
                    time.sleep(_POLL_S)
            finally:
                child.kill()
        out.seek(0)
        log.seek(0)
        try:
            answer: dict[str, Any] = json.loads(out.read().splitlines()[-1])
        except (ValueError, IndexError):
            lines = [line for line in log.read().splitlines() if line.strip()]
            raise _failed(
                Path(question["folder"]), f"loading it ended with: {(lines or ['nothing was said'])[-1][:300]}"
            ) from None
    return answer
