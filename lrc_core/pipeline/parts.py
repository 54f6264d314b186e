"""Jobs whose parts are runs of their own: each part done once, by whichever job asks first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lrc_core.pipeline.allocation import allocation_run
from lrc_core.pipeline.evaluation import evaluation_run
from lrc_core.pipeline.session import Session, timed_result, with_warnings
from lrc_core.pipeline.updating import update_run
from lrc_core.results.identity import part_of, unchanged
from lrc_core.runs.recorder import record
from lrc_core.runs.spec import AllocateSpec, EvaluateSpec, UpdateSpec
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import OnProgress, Progress, ShouldStop

_STAGES = {"allocate": allocation_run, "update": update_run, "evaluate": evaluation_run}


def do_part(store: RunStore, session: Session, wanted: AllocateSpec | UpdateSpec | EvaluateSpec, label: str) -> Run:
    """Do a cell as a run of its own, unless it is done, and pass its progress on under a label.

    Raises:
        CancelledError: the session's job was cancelled, or this run.
        LrcError: whatever went wrong; the run's folder has it as well.
    """
    child = store.create(part_of(wanted, session.contents))
    stage = _STAGES[wanted.kind]

    def work(on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
        def both(tick: Progress) -> None:
            on_progress(tick)
            session.on_progress(replace(tick, phase=f"{label}: {tick.phase}"))

        with unchanged(child.spec):
            watched = session.watched_by(both, should_stop)
            return timed_result(lambda: with_warnings(stage(child, watched), watched))

    record(child, work, should_stop=session.should_stop)
    return child


def warnings_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What the parts' results warn of, each once; nothing where they do not."""
    found = list(dict.fromkeys(words for row in rows for words in row.get("warnings") or ()))
    return {"warnings": found} if found else {}
