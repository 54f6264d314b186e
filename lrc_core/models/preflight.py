"""What can be known of a model before it is loaded: does it exist, can it be compressed, will it fit. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lrc_core.coverage import coverage_words
from lrc_core.errors import LrcError, ModelError
from lrc_core.models.blocks.block_tensors import block_tensors, coverage_of
from lrc_core.models.checks.positions import positions_of
from lrc_core.models.consent import TRUST_REMOTE_CODE, entry_of
from lrc_core.models.gguf.architectures import check_keys
from lrc_core.models.gguf.header import GgufHeader
from lrc_core.models.gguf.packing import check_types, packed_types
from lrc_core.models.gguf.split_files import gguf_parts, read_floats, whole_header
from lrc_core.models.headers import TensorHeader
from lrc_core.models.hub import cached_snapshot, look_at
from lrc_core.models.json_files import read_table
from lrc_core.models.onload.choice import LAYER_LOCAL
from lrc_core.models.onload.memory import Shapes, by_blocks_memory
from lrc_core.models.outline import first_number, hidden_size, text_config, transposed_kinds
from lrc_core.models.pack import starter
from lrc_core.models.resources import (
    cpu_has_bf16,
    cpu_memory_available,
    disk_available,
    gpu_memory_available,
    unpacked_bytes,
)
from lrc_core.models.source import (
    architecture_of,
    check_tokenizer,
    find_source,
    is_whole,
    look_through,
    no_weights,
    unpacked_folder,
)
from lrc_core.models.weights.check import folder_notes, gguf_notes
from lrc_core.models.weights.configured import configured_tensors, only_configured
from lrc_core.paths import cache_home
from lrc_core.runs.spec import ModelRef
from lrc_core.words import data_size

_ROOM = 1_000_000_000
"""Bytes for Python, torch and the activations of a few windows."""
_STARTER_SHAPES = {
    "attn.q": (576, 576), "attn.k": (192, 576), "attn.v": (192, 576), "attn.o": (576, 576),
    "mlp.gate": (1536, 576), "mlp.up": (1536, 576), "mlp.down": (576, 1536),
}  # fmt: skip


@dataclass(frozen=True)
class Preflight:
    """Answer of :func:`preflight`. Sizes in bytes; 0 and "" where unknown.

    Attributes:
        kind: ``starter``, ``folder``, ``gguf``, ``hub``, or "" when the name stands for nothing.
        exists: it was found.
        params: parameters stored in the weight files.
        weight_bytes: size of the weights as stored.
        memory_needed: estimate for calibration and training with full-rank factors in memory, everything included.
        memory_by_blocks: estimate for what can be done with one block in memory at a time; see
            :mod:`lrc_core.models.onload.memory`.
        memory_available: free main memory.
        gpu_memory_available: free memory of all GPUs together, None where there is none.
        disk_needed: what is still to be downloaded or unpacked, and one decomposition's factors.
        disk_available: free on the disk of the cache.
        warnings: it will work, but the user should know.
        problems: it will not work; each says why and what to do.
        positions: the longest window in tokens that can be run, None where nothing ends or says.
        sizes: of its matrices; None where they are not known.
    """

    source: str
    kind: str = ""
    exists: bool = False
    architecture: str = ""
    params: int = 0
    weight_bytes: int = 0
    n_blocks: int = 0
    hidden_size: int = 0
    memory_needed: int = 0
    memory_by_blocks: int = 0
    memory_available: int = 0
    gpu_memory_available: int | None = None
    disk_needed: int = 0
    disk_available: int = 0
    revision: str = ""
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    positions: int | None = None
    sizes: Shapes | None = None

    @property
    def too_large(self) -> bool:
        """Its weights do not fit into memory: only what can be done block by block will be."""
        return self.weight_bytes > self.memory_available

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able form, without the sizes of all matrices."""
        return {name: value for name, value in asdict(self).items() if name != "sizes"}


