"""What methods, decompositions and models are called, and their colours, wherever they are shown. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

import lrc_core.allocate
import lrc_core.decompose  # noqa: F401 - both register their entries
from lrc_core.allocate.curves.hand import HAND
from lrc_core.charts import theme
from lrc_core.formats.grids import METHODS
from lrc_core.models.source import is_path
from lrc_core.plan import split_variant
from lrc_core.quality.quantised import FORMAT_LABELS
from lrc_core.registry import ALLOCATORS, DECOMPOSITIONS
from lrc_core.runs.spec import IMPORTED, ModelRef
from lrc_core.updates import UPDATES, update_words

GREY = theme.GREY
HAND_COLOR, REFERENCE_COLOR = "#8b5a2b", "#c05a94"
_FORMAT_COLORS = dict(zip(METHODS, ("#4b5563", "#6b7280", "#9ca3af"), strict=True))


def method_label(name: str) -> str:
    """The registered label; ``Dense``, or the name for a method that this version does not know.

    ``llrc+left``, ``llrc+both`` and ``llrc+tuned``, plans with updated factors, are "LLRC + update", "LLRC + update of
    both" and "LLRC + tuned"; ``llrc+pivoted`` is "LLRC, pivots".
    """
    method, update, storage = split_variant(name)
    label = (
        ALLOCATORS.get(method).label
        if method in ALLOCATORS
        else {"dense": "Dense", HAND: "By hand", IMPORTED: "Imported", **FORMAT_LABELS}.get(method, method)
    )
    return label + update_words(update, storage)


def method_color(name: str) -> str:
    """The registered colour, updated or not; grey for the dense model and for unknown methods."""
    method, _, _ = split_variant(name)
    return (
        ALLOCATORS.get(method).color if method in ALLOCATORS else {HAND: HAND_COLOR, **_FORMAT_COLORS}.get(method, GREY)
    )


def in_order(names: Iterable[str]) -> list[str]:
    """Methods and their variants: dense first, formats, then as registered with updates behind, then unknown ones."""
    known, updates = ["dense", *METHODS, *ALLOCATORS.names()], ["", *UPDATES.names()]

    def place(name: str) -> tuple[int, str, int, str, str]:
        method, update, storage = split_variant(name)
        return _index(known, method), method, _index(updates, update), update, storage

    return sorted(set(names), key=place)


def _index(known: Sequence[str], name: str) -> int:
    """Its place; behind all others where it is not known."""
    return known.index(name) if name in known else len(known)


def learns(name: str) -> bool:
    """Whether a method trains, and so records plans on its way."""
    return name in ALLOCATORS and ALLOCATORS.get(name).learns


def decomposition_label(name: str) -> str:
    """The registered label; the name for a decomposition that this version does not know."""
    return DECOMPOSITIONS.get(name).label if name in DECOMPOSITIONS else name


def decomposition_color(name: str) -> str:
    """The registered colour; grey for a decomposition that this version does not know."""
    return DECOMPOSITIONS.get(name).color if name in DECOMPOSITIONS else GREY


def model_label(ref: ModelRef) -> str:
    """A short name for captions. The disk is not asked: a link must not find out what exists."""
    if ref.source == "starter":
        return "SmolLM2-135M (starter)"
    name = PurePath(ref.source).name if is_path(ref.source) else ref.source
    return _cut(name, 60) + (f" @ {_cut(ref.revision, 12)}" if ref.revision else "")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
