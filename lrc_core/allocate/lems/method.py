"""LEMS, layer-wise error model search (Thoma et al., ICML 2026, "Advancing SVD-based LLM Compression via Layer-Wise
Error Model Search").

One probe per layer, at a tenth of break-even, scales the tail of its spectrum to a divergence; a bias lets early
blocks count more; an integer program finds the ranks of least total error within the budget. The two parameters of
the bias are tuned on the divergence of whole plans.

Choices made here: the authors tune with a tree-structured Parzen estimator, here the first half of the trials is a
quasi-random sequence that begins with the given values and the rest are drawn ever closer around the best (ten trials
are few for any sampler). They stop offering low ranks at 0.95 of break-even; here all that save parameters are offered.
What the integer program leaves of the budget is spent rank by rank where the model sees most to gain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from lrc_core.allocate.curves.knapsack import best_plan, gains
from lrc_core.allocate.lems.errors import Array, allowed_ranks, biased_choices, error_curve
from lrc_core.allocate.probing.grid import ProbeText
from lrc_core.allocate.probing.records import RecordFile
from lrc_core.allocate.protocol import Allocation, Context
from lrc_core.budget import check_target, fit_budget, whole_rank_of_share
from lrc_core.errors import CancelledError
from lrc_core.registry import ALLOCATORS, MethodEntry
from lrc_core.settings import setting
from lrc_core.types import Progress

_HIGHEST = (3.0, 7.0)  # of alpha and gamma
_STEPS = (0.7548776662466927, 0.5698402909980532)  # of the two-dimensional golden-ratio sequence


@dataclass(frozen=True)
class LemsSettings:
    """Settings of LEMS; the defaults are the paper's."""

    windows: int = setting(
        32, "Probe windows", "Token windows of every probe and trial; 32 in the authors' code.", minimum=1, maximum=4096
    )
    window: int = setting(2048, "Window", "Tokens in a probe window.", minimum=2, maximum=65536)
    temperature: float = setting(
        0.6, "Temperature", "Divides the logits before the divergence.", minimum=0.05, maximum=10
    )
    offset: int = setting(
        256,
        "Offset",
        "Positions at the start of a window that the divergence leaves out; an eighth of a window that is no longer.",
        minimum=0,
        maximum=65536,
    )
    probe_ratio: float = setting(
        0.1, "Probe ratio", "Share of break-even at which each layer is probed.", minimum=0.01, maximum=0.9
    )
    multiple: int = setting(
        8,
        "Multiple",
        "Ranks are multiples of this, halved where no such plan meets the target.",
        minimum=1,
        maximum=256,
    )
    trials: int = setting(
        10,
        "Trials",
        "Whole plans measured to tune the depth bias; 0 takes alpha and gamma as they are.",
        minimum=0,
        maximum=1000,
    )
    alpha: float = setting(0.0, "First alpha", "How fast the depth bias falls, before tuning.", minimum=0, maximum=3)
    gamma: float = setting(0.0, "First gamma", "Strength of the depth bias, before tuning.", minimum=0, maximum=7)


ENTRY = ALLOCATORS.register(
    MethodEntry(
        name="lems",
        label="LEMS",
        summary="Scales each spectrum by one probe and solves for all ranks at once as an integer program.",
        source="Layer-wise error model search, ICML 2026",
        color="#c1121f",
        implementation="lrc_core.allocate.lems.method:allocate",
        settings_class=LemsSettings,
        presets={
            "quick": {"windows": 4, "window": 256, "offset": 32},
            "standard": {"windows": 8, "window": 512, "offset": 64},
            "paper": {},
        },
        tiny={"windows": 2, "window": 12, "trials": 3},
    )
)


@dataclass(frozen=True)
class Trial:
    """One measured plan."""

    alpha: float
    gamma: float
    divergence: float


@dataclass(frozen=True)
class Planned:
    """A plan within the budget, and whether the integer program behind it was solved to its end."""

    ranks: dict[str, int]
    proven: bool


