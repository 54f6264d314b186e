"""What a class chose in the quiz: counts without names, in the memory of a server that was started for a class.

Nothing is written, and nothing comes from elsewhere: a server that ends forgets it all. A browser is counted by a
random number that its memory holds and that says nothing of whose it is; its last answers count.
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from collections.abc import Sequence
from threading import Lock

from lrc_core.escape import escaped
from pages.ui import classroom
from pages.ui.learn import progress

FEWEST = 3
"""Fewer answers are not shown: who gave them would be known."""
_MOST = 1000
"""Browsers that are remembered; the first are forgotten."""
_BALLOT = "ballot"


class ClassAnswers:
    """Answers of one server, by set of questions and browser."""

    def __init__(self) -> None:
        self._chosen: OrderedDict[tuple[int, str], tuple[int, ...]] = OrderedDict()
        self._lock = Lock()

    def keep(self, number: int, ballot: str, chosen: Sequence[int]) -> None:
        """The answers of one browser to a set of questions, in place of earlier ones."""
        with self._lock:
            self._chosen.pop((number, ballot), None)
            self._chosen[number, ballot] = tuple(chosen)
            while len(self._chosen) > _MOST:
                self._chosen.popitem(last=False)

    def of(self, number: int, question: int) -> Counter[int]:
        """How many chose each option of a question; empty where they are too few to stay unknown."""
        with self._lock:
            kept = list(self._chosen.items())
        found = Counter(chosen[question] for (which, _), chosen in kept if which == number)
        return found if found.total() >= FEWEST else Counter()


CLASS = ClassAnswers()


def keep(number: int, chosen: Sequence[int | None]) -> None:
    """Count the answers that this browser checked; nothing where the server is for no class."""
    if not classroom.address() or None in chosen:
        return
    ballot = progress.remembered().get(_BALLOT)
    if not isinstance(ballot, str) or len(ballot) != 32:
        ballot = secrets.token_hex(16)
        progress.remember(**{_BALLOT: ballot})
    CLASS.keep(number, ballot, [option for option in chosen if option is not None])


def class_words(number: int, question: int, options: Sequence[str]) -> str:
    """``The class, 23 answers: 12 × 500, 8 × 1000, 3 × 250``; "" where there is no class or too few have answered."""
    found = CLASS.of(number, question) if classroom.address() else Counter()
    if not found:
        return ""
    said = "; ".join(f"{found[option]} × {escaped(options[option])}" for option in range(len(options)))
    return f"The class, {found.total()} answers: {said}."
