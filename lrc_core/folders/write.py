"""Writing a model folder: shards of tensors, their index, and the small files beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lrc_core.errors import CancelledError, ExportError
from lrc_core.files import disk_errors, write_atomic, write_json, write_tensors
from lrc_core.hf import experts, lowrank
from lrc_core.models.json_files import read_table
from lrc_core.types import OnProgress, Progress, ShouldStop

SHARD = 2 * 10**9
"""Bytes of one file; a larger tensor has one of its own."""
_CODE = {
    lowrank.METHOD: ((lowrank,), lowrank.LowRankAutoConfig),
    experts.EXPERTS_METHOD: ((experts, lowrank), experts.MixtureAutoConfig),
}
"""The files that go along for ``trust_remote_code=True``, the first of which is the loader, and its class."""


def write_shards(folder: Path, tensors: Mapping[str, Tensor], on_progress: OnProgress, should_stop: ShouldStop) -> None:
    """:func:`write_parts` of tensors in memory, cut where a file would be larger than :data:`SHARD`."""
    parts = list(_split(tensors))
    write_parts(folder, parts, len(parts), on_progress, should_stop, read_back=False)


def write_parts(
    folder: Path,
    parts: Iterable[Mapping[str, Tensor]],
    count: int,
    on_progress: OnProgress,
    should_stop: ShouldStop,
    *,
    read_back: bool = True,
) -> None:
    """Write tensors as safetensors, which need never all be in memory: a file a part, and an index of several.

    A file of an earlier attempt that holds the very same is kept.

    Args:
        count: how many parts there are.
        read_back: whether every file is read and compared as soon as it is written.

    Raises:
        CancelledError: between two files.
        ExportError: a file does not hold what was written.
        ResourceError: the disk is full.
    """
    names: list[str] = []
    where: dict[str, str] = {}
    size = 0
    for part in parts:
        if should_stop():
            raise CancelledError("Stopped between two files of weights.")
        on_progress(Progress("writing the weights", len(names), count))
        path = folder / _file_name(len(names), count)
        if not _holds(path, part):
            write_tensors(path, part, metadata={"format": "pt"})
            path.chmod(0o644)  # safetensors writes for the user alone; who may enter is up to the folder
            if read_back and not _holds(path, part):
                raise ExportError(f"{path} does not hold what was written.", "The disk may be failing.")
        names.append(path.name)
        where |= dict.fromkeys(part, path.name)
        size += sum(tensor.numel() * tensor.element_size() for tensor in part.values())
    on_progress(Progress("writing the weights", count, count))
    for other in folder.glob("model*.safetensors"):
        if other.name not in names:
            other.unlink()
    if count > 1:
        write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": where})


def _split(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        needed = tensor.numel() * tensor.element_size()
        if part and size + needed > SHARD:
            yield part
            part, size = {}, 0
        part[name] = tensor
        size += needed
    yield part


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def _holds(path: Path, part: Mapping[str, Tensor]) -> bool:
    """Whether a file is there already with exactly these tensors."""
    with suppress(OSError, SafetensorError), safe_open(path, "pt") as file:
        return set(file.keys()) == set(part) and all(_same(file.get_tensor(name), part[name]) for name in part)
    return False


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other.cpu())


def write_config(folder: Path, base: Path, architecture: str, dtype: str, block: Mapping[str, Any]) -> None:
    """The base model's own config.json with the precision of the stored weights and, where there is one, the block.

    Args:
        architecture: class of the model, for a configuration that does not name it.
        dtype: such as ``bfloat16``.
        block: ``quantization_config``; {} for a folder of stock shapes.
    """
    config = {key: value for key, value in read_table(base / "config.json").items() if key != "torch_dtype"}
    config |= {"architectures": config.get("architectures") or [architecture], "dtype": dtype}
    if block:
        files, loader = _CODE[block["quant_method"]]
        paths = [Path(str(module.__file__)) for module in files]
        auto = {"AutoConfig": f"{paths[0].stem}.{loader.__name__}"}
        config |= {"quantization_config": dict(block), "auto_map": auto}
        for path in paths:  # in the folder they find each other without the program
            code = path.read_text(encoding="utf-8").replace(f"from {lowrank.__package__}.", "from .")
            write_atomic(folder / path.name, code)
    write_json(folder / "config.json", config)


def write_companions(folder: Path, model: Any, tokenizer: Any) -> None:
    """Tokenizer with its chat template, and how the model is to generate."""
    with disk_errors(folder):
        tokenizer.save_pretrained(folder)
        if (generation := getattr(model, "generation_config", None)) is not None:
            generation.save_pretrained(folder)


def block_of(layout: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """``quantization_config``: what the loader needs, and behind it where the model comes from."""
    version = lowrank.PACKED_FORMAT if layout.get("packed") else lowrank.FORMAT
    method = experts.EXPERTS_METHOD if layout.get("experts") else lowrank.METHOD
    head = {"quant_method": method, "format": version}
    return json.loads(json.dumps({**head, **layout, **facts})) if layout else {}
