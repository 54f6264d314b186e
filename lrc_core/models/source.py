"""What a model's name stands for, and whether the files behind it can be used. No torch.

A name is ``starter``, a folder, a GGUF file, or a hub id; a folder that exists wins over a hub id of the same name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc_core.digests import digest_of, file_digest
from lrc_core.errors import ModelError
from lrc_core.models.consent import ALLOW_PICKLE
from lrc_core.models.gguf.split_files import gguf_parts, stem_of
from lrc_core.models.headers import TensorHeader
from lrc_core.models.json_files import MAX_TOKENIZER_BYTES, read_table
from lrc_core.models.weights.quantised import check_packed, check_settings
from lrc_core.models.weights.shards import check_experts, pickle_files, read_headers
from lrc_core.paths import cache_home, expanded
from lrc_core.runs.spec import ModelRef
from lrc_core.visitors import not_offered, require_hub_id, visitor

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_UNPACKED = 2
"""Counts up when GGUF files are unpacked otherwise, so that what an older version made is made anew."""
_COUNT = re.compile(r"(num|n)_(\w+_)?(layers?|experts?|blocks?|heads?|groups?)")
_BLOCKS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_MOST = 10_000
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        kind: ``starter``, ``folder``, ``gguf`` or ``hub``.
        path: the folder or file; None for starter and hub.
    """

    kind: str
    path: Path | None = None


@dataclass(frozen=True)
class ModelFiles:
    """A model folder that has been looked through.

    Attributes:
        config: content of config.json.
        tensors: what the safetensors hold; empty for pickled weights, which cannot be read safely.
        weight_bytes: size of the weight files.
        pickled: the weights are not safetensors.
    """

    folder: Path
    config: Mapping[str, Any]
    tensors: tuple[TensorHeader, ...]
    weight_bytes: int
    pickled: bool

    @property
    def architecture(self) -> str:
        """The model class that config.json names."""
        return architecture_of(self.config)


def find_source(ref: ModelRef) -> Source:
    """What the user's name stands for.

    Raises:
        ModelError: a path that does not exist, a file that is no model, or a name that cannot be a hub id.
        SharedServerError: a visitor named what this server does not offer.
    """
    name = ref.source.strip()
    if name == "starter":
        return Source("starter")
    path = expanded(name)
    if name and os.path.isdir(path):  # of a name that cannot be a path's, too long for one say, the answer is no
        return Source("folder", path)
    if os.path.isfile(path):
        if path.suffix.lower() == ".gguf":
            return Source("gguf", path)
        if path.name == "config.json":
            return Source("folder", path.parent)
        raise ModelError(f"{name} is not a model.", "Name the folder that holds config.json, or a .gguf file.")
    if visitor() is not None and is_path(name):
        raise not_offered(name)
    if is_path(name) or name.lower().endswith((".gguf", ".safetensors")):
        raise ModelError(f"There is no folder or file {name}.", "Check the path; it may have been moved or deleted.")
    if not _HUB_ID.fullmatch(name):
        raise ModelError(
            f"{name!r} is neither a folder, a GGUF file, nor a hub id.",
            "A hub id looks like owner/name; `starter` is the built-in model.",
        )
    if not ref.revision.isprintable():
        raise ModelError(f"{ref.revision[:60]!r} cannot be a revision.", "Name a branch, a tag or a commit of the hub.")
    require_hub_id(name)
    return Source("hub")


