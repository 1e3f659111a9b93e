"""Intervals, tests and edit distances, against values known from elsewhere or from going through every case."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from clvp_cli.bench.statistics import bootstrap, edit_distance, expected_pick, holm, paired_permutation, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (150, 150, 0.9750, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    """Wilson's interval of textbook cases, also where every trial went one way."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-4)


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    """For many values the interval is the mean ± 1.96 standard errors, and the same for the same seed."""
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = bootstrap(values, seed=5)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert bootstrap(values, seed=5) == (low, high)


def test_bootstrap_of_a_ratio_resamples_rows_together() -> None:
    """A ratio of columns that move together has no spread; one that divides by nothing has no bounds."""
    rows = np.random.default_rng(2).random((30, 1)) * np.array([2.0, 1.0])
    assert bootstrap(rows, lambda m: m[..., 0] / m[..., 1]) == pytest.approx((2.0, 2.0))
    with np.errstate(invalid="ignore"):
        assert np.isnan(bootstrap(np.zeros((4, 2)), lambda m: m[..., 0] / m[..., 1])).all()


def test_the_permutation_test_is_exact_for_few_pairs() -> None:
    """Five differences of one sign: 2 of 32 assignments are as far out; values that cancel: p is 1."""
    assert paired_permutation([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)
    assert paired_permutation([1, -1, 2, -2]) == 1.0
    values = [0.5, -0.2, 0.7, 0.1]
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in product((1, -1), repeat=4)]
    assert paired_permutation(values) == pytest.approx(np.mean([s >= sum(values) - 1e-12 for s in sums]))


def test_the_permutation_test_by_draws_agrees_with_the_exact_one() -> None:
    """Beyond 14 pairs signs are drawn: near the normal approximation, never 0, and seeded."""
    values = np.random.default_rng(3).normal(0.35, 1.0, 40)
    p = paired_permutation(values, seed=1)
    assert p == paired_permutation(values, seed=1)
    assert 0.003 < p < 0.2
    assert paired_permutation(np.ones(40)) == pytest.approx(1 / 10001)


def test_holm_steps_down() -> None:
    """The smallest p counts as often as there are tests, and no later one falls below an earlier one."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


def test_expected_pick_is_the_mean_over_all_draws() -> None:
    """For each n the closed form is the average over every subset; 1 is the mean, N the pick itself."""
    rng = np.random.default_rng(4)
    values, scores = rng.random(7), rng.random(7)
    for n in range(1, 8):
        picks = [values[max(some, key=lambda i: scores[i])] for some in combinations(range(7), n)]
        assert expected_pick(values, scores, n) == pytest.approx(np.mean(picks))
    assert expected_pick(values, scores, 1) == pytest.approx(values.mean())
    assert expected_pick(values, -values, 7) == values.min()


@pytest.mark.parametrize(
    ("one", "other", "edits"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0)]
)
def test_edit_distance(one: str, other: str, edits: int) -> None:
    """Levenshtein's distance, both ways."""
    assert edit_distance(one, other) == edit_distance(other, one) == edits
