"""What was measured of a plan, for its model card. No torch."""

from __future__ import annotations

from lrc_core.folders.card import Measured
from lrc_core.quality.rows import accuracy_of
from lrc_core.results.archive import RunView, archive
from lrc_core.runs.spec import EvaluateSpec, ExportSpec


def rows_of_plan(spec: ExportSpec) -> tuple[list[Measured], dict[str, Measured]]:
    """Evaluations of exactly this plan, and those of the dense model on the same texts and tasks by their run."""
    views = archive().finished(EvaluateSpec, spec.model)
    own = [view for view in views if view.spec.plan == spec.plan]
    alike = {
        view.id: next(
            (one for one in views if one.spec.plan is None and one.spec.evaluation == view.spec.evaluation), None
        )
        for view in own
    }
    return [_row(view) for view in own], {name: _row(view) for name, view in alike.items() if view is not None}


def _row(view: RunView[EvaluateSpec]) -> Measured:
    row = view.run.result() or {}
    texts = {name: (float(score["value"]), score.get("stderr")) for name, score in row.get("perplexity", {}).items()}
    tasks = {}
    for name, scores in row.get("zero_shot", {}).items():
        _, value, error = accuracy_of(scores)
        if value is not None:
            tasks[name] = (value, error)
    return Measured(view.id, texts, tasks)
