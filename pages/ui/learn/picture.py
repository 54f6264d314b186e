"""Step 1: a drawn image as a matrix, rank by rank. Needs no model."""

from __future__ import annotations

from functools import cache

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from lrc_core import words
from lrc_core.budget import break_even
from lrc_core.decompose.measures import cumulative_energy, energy_rank
from lrc_core.runs.spec import ModelRef
from lrc_core.types import LinearShape
from pages.ui.learn.flipbook import Book, Frame, flipbook
from pages.ui.learn.spectrum_svg import SpectrumPanel
from pages.ui.shared import charting, svg

ROWS, COLUMNS = 96, 128
SHAPE = LinearShape("image", 0, "image", ROWS, COLUMNS)
RANKS = (*range(1, 21), *range(22, 41, 2), 45, 50, 55, 60, 70, 80, ROWS)
KEY = "learn_picture"


def drawn() -> NDArray[np.float64]:
    """[96, 128] grey values in 0..1: a lighthouse by the sea under a sun."""
    y, x = np.mgrid[0:ROWS, 0:COLUMNS].astype(float)
    image = 0.92 - 0.35 * y / 62  # the sky
    image[(x - 98) ** 2 + (y - 20) ** 2 < 11**2] = 1.0
    hills = 52 + 6 * np.sin(x / 17) + 3 * np.sin(x / 6 + 1)
    image = np.where(y > hills, 0.5 + 0.08 * np.sin(x / 9), image)
    sea = 64 + 0 * x
    waves = 0.34 + 0.1 * np.sin(y * 1.4 + 1.2 * np.sin(x / 7)) + 0.12 * np.exp(-(((x - 98) / 9) ** 2))
    image = np.where(y > sea, waves, image)
    rock = (y > 74 - 12 * np.exp(-(((x - 32) / 17) ** 2))) & (np.abs(x - 32) < 30)
    image = np.where(rock, 0.16 + 0.05 * np.sin(x * 0.9) * np.sin(y * 0.8), image)
    half = 7 - 2.5 * (64 - y) / 40
    tower = (np.abs(x - 32) < half) & (y > 24) & (y < 66)
    image = np.where(tower, np.where((y // 7) % 2 == 0, 0.97, 0.25), image)
    lamp = (np.abs(x - 32) < 4) & (y > 16) & (y <= 24)
    image = np.where(lamp, 0.08, image)
    image = np.where((np.abs(x - 32) < 1.5) & (y > 18) & (y < 22), 1.0, image)
    beam = (np.abs(y - 20 + (x - 36) * 0.16) < (x - 36) * 0.09) & (x > 36) & (y < hills)
    return np.clip(np.where(beam, np.minimum(1.0, image + 0.12), image), 0.0, 1.0)


@cache
def matrix() -> NDArray[np.float64]:
    """[96, 128] the image, counted from its mean grey: brightness alone would drown everything else."""
    image = drawn()
    centred: NDArray[np.float64] = image - image.mean()
    return centred


@cache
def decomposed() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """U [96, 96], sigma [96], V^T [96, 128] of the matrix."""
    left, sigma, right = np.linalg.svd(matrix(), full_matrices=False)
    return left, sigma, right


@cache
def book() -> Book:
    """All ranks of the image."""
    left, sigma, right = decomposed()
    image, even = drawn(), break_even(SHAPE)
    panel = SpectrumPanel(sigma, even, 40, 254, 800, 104)
    pictures = [(20, "the image, 96 × 128"), (320, "the first directions"), (620, "what is missing")]
    base = "".join(svg.text(x + 128, 16, label, size=17) for x, label in pictures)
    base += svg.image(_grey(image), (20, 26, 256, 192)) + panel.base()
    frames = []
    for rank in RANKS:
        kept = (left[:, :rank] * sigma[:rank]) @ right[:rank]
        drawing = svg.image(_grey(kept + image.mean()), (320, 26, 256, 192))
        drawing += svg.image(_grey(0.5 + (matrix() - kept)), (620, 26, 256, 192))
        words_of = image_sentence(rank, sigma, even)
        frames.append(Frame(f"{rank} of {ROWS}", drawing + panel.cut(rank), words_of, panel.share(rank)))
    return Book("Rank", (900, 400), base, frames, start=2)


def image_sentence(rank: int, sigma: NDArray[np.float64], even: float) -> str:
    """One sentence on a rank of the image, computed from it."""
    numbers, full = rank * (ROWS + COLUMNS), ROWS * COLUMNS
    energy = words.percent(cumulative_energy(sigma)[rank - 1], 1)
    words_of = f"Rank {rank}: {numbers:,} numbers instead of {full:,} hold {energy} of the image's energy"
    if rank >= even:
        return f"{words_of}; at or past rank {even:.0f} the two thin factors cost as much as the image itself, or more."
    return f"{words_of}, for {words.percent(numbers / full, 0)} of the cost."


def _grey(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Sixty-four shades: enough for the eye, and small files."""
    return (np.clip(values, 0, 1) * 63).round().astype(np.uint8) * 4


def draw(ref: ModelRef) -> None:
    """The image, its first directions and what is missing, under one slider."""
    flipbook(book(), KEY)
    _, sigma, _ = decomposed()
    rank = energy_rank(sigma, 0.99)
    st.caption(
        f"{rank} of {ROWS} directions hold 99 % of this image's energy. The picture is drawn by this program; no model "
        "is involved yet."
    )
    energy = cumulative_energy(sigma)
    charting.folded(
        {
            "Rank": RANKS,
            "Numbers": [k * (ROWS + COLUMNS) for k in RANKS],
            "Share of the image's numbers": [words.percent(k / break_even(SHAPE), 0) for k in RANKS],
            "Energy kept": [words.percent(energy[k - 1], 2) for k in RANKS],
        },
        "Cost and energy of every rank shown",
    )
