"""Step 7: how a mask learns, on one row of singular values; played forward and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from lrc_core import words
from lrc_core.allocate.llrc import row as training
from lrc_core.decompose.measures import energy_rank
from lrc_core.results.archive import RunView
from lrc_core.runs.spec import ModelRef, SpectraSpec
from pages.ui.learn import lessons
from pages.ui.learn.flipbook import Book, Frame, flipbook
from pages.ui.shared import charting, forms, svg
from pages.ui.shared.frame import sample_note
from pages.ui.shared.summary import shown_spectra

KEY = "learn_mask"
FORCES = {
    "compression": ("Compression: fewer", "#d55e00"),
    "distillation": ("Distillation: like the dense layer", "#0072b2"),
    "tv": ("Total variation: like the neighbours", "#a8477e"),
}
NOISES = {"gumbel": "Gumbel", "logistic": "Logistic", "none": "None"}
LEFT, WIDTH = 70, 800
TOP_BARS, HIGH_BARS = 30, 110
TOP_LOGITS, HIGH_LOGITS, LOW, HIGH = 180, 190, -6.0, 8.0
TOP_COUNT, HIGH_COUNT = 420, 70
ARROW = 34.0
"""Length of an arrow whose force is the largest of the step."""


def draw(ref: ModelRef) -> None:
    """The switches, the film and what came of it."""
    setting = controls()
    sigma, source, view = row(ref)
    steps = training.train(sigma, setting)
    legend()
    flipbook(book(sigma, steps, setting), KEY)
    st.markdown(outcome(sigma, steps[-1], setting))
    if view is None:
        st.caption("The row is made by this program, as there are no spectra to take one from.")
    else:
        st.caption(
            f"The row: {len(sigma)} values spread along the spectrum of {source}. Computed as you look, in numpy."
        )
        sample_note(view.sample, view.id)
    last = steps[-1]
    charting.folded(
        {
            "Direction": np.arange(1, len(sigma) + 1),
            "Share of the energy": [words.percent(value, 2) for value in sigma**2],
            "Logit at the start": steps[0].logits.round(2),
            "Logit at the end": last.logits.round(2),
            "Kept": ["yes" if kept else "no" for kept in last.kept],
        },
        "Every direction at the start and at the end",
    )


def controls() -> training.Setting:
    """Forces, noise, temperature, target and start."""
    labels = {name: label for name, (label, *_) in FORCES.items()}
    words = "Switch one off and play again: what does the mask do without it?"
    terms = forms.several(st, "Forces", labels, FORCES, "learn_forces", help=words)
    one, two, three = st.columns(3)
    noise = forms.pick(one, "Noise", NOISES, "gumbel", "learn_noise")
    temperature = two.select_slider("Temperature", [0.1, 0.2, 0.4, 0.7, 1.0, 2.0], value=0.4, key="learn_temperature")
    target = three.slider("Keep how many of 32", 4, 28, 16, key="learn_target")
    flat = st.toggle(
        "Start all logits alike",
        key="learn_flat",
        help="Off: logits start falling along the spectrum, as in the paper. On: only the forces can tell directions "
        "apart.",
    )
    chosen = tuple(name for name in FORCES if name in terms)
    return training.Setting(chosen, noise, float(temperature), int(target), ramp=not flat)


def row(ref: ModelRef) -> tuple[np.ndarray, str, RunView[SpectraSpec] | None]:
    """The row of singular values, what it is of, and the run it comes from."""
    shown = shown_spectra(ref)
    if shown is None:
        return training.row_of(np.exp(-np.linspace(0, 4, 64))), "", None
    card, sigmas = shown.spectra.card, shown.sigmas
    middle = [layer for layer in card.layers if layer.block == card.n_blocks // 2]
    # The flattest spectrum of the block: on a steep one there is nothing to decide.
    layer = max(middle or card.layers, key=lambda layer: energy_rank(sigmas[layer.name], 0.95) / layer.full_rank)
    return training.row_of(sigmas[layer.name]), lessons.layer_label(layer), shown.view


def legend() -> None:
    """The colours of the arrows, in words."""
    marks = "".join(
        f'<span style="display: inline-block; margin-right: 1.2rem">'
        f'<span style="color: {color}; font-weight: 700; font-size: 1.2rem">↕</span> {name}</span>'
        for name, color in FORCES.values()
    )
    st.html(f'<div style="font-size: 0.9rem">{marks}lengths as square roots, of the largest force of the step</div>')


def book(sigma: np.ndarray, steps: Sequence[training.MaskStep], setting: training.Setting) -> Book:
    """All steps as frames."""
    counts = [int(step.kept.sum()) for step in steps]
    frames = [
        Frame(
            f"{number} of {len(steps)}", _frame(sigma, step, number, len(steps)), step_sentence(number, step, setting)
        )
        for number, step in enumerate(steps, start=1)
    ]
    return Book("Step", (900, 520), _base(sigma, counts, setting), frames, keep=True)


def _base(sigma: np.ndarray, counts: Sequence[int], setting: training.Setting) -> str:
    """Labels, axes and the count over all steps."""
    zero, bottom = _height(0.0), TOP_LOGITS + HIGH_LOGITS
    target = _count_height(setting.target, len(sigma))
    points = [
        (_step_x(number, len(counts)), _count_height(count, len(sigma))) for number, count in enumerate(counts, 1)
    ]
    return (
        _title(18, "singular values, heights as square roots: filled ones are kept in this step")
        + svg.line((LEFT, TOP_BARS + HIGH_BARS), (LEFT + WIDTH, TOP_BARS + HIGH_BARS))
        + _title(TOP_LOGITS - 12, "logits (dots), with this step's noise (dashes; ▲ ▼ further out), and their forces")
        + svg.line((LEFT, zero), (LEFT + WIDTH, zero), dash="5 4")
        + svg.text(LEFT - 8, zero - 6, "keep", size=15, anchor="end")
        + svg.text(LEFT - 8, zero + 15, "drop", size=15, anchor="end")
        + svg.text(LEFT - 8, TOP_LOGITS + 5, f"+{HIGH:.0f}", size=14, anchor="end")
        + svg.text(LEFT - 8, bottom, f"{LOW:.0f}".replace("-", "−"), size=14, anchor="end")
        + _title(TOP_COUNT - 12, "kept without noise, over the steps; dashed: the target")
        + svg.line((LEFT, target), (LEFT + WIDTH, target), dash="5 4")
        + svg.text(LEFT - 8, target + 4, str(setting.target), size=14, anchor="end")
        + svg.polyline(points, svg.TEAL)
    )  # fmt: skip


def _title(y: float, words_of: str) -> str:
    """What a panel shows."""
    return svg.text(LEFT, y, words_of, size=16, anchor="start")


def _frame(sigma: np.ndarray, step: training.MaskStep, number: int, count: int) -> str:
    """Bars, dots, dashes and arrows of one step, each kind as one path to keep the film small."""
    place = _places(len(sigma))
    wide = 0.62 * WIDTH / len(sigma)
    floor = TOP_BARS + HIGH_BARS
    tall = HIGH_BARS * np.sqrt(sigma / sigma[0]) if sigma[0] > 0 else sigma * 0
    bars = [
        f"M{x - wide / 2:.0f} {floor}v{-height:.0f}h{wide:.0f}V{floor}z" for x, height in zip(place, tall, strict=True)
    ]
    on = "".join(bar for bar, kept in zip(bars, step.mask, strict=True) if kept)
    off = "".join(bar for bar, kept in zip(bars, step.mask, strict=True) if not kept)
    values = list(zip(place, step.logits + step.noise, strict=True))
    noisy = "".join(f"M{x - 6:.0f} {_height(value):.0f}h12" for x, value in values if LOW <= value <= HIGH)
    outside = "".join(_outside(x, value) for x, value in [*values, *zip(place, step.logits, strict=True)])
    dots = "".join(
        f"M{x:.0f} {_height(value):.0f}h0" for x, value in zip(place, step.logits, strict=True) if LOW <= value <= HIGH
    )
    x = _step_x(number, count)
    return (
        f'<path d="{on}" fill="{svg.TEAL}"/><path d="{off}" fill="none" stroke="{svg.GREY}"/>'
        f'<path d="{noisy}" stroke="{svg.GREY}" stroke-width="2"/><path d="{outside}" fill="{svg.GREY}"/>'
        + "".join(_arrows(place, step, name, shift) for name, shift in zip(FORCES, (-5, 0, 5), strict=True))
        + f'<path d="{dots}" stroke="currentColor" stroke-width="8" stroke-linecap="round"/>'
        + svg.line((x, TOP_COUNT), (x, TOP_COUNT + HIGH_COUNT), color=svg.ORANGE)
    )


def _outside(x: float, value: float) -> str:
    """A triangle at the edge that a value lies beyond; nothing for one inside."""
    if LOW <= value <= HIGH:
        return ""
    edge, back = _height(value), 8 if value > HIGH else -8
    return f"M{x:.0f} {edge:.0f}l-6 {back}h12z"


def _arrows(place: np.ndarray, step: training.MaskStep, name: str, shift: int) -> str:
    """One force on all logits; lengths are square roots of its share of the step's largest force."""
    largest = max(float(np.abs(force).max()) for force in step.forces.values()) or 1.0
    drawn = []
    for x, logit, force in zip(place, step.logits, step.forces[name], strict=True):
        length = ARROW * float(np.sqrt(abs(force) / largest)) * (1 if force < 0 else -1)
        if abs(length) >= 3:
            tip = 3 if length > 0 else -3
            at = _height(logit)
            drawn.append(f"M{x + shift:.0f} {at:.0f}v{length:.0f}m-3 {-tip}l3 {tip}l3 {-tip}")
    return f'<path d="{"".join(drawn)}" fill="none" stroke="{FORCES[name][1]}" stroke-width="1.8"/>'


