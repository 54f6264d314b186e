"""What every method gave on the starter model, as docs/bench_starter.md has it: the hint beside a choice. No torch."""

from __future__ import annotations

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

PIVOTED_STARTER = {"lagrangian": ((1.24, 1.3), (1.07, 1.1))}
"""The same stored as pivots: as allocated, and with tuned factors, as docs/results.md has it."""


def starter_words(method: str) -> str:
    """What a method gave on the starter, in one sentence; "" of one that was not measured there."""
    found = STARTER_BENCH.get(method)
    if found is None:
        return ""
    gensim, c4, seconds = found
    said = f"On the starter at 20 %, on K-FAC where it takes factors: {gensim:g} / {c4:g} times the dense perplexity"
    said += " (gensim / c4)"
    if tuned := TUNED_STARTER.get(method):
        said += f", {tuned[0]:g} / {tuned[1]:g} with tuned factors"
    if pivots := PIVOTED_STARTER.get(method):
        said += "; stored as pivots " + " and ".join(f"{gensim:g} / {c4:g}" for gensim, c4 in pivots)
    took = duration(seconds) if seconds else "under a second"
    return f"{said}; its run took {took} on a shared H100."
