"""Of numbers that were planted wrong, as many are expected as there are, whatever right ones leave."""

import numpy as np
import pytest
import torch

from anygrain.audit import suspects
from anygrain.audit.residuals import Residuals
from anygrain.labels import Ratings, Value


def residuals(shape, mean, rng):
    n = len(mean)
    return {
        "normal": lambda: rng.normal(size=n),
        "long tails": lambda: rng.standard_t(4, size=n) / 2**0.5,
        "skewed": lambda: rng.gamma(2, size=n) / 2**0.5 - 2**0.5,
        "spread follows": lambda: rng.normal(size=n) * np.exp(0.2 * mean - 0.36),
    }[shape]()


def planted(shape, share, seed=0, n=2000):
    rng = np.random.default_rng(seed)
    mean = 3 * rng.normal(size=n)
    truth = mean + residuals(shape, mean, rng)
    wrong = rng.random(n) < share
    given = np.where(wrong, rng.permutation(truth), truth)
    return mean, np.full(n, np.var(given - mean)), given, wrong


@pytest.mark.parametrize("shape", ["normal", "long tails", "skewed", "spread follows"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_as_many_are_expected_as_are_wrong(shape, share):
    mean, variance, given, wrong = planted(shape, share)
    found = suspects((mean, variance), Value(torch.from_numpy(given))).prob_wrong.to_numpy()
    assert found.mean() == pytest.approx(wrong.mean(), abs=0.01 + 0.2 * share)
    sure = found > 0.5
    if share:
        assert wrong[sure].mean() == pytest.approx(found[sure].mean(), abs=0.15)
        assert sure[wrong].mean() > 0.4


def test_scale_and_place_of_the_model_do_not_matter():
    mean, variance, given, _ = planted("normal", 0.1)
    labels = Value(torch.from_numpy(given))
    one = suspects((mean, variance), labels).prob_wrong.to_numpy()
    other = suspects((mean, variance / 9), labels).prob_wrong.to_numpy()
    moved = suspects((1000 + 7 * mean, 49 * variance), Value(torch.from_numpy(1000 + 7 * given))).prob_wrong.to_numpy()
    np.testing.assert_allclose(one, other, atol=1e-3)
    np.testing.assert_allclose(one, moved, atol=1e-3)


def test_densities_of_wrong_records_sum_to_one():
    given = torch.from_numpy(planted("skewed", 0.1)[2])
    learnt = Residuals.learnt(given, torch.zeros_like(given), torch.ones_like(given))
    # Cauchy's reaches far: equal steps of the logarithm of the distance
    far = torch.linspace(-20, 16, 200_001, dtype=torch.float64).exp()
    for log_density in (learnt._log_anyhow, learnt._log_of_another):
        density = log_density(given.median() + far).exp() + log_density(given.median() - far).exp()
        assert float(torch.trapezoid(density, far)) == pytest.approx(1, abs=1e-4)


def by_ridge(sort, n_wrong, seed=0, n=442, noise=2.0):
    """Numbers that a weak model predicts, which was trained on the wrong ones too, and which are wrong."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    truth = 6 + x @ np.array([1.0, 1.0, 1.0, 0.5]) + noise * (rng.gamma(4, size=n) / 2 - 2)
    wrong = rng.permutation(n) < n_wrong
    other = {"double": 2 * truth.max(), "ten times": 10 * truth}[sort]
    given = np.where(wrong, other, truth)
    fold, mean = rng.permutation(n) % 5, np.empty(n)
    for f in range(5):
        slopes = np.linalg.lstsq(np.c_[x, np.ones(n)][fold != f], given[fold != f], rcond=None)[0]
        mean[fold == f] = np.c_[x, np.ones(n)][fold == f] @ slopes
    return (mean, np.full(n, np.var(given - mean))), given, wrong


@pytest.mark.parametrize(("sort", "n_wrong"), [("double", 1), ("ten times", 4), ("ten times", 30), ("ten times", 80)])
def test_gross_errors_that_spoil_the_model_are_counted_and_named(sort, n_wrong):
    belief, given, wrong = by_ridge(sort, n_wrong)
    found = suspects(belief, Value(torch.from_numpy(given))).prob_wrong.to_numpy()
    assert n_wrong / 2 - 3 < found.sum() < 1.5 * n_wrong + 3
    assert (found[wrong] > 0.5).mean() > 0.8
    assert (found[~wrong] > 0.5).sum() <= 1 + n_wrong / 10


def test_a_weak_model_does_not_make_labels_look_wrong():
    belief, given, _ = by_ridge("double", 0)
    assert suspects(belief, Value(torch.from_numpy(given))).prob_wrong.sum() < 4


def test_few_or_equal_records_are_judged():
    for given in ([2.0], [2.0, 2.0, 2.0], [0.0, float("nan"), 1.0]):
        found = suspects((np.zeros(len(given)), np.ones(len(given))), Value(torch.tensor(given))).prob_wrong.to_numpy()
        assert np.isfinite(found).all()
        assert (found < 0.5).all()
        assert (found[np.isnan(given)] == 0).all()


def test_ratings_of_careful_annotators_are_right():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    item, who = np.repeat(np.arange(200), 4), np.tile(np.arange(4), 200)
    wrong = rng.random(800) < 0.05
    value = np.where(wrong, 4 * rng.normal(size=800), truth[item] + 0.2 * rng.normal(size=800))
    labels = Ratings(*map(torch.from_numpy, (item, who, value)), n_items=200)
    found = suspects((np.zeros(200), np.ones(200)), labels).prob_wrong.to_numpy()
    assert found.sum() == pytest.approx(wrong.sum(), abs=20)
    assert found[wrong].mean() > 0.6
