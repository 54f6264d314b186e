"""Singular values that runs stored. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrc_core.decompose import TWO_SIDED
from lrc_core.decompose.measures import half_square
from lrc_core.errors import RunError
from lrc_core.records import AGAIN
from lrc_core.results.archive import AnyRun, Archive, Stamp, card_of, stamp_of
from lrc_core.runs.integrity import arrays_in, unaltered
from lrc_core.runs.spec import ModelRef
from lrc_core.types import ModelCard

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Spectra:
    """Singular values of every layer under each decomposition, descending."""

    card: ModelCard
    decompositions: tuple[str, ...]
    values: dict[str, dict[str, Values]]


@lru_cache(maxsize=6)
def _spectra(path: str, stamp: Stamp) -> dict[str, dict[str, Values]]:
    """Shared by everyone who asks, so that no click waits for a copy of megabytes; it must not be written to."""
    values: dict[str, dict[str, Values]] = {}
    for key, found in arrays_in(Path(path)).items():
        decomposition, _, layer = key.partition("/")
        if found.ndim != 1 or found.dtype.kind != "f":
            raise RunError(f"{path} is damaged: {key} is no list of singular values.", AGAIN)
        values.setdefault(decomposition, {})[layer] = found.astype(np.float64)
        values[decomposition][layer].flags.writeable = False
    return values


def spectra_of(view: AnyRun) -> Spectra:
    """The spectra of a finished run.

    Raises:
        RunError: the file is missing or damaged, or lacks a layer of the card.
    """
    card, path = card_of(view), view.path / "spectra.npz"
    values = _spectra(str(unaltered(path)), stamp_of(path))
    for decomposition, by_layer in values.items():
        for layer in card.layers:
            if layer.name not in by_layer:
                raise RunError(
                    f"{path} lacks {layer.name} under {decomposition}.", "Delete the run and start it again."
                )
    return Spectra(card, tuple(values), values)


def losses_of(view: AnyRun) -> dict[str, Values]:
    """Predicted loss of dropping each component of each layer, in nats per token: half of sigma^2, two-sided.

    Raises:
        RunError: as :func:`spectra_of`.
    """
    spectra_of(view)  # has every layer, or an error names it
    return _losses(str(view.path / "spectra.npz"), stamp_of(view.path / "spectra.npz"))


@lru_cache(maxsize=6)
def _losses(path: str, stamp: Stamp) -> dict[str, Values]:
    """Shared like the values they are of: pages keep them as long as their visitor may come back."""
    losses = {name: half_square(sigma) for name, sigma in _spectra(path, stamp)[TWO_SIDED].items()}
    for found in losses.values():
        found.flags.writeable = False
    return losses


def known_losses(ref: ModelRef, card: ModelCard, archive: Archive) -> tuple[Mapping[str, Values] | None, str]:
    """The predicted losses of the newest run that has them for this card, and its id."""
    for view in archive.done_spectra(ref):
        if TWO_SIDED in view.spec.decompositions:
            losses = losses_of(view)
            if losses.keys() >= {layer.name for layer in card.layers}:
                return losses, view.id
    return None, ""
