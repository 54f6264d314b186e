"""Stringing the stages together: what a job of each kind does, and which files it leaves in its run folder.

The only package that knows all the others below it.
"""

from __future__ import annotations

from typing import Any

import lrc_core.allocate
import lrc_core.decompose  # noqa: F401  both packages register their methods
from lrc_core.damage import damage_told
from lrc_core.kinds import KINDS
from lrc_core.pipeline.session import Session, timed_result, with_warnings
from lrc_core.registry import load
from lrc_core.results.identity import unchanged
from lrc_core.runs.store import Run
from lrc_core.types import OnProgress, ShouldStop


def execute(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Do what a run asks for, write its files into its folder and return the content of ``result.json``.

    Args:
        run: a run that this process has claimed.

    Raises:
        LrcError: whatever a stage cannot do; the message names the thing and the remedy.
    """
    return execute_in(run, Session(run.spec.model, on_progress, should_stop, dict(run.spec.contents)))


def execute_in(run: Run, session: Session) -> dict[str, Any]:
    """As :func:`execute`, with a model that is perhaps in memory already and whose callbacks are the run's."""
    session.contents = dict(run.spec.contents)
    with damage_told() as told, unchanged(run.spec):
        result = timed_result(lambda: with_warnings(load(KINDS[run.spec.kind].stage)(run, session), session))
    return {**result, "warnings": [*result.get("warnings", []), *told]} if told else result
