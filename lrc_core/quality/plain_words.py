"""What was lost, in plain words, rounded to what the error allows. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lrc_core.quality.paired import mean_accuracy
from lrc_core.quality.rows import Scores, item_pairs, mean_of
from lrc_core.texts.label import text_labels
from lrc_core.words import figure

Row = Mapping[str, Any]
_SURE = 1.96
"""A difference within so many standard errors is "within error" (95 %)."""


@dataclass(frozen=True)
class Loss:
    """A difference of accuracy between a compressed and the dense model.

    Attributes:
        difference: compressed minus dense, in answers of 100 questions.
        stderr: its standard error, None where it is not known.
        questions: how many were asked of each.
        paired: the very same questions were compared one by one.
    """

    difference: float
    stderr: float | None
    questions: int
    paired: bool

    @property
    def within_error(self) -> bool:
        """Whether chance alone could have made the difference."""
        return self.stderr is None or abs(self.difference) <= _SURE * self.stderr

    @property
    def error_words(self) -> str:
        """``± 8 at 95 %``, the very error that a difference is judged by."""
        return "error not known" if self.stderr is None else f"± {max(1, round(_SURE * self.stderr))} at 95 %"


def accuracy_loss(row: Row, dense: Row, scores: Scores | None = None) -> Loss | None:
    """The difference of mean accuracy over the tasks that both rows have; None when they share none.

    Args:
        row: a measured row of a compressed model.
        dense: of the dense model, measured alike.
        scores: single outcomes of the runs; with them the same questions are compared, which is surer.
    """
    shared = set(row.get("zero_shot") or {}) & set(dense.get("zero_shot") or {})
    mine = {task: score for task, score in (row.get("zero_shot") or {}).items() if task in shared}
    theirs = {task: score for task, score in (dense.get("zero_shot") or {}).items() if task in shared}
    one, other = mean_of(mine), mean_of(theirs)
    if one is None or other is None:
        return None
    questions = sum(int(score.get("n") or 0) for score in mine.values())
    if scores is not None:
        pairs = item_pairs(_tasks(scores, row), _tasks(scores, dense))
        if set(pairs) == shared:
            found = mean_accuracy(pairs)
            return Loss(100 * found.difference, _hundred(found.stderr), found.pairs, paired=True)
    errors = (one["stderr"], other["stderr"])
    stderr = None if None in errors else math.hypot(*errors)
    return Loss(100 * (one["value"] - other["value"]), _hundred(stderr), questions, paired=False)


def _tasks(scores: Scores, row: Row) -> Mapping[str, Any]:
    return scores.of(str(row.get("run_id") or "-")).get("tasks") or {}


def _hundred(value: float | None) -> float | None:
    return None if value is None else 100 * value


def difference_words(loss: Loss | None, subject: str = "") -> str:
    """``Answers 2 of 100 questions worse, within error (± 8 at 95 %).``

    Args:
        loss: a difference of accuracy.
        subject: who answers, where the words follow other sentences; "" where they stand on a line of their own.
    """
    if loss is None:
        return "No questions were asked of it."
    said = _of_hundred(loss.difference)
    said = f"{subject} {said[0].lower()}{said[1:]}" if subject else said
    if loss.stderr is None:
        return f"{said}; the error is not known."
    verdict = "within error" if loss.within_error else "more than chance"
    return f"{said}, {verdict} ({loss.error_words})."


def _of_hundred(difference: float) -> str:
    whole = round(abs(difference))
    if whole == 0:
        return "Answers as many of 100 questions right"
    return f"Answers {whole} of 100 questions {'worse' if difference < 0 else 'better'}"


def questions_asked(loss: Loss | None, row: Row) -> str:
    """What stands behind the words: tasks, number of questions, how they were compared."""
    if loss is None:
        return ""
    how = "the same questions compared one by one" if loss.paired else "the two means compared"
    return f"{loss.questions:,} questions of {', '.join(row.get('zero_shot') or {})}; {how}"


def surprise(row: Row, dense: Row) -> str:
    """How much harder it finds new text: ``1.8 times the dense model's on gensim and 2.1 times on c4``."""
    parts: list[str] = []
    labels = text_labels(row.get("perplexity") or {})
    for text, score in (row.get("perplexity") or {}).items():
        base = (dense.get("perplexity") or {}).get(text)
        if base:
            whose = "" if parts else " the dense model's"
            parts.append(f"{figure(score['value'] / base['value'], 2)} times{whose} on {labels[text]}")
    return " and ".join(parts)
