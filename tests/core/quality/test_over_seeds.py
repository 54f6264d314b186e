"""Rows that differ in their seed alone, taken together: against scipy, and against what may not be mixed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lrc_core.quality.over_seeds import over_seeds
from lrc_core.quality.tables import SEED_LEGEND, to_markdown


def _row(method: str, seed: int, value: float, above: float | None = None, **more: Any) -> dict[str, Any]:
    paired = {} if above is None else {"uniform": {"perplexity": {"t": {"difference": above, "stderr": 0.1, "p": 0.5}}}}
    return {
        "method": method, "seed": seed, "keep_target": 0.8, "decomposition": "kfac", "run_id": f"{method}{seed}",
        "perplexity": {"t": {"value": 20 * value, "stderr": 1.0}}, "relative": {"t": value}, "paired": paired, **more,
    }  # fmt: skip


RATIOS, ABOVE = (1.21, 1.18, 1.24), (-0.31, -0.27, -0.36)


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    dense = {"method": "dense", "keep_target": 1.0, "run_id": "d", "perplexity": {"t": {"value": 20, "stderr": 1.0}}}
    own = [_row("llrc", seed, ratio, above) for seed, (ratio, above) in enumerate(zip(RATIOS, ABOVE, strict=True))]
    return [dense, _row("uniform", 0, 1.6), *own]


def test_a_cell_is_the_mean_and_the_deviation_of_its_seeds(rows: list[dict[str, Any]]) -> None:
    (cell,) = over_seeds(rows)
    assert cell.row["method"] == "llrc" and cell.seeds == (0, 1, 2)
    assert (cell.relative["t"].mean, cell.relative["t"].deviation) == pytest.approx(
        (np.mean(RATIOS), np.std(RATIOS, ddof=1))
    )
    spread = cell.against["uniform"]["t"]
    assert spread.values == ABOVE and spread.differs
    assert stats.ttest_1samp(ABOVE, 0).pvalue < 0.05


@pytest.mark.parametrize("values", [(-0.3, 0.29, -0.31), (0.1, -0.1), (0.02, 0.03, 0.04), (0.2, 0.21)])
def test_a_difference_is_certain_where_scipy_says_so(rows: list[dict[str, Any]], values: tuple[float, ...]) -> None:
    found = [_row("llrc", seed, 1.2, above) for seed, above in enumerate(values)]
    (cell,) = over_seeds([rows[0], *found])
    with np.errstate(all="ignore"):
        p = stats.ttest_1samp(values, 0).pvalue
    assert cell.against["uniform"]["t"].differs == bool(p < 0.05)


def test_only_the_seed_may_differ(rows: list[dict[str, Any]]) -> None:
    first, second, third = rows[2:]
    for change in (
        {"method": "strs"},
        {"keep_target": 0.7},
        {"decomposition": "whitened"},
        {"storage": "pivoted"},
        {"update": "tuned"},
        {"variant": "without tv"},
        {"part": "texts"},
        {"model": "another"},
        {"seed": 0},
        {"error": "out of memory"},
    ):
        (cell,) = over_seeds([first, second, {**third, **change}])
        assert cell.seeds == (0, 1), change
    assert not over_seeds(rows[:3])


def test_what_one_seed_lacks_is_not_averaged(rows: list[dict[str, Any]]) -> None:
    tasked = [{**row, "zero_shot_mean": {"value": 0.4 + row["seed"] / 100, "stderr": 0.02}} for row in rows[2:]]
    (cell,) = over_seeds(tasked)
    assert cell.accuracy is not None and cell.accuracy.mean == pytest.approx(0.41)
    lacking = copy.deepcopy(tasked)
    del lacking[1]["zero_shot_mean"], lacking[2]["paired"]["uniform"]
    (cell,) = over_seeds(lacking)
    assert cell.accuracy is None and not cell.against and set(cell.relative) == {"t"}


def test_a_bench_of_several_seeds_has_a_table_over_them(rows: list[dict[str, Any]]) -> None:
    table = to_markdown({"rows": rows, "baselines": ["uniform"]})
    line = next(line for line in table.splitlines() if "0, 1, 2" in line)
    assert "1.210 ± 0.030" in line and "-0.313 ± 0.045*" in line and SEED_LEGEND in table
    assert SEED_LEGEND not in to_markdown({"rows": rows[:3], "baselines": ["uniform"]})
