"""Metrics of numbers against their definitions."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.metrics import mean_squared_error, r2_score

from anygrain.metrics import (
    coverage_curve,
    coverage_error,
    crps,
    interval_coverage,
    interval_width,
    log_density,
    mean_absolute_error,
    r_squared,
    rmse,
)

generator = np.random.default_rng(0)
TRUTH = generator.normal(size=200)
MEAN, SD = TRUTH + generator.normal(size=200), generator.uniform(0.5, 2, size=200)


def test_errors_are_those_of_scikit_learn():
    assert rmse(MEAN, TRUTH) == pytest.approx(mean_squared_error(TRUTH, MEAN) ** 0.5, abs=1e-12)
    assert mean_absolute_error(MEAN, TRUTH) == pytest.approx(np.abs(MEAN - TRUTH).mean(), abs=1e-12)
    assert r_squared(MEAN, TRUTH) == pytest.approx(r2_score(TRUTH, MEAN), abs=1e-12)


def test_missing_truth_is_left_out():
    holes = np.where(np.arange(200) % 3 == 0, np.nan, TRUTH)
    kept = ~np.isnan(holes)
    assert rmse(MEAN, holes) == pytest.approx(rmse(MEAN[kept], TRUTH[kept]), abs=1e-12)
    assert crps(MEAN, SD, holes) == pytest.approx(crps(MEAN[kept], SD[kept], TRUTH[kept]), abs=1e-12)


def test_crps_is_the_integral_that_defines_it():
    for mean, sd, y in ((0.3, 1.5, 2.0), (-1.0, 0.2, -1.1), (0.0, 1.0, 0.0)):
        below = quad(lambda t, m=mean, s=sd: norm.cdf(t, m, s) ** 2, mean - 20 * sd - 5, y)[0]
        above = quad(lambda t, m=mean, s=sd: norm.sf(t, m, s) ** 2, y, mean + 20 * sd + 5)[0]
        assert crps([mean], [sd], [y]) == pytest.approx(below + above, abs=1e-7)


def test_crps_without_doubt_is_the_absolute_error():
    assert crps(MEAN, np.full(200, 1e-9), TRUTH) == pytest.approx(mean_absolute_error(MEAN, TRUTH), abs=1e-8)


def test_log_density_is_that_of_scipy():
    assert log_density(MEAN, SD, TRUTH) == pytest.approx(norm.logpdf(TRUTH, MEAN, SD).mean(), abs=1e-12)


def test_true_distributions_are_covered_as_promised():
    mean, sd = generator.normal(size=40000), generator.uniform(0.1, 3, size=40000)
    truth = mean + sd * generator.normal(size=40000)
    assert coverage_error(mean, sd, truth) < 0.006
    assert coverage_error(mean, 2 * sd, truth) > 0.1
    ends = np.stack([mean - 1.959964 * sd, mean + 1.959964 * sd], axis=1)
    assert interval_coverage(ends, truth) == pytest.approx(0.95, abs=0.005)
    assert interval_coverage(ends, truth) == coverage_curve(mean, sd, truth, levels=[0.95]).coverage[0]
    assert interval_width(ends) == pytest.approx(2 * 1.959964 * sd.mean(), abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rmse([1.0, 2.0], [1.0]), "Expected one shape"),
        (lambda: rmse([np.nan, 2.0], [1.0, np.nan]), "prediction of row 0 is NaN"),
        (lambda: rmse([1.0], [np.nan]), "None of 1 rows has a known true number"),
        (lambda: crps([0.0], [0.0], [1.0]), "standard deviation is 0.0"),
        (lambda: interval_coverage([1.0, 2.0], [1.0, 2.0]), "Expected .N, 2."),
        (lambda: coverage_curve([0.0], [1.0], [0.0], levels=[0.5, 1.0]), "Expected probabilities"),
    ],
)
def test_bad_input_is_said_in_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
