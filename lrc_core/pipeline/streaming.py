"""The ``spectra`` job on a model that is never loaded: matrix after matrix from its files, or shard after shard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from lrc_core.coverage import coverage_words
from lrc_core.damage import earlier
from lrc_core.decompose.inplace import singular_values_in_place
from lrc_core.errors import CancelledError, RunError
from lrc_core.files import disk_errors, read_array, write_array, write_arrays, write_json
from lrc_core.models.allocator import release_freed_memory
from lrc_core.models.headers import TensorHeader, safetensors_header
from lrc_core.models.hub import borrowed_file
from lrc_core.models.matrix_files import read_matrix
from lrc_core.models.outline import LIMIT, Outline, StoredMatrix, read_outline, require_room
from lrc_core.models.resources import own_peak_memory
from lrc_core.paths import cache_home
from lrc_core.runs.spec import ModelRef, SpectraSpec
from lrc_core.runs.store import Run
from lrc_core.types import OnProgress, Progress, ShouldStop

PARTS = "parts"
"""Folder of a run that still streams: the singular values of layer N of its card in ``N.npy``."""
_WARM = (600, 1600)


def streamed_spectra_run(run: Run, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """``card.json`` at once, ``parts/N.npy`` as they come, and at the end ``spectra.npz`` in their place.

    A stopped run goes on behind the matrices that it has.
    """
    spec = run.spec
    assert isinstance(spec, SpectraSpec) and spec.stream
    on_progress(Progress("reading the headers"))
    outline = read_outline(spec.model)
    write_json(run.path / "card.json", outline.card.to_dict())
    require_room(outline)
    parts = run.path / PARTS
    with disk_errors(parts):
        parts.mkdir(exist_ok=True)
    memory = _stream(run, outline, on_progress, should_stop)
    names = [layer.name for layer in outline.card.layers]
    arrays: dict[str, Any] = {f"svd/{name}": np.load(parts / f"{number}.npy") for number, name in enumerate(names)}
    write_arrays(run.path / "spectra.npz", arrays)
    shutil.rmtree(parts, ignore_errors=True)
    words = coverage_words(outline.card.coverage)
    return {
        "card": outline.card.to_dict(),
        "warnings": [words] if words else [],
        "decompositions": ["svd"],
        "stream": memory,
    }


@dataclass
class _Memory:
    """Working memory beyond what the process needs anyway, in bytes."""

    largest: StoredMatrix
    before: int
    used: int = 0
    process: int = 0

    def note(self, peak: int) -> None:
        self.process = max(self.process, peak)
        self.used = max(self.used, peak - self.before)

    def to_dict(self) -> dict[str, Any]:
        size = self.largest.tensor.bytes
        return {
            "largest": self.largest.layer.name,
            "largest_bytes": size,
            "limit_bytes": LIMIT * size,
            "working_bytes": self.used,
            "process_bytes": self.process,
        }


def _stream(run: Run, outline: Outline, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Read and decompose what is not there yet; returns the memory that it took."""
    singular_values_in_place(np.ones(_WARM, np.float32))  # libraries and their buffers count as the program's
    numbers = {matrix.layer.name: number for number, matrix in enumerate(outline.matrices)}
    files = [(matrix, run.path / PARTS / f"{numbers[matrix.layer.name]}.npy") for matrix in outline.matrices]
    waiting = {path: matrix for matrix, path in files if earlier(path, partial(_values, matrix)) is None}
    done = len(files) - len(waiting)
    release_freed_memory()
    memory = _Memory(outline.largest, psutil.Process().memory_info().rss)
    with own_peak_memory() as peak:
        buffer = np.empty(max((matrix.tensor.numel for matrix in waiting.values()), default=0), np.float32)
        for shard in outline.shard_bytes:
            todo = {path: matrix for path, matrix in waiting.items() if matrix.shard == shard}
            if not todo:
                continue
            with _shard(outline, shard, on_progress, should_stop) as file:
                # A header read from the hub does not say where the data begins.
                tensors = {tensor.name: tensor for tensor in safetensors_header(file)}
                for path, matrix in todo.items():
                    if should_stop():
                        raise CancelledError("The reading of spectra was cancelled.")
                    write_array(path, singular_values_in_place(_read(file, matrix, tensors, buffer)))
                    memory.note(peak())
                    done += 1
                    on_progress(Progress("reading matrix after matrix", done, len(files), memory.to_dict()))
    return memory.to_dict()


def _values(matrix: StoredMatrix, path: Path) -> NDArray[np.float32]:
    values: NDArray[np.float32] = read_array(path)
    if values.shape != (matrix.layer.full_rank,) or not np.isfinite(values).all():
        raise RunError(f"it holds {values.shape} values")
    return values


def _read(
    file: Path, matrix: StoredMatrix, tensors: Mapping[str, TensorHeader], buffer: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A matrix of a file, or the part of a stack that is one; turned or not does not matter to singular values."""
    begins = tensors[matrix.tensor.name].start + matrix.offset
    found = read_matrix(file, replace(matrix.tensor, start=begins), buffer)
    return found if matrix.columns is None else np.ascontiguousarray(found[:, slice(*matrix.columns)])


@contextmanager
def _shard(outline: Outline, name: str, on_progress: OnProgress, should_stop: ShouldStop) -> Iterator[Path]:
    """The file of a shard: where it lies, or downloaded for the length of the block."""
    if outline.folder is not None:
        yield outline.folder / name
        return
    identity = outline.card.identity
    aside = cache_home() / "shards" / f"{identity.source.replace('/', '--')}-{identity.revision[:12]}"
    ref = ModelRef(identity.source, identity.revision)
    with borrowed_file(ref, identity.revision, name, aside, on_progress, should_stop) as path:
        yield path
