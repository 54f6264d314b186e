"""What came of a finished run, in a line: the size it leads to and the quality that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lrc_core import words
from lrc_core.budget import whole_model_ratio
from lrc_core.errors import LrcError
from lrc_core.plan import Plan
from lrc_core.quality.quantised import share_of, sizes_of
from lrc_core.results.archive import AnyRun, Stamp, archive, card_of, stamp_of
from lrc_core.runs.run import Run
from lrc_core.runs.spec import EvaluateSpec, EvaluationSpec
from lrc_core.texts.label import text_labels

_ROWS = ("compare", "quality", "ablation")


@dataclass(frozen=True)
class Outcome:
    """What a run has led to.

    Attributes:
        result: size, or what else it made; "" where there is nothing to say.
        quality: what was measured of it; "" where nothing was.
    """

    result: str = ""
    quality: str = ""


@lru_cache(maxsize=4000)
def _result(folder: str, *_stamps: Stamp) -> Mapping[str, Any]:
    """The result as its files were at those stamps."""
    try:
        return Run(Path(folder)).result() or {}
    except LrcError:
        return {}


def read_result(view: AnyRun) -> Mapping[str, Any]:
    """The content of a run's result, remembered until it changes; empty where it cannot be read."""
    return _result(str(view.path), stamp_of(view.path / "result.json"), stamp_of(view.path / "status.json"))


def measured_plans() -> dict[str, str]:
    """Quality by the id of the run whose plan was measured, the newest measurement of each."""
    found: dict[str, str] = {}
    for view in archive().finished(EvaluateSpec):
        result = read_result(view)
        for key in ("update_run_id", "allocate_run_id"):
            if plan := str(result.get(key) or ""):
                found.setdefault(plan, quality_of(result) + few_windows(view.spec.evaluation))
                break
    return found


def outcome(view: AnyRun, measured: Mapping[str, str] | None = None) -> Outcome:
    """What came of a run; of one that is not done, nothing.

    Args:
        measured: what :func:`measured_plans` says, where many runs are asked about.
    """
    if not view.done:
        return Outcome()
    result = read_result(view)
    if isinstance(result.get("perplexity"), Mapping):
        few = few_windows(view.spec.evaluation) if isinstance(view.spec, EvaluateSpec) else ""
        return Outcome(_removed(result), quality_of(result) + few)
    if isinstance(result.get("plan"), Mapping):
        known = measured_plans() if measured is None else measured
        return Outcome(_size(view, result["plan"]), known.get(view.id, ""))
    if view.kind in _ROWS:
        return Outcome(_counted(result.get("rows"), "row"))
    if view.kind == "generate":
        return Outcome(_counted(result.get("answers"), "answer"))
    return Outcome(_counted(result.get("decompositions"), "decomposition"))


def _counted(entries: Any, name: str) -> str:
    if not isinstance(entries, list | tuple | Mapping) or not entries:
        return ""
    return f"{len(entries)} {name}{'s' if len(entries) > 1 else ''}"


def _removed(row: Mapping[str, Any]) -> str:
    if row.get("method") == "dense":
        return "dense"
    if row.get("formats") and row.get("model_bytes"):  # what it removes is bits
        return f"{words.data_size(int(row['model_bytes']))}, {words.percent(share_of(row))} of the layers' bytes"
    keep = row.get("keep_achieved", row.get("keep_target"))
    return f"{words.removed(float(keep))} removed" if isinstance(keep, int | float) else ""


def _size(view: AnyRun, plan: Mapping[str, Any]) -> str:
    """``113.3 M parameters, 16 % less``; of a plan with number formats ``215 MB, 45 % of the layers' bytes``."""
    keep = plan.get("keep_achieved")
    if not isinstance(keep, int | float):
        return ""
    try:
        card = card_of(view)
        if plan.get("formats"):
            return _removed({"formats": plan["formats"], **sizes_of(card, Plan.from_dict(dict(plan)))})
    except LrcError:
        return f"{words.removed(float(keep))} removed"
    whole = whole_model_ratio(float(keep), card)
    return f"{words.count(whole * card.params_total)} parameters, {words.removed(whole)} less"


def few_windows(evaluation: EvaluationSpec) -> str:
    """``, over 10 windows`` where there were fewer than usual: not the text that other figures are of."""
    fewer = 0 < evaluation.max_windows < EvaluationSpec().max_windows
    return f", over {evaluation.max_windows} windows" if fewer else ""


def quality_of(row: Mapping[str, Any]) -> str:
    """``perplexity 38.7 ± 1.9 on gensim, 78.1 ± 7.6 on c4``."""
    scores = row.get("perplexity") or {}
    labels = text_labels(scores)
    said = ", ".join(
        f"{words.measured(score['value'], score.get('stderr'))} on {labels[text]}" for text, score in scores.items()
    )
    return f"perplexity {said}" if said else ""
