"""What share of a model's blocks can be compressed at all; a share that is kept has to be read beside it. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise

from lrc_core.budget import kept_share, removed_share

Coverage = Mapping[str, tuple[int, int]]
"""Of every part of the blocks: parameters of its matrices that can be compressed, and all of them."""

_PARTS = (
    ("experts", re.compile(r"(?<!shared_)expert|exps|input_linear|output_linear")),
    ("attention", re.compile(r"attn|attention|[qkvo]_proj|qkv|query|key|value")),
    ("MLP", re.compile(r"mlp|ffn|feed_forward|fc\d|(?:gate|up|down)_proj|dense_(?:h|4h)_to|intermediate|output|ff\b")),
)
EXPERTS = re.compile(r"expert|moe|input_linear|output_linear")
"""Names of modules that hold experts by number."""
OTHER = "other"
_LEFT_OUT = re.compile(r"(?:^|[._])bias$|(?:^|\.)(?:gate|wg|gate_inp|classifier|router(?:\.\w+)*?)(?:\.weight)?$")
"""Biases, and the routers of mixtures: they choose, and hold next to nothing."""
_ALL = 0.995
"""From this share on everything is said to be compressible."""


def is_expert(kind: str) -> bool:
    """Whether a linear of that path inside its block is one of several that tokens are routed to."""
    return any(EXPERTS.search(part) and following.isdecimal() for part, following in pairwise(kind.split(".")))


def family(kind: str) -> str:
    """A path inside a block with the number of an expert left out: ``mlp.experts.*.up_proj``."""
    parts = kind.split(".")
    return ".".join(
        "*" if number and is_expert(".".join(parts[number - 1 : number + 1])) else part
        for number, part in enumerate(parts)
    )


def part_of(kind: str) -> str:
    """The part of a block that a path inside it belongs to: ``experts``, ``attention``, ``MLP`` or ``other``."""
    return next((name for name, pattern in _PARTS if pattern.search(kind)), OTHER)


def count_coverage(
    every: Iterable[tuple[str, int]], compressible: Iterable[tuple[str, int]]
) -> dict[str, tuple[int, int]]:
    """The coverage, from the paths and sizes of all matrices of the blocks and of those that can be compressed."""
    found: dict[str, tuple[int, int]] = {}
    for number, matrices in enumerate((compressible, every)):
        for kind, size in matrices:
            if number and _LEFT_OUT.search(kind):
                continue
            now = found.get(part_of(kind), (0, 0))
            found[part_of(kind)] = (now[0] + size, now[1]) if number == 0 else (now[0], now[1] + size)
    return found


def covered(coverage: Coverage) -> float:
    """Share of the blocks' parameters that can be compressed; 1 where nobody counted."""
    total = sum(whole for _, whole in coverage.values())
    return sum(some for some, _ in coverage.values()) / total if total else 1.0


def blocks_kept(keep: float, coverage: Coverage) -> float:
    """Share of all the blocks' parameters that is kept where ``keep`` is kept of those that can be compressed."""
    return kept_share(removed_share(keep) * covered(coverage))


def coverage_words(coverage: Coverage) -> str:
    """What shares that are kept are shares of: "" where (nearly) all of the blocks can be compressed."""
    share = covered(coverage)
    if share >= _ALL:
        return ""
    parts = ", ".join(f"{100 * some / whole:.0f} % of the {name}" for name, (some, whole) in coverage.items() if whole)
    return (
        f"Only {100 * share:.3g} % of the parameters of this model's blocks can be compressed ({parts}); "
        "shares that are kept are shares of those."
    )


def kept_words(keep: float, coverage: Coverage) -> str:
    """The share of the whole blocks that a plan keeps, in brackets for behind its own: "" where they are the same."""
    return "" if covered(coverage) >= _ALL else f" ({100 * blocks_kept(keep, coverage):.3g} % of the blocks)"
