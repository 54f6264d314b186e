"""What was lost, in plain words, rounded to what the error allows. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lrc_core.quality.paired import LEVEL, mean_accuracy, normal_test
from lrc_core.quality.rows import Scores, item_pairs, mean_of
from lrc_core.texts.label import text_labels
from lrc_core.words import figure, times

Row = Mapping[str, Any]
_Scored = Mapping[str, Mapping[str, Any]]
_SURE = 1.96
"""So many standard errors to either side are an interval of 95 %."""
ACCURACY = (
    "Accuracy is normalised by the length of the answers where the task has it (acc_norm), and plain (acc) elsewhere."
)
"""Which accuracy counts: one rule for all rows and views, whichever of the two is kinder to a method."""


@dataclass(frozen=True)
class Loss:
    """A difference of accuracy between a compressed and the dense model.

    Attributes:
        difference: compressed minus dense, in answers of 100 questions.
        stderr: its standard error, None where it is not known.
        questions: how many were asked of each.
        paired: the very same questions were compared one by one.
        plain: the difference by plain accuracy where another one counts, None where it is the same or unknown.
        plain_stderr: its standard error, None where it is not known.
    """

    difference: float
    stderr: float | None
    questions: int
    paired: bool
    plain: float | None = None
    plain_stderr: float | None = None

    @property
    def within_error(self) -> bool:
        """Whether chance alone could have made the difference."""
        return _by_chance(self.difference, self.stderr)

    @property
    def worst(self) -> int:
        """So many of 100 questions worse is still possible (95 %); at least one, as no sample excludes less."""
        return max(1, round(_SURE * (self.stderr or 0.0) - self.difference))

    @property
    def error_words(self) -> str:
        """``± 8 at 95 %``, the very error that a difference is judged by."""
        return _error_words(self.stderr)


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
    tasks = [_tasks(scores, each) if scores is not None else {} for each in (row, dense)]
    found = _compared(mine, theirs, *tasks)
    if found is None or not any(score.get("acc_norm") is not None for score in mine.values()):
        return found
    plain = [_without_norm(each) for each in (mine, theirs, *tasks)]
    if any(score.get("acc") is None for each in plain[:2] for score in each.values()):
        return found
    other = _compared(*plain)
    return found if other is None else replace(found, plain=other.difference, plain_stderr=other.stderr)


def _compared(mine: _Scored, theirs: _Scored, outcomes: _Scored, other_outcomes: _Scored) -> Loss | None:
    """The difference of the mean accuracy that counts; over the same questions where all outcomes are known."""
    one, other = mean_of(mine), mean_of(theirs)
    if one is None or other is None:
        return None
    pairs = item_pairs(outcomes, other_outcomes)
    if set(pairs) == set(mine):
        paired = mean_accuracy(pairs)
        return Loss(100 * paired.difference, _hundred(paired.stderr), paired.pairs, True)
    errors = (one["stderr"], other["stderr"])
    stderr = None if None in errors else math.hypot(*errors)
    questions = sum(int(score.get("n") or 0) for score in mine.values())
    return Loss(100 * (one["value"] - other["value"]), _hundred(stderr), questions, False)


def _without_norm(tasks: _Scored) -> _Scored:
    return {task: {key: value for key, value in score.items() if key != "acc_norm"} for task, score in tasks.items()}


def _by_chance(difference: float, stderr: float | None) -> bool:
    p = normal_test(difference, stderr)
    return p is None or p >= LEVEL


def _error_words(stderr: float | None) -> str:
    return "error not known" if stderr is None else f"± {max(1, round(_SURE * stderr))} at 95 %"


def _tasks(scores: Scores, row: Row) -> _Scored:
    return scores.of(str(row.get("run_id") or "-")).get("tasks") or {}


def _hundred(value: float | None) -> float | None:
    return None if value is None else 100 * value


def difference_words(loss: Loss | None, subject: str = "") -> str:
    """``Answers 2 fewer of 100 questions right; 200 questions are too few to be sure: it may be up to 10 fewer.``

    Beyond the error: ``Answers 15 fewer of 100 questions right, more than chance (± 7 at 95 %).``

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
    if not loss.within_error:
        return f"{said}, more than chance ({loss.error_words}){_plainly(loss)}."
    return (
        f"{said} as measured; {loss.questions:,} questions are too few to be sure: it may be up to {loss.worst} fewer"
        f"{_plainly(loss)}."
    )


def _of_hundred(difference: float) -> str:
    if abs(difference) < 0.05:
        return "Answers as many of 100 questions right"
    return f"Answers {figure(abs(difference), 2)} {'fewer' if difference < 0 else 'more'} of 100 questions right"


def _plainly(loss: Loss) -> str:
    """What the other accuracy says, where it says something else, and its own error."""
    if loss.plain is None or abs(loss.plain - loss.difference) < 0.5:
        return ""
    said, sure = "as many", "" if _by_chance(loss.plain, loss.plain_stderr) else ", more than chance"
    if abs(loss.plain) >= 0.05:
        said = f"{figure(abs(loss.plain), 2)} {'fewer' if loss.plain < 0 else 'more'}"
    return f"; counted without normalising for length it is {said}{sure} ({_error_words(loss.plain_stderr)})"


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
            parts.append(f"{times(score['value'] / base['value'])} times{whose} on {labels[text]}")
    return " and ".join(parts)
