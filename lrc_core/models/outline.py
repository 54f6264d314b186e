"""A model by the headers of its weight files: shapes, parameters, where every matrix lies. No weight is read. No torch.

Reading the headers of a model of any size takes about a second, on the disk or on the hub.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrc_core.errors import ModelError, ResourceError
from lrc_core.models.blocks.block_tensors import BlockTensor, block_tensors, coverage_of
from lrc_core.models.cache_room import require_disk
from lrc_core.models.headers import FLOAT_TYPES, TensorHeader
from lrc_core.models.hub import cached_snapshot, look_at
from lrc_core.models.pack import starter
from lrc_core.models.resources import cpu_memory_available
from lrc_core.models.source import architecture_of, find_source, is_whole, look_through, unpacked_folder
from lrc_core.models.weights.shards import read_headers
from lrc_core.paths import cache_home, expanded
from lrc_core.runs.spec import ModelRef
from lrc_core.types import HEADER_ONLY, LinearShape, ModelCard, ModelIdentity
from lrc_core.words import data_size

_ORDER = (
    "q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "o_proj", "out_proj", "attn.c_proj", "dense",
    "gate_proj", "up_proj", "gate_up_proj", "fc1", "c_fc", "dense_h_to_4h", "down_proj", "fc2", "mlp.c_proj",
    "dense_4h_to_h",
)  # fmt: skip
"""As blocks define them; the files list tensors in an order of their own."""
_TRANSPOSED = {"gpt2": ("c_attn", "c_proj", "c_fc", "q_attn"), "openai-gpt": ("c_attn", "c_proj", "c_fc")}
"""By model type, kinds of linears that are stored as [in, out]."""
_WIDTHS = {"F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)}
_UNKNOWN_POSITIONS = 2048
LIMIT = 3
"""Memory to work on a model matrix by matrix, in sizes of its largest matrix as it is stored."""


@dataclass(frozen=True)
class StoredMatrix:
    """One weight of a block linear in a file.

    Attributes:
        layer: what it is; ``name`` is the tensor's without ``.weight``, or that of one expert.
        shard: name of the file.
        tensor: shape as stored, element type, place and size; of an expert in a stack those of its part.
        offset: bytes of the tensor before that part.
        columns: what to take of it, as ``slice`` takes it; None for all.
    """

    layer: LinearShape
    shard: str
    tensor: TensorHeader
    offset: int = 0
    columns: tuple[int | None, int | None, int | None] | None = None


@dataclass(frozen=True)
class Outline:
    """What the headers say of a model.

    Attributes:
        card: its figures; the fingerprint is that of the headers.
        matrices: the block linears, in the card's order.
        folder: where the shards lie; None where they are on the hub.
        shard_bytes: size of every shard that holds a block linear.
    """

    card: ModelCard
    matrices: tuple[StoredMatrix, ...]
    folder: Path | None
    shard_bytes: Mapping[str, int]

    @property
    def largest(self) -> StoredMatrix:
        """The largest matrix, in bytes as stored."""
        return max(self.matrices, key=lambda matrix: matrix.tensor.bytes)


def read_outline(ref: ModelRef) -> Outline:
    """Read the headers of a model's safetensors, from the disk or the hub.

    Raises:
        ModelError: not found, damaged, not safetensors, or without decoder blocks of linears.
    """
    source = find_source(ref)
    folder = source.path
    if source.kind == "starter":
        folder = _starter_folder()
    elif source.kind == "gguf":
        assert source.path is not None
        folder = _unpacked(source.path)
    elif source.kind == "hub":
        folder = cached_snapshot(ref)
    if folder is None:
        remote = look_at(ref)
        return _outline(ref, remote.revision, remote.config, remote.shards, None)
    files = look_through(folder, allow_pickle=False)
    shards = read_headers(folder)
    revision = folder.name if source.kind == "hub" else ""
    return _outline(ref, revision, files.config, shards, folder)


def require_room(outline: Outline) -> None:
    """Refuse to begin what memory or disk cannot hold.

    Raises:
        ResourceError: says how much is needed.
    """
    needed = LIMIT * outline.largest.tensor.bytes
    if (free := cpu_memory_available()) < needed:
        raise ResourceError(
            f"The largest matrix, {outline.largest.layer.name}, needs {data_size(needed)} of memory to work on, and "
            f"{data_size(free)} are free.",
            "Close other programs, or use a machine with more memory.",
        )
    if outline.folder is None:
        require_disk(cache_home(), max(outline.shard_bytes.values()), "largest shard of the model")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that describes the language model."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def first_number(config: Mapping[str, Any], names: Sequence[str]) -> int:
    """The first of these entries that is a whole number, else 0."""
    return next((value for name in names if isinstance(value := config.get(name), int)), 0)


def transposed_kinds(model_type: str) -> tuple[str, ...]:
    """How kinds of linears end whose weights a type of model stores as [in, out] (Conv1D)."""
    return _TRANSPOSED.get(model_type, ())


def hidden_size(config: Mapping[str, Any]) -> int:
    """Width of the hidden states by the language model's configuration; 0 where it does not say."""
    return first_number(text_config(config), ("hidden_size", "n_embd", "d_model", "dim"))


