"""What has been computed and kept outside the runs, by model; and removing it. No torch."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc_core.errors import RecordError, RunError
from lrc_core.files import folder_size
from lrc_core.jobs.manager import reconcile
from lrc_core.jobs.sharing import require_admin
from lrc_core.paths import cache_home, require_writable
from lrc_core.records import load_record, typed
from lrc_core.runs.store import RunStore

_KEPT = "starter"
_DONE = "complete.json"


@dataclass(frozen=True)
class Cached:
    """One thing in the cache that can be computed again.

    Attributes:
        kind: the cache folder it lies in, such as ``decompositions``.
        what: what it is, in words.
        model: the model it belongs to, "" when no run remembers that.
        path: its folder.
        bytes: its size.
    """

    kind: str
    what: str
    model: str
    path: str
    bytes: int


def cached() -> list[Cached]:
    """Everything in the cache but the starter pack: what is finished one by one, the rest by folder."""
    marks = {folder: sorted(folder.rglob(_DONE)) for folder in _computed()}
    wanted = {str(_record(mark).get("fingerprint")) for found in marks.values() for mark in found}
    models = _models_by_fingerprint(RunStore(), wanted)
    entries: list[Cached] = []
    for folder, done in marks.items():
        found = [_described(folder.name, mark, models) for mark in done]
        entries += found
        rest = folder_size(folder) - sum(entry.bytes for entry in found)
        if rest > 0:
            entries.append(Cached(folder.name, "other files", "", str(folder), rest))
    return entries


def clean_cache() -> int:
    """Remove everything from the cache but the starter pack; returns the bytes that became free.

    Raises:
        RunError: a job is running, which may be using it.
        SharedServerError: a visitor asks.
    """
    require_writable("the cache is not cleaned")
    require_admin("clean the cache")
    store = RunStore()
    reconcile(store=store)
    busy = [summary.id for summary in store.list() if summary.state in ("running", "cancelling")]
    if busy:
        raise RunError(f"Run {busy[0]} may be using the cache.", "Clean when it has ended, or cancel it first.")
    removed = 0
    for folder in _computed():
        removed += folder_size(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return removed


def runs_size(store: RunStore) -> int:
    """Bytes of all runs, without what is only left over of deleted ones."""
    return sum(folder_size(store.root / run_id) for run_id in store.ids())


def _computed() -> list[Path]:
    try:
        return sorted(path for path in cache_home().iterdir() if path.is_dir() and path.name != _KEPT)
    except OSError:
        return []


def _described(kind: str, mark: Path, models: dict[str, str]) -> Cached:
    data = _record(mark)
    what = str(data.get("decomposition") or mark.parent.name)
    model = models.get(str(data.get("fingerprint")), "")
    return Cached(kind, what, model, str(mark.parent), folder_size(mark.parent))


def _models_by_fingerprint(store: RunStore, wanted: set[str]) -> dict[str, str]:
    """Names of models as the cards in the runs tell them; the cache itself knows fingerprints only."""
    models: dict[str, str] = {}
    for run_id in store.ids():
        if wanted <= models.keys():
            break
        identity = _record(store.root / run_id / "card.json").get("identity")
        if isinstance(identity, dict):
            models[str(identity.get("fingerprint"))] = str(identity.get("source"))
    return models


def _record(path: Path) -> dict[str, Any]:
    with suppress(RecordError):
        return typed(dict[str, Any], load_record(path), str(path))
    return {}
