"""What the models of a ``generate`` run have written so far: ``answers.jsonl`` in its folder, append-only. No torch.

A line is ``{"answer", "text", "tokens", "seconds"}`` (a new piece of text; tokens so far and seconds since the first
one) or, when an answer is complete, ``{"answer", "done": {...}}`` with the fields of :class:`Answer` that are measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lrc_core.errors import RecordError
from lrc_core.files import append_line, write_atomic
from lrc_core.records import Count, Label, Written, parse, typed
from lrc_core.runs.integrity import unaltered
from lrc_core.runs.store import Run

FILE = "answers.jsonl"
PIECE_EVERY_S = 0.08


@dataclass(frozen=True)
class Answer:
    """One answer, complete or growing.

    Attributes:
        text: what is written so far.
        tokens: how many tokens it has.
        seconds: since its first token.
        done: nothing will be added.
        prompt_tokens: tokens that were read first.
        prefill_s: seconds that reading them took.
        tokens_per_s: speed of writing, None where it could not be measured.
        ended: ``end``, ``length``, or "" while it grows.
        bytes: of the model's parameters and buffers as held while it wrote.
        params: its parameters.
        swap_s: seconds that putting its factors in took.
    """

    text: Written = ""
    tokens: Count = 0
    seconds: float = 0.0
    done: bool = False
    prompt_tokens: Count = 0
    prefill_s: float = 0.0
    tokens_per_s: float | None = None
    ended: Label = ""
    bytes: Count = 0
    params: Count = 0
    swap_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def read_answers(run: Run) -> dict[int, Answer]:
    """The answers of a run by their place in its spec; those that have not begun are missing."""
    answers: dict[int, Answer] = {}
    for line in _lines(unaltered(run.path / FILE)):
        if line.done is not None:
            answers[line.answer] = replace(line.done, done=True)
            continue
        before = answers.get(line.answer, Answer())
        pace = (line.tokens - 1) / line.seconds if line.tokens > 1 and line.seconds > 0 else None
        answers[line.answer] = replace(
            before, text=before.text + line.text, tokens=line.tokens, seconds=line.seconds, tokens_per_s=pace
        )
    return answers


@dataclass(frozen=True)
class _Line:
    """One line of the file."""

    answer: Count
    done: Answer | None = None
    text: Written = ""
    tokens: Count = 0
    seconds: float = 0.0


def _lines(path: Path) -> Iterator[_Line]:
    """Whole lines only, the last one may be half-written; damaged ones are passed over."""
    try:
        data = path.read_bytes()
    except OSError:
        return
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        with suppress(RecordError):
            yield typed(_Line, parse(line, str(path)), str(path))


class TranscriptWriter:
    """Writes the answers of one run. Complete ones of an earlier attempt are kept; the rest is forgotten.

    Args:
        run: the run; the caller holds its claim.
        clock: seconds that only grow.
    """

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = run.path / FILE
        self._clock = clock
        self._waiting, self._written_at = "", 0.0
        self.kept = {number: answer for number, answer in read_answers(run).items() if answer.done}
        write_atomic(self._path, "".join(f"{_done_line(number, answer)}\n" for number, answer in self.kept.items()))

    def piece(self, number: int, text: str, tokens: int, seconds: float) -> None:
        """Take note of new text. It is written a dozen times per second at most.

        Raises:
            ResourceError: the disk is full.
        """
        self._waiting += text
        now = self._clock()
        if now - self._written_at < PIECE_EVERY_S:
            return
        line = {"answer": number, "text": self._waiting, "tokens": tokens, "seconds": round(seconds, 4)}
        append_line(self._path, json.dumps(line))
        self._waiting, self._written_at = "", now

    def done(self, number: int, answer: Answer) -> None:
        """An answer is complete: the whole of it is written."""
        append_line(self._path, _done_line(number, answer))
        self._waiting = ""
        self.kept[number] = replace(answer, done=True)


def _done_line(number: int, answer: Answer) -> str:
    return json.dumps({"answer": number, "done": answer.to_dict()})
