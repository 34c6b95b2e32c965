"""Votes needed, by walking all sequences of votes."""

from itertools import product

import numpy as np
import pytest
import torch

from anygrain.audit import votes_needed
from anygrain.labels import LabelError


def enumerated(p, theta, confidence, most):
    """E[min(T, most)] and P(T <= most) over all sequences of votes."""
    k = len(p)
    expected = reached = 0.0
    for votes in product(range(k), repeat=most):
        chance = sum(p[y] * np.prod([theta[y, v] for v in votes]) for y in range(k))
        belief, needed, sure = np.array(p), most, False
        for t in range(most + 1):
            if belief.max() >= confidence:
                needed, sure = t, True
                break
            if t < most:
                belief = belief * theta[:, votes[t]]
                belief = belief / belief.sum()
        expected += chance * needed
        reached += chance * sure
    return expected, reached


@pytest.mark.parametrize(("k", "most"), [(2, 7), (3, 5)])
def test_all_sequences_of_votes(k, most):
    rng = np.random.default_rng(k)
    p = rng.dirichlet(np.ones(k), 6)
    theta = 0.5 * np.eye(k) + 0.5 * rng.dirichlet(np.ones(k), k)
    found = votes_needed(p, theta, confidence=0.9, most=most)
    assert found.exact
    p = np.round(p * 1e6)
    p = p / p.sum(axis=1, keepdims=True)
    for at in range(6):
        expected, reached = enumerated(p[at], theta, 0.9, most)
        assert found.expected[at] == pytest.approx(expected, abs=1e-9)
        assert found.reached[at] == pytest.approx(reached, abs=1e-9)


def test_drawing_comes_to_the_same():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 400)
    theta = np.full((3, 3), 0.15) + 0.55 * np.eye(3)
    summed, drawn = votes_needed(p, theta, most=12), votes_needed(p, theta, most=12, exact=False, seed=3)
    assert summed.exact
    assert not drawn.exact
    assert drawn.total == pytest.approx(summed.total, rel=0.01)
    assert np.abs(drawn.expected - summed.expected).max() < 2.0
    assert drawn.reached.mean() == pytest.approx(summed.reached.mean(), abs=0.01)


def test_limits():
    sure = np.array([[0.97, 0.03], [0.5, 0.5]])
    perfect = votes_needed(sure, np.eye(2))
    assert perfect.expected.tolist() == [0.0, 1.0]
    assert perfect.reached.tolist() == [1.0, 1.0]
    useless = votes_needed(sure, np.full((2, 2), 0.5), most=8)
    assert useless.expected.tolist() == [0.0, 8.0]
    assert useless.reached.tolist() == [1.0, 0.0]
    many = votes_needed(torch.full((5, 100), 0.01), 0.8 * torch.eye(100) + 0.002)
    assert not many.exact
    assert (many.expected > 1).all()
    assert (many.expected < 4).all()
    assert votes_needed(sure[:0], np.eye(2)).total == 0.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"confidence": 0.4}, "above 1/2"),
        ({"confusion": np.eye(3)}, r"expected \(2, 2\)"),
        ({"posterior": [[0.5, 0.6]]}, "first: row 0, which sums to 1.1"),
        ({"most": 0}, "1 or more"),
    ],
)
def test_bad_input(given, says):
    with pytest.raises(LabelError, match=says):
        votes_needed(**{"posterior": [[0.5, 0.5]], "confusion": np.eye(2), **given})