@dataclass(frozen=True)
class _Facts:
    """What one kind of source could find out."""

    architecture: str
    tensors: tuple[TensorHeader, ...]
    weight_bytes: int
    hidden_size: int
    fetch_bytes: int = 0
    revision: str = ""
    warnings: tuple[str, ...] = ()
    n_blocks: int = 0
    own_code: bool = False
    positions: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def preflight(ref: ModelRef) -> Preflight:
    """Look at a model without loading it. Never raises for what is wrong with the model: that is in ``problems``."""
    free = {
        "memory_available": cpu_memory_available(),
        "gpu_memory_available": gpu_memory_available(),
        "disk_available": disk_available(cache_home()),
    }
    kind = ""
    try:
        source = find_source(ref)
        kind = source.kind
        facts = _FINDERS[kind](ref, source.path)
    except LrcError as error:
        exists = kind in ("folder", "gguf")
        return Preflight(ref.source, kind, exists=exists, problems=(str(error),), **free)  # type: ignore[arg-type]
    config = text_config(facts.config)
    blocks = block_tensors(facts.tensors, config)
    shapes = {block: [matrix.shape for matrix in matrices] for block, matrices in blocks.items()}
    params = sum(tensor.numel for tensor in facts.tensors)
    vocabulary = first_number(config, ("vocab_size",))
    sizes = Shapes.of(
        blocks,
        params,
        width=_width(),
        hidden=facts.hidden_size,
        vocabulary=vocabulary,
        positions=positions_of(config, facts.tensors).limit,
        turned=transposed_kinds(str(config.get("model_type", ""))),
    )
    found = Preflight(
        source=ref.source,
        kind=kind,
        exists=True,
        architecture=facts.architecture,
        params=params,
        weight_bytes=facts.weight_bytes,
        n_blocks=len(shapes) or facts.n_blocks,
        hidden_size=facts.hidden_size,
        memory_needed=_memory(shapes, params, facts.weight_bytes),
        memory_by_blocks=by_blocks_memory(sizes),
        sizes=sizes if blocks else None,
        disk_needed=facts.fetch_bytes + _factor_elements(shapes) * 4,
        revision=facts.revision,
        positions=facts.positions,
        **free,  # type: ignore[arg-type]
    )
    return _judged(found, facts, ref, bool(shapes))


def _from_starter(ref: ModelRef, _: Path | None) -> _Facts:
    status = next(part for part in starter.pack_status() if part.name == starter.MODEL.name)
    if status.present:
        return _folder_facts(ref, Path(status.path))
    tensors = [TensorHeader("model.embed_tokens.weight", (49152, 576), "F32", 4 * 49152 * 576)]
    for block in range(30):
        for name, (rows, columns) in _STARTER_SHAPES.items():
            tensors.append(
                TensorHeader(f"model.layers.{block}.{name}.weight", (rows, columns), "F32", 4 * rows * columns)
            )
    return _Facts(
        "LlamaForCausalLM",
        tuple(tensors),
        sum(tensor.bytes for tensor in tensors),
        576,
        fetch_bytes=starter.MODEL.disk,
        warnings=(f"It is downloaded at first use ({data_size(status.download_bytes)}).",),
    )


def _from_folder(ref: ModelRef, folder: Path | None) -> _Facts:
    assert folder is not None
    if only_configured(folder):
        return _configured_facts(folder)
    facts = _folder_facts(ref, folder)
    return replace(facts, warnings=folder_notes(folder, facts.tensors, pickled=not facts.tensors))


def _configured_facts(folder: Path) -> _Facts:
    tensors, config = configured_tensors(folder), read_table(folder / "config.json")
    return _Facts(
        architecture_of(config),
        tensors,
        sum(tensor.bytes for tensor in tensors),
        hidden_size(config),
        n_blocks=_blocks_by_config(config),
        positions=_last_position(config, tensors),
        config=config,
        warnings=("Everything shown of it comes from its configuration alone, for weights in 16 bits.",),
        problems=(str(no_weights(folder)),),
    )


def _folder_facts(ref: ModelRef, folder: Path) -> _Facts:
    files = look_through(folder, allow_pickle=ref.allow_pickle)
    check_tokenizer(folder)
    return _Facts(
        files.architecture,
        files.tensors,
        files.weight_bytes,
        hidden_size(files.config),
        n_blocks=_blocks_by_config(files.config),
        own_code="auto_map" in files.config,
        warnings=folder_notes(folder, files.tensors, pickled=files.pickled),
        positions=_last_position(files.config, files.tensors),
        config=files.config,
    )


def _from_gguf(_: ModelRef, path: Path | None) -> _Facts:
    assert path is not None
    header = whole_header(path)
    check_keys(header, lambda name: read_floats(path, name), path.name)
    check_types(header, path.name)
    unpacked = is_whole(unpacked_folder(path))
    notes = [] if unpacked else list(gguf_notes(path, gguf_parts(path)))
    if packed := packed_types(header):
        notes.append(f"Its weights are packed as {packed} and are unpacked.")
    if not unpacked:
        notes.append("It is unpacked into the cache at first use, which takes a while.")
    return _Facts(
        header.architecture,
        header.tensors,
        sum(tensor.bytes for tensor in header.tensors),
        int(_gguf_number(header, "embedding_length")),
        fetch_bytes=0 if unpacked else unpacked_bytes(sum(tensor.numel for tensor in header.tensors)),
        n_blocks=int(_gguf_number(header, "block_count")),
        warnings=tuple(notes),
    )


