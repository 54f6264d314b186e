"""How a call gets its run: another process works on it, or this one."""

from __future__ import annotations

from typing import Any

from lrc_core.api.progress import ProgressBar
from lrc_core.jobs import manager, worker
from lrc_core.results.archive import AnyRun, RunView
from lrc_core.runs.records import Status
from lrc_core.runs.spec import Spec
from lrc_core.runs.store import Run, RunStore
from lrc_core.types import OnProgress, Progress, ShouldStop

POLL_S = 0.1


class Work:
    """Where the runs of one model are worked on.

    Args:
        here: in this process, which keeps the model in memory between calls; else each in a process of its own, which
            goes on when this one ends.
        progress: show bars.
    """

    def __init__(self, *, here: bool, progress: bool) -> None:
        self.here, self.progress = here, progress
        self._session: Any = None

    def done(self, spec: Spec) -> AnyRun:
        """The finished run of a spec: as it was found, joined, or gone on with where it had stopped.

        Raises:
            LrcError: it cannot succeed, or failed; in the words of the run.
            CancelledError: it was cancelled: by Ctrl-C here, or elsewhere.
        """
        store = RunStore()
        manager.reconcile(store=store)
        run = manager.submit(spec, store=store, here=self.here)
        if run.status().resumable:
            run = manager.resume(run.id, store=store, here=self.here)
        bar = ProgressBar(self.progress)
        try:
            if self.here and run.status().state == "queued":
                worker.main(run.path, lambda run, **callbacks: self._execute(run, bar, **callbacks))
            status = _watched(run, bar)
        except KeyboardInterrupt:
            status = manager.cancel(run.id, store=store, wait=True)
        finally:
            bar.close()
        manager.require_done(run, status, "Ask again to go on with it.")
        return RunView(run, run.spec, status, sample=False)

    def _execute(self, run: Run, bar: ProgressBar, *, on_progress: OnProgress, should_stop: ShouldStop) -> Any:
        from lrc_core.pipeline import execute_in
        from lrc_core.pipeline.session import Session

        def both(tick: Progress) -> None:
            on_progress(tick)
            bar.show(tick.phase, tick.step, tick.total)

        spec = run.spec
        if self._session is None or not self._session.serves(spec):
            self._session = Session(spec.model, both, should_stop, dict(spec.contents))
        self._session.on_progress, self._session.should_stop = both, should_stop
        return execute_in(run, self._session)


def _watched(run: Run, bar: ProgressBar) -> Status:
    """The state in which it ended."""
    for status in manager.statuses(run, every_s=POLL_S):
        if status.final:
            break
        bar.show(status.phase or "waiting", status.step, status.total)
    return status
