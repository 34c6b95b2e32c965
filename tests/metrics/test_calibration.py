"""Calibration error: by hand on a few rows, its limits, and simulated truth."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from anygrain.metrics import classwise_calibration_error, expected_calibration_error, reliability_curve


def simulate(n: int, *, temperature: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((n, 5))
    true = np.exp(logits)
    true /= true.sum(1, keepdims=True)
    truth = (true.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=4)
    said = np.exp(logits / temperature)
    return said / said.sum(1, keepdims=True), truth


def test_by_hand() -> None:
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    truth = np.array([0, 1, 0, 1])
    curve = reliability_curve(probs, truth, bins=4)  # (.5, .75]: .6, .7; (.75, 1]: .9, .8
    np.testing.assert_allclose(curve.probability, [0.65, 0.85])
    np.testing.assert_allclose(curve.share, [1.0, 0.5])
    assert curve.rows.tolist() == [2, 2]
    assert expected_calibration_error(probs, truth, bins=4) == pytest.approx((0.35 + 0.35) / 2)
    assert expected_calibration_error(probs, truth, bins=1) == pytest.approx(0)
    # class 0: .9, .8, .6 against 2/3, and .3 against 0; class 1 mirrors it
    assert classwise_calibration_error(probs, truth, bins=2) == pytest.approx(0.75 * (2.3 / 3 - 2 / 3) + 0.25 * 0.3)


def test_a_probability_on_an_edge_belongs_to_the_bin_below() -> None:
    curve = reliability_curve([[0.5, 0.5], [0.51, 0.49]], [0, 0], bins=2)
    assert curve.rows.tolist() == [1, 1]


def test_curve_is_that_of_scikit_learn() -> None:
    probs, truth = simulate(2000)
    top, right = probs.max(1), probs.argmax(1) == truth
    curve = reliability_curve(probs, truth, bins=10)
    share, probability = calibration_curve(right, top, n_bins=10)
    np.testing.assert_allclose(curve.share, share)
    np.testing.assert_allclose(curve.probability, probability)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("error", [expected_calibration_error, classwise_calibration_error])
def test_calibrated_is_near_zero_and_overconfident_is_not(error, adaptive: bool) -> None:
    assert error(*simulate(20_000), adaptive=adaptive) < 0.015
    assert error(*simulate(20_000, temperature=0.3), adaptive=adaptive) > 0.04


def test_adaptive_bins_hold_equally_many_rows_and_keep_ties_together() -> None:
    probs, truth = simulate(1500)
    assert reliability_curve(probs, truth, adaptive=True).rows.tolist() == [100] * 15
    same = np.tile([[0.7, 0.3]], (50, 1))
    curve = reliability_curve(same, np.r_[np.zeros(20, int), np.ones(30, int)], adaptive=True)
    assert curve.rows.tolist() == [50]
    assert expected_calibration_error(same, np.r_[np.zeros(20, int), np.ones(30, int)], adaptive=True) == pytest.approx(
        0.3
    )


def test_certain_answers() -> None:
    truth = np.array([0, 1, 2, 1])
    assert expected_calibration_error(np.eye(3)[truth], truth) == 0
    assert expected_calibration_error(np.eye(3)[(truth + 1) % 3], truth) == 1
    with pytest.raises(ValueError, match="at least 1"):
        expected_calibration_error(np.eye(3)[truth], truth, bins=0)
