"""The ranks of a plan, and the difference of two plans, as heatmaps with their tables."""

from __future__ import annotations

import pandas as pd

from lrc_core.figures.common import Scale
from lrc_core.figures.ranks import rank_frame
from lrc_core.plan import Plan
from lrc_core.types import ModelCard
from lrc_core.words import percent
from pages.ui.shared import charting
from pages.ui.shared.cellgrid import Grid, Limits, cell_grid


def rank_table(card: ModelCard, plan: Plan) -> pd.DataFrame:
    """A plan in numbers, one row per layer."""
    frame = rank_frame(card, plan)
    return pd.DataFrame(
        {
            "Block": frame["block"],
            "Layer": frame["kind"],
            "Rank": frame["rank"],
            "Of": frame["full"],
            "Parameters kept, %": (100 * frame["kept"]).round(1),
            "Stored": frame["state"],
        }
    )


def difference_table(card: ModelCard, one: Plan, two: Plan, names: tuple[str, str]) -> pd.DataFrame:
    """Two plans in numbers, one row per layer."""
    first, second = rank_frame(card, one), rank_frame(card, two)
    return pd.DataFrame(
        {
            "Block": first["block"],
            "Layer": first["kind"],
            f"Rank, {names[0]}": first["rank"],
            f"Rank, {names[1]}": second["rank"],
            "Kept, difference in points": (100 * (first["kept"] - second["kept"])).round(1),
        }
    )


def draw_ranks(card: ModelCard, plan: Plan, what: str, *, key: str) -> None:
    """The heatmap of the share of each layer that is kept; ``what`` says what it shows."""
    frame = rank_frame(card, plan)
    told = [
        f"{row['kind']}, block {row['block']}\n{row['state']}, rank {row['rank']:,} of {row['full']:,}\n"
        f"keeps {percent(row['kept'])}"
        for row in frame.to_dict("records")
    ]
    _grid(card, frame["kept"], told, Scale("kept", ".0%"), Limits(0.0, 1.0), (what, key))
    charting.below(charting.ChartText(what, lambda: rank_table(card, plan)), key)


def draw_difference(
    card: ModelCard, plans: tuple[Plan, Plan], names: tuple[str, str], reading: str, *, key: str
) -> None:
    """The heatmap of the share kept under the first plan minus the share kept under the second."""
    first, second = (rank_frame(card, plan) for plan in plans)
    difference = first["kept"] - second["kept"]
    limit = max(0.05, float(difference.abs().max()))
    told = [
        f"{one['kind']}, block {one['block']}\n{names[0]}: rank {one['rank']:,}, keeps {percent(one['kept'])}\n"
        f"{names[1]}: rank {two['rank']:,}, keeps {percent(two['kept'])}"
        for one, two in zip(first.to_dict("records"), second.to_dict("records"), strict=True)
    ]
    what = f"Share kept under {names[0]} minus under {names[1]}"
    _grid(
        card, difference, told, Scale("difference of shares", ".0%"), Limits(-limit, limit, diverging=True), (what, key)
    )
    charting.below(charting.ChartText(what, lambda: difference_table(card, *plans, names), reading), key)


def _grid(
    card: ModelCard, values: pd.Series[float], told: list[str], scale: Scale, limits: Limits, named: tuple[str, str]
) -> None:
    """A heatmap of all layers, to be read and not chosen from; ``named`` are its label and its key."""
    names = [layer.name for layer in card.layers]
    grid = Grid(
        card, dict(zip(names, values.tolist(), strict=True)), dict(zip(names, told, strict=True)), scale, limits,
        label=named[0], name=f"{card.name}-{named[1]}", pins=False, picks=False,
    )  # fmt: skip
    cell_grid(grid, named[1])
