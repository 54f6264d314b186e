"""The card in words: what a model takes and gives, for those who decide. Memory, speed, quality, money. No torch.

Sentences carry ``**`` around what is set off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lrc_core.plan import Plan
from lrc_core.quality.alternatives import SLACK
from lrc_core.quality.footprint import Footprint
from lrc_core.quality.plain_words import accuracy_loss, difference_words, questions_asked, surprise
from lrc_core.quality.rows import Scores
from lrc_core.quality.speeds import DECODE, PREFILL, Pace, pace_of
from lrc_core.words import data_size, percent, significant

Row = Mapping[str, Any]
PRICE, CURRENCY = 3.0, "€"
"""Of a GB of memory and month, where nobody has said another."""
PARTS = (("weights", "Weights"), ("cache", "Key-value cache"), ("overhead", "Overhead"))
"""Parts of the memory: attributes of a footprint, with their names."""


@dataclass(frozen=True)
class CardModel:
    """One model of a card.

    Attributes:
        name: as shown.
        color: of its method.
        plan: what its memory is counted by; None for the dense model, and where memory is not asked for.
        speed: decode and prefill speed in tokens per second, as far as measured.
        row: its measured row, None where its quality was not measured.
        source: id of the run that the speed comes from.
        timed: how the speed was measured; only speeds that were measured alike are compared.
    """

    name: str
    color: str
    plan: Plan | None
    speed: Mapping[str, float | None]
    row: Row | None
    source: str
    timed: str = "evaluation"


@dataclass(frozen=True)
class Wishes:
    """What the user sets.

    Attributes:
        context: positions that every request holds.
        sequences: requests at once.
        price: of 10^9 bytes per month.
        currency: its sign.
    """

    context: int
    sequences: int
    price: float
    currency: str


@dataclass(frozen=True)
class CardWords:
    """A model's card, line by line.

    Attributes:
        memory: that it needs to answer, and how much less that is than dense.
        money: what the memory costs a month.
        speed: as measured, and as a share of the dense model's.
        quality: what was lost.
        behind: how many questions stand behind the quality; "" where none do.
    """

    memory: str
    money: str
    speed: str
    quality: str
    behind: str


Counted = tuple[CardModel, Footprint]


def card_words(counted: Counted, dense: Counted | None, wishes: Wishes, scores: Scores) -> CardWords:
    """The card of a model, beside the dense one where that has a card too."""
    (entry, size), base = counted, dense[0] if dense else None
    less = f", {percent(1 - size.total / dense[1].total)} less than dense" if dense and entry is not base else ""
    money, unit = size.monthly(wishes.price), wishes.currency
    quality, behind = quality_words(entry, base, scores)
    return CardWords(
        f"**{data_size(size.total)}** to answer at {wishes.context:,} tokens{less}",
        f"**{money:,.{2 if money < 100 else 0}f} {unit}** a month at {wishes.price:g} {unit} per GB",
        speed_words(entry, base),
        quality,
        behind,
    )


def speed_of(row: Row) -> dict[str, float | None]:
    """Speeds of a measured row."""
    cost = row.get("cost") or {}
    return {name: cost.get(f"{name}_tokens_per_s") for name in (DECODE, PREFILL)}


def part_words(key: str, value: int | None) -> str:
    """A part of the memory in words; what is an estimate says so."""
    if value is None:
        return "not known for this architecture"
    return ("≈ " if key == "overhead" else "") + data_size(value)


def speed_words(entry: CardModel, dense: CardModel | None) -> str:
    """Measured speed, as a share of the dense model's where that was measured too."""
    if not entry.speed.get(DECODE):
        return "Its speed was not timed." if entry is not dense else "Its speed was not timed in this run."
    said, together = [], False
    for what, verb in ((DECODE, "It writes **{} tokens/s**"), (PREFILL, "reads a prompt at {} tokens/s")):
        if speed := entry.speed.get(what):
            pace = _pace(entry, dense, what)
            said.append(verb.format(significant(speed)) + (f", {pace.figure} times the dense pace" if pace else ""))
            together = together or (pace is not None and pace.stderr is not None)
    how = "timed right beside the dense model, with the standard error" if together else "measured once"
    return f"{'; '.join(said)} ({how})."


def _pace(entry: CardModel, dense: CardModel | None, what: str) -> Pace | None:
    """Over the dense model's speed, where that was timed in the same way."""
    if dense is None or dense is entry or dense.timed != entry.timed:
        return None
    if entry.row is not None and entry.timed == "evaluation":
        return pace_of(entry.row, dense.row, what)
    speed, base = entry.speed.get(what), dense.speed.get(what)
    return Pace(speed / base, None) if speed and base else None


def quality_words(entry: CardModel, dense: CardModel | None, scores: Scores) -> tuple[str, str]:
    """What was lost, in plain words; and how many questions stand behind them, "" where none do."""
    if entry is dense:
        return "Quality: the measure for the others.", ""
    if entry.row is None or dense is None or dense.row is None:
        return "Quality was not measured: compare this plan on the Compare page.", ""
    loss = accuracy_loss(entry.row, dense.row, scores)
    said = f"**{difference_words(loss, 'It')}**" if loss is not None else "No questions were asked of it."
    if times := surprise(entry.row, dense.row):
        said += f" Its perplexity is {times}."
    return said, questions_asked(loss, entry.row)


def cards_sentence(found: Sequence[Counted], wishes: Wishes) -> str:
    """One sentence about which of the models needs least."""
    entry, size = min(found, key=lambda pair: pair[1].total)
    alike = [one.name for one, other in found if other.total <= SLACK * size.total]
    needs = f"{', '.join(alike)} need" if alike[1:] else f"{entry.name} needs"
    dense = next((pair[1] for pair in found if pair[0].plan is None), None)
    cache = "" if size.cache is None else (
        f" At this context {percent(size.cache / size.total, 0)} of it is the key-value cache, "
        "which low-rank factors do not shrink."
    )  # fmt: skip
    if dense is None or entry.plan is None:
        return f"{needs} least: {data_size(size.total)}.{cache}"
    saved = dense.monthly(wishes.price) - size.monthly(wishes.price)
    return (
        f"{needs} least, {data_size(size.total)} against {data_size(dense.total)} dense, "
        f"and save{'' if alike[1:] else 's'} {saved:,.2f} {wishes.currency} a month.{cache}"
    )
