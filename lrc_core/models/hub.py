"""Models on the Hugging Face hub: downloading them, and looking at them without downloading. No torch.

The token comes from the environment (``HF_TOKEN``) or the hub's own login, never from a spec.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lrc_core.errors import LrcError, ModelError
from lrc_core.files import disk_errors
from lrc_core.models.consent import ALLOW_PICKLE, is_commit, require_commit
from lrc_core.models.headers import TensorHeader
from lrc_core.models.json_files import read_table
from lrc_core.models.progress_bars import TickBar
from lrc_core.models.source import check_config, check_counts, check_tensors
from lrc_core.models.weights.shards import check_shard_name, check_shards
from lrc_core.runs.spec import ModelRef
from lrc_core.types import OnProgress, ShouldStop, ignore_progress

_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "tokenizer*", "*.tiktoken"]
_NETWORK_REMEDY = (
    "Check the network connection (HF_HUB_OFFLINE, HTTPS_PROXY), or use `starter`, a local folder or a GGUF file."
)


@dataclass(frozen=True)
class RemoteModel:
    """A hub model as its metadata describes it.

    Attributes:
        revision: the commit that the wanted revision stands for.
        shards: tensors of each of its safetensors, from the headers; empty for pickled weights.
        weight_bytes: size of the weight files.
        download_bytes: size of everything that would be fetched.
        pickled: it offers no safetensors.
        config_folder: where config.json has been fetched to.
    """

    revision: str
    config: dict[str, Any]
    shards: Mapping[str, tuple[TensorHeader, ...]]
    weight_bytes: int
    download_bytes: int
    pickled: bool
    config_folder: Path

    @property
    def tensors(self) -> tuple[TensorHeader, ...]:
        """Tensors of all shards."""
        return tuple(tensor for found in self.shards.values() for tensor in found)


def cached_snapshot(ref: ModelRef) -> Path | None:
    """The folder of a hub model that is complete on this machine; None where it is not. Never asks the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                ref.source,
                revision=ref.revision or None,
                local_files_only=True,
                allow_patterns=_patterns(ref),
                ignore_patterns=_ignored(ref),
            )
        )
    except (EntryNotFoundError, OSError, ValueError):
        return None
    # An interrupted download of an older library leaves a folder that merely lacks files.
    has_weights = any(folder.glob("*.safetensors")) or (ref.allow_pickle and any(folder.glob("*.bin")))
    return folder if has_weights and (folder / "config.json").is_file() else None


