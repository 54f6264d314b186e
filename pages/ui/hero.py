"""The picture on Home: a matrix, its two thin factors, and the measured spectrum that decides how thin they may be."""

from __future__ import annotations

import numpy as np
import streamlit as st

from lrc_core.budget import break_even
from lrc_core.decompose.measures import cumulative_energy, energy_rank
from lrc_core.types import LinearShape
from pages.ui.data import Spectra
from pages.ui.words import percent

# A sanitised HTML element drops SVG; a component draws it and knows the theme's colours. The text is all ours.
_JS = "export default function ({ data, parentElement }) { parentElement.querySelector('div').innerHTML = data.svg; }"
TEAL, ORANGE = "#2a9490", "#d9762b"
SHARE = 0.9


def draw(svg: str) -> None:
    """Put a picture made by :func:`picture` on the page."""
    component = st.components.v2.component("lrc_hero", html="<div></div>", js=_JS)
    component(data={"svg": svg}, key="hero")


def example_layer(spectra: Spectra, decomposition: str) -> LinearShape:
    """A layer worth showing: the one that needs the smallest part of its break-even rank among the middle blocks."""
    card = spectra.card
    middle = [layer for layer in card.layers if layer.block == card.n_blocks // 2] or list(card.layers)
    return min(
        middle, key=lambda layer: energy_rank(spectra.values[decomposition][layer.name], SHARE) / break_even(layer)
    )


def picture(layer: LinearShape, sigma: np.ndarray) -> tuple[str, dict[str, str]]:
    """The SVG, and the figures for its caption."""
    rank, even, full = energy_rank(sigma, SHARE), break_even(layer), len(sigma)
    body = _matrices(layer, rank) + _spectrum(sigma, rank, even)
    label = (
        f"A layer of {layer.out_features} by {layer.in_features} is replaced by two factors of rank {rank}, which hold "
        f"{percent(SHARE)} of its energy."
    )
    style = "display: block; width: 100%; height: auto; color: var(--st-text-color); font-family: var(--st-font)"
    svg = f'<svg viewBox="0 0 900 250" role="img" aria-label="{label}" style="{style}">{body}</svg>'
    figures = {
        "layer": f"block {layer.block}, `{layer.kind}`",
        "share": percent(SHARE),
        "rank": str(rank),
        "full": str(full),
        "even": f"{even:.0f}",
    }
    return svg, figures


def _rect(x: float, y: float, width: float, height: float, color: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4" fill="{color}" '
        f'fill-opacity="0.28" stroke="{color}" stroke-width="1.5"/>'
    )


def _text(x: float, y: float, text: str, size: int = 14, extra: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="middle"'
    return f'<text {place} fill="currentColor" {extra}>{text}</text>'


def _matrices(layer: LinearShape, rank: int) -> str:
    """W = left factor times right factor, drawn to scale."""
    scale = 150 / max(layer.out_features, layer.in_features)
    height, width, thin = layer.out_features * scale, layer.in_features * scale, max(4.0, rank * scale)
    middle, x = 110.0, 0.0
    top = middle - height / 2
    parts = [_rect(x, top, width, height, TEAL), _text(x + width / 2, middle + 5, "W", 18)]
    parts.append(
        _text(
            x + width / 2, top + height + 20, f"{layer.out_features} × {layer.in_features}", 13, 'fill-opacity="0.75"'
        )
    )
    x += width + 34
    parts.append(_text(x, middle + 8, "≈", 26))
    x += 32
    parts.append(_rect(x, top, thin, height, ORANGE))
    parts.append(_text(x + thin / 2, top + height + 20, f"{layer.out_features} × {rank}", 13, 'fill-opacity="0.75"'))
    x += thin + 26
    parts.append(_text(x, middle + 8, "·", 30))
    x += 24
    parts.append(_rect(x, middle - thin / 2, width, thin, ORANGE))
    parts.append(
        _text(x + width / 2, middle + thin / 2 + 20, f"{rank} × {layer.in_features}", 13, 'fill-opacity="0.75"')
    )
    return f'<g transform="translate({max(10.0, (490 - x - width) / 2):.1f} 0)">{"".join(parts)}</g>'


def _spectrum(sigma: np.ndarray, rank: int, even: float) -> str:
    """The curve of singular values with the kept part filled, and the break-even line."""
    left, right, top, bottom = 520.0, 885.0, 24.0, 205.0
    full = len(sigma)
    picked = np.unique(np.concatenate([np.linspace(0, full - 1, 140).astype(int), [min(rank, full) - 1]]))
    relative = sigma[picked] / sigma[0] if sigma[0] > 0 else sigma[picked]
    xs = left + (right - left) * (picked + 1) / full
    ys = bottom - (bottom - top) * np.sqrt(np.clip(relative, 0, 1))
    points = [f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True)]
    kept = [point for point, index in zip(points, picked, strict=True) if index < rank]
    cut = left + (right - left) * rank / full
    edge = left + (right - left) * min(even, full) / full
    area = f"{left:.1f},{bottom} " + " ".join(kept) + f" {cut:.1f},{bottom}"
    energy = percent(float(cumulative_energy(sigma)[min(rank, full) - 1]), 0)
    return (
        f'<polygon points="{area}" fill="{ORANGE}" fill-opacity="0.28"/>'
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{ORANGE}" stroke-width="2.2"/>'
        f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="currentColor" stroke-opacity="0.45"/>'
        f'<line x1="{edge:.1f}" y1="{top}" x2="{edge:.1f}" y2="{bottom}" stroke="currentColor" stroke-opacity="0.6" '
        f'stroke-dasharray="5 4"/>'
        + _text(min(edge, right - 60), top - 8, "break-even", 13, 'fill-opacity="0.75"')
        + _text((left + cut) / 2, bottom - 10, energy, 14, 'font-weight="600"')
        + _text(
            (left + right) / 2,
            bottom + 22,
            f"{full} directions, largest first (height: square root)",
            13,
            'fill-opacity="0.75"',
        )
    )
