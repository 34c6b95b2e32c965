"""Proper scores: scikit-learn's numbers, row by row, and properness by enumeration."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss as sklearn_log_loss

from anygrain.metrics import brier_score, brier_scores, log_loss, log_losses

RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet(np.ones(4), size=200)
TRUTH = RNG.integers(4, size=200)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_log_loss_is_that_of_scikit_learn_also_at_zero(kind: type) -> None:
    probs = PROBS.astype(kind)
    probs[0] = np.eye(4)[(TRUTH[0] + 1) % 4]
    assert log_loss(probs, TRUTH) == pytest.approx(sklearn_log_loss(TRUTH, probs, labels=range(4)), rel=1e-6)
    assert log_losses(probs, TRUTH)[0] == pytest.approx(-np.log(np.finfo(kind).eps))


def test_brier_score_is_the_squared_distance_from_the_truth() -> None:
    by_hand = ((PROBS - np.eye(4)[TRUTH]) ** 2).sum(1)
    np.testing.assert_allclose(brier_scores(PROBS, TRUTH), by_hand, atol=1e-12)
    assert brier_score(PROBS, TRUTH) == pytest.approx(by_hand.mean())
    assert brier_score(np.eye(4)[TRUTH], TRUTH) == 0
    assert brier_score(np.eye(4)[(TRUTH + 1) % 4], TRUTH) == 2


@pytest.mark.parametrize("score", [log_losses, brier_scores])
def test_the_truth_has_the_lowest_expected_score(score) -> None:
    def expected(said: np.ndarray, true: np.ndarray) -> float:
        return sum(true[k] * score(said[None], np.array([k]))[0] for k in range(4))

    for true, said in zip(PROBS[:50], PROBS[50:100], strict=True):
        assert expected(true, true) < expected(said, true)


def test_tensors_and_missing_truth() -> None:
    probs, truth = torch.tensor(PROBS, requires_grad=True), torch.tensor(TRUTH)
    truth[::2] = -1
    assert log_loss(probs, truth) == pytest.approx(log_loss(PROBS[1::2], TRUTH[1::2]))
    assert len(brier_scores(probs, truth)) == 100
    assert log_loss(probs.bfloat16().float(), truth) == pytest.approx(log_loss(PROBS[1::2], TRUTH[1::2]), abs=0.01)
    half = torch.tensor([[0.25, 0.75]], dtype=torch.bfloat16)
    assert log_loss(half, [0]) == pytest.approx(np.log(4))


@pytest.mark.parametrize(
    ("probs", "truth", "message"),
    [
        ([[0.5, 0.6]], [0], "1 of 1 rows are no probabilities .first: row 0 sums to 1.1"),
        ([[0.5, 0.5], [np.nan, 1]], [0, 0], "row 1"),
        ([[1.5, -0.5]], [0], "least -0.5"),
        ([0.5, 0.5], [0, 0], r"shape \(2,\)"),
        ([[0.5, 0.5]], [2], "truth of row 0 is 2"),
        ([[0.5, 0.5]], [-2], "truth of row 0 is -2"),
        ([[0.5, 0.5]], [0.5], "Expected class indices"),
        ([[0.5, 0.5]], [0, 1], "1 predictions and 2 true classes"),
        ([[0.5, 0.5]], [-1], "None of 1 rows"),
    ],
)
def test_what_is_no_prediction_is_named(probs, truth, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_loss(probs, truth)
