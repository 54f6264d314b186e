"""What has been computed and kept outside the runs, by model; and removing it. No torch."""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrc_core.errors import RecordError, RunError
from lrc_core.files import folder_size
from lrc_core.jobs.manager import reconcile
from lrc_core.jobs.sharing import require_admin
from lrc_core.names import decomposition_label
from lrc_core.paths import cache_home, require_writable
from lrc_core.records import load_record, typed
from lrc_core.registry import DECOMPOSITIONS
from lrc_core.runs.listing import RunSummary
from lrc_core.runs.spec import CalibrationSpec
from lrc_core.runs.store import RunStore

_KEPT = "starter"
_KINDS = {
    "allocators": "What methods measured of single layers",
    "generated": "Text that models wrote",
    "gguf": "GGUF files, unpacked",
    "fits": "Checks that models can be walked block by block",
    "latency": "Times of single layers",
    "shards": "Downloaded parts of large models",
    "stamps": "Digests of files",
}
"""What lies in the folders whose entries have no record of their own."""
_DONE = "complete.json"


@dataclass(frozen=True)
class Cached:
    """One thing in the cache that can be computed again.

    Attributes:
        kind: the cache folder it lies in, such as ``decompositions``.
        what: the decomposition, or the name of its folder.
        model: the model it belongs to, as it was named; "" when no run remembers that.
        path: its folder.
        bytes: its size.
        words: what it is, as a page says it.
        made_at: unix seconds; 0 where it has no end of its own.
        texts: calibration texts of the run that made it, "" where that is not known.
    """

    kind: str
    what: str
    model: str
    path: str
    bytes: int
    words: str = ""
    made_at: float = 0.0
    texts: str = ""

    @property
    def id(self) -> str:
        """Name of its folder."""
        return Path(self.path).name


def cached() -> list[Cached]:
    """Everything in the cache but the starter pack: what is finished one by one, the rest by folder."""
    marks = {folder: sorted(folder.rglob(_DONE)) for folder in _computed()}
    wanted = {str(_record(mark).get("fingerprint")) for found in marks.values() for mark in found}
    store = RunStore()
    models, makers = _models_by_fingerprint(store, wanted), _makers(store) if any(marks.values()) else []
    entries: list[Cached] = []
    for folder, done in marks.items():
        found = [_described(folder.name, mark, models, makers) for mark in done]
        entries += found
        rest = folder_size(folder) - sum(entry.bytes for entry in found)
        if rest > 0:
            words = _KINDS.get(folder.name, f"Unfinished {folder.name}")
            entries.append(Cached(folder.name, "other files", "", str(folder), rest, words))
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


def _described(kind: str, mark: Path, models: dict[str, str], makers: list[RunSummary]) -> Cached:
    data, made_at = _record(mark), mark.stat().st_mtime
    model = models.get(str(data.get("fingerprint")), "")
    folder = mark.parent
    return Cached(
        kind,
        str(data.get("decomposition") or folder.name),
        model,
        str(folder),
        folder_size(folder),
        _words(data) or folder.name,
        made_at,
        _texts(makers, model, made_at),
    )


def _words(data: dict[str, Any]) -> str:
    """What a record says that it is of, in words; "" where it does not."""
    if name := str(data.get("decomposition") or ""):
        return f"Factors, {decomposition_label(name) if name in DECOMPOSITIONS.names() else name}"
    if "tokens" in data:
        of = "inputs" if "group_of" in data else "output gradients"
        return f"Second moments of {of}, {data['tokens']:,} tokens"
    return ""


def _makers(store: RunStore) -> list[RunSummary]:
    """Runs that began at all."""
    return [summary for summary in store.list() if summary.status is not None and summary.status.started_at]


def _texts(makers: list[RunSummary], model: str, made_at: float) -> str:
    """What the runs of the model that were at work when something was completed were calibrated on, where it is one."""
    for resumed in (False, True):  # of a resumed run only when it was asked for tells when its first attempt began
        found = set()
        for run in makers:
            known, status = getattr(run.spec, "calibration", None), run.status
            if status is None or run.model != model or not isinstance(known, CalibrationSpec):
                continue
            began = status.created_at if resumed else status.started_at
            if began <= made_at <= (status.ended_at or math.inf):
                found.add(", ".join(known.texts))
        if found:
            return found.pop() if len(found) == 1 else ""
    return ""


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