def _starter_folder() -> Path:
    status = next(part for part in starter.pack_status() if part.name == starter.MODEL.name)
    if not status.present:
        raise ModelError("The starter model is not on this machine yet.", "Fetch it with `lrc starter`.")
    return Path(status.path)


def _unpacked(path: Path) -> Path:
    folder = unpacked_folder(path)
    if not is_whole(folder):
        raise ModelError(
            f"{path} is a GGUF file, whose matrices are packed.",
            "Unpack it once with `lrc fetch`, or name a folder of safetensors.",
        )
    return folder


def _outline(
    ref: ModelRef,
    revision: str,
    config: Mapping[str, Any],
    shards: Mapping[str, Sequence[TensorHeader]],
    folder: Path | None,
) -> Outline:
    tensors = [tensor for found in shards.values() for tensor in found]
    shard_of = {tensor.name: shard for shard, found in shards.items() for tensor in found}
    blocks = block_tensors(tensors, text_config(config))
    matrices = _matrices(blocks, shard_of, str(config.get("model_type", "")))
    if not matrices:
        raise ModelError(
            f"The files of {ref.source} hold no matrices of decoder blocks.",
            "Choose a causal language model in full precision.",
        )
    digest = hashlib.sha256(str(sorted((t.name, t.shape, t.dtype) for t in tensors)).encode()).hexdigest()
    identity = ModelIdentity(ref.source, revision, f"{HEADER_ONLY}{digest[:40]}", architecture_of(config))
    used = {matrix.shard for matrix in matrices}
    sizes = {name: sum(tensor.bytes for tensor in found) for name, found in shards.items() if name in used}
    card = replace(_card(identity, config, tensors, matrices), coverage=coverage_of(tensors, blocks))
    return Outline(card, matrices, folder, sizes)


def _matrices(
    blocks: Mapping[int, Sequence[BlockTensor]], shard_of: Mapping[str, str], model_type: str
) -> tuple[StoredMatrix, ...]:
    turned = transposed_kinds(model_type)
    found = []
    for block, weights in blocks.items():
        for matrix in sorted(weights, key=lambda weight: _place(weight.kind)):
            if matrix.tensor.dtype not in FLOAT_TYPES:
                continue
            rows, columns = reversed(matrix.shape) if matrix.kind.endswith(turned) else matrix.shape
            whole = matrix.tensor.name.removesuffix(".weight")
            name = whole if whole.endswith(f".{matrix.kind}") else f"{_prefix(whole, block)}.{matrix.kind}"
            layer = LinearShape(name, block, matrix.kind, rows, columns)
            stored = StoredMatrix(layer, shard_of[matrix.tensor.name], matrix.tensor, matrix.offset, matrix.columns)
            found.append(stored)
    return tuple(found)


def _prefix(name: str, block: int) -> str:
    """Name of a block, of the name of something in it."""
    before, number, _ = name.partition(f".{block}.")
    return before + number.rstrip(".")


def _place(kind: str) -> tuple[int, int, int, str]:
    """Attention and MLP as blocks define them, then experts by number."""
    number = next((int(part) for part in kind.split(".") if part.isdecimal()), -1)
    place = next((number for number, ending in enumerate(_ORDER) if kind.endswith(ending)), len(_ORDER))
    return (int(number >= 0), number, place, kind)


def _card(
    identity: ModelIdentity,
    config: Mapping[str, Any],
    tensors: Sequence[TensorHeader],
    matrices: Sequence[StoredMatrix],
) -> ModelCard:
    inner = text_config(config)
    dtype, width = _WIDTHS[matrices[0].tensor.dtype]
    layers = tuple(matrix.layer for matrix in matrices)
    path = expanded(identity.source)
    name = starter.MODEL_NAME if identity.source == "starter" else identity.source
    return ModelCard(
        identity=identity,
        name=path.resolve().stem if path.exists() else name,
        params_total=sum(tensor.numel for tensor in tensors),
        params_linear=sum(layer.params for layer in layers),
        n_blocks=max(layer.block for layer in layers) + 1,
        hidden_size=hidden_size(config),
        vocab_size=first_number(inner, ("vocab_size",)),
        max_positions=first_number(inner, ("max_position_embeddings", "n_positions", "n_ctx")) or _UNKNOWN_POSITIONS,
        dtype=dtype,
        dtype_bytes=width,
        device="disk",
        layers=layers,
    )
