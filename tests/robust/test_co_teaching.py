"""Co-teaching: its limits, what it picks, and that it tolerates wrong labels."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from anygrain.labels import Exact, IdentifiabilityWarning, LabelError, Soft
from anygrain.learn import Learner
from anygrain.robust.co_teaching import CoTeaching, easiest, kept_share

X, Y = load_digits(return_X_y=True)
X = X / 16


def flipped(y, share, seed=0):
    """Some labels replaced by another class."""
    generator = np.random.default_rng(seed)
    wrong = generator.random(len(y)) < share
    return np.where(wrong, (y + generator.integers(1, 10, len(y))) % 10, y), wrong


def test_the_share_that_is_kept():
    assert [kept_share(e, 0.4, 4) for e in (0, 1, 4, 9)] == [1.0, 0.9, 0.6, 0.6]
    assert kept_share(0, 0.3, 0) == 0.7
    loss = torch.tensor([3.0, 1.0, 2.0, 5.0])
    assert easiest(loss, 0.5).tolist() == [1, 2]
    assert sorted(easiest(loss, 1.0).tolist()) == [0, 1, 2, 3]
    assert easiest(loss, 0.0).tolist() == [1]


def test_without_noise_every_row_is_learnt_from():
    model = Learner(head="mlp", procedure=CoTeaching(noise=0.0, epochs=8)).fit(X[:600], Y[:600])
    assert torch.allclose(model.procedure.picked_, torch.ones(600), atol=1e-5)
    assert model.score(X[:600], Y[:600]) > 0.95


def test_wrong_labels_are_picked_less_and_do_less_harm():
    noisy, wrong = flipped(Y[:900], 0.4)
    how = {"epochs": 25, "batch_size": 64}
    plain = Learner(head="mlp", procedure=CoTeaching(noise=0.0, **how)).fit(X[:900], noisy)
    ours = Learner(head="mlp", procedure=CoTeaching(noise=0.4, **how)).fit(X[:900], noisy)
    assert ours.score(X[900:], Y[900:]) > plain.score(X[900:], Y[900:]) + 0.03
    picked = ours.procedure.picked_.numpy()
    assert picked[~wrong].mean() > picked[wrong].mean() + 0.5


def test_labels_in_doubt_and_silent_rows():
    soft = 0.7 * np.eye(10)[Y[:400]] + 0.03
    soft[::2] = np.nan
    model = Learner(head="mlp", procedure=CoTeaching(0.1, epochs=15, batch_size=32)).fit(
        X[:400], Soft(torch.tensor(soft))
    )
    assert model.score(X[400:], Y[400:]) > 0.75
    assert float(model.procedure.picked_[::2].max()) == 0.0


def test_the_same_seed_gives_the_same_model_and_the_two_heads_differ():
    one, two = (
        Learner(head="mlp", seed=1, procedure=CoTeaching(epochs=2)).fit(X[:200], Y[:200]).predict_proba(X[:9])
        for _ in "ab"
    )
    assert np.array_equal(one, two)
    other = Learner(head="mlp", seed=2, procedure=CoTeaching(epochs=2)).fit(X[:200], Y[:200]).predict_proba(X[:9])
    assert not np.allclose(one, other)


def test_refusals_are_one_line():
    with pytest.raises(LabelError, match="noise is 1"):
        CoTeaching(noise=1.0)
    with pytest.raises(LabelError, match="no row has any evidence"), pytest.warns(IdentifiabilityWarning):
        Learner(procedure=CoTeaching()).fit(X[:20], Exact(torch.full((20,), -1), 10))
