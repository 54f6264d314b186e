"""What the worker does in the browser tests instead of the pipeline: a training run that waits to be let go."""

from __future__ import annotations

import json
import time
from typing import Any

from lrc_core.errors import CancelledError
from lrc_core.runs.store import Run
from lrc_core.types import OnProgress, Progress, ShouldStop
from tests.factories import run_factory


def train(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """Half of a training run, then more steps until a file ``go`` appears beside the run folders."""
    card = run_factory.make_card()
    (run.path / "card.json").write_text(json.dumps(card.to_dict()), encoding="utf-8")
    run_factory.train(run, card, run.spec.keep, run_factory.STEPS // 2)
    step = run_factory.STEPS // 2
    while not (run.path.parent / "go").exists():
        if should_stop():
            raise CancelledError("Cancelled.")
        step = min(step + 1, run_factory.STEPS - 1)
        on_progress(Progress("learning masks", step, run_factory.STEPS))
        time.sleep(0.2)
    plan = run_factory.plan_at(card, run.spec.keep)
    plan.save(run.path / "plan.json")
    return {"card": card.to_dict(), "plan": plan.to_dict(), "recorded": [], "wall_s": 1.0}
