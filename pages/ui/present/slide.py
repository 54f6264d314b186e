"""What a slide is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slide:
    """One slide.

    Attributes:
        key: what it is about.
        title: its headline.
        body: HTML.
        reading: what follows from it, one or two sentences computed from the figures.
        runs: ids of the runs behind it.
        terms: terms on it and what they mean.
        notes: what its speaker may say.
        shipped: whether all its runs came with the program.
    """

    key: str
    title: str
    body: str
    reading: str = ""
    runs: tuple[str, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
    notes: str = ""
    shipped: bool = False
