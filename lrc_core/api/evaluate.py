"""``evaluate``: perplexity, accuracy, size and speed of a plan or of the dense model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrc_core.api.load import NamedModel
from lrc_core.api.parts import evaluation_spec
from lrc_core.api.plan import ChosenPlan
from lrc_core.api.shown import Facts, ShownResult
from lrc_core.jobs.manager import result_in
from lrc_core.names import method_label
from lrc_core.plan import storage_of, variant_name
from lrc_core.quality.rows import accuracy_of
from lrc_core.results.archive import AnyRun
from lrc_core.runs.spec import CalibrationSpec, EvaluateSpec, EvaluationSpec
from lrc_core.texts.label import text_labels
from lrc_core.words import measured, percent


class Evaluation(ShownResult):
    """What was measured of a plan, or of the dense model.

    Attributes:
        view: the run.
        row: everything in it, as ``result.json`` has it.
    """

    def __init__(self, view: AnyRun) -> None:
        self.view, self.row = view, result_in(view.run)

    @property
    def id(self) -> str:
        """Of the run."""
        return self.view.id

    @property
    def perplexity(self) -> dict[str, float]:
        """By text; lower is better."""
        return {text: float(score["value"]) for text, score in self.row["perplexity"].items()}

    @property
    def accuracy(self) -> dict[str, float]:
        """By task, from 0 to 1; the normalised one where the task has it."""
        found = self.row["zero_shot"]
        return {task: float(scores[accuracy_of(scores)[0]]) for task, scores in found.items()}

    def facts(self) -> Facts:
        """Scores with their standard errors."""
        row, labels = self.row, text_labels(self.row["perplexity"])
        return {
            "measured": method_label(variant_name(str(row["method"]), str(row.get("update", "")), storage_of(row))),
            "kept": percent(row["keep_achieved"]),
            **{f"perplexity, {labels[t]}": measured(s["value"], s.get("stderr")) for t, s in row["perplexity"].items()},
            **{task: percent(value) for task, value in self.accuracy.items()},
            "run": self.id,
        }


def evaluate(
    model: NamedModel, plan: ChosenPlan | None = None, *, texts: list[str] | None = None,
    tasks: list[str] | None = None, evaluation: Mapping[str, Any] | None = None,
) -> Evaluation:  # fmt: skip
    """Measure a plan, or the dense model.

    Args:
        model: see :func:`~lrc_core.api.load.load`.
        plan: what is put on it; None for the model as it is.
        texts: to report perplexity on: built-in names, files or hub data sets; ``gensim`` and ``c4`` by default.
        tasks: of lm-eval, such as ``arc_easy``; none by default.
        evaluation: ``window`` (tokens), ``max_windows``, ``items`` per task, ``seed`` and the other fields of
            :class:`~lrc_core.runs.spec.EvaluationSpec`.

    Raises:
        PlanError: the plan is of another model.
        TextError, EvaluationError: a text or task cannot be read.
        LrcError: the run failed; in its words.
    """
    given = {**(evaluation or {}), **({"texts": texts} if texts else {}), **({"tasks": tasks} if tasks else {})}
    asked = evaluation_spec(given, EvaluationSpec())
    content = None if plan is None else plan.plan.to_dict()
    folder, calibration = ("", CalibrationSpec()) if plan is None else (plan.folder, plan.calibration)
    return Evaluation(model.work.done(EvaluateSpec(model.ref, content, folder, calibration, asked)))
