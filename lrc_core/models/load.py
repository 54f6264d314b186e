"""Loading a model for work: from the starter pack, a folder, a GGUF file or the hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrc_core.coverage import coverage_words
from lrc_core.errors import ModelError, ResourceError
from lrc_core.models.allocator import keep_freed_memory, return_freed_memory
from lrc_core.models.blocks.experts import unstack_experts
from lrc_core.models.blocks.linears import Blocks, decoder_blocks, find_blocks
from lrc_core.models.blocks.partial import look_at_output
from lrc_core.models.checks.first_look import first_look
from lrc_core.models.checks.fit import model_positions
from lrc_core.models.device import memory_available, named_dtype, pick_device
from lrc_core.models.fingerprint import all_zero, fingerprint
from lrc_core.models.gguf.convert import unpacked_gguf
from lrc_core.models.gguf.packing import packed_types
from lrc_core.models.gguf.split_files import whole_header
from lrc_core.models.hub import cached_snapshot, fetch_snapshot
from lrc_core.models.onload.choice import onload_mode
from lrc_core.models.onload.residence import residence_of
from lrc_core.models.onload.skeleton import open_model
from lrc_core.models.onload.spread import cards_for, spread
from lrc_core.models.onload.tensor_places import WHOLE
from lrc_core.models.pack import starter
from lrc_core.models.resources import cpu_memory_available
from lrc_core.models.source import ModelFiles, check_tokenizer, find_source, look_through
from lrc_core.models.weights.fit import require_matching_files
from lrc_core.models.weights.whole import is_memory_error, read_whole, stored_dtype
from lrc_core.paths import expanded
from lrc_core.runs.spec import ModelRef
from lrc_core.types import (
    ModelCard,
    ModelIdentity,
    OnProgress,
    Progress,
    ShouldStop,
    ignore_progress,
    never_stop,
)
from lrc_core.words import data_size

_LOG = logging.getLogger(__name__)
_MEMORY_REMEDY = "Close other programs, take a smaller model, or use a machine with more memory."
_UNKNOWN_POSITIONS = 2048
_FLOAT32_ONLY = ("openai-gpt",)
NOT_CAUSAL = "The model is bidirectional: changing a token changes what it says of the tokens before it."
BY_BLOCKS = "Its weights are brought in block after block, which is slower and comes to the same results."


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for work.

    Attributes:
        model: in evaluation mode, without gradients, on ``device`` in ``dtype``.
        tokenizer: the model's own.
        card: its figures and identity.
        warnings: what the user should know, in plain sentences.
        causal: no token sees what follows; only then is there a perplexity.
        packed: types that its weights were packed in before they were unpacked, most parameters first; "" where they
            never were.
    """

    model: Any
    tokenizer: Any
    card: ModelCard
    device: torch.device
    dtype: torch.dtype
    warnings: tuple[str, ...]
    causal: bool = True
    packed: str = ""


def load_model(
    ref: ModelRef,
    *,
    device: str = "auto",
    dtype: str = "auto",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never_stop,
) -> LoadedModel:
    """Load a model, fetching it first where necessary.

    Weights are read in their stored precision, checked and fingerprinted, and only then converted.

    Args:
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        ModelError: not found, damaged, incomplete, or not a model that can be compressed.
        NumericalError: a weight is NaN or infinite; names the tensor.
        PackError: the starter model cannot be fetched.
        ResourceError: unknown device, or not enough memory or disk.
    """
    chosen = pick_device(device)
    precision = named_dtype(dtype, chosen)
    folder, revision = local_folder(ref, on_progress, should_stop)
    files = look_through(folder, allow_pickle=ref.allow_pickle)
    precision = _bearable(files, precision)
    check_tokenizer(folder)
    by_blocks = _by_blocks(_shortage(files, ref, chosen, precision))
    with _memory_errors(ref):
        if by_blocks:
            return_freed_memory()
            model, notes = _open(files, ref, chosen, precision)
        else:
            model, notes = read_whole(files, ref, on_progress, should_stop)
        tokenizer = _read_tokenizer(folder, ref)
        identity, zeros = _identified(model, ref, revision, on_progress, should_stop)
        if not by_blocks:
            on_progress(Progress(f"moving the model to {chosen}"))
            notes = [*notes, *_settle(model, chosen, precision)]
    model.eval().requires_grad_(False)
    look = first_look(model)
    if by_blocks:
        look_at_output(model)
    blocks = find_blocks(model, look.called)
    card = _card(model, identity, blocks, chosen, precision)
    warnings = (*origin_notes(ref), *notes, *zeros, *_odd(blocks, look.causal, len(tokenizer), card.vocab_size))
    for warning in warnings:
        _LOG.warning(warning)
    return LoadedModel(model, tokenizer, card, chosen, precision, warnings, look.causal, packed_as(ref))