def _places(count: int) -> np.ndarray:
    return LEFT + WIDTH * (np.arange(count) + 0.5) / count


def _height(logit: float) -> float:
    inside = min(max(float(logit), LOW), HIGH)
    return TOP_LOGITS + HIGH_LOGITS * (HIGH - inside) / (HIGH - LOW)


def _step_x(number: int, count: int) -> float:
    return LEFT + WIDTH * (number - 1) / max(1, count - 1)


def _count_height(kept: int, count: int) -> float:
    return TOP_COUNT + HIGH_COUNT * (1 - kept / count)


def step_sentence(number: int, step: training.MaskStep, setting: training.Setting) -> str:
    """One step in words."""
    kept, flipped = int(step.kept.sum()), int((step.kept != step.mask).sum())
    open_ones = int((step.soft * (1 - step.soft) > 0.05).sum())
    pull = float(step.forces["compression"].sum())
    press = "Compression rests" if pull == 0 else "Compression presses down" if pull < 0 else "Compression lifts again"
    return (
        f"Step {number}: {kept} of {len(step.logits)} are kept without noise (target {setting.target}); the noise "
        f"decides {flipped} the other way in this step. {press}; {open_ones} undecided enough to feel the other "
        "forces."
    )


def outcome(sigma: np.ndarray, last: training.MaskStep, setting: training.Setting) -> str:
    """What the mask kept in the end, against the best mask of its size."""
    kept = int(last.kept.sum())
    held, best = training.energy(sigma, last.kept), training.best_energy(sigma, kept)
    holes = int((~last.kept[: int(np.flatnonzero(last.kept)[-1])]).sum()) if kept else 0
    said = f"In the end **{kept}** are kept with **{words.percent(held, 1)}** of the energy; "
    if best - held < 1e-9:
        said += "no mask of that size holds more."
    elif words.percent(best, 1) != words.percent(held, 1):
        said += f"the best {kept} would hold {words.percent(best, 1)}."
    else:
        said += f"the best {kept} would hold {words.percent(best - held, 2)} more."
    if holes:
        said += f" {'One' if holes == 1 else holes} in between {'was' if holes == 1 else 'were'} dropped."
    if "compression" not in setting.terms:
        said += " Nothing pressed, so nothing had to go."
    elif "distillation" not in setting.terms:
        said += " Nothing said which ones matter: what is left is what was highest at the start, and luck."
    return said
