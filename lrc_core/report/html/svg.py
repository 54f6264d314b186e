"""Drawings as inline SVG. Colours that depend on the theme are CSS classes; those of methods are the same in both."""

from __future__ import annotations

import html
from collections.abc import Iterable

from lrc_core.charts.shapes import LEVELS, Cells, Dot, Drawing, Label, Path, Shape, outline
from lrc_core.charts.theme import blended

_ROLES = ("ink", "muted", "grid", "surface")


def number(value: float) -> str:
    """As short as a tenth of a pixel allows."""
    return f"{value:.1f}".removesuffix(".0")


def svg(drawing: Drawing, alt: str) -> str:
    """One ``<svg>`` element with a role and a name; its marks carry ``data-tip`` for those who point at them."""
    grid = "" if drawing.grid is None else f' data-grid="{" ".join(f"{value:g}" for value in drawing.grid)}"'
    width, height = number(drawing.width), number(drawing.height)
    return (
        f'<svg role="img" aria-label="{html.escape(alt)}" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"{grid}>'
        f"{''.join(_shapes(drawing.shapes))}</svg>"
    )


def _shapes(shapes: Iterable[Shape]) -> Iterable[str]:
    for shape in shapes:
        if isinstance(shape, Cells):
            yield cells_path(shape)
        elif isinstance(shape, Path):
            yield _path(shape)
        elif isinstance(shape, Dot):
            yield _dot(shape)
        else:
            yield _label(shape)


def _paint(name: str, value: str) -> str:
    """``fill`` or ``stroke`` of a colour, or the class of a role."""
    if not value:
        return ' fill="none"' if name == "fill" else ""
    if value in _ROLES:
        return f' class="{name[0]}-{value}"' + (' fill="none"' if name == "stroke" else "")
    return f' {name}="{value}"' + (' fill="none"' if name == "stroke" else "")


def _keys(key: str, target: str = "") -> str:
    return (f' data-method="{html.escape(key)}"' if key else "") + (
        f' data-target="{html.escape(target)}"' if target else ""
    )


def cells_path(shape: Cells) -> str:
    """All cells of one level as one path; a class has its colour."""
    box = f"h{number(shape.width)}v{number(shape.height)}h{number(-shape.width)}z"
    corners = "".join(f"M{number(x)} {number(y)}{box}" for x, y in shape.corners)
    return f'<path class="l{shape.fill.removeprefix("level:")}" d="{corners}"/>'


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{number(x)},{number(y)}" for x, y in points)


def _path(shape: Path) -> str:
    dash = f' stroke-dasharray="{" ".join(f"{step:g}" for step in shape.dash)}"' if shape.dash else ""
    paint = _paint("stroke", shape.stroke)
    return (
        f'<polyline points="{_points(shape.points)}"{paint} stroke-width="{shape.width:g}" '
        f'stroke-linejoin="round"{dash}{_keys(shape.key, shape.target)}/>'
    )


def _dot(shape: Dot) -> str:
    rest = f'{_paint("fill", shape.fill)}{_keys(shape.key, shape.target)} data-tip="{html.escape(shape.tip)}"'
    corners = outline(shape.symbol, shape.x, shape.y, shape.size)
    if corners:
        return f'<polygon points="{_points(corners)}"{rest}/>'
    return f'<circle cx="{number(shape.x)}" cy="{number(shape.y)}" r="{number(shape.size / 2)}"{rest}/>'


def _label(shape: Label) -> str:
    turn = f' transform="rotate(-90 {number(shape.x)} {number(shape.y)})"' if shape.turned else ""
    bold = ' font-weight="600"' if shape.bold else ""
    return (
        f'<text x="{number(shape.x)}" y="{number(shape.y)}" font-size="{shape.size:g}" text-anchor="{shape.anchor}"'
        f"{_paint('fill', shape.fill)}{bold}{turn}{_keys(shape.key)}>{html.escape(shape.text)}</text>"
    )


def symbol(name: str, color: str) -> str:
    """The symbol of a legend entry, as a small drawing of its own."""
    dot = Dot(7, 7, 9, name, color)
    return f'<svg class="symbol" width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">{_dot(dot)}</svg>'


def ramp_style(ramp: tuple[str, ...]) -> str:
    """A class for every level of the ramp."""
    colors = ("#{:02x}{:02x}{:02x}".format(*blended(ramp, step / LEVELS)) for step in range(LEVELS + 1))
    return "".join(f".l{step}{{fill:{color}}}" for step, color in enumerate(colors))
