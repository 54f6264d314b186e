"""What a text is called where its whole path has no room. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath


def text_label(name: str) -> str:
    """A text by itself: the last part of its name."""
    return PurePath(name).name or name


def text_labels(names: Iterable[str]) -> dict[str, str]:
    """Labels of texts that stand beside each other: as many last parts of their paths as tell them apart."""
    parts = {name: PurePath(name).parts or (name,) for name in names}
    lengths = dict.fromkeys(parts, 1)
    while True:
        labels = {name: str(PurePath(*parts[name][-length:])) for name, length in lengths.items()}
        count = Counter(labels.values())
        longer = [name for name, label in labels.items() if count[label] > 1 and lengths[name] < len(parts[name])]
        if not longer:
            return labels
        lengths |= {name: lengths[name] + 1 for name in longer}
