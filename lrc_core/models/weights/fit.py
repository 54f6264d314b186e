"""Comparing the tensors of a model's files with the model that its configuration describes, before any weight is read.

The model is built without memory (meta device), and transformers' own loader is asked where each tensor would go. Run
as a program it answers a question in JSON, so that processes without torch can ask too (see ``ask``).
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from lrc_core.errors import LrcError, ModelError
from lrc_core.models.headers import FLOAT_TYPES, TensorHeader
from lrc_core.models.json_files import read_table
from lrc_core.models.progress_bars import quiet_transformers
from lrc_core.models.source import architecture_of
from lrc_core.models.weights.pickles import pickled_tensors
from lrc_core.models.weights.quantised import check_packed
from lrc_core.models.weights.rotary import check_rotary
from lrc_core.models.weights.unused import left_out, reason_against, recomputed
from lrc_core.types import ignore_progress, never_stop

_REMEDY = "The model is incomplete, or its config.json belongs to another one."
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def require_matching_files(
    folder: Path, tensors: Sequence[TensorHeader], *, pickled: bool, trust: bool
) -> tuple[str, ...] | None:
    """Refuse a model whose files and configuration do not belong together.

    Args:
        folder: holds config.json.
        tensors: of its safetensors; those of pickles are looked up.
        pickled: the weights are pickles.
        trust: the model's own code may run.

    Returns:
        What is left out and why, in plain sentences; None where that can only be seen by loading the model.

    Raises:
        ModelError: a parameter has no tensor or one of another shape or kind, or a tensor with a meaning has no use.
    """
    if pickled:
        tensors = pickled_tensors(folder)
        check_packed(tensors, str(folder))
    with quiet_transformers("looking at the weights", ignore_progress, never_stop):
        model = meta_model(folder, trust)
        try:
            return None if model is None else _compare(model, folder, tensors)
        except LrcError:
            raise
        except Exception:  # a class of its own make, which transformers' loader may still take
            return None


def meta_model(folder: Path, trust: bool) -> Any:
    """The model on the meta device; None where that takes code of its own, or transformers cannot do it.

    Raises:
        ModelError: transformers refuses the configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    own_code = "auto_map" in read_table(folder / "config.json")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust, local_files_only=True)
    except Exception as error:  # transformers and a model's own code raise whatever they like
        if own_code:
            return None
        raise load_failure(folder, error) from error
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    except Exception as error:
        if "Unrecognized configuration class" in str(error) and not own_code:
            raise load_failure(folder, error) from error
        return None  # loading says what is wrong with it


def load_failure(folder: Path, error: Exception) -> ModelError:
    """The error for whatever transformers says of a model that it cannot load."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    architecture = architecture_of(read_table(folder / "config.json"))
    return ModelError(
        f"transformers cannot load {folder} ({architecture or 'unknown architecture'}): {reason[:500]}",
        "Check that it is a causal language model that this version of transformers knows.",
    )


def _compare(model: Any, folder: Path, tensors: Sequence[TensorHeader]) -> tuple[str, ...]:
    where = f"The weights in {folder} do not fit {type(model).__name__}"
    targets = _targets(model, tensors, where)
    wanted: Mapping[str, Any] = model.state_dict(keep_vars=True)
    unused = [tensor for tensor in tensors if targets[tensor.name] not in wanted]
    _check_types(tensors, targets, wanted, where)
    if missing := _missing(model, set(targets.values()), wanted):
        raise ModelError(f"{where}: {missing[0]} is missing ({_counted(len(missing))} in all).", _REMEDY)
    said = _reasons(model, unused, targets, where)
    check_rotary(model, folder, unused)
    _check_shapes(model, tensors, targets, wanted, where)
    return tuple(f"{_counted(len(names))} not used, e.g. {names[0]}: {why}." for why, names in said.items())


def _counted(number: int) -> str:
    return f"{number} tensor" + ("" if number == 1 else "s")


def _targets(model: Any, tensors: Sequence[TensorHeader], where: str) -> dict[str, str]:
    """The name in the model of every tensor, as transformers' loader would rename it."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    mapping = deepcopy(get_model_conversion_mapping(model) or [])
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    wanted, prefix = model.state_dict(), model.base_model_prefix
    found: dict[str, str] = {}
    alone: dict[str, str] = {}
    for name in sorted((tensor.name for tensor in tensors), key=dot_natural_key):
        target, converted = rename_source_key(name, renamings, converters, prefix, wanted)
        if target not in wanted and name in wanted:
            target, converted = rename_source_key(name, [], [], prefix, wanted)
        found[name] = target
        if converted is None and alone.setdefault(target, name) != name and target in wanted:
            raise ModelError(f"{where}: {alone[target]} and {name} are both {target}.", "Take one of them out.")
    return found


