"""The weight files of a model folder: one, or several with an index that says which tensor lies where. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrc_core.errors import ModelError
from lrc_core.models.headers import REMEDY, TensorHeader, safetensors_header
from lrc_core.models.json_files import read_table

_MOST_SHARDS = 10_000
_EXPERT = re.compile(r"(.*\.experts\.)(\d+)(\..*)")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would load; [] where there are none.

    Raises:
        ModelError: the index is damaged, or names a file that is missing or lies elsewhere.
    """
    return _files(folder, "model.safetensors")


def pickle_files(folder: Path) -> list[Path]:
    """The same for pickled weights."""
    return _files(folder, "pytorch_model.bin")


def read_headers(folder: Path) -> dict[str, tuple[TensorHeader, ...]]:
    """Tensors of each safetensors file of a folder, compared with the index; {} where there is no such file.

    Raises:
        ModelError: a file is damaged or missing, a tensor lies in two files, or not in the one that the index names.
    """
    files = weight_files(folder)
    shards = {file.name: safetensors_header(file) for file in files}
    index = folder / "model.safetensors.index.json"
    if len(files) != 1 or not (folder / "model.safetensors").is_file():
        check_shards(shards, _weight_map(index) if files else {}, str(index))
    return shards


def check_shards(shards: Mapping[str, Sequence[TensorHeader]], index: Mapping[str, str], where: str) -> None:
    """Refuse shards that contradict each other or their index.

    Args:
        shards: tensors of each file.
        index: the file of every tensor; {} where it is not known.
        where: the index's name, for messages.

    Raises:
        ModelError: names the tensor.
    """
    place: dict[str, str] = {}
    for shard, tensors in shards.items():
        for tensor in tensors:
            if tensor.name in place:
                raise ModelError(
                    f"{tensor.name} stands in {place[tensor.name]} and in {shard}.",
                    "Files of two versions of the model lie in one folder; download it again.",
                )
            place[tensor.name] = shard
    for name, shard in index.items():
        if place.get(name) != shard:
            raise ModelError(f"{where} names {name[:200]} in {shard}, which does not hold it.", REMEDY)


def check_experts(tensors: Sequence[TensorHeader], where: str) -> None:
    """Refuse gaps in numbered experts: stacking them would give every later one another's place.

    Raises:
        ModelError: names the tensor that is missing.
    """
    numbers: dict[tuple[str, str], set[int]] = {}
    for tensor in tensors:
        if match := _EXPERT.fullmatch(tensor.name):
            numbers.setdefault((match[1], match[3]), set()).add(int(match[2]))
    for (before, after), found in numbers.items():
        if gap := next((number for number in range(len(found)) if number not in found), None):
            raise ModelError(f"{where} lacks {before}{gap}{after}.", "The model is incomplete; download it again.")
        if 0 not in found:
            raise ModelError(f"{where} lacks {before}0{after}.", "The model is incomplete; download it again.")


def check_shard_name(name: Any, where: str) -> str:
    """A shard's name, which must be that of a file beside the index.

    Raises:
        ModelError: it is none.
    """
    plain = isinstance(name, str) and 0 < len(name) <= 255 and name.isprintable()
    if not plain or name in (".", "..") or any(sign in name for sign in "/\\:"):
        raise ModelError(
            f"{where} names the shard {str(name)[:100]!r}, which is no file of its own folder.",
            "Shards lie beside their index; download the model again.",
        )
    return str(name)


def _files(folder: Path, single: str) -> list[Path]:
    if (folder / single).is_file():
        return [folder / single]
    index = folder / f"{single}.index.json"
    if not index.is_file():
        return []
    names = sorted(set(_weight_map(index).values()))
    files = [folder / name for name in names]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise ModelError(
            f"{missing[0]} is missing ({len(missing)} of {len(files)} shards are).", "Download or copy it again."
        )
    return files


def _weight_map(index: Path) -> dict[str, str]:
    content = read_table(index).get("weight_map")
    if not isinstance(content, dict) or not content:
        raise ModelError(f"{index} has no weight_map.", REMEDY)
    found = {name: check_shard_name(shard, str(index)) for name, shard in content.items()}
    if len(set(found.values())) > _MOST_SHARDS:
        raise ModelError(f"{index} names more than {_MOST_SHARDS:,} shards.", REMEDY)
    return found
