"""Turning a GGUF file into a plain model folder, once, so that every later load is fast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lrc_core.errors import CancelledError, LrcError, ModelError
from lrc_core.files import disk_errors, fill_aside
from lrc_core.models.aside import one_at_a_time, require_disk
from lrc_core.models.headers import gguf_header
from lrc_core.models.quiet import quiet_transformers
from lrc_core.models.resources import unpacked_bytes, unpacks_to_float32
from lrc_core.models.source import is_whole, unpacked_folder
from lrc_core.types import OnProgress, Progress, ShouldStop


def convert_gguf(path: Path, folder: Path, on_progress: OnProgress, should_stop: ShouldStop) -> None:
    """Write the model of a GGUF file, its weights unpacked, and its tokenizer into an existing folder.

    Args:
        path: the GGUF file.
        folder: receives config.json, model.safetensors and the tokenizer's files.
        on_progress: told what is being done.
        should_stop: asked between the steps and at every tensor.

    Raises:
        ModelError: the file is damaged, or transformers does not know its architecture.
        CancelledError: the user asked to stop.
    """
    header = gguf_header(path)
    params = sum(tensor.numel for tensor in header.tensors)
    dtype = torch.float32 if unpacks_to_float32(params) else torch.bfloat16
    phase = f"unpacking {path.name}"
    on_progress(Progress(phase))
    try:
        with quiet_transformers(phase, on_progress, should_stop):
            model, tokenizer = _read(path, dtype)
            if should_stop():
                raise CancelledError(f"Stopped while {phase}.")
            on_progress(Progress("saving the unpacked model"))
            plain = _plain_copy(model)
            plain.save_pretrained(folder)
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


def _read(path: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    # Said explicitly, because packed weights are kept where a suitable kernel happens to be installed.
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return model, tokenizer


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
        ModelError: damaged, or of an unknown architecture.
        ResourceError: not enough disk.
        CancelledError: the user asked to stop.
    """
    folder = unpacked_folder(path)
    if is_whole(folder):
        return folder
    header = gguf_header(path)
    label = f"unpacked {path.name}"
    with (
        disk_errors(folder.parent, cache=True),
        one_at_a_time(folder.with_suffix(".lock"), label, on_progress, should_stop),
    ):
        if not is_whole(folder):
            require_disk(folder.parent, unpacked_bytes(sum(tensor.numel for tensor in header.tensors)), label)
            fill_aside(folder, lambda aside: convert_gguf(path, aside, on_progress, should_stop))
    return folder
