"""What a bench says beyond one draw of the calibration: rows that differ in their seed alone, taken together. No torch.

A test over windows says whether two models differ; only other seeds say whether the methods that made them do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrc_core.budget import size_key
from lrc_core.quality.paired import LEVEL, t_test
from lrc_core.quality.rows import named

Row = Mapping[str, Any]
_EQUAL = ("model", "decomposition", "part", "variant")


@dataclass(frozen=True)
class Spread:
    """A figure under several seeds.

    Attributes:
        values: one for each seed, two or more.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float:
        """The standard deviation between seeds, with n - 1 below."""
        return float(np.std(self.values, ddof=1))

    @property
    def differs(self) -> bool:
        """Whether the mean is other than 0 by more than chance: t-test over seeds, p < 0.05."""
        count = len(self.values)
        return t_test(self.mean, self.deviation / math.sqrt(count), count - 1) < LEVEL


@dataclass(frozen=True)
class SeedCell:
    """Rows of a bench that are alike but for their seed.

    Attributes:
        row: the first of them.
        seeds: of all.
        relative: perplexity over the dense model's, by text.
        against: nats a token more than a baseline of the same seed, by baseline and text.
        accuracy: mean zero-shot accuracy, where it was measured.
    """

    row: Row
    seeds: tuple[int, ...]
    relative: Mapping[str, Spread]
    against: Mapping[str, Mapping[str, Spread]]
    accuracy: Spread | None


def over_seeds(rows: Sequence[Row]) -> list[SeedCell]:
    """Cells that were measured under two or more seeds, in the order of the rows; failed rows are left out."""
    groups: dict[tuple[Any, ...], dict[int, Row]] = {}
    for row in rows:
        if "error" not in row and row.get("seed") is not None:
            key = (named(row), size_key(row["keep_target"]), *(row.get(name) for name in _EQUAL))
            groups.setdefault(key, {}).setdefault(row["seed"], row)
    return [_cell(found) for found in groups.values() if len(found) > 1]


def _cell(found: Mapping[int, Row]) -> SeedCell:
    rows = list(found.values())
    tests = [row.get("paired") or {} for row in rows]
    names = [name for name in tests[0] if name != "dense"]
    against = {
        name: _spreads({text: test["difference"] for text, test in _texts(one, name).items()} for one in tests)
        for name in names
    }
    means = _spreads({"mean": mean["value"]} if (mean := row.get("zero_shot_mean")) else {} for row in rows)
    return SeedCell(
        rows[0],
        tuple(found),
        _spreads(row.get("relative") or {} for row in rows),
        {name: spreads for name, spreads in against.items() if spreads},
        means.get("mean"),
    )


def _texts(test: Mapping[str, Any], baseline: str) -> Mapping[str, Any]:
    return (test.get(baseline) or {}).get("perplexity") or {}


def _spreads(figures: Iterable[Mapping[str, float]]) -> dict[str, Spread]:
    """Of what every seed has."""
    every = list(figures)
    return {key: Spread(tuple(one[key] for one in every)) for key in every[0] if all(key in one for one in every)}
