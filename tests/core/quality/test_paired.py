"""Paired tests against scipy and against counting every possibility."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from lrc_core.quality.paired import log_perplexity, mcnemar, mean_accuracy


def test_mcnemar_counts_every_way_the_coins_can_fall() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        one, other = generator.integers(0, 2, 12), generator.integers(0, 2, 12)
        discordant = int((one != other).sum())
        seen = abs(int(one.sum()) - int(other.sum()))
        falls = [abs(sum(fall)) for fall in itertools.product((1, -1), repeat=discordant)]
        expected = np.mean([fall >= seen for fall in falls])
        found = mcnemar(one.tolist(), other.tolist())
        assert found.p == pytest.approx(expected)
        assert found.difference == pytest.approx(one.mean() - other.mean())


def test_mcnemar_is_the_exact_sign_test() -> None:
    one, other = [1] * 30 + [0] * 14 + [1] * 100, [0] * 30 + [1] * 14 + [1] * 100
    found = mcnemar(one, other)
    assert found.p == pytest.approx(stats.binomtest(14, 44, 0.5).pvalue)
    assert found.stderr == pytest.approx(np.std(np.subtract(one, other), ddof=1) / 12)
    many = mcnemar([1] * 6000 + [0] * 5000, [0] * 6000 + [1] * 5000)
    assert many.p == pytest.approx(stats.binomtest(5000, 11000, 0.5).pvalue)
    assert mcnemar(one, one).p == 1.0


def test_lists_that_do_not_match_are_refused() -> None:
    for one, other in (([1], [1, 0]), ([], [])):
        with pytest.raises(ValueError, match="match"):
            mcnemar(one, other)
    with pytest.raises(ValueError, match="match"):
        log_perplexity([1.0], [1.0, 2.0], [3])
    with pytest.raises(ValueError, match="no tasks"):
        mean_accuracy({})


def test_log_perplexity_is_the_paired_t_test_on_equal_windows() -> None:
    generator = np.random.default_rng(1)
    one, other = generator.normal(1500, 90, 40), generator.normal(1490, 90, 40)
    found = log_perplexity(one.tolist(), other.tolist(), [511] * 40)
    expected = stats.ttest_rel(one / 511, other / 511)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.difference == pytest.approx((one.sum() - other.sum()) / 511 / 40)
    assert found.stderr == pytest.approx(found.difference / expected.statistic)


def test_log_perplexity_weighs_windows_by_their_tokens() -> None:
    tokens = [511, 100, 100, 100]
    found = log_perplexity([1022.0, 300, 200, 260], [1000.0, 250, 190, 270], tokens)
    assert found.difference == pytest.approx((1782 - 1710) / 811)
    same = log_perplexity([5.0, 6.0], [5.0, 6.0], [3, 3])
    assert (same.difference, same.p) == (0.0, 1.0)
    assert log_perplexity([5.0], [6.0], [3]).p == 1.0
    constant = log_perplexity([5.0, 6.0], [4.0, 5.0], [3, 3])  # better by the same everywhere: no doubt left
    assert constant.p == 0.0


def test_mean_over_equal_tasks_is_one_exact_test() -> None:
    generator = np.random.default_rng(2)
    tasks = {name: (generator.integers(0, 2, 50).tolist(), generator.integers(0, 2, 50).tolist()) for name in "abc"}
    found = mean_accuracy(tasks)
    joined = [[item for part in tasks.values() for item in part[side]] for side in (0, 1)]
    assert found.p == pytest.approx(mcnemar(*joined).p)
    assert found.difference == pytest.approx(mcnemar(*joined).difference)


def test_mean_over_unequal_tasks_agrees_with_counting() -> None:
    tasks = {"a": ([1, 1, 1, 0, 1, 1], [0, 0, 0, 1, 0, 1]), "b": ([1, 0, 1], [0, 0, 0])}
    found = mean_accuracy(tasks)
    seen = (3 / 6 + 2 / 3) / 2
    assert found.difference == pytest.approx(seen)
    extreme = [
        abs(sum(fall[:5]) / 6 + sum(fall[5:]) / 3) / 2 >= seen - 1e-9 for fall in itertools.product((1, -1), repeat=7)
    ]
    assert found.p == pytest.approx(np.mean(extreme), abs=0.01)
    assert mean_accuracy(tasks) == found