def _check_types(
    tensors: Sequence[TensorHeader], targets: Mapping[str, str], wanted: Mapping[str, Any], where: str
) -> None:
    for tensor in tensors:
        target = wanted.get(targets[tensor.name])
        if target is not None and target.is_floating_point() and tensor.dtype not in FLOAT_TYPES:
            raise ModelError(
                f"{where}: {tensor.name} is stored as {tensor.dtype}, which is no float of 16 bits or more.",
                "It may be quantised; load the full-precision original of the model.",
            )


def _missing(model: Any, given: set[str], wanted: Mapping[str, Any]) -> list[str]:
    """Parameters without a tensor; one that is tied to another, or is the same object, has the other's."""
    ties = dict(getattr(model, "all_tied_weights_keys", None) or {})
    groups: dict[Any, set[str]] = defaultdict(set)
    for name, parameter in wanted.items():
        groups[ties.get(name, name)].add(name)
        groups[id(parameter)].add(name)
    here = {name for group in groups.values() if group & given for name in group}
    return sorted(set(wanted) - given - here)


def _reasons(
    model: Any, unused: Sequence[TensorHeader], targets: Mapping[str, str], where: str
) -> dict[str, list[str]]:
    """Tensors that are left out, by what they are; none for what the model makes itself.

    Raises:
        ModelError: neither the lists of this program nor the model's class in transformers know one of them.
    """
    patterns = list(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    declared = re.compile("|".join(f"({pattern})" for pattern in patterns)) if patterns else None
    bad, said = [], defaultdict(list)
    for tensor in unused:
        if recomputed(tensor):
            continue
        if why := left_out(tensor):
            said[why].append(tensor.name)
        elif declared and declared.search(targets[tensor.name]):
            said["transformers' class of the model leaves it out"].append(tensor.name)
        else:
            bad.append(tensor.name)
    if bad:
        first = min(bad)
        hint = reason_against(first)
        raise ModelError(
            f"{where}: {first}{f' ({hint})' if hint else ''} has no place in it; of {_counted(len(bad))} the model "
            "would know nothing.",
            "Load the original, merged, full-precision model, or correct its config.json.",
        )
    return said


def _check_shapes(
    model: Any,
    tensors: Sequence[TensorHeader],
    targets: Mapping[str, str],
    wanted: Mapping[str, Any],
    where: str,
) -> None:
    """Let transformers' loader do its work without memory: experts stacked, fused matrices split."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import convert_and_load_state_dict_in_model
    from transformers.modeling_utils import LoadStateDictConfig

    taken = {
        tensor.name: torch.empty(tensor.shape, dtype=_DTYPES.get(tensor.dtype, torch.uint8), device="meta")
        for tensor in tensors
        if targets[tensor.name] in wanted
    }
    settings = LoadStateDictConfig(
        device_map={"": "meta"}, weight_mapping=get_model_conversion_mapping(model), ignore_mismatched_sizes=True
    )
    info, _ = convert_and_load_state_dict_in_model(model, taken, settings)
    for name, stored, needed in sorted(info.mismatched_keys, key=str):
        raise ModelError(
            f"{where}: {name} is stored as {tuple(stored)} and must be {tuple(needed)}.",
            _REMEDY,
        )
    for name in sorted(info.conversion_errors):
        raise ModelError(f"{where}: the tensors of {name} cannot be put together.", _REMEDY)


def ask(question: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a question of :mod:`lrc_core.models.weights.check`."""
    try:
        if question["kind"] == "gguf":
            notes: tuple[str, ...] | None = require_gguf_fit(Path(question["path"]))
        else:
            tensors = [
                TensorHeader(name, tuple(shape), dtype, 0, start) for name, shape, dtype, start in question["tensors"]
            ]
            notes = require_matching_files(
                Path(question["path"]), tensors, pickled=question["kind"] == "pickle", trust=question["trust"]
            )
    except LrcError as error:
        return {"message": error.message, "remedy": error.remedy}
    return {"notes": list(notes or ())}


def require_gguf_fit(path: Path) -> tuple[str, ...]:
    """The same for a GGUF file.

    Raises:
        ModelError: as :func:`require_matching_files`.
    """
    from lrc_core.models.gguf.architectures import READ_BY_TRANSFORMERS
    from lrc_core.models.gguf.split_files import whole_header
    from lrc_core.models.gguf.unpack import empty_model, target_names

    header = whole_header(path)
    if header.architecture not in READ_BY_TRANSFORMERS:  # those are compared while they are read
        with quiet_transformers("looking at the weights", ignore_progress, never_stop):
            target_names(empty_model(path), header)
    return ()


if __name__ == "__main__":
    json.dump(ask(json.load(sys.stdin)), sys.stdout)
