"""The colours of the app for what is looked at outside of it; a test holds them to the app's own."""

from __future__ import annotations

from collections.abc import Mapping

GREY = "#7b8c94"
"""Of the dense model, and of what has no colour of its own."""
RAMP_LIGHT = (
    "#f0f4ea", "#d8e9dd", "#b7dccf", "#90cbc1", "#68b6b1", "#459e9f", "#2b848b", "#1c6974", "#144e5c", "#0e3444",
)  # fmt: skip
RAMP_DARK = (
    "#16242b", "#173441", "#1a4756", "#1f5b69", "#297179", "#3b8888", "#579f98", "#7db7aa", "#a9cfc0", "#dbe8d8",
)  # fmt: skip

LIGHT: Mapping[str, str] = {
    "primary-color": "#0f6e6c",
    "background-color": "#fcfcfa",
    "secondary-background-color": "#f1f3ef",
    "text-color": "#1b2627",
    "link-color": "#0b6462",
    "border-color": "#dbe0da",
    "chart-sequential-colors": ",".join(RAMP_LIGHT),
}
DARK: Mapping[str, str] = {
    "primary-color": "#43b3ac",
    "background-color": "#12181a",
    "secondary-background-color": "#1c2427",
    "text-color": "#e3eae8",
    "link-color": "#7ecac5",
    "border-color": "#2f3a3d",
    "chart-sequential-colors": ",".join(RAMP_DARK),
}
"""By the names that Streamlit gives its components: ``--st-primary-color`` and so on."""


def variables(theme: Mapping[str, str]) -> str:
    """A theme as CSS declarations."""
    return " ".join(f"--st-{name}: {value};" for name, value in theme.items())


def blended(ramp: tuple[str, ...], share: float) -> tuple[int, int, int]:
    """The colour at a share 0..1 of a ramp, linear between its colours, as red, green and blue."""
    place = min(max(share, 0.0), 1.0) * (len(ramp) - 1)
    low = min(int(place), len(ramp) - 2)
    first, second = (tuple(int(color[i : i + 2], 16) for i in (1, 3, 5)) for color in ramp[low : low + 2])
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(first, second, strict=True))
    return red, green, blue
