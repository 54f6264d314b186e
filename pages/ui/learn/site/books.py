"""Steps 3 and 4 as flipbooks: what the app's sliders ask the server for is drawn beforehand, a frame for each place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrc_core import words
from lrc_core.budget import break_even, factor_params, kept_share, stored, whole_rank_of_share
from lrc_core.names import decomposition_color, decomposition_label
from lrc_core.runs.spec import STORAGES, ModelRef
from lrc_core.types import LinearShape
from pages.ui.learn import outputs, pays
from pages.ui.learn.damage import damage_sentence
from pages.ui.learn.flipbook import Book, Frame
from pages.ui.learn.methods import usable
from pages.ui.learn.plane import Axes
from pages.ui.shared import svg
from pages.ui.shared.summary import shown_spectra

_SIZE = (640, 260)
_REMOVED = (1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90)


def pays_book(ref: ModelRef) -> tuple[Book, str] | None:
    """Parameters against rank, for every share removed; and what a loss of energy does to the model."""
    shown = shown_spectra(ref)
    if shown is None:
        return None
    spectra, decomposition = shown.spectra, shown.decomposition
    middle = [layer for layer in spectra.card.layers if layer.block == spectra.card.n_blocks // 2]
    layer = (middle or list(spectra.card.layers))[0]
    sigma, full = spectra.values[decomposition][layer.name], layer.full_rank
    top = factor_params(layer, full)
    unit, name = (1e6, "millions") if top > 1e6 else (1e3, "thousands")
    axes = Axes((0, full), (0, top / unit), "rank", f"parameters, {name}")
    level, even = layer.params / unit, break_even(layer)
    base = axes.drawn([full * part / 4 for part in range(5)], [(level, words.count(layer.params))])
    base += svg.polyline([axes.at(0, 0), axes.at(full, top / unit)], svg.ORANGE)
    base += svg.polyline([axes.at(0, level), axes.at(full, level)], svg.TEAL)
    base += svg.line(axes.at(even, 0), axes.at(even, top / unit), dash="4 4")
    base += svg.text(axes.at(even, 0)[0] + 6, axes.at(0, 0)[1] - 8, f"break-even {even:.0f}", size=14, anchor="start")
    what = "the layer's output" if decomposition == "whitened" else "the weight"
    said = {
        percent: " ".join(
            say(layer, sigma, percent / 100, what) for say in (pays.saving_sentence, pays.pivots_sentence)
        )
        for percent in _REMOVED
    }
    frames = [Frame(f"{percent} %", _mark(axes, layer, percent, unit), _plain(told)) for percent, told in said.items()]
    damage = damage_sentence(spectra, decomposition, 0.1, usable(ref))
    return Book("Removed", _SIZE, base, frames, start=_REMOVED.index(10)), damage


def _mark(axes: Axes, layer: LinearShape, percent: int, unit: float) -> str:
    """Where each storage law stands at a saving."""
    marks = []
    for name, color in zip(STORAGES, (svg.ORANGE, svg.TEAL), strict=False):
        law = stored([layer], name)[0]
        rank = whole_rank_of_share(law, kept_share(percent / 100))
        if rank < layer.full_rank:
            x, y = axes.at(rank, factor_params(law, rank) / unit)
            marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{color}"/>')
            if name == "pair":
                marks.append(svg.text(x - 9, y - 8, f"pair: rank {rank}", size=14, anchor="end"))
            else:
                marks.append(svg.text(x + 9, y + 20, f"pivots: rank {rank}", size=14, anchor="start"))
    return "".join(marks) or "<g/>"


def outputs_book(entry: Mapping[str, Any], layer: LinearShape) -> Book:
    """Errors of the weight and of the output against the rank, under both truncations."""
    ranks = entry["ranks"]
    width, base = 660.0, ""
    planes = []
    for number, (panel, title) in enumerate(outputs.PANELS.items()):
        axes = Axes((ranks[0], layer.full_rank), (0, 1), f"rank: {title.lower()}", "")
        axes = Axes(axes.x, axes.y, axes.x_label, axes.y_label, log=True)
        inner = axes.drawn([rank for rank in (1, 3, 10, 30, 100, 300, 1000) if rank <= layer.full_rank],
                           [(share, words.percent(share, 0)) for share in (0.2, 0.4, 0.6, 0.8, 1.0)])  # fmt: skip
        for name in outputs.NAMES:
            points = [axes.at(rank, error) for rank, error in zip(ranks, entry[panel][name], strict=True)]
            inner += svg.polyline(points, decomposition_color(name))
            x, y = points[0]
            inner += svg.text(x + 8, y + (16 if name == "whitened" else -6), decomposition_label(name), size=14,
                              anchor="start")  # fmt: skip
        base += f'<g transform="translate({number * width:.0f} 0)">{inner}</g>'
        planes.append((panel, axes))
    frames = []
    for number, rank in enumerate(ranks):
        dots = ""
        for place, (panel, axes) in enumerate(planes):
            for name in outputs.NAMES:
                x, y = axes.at(rank, entry[panel][name][number])
                dots += f'<circle cx="{x + place * width:.1f}" cy="{y:.1f}" r="6" fill="{decomposition_color(name)}"/>'
        frames.append(
            Frame(f"{rank} of {layer.full_rank}", dots, _plain(outputs.errors_sentence(entry, layer, number)))
        )
    start = min(range(len(ranks)), key=lambda index: abs(ranks[index] - break_even(layer) / 2))
    return Book("Rank", (1300, 260), base, frames, start=start)


def _plain(text: str) -> str:
    """Markdown without its marks: a flipbook writes its words as they are."""
    return text.replace("**", "").replace("`", "")
