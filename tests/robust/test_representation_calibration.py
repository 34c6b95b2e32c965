"""RCAL: outliers by brute force, Gaussians, borrowing, draws, and the term that ties an encoder."""

import numpy as np
import pytest
import torch

from anygrain.labels import Candidates, Exact, IdentifiabilityWarning, LabelError
from anygrain.learn import Learner
from anygrain.learn.step import Step
from anygrain.robust.representation_calibration import (
    KeepRepresentation,
    RepresentationCalibration,
    borrow,
    class_gaussians,
    draw,
    outliers,
)


def local_outlier_factor(x, k):
    """By the formulas, in loops."""
    n = len(x)
    d = np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=2))
    order = [sorted((j for j in range(n) if j != i), key=lambda j, i=i: d[i, j])[:k] for i in range(n)]
    reach = [d[i, order[i][-1]] for i in range(n)]
    density = [1 / np.mean([max(reach[b], d[a, b]) for b in order[a]]) for a in range(n)]
    return np.array([np.mean([density[b] for b in order[a]]) / density[a] for a in range(n)])


def test_outliers_have_the_highest_local_outlier_factors_of_their_group():
    generator = np.random.default_rng(0)
    x, group = generator.normal(size=(60, 3)), np.arange(60) % 3
    group[-6:] = -1
    found = outliers(torch.tensor(x), torch.tensor(group), 0.2, neighbours=5).numpy()
    for g in range(3):
        rows = np.flatnonzero(group == g)
        factor = local_outlier_factor(x[rows], 5)
        cut = np.percentile(factor, 80)
        assert np.array_equal(found[rows], factor > cut)
    assert not found[group == -1].any()


def test_small_groups_have_no_outliers_and_neighbours_follow_the_size():
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    group = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1])
    found = outliers(x, group, 0.2, neighbours=20)
    assert not bool(found[:3].any())
    assert int(found[3:].sum()) == 1
    assert not bool(outliers(x, group, 0.0).any())


def test_gaussians_are_means_and_covariances():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (50,), generator=generator)
    mean, covariance = class_gaussians(x, torch.nn.functional.one_hot(y, 4).double())
    for k in range(3):
        rows = x[y == k]
        assert torch.allclose(mean[k], rows.mean(dim=0))
        assert torch.allclose(covariance[k], torch.cov(rows.T, correction=0), atol=1e-12)
    assert torch.allclose(mean[3], x.mean(dim=0))  # nobody's class
    twice, spread = class_gaussians(torch.cat([x, x[:1]]), torch.cat([torch.eye(4)[y], torch.eye(4)[y[:1]]]).double())
    weight = torch.eye(4, dtype=torch.float64)[y]
    weight[0] *= 2
    assert torch.allclose(class_gaussians(x, weight)[0][:3], twice[:3])
    assert torch.allclose(class_gaussians(x, weight)[1][:3], spread[:3])


def test_nothing_borrowed_and_no_spread_leaves_gaussians():
    mean, covariance = torch.randn(3, 2).double(), torch.eye(2).double().expand(3, 2, 2)
    size, tail = torch.tensor([9.0, 5.0, 1.0]), torch.tensor([False, False, True])
    same = borrow(mean, covariance, size, tail, share=0.0, nearest=2, spread=0.0)
    assert torch.equal(same[0], mean)
    assert torch.equal(same[1], covariance)


def test_borrowing_by_hand():
    mean = torch.tensor([[0.0, 0.0], [3.0, 0.0], [9.0, 9.0], [1.0, 0.0]], dtype=torch.float64)
    covariance = torch.stack([torch.eye(2) * s for s in (1.0, 2.0, 3.0, 4.0)]).double()
    size, tail = torch.tensor([10.0, 20.0, 30.0, 2.0]).double(), torch.tensor([False, False, False, True])
    found, spread = borrow(mean, covariance, size, tail, share=0.4, nearest=2, spread=0.5, temperature=2.0)
    raw = np.array([10 * np.exp(-1 / 2), 20 * np.exp(-4 / 2)])
    w = raw / raw.sum()
    assert np.allclose(found[3], 0.4 * (w[1] * np.array([3.0, 0.0])) + 0.6 * np.array([1.0, 0.0]))
    assert np.allclose(spread[3], (0.4 * (w[0] * 1 + w[1] * 2) + 0.6 * 4 + 0.5) * np.eye(2))
    assert torch.equal(found[:3], mean[:3])
    assert torch.allclose(spread[0], 1.5 * torch.eye(2, dtype=torch.float64))


