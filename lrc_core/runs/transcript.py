"""What the models of a ``generate`` run have written so far: ``answers.jsonl`` in its folder, append-only. No torch.

A line is ``{"answer", "text", "tokens", "seconds"}`` (a new piece of text; tokens so far and seconds since the first
one) or, when an answer is complete, ``{"answer", "done": {...}}`` with the fields of :class:`Answer` that are measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lrc_core.files import append_line, write_atomic
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

    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    done: bool = False
    prompt_tokens: int = 0
    prefill_s: float = 0.0
    tokens_per_s: float | None = None
    ended: str = ""
    bytes: int = 0
    params: int = 0
    swap_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def read_answers(run: Run) -> dict[int, Answer]:
    """The answers of a run by their place in its spec; those that have not begun are missing."""
    answers: dict[int, Answer] = {}
    for line in _lines(run.path / FILE):
        with suppress(KeyError, TypeError, ValueError):
            number = int(line["answer"])
            if "done" in line:
                answers[number] = Answer(**{**line["done"], "done": True})
                continue
            before = answers.get(number, Answer())
            text, tokens, seconds = before.text + str(line["text"]), int(line["tokens"]), float(line["seconds"])
            pace = (tokens - 1) / seconds if tokens > 1 and seconds > 0 else None
            answers[number] = replace(before, text=text, tokens=tokens, seconds=seconds, tokens_per_s=pace)
    return answers


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Whole lines only: the last one may be half-written."""
    try:
        data = path.read_bytes()
    except OSError:
        return
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


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
        """Take note of new text. It is written a dozen times a second at most.

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
