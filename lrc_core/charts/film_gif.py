"""A film as an animated GIF, for slides and mails: the heatmap of the ranks, the rate and a loss. No torch."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from lrc_core.charts.film import Chart, Film, thinned
from lrc_core.charts.shapes import cells, labelled, painted
from lrc_core.charts.theme import LIGHT, RAMP_LIGHT, blended
from lrc_core.charts.ticks import nice_ticks
from lrc_core.errors import RunError

SIZE = (840, 520)
MOST_FRAMES = 80
_FRAME_MS, _LAST_MS = 120, 2500
_GRID = (64, 110, 400, 470)  # left, top, right, bottom of the heatmap
_PLOTS = ((500, 110, 810, 250), (500, 316, 810, 456))
_COLORS = 128

_DASH, _GAP = 5.0, 4.0

Box = tuple[int, int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class _Scene:
    """What stays the same in every frame."""

    film: Film
    background: Image.Image
    charts: tuple[Chart, ...]


def film_gif(film: Film) -> bytes:
    """The file's bytes. It plays once in some seconds and begins anew.

    Raises:
        RunError: the run recorded no ranks, so there is nothing to see move.
    """
    count = len(film.frames["step"])
    if not count:
        raise RunError(
            f"Run {film.run} has recorded no ranks yet.", "A run takes its first snapshot after five training steps."
        )
    charts = (film.charts[0], *[chart for chart in film.charts[1:] if chart.series][:1])
    scene = _Scene(film, _background(film, charts), charts)
    drawn = [_frame(scene, frame) for frame in thinned(range(count), MOST_FRAMES)]
    palette = _together(drawn).quantize(_COLORS)
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in drawn]
    buffer = io.BytesIO()
    durations = [_FRAME_MS] * (len(frames) - 1) + [_LAST_MS]
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False, disposal=1
    )
    return buffer.getvalue()


def _together(images: Sequence[Image.Image]) -> Image.Image:
    """First, middle and last under each other: between them they show every colour."""
    chosen = [images[0], images[len(images) // 2], images[-1]]
    sheet = Image.new("RGB", (SIZE[0], SIZE[1] * len(chosen)))
    for number, image in enumerate(chosen):
        sheet.paste(image, (0, number * SIZE[1]))
    return sheet


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _background(film: Film, charts: Sequence[Chart]) -> Image.Image:
    image = Image.new("RGB", SIZE, LIGHT["background-color"])
    draw, ink = ImageDraw.Draw(image), LIGHT["text-color"]
    draw.text((24, 18), film.title, fill=ink, font=_font(26))
    draw.text((24, 54), film.detail, fill=ink, font=_font(14))
    draw.text((24, SIZE[1] - 20), f"run {film.run}", fill=ink, font=_font(12))
    left, top, right, bottom = _GRID
    wide = (right - left) / len(film.kinds)
    roomy = max(len(kind) for kind in film.kinds) <= wide / 5.5
    for number, kind in enumerate(film.kinds):
        label = kind if roomy else kind.split(".")[-1].removesuffix("_proj")
        draw.text((left + (number + 0.5) * wide, top - 6), label, fill=ink, font=_font(11), anchor="ms")
    high = (bottom - top) / film.blocks
    for block in labelled(film.blocks):
        draw.text((left - 8, top + (block + 0.5) * high), str(block), fill=ink, font=_font(11), anchor="rm")
    draw.text((left - 8, top - 6), "block", fill=ink, font=_font(11), anchor="rs")
    for x in range(120):
        draw.line((left + x, 478, left + x, 486), fill=blended(RAMP_LIGHT, x / 119))
    draw.text((left + 128, 487), "0 to 100 % of a layer's parameters kept", fill=ink, font=_font(11), anchor="ls")
    for chart, box in zip(charts, _PLOTS, strict=False):
        draw.text((box[0] - 40, box[1] - 24), chart.label, fill=ink, font=_font(15))
        draw.text((box[2], box[1] - 10), chart.unit, fill=ink, font=_font(11), anchor="rs")
        _axes(draw, film, chart, box)
    return image


def _ticks(film: Film, chart: Chart) -> list[float]:
    """Round values that enclose what is drawn; the outer ones are the ends of the axis."""
    values = [value for name in chart.series for value in film.ticks.get(name, ()) if value is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = min(0.0, low) if chart.zero else low
    return nice_ticks(low, high, 3)


def _axes(draw: ImageDraw.ImageDraw, film: Film, chart: Chart, box: Box) -> None:
    left, top, right, bottom = box
    ticks = _ticks(film, chart)
    for tick in ticks:
        y = bottom - (tick - ticks[0]) / (ticks[-1] - ticks[0]) * (bottom - top)
        draw.line((left, y, right, y), fill=LIGHT["border-color"])
        label = _number(tick, chart.format)
        draw.text((left - 6, y), label, fill=LIGHT["text-color"], font=_font(11), anchor="rm")
    for x, step in ((left, film.ticks["step"][0]), (right, film.ticks["step"][-1])):
        label, anchor = (f"step {step}", "la") if x == left else (str(step), "ra")
        draw.text((x, bottom + 6), label, fill=LIGHT["text-color"], font=_font(11), anchor=anchor)


def _number(value: float, kind: str) -> str:
    return f"{100 * value:.0f} %" if kind == "percent" else f"{value:.3g}"


def _frame(scene: _Scene, frame: int) -> Image.Image:
    film, image = scene.film, scene.background.copy()
    draw, step = ImageDraw.Draw(image), film.frames["step"][frame]
    removed = _number(film.frames["removed"][frame], "percent")
    words = f"step {step}: {removed} removed"
    draw.text((SIZE[0] - 30, 24), words, fill=LIGHT["text-color"], font=_font(18), anchor="ra")
    left, top, right, bottom = _GRID
    wide, high = (right - left) / len(film.kinds), (bottom - top) / film.blocks
    kept = zip(film.cells, film.kept(frame), strict=True)
    shares = ((left + cell[1] * wide, top + cell[0] * high, share) for cell, share in kept)
    for shape in cells(shares, wide - 2, max(0.0, high - (2 if high > 5 else 1))):
        for x, y in shape.corners:
            draw.rectangle((x, y, x + shape.width, y + shape.height), fill=painted(shape.fill, RAMP_LIGHT))
    for chart, box in zip(scene.charts, _PLOTS, strict=False):
        for name in reversed(chart.series):
            _line(draw, film, chart, name, (box, step))
    return image


def _line(draw: ImageDraw.ImageDraw, film: Film, chart: Chart, name: str, until: tuple[Box, int]) -> None:
    (left, top, right, bottom), last = until
    first, end = film.ticks["step"][0], film.ticks["step"][-1]
    ticks = _ticks(film, chart)
    low, high = ticks[0], ticks[-1]
    points = [
        (
            left + (step - first) / max(1, end - first) * (right - left),
            bottom - (value - low) / (high - low) * (bottom - top),
        )
        for step, value in zip(film.ticks["step"], film.ticks[name], strict=True)
        if value is not None and math.isfinite(value) and step <= last
    ]
    if len(points) > 1 and name == "target":
        for dash in _dashes(points):
            draw.line(dash, fill=LIGHT["text-color"], width=1)
    elif len(points) > 1:
        draw.line(points, fill=film.color, width=2)


def _dashes(points: Sequence[Point]) -> list[tuple[Point, Point]]:
    """The drawn pieces of a dashed line, which Pillow has not; dashes run on over the corners."""
    found, gone = [], 0.0
    for (x, y), (to_x, to_y) in pairwise(points):
        length, place = math.hypot(to_x - x, to_y - y), 0.0
        while place < length:
            into = gone % (_DASH + _GAP)
            end = min(length, place + (_DASH if into < _DASH else _DASH + _GAP) - into)
            if into < _DASH:
                one, two = place / length, end / length
                found.append(
                    ((x + (to_x - x) * one, y + (to_y - y) * one), (x + (to_x - x) * two, y + (to_y - y) * two))
                )
            gone += max(end - place, 1e-6)
            place = max(end, place + 1e-6)
    return found