def test_borrowing_from_close_heads_brings_the_tail_nearer_to_the_truth():
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(3, 8, dtype=torch.float64)
    truth[1, 0], truth[2, 1] = 0.3, 0.3  # three close classes
    size = torch.tensor([500, 500, 4])
    y = torch.repeat_interleave(torch.arange(3), size)
    before, after = [], []
    for _ in range(20):
        x = truth[y] + torch.randn(len(y), 8, generator=generator, dtype=torch.float64)
        mean, covariance = class_gaussians(x, torch.eye(3, dtype=torch.float64)[y])
        lent, _ = borrow(mean, covariance, size, size < 100, share=0.5, nearest=2, spread=0.0)
        before.append(float((mean[2] - truth[2]).norm()))
        after.append(float((lent[2] - truth[2]).norm()))
    assert np.mean(after) < 0.7 * np.mean(before)


def test_draws_have_the_mean_and_covariance_that_was_asked_for():
    mean = torch.tensor([[1.0, 2.0], [-1.0, 0.0]], dtype=torch.float64)
    covariance = torch.tensor([[[2.0, 0.6], [0.6, 1.0]], [[1.0, 1.0], [1.0, 1.0]]], dtype=torch.float64)  # one singular
    x, y = draw(mean, covariance, torch.tensor([100_000, 100_000]), torch.Generator().manual_seed(0))
    for k in range(2):
        assert torch.allclose(x[y == k].mean(dim=0), mean[k], atol=0.02)
        assert torch.allclose(torch.cov(x[y == k].T), covariance[k], atol=0.03)
    assert torch.allclose(x[y == 1][:, 0] - x[y == 1][:, 1], torch.full((100_000,), -1.0).double(), atol=1e-6)


def skewed(seed=0):
    """Four close Gaussians of 300, 100, 30 and 12 rows, a quarter of the labels wrong."""
    generator = np.random.default_rng(seed)
    y = np.repeat(np.arange(4), [300, 100, 30, 12])
    centre = generator.normal(size=(4, 6)) * 1.2
    x = centre[y] + generator.normal(size=(len(y), 6))
    wrong = generator.random(len(y)) < 0.25
    given = np.where(wrong, generator.choice(4, len(y), p=np.bincount(y) / len(y)), y)
    test = np.repeat(np.arange(4), 200)
    return x, given, centre[test] + generator.normal(size=(800, 6)), test


def test_skewed_noisy_classes_are_learnt_better():
    x, given, test, truth = skewed()
    plain = Learner().fit(x, given).score(test, truth)
    for options in ({}, {"outlier_share": 0.0}, {"mixup": 0.2}):
        assert Learner(procedure=RepresentationCalibration(**options)).fit(x, given).score(test, truth) > plain + 0.05


def test_labels_in_doubt_and_silent_rows():
    x, given, test, truth = skewed()
    sets = torch.eye(4, dtype=torch.bool)[torch.tensor(given)]
    sets[torch.arange(len(given)), torch.randint(4, (len(given),), generator=torch.Generator().manual_seed(0))] = True
    sets[:20] = True
    procedure = RepresentationCalibration(outlier_share=0.0)
    model = Learner(procedure=procedure).fit(x, Candidates(sets))
    assert model.score(test, truth) > 0.5
    assert not bool(procedure.outlier_[:20].any())
    with pytest.raises(LabelError, match="no row has any evidence"), pytest.warns(IdentifiabilityWarning):
        Learner(procedure=RepresentationCalibration()).fit(x, Exact(torch.full((len(x),), -1), 4))


def test_the_term_is_the_mean_squared_distance_to_the_start():
    anchor = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    features = torch.randn(2, 3, requires_grad=True)
    step = Step(torch.zeros(2, 2), features, torch.zeros(2, 2), torch.tensor([4, 1]), 0)
    value = KeepRepresentation(anchor, weight=0.5)(step)
    by_hand = 0.5 * sum(float(((features.detach()[i] - anchor[j]) ** 2).sum()) for i, j in ((0, 4), (1, 1))) / 2
    assert float(value.detach()) == pytest.approx(by_hand, rel=1e-6)
    (slope,) = torch.autograd.grad(value, features)
    assert torch.allclose(slope, 0.5 * (features - anchor[[4, 1]]))
    with pytest.raises(LabelError, match="anchor has 3 features, the encoder 5"):
        KeepRepresentation(anchor)(Step(torch.zeros(1, 2), torch.zeros(1, 5), torch.zeros(1, 2), torch.tensor([0]), 0))
    with pytest.raises(LabelError, match="outlier_share"):
        RepresentationCalibration(0.9)
