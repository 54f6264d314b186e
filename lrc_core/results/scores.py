"""The local score list: plans made by hand against those of the machine, as measured. Kept beside the plans."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lrc_core.allocate.curves.hand import HAND
from lrc_core.budget import same_percent, within
from lrc_core.digests import digest_of
from lrc_core.errors import LrcError, RecordError
from lrc_core.escape import escaped
from lrc_core.files import write_json
from lrc_core.names import model_label
from lrc_core.paths import plans_home
from lrc_core.quality.alternatives import mean_difference
from lrc_core.quality.rows import Scores, mean_loss, named
from lrc_core.records import load_record
from lrc_core.results.archive import RunView, archive
from lrc_core.results.identity import identified, measured_contents
from lrc_core.runs.spec import EvaluateSpec, EvaluationSpec, ModelRef
from lrc_core.runs.store import RunStore
from lrc_core.words import percent

FILE = "scores.json"


@dataclass(frozen=True)
class PlanScore:
    """One measured plan.

    Attributes:
        name: of a plan made by hand, else "".
        method: as the plan says it; ``llrc+left`` where its factors were updated.
        perplexity: by text: value and standard error.
        measured_on: what the perplexities were measured on; only equal ones compare.
        at: when, in unix seconds.
    """

    run_id: str
    model: str
    name: str
    method: str
    decomposition: str
    keep_target: float
    keep_achieved: float
    perplexity: Mapping[str, Mapping[str, float]]
    measured_on: str
    at: float

    @property
    def hand(self) -> bool:
        """Whether the plan was made by hand."""
        return self.method == HAND

    @property
    def loss(self) -> float:
        """Mean log-perplexity over the texts, in nats per token; what the list is sorted by."""
        return mean_loss({"perplexity": self.perplexity})


def measured_on(evaluation: EvaluationSpec, contents: Sequence[tuple[str, str]] = ()) -> str:
    """Texts and windows in words, and what stands for the content of files; tasks do not change a perplexity."""
    stride = f", stride {evaluation.stride}" if evaluation.stride else ""
    bos = "" if evaluation.bos == "auto" else f", BOS {evaluation.bos}"
    windows = f"{evaluation.max_windows} × {evaluation.window} tokens" if evaluation.max_windows else "all windows"
    found = f", content {digest_of(contents)[:12]}" if contents else ""
    return f"{', '.join(evaluation.texts)}: {windows}{stride}{bos}{found}"


def update(ref: ModelRef) -> list[PlanScore]:
    """The scores of a model: those on record and what was measured since; writes the record when it grew."""
    recorded = {score.run_id: score for score in _read()}
    fresh = {score.run_id: score for score in map(_score, archive().runs(EvaluateSpec, ref)) if score is not None}
    mine = {run_id: score for run_id, score in fresh.items() if score.hand}
    if new := {run_id: score for run_id, score in mine.items() if run_id not in recorded}:
        plans_home().mkdir(parents=True, exist_ok=True)
        every = [*recorded.values(), *new.values()]
        write_json(plans_home() / FILE, {"version": 1, "scores": [asdict(score) for score in every]})
    kept = {run_id: score for run_id, score in recorded.items() if score.model == _key(ref)}
    return sorted({**kept, **fresh}.values(), key=lambda score: score.loss)


def comparable(
    scores: Sequence[PlanScore], keep: float, evaluation: EvaluationSpec, ref: ModelRef | None = None
) -> list[PlanScore]:
    """Scores at this target, within the budget, measured on the same text and model as they are now; the best first."""
    now = measured_contents(identified(EvaluateSpec(ref or ModelRef(), evaluation=replace(evaluation, tasks=()))))
    wanted = measured_on(evaluation, now)
    return [
        score
        for score in scores
        if same_percent(score.keep_target, keep)
        and within(score.keep_achieved, keep)
        and score.measured_on == wanted
        and math.isfinite(score.loss)
    ]


def verdict(scores: Sequence[PlanScore]) -> str:
    """One sentence: does the best plan made by hand beat the best of the machine, and is the difference sure?"""
    mine = next((score for score in scores if score.hand), None)
    theirs = next((score for score in scores if not score.hand), None)
    if mine is None or theirs is None:
        return ""
    ours, other = ({"method": one.method, "run_id": one.run_id, "perplexity": one.perplexity} for one in (mine, theirs))
    gap = mean_difference(ours, other, tuple(mine.perplexity), Scores(RunStore().root))
    change = math.exp(gap.value) - 1
    better = change < 0
    paired = "paired over the same windows" if gap.paired else "not paired"
    how = "with an error that is not known" if gap.p is None else f"p = {gap.p:.2g}, {paired}"
    place = "below" if better else "above"
    words = f"Your best, “{escaped(mine.name)}”, has a perplexity {percent(abs(change))} {place} the machine's "
    words += f"best (`{theirs.run_id}`), {how}. "
    if not gap.sign:
        return words + "That is a draw."
    return words + ("**You beat the machine.**" if better else "The machine is ahead.")


def _score(view: RunView[EvaluateSpec]) -> PlanScore | None:
    """The score of a finished evaluation of a plan."""
    plan = view.spec.plan
    if not view.done or plan is None:
        return None
    try:
        row = view.run.result() or {}
        origin = plan.get("origin") or {}
        method = named(row)
        return PlanScore(
            run_id=view.id,
            model=_key(view.spec.model),
            name=str((origin.get("hand") or {}).get("name", "")) if method == HAND else "",
            method=method,
            decomposition=str(row["decomposition"]),
            keep_target=float(row["keep_target"]),
            keep_achieved=float(row["keep_achieved"]),
            perplexity=row["perplexity"],
            measured_on=measured_on(view.spec.evaluation, measured_contents(view.spec)),
            at=view.status.ended_at,
        )
    except (LrcError, KeyError, TypeError, ValueError):
        return None


def _read() -> list[PlanScore]:
    """The record; empty when there is none or it is damaged."""
    try:
        content: Any = load_record(plans_home() / FILE)
        return [PlanScore(**score) for score in content["scores"]]
    except (RecordError, KeyError, TypeError):
        return []


def _key(ref: ModelRef) -> str:
    return model_label(ref) if ref.source == "starter" else f"{ref.source}@{ref.revision}"