def _identified(
    model: Any, ref: ModelRef, revision: str, on_progress: OnProgress, should_stop: ShouldStop
) -> tuple[ModelIdentity, list[str]]:
    """Who a model is by its weights, all of which are read for it, and a word where some were never filled in."""
    decoder_blocks(model)  # refuses a model without any before the minute that hashing may take
    residence = residence_of(model)
    read = None if residence is None else residence.read
    found = fingerprint(model, on_progress, should_stop, read)
    return ModelIdentity(ref.source, revision, found, type(model).__name__), _zeros(model, read)


def _bearable(files: ModelFiles, precision: torch.dtype) -> torch.dtype:
    """The precision, or float32 where the architecture's own code multiplies what is float32 with it (GPT-1's mask)."""
    return torch.float32 if files.config.get("model_type") in _FLOAT32_ONLY else precision


def _odd(blocks: Blocks, causal: bool, known: int, embedded: int) -> list[str]:
    """What is unlike other models."""
    found = []
    if silent := blocks.never_called:
        found.append(
            f"{len(silent)} linear layers stay dense because the model never calls them (it may read their weights), "
            f"{silent[0]} for one."
        )
    if words := coverage_words(blocks.coverage):
        found.append(words)
    if not causal:
        found.append(f"{NOT_CAUSAL} Losses that methods go by mean little for it, and there is no perplexity.")
    if known > embedded:
        found.append(f"The tokenizer knows {known} tokens, the model only {embedded}.")
    return found


def _settle(model: nn.Module, device: torch.device, dtype: torch.dtype) -> list[str]:
    """Bring a whole model to where and into the form in which it is worked with, and say where that is unusual."""
    unstack_experts(model)
    weights = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    if (cards := cards_for(device, weights)) and spread(model, cards, dtype):
        return [f"It lies on {len(cards)} cards, {data_size(weights)} in all: one would be too small to work on it."]
    move(model, device, dtype)
    if device.type == "cpu":  # who is short of memory, and has no whole model, gives it back
        keep_freed_memory()
    return []


