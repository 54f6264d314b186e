"""What a model is, by the content of the files that are loaded: weights, configuration, tokenizer. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrc_core.digests import digest_of, file_digest
from lrc_core.errors import ModelError
from lrc_core.models.gguf.split_files import gguf_parts
from lrc_core.models.hub import cached_snapshot
from lrc_core.models.json_files import read_table
from lrc_core.models.source import find_source
from lrc_core.models.weights.shards import weight_files
from lrc_core.runs.spec import ModelRef

_READ_WITH_A_MODEL = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.bpe", "*.codes")
_NEVER_READ = ("trainer_state.json", "training_args.json", "LICENSE.txt")
_SAYS_NOTHING = ("_name_or_path", "transformers_version", "use_cache")
"""Entries of config.json without influence on what the model computes."""
COMMIT = 40
"""Digits of a commit's name."""


def model_content(ref: ModelRef) -> str:
    """What distinguishes this model from whatever bears its name at another time.

    Returns:
        A digest of the files of a folder or GGUF file; the commit of a hub model that is on this computer; "" where
        the name itself says it (the starter model, a commit) or it is not known yet (a model to be downloaded).

    Raises:
        ModelError: there is no such model, or a file of it cannot be read.
    """
    source = find_source(ref)
    try:
        if source.kind == "folder":
            assert source.path is not None
            return digest_of(_of_folder(source.path, ref))
        if source.kind == "gguf":
            assert source.path is not None
            return digest_of(("gguf", file_digest(part)) for part in gguf_parts(source.path))
    except OSError as error:
        raise ModelError(f"Cannot read {error.filename or ref.source}: {error.strerror or error}.") from error
    if source.kind == "hub" and len(ref.revision) != COMMIT:
        folder = cached_snapshot(ref)
        return folder.name if folder is not None else ""
    return ""


def pinned(ref: ModelRef, content: str) -> ModelRef:
    """A hub model at the commit that its content names; any other model as it is."""
    return replace(ref, revision=content) if len(content) == COMMIT else ref


def _of_folder(folder: Path, ref: ModelRef) -> Iterator[tuple[str, Any]]:
    weights = weight_files(folder) or (sorted(folder.glob("*.bin")) if ref.allow_pickle else [])
    code = sorted(folder.rglob("*.py")) if ref.trust_remote_code else []
    small = {path for pattern in _READ_WITH_A_MODEL for path in folder.glob(pattern) if path.is_file()}
    for path in (*weights, *code, *sorted(small)):
        if path.name == "config.json":
            yield path.name, _config(path)
        elif path.name not in _NEVER_READ and not path.name.endswith("_results.json"):
            yield str(path.relative_to(folder)), file_digest(path)


def _config(path: Path) -> Any:
    """Its entries without those that say nothing; the digest of its bytes where it holds no entries."""
    try:
        return {key: value for key, value in read_table(path).items() if key not in _SAYS_NOTHING}
    except ModelError:
        return file_digest(path)
