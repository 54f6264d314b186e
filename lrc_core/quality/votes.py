"""Votes of blind comparisons: kept in one local file, counted, and tested against chance. No torch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from lrc_core.errors import RecordError
from lrc_core.escape import csv_row
from lrc_core.files import append_line
from lrc_core.quality.paired import LEVEL, sign_test
from lrc_core.records import Label, Moment, Place, Range, parse, typed

FILE = ".votes.jsonl"
TIE, SKIPPED = "tie", "skipped"
"""What is chosen instead of an answer: no difference; revealed without a vote."""


@dataclass(frozen=True)
class Vote:
    """One judgement of one run's answers.

    Attributes:
        at: unix seconds.
        run_id: the ``generate`` run that was judged.
        model: the model as the user named it.
        prompt: what was asked.
        answers: who answered, in the order shown: ``dense``, ``llrc at 20 %``, ...
        chosen: one of them, ``tie`` or ``skipped``.
        place: which of the answers, from 0; -1 where none.
    """

    at: Moment
    run_id: Label
    model: Place
    prompt: str
    answers: tuple[Label, ...]
    chosen: Label
    place: Annotated[int, Range(-1, 99)] = -1

    @property
    def counts(self) -> bool:
        """Whether it is a vote at all."""
        return self.chosen != SKIPPED


def votes_path(runs: Path) -> Path:
    """The file of votes beside the run folders."""
    return runs / FILE


def keep_vote(path: Path, vote: Vote) -> bool:
    """Add a vote, unless this run has one: answers that are revealed cannot be judged blindly any more.

    Returns:
        Whether it was kept.

    Raises:
        ResourceError: the disk is full.
        RunError: the file cannot be written.
    """
    if any(known.run_id == vote.run_id for known in read_votes(path)):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    append_line(path, json.dumps(asdict(vote)))
    return True


def read_votes(path: Path) -> list[Vote]:
    """All votes, oldest first; damaged lines are left out, and so are later votes on the same run."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    votes: dict[str, Vote] = {}
    for line in lines:
        with suppress(RecordError):
            vote = typed(Vote, parse(line, str(path)), str(path))
            votes.setdefault(vote.run_id, vote)
    return list(votes.values())


@dataclass(frozen=True)
class Tally:
    """How one of those who answered did.

    Attributes:
        who: as in :attr:`Vote.answers`.
        shown: votes on comparisons that it was in.
        chosen: how often it was the best.
        ties: how often none was.
        expected: how often it would have been chosen by guessing, ties set aside.
    """

    who: str
    shown: int
    chosen: int
    ties: int
    expected: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def tally(votes: Iterable[Vote]) -> list[Tally]:
    """Counts of everyone who answered, most often chosen first."""
    counted = [vote for vote in votes if vote.counts]
    names = dict.fromkeys(name for vote in counted for name in vote.answers)
    found = []
    for name in names:
        mine = [vote for vote in counted if name in vote.answers]
        decided = [vote for vote in mine if vote.chosen != TIE]
        found.append(
            Tally(
                who=name,
                shown=len(mine),
                chosen=sum(vote.chosen == name for vote in decided),
                ties=len(mine) - len(decided),
                expected=sum(vote.answers.count(name) / len(vote.answers) for vote in decided),
            )
        )
    return sorted(found, key=lambda entry: (-entry.chosen, entry.who))


def against(votes: Iterable[Vote], one: str, other: str) -> tuple[int, int, float]:
    """How often each of two was chosen where both answered, and the p-value of "it is a coin" (exact sign test)."""
    both = [vote for vote in votes if vote.counts and one in vote.answers and other in vote.answers]
    first, second = (sum(vote.chosen == name for vote in both) for name in (one, other))
    return first, second, sign_test(first, second)


def votes_sentence(votes: Sequence[Vote], labels: Mapping[str, str] | None = None) -> str:
    """One sentence on what the votes say of the dense model against the others."""
    counted = [vote for vote in votes if vote.counts]
    if not counted:
        return "Nobody has voted yet."
    said = labels or {}
    sentences = []
    for name in dict.fromkeys(name for vote in counted for name in vote.answers if name != "dense"):
        dense, compressed, p = against(counted, "dense", name)
        if dense + compressed == 0:
            continue
        verdict = "more than chance explains" if p < LEVEL else "as chance could have it"
        sentences.append(
            f"{said.get('dense', 'dense')} {dense} : {compressed} {said.get(name, name)}, {verdict} (p = {p:.2g})"
        )
    ties = sum(vote.chosen == TIE for vote in counted)
    head = f"{len(counted)} vote{'s' if len(counted) != 1 else ''}, {ties} of them without a favourite."
    return f"{head} {'; '.join(sentences)}." if sentences else head


def votes_csv(votes: Iterable[Vote]) -> str:
    """All votes, one per line, the answers in columns of their own: as many as any vote has."""
    out, found = io.StringIO(), list(votes)
    most = max((len(vote.answers) for vote in found), default=0)
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"answer_{number}" for number in range(1, most + 1)]
    writer.writerow(["at", "run_id", "model", "prompt", *columns, "chosen", "place"])
    for vote in found:
        answers = [*vote.answers, *[""] * (most - len(vote.answers))]
        place = vote.place + 1 if vote.place >= 0 else ""
        cells = [f"{vote.at:.0f}", vote.run_id, vote.model, vote.prompt, *answers, vote.chosen, place]
        writer.writerow(csv_row(cells))
    return out.getvalue()
