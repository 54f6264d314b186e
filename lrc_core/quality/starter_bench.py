"""What every method gave on the starter model, as docs/bench_starter.md has it: the hint beside a choice. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lrc_core.decompose import TWO_SIDED
from lrc_core.types import Storage
from lrc_core.words import duration

STARTER_BENCH = {
    "llm_pruner": (1.89, 1.83, 4),
    "llm_pruner_lora": (1.51, 1.41, 43),
    "uniform": (3.85, 12.1, 0),
    "strs": (2.05, 2.25, 44),
    "lagrangian": (1.49, 1.58, 0),
    "drank": (4.73, 14.1, 0),
    "svdllm2": (3.64, 11.2, 0),
    "zerosum": (1.84, 1.97, 3),
    "greedy": (1.49, 1.65, 0),
    "contextual": (1.86, 2.37, 31),
    "lems": (1.54, 1.65, 26),
    "llrc": (1.48, 1.58, 72),
    "successive": (1.32, 1.35, 73),
    "ara": (1.62, 1.85, 66),
    "dobi": (2.39, 3.19, 64),
    "ars": (1.84, 2.18, 86),
}
"""By method: perplexity over dense on gensim and on c4 with 20 % removed, and seconds of its run to 40 %.

K-FAC decomposition where a method has one; one H100 that up to 18 cells shared, so that seconds compare only roughly.
"""
TUNED_STARTER = {"successive": (1.21, 1.27), "lagrangian": (1.21, 1.26)}
"""The same with tuned factors, as docs/results.md has it; tuning took 7 to 9 minutes on two cores."""

PIVOTED_STARTER = {
    "successive": (1.19, 1.23),
    "lagrangian": (1.24, 1.3),
    "llrc": (1.26, 1.31),
    "greedy": (1.28, 1.36),
    "zerosum": (1.3, 1.37),
    "lems": (1.31, 1.38),
    "ars": (1.33, 1.41),
    "contextual": (1.34, 1.5),
    "ara": (1.42, 1.61),
    "dobi": (1.44, 1.54),
    "strs": (1.57, 1.71),
    "svdllm2": (1.68, 2.4),
    "uniform": (1.81, 3.2),
    "drank": (3.44, 9.52),
}
"""The same as allocated, stored as pivots, as docs/results.md has it."""
PIVOTED_TUNED = {"lagrangian": (1.07, 1.1)}
"""The same with tuned factors, stored as pivots, as docs/results.md has it."""


@dataclass(frozen=True)
class Recommendation:
    """One of three choices that most people want; all methods stand behind them.

    Attributes:
        key: names it in links and keys.
        label: on its button.
        methods: the methods that it stands for, the first of which allocates.
        storage: law by which their layers are stored.
        update: kind of update of the factors that follows; "none" where ranks are all.
        figures: of each method, perplexity over dense on gensim and on c4 with 20 % removed, on the starter.
        said: what it is and takes, in a sentence.
        decomposition: that all of them are made on: the one on which every method of ranks did better.
    """

    key: str
    label: str
    methods: tuple[str, ...]
    storage: Storage
    update: str
    figures: tuple[tuple[float, float], ...]
    said: str
    decomposition: str = TWO_SIDED

    def fits(self, method: str, decomposition: str, storage: str, update: str) -> bool:
        """Whether a form says this; what follows a baseline's ranks does not matter."""
        same = (decomposition, storage) == (self.decomposition, self.storage) and method in self.methods
        return same and (update == self.update or self.key == "baseline")


RECOMMENDED = (
    Recommendation(
        "best", "Best", ("lagrangian",), "pivoted", "tuned", (PIVOTED_TUNED["lagrangian"],),
        "The closed form, stored as pivots, then its factors tuned: for the starter 15 to 30 minutes on two cores.",
    ),
    Recommendation(
        "fast", "Fast", ("lagrangian",), "pivoted", "none", (PIVOTED_STARTER["lagrangian"],),
        "The same closed form without the tuning: minutes, most of them for reading the calibration text.",
    ),
    Recommendation(
        "baseline", "Baseline", ("uniform", "strs"), "pair", "none",
        (STARTER_BENCH["uniform"][:2], STARTER_BENCH["strs"][:2]),
        "What there was before, in pairs: every layer keeps the same share, or what probes of single layers say.",
    ),
)  # fmt: skip
"""Best, fast and baseline, as docs/results.md has them; where nothing is chosen, the first is."""


def starter_rows(methods: Iterable[str]) -> list[tuple[str, float, float, str, str, str]]:
    """Of every method of the bench: name, perplexity over dense on gensim and c4 as pairs, as pivots, tuned, and time.

    "" where something was not measured.
    """
    found = []
    for method in methods:
        if method in STARTER_BENCH:
            gensim, c4, seconds = STARTER_BENCH[method]
            pivots, tuned = PIVOTED_STARTER.get(method), _tuned(method)
            took = duration(seconds) if seconds else "under a second"
            found.append((method, gensim, c4, _pair(*pivots) if pivots else "", tuned, took))
    return found


def starter_words(method: str) -> str:
    """What a method gave on the starter, in one sentence; "" of one that was not measured there."""
    found = STARTER_BENCH.get(method)
    if found is None:
        return ""
    gensim, c4, seconds = found
    said = f"On the starter at 20 %, on K-FAC where it takes factors: {_pair(gensim, c4)} times the dense perplexity"
    said += " (gensim / c4)"
    if pivots := PIVOTED_STARTER.get(method):
        said += f", stored as pivots {_pair(*pivots)}"
    if tuned := _tuned(method):
        said += f", with tuned factors {tuned}"
    took = duration(seconds) if seconds else "under a second"
    return f"{said}; its run took {took} on a shared H100."


def _tuned(method: str) -> str:
    """With tuned factors, stored as pivots where that was measured."""
    if pivots := PIVOTED_TUNED.get(method):
        return f"{_pair(*pivots)} as pivots"
    pairs = TUNED_STARTER.get(method)
    return f"{_pair(*pairs)} as pairs" if pairs else ""


def _pair(gensim: float, c4: float) -> str:
    return f"{gensim:g} / {c4:g}"
