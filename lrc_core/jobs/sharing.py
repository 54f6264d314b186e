"""What visitors of a shared server may start, stop and delete. Asked by the manager of jobs; no torch.

A run remembers who asked for it first, in a file of its folder: the visitor's key, which opens nothing.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from lrc_core import visitors, words
from lrc_core.errors import SharedServerError
from lrc_core.files import folder_size, write_atomic
from lrc_core.models.source import find_source, is_path
from lrc_core.paths import cache_home, may_be_opened, runs_home
from lrc_core.records import Place
from lrc_core.runs.spec import GENERATED, ModelRef, Spec
from lrc_core.runs.store import Run, RunStore
from lrc_core.texts.documents import BUILT_IN
from lrc_core.texts.files import split_field

OWNER = "owner"
"""File of a run's folder: who asked for it first, where that was a visitor."""
_KEY = re.compile(r"[0-9a-f]{8,64}")
_WHOLE_S = 60.0
"""Seconds for which a size of the disk's folders is remembered."""


def owner_of(folder: Path) -> str:
    """Key of the visitor who asked for a run; "" where that was whoever runs the server."""
    with suppress(OSError, UnicodeDecodeError):
        found = (folder / OWNER).read_text(encoding="utf-8")[:64]
        return found if _KEY.fullmatch(found) else ""
    return ""


def is_own(folder: Path) -> bool:
    """Whether whoever is being served may stop and delete the run in a folder."""
    who = visitors.visitor()
    return who is None or visitors.rules().admin or owner_of(folder) == who


def claim(run: Run) -> None:
    """Remember that a run which was just made is the visitor's, where one is being served."""
    if who := visitors.visitor():
        write_atomic(run.path / OWNER, who, durable=False)


def require_own(run: Run, what: str) -> None:
    """Refuse what only the owner of a run may do.

    Args:
        what: what was about to happen, as the end of a sentence: ``"cancel it"``.

    Raises:
        SharedServerError: somebody else asked for the run.
    """
    if not is_own(run.path):
        who = owner_of(run.path)
        raise SharedServerError(
            f"Run {run.id} was started by {visitors.shown(who) if who else 'whoever runs this server'}.",
            f"Only they may {what}.",
        )


def require_admin(what: str) -> None:
    """Refuse what touches everybody's work.

    Raises:
        SharedServerError: the server lets no visitor do so.
    """
    if visitors.visitor() is not None and not visitors.rules().admin:
        raise SharedServerError(f"On this shared server no visitor may {what}.", "Ask whoever runs it.")


def require_room_for_visitor(store: RunStore) -> None:
    """Refuse another job of a visitor who has enough of them, or where the server's disk is full enough.

    Raises:
        SharedServerError: says how many there are, and how many may be.
    """
    if (who := visitors.visitor()) is None:
        return
    rules = visitors.rules()
    own = [summary for summary in store.list() if summary.status is not None and not summary.status.final]
    if (count := sum(owner_of(summary.path) == who for summary in own)) >= rules.jobs:
        raise SharedServerError(
            f"{count} of your jobs wait or run, and {rules.jobs} may.",
            "Wait until one has finished, or cancel one on the Runs page.",
        )
    if rules.disk_bytes and (taken := _size(int(time.monotonic() / _WHOLE_S))) >= rules.disk_bytes:
        raise SharedServerError(
            f"Runs and caches take {words.data_size(taken)}, and {words.data_size(rules.disk_bytes)} may be taken.",
            "Delete runs of yours that you no longer need, or ask whoever runs the server.",
        )


def require_openable(spec: Spec) -> None:
    """Refuse what names a model, text or folder that a visitor may not open; workers open whatever a spec names.

    Raises:
        SharedServerError: names it.
    """
    if visitors.visitor() is None:
        return
    for name, value in _places(spec):
        if name in ("source", "references"):
            _require_model(value)
        elif name == "texts":
            _require_text(value)
        elif name == "plan_folder":
            _require_inside(runs_home() / value, value)
        elif name == "to":
            raise SharedServerError(
                "On a shared server folders are written inside the run.", "Leave the name of the folder out."
            )
        elif name != "revision" and (is_path(value) or os.path.exists(os.path.expanduser(value))):
            _require_inside(Path(value), value)


def _places(record: Any) -> Iterator[tuple[str, str]]:
    """Every name of something to open in a spec, with the field that it stands in: what is typed as a place."""
    hints = get_type_hints(type(record), include_extras=True)
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value):
            yield from _places(value)
        elif isinstance(value, tuple) and any(is_dataclass(entry) for entry in value):
            for entry in value:
                yield from _places(entry)
        elif _is_place(hints[field.name]):
            yield from ((field.name, entry) for entry in ((value,) if isinstance(value, str) else value) if entry)


def _is_place(hint: Any) -> bool:
    return hint == Place or any(map(_is_place, get_args(hint)))


def _require_model(name: str) -> None:
    find_source(ModelRef(source=name))
    if name != "starter" and os.path.exists(os.path.expanduser(name)):  # in the worker a folder wins over a hub id
        _require_inside(Path(os.path.expanduser(name)), name)


def _require_text(name: str) -> None:
    if name in BUILT_IN or name == GENERATED or os.path.isfile(split_field(name)[0]):
        return
    if is_path(name) or name not in visitors.rules().hub_ids:
        raise SharedServerError(
            f"This shared server does not offer the text {name}.",
            f"It offers {', '.join(BUILT_IN)}; whoever runs it can add others: `lrc app --models`.",
        )


def _require_inside(path: Path, name: str) -> None:
    if not may_be_opened(path):
        raise visitors.not_offered(name)


@lru_cache(maxsize=1)
def _size(_: int) -> int:
    """Bytes of runs and caches."""
    return folder_size(runs_home()) + folder_size(cache_home())
