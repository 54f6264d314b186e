"""Turning a GGUF file into a plain model folder, once, so that every later load is fast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lrc_core.errors import CancelledError, LrcError, ModelError
from lrc_core.files import disk_errors, fill_aside
from lrc_core.models.cache_room import one_at_a_time, require_disk
from lrc_core.models.gguf.architectures import READ_BY_TRANSFORMERS, check_keys
from lrc_core.models.gguf.keys import REMEDY
from lrc_core.models.gguf.packing import check_types
from lrc_core.models.gguf.split_files import gguf_parts, read_floats, whole_header
from lrc_core.models.gguf.unpack import filled_model
from lrc_core.models.progress_bars import quiet_transformers
from lrc_core.models.resources import unpacked_bytes, unpacks_to_float32
from lrc_core.models.source import is_whole, unpacked_folder
from lrc_core.types import OnProgress, Progress, ShouldStop


def convert_gguf(path: Path, folder: Path, on_progress: OnProgress, should_stop: ShouldStop) -> None:
    """Write the model of a GGUF file, its weights unpacked, and its tokenizer into an existing folder.

    Args:
        path: the GGUF file, or any part of one that was split.
        folder: receives config.json, model.safetensors and the tokenizer's files.

    Raises:
        ModelError: the file is damaged or incomplete, or says something that cannot be carried over.
    """
    header = whole_header(path)
    check_keys(header, lambda name: read_floats(path, name), path.name)
    check_types(header, path.name)
    params = sum(tensor.numel for tensor in header.tensors)
    dtype = torch.float32 if unpacks_to_float32(params) else torch.bfloat16
    phase = f"unpacking {path.name}"
    on_progress(Progress(phase))
    try:
        with quiet_transformers(phase, on_progress, should_stop):
            tokenizer = _read_tokenizer(gguf_parts(path)[0])
            if header.architecture in READ_BY_TRANSFORMERS:
                model = _read_by_transformers(path, dtype)
            else:
                model = filled_model(path, dtype, on_progress, should_stop)
            if should_stop():
                raise CancelledError(f"Stopped while {phase}.")
            on_progress(Progress("saving the unpacked model"))
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except LrcError:
        raise
    except Exception as error:  # transformers and tokenizers raise many kinds, bare ones included
        if isinstance(error, MemoryError | OSError) or "can't allocate memory" in str(error):
            raise
        raise ModelError(
            f"Cannot load {path} ({header.architecture or 'unknown architecture'}): {error}",
            "Use a GGUF file of an architecture that transformers can unpack, or the model's safetensors.",
        ) from error
    _forget_origin(folder)


def _read_tokenizer(first: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(first.parent, gguf_file=first.name)


def _read_by_transformers(path: Path, dtype: torch.dtype) -> Any:
    """By transformers' newer reader, which follows all keys of the few architectures that it knows."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.quantization_config import GgufConfig

    if len(gguf_parts(path)) > 1:
        raise ModelError(
            f"{path.name} is one part of a split GGUF file of an architecture whose parts cannot be read as one.",
            "Merge them with `llama-gguf-split --merge`.",
        )
    # Said explicitly, because packed weights are kept where a suitable kernel happens to be installed.
    model, info = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
    )
    if wrong := [*sorted(info["missing_keys"]), *sorted(info["unexpected_keys"])]:
        raise ModelError(f"{path.name} does not fit {type(model).__name__}: {wrong[0]}.", REMEDY)
    return _plain_copy(model)


def _plain_copy(model: Any) -> Any:
    """The same weights under a configuration without quantisation, which refuses to be saved."""
    from transformers import AutoModelForCausalLM

    settings = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    config = type(model.config)(**settings)
    with torch.device("meta"):  # no second copy of the weights
        plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    if (generation := getattr(model, "generation_config", None)) is not None:
        plain.generation_config = generation
    return plain


def _forget_origin(folder: Path) -> None:
    """Drop what the files say of the folder they were made in."""
    for name, keys in (
        ("config.json", ("_model_name_or_path",)),
        ("tokenizer_config.json", ("local_files_only", "is_local")),
    ):
        path = folder / name
        data = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(
            json.dumps({key: value for key, value in data.items() if key not in keys}, indent=2) + "\n",
            encoding="utf-8",
        )


def unpacked_gguf(path: Path, on_progress: OnProgress, should_stop: ShouldStop) -> Path:
    """The folder of a GGUF file's unpacked model, made at the first call and kept in the cache.

    Raises:
        ModelError: damaged, incomplete, or of an unknown architecture.
        ResourceError: not enough disk.
    """
    folder = unpacked_folder(path)
    if is_whole(folder):
        return folder
    header = whole_header(path)
    label = f"unpacked {path.name}"
    with (
        disk_errors(folder.parent, cache=True),
        one_at_a_time(folder.with_suffix(".lock"), label, on_progress, should_stop),
    ):
        if not is_whole(folder):
            require_disk(folder.parent, unpacked_bytes(sum(tensor.numel for tensor in header.tensors)), label)
            fill_aside(folder, lambda aside: convert_gguf(path, aside, on_progress, should_stop))
    return folder
