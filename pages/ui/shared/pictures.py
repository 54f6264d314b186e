"""Pictures as HTML and inline SVG, drawn at once and by any size: Home and the presenter show the same ones.

No Streamlit but for :func:`draw_picture`. Colours follow the theme by ``light-dark()``; labels are text of the page's
own size, so that they stay legible however small the picture gets.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from lrc_core.charts.shapes import LEVELS, cells, labelled
from lrc_core.charts.theme import RAMP_DARK, RAMP_LIGHT, blended
from lrc_core.decompose.measures import cumulative_energy
from lrc_core.formats.sizes import whole_bytes
from lrc_core.names import method_label
from lrc_core.plan import Plan
from lrc_core.quality.card import PARTS, part_words
from lrc_core.quality.footprint import Footprint
from lrc_core.report.html.svg import cells_path
from lrc_core.types import LinearShape, ModelCard
from lrc_core.words import kind_labels, percent
from pages.ui.shared import svg
from pages.ui.shared.prose import ASSETS

# A sanitised HTML element drops SVG; a component draws it and knows the theme's colours. The text is all ours.
_JS = "export default function ({ data, parentElement }) { parentElement.querySelector('.pic').innerHTML = data.html; }"


def ramp(share: float) -> str:
    """The colour of a share 0..1 of a scale, in both themes."""
    light, dark = blended(RAMP_LIGHT, share), blended(RAMP_DARK, share)
    return f"light-dark(rgb{light}, rgb{dark})".replace(", ", ",")


CSS = (ASSETS / "pictures.css").read_text(encoding="utf-8") + "".join(
    f".l{step} {{ fill: {ramp(step / LEVELS)}; }}\n" for step in range(LEVELS + 1)
)


def picture_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The figures of a picture, behind a fold."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<details class="figures"><summary>The figures as a table</summary><div tabindex="0" role="region" '
        f'aria-label="{html.escape(caption)}"><table><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def memory_bar(size: Footprint, largest: int) -> str:
    """The three parts as a bar on a scale that all cards share, with their values in words below."""
    parts = [(key, label, getattr(size, key)) for key, label in PARTS]
    bars = "".join(
        f'<span class="{key}" style="width:{100 * value / largest:.2f}%"></span>' for key, _, value in parts if value
    )
    legend = "".join(
        f'<div><span class="lrc-chip {key}"></span>{label} <b>{part_words(key, value)}</b></div>'
        for key, label, value in parts
    )
    said = ", ".join(f"{label} {part_words(key, value)}" for key, label, value in parts)
    bar = f'<div class="lrc-memory" role="img" aria-label="{html.escape(said)}">{bars}</div>'
    return f'{bar}<div class="lrc-parts">{legend}</div>'


def draw_picture(content: str, key: str) -> None:
    """Put a picture on the page."""
    component = st.components.v2.component("lrc_picture", html='<div class="pic"></div>', css=CSS, js=_JS)
    component(data={"html": content}, key=key)


@dataclass(frozen=True)
class LayerHeatmap:
    """A heatmap of all layers.

    Attributes:
        card: gives blocks and kinds.
        values: one figure per layer; layers without one stay empty.
        ends: figures at the ends of the colour scale.
        write: figure to text.
        unit: what the figures are, beside the scale.
        label: what the whole shows, for those who cannot see it.
    """

    card: ModelCard
    values: Mapping[str, float]
    ends: tuple[float, float]
    write: Callable[[float], str]
    unit: str
    label: str


def heat(picture: LayerHeatmap) -> str:
    """Blocks across, kinds of layer down: as wide as a screen is."""
    card, (low, high) = picture.card, picture.ends
    kinds = card.kinds
    labels, row = kind_labels(kinds), {kind: number for number, kind in enumerate(kinds)}
    shares = (
        (10 * layer.block, 10 * row[layer.kind], (picture.values[layer.name] - low) / ((high - low) or 1))
        for layer in card.layers
        if math.isfinite(picture.values.get(layer.name, math.nan))
    )
    names = "".join(f"<span>{html.escape(_short(labels[kind]))}</span>" for kind in kinds)
    blocks = "".join(
        f'<span style="left:{100 * (block + 0.47) / card.n_blocks:.2f}%">{block}</span>'
        for block in labelled(card.n_blocks)
    )
    stops = ",".join(ramp(share / 9) for share in range(10))
    rows = [
        [str(layer.block), labels[layer.kind], picture.write(picture.values[layer.name])]
        for layer in card.layers
        if layer.name in picture.values
    ]
    figures = picture_table(picture.label, ["Block", "Layer", picture.unit], rows)
    return (
        f'<figure class="heat" style="--rows:{len(kinds)}"><div class="kinds" aria-hidden="true">{names}</div>'
        f'<svg role="img" aria-label="{html.escape(picture.label)}" '
        f'viewBox="0 0 {10 * card.n_blocks} {10 * len(kinds)}" preserveAspectRatio="none">'
        f"{''.join(map(cells_path, cells(shares, 9.4, 9.2)))}</svg>"
        f'<div class="axis" aria-hidden="true">block</div><div class="blocks" aria-hidden="true">{blocks}</div>'
        f'<div class="scale" aria-hidden="true"><span>{html.escape(picture.write(low))}</span>'
        f'<i style="background:linear-gradient(to right,{stops})"></i>'
        f"<span>{html.escape(picture.write(high))}</span><span>{html.escape(picture.unit)}</span></div></figure>{figures}"
    )


def kept_map(card: ModelCard, plan: Plan) -> str:
    """What every layer of a plan keeps: of its bytes where the plan has number formats, else of its parameters."""
    states, what = plan.states(card.layers), "bytes" if plan.formats else "parameters"
    shares = {one.layer.name: one.bytes / whole_bytes([one.layer]) if plan.formats else one.kept for one in states}
    label = f"Share of each layer's {what} that {method_label(plan.method)} keeps"
    return heat(LayerHeatmap(card, shares, (0.0, 1.0), lambda value: percent(value, 0), f"of the {what} kept", label))


def _short(label: str) -> str:
    """What columns and rows have room for: ``q_proj`` is ``q``."""
    return label.removesuffix("_proj")


@dataclass(frozen=True)
class Bar:
    """One measured figure.

    Attributes:
        name: whose it is.
        color: of its method.
        value: the figure.
        error: its standard error, None where it is not known.
        words: the figure as text.
        reference: drawn hollow: what the others are held against.
    """

    name: str
    color: str
    value: float
    error: float | None
    words: str
    reference: bool = False


def bars(entries: Sequence[Bar], title: str, unit: str, *, with_table: bool = True) -> str:
    """Horizontal bars from zero with a whisker of one standard error to either side."""
    longest = max((bar.value + (bar.error or 0) for bar in entries), default=1.0) or 1.0
    rows = "".join(_bar(bar, longest) for bar in entries)
    said = f"{title}: " + "; ".join(f"{bar.name} {bar.words}" for bar in entries)
    figures = picture_table(title, ["", unit], [[bar.name, bar.words] for bar in entries]) if with_table else ""
    return (
        f'<figure class="bars"><figcaption><b>{html.escape(title)}</b> <span>{html.escape(unit)}</span></figcaption>'
        f'<div class="rows" role="img" aria-label="{html.escape(said)}">{rows}</div></figure>{figures}'
    )


def _bar(bar: Bar, longest: float) -> str:
    error = bar.error or 0.0
    low, high = max(0.0, bar.value - error), bar.value + error
    whisker = (
        f'<i class="whisker" style="left:{100 * low / longest:.2f}%;width:{100 * (high - low) / longest:.2f}%"></i>'
        if error
        else ""
    )
    kind = "bar reference" if bar.reference else "bar"
    return (
        f'<span class="name">{html.escape(bar.name)}</span><span class="track"><i class="{kind}" style="--color:'
        f'{bar.color};width:{100 * bar.value / longest:.2f}%"></i>{whisker}</span>'
        f'<span class="value">{html.escape(bar.words)}</span>'
    )


# ---- a layer and its factors


def factors(layer: LinearShape, rank: int) -> str:
    """W, and the two factors that take its place, drawn to scale."""
    scale = 132 / max(layer.out_features, layer.in_features)
    height, width, thin = layer.out_features * scale, layer.in_features * scale, max(4.0, rank * scale)
    middle, top, x = 92.0, 92.0 - height / 2, 0.0
    parts = [_rect(x, top, width, height, svg.TEAL), svg.text(x + width / 2, middle + 8, "W", size=26)]
    parts.append(svg.text(x + width / 2, top + height + 24, f"{layer.out_features} × {layer.in_features}", size=21))
    x += width + 26
    parts.append(svg.text(x, middle + 8, "≈", size=26))
    x += 46
    parts.append(_rect(x, top, thin, height, svg.ORANGE))
    parts.append(svg.text(x + thin / 2, top + height + 24, f"{layer.out_features} × {rank}", size=21))
    x += thin + 24
    parts.append(svg.text(x, middle + 8, "·", size=30))
    x += 22
    parts.append(_rect(x, middle - thin / 2, width, thin, svg.ORANGE))
    parts.append(svg.text(x + width / 2, middle + thin / 2 + 24, f"{rank} × {layer.in_features}", size=21))
    label = f"A layer of {layer.out_features} by {layer.in_features} and two factors of rank {rank}, drawn to scale"
    moved = f'<g transform="translate({(460 - x - width) / 2:.1f} 0)">{"".join(parts)}</g>'
    return f'<svg class="line" viewBox="0 0 460 190" role="img" aria-label="{label}">{moved}</svg>'


def _rect(x: float, y: float, width: float, height: float, color: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4" fill="{color}" '
        f'fill-opacity="0.28" stroke="{color}" stroke-width="1.5"/>'
    )


def spectrum(sigma: np.ndarray, rank: int, even: float) -> str:
    """The curve of singular values with the kept part filled, and the break-even line."""
    left, right, top, bottom = 6.0, 454.0, 32.0, 156.0
    full = len(sigma)
    picked = np.unique(np.concatenate([np.linspace(0, full - 1, 140).astype(int), [min(rank, full) - 1]]))
    relative = sigma[picked] / sigma[0] if sigma[0] > 0 else sigma[picked]
    xs = left + (right - left) * (picked + 1) / full
    ys = bottom - (bottom - top) * np.sqrt(np.clip(relative, 0, 1))
    points = list(zip(xs.tolist(), ys.tolist(), strict=True))
    kept = [point for point, index in zip(points, picked, strict=True) if index < rank]
    cut, edge = (left + (right - left) * min(place, full) / full for place in (rank, even))
    energy = percent(float(cumulative_energy(sigma)[min(rank, full) - 1]), 0)
    place, anchor = ((left + cut) / 2, "middle") if cut - left > 90 else (cut + 6, "start")
    return (
        f'<svg class="line" viewBox="0 0 460 190" role="img" aria-label="Singular values, largest first: the first '
        f'{rank} of {full} hold {energy} of the energy; break-even is at {even:.0f}">'
        + svg.polygon([(left, bottom), *kept, (cut, bottom)], svg.ORANGE)
        + svg.polyline(points, svg.ORANGE)
        + svg.line((left, bottom), (right, bottom))
        + svg.line((edge, top), (edge, bottom), dash="5 4")
        + svg.text(min(max(edge, left + 52), right - 52), top - 9, "break-even", size=21)
        + svg.text(place, bottom - 10, energy, size=21, anchor=anchor)
        + svg.text(
            (left + right) / 2, bottom + 26, f"{full} directions, largest first; heights as square roots", size=18
        )
        + "</svg>"
    )