def move(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a model and convert its parameters, in place; tied parameters stay tied.

    Buffers keep their precision: rotary frequencies in bfloat16 would bend every position.
    """
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(device=device, dtype=dtype)
            else:
                parameter.data = parameter.data.to(device)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)


def recast(model: nn.Module, dtype: torch.dtype) -> None:
    """Hold a whole model in another precision, in place and wherever its parts lie; buffers keep theirs."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def local_folder(ref: ModelRef, on_progress: OnProgress, should_stop: ShouldStop) -> tuple[Path, str]:
    """The folder to load from and the revision, after whatever fetching or unpacking it takes."""
    source = find_source(ref)
    if source.kind == "starter":
        return starter.ensure_model(on_progress, should_stop), ""
    if source.kind == "gguf":
        assert source.path is not None
        return unpacked_gguf(source.path, on_progress, should_stop), ""
    if source.kind == "folder":
        assert source.path is not None
        return source.path, ""
    # A commit never changes, so a complete copy of it needs no question to the hub.
    pinned = cached_snapshot(ref) if len(ref.revision) == 40 else None
    folder = pinned or fetch_snapshot(ref, on_progress, should_stop)
    return folder, folder.name


def origin_notes(ref: ModelRef) -> tuple[str, ...]:
    """What the user should know of weights that are not those the model was trained with."""
    packed = packed_as(ref) if find_source(ref).kind == "gguf" else ""
    return (f"Its weights were packed in a GGUF file as {packed} and have been unpacked.",) if packed else ()


def packed_as(ref: ModelRef) -> str:
    """Types that the weights of a model were packed in, by where it comes from; "" where they never were."""
    source = find_source(ref)
    if source.kind == "starter":
        return starter.PACKED
    return packed_types(whole_header(source.path)) if source.kind == "gguf" and source.path is not None else ""


def _shortage(files: ModelFiles, ref: ModelRef, device: torch.device, dtype: torch.dtype) -> ResourceError | None:
    """Why the whole model cannot be held; None where it can."""
    params = sum(tensor.numel for tensor in files.tensors)
    needed = max(files.weight_bytes, params * dtype.itemsize if device.type == "cpu" else 0)
    if (free := cpu_memory_available()) < needed:
        return ResourceError(
            f"Loading {ref.source} needs about {data_size(needed)} of memory, and {data_size(free)} are free.",
            _MEMORY_REMEDY,
        )
    if device.type != "cpu":
        wanted = params * dtype.itemsize
        free = sum(cards_for(device, wanted).values()) or memory_available(device)
        if free < wanted:
            return ResourceError(
                f"{ref.source} needs {data_size(wanted)} on {device}, and {data_size(free)} are free.",
                "Close other programs on that device, or choose the device cpu.",
            )
    return None


def _by_blocks(short: ResourceError | None) -> bool:
    """Whether the blocks are brought in one after the other.

    Raises:
        ResourceError: memory is short, and the user wants the model whole.
    """
    mode = onload_mode()
    if mode == "never" and short is not None:
        raise short
    return mode == "blocks" or (mode == "auto" and short is not None)


def _open(files: ModelFiles, ref: ModelRef, device: torch.device, dtype: torch.dtype) -> tuple[Any, list[str]]:
    """The model without its blocks' weights, and what is to be told of it."""
    stored, notes = stored_dtype(files), None
    if not files.pickled:
        notes = require_matching_files(files.folder, files.tensors, pickled=False, trust=ref.trust_remote_code)
    if notes is None or not isinstance(stored, torch.dtype):
        raise ModelError(
            f"The blocks of {ref.source} cannot be brought in one after the other: its files are not plain "
            "safetensors of a model that transformers knows.",
            WHOLE,
        )
    model = open_model(files.folder, trust=ref.trust_remote_code, stored=stored, device=device, dtype=dtype)
    return model, [*notes, BY_BLOCKS]


@contextmanager
def _memory_errors(ref: ModelRef) -> Iterator[None]:
    """Say "out of memory" as that."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        raise ResourceError(f"Out of memory while loading {ref.source}.", _MEMORY_REMEDY) from error


def _zeros(model: nn.Module, read: Callable[[str], Tensor] | None) -> list[str]:
    """A word on matrices of zeros: the file's length and header are right where a download was never filled in."""
    if not (names := all_zero(model, read)):
        return []
    return [
        f"{len(names)} of the model's matrices hold only zeros, {names[0]} for one. If no blocks were added to it in "
        "that way, its file is damaged: download it again."
    ]


def _read_tokenizer(folder: Path, ref: ModelRef) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=ref.trust_remote_code, local_files_only=True)
    except Exception as error:  # many kinds, none of them documented
        raise ModelError(
            f"{folder} has no tokenizer that can be read: {str(error).splitlines()[0] if str(error) else error!r}",
            "Copy the tokenizer files (tokenizer.json, tokenizer_config.json) into the model's folder.",
        ) from error


def _card(model: Any, identity: ModelIdentity, blocks: Blocks, device: torch.device, dtype: torch.dtype) -> ModelCard:
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    source = identity.source
    if source == "starter":
        name = starter.MODEL_NAME
    else:
        path = expanded(source)
        name = path.resolve().stem if os.path.exists(path) else source
    return ModelCard(
        identity=identity,
        name=name,
        params_total=sum(parameter.numel() for parameter in model.parameters()),
        params_linear=sum(layer.params for layer in blocks.layers),
        n_blocks=len(decoder_blocks(model)),
        hidden_size=int(config.hidden_size),
        vocab_size=int(model.get_input_embeddings().weight.shape[0]),
        max_positions=model_positions(model).limit or _UNKNOWN_POSITIONS,
        dtype=str(dtype).removeprefix("torch."),
        dtype_bytes=dtype.itemsize,
        device=str(device),
        layers=blocks.layers,
        coverage=blocks.coverage,
    )
