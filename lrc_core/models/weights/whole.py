"""A whole model from its files, in the precision in which they hold it."""

from __future__ import annotations

from typing import Any

import torch

from lrc_core.errors import CancelledError, LrcError, ModelError
from lrc_core.models.progress_bars import quiet_transformers
from lrc_core.models.source import ModelFiles
from lrc_core.models.weights.fit import load_failure, require_matching_files
from lrc_core.runs.spec import ModelRef
from lrc_core.types import OnProgress, Progress, ShouldStop

_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def stored_dtype(files: ModelFiles) -> torch.dtype | str:
    """What most of the weights are stored as; config.json may say less, and would have them rounded."""
    sizes: dict[str, int] = {}
    for tensor in files.tensors:
        if tensor.dtype in _FLOATS:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.bytes
    return _FLOATS[max(sizes, key=sizes.__getitem__)] if sizes else "auto"


def is_memory_error(error: BaseException) -> bool:
    """Whether it says, in any of the ways that PyTorch has, that there is no memory left."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def read_whole(
    files: ModelFiles, ref: ModelRef, on_progress: OnProgress, should_stop: ShouldStop
) -> tuple[Any, list[str]]:
    """The model, whose files hold what its configuration asks for and nothing else, and what is to be told of them.

    Raises:
        ModelError: files and configuration do not fit each other, or the model's own code may not run.
    """
    notes = require_matching_files(files.folder, files.tensors, pickled=files.pickled, trust=ref.trust_remote_code)
    model, unused = _read_model(files, ref, on_progress, should_stop)
    if notes is None and unused:
        raise ModelError(
            f"{unused[0]} in {files.folder} has no place in {type(model).__name__} ({len(unused)} in all).",
            "Load the original, merged, full-precision model, or correct its config.json.",
        )
    return model, [*(notes or ()), *_untied(model)]


def _read_model(
    files: ModelFiles, ref: ModelRef, on_progress: OnProgress, should_stop: ShouldStop
) -> tuple[Any, list[str]]:
    """The model on the CPU in its stored precision, and the names of tensors that it did not take."""
    from transformers import AutoModelForCausalLM

    on_progress(Progress("loading the weights"))
    try:
        with quiet_transformers("loading the weights", on_progress, should_stop):
            model, info = AutoModelForCausalLM.from_pretrained(
                files.folder,
                dtype=stored_dtype(files),
                use_safetensors=not files.pickled,
                trust_remote_code=ref.trust_remote_code,
                local_files_only=True,
                output_loading_info=True,
            )
    except LrcError:
        raise
    except Exception as error:  # transformers and a model's own code raise whatever they like
        if is_memory_error(error):
            raise
        raise _load_failure(files, ref, error) from error
    if should_stop():
        raise CancelledError("Stopped while loading the weights.")
    if wrong := [*sorted(info["missing_keys"]), *sorted(str(key[0]) for key in info["mismatched_keys"])]:
        raise ModelError(
            f"The weights in {files.folder} do not fit {files.architecture}: {wrong[0]} is missing or misshapen.",
            "The model is incomplete, or its config.json belongs to another one.",
        )
    return model, sorted(info["unexpected_keys"])


def _untied(model: Any) -> list[str]:
    """A word where config.json ties two parameters that the files hold with different values; both are kept."""
    declared = (
        set(model.get_expanded_tied_weights_keys(all_submodels=True)) if model.config.tie_word_embeddings else set()
    )
    return [
        f"config.json ties {name} to another parameter, and the files hold one of its own, which is used."
        for name in sorted(declared - set(model.all_tied_weights_keys))
    ]


def _load_failure(files: ModelFiles, ref: ModelRef, error: Exception) -> ModelError:
    if "trust_remote_code" in str(error) and not ref.trust_remote_code:
        return ModelError(
            f"{ref.source} needs its own code to run, which is not allowed.",
            "Read that code, and allow the model's own code if you trust it.",
        )
    return load_failure(files.folder, error)
