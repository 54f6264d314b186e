"""Stringing the stages together: what a job of each kind does, and which files it leaves in its run folder.

The only package that knows all the others below it.
"""

from __future__ import annotations

from typing import Any

import lrc_core.allocate
import lrc_core.decompose  # noqa: F401  both packages register their methods
from lrc_core.pipeline.allocation import allocation_run, spectra_run
from lrc_core.pipeline.comparison import comparison_run
from lrc_core.pipeline.evaluation import evaluation_run
from lrc_core.pipeline.generation import generation_run
from lrc_core.pipeline.lesson import lesson_run
from lrc_core.pipeline.quality import ablation_run, quality_run
from lrc_core.pipeline.session import Session, measured, write_card
from lrc_core.pipeline.updating import update_run
from lrc_core.runs.store import Run
from lrc_core.types import OnProgress, ShouldStop

_STAGES = {
    "fetch": write_card,
    "spectra": spectra_run,
    "allocate": allocation_run,
    "update": update_run,
    "evaluate": evaluation_run,
    "compare": comparison_run,
    "quality": quality_run,
    "ablation": ablation_run,
    "lesson": lesson_run,
    "generate": generation_run,
}


def execute(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Do what a run asks for, write its files into its folder and return the content of ``result.json``.

    Args:
        run: a run that this process has claimed.
        on_progress: told at every step.
        should_stop: asked at every step.

    Raises:
        LrcError: whatever a stage cannot do; the message names the thing and the remedy.
    """
    return execute_in(run, Session(run.spec.model, on_progress, should_stop))


def execute_in(run: Run, session: Session) -> dict[str, Any]:
    """As :func:`execute`, with a model that is perhaps in memory already and whose callbacks are the run's."""
    return measured(lambda: _STAGES[run.spec.kind](run, session))
