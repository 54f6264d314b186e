"""What workers do while servers are killed: little, and as fast to import as can be."""

from __future__ import annotations

import json
import time
from typing import Any

from lrc_core.errors import CancelledError
from lrc_core.files import write_arrays
from lrc_core.runs.store import Run
from lrc_core.types import OnProgress, Progress, ShouldStop
from tests.factories import run_factory

STEPS, STEP_S = 30, 0.05


def count(run: Run, *, on_progress: OnProgress, should_stop: ShouldStop) -> dict[str, Any]:
    """A second and a half of steps with a checkpoint, then the files of a run of spectra."""
    checkpoint = run.path / "checkpoint" / "step.json"
    checkpoint.parent.mkdir(exist_ok=True)
    first = json.loads(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(first + 1, STEPS + 1):
        if should_stop():
            raise CancelledError("Cancelled.")
        time.sleep(STEP_S)
        checkpoint.with_suffix(".tmp").write_text(json.dumps(step))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        on_progress(Progress("counting", step, STEPS))
    card, names = run_factory.make_card(run.spec.model.source), run_factory.DECOMPOSITIONS
    run_factory.write_json(run.path / "card.json", card.to_dict())
    arrays = {f"{name}/{layer.name}": run_factory.sigma_of(layer, name) for name in names for layer in card.layers}
    write_arrays(run.path / "spectra.npz", arrays)
    return {"card": card.to_dict(), "decompositions": list(names), "wall_s": STEPS * STEP_S, "steps": STEPS}
