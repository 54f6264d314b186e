"""``lrc bench memory``: models of real shapes under a limit of memory, phase by phase; see docs/scale.md."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrc_core.bench.cost import Reading, Speeds, phase_seconds
from lrc_core.bench.large_model import BILLION, SEVENTY, SMALL, LlamaShape, write_model, write_text
from lrc_core.bench.machine import machine_speeds
from lrc_core.errors import ResourceError, SettingsError
from lrc_core.models.cache_room import require_disk
from lrc_core.models.device import pick_device, pick_dtype
from lrc_core.models.onload.choice import ONLOAD
from lrc_core.models.onload.memory import Shapes, phase_memory
from lrc_core.paths import child_environment
from lrc_core.types import OnProgress, Progress, ignore_progress
from lrc_core.words import data_size

SIZES = ("full", "small")
"""Of the bench: as docs/scale.md has it, or in a few seconds."""
PARTS = ("blocks", "stream")
"""The whole way block after block; spectra of two blocks of a 70B model."""
LIMIT = 3 * 2**30
"""Bytes that the worker may have."""
SEVENTY_BLOCKS = 80
_TEXTS = {"text": "calibrate.txt", "report": "report.txt"}
_DISK = 16  # bytes a parameter: the files, moments, gradients and the factors of two decompositions


def memory(
    size: str = SIZES[0],
    parts: tuple[str, ...] = PARTS,
    *,
    limit: int = LIMIT,
    blocks: int = 0,
    folder: Path | None = None,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, Any]:
    """Write the models, work on them in a process under the limit, and remove everything again.

    Args:
        size: one of :data:`SIZES`.
        parts: of :data:`PARTS`.
        limit: bytes of memory of the worker.
        blocks: of the models; 0 for all.
        folder: where models, caches and runs lie meanwhile; the system's folder for temporary files by default.

    Returns:
        For each part its ``phases`` with seconds and peaks, and what it was.

    Raises:
        ResourceError: the disk has no room, or the worker did not get through under the limit.
        SettingsError: a size or part that there is none of.
    """
    if size not in SIZES or not parts or set(parts) - set(PARTS):
        raise SettingsError(f"There is no size {size!r} with parts {parts}.", f"Sizes: {SIZES}; parts: {PARTS}.")
    found: dict[str, Any] = {"size": size, "limit": limit}
    for part in parts:
        shape = _shape(size, part)
        if blocks:
            shape = replace(shape, blocks=blocks)
        home = Path(tempfile.mkdtemp(prefix="lrc-memory-", dir=folder))
        try:
            require_disk(home, _DISK * shape.params, "bench")
            found[part] = _measured(home, part, shape, limit, on_progress)
        finally:
            shutil.rmtree(home, ignore_errors=True)
    return found


def _shape(size: str, part: str) -> LlamaShape:
    if size == "small":
        return SMALL["memory" if part == PARTS[0] else "stream"]
    return BILLION if part == PARTS[0] else SEVENTY


def _measured(home: Path, part: str, shape: LlamaShape, limit: int, on_progress: OnProgress) -> dict[str, Any]:
    windows, window, scored = (16, 512, 4) if shape.hidden > 1000 else (4, 32, 2)
    write_model(home / "model", shape, on_progress)
    write_text(home / _TEXTS["text"], 4 * windows * window)
    write_text(home / _TEXTS["report"], 4 * scored * window)
    read = {"windows": windows, "window": window, "scored": scored}
    speeds = machine_speeds(again=True)
    question = {"part": part, "folder": str(home), "limit": limit, **read, **_TEXTS}
    told = _asked(home, question, on_progress)
    phases = [{**one, **_on_paper(one["phase"], shape, speeds, Reading(**read))} for one in told]
    facts = {"params": shape.params, "blocks": shape.blocks, **read}
    more = _extrapolated(phases[-1], shape) if part == "stream" else {}
    return {"model": facts, "phases": phases, **more}


_NEEDS = {
    "second moments": "moments",
    "whitened factors": "decomposition",
    "output gradients": "gradients",
    "K-FAC factors": "decomposition",
    "perplexity": "perplexity",
}
"""Phases of the bench by their names in :func:`~lrc_core.models.onload.memory.phase_memory`."""


def _on_paper(phase: str, shape: LlamaShape, speeds: Speeds, reading: Reading) -> dict[str, Any]:
    """What the cost model says of a phase: ``paper_seconds`` and ``paper_memory``, where it says something."""
    block = tuple((kind, *sizes) for kind, sizes in shape.linears().items())
    width = pick_dtype(pick_device()).itemsize
    sizes = Shapes((block,) * shape.blocks, 2 * shape.vocabulary * shape.hidden, width, shape.hidden, shape.vocabulary)
    name = "plain spectra" if phase == "streamed spectra" else phase
    seconds, needed = phase_seconds(sizes, speeds, reading).get(name), phase_memory(sizes).get(_NEEDS.get(phase, ""))
    said = {"paper_seconds": seconds, "paper_memory": needed}
    return {name: value for name, value in said.items() if value is not None}


def _extrapolated(phase: Mapping[str, Any], shape: LlamaShape) -> dict[str, Any]:
    """Seconds of a block, and of all blocks of a 70B model."""
    per_block = sum(phase["matrices"].values())
    return {
        "seconds_per_block": per_block,
        "seconds_of_all_blocks": per_block * SEVENTY_BLOCKS,
        "measured": shape.blocks,
    }


def _asked(home: Path, question: dict[str, Any], on_progress: OnProgress) -> list[dict[str, Any]]:
    """What the worker says."""
    more = {"LRC_RUNS": str(home / "runs"), "LRC_CACHE": str(home / "cache"), ONLOAD: "blocks", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "lrc_core.jobs.memory_worker", json.dumps(question)]
    phases: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=child_environment(more)) as child,
    ):
        try:
            assert child.stdout is not None
            for line in child.stdout:
                said = json.loads(line)
                if "phase" in said:
                    phases.append(said)
                    on_progress(Progress(f"{said['phase']}: {said['seconds']} s, {data_size(said['data'])} of data"))
                else:
                    on_progress(Progress(said["progress"], said["step"], said["total"]))
        finally:
            child.kill()
        child.wait()
        log.seek(0)
        last = ([line for line in log.read().splitlines() if line.strip()] or ["nothing was said"])[-1]
    if child.returncode:
        after = f"after {phases[-1]['phase']}" if phases else "at the start"
        raise ResourceError(
            f"The worker ended {after} under a limit of {data_size(question['limit'])}: {last[:300]}",
            "Give it more: --limit GIB.",
        )
    return phases
