"""The card of every model at the target that the report leads with: memory, money, speed, quality."""

from __future__ import annotations

from lrc_core.budget import same_size
from lrc_core.names import GREY
from lrc_core.plan import plan_variant
from lrc_core.quality.alternatives import why_not_quantise
from lrc_core.quality.card import (
    PARTS,
    CardModel,
    Counted,
    Wishes,
    card_words,
    cards_sentence,
    part_words,
    speed_of,
)
from lrc_core.quality.footprint import footprint
from lrc_core.report.content import COUNTED, ESTIMATED, BarPart, Block, CardEntry, Cards, Section, Words
from lrc_core.report.measured import Row
from lrc_core.report.sections.prose import report_prose
from lrc_core.report.sections.rows import Named, key_of, row_color
from lrc_core.words import listed, removed


def card(named: Named, wishes: Wishes) -> Section:
    """The dense model's card and those of the plans at one target."""
    entries, without = _entries(named)
    found = [(entry, footprint(named.sources.card, entry.plan, wishes.context, wishes.sequences)) for entry in entries]
    dense = next((pair for pair in found if pair[0].plan is None), None)
    requests = "one request" if wishes.sequences == 1 else f"{wishes.sequences} requests at once"
    asked = (
        f"At {removed(named.focus)} compression, for {requests} of {wishes.context:,} tokens, at a price of "
        f"{wishes.price:g} {wishes.currency} per GB and month."
    )
    blocks: list[Block] = [Words(asked)]
    if len(found) > 1:
        blocks.append(Words(cards_sentence(found, wishes), "reading"))
    if answer := why_not_quantise([*named.formats, *named.at(named.focus)], named.sources.scores()):
        blocks.append(Words(answer, "reading"))
    largest = max(size.total for _, size in found)
    blocks.append(Cards(tuple(_card(named, counted, dense, wishes) for counted in found), largest))
    if without:
        blocks.append(Words(f"No card for {listed(without)}: their plans have been deleted.", "warning"))
    blocks += [Words(text, "note") for text in report_prose("card")]
    return Section("card", "The card", tuple(blocks))


def _entries(named: Named) -> tuple[list[CardModel], list[str]]:
    """The dense model, and the plans at the target that the report leads with; names of rows without a plan."""
    plans = {shown.source: shown for shown in named.sources.plans}
    dense = named.dense
    entries = [CardModel("Dense model", GREY, None, speed_of(dense or {}), dense, _run(dense))]
    without, used = [], set()
    for row in named.at(named.focus):
        if shown := plans.get(_run(row)):
            used.add(shown.source)
            entries.append(CardModel(named.name(row), row_color(row), shown.plan, speed_of(row), row, _run(row)))
        else:
            without.append(named.name(row))
    near = [shown for shown in named.sources.plans if same_size(shown.keep, named.focus)]
    for shown in near:
        if shown.source not in used:
            near_row = _row_of(named, shown.plan.origin.get("run_id"))
            color = row_color({"method": shown.method})
            speed, source = (speed_of(near_row), _run(near_row)) if near_row else ({}, shown.source)
            entries.append(CardModel(shown.label.replace(", ", " at "), color, shown.plan, speed, near_row, source))
            without = [name for name in without if near_row is None or name != named.name(near_row)]
    return entries, without


def _row_of(named: Named, run_id: object) -> Row | None:
    """The measured row of the plan that a run allocated."""
    return next((row for row in named.at(named.focus) if run_id and row.get("allocate_run_id") == run_id), None)


def _run(row: Row | None) -> str:
    return str((row or {}).get("run_id", ""))


def _card(named: Named, counted: Counted, dense: Counted | None, wishes: Wishes) -> CardEntry:
    (entry, size), said = counted, card_words(counted, dense, wishes, named.sources.scores())
    parts = tuple(
        BarPart(key, name, getattr(size, key) or 0, part_words(key, getattr(size, key)), _how(key))
        for key, name in PARTS
    )
    notes = [said.behind] if said.behind else []
    notes += [f"run `{entry.source}`"] if entry.source else []
    key = key_of(
        "dense" if entry.plan is None else plan_variant(entry.plan),
        entry.plan.keep_target if entry.plan else 1.0,
    )
    lines = (said.money, said.speed, said.quality)
    return CardEntry(entry.name, entry.color, said.memory, parts, lines, "; ".join(notes), key)


def _how(key: str) -> str:
    return ESTIMATED if key == "overhead" else COUNTED