def is_path(name: str) -> bool:
    """Whether a name can only be a path, by its letters alone: the disk is not asked."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def look_through(folder: Path, *, allow_pickle: bool) -> ModelFiles:
    """Check a model folder without loading it: configuration, weight files, their headers and sizes.

    Raises:
        ModelError: names the file that is missing, damaged or cut short, or says why the model cannot be used.
    """
    if not folder.is_dir():
        raise ModelError(f"The model folder {folder} does not exist.", "It may have been moved or deleted.")
    config = _read_config(folder)
    check_config(config, str(folder))
    if shards := read_headers(folder):
        tensors = tuple(tensor for found in shards.values() for tensor in found)
        check_tensors(tensors, str(folder))
        check_counts(config, len(tensors), str(folder))
        size = sum((folder / name).stat().st_size for name in shards)
        return ModelFiles(folder, config, tensors, size, pickled=False)
    pickles = pickle_files(folder)
    if not pickles:
        raise no_weights(folder)
    if not allow_pickle:
        raise ModelError(
            f"The weights in {folder} are pickled ({pickles[0].name}), and loading a pickle can run any code.",
            "Use a safetensors version of the model. If you trust their origin, allow them: `lrc ... --allow-pickle`, "
            f"or start the app with {ALLOW_PICKLE}={folder}.",
        )
    check_counts(config, 0, str(folder))
    return ModelFiles(folder, config, (), sum(path.stat().st_size for path in pickles), pickled=True)


def no_weights(folder: Path) -> ModelError:
    """The error for a folder whose configuration has no weights beside it."""
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    return ModelError(
        f"{folder} holds no weights{f' under a name that is known ({others[0][:80]} is none)' if others else ''}.",
        "It needs model.safetensors, or shards with model.safetensors.index.json.",
    )


def check_tensors(tensors: Sequence[TensorHeader], where: str) -> None:
    """Refuse what can be seen of the tensors' names and types alone.

    Raises:
        ModelError: quantised weights, or gaps between experts.
    """
    check_packed(tensors, where)
    check_experts(tensors, where)


def check_counts(config: Mapping[str, Any], tensors: int, where: str) -> None:
    """Refuse numbers of blocks or experts that no model has: building it would take for ever.

    Args:
        config: content of config.json.
        tensors: how many the files hold; 0 where that is not known.

    Raises:
        ModelError: names the entry.
    """
    for part in (config, config.get("text_config")):
        for name, value in part.items() if isinstance(part, Mapping) else ():
            if isinstance(value, int | float) and _COUNT.fullmatch(name):
                most = min(_MOST, tensors) if tensors and name in _BLOCKS else _MOST
                if not -1 <= value <= most:
                    held = f" and its files hold {tensors:,} tensors" if most < _MOST else ""
                    raise ModelError(f"config.json of {where} sets {name[:80]} to {value}{held}.", "Download it again.")


def check_tokenizer(folder: Path) -> None:
    """Refuse tokenizer files that are damaged, too large or nested too deeply; that none may be there.

    Raises:
        ModelError: names the file.
    """
    for name in _TOKENIZER_FILES:
        if (path := folder / name).is_file():
            read_table(path, MAX_TOKENIZER_BYTES)


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a complete safetensors model."""
    try:
        look_through(folder, allow_pickle=False)
    except ModelError:
        return False
    return True


def unpacked_folder(path: Path) -> Path:
    """Where the unpacked model of a GGUF file is kept; the name changes when the file's content does.

    Raises:
        ModelError: the file cannot be read.
    """
    parts = gguf_parts(path)
    try:
        key = digest_of([_UNPACKED, *map(file_digest, parts)])[:16]
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror}.") from error
    return cache_home() / "gguf" / f"{stem_of(path)}-{key}"


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Refuse what is certain not to work.

    Raises:
        ModelError: an encoder-decoder, a quantised model, or weights under another name.
    """
    if config.get("is_encoder_decoder"):
        raise ModelError(
            f"{where} is an encoder-decoder model.", "Only causal (decoder-only) language models can be compressed."
        )
    check_settings(config, where)
    if other := config.get("transformers_weights"):
        raise ModelError(
            f"config.json of {where} names weights of its own ({str(other)[:80]}).",
            "Take the entry transformers_weights out, and name the file model.safetensors.",
        )


def architecture_of(config: Mapping[str, Any]) -> str:
    """The model class a configuration names, or its model type, or ""."""
    named = config.get("architectures")
    if isinstance(named, list) and named:
        return str(named[0])
    return str(config.get("model_type", ""))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(f"{folder} is an adapter, not a model.", "Merge it into its base model and save that.")
        ggufs = sorted(folder.glob("*.gguf"))
        hint = f"Name the GGUF file itself: {ggufs[0]}." if ggufs else "Name the folder that holds config.json."
        raise ModelError(f"{folder} has no config.json.", hint)
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} holds an adapter beside the model (adapter_config.json).",
            "Merge it into the model and save that, or take the adapter's files out of the folder.",
        )
    return read_table(path)
