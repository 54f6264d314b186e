"""What a model's name stands for, and whether the files behind it can be used. No torch.

A name is ``starter``, a folder, a GGUF file, or a hub id; a folder that exists wins over a hub id of the same name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc_core.errors import ModelError
from lrc_core.models.consent import ALLOW_PICKLE
from lrc_core.models.headers import TensorHeader, safetensors_header
from lrc_core.paths import cache_home
from lrc_core.runs.spec import ModelRef

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


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
    """
    name = ref.source.strip()
    if name == "starter":
        return Source("starter")
    path = Path(name).expanduser()
    if name and os.path.isdir(path):  # of a name that cannot be a path's, too long for one say, the answer is no
        return Source("folder", path)
    if os.path.isfile(path):
        if path.suffix.lower() == ".gguf":
            return Source("gguf", path)
        raise ModelError(f"{name} is not a model.", "Name the folder that holds config.json, or a .gguf file.")
    if is_path(name) or name.lower().endswith((".gguf", ".safetensors")):
        raise ModelError(f"There is no folder or file {name}.", "Check the path; it may have been moved or deleted.")
    if not _HUB_ID.fullmatch(name):
        raise ModelError(
            f"{name!r} is neither a folder, a GGUF file, nor a hub id.",
            "A hub id looks like owner/name; `starter` is the built-in model.",
        )
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
    files = weight_files(folder)
    if files:
        tensors = tuple(tensor for file in files for tensor in safetensors_header(file))
        return ModelFiles(folder, config, tensors, sum(file.stat().st_size for file in files), pickled=False)
    pickles = [path for name in _PICKLES if (path := folder / name).is_file()]
    if not pickles:
        raise ModelError(
            f"{folder} holds no weights.", "It needs model.safetensors, or shards with model.safetensors.index.json."
        )
    if not allow_pickle:
        raise ModelError(
            f"The weights in {folder} are pickled ({pickles[0].name}), and loading a pickle can run any code.",
            "Use a safetensors version of the model. If you trust their origin, allow them: `lrc ... --allow-pickle`, "
            f"or start the app with {ALLOW_PICKLE}={folder}.",
        )
    return ModelFiles(folder, config, (), sum(path.stat().st_size for path in folder.glob("*.bin")), pickled=True)


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a complete safetensors model."""
    try:
        look_through(folder, allow_pickle=False)
    except ModelError:
        return False
    return True


def unpacked_folder(path: Path) -> Path:
    """Where the unpacked model of a GGUF file is kept; the name changes when the file does.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror}.") from error
    key = hashlib.sha256(f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:16]
    return cache_home() / "gguf" / f"{path.stem}-{key}"


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Refuse what is certain not to work.

    Raises:
        ModelError: an encoder-decoder, or a quantised model.
    """
    if config.get("is_encoder_decoder"):
        raise ModelError(
            f"{where} is an encoder-decoder model.", "Only causal (decoder-only) language models can be compressed."
        )
    if quantisation := config.get("quantization_config"):
        method = quantisation.get("quant_method", "") if isinstance(quantisation, dict) else ""
        raise ModelError(
            f"{where} is quantised already ({method or 'quantization_config'}).",
            "Load the full-precision original of the model.",
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
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"Cannot read {path}: {error}.", "Download or copy the file again.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a model configuration.", "Download or copy the file again.")
    return config


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would load; [] where there are none."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"Cannot read {index}: {error}.", "Download or copy the file again.") from error
    files = [folder / str(name) for name in names]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise ModelError(
            f"{missing[0]} is missing ({len(missing)} of {len(files)} shards are).", "Download or copy it again."
        )
    return files
