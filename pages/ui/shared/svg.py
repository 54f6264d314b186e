"""Pieces of SVG pictures; colours follow the theme where they are ``currentColor``."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
import plotly.colors
from numpy.typing import NDArray
from PIL import Image

TEAL, ORANGE, GREY = "#2a9490", "#d9762b", "#8a9593"


def text(x: float, y: float, words: str, *, size: int = 17, anchor: str = "middle", extra: str = "") -> str:
    """A line of text."""
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="currentColor"'
    return f"<text {place} {extra}>{html.escape(words)}</text>"


def line(start: tuple[float, float], end: tuple[float, float], *, dash: str = "", color: str = "currentColor") -> str:
    """A thin line."""
    ends = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line {ends} stroke="{color}" stroke-opacity="0.65" stroke-width="1.3"{dashed}/>'


def polyline(points: Sequence[tuple[float, float]], color: str, width: float = 2.2) -> str:
    """An open curve."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{color}" stroke-width="{width}"/>'


def polygon(points: Sequence[tuple[float, float]], color: str) -> str:
    """A filled area."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon points="{joined}" fill="{color}" fill-opacity="0.28"/>'


def image(pixels: NDArray[np.uint8], place: tuple[float, float, float, float]) -> str:
    """Pixels [h, w] or [h, w, 3] as a picture at x, y, width, height, without smoothing."""
    x, y, width, height = place
    data = base64.b64encode(png(pixels)).decode()
    return (
        f'<image x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none" '
        f'style="image-rendering: pixelated" href="data:image/png;base64,{data}"/>'
    )


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of [h, w] grey or [h, w, 3] colour pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def coloured(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[h, w] in 0..255 as viridis, [h, w, 3]: perceptually even, and told apart under colour-vision deficiencies."""
    scale = plotly.colors.sample_colorscale("Viridis", 256, colortype="tuple")
    return (255 * np.array(scale)).round().astype(np.uint8)[values]