def _from_hub(ref: ModelRef, _: Path | None) -> _Facts:
    if folder := cached_snapshot(ref):
        local = _from_folder(ref, folder)
        return _Facts(**{**vars(local), "revision": folder.name})
    remote = look_at(ref)
    notes = folder_notes(remote.config_folder, remote.tensors) if remote.tensors else ()
    return _Facts(
        architecture_of(remote.config),
        remote.tensors,
        remote.weight_bytes,
        hidden_size(remote.config),
        fetch_bytes=remote.download_bytes,
        revision=remote.revision,
        warnings=(*notes, f"It is downloaded at first use ({data_size(remote.download_bytes)})."),
        n_blocks=_blocks_by_config(remote.config),
        own_code="auto_map" in remote.config,
        positions=_last_position(remote.config, remote.tensors),
        config=remote.config,
    )


_FINDERS = {"starter": _from_starter, "folder": _from_folder, "gguf": _from_gguf, "hub": _from_hub}


def _judged(found: Preflight, facts: _Facts, ref: ModelRef, has_blocks: bool) -> Preflight:
    """With warnings and problems filled in."""
    warnings, problems = list(facts.warnings), list(facts.problems)
    if words := coverage_words(coverage_of(facts.tensors, block_tensors(facts.tensors, text_config(facts.config)))):
        warnings.append(words)
    if facts.tensors and not has_blocks:
        problems.append(str(ModelError("It has no numbered decoder blocks.", "Choose a causal language model.")))
    if found.disk_needed > found.disk_available:
        problems.append(
            f"It needs {data_size(found.disk_needed)} on the disk of {cache_home()}, which has "
            f"{data_size(found.disk_available)} left. Free some space, or set LRC_CACHE to a folder on another disk."
        )
    if found.too_large:
        weights, free = data_size(found.weight_bytes), data_size(found.memory_available)
        short = f"Its weights take {weights} of memory, and {free} are free."
        room = data_size(found.memory_by_blocks)
        if facts.tensors and has_blocks and found.kind != "gguf" and found.memory_by_blocks <= found.memory_available:
            warnings.append(f"{short} It is brought in block after block, which takes about {room}. {LAYER_LOCAL}")
        else:
            problems.append(
                f"{short} Block after block it would take about {room}. Close other programs, take a smaller model, or "
                "use a machine with more memory. Its plain spectra can be read all the same, matrix by matrix: "
                "`lrc spectra MODEL --stream`, or the Spectra page."
            )
    elif found.memory_needed > found.memory_available:
        warnings.append(
            f"Training its ranks needs about {data_size(found.memory_needed)} of memory, and "
            f"{data_size(found.memory_available)} are free."
        )
    gpu = found.gpu_memory_available
    if gpu is not None and found.memory_needed > gpu:
        warnings.append(
            f"Training its ranks needs about {data_size(found.memory_needed)}, and {data_size(gpu)} are free on "
            "GPUs. Choose the device cpu if it does not fit."
        )
    if facts.own_code and not ref.trust_remote_code:
        warnings.append(
            "It brings code of its own, which is not run; transformers must know the architecture itself. If you trust "
            "that code: `lrc ... --trust-remote-code` with the commit as --revision, or start the app with "
            f"{TRUST_REMOTE_CODE}={entry_of(replace(ref, revision=facts.revision or ref.revision))}."
        )
    if not facts.tensors:
        warnings.append("Its weights are pickled: their shapes are known only after loading, so sizes are rough.")
    return Preflight(**{**vars(found), "warnings": tuple(warnings), "problems": tuple(problems)})


def _memory(shapes: Mapping[int, list[tuple[int, int]]], params: int, weight_bytes: int) -> int:
    """Weights, second moments of the inputs (float32, an upper bound: some linears share theirs), full-rank factors."""
    width = _width()
    moments = sum(min(4 * columns * columns, 2**32) for block in shapes.values() for _, columns in block)
    return max(weight_bytes, params * width) + moments + _factor_elements(shapes) * width + _ROOM


def _width() -> int:
    """Bytes of a number as a model runs here."""
    return 2 if cpu_has_bf16() or gpu_memory_available() is not None else 4


def _factor_elements(shapes: Mapping[int, list[tuple[int, int]]]) -> int:
    """Elements of the full-rank factors of all block linears: (m + n) min(m, n) each."""
    return sum((rows + columns) * min(rows, columns) for block in shapes.values() for rows, columns in block)


def _last_position(config: Mapping[str, Any], tensors: Sequence[TensorHeader]) -> int | None:
    found = positions_of(text_config(config), tensors)
    return found.limit if found.ends else None


def _blocks_by_config(config: Mapping[str, Any]) -> int:
    return first_number(text_config(config), ("num_hidden_layers", "n_layer", "n_layers", "num_layers"))


def _gguf_number(header: GgufHeader, name: str) -> int:
    value = header.metadata.get(f"{header.architecture}.{name}", 0)
    return int(value) if isinstance(value, int) else 0
