"""Where every plan spends its parameters: linked heatmaps with their readings, and the rank of every layer."""

from __future__ import annotations

from collections.abc import Sequence

from lrc_core.budget import same_size, size_key
from lrc_core.coverage import kept_words
from lrc_core.names import in_order
from lrc_core.report.content import COUNTED, Block, Cell, Column, Picture, Pictures, Section, Table, TableRow, Words
from lrc_core.report.drawing.heatmap import linked, plan_sentence, rank_heatmap, rank_words
from lrc_core.report.sections.prose import report_prose
from lrc_core.report.sections.rows import Named, key_of
from lrc_core.report.sources import ReportPlan
from lrc_core.types import ModelCard
from lrc_core.words import kind_labels, listed, removed

_MOST_DRAWN = 24  # heatmaps in all; the eye compares no more, and a page holds a dozen
_MOST, _NARROW = 5, 260.0  # heatmaps abreast, and how wide each may be for that, in pixels


def allocation(named: Named) -> Section:
    """All plans of the report, least compression first."""
    sources = named.sources
    blocks: list[Block] = [Words(text) for text in report_prose("allocation")]
    if not sources.plans:
        blocks.append(Words("No plan of this comparison is at hand any more, so nothing can be drawn.", "warning"))
        return Section("allocation", "The allocation", tuple(blocks))
    chosen = _drawn(named)
    order = in_order(shown.method for shown in chosen)
    plans = sorted(chosen, key=lambda shown: (-size_key(shown.keep), order.index(shown.method)))
    several = len({shown.plan.decomposition for shown in plans}) > 1
    names = [shown.label + (f", {shown.plan.decomposition}" if several else "") for shown in plans]
    if len(set(names)) < len(names):  # the same cell under several seeds
        names = [f"{name}, seed {shown.plan.origin.get('seed', '?')}" for name, shown in zip(names, plans, strict=True)]
    items = tuple(_picture(sources.card, shown, name) for shown, name in zip(plans, names, strict=True))
    abreast = len({shown.method for shown in plans})  # one line per target, where there is room for it
    columns = abreast if 2 <= abreast <= _MOST and items[0].drawing.width < _NARROW else 4
    columns = columns if items[0].drawing.width < _NARROW else 2
    cells = linked(sources.card, [(name, shown.plan) for name, shown in zip(names, plans, strict=True)])
    table = _ranks(sources.card, plans, names)
    ramp = "share of a layer's parameters that is kept"
    blocks.append(Pictures("Share of every layer kept", items, columns, ramp=ramp, table=table, links=cells))
    if len(plans) < len(sources.plans):
        blocks.append(
            Words(
                f"These are {len(plans)} of the {len(sources.plans)} plans that were measured. `lrc report --plans` "
                "draws the ones that you name.",
                "note",
            )
        )
    if sources.lost:
        blocks.append(Words(f"Missing here, because their runs were deleted: {listed(list(sources.lost))}.", "warning"))
    return Section("allocation", "The allocation", tuple(blocks))


def _drawn(named: Named) -> list[ReportPlan]:
    """All plans; of a big bench those at the report's compression, and of one decomposition if that is still many."""
    plans = list(named.sources.plans)
    if len(plans) > _MOST_DRAWN:
        plans = [shown for shown in plans if same_size(shown.keep, named.focus)] or plans
    if len(plans) > _MOST_DRAWN:
        first = next((shown.plan.decomposition for shown in plans if shown.plan.decomposition), "")
        plans = [shown for shown in plans if shown.plan.decomposition in (first, "")]
    return plans[:_MOST_DRAWN]


def _picture(card: ModelCard, shown: ReportPlan, name: str) -> Picture:
    plan = shown.plan
    said = plan_sentence(plan.states(card.layers))
    kept = kept_words(plan.keep_achieved, card.coverage).replace("blocks)", "blocks kept)")
    size = f"{removed(plan.keep_achieved, 2)} of the block linears removed{kept}"
    alt = f"Heatmap of {name}: blocks downwards, kinds of layer to the right. {said}"
    key = key_of(shown.method, plan.keep_target)
    return Picture(rank_heatmap(card, plan), alt, name, size, key, said, shown.source)


def _ranks(card: ModelCard, plans: Sequence[ReportPlan], names: Sequence[str]) -> Table:
    labels = kind_labels(card.kinds)
    columns = (Column("Block", numeric=True), Column("Layer"), *(Column(name, True, COUNTED) for name in names))
    lines = []
    for layer, *states in zip(card.layers, *(shown.plan.states(card.layers) for shown in plans), strict=True):
        values = [rank_words(state) for state in states]
        cells = [Cell(str(layer.block), float(layer.block)), Cell(labels[layer.kind], labels[layer.kind])]
        lines.append(TableRow((*cells, *(Cell(text, sort) for text, sort in values))))
    return Table("The rank of every layer", columns, tuple(lines), detail=True)
