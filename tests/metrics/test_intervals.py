"""Intervals: published numbers, scipy's, and how often they hold the truth."""

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, ttest_rel

from anygrain.metrics import accuracy, bootstrap_interval, log_loss, mean_interval, paired_lower_bound, wilson_interval


@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (10, 10), (81, 263), (1, 1)])
def test_wilson_is_that_of_scipy(right: int, n: int) -> None:
    want = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, n) == pytest.approx((want.low, want.high), abs=1e-12)


def test_wilson_of_newcombe() -> None:
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, method 3
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_wilson_holds_the_truth_as_often_as_it_says() -> None:
    for p in (0.1, 0.5, 0.93):
        held = sum(
            binom.pmf(right, 60, p)
            for right in range(61)
            if wilson_interval(right, 60).low <= p <= wilson_interval(right, 60).high
        )
        assert 0.92 < held < 0.98


def test_mean_interval_approaches_the_normal_one() -> None:
    values = np.random.default_rng(0).exponential(size=2000)
    interval = mean_interval(values, resamples=4000)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.004)
    assert mean_interval(values, seed=3) == mean_interval(torch.tensor(values), seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_any_metric_of_several_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    probs, truth = rng.dirichlet(np.ones(3), 400), rng.integers(3, size=400)
    low, high = bootstrap_interval(log_loss, probs, truth, resamples=300)
    assert low < log_loss(probs, truth) < high
    right = probs.argmax(1) == truth
    got = bootstrap_interval(accuracy, torch.tensor(probs), truth, resamples=500, confidence=0.8)
    assert got == pytest.approx(mean_interval(right, resamples=500, confidence=0.8), abs=0.01)
    assert got == bootstrap_interval(accuracy, probs, truth, resamples=500, confidence=0.8)
    whole = mean_interval(right, resamples=100)
    monkeypatch.setattr("anygrain.metrics.intervals._CELLS", 1000)
    assert mean_interval(right, resamples=100) == whole


def test_paired_bound_is_where_the_one_sided_t_test_turns() -> None:
    rng = np.random.default_rng(2)
    without = rng.normal(0.6, 0.05, size=7)
    added = without + rng.normal(0.02, 0.01, size=7)
    bound = paired_lower_bound(added, without)
    assert bound < (added - without).mean()
    assert ttest_rel(added - bound, without, alternative="greater").pvalue == pytest.approx(0.05)
    assert paired_lower_bound([1, 1, 1], [0, 0, 0]) == 1


def test_paired_bound_lies_below_the_truth_in_95_of_100_cases() -> None:
    rng = np.random.default_rng(3)
    difference = rng.normal(0.3, 1.0, size=(4000, 5))
    below = np.mean([paired_lower_bound(row, np.zeros(5)) <= 0.3 for row in difference])
    assert below == pytest.approx(0.95, abs=0.012)


def test_what_gives_no_interval_is_refused() -> None:
    for call, message in [
        (lambda: wilson_interval(3, 2), "3 of 2"),
        (lambda: wilson_interval(0, 0), "0 of 0"),
        (lambda: wilson_interval(1, 2, confidence=95), "confidence is 95"),
        (lambda: mean_interval([]), "same number, not 0"),
        (lambda: bootstrap_interval(accuracy, [0, 1], [0]), "1, 2 rows"),
        (lambda: paired_lower_bound([1.0], [0.5]), "at least 2 pairs"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