def fetch_snapshot(ref: ModelRef, on_progress: OnProgress, should_stop: ShouldStop) -> Path:
    """Download what is needed of a hub model, resuming what is there, and return its folder.

    The folder's name is the commit. Only top-level safetensors (pickles only with consent), configuration and
    tokenizer are fetched; the model's own code only with ``trust_remote_code``.

    Raises:
        ModelError: unknown or closed model or revision, no network.
        ResourceError: the disk is full.
        CancelledError: stopped by the user; what was fetched is kept.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    if not is_commit(ref.revision) and (ref.trust_remote_code or ref.allow_pickle):
        with hub_errors(ref):
            require_commit(ref, HfApi().model_info(ref.source, revision=ref.revision or None).sha or "its commit")
    # The hub library asks for a class and only calls it.
    bar: Any = partial(_ByteBar, f"downloading {ref.source}", on_progress, should_stop)
    with disk_errors(Path(constants.HF_HUB_CACHE), cache=True), hub_errors(ref):
        folder = snapshot_download(
            ref.source,
            revision=ref.revision or None,
            allow_patterns=_patterns(ref),
            ignore_patterns=_ignored(ref),
            tqdm_class=bar,
        )
    return Path(folder)


@contextmanager
def borrowed_file(
    ref: ModelRef, revision: str, name: str, aside: Path, on_progress: OnProgress, should_stop: ShouldStop
) -> Iterator[Path]:
    """One file of a hub model, for the length of the block: from the hub's cache, else downloaded and removed again.

    Args:
        revision: a commit.
        aside: an empty folder to download into; a download that was stopped goes on there.

    Raises:
        ModelError: no network, or the file is gone.
        ResourceError: the disk is full.
        CancelledError: stopped by the user.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(ref.source, name, revision=revision)
    if isinstance(cached, str):
        yield Path(cached)
        return
    bar: Any = partial(_ByteBar, f"downloading {name}", on_progress, should_stop)
    with disk_errors(aside, cache=True), hub_errors(ref):
        path = Path(hf_hub_download(ref.source, name, revision=revision, local_dir=aside, tqdm_class=bar))
    try:
        yield path
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def look_at(ref: ModelRef) -> RemoteModel:
    """Read a hub model's metadata, its configuration and the headers of its safetensors.

    Raises:
        ModelError: unknown or closed model or revision, no network, no configuration, or no weights that may be used.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    with hub_errors(ref):
        info = HfApi().model_info(ref.source, revision=ref.revision or None, files_metadata=True)
        revision = info.sha or ""
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        if "config.json" not in sizes:
            hint = "It holds GGUF files: download one and name that file." if _ends(sizes, ".gguf") else ""
            raise ModelError(f"{ref.source} has no config.json.", hint or "Choose a causal language model.")
        try:
            config_path = Path(hf_hub_download(ref.source, "config.json", revision=revision))
        except EntryNotFoundError as error:
            raise ModelError(f"{ref.source} has no config.json.", "Choose a causal language model.") from error
        config = read_table(config_path)
        check_config(config, ref.source)
        require_commit(ref, revision)
        pickled = not _ends(sizes, ".safetensors")
        if pickled and not ref.allow_pickle:
            raise ModelError(
                f"{ref.source} offers no safetensors, and loading pickled weights can run any code.",
                "Choose a safetensors version of the model. If you trust its origin, allow them for this commit: "
                f"`lrc ... --allow-pickle --revision {revision}`, or start the app with "
                f"{ALLOW_PICKLE}={ref.source}@{revision} and choose that revision.",
            )
        shards = {} if pickled else _remote_shards(ref.source, revision)
        check_shards(shards, {}, ref.source)
        check_tensors([tensor for found in shards.values() for tensor in found], ref.source)
    check_counts(config, sum(map(len, shards.values())), ref.source)
    weights = {name: size for name, size in sizes.items() if name.endswith(".bin" if pickled else ".safetensors")}
    small = {
        name: size for name, size in sizes.items() if name.endswith((".json", ".txt", ".model")) and "/" not in name
    }
    known_bytes = sum(tensor.bytes for found in shards.values() for tensor in found)
    weight_bytes = known_bytes or sum(weights.values())
    return RemoteModel(
        revision, config, shards, weight_bytes, weight_bytes + sum(small.values()), pickled, config_path.parent
    )


@contextmanager
def hub_errors(ref: ModelRef) -> Iterator[None]:
    """Turn the hub library's errors into ours.

    Raises:
        ModelError: names the model and the remedy.
    """
    from huggingface_hub import errors

    name = ref.source
    try:
        yield
    except LrcError:
        raise
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{name} is closed to you: its owner asks for consent to conditions.",
            f"Accept them at https://huggingface.co/{name} and set HF_TOKEN to a token of that account.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{name} has no revision {ref.revision!r}.", "Leave it empty for the default branch."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"There is no model {name} on the hub, or it is private.",
            "Check the spelling (owner/name); for a private model set HF_TOKEN.",
        ) from error
    except errors.HFValidationError as error:
        raise ModelError(f"{name!r} cannot be a hub id: {error}.", "A hub id looks like owner/name.") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise ModelError(f"{name} is not on this machine, and the hub cannot be reached.", _NETWORK_REMEDY) from error
    except (
        errors.HTTPError,  # type: ignore[attr-defined]  # of the HTTP library: no connection, time-out, any bad status
        errors.XetDownloadError,
        ConnectionError,
        TimeoutError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"The hub could not deliver {name}: {reason}.", _NETWORK_REMEDY) from error
    except (errors.NotASafetensorsRepoError, errors.SafetensorsParsingError) as error:
        raise ModelError(f"The safetensors of {name} cannot be read: {error}.", "Choose another revision.") from error


class _ByteBar(TickBar):
    """Ticks in bytes written; the hub library's other bars (files, network bytes) only listen for a stop."""

    def __init__(self, phase: str, on_progress: OnProgress, should_stop: ShouldStop, *args: Any, **kwargs: Any) -> None:
        shown = kwargs.get("unit") == "B" and not str(kwargs.get("desc", "")).startswith("Downloading")
        super().__init__(phase, on_progress if shown else ignore_progress, should_stop, *args, **kwargs)


def _remote_shards(name: str, revision: str) -> dict[str, tuple[TensorHeader, ...]]:
    from huggingface_hub import HfApi

    metadata = HfApi().get_safetensors_metadata(name, revision=revision)
    return {
        check_shard_name(shard, name): tuple(
            TensorHeader(tensor, tuple(info.shape), info.dtype, info.data_offsets[1] - info.data_offsets[0])
            for tensor, info in file.tensors.items()
        )
        for shard, file in metadata.files_metadata.items()
    }


def _ends(names: dict[str, int], ending: str) -> bool:
    return any(name.endswith(ending) and "/" not in name for name in names)


def _patterns(ref: ModelRef) -> list[str]:
    return [
        *_SMALL_FILES,
        "model*.safetensors",
        *(["pytorch_model*.bin"] if ref.allow_pickle else []),
        *(["*.py"] if ref.trust_remote_code else []),
    ]


def _ignored(ref: ModelRef) -> list[str]:
    """Folders within a repository hold other formats of the same weights."""
    return [] if ref.trust_remote_code else ["*/*"]
