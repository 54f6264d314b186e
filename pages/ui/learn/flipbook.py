"""A picture with a slider that follows the pointer, and two buttons that play it forward and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import streamlit as st

from pages.ui.shared.prose import component

FRAME_MS = 140


@dataclass(frozen=True)
class Frame:
    """One position of the slider.

    Attributes:
        name: what the slider shows beside it.
        svg: what is drawn over the base, SVG elements.
        words: what the picture says, one or two sentences; also its alternative text.
        place: where the slider stands on its track, 0..1, so that it agrees with an axis in the picture; None in all
            frames: they are spread evenly.
    """

    name: str
    svg: str
    words: str
    place: float | None = None


@dataclass(frozen=True)
class Book:
    """A picture in frames.

    Attributes:
        label: of the slider.
        size: width and height of the drawing in its own units.
        base: what stays in every frame, SVG elements.
        frames: in order.
        start: first frame shown.
        keep: stay at the same frame when the frames change.
    """

    label: str
    size: tuple[int, int]
    base: str
    frames: Sequence[Frame]
    start: int = 0
    keep: bool = False

    def content(self) -> dict[str, Any]:
        """What the script that draws it reads."""
        return {
            "label": self.label,
            "viewBox": f"0 0 {self.size[0]} {self.size[1]}",
            "base": self.base,
            "frames": [asdict(frame) for frame in self.frames],
            "interval": FRAME_MS,
            "keep": self.keep,
        }


def flipbook(book: Book, key: str) -> None:
    """Draw a book; where the reader left the slider goes into the URL under ``key``, so that a reload keeps it."""
    drawn = component("lrc_flipbook", "learn/flipbook", '<div class="flipbook"></div>')
    content = book.content()
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    drawn(
        data={**content, "id": digest, "start": position(book, key)},
        key=f"{key}_book",
        on_frame_change=lambda: _remember(key),
    )


def position(book: Book, key: str) -> int:
    """The frame that the URL names, else the book's first one; a bad value counts as none."""
    try:
        found = int(st.query_params.get(key, ""))
    except ValueError:
        found = book.start
    return min(max(found, 0), len(book.frames) - 1)


def _remember(key: str) -> None:
    frame = st.session_state[f"{key}_book"].get("frame")
    if frame is not None:
        st.query_params[key] = str(int(frame))
