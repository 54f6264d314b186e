"""What papers report for models of known size: a first idea of a model that was not measured here. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from lrc_core.words import removed


@dataclass(frozen=True)
class Published:
    """One model at one rate, as a paper's table has it.

    Attributes:
        model: its name.
        params: about how many.
        keep: share of the parameters of its linears that is kept.
        text: the perplexity is on it.
        dense: perplexity of the dense model.
        methods: perplexity by method, the best last.
        source: the paper.
    """

    model: str
    params: float
    keep: float
    text: str
    dense: float
    methods: tuple[tuple[str, float], ...]
    source: str


_LEMS = "LEMS, ICML 2026"
_ARA = "ARA, arXiv 2510.19389"
TABLE = (
    Published("Llama-2-7B", 6.7e9, 0.8, "WikiText-2", 5.47, (("uniform", 8.38), ("ARA", 6.42)), _ARA),
    Published("Mistral-7B", 7.2e9, 0.8, "WikiText-2", 5.25,
              (("STRS", 7.20), ("uniform", 7.14), ("LEMS", 5.98)), _LEMS),
    Published("Llama-3-8B", 8.0e9, 0.8, "WikiText-2", 6.14,
              (("STRS", 12.92), ("uniform", 11.44), ("LEMS", 8.16)), _LEMS),
    Published("Qwen3-8B", 8.2e9, 0.8, "WikiText-2", 9.71,
              (("STRS", 15.70), ("uniform", 12.52), ("LEMS", 10.38)), _LEMS),
)  # fmt: skip
"""Pairs of factors in 16 bits, nothing tuned."""


FAR = 10
"""From this ratio of sizes on, a model says nothing about another one."""


def closest(params: int) -> Published | None:
    """The model of the table whose size is nearest, as a ratio; None where that is :data:`FAR` or more."""
    one = min(TABLE, key=lambda known: _ratio(known, params))
    return one if _ratio(one, params) < FAR else None


def published_words(params: int) -> str:
    """What was published for the nearest size, and that it was not measured here."""
    one = closest(params)
    if one is None:
        return (
            "Quality: not measured here, and nothing in our table of published results is near: no model is "
            f"within {FAR} times this size."
        )
    ratio = _ratio(one, params)
    far = f" Its size differs {ratio:.0f}-fold, so it says little." if ratio > 3 else ""
    listed = ", ".join(f"{name} {value:g}" for name, value in one.methods)
    return (
        f"Quality: not measured here. Published for {one.model}, {removed(one.keep)} removed, perplexity on "
        f"{one.text}: dense {one.dense:g}, {listed} ({one.source}; pairs, untuned).{far}"
    )


def _ratio(one: Published, params: int) -> float:
    """The larger size over the smaller one."""
    return max(one.params / max(params, 1), params / one.params)