def allocate(context: Context, settings: LemsSettings) -> Allocation:
    """LEMS ranks; see :class:`~lrc_core.allocate.protocol.Allocator`. Finished probes and trials survive a cancel."""
    allowed = check_target(context.layers, context.keep)
    curves = _curves(context, settings)
    ranks = allowed_ranks(context.layers, allowed, 0.1 if context.keep < 0.5 else 0.3, settings.multiple)

    def plan(alpha: float, gamma: float) -> Planned:
        choices = biased_choices(context.layers, curves, ranks, alpha, gamma)
        found = best_plan(context.layers, choices, allowed)
        first = gains(context.layers, choices, found.ranks)
        return Planned(fit_budget(context.layers, found.ranks, context.keep, first), found.proven)

    trials = _tune(context, settings, plan)
    best = min(trials, key=lambda trial: trial.divergence, default=Trial(settings.alpha, settings.gamma, 0.0))
    found = plan(best.alpha, best.gamma)
    details = {"alpha": best.alpha, "gamma": best.gamma, "proven": found.proven}
    return Allocation(found.ranks, details={**details, "trials": [asdict(trial) for trial in trials]})


def _curves(context: Context, settings: LemsSettings) -> dict[str, Array]:
    """Predicted error of every layer by rank, without the depth bias."""
    from lrc_core.allocate.probing.probes import probe_layers  # torch

    wanted = [(layer, whole_rank_of_share(layer, settings.probe_ratio)) for layer in context.layers]
    effects = probe_layers(context, _text(settings), wanted)
    return {
        layer.name: error_curve(
            context.source.sigma(layer.name, layer.block).double().cpu().numpy(),
            rank,
            effects[layer.name, rank].divergence,
        )
        for layer, rank in wanted
    }


def _text(settings: LemsSettings) -> ProbeText:
    return ProbeText(settings.windows, settings.window, settings.temperature, settings.offset)


def _tune(context: Context, settings: LemsSettings, plan: Callable[[float, float], Planned]) -> list[Trial]:
    """Measure the whole plans of several depth biases; plans that turn out the same are measured once."""
    from lrc_core.allocate.probing.probes import PlanProber  # torch

    prober = PlanProber(context, _text(settings))
    file = RecordFile(context.checkpoint / "trials.jsonl", ("alpha", "gamma", "divergence"))
    recorded = {(r["alpha"], r["gamma"]): r["divergence"] for r in file.read()}
    measured: dict[tuple[int, ...], float] = {}
    trials: list[Trial] = []
    while len(trials) < settings.trials:
        if context.should_stop():
            raise CancelledError("Tuning LEMS was cancelled.", "Resume the run: finished trials are kept.")
        alpha, gamma = next_point(trials, settings, context.seed)
        ranks = plan(alpha, gamma).ranks
        key = tuple(ranks.values())
        divergence = recorded.get((alpha, gamma), measured.get(key))
        if divergence is None:
            divergence = prober.effect(ranks).divergence
        if (alpha, gamma) not in recorded:
            file.append({"alpha": alpha, "gamma": gamma, "divergence": divergence})
        measured[key] = divergence
        trials.append(Trial(alpha, gamma, divergence))
        context.on_progress(Progress("tuning the depth bias", len(trials), settings.trials, asdict(trials[-1])))
    return trials


def next_point(trials: list[Trial], settings: LemsSettings, seed: int) -> tuple[float, float]:
    """Alpha and gamma of the next trial: the given ones, then a quasi-random sequence, then around the best so far.

    It depends on nothing but what was measured and the seed, so that a resumed run asks the same.
    """
    number, spread = len(trials), (settings.trials + 1) // 2
    if number == 0:
        return settings.alpha, settings.gamma
    if number <= spread:
        start = np.random.default_rng(seed).random(2)
        unit = (start + number * np.array(_STEPS)) % 1
    else:
        best = min(trials, key=lambda trial: trial.divergence)
        reach = 0.3 * 0.8 ** (number - spread - 1)  # ever closer
        offset = np.random.default_rng([seed, number]).uniform(-reach, reach, 2)
        unit = np.clip(np.array([best.alpha, best.gamma]) / _HIGHEST + offset, 0, 1)
    return float(unit[0] * _HIGHEST[0]), float(unit[1] * _HIGHEST[1])
