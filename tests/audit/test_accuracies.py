"""Intervals of annotators' accuracies hold what they are to hold."""

import numpy as np
import pytest
import torch
from scipy.stats import beta

from anygrain.audit import judge_annotators
from anygrain.audit.accuracies import MOST_SHRINK, accuracies, beta_interval
from anygrain.labels import Crowd, aggregate


def crowd_with_mistaken_items(seed):
    """300 items, of which 6 % look like another class to everybody; 40 annotators of accuracy .55 to .95."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=300)
    looks = np.where(rng.random(300) < 0.06, (truth + 1) % 3, truth)
    skill = rng.uniform(0.55, 0.95, size=40)
    item = np.repeat(np.arange(300), 5)
    who = np.concatenate([rng.choice(40, 5, replace=False) for _ in range(300)])
    right = rng.random(len(item)) < skill[who]
    vote = np.where(right, looks[item], (looks[item] + rng.integers(1, 3, size=len(item))) % 3)
    return Crowd(*map(torch.from_numpy, (item, who, vote)), 3, n_items=300, n_annotators=40), truth


def test_intervals_hold_the_share_of_right_votes():
    inside, narrow, width = [], [], []
    for seed in range(4):
        votes, truth = crowd_with_mistaken_items(seed)
        fitted = aggregate(votes)
        found = judge_annotators(fitted.labels)
        count = np.bincount(votes.annotators.numpy(), minlength=40)
        share = np.bincount(votes.annotators.numpy(), votes.votes.numpy() == truth[votes.items.numpy()], 40) / count
        inside.append((found.accuracy_low <= share) & (share <= found.accuracy_high))
        width.append(found.accuracy_high - found.accuracy_low)
        low, high = (t.numpy() for t in fitted.channels[0].accuracy_interval(fitted.prior))
        narrow.append((low <= share) & (share <= high))
    assert np.mean(inside) > 0.93
    assert np.mean(narrow) < np.mean(inside)
    assert np.mean(width) < 0.35


def test_where_the_truth_is_known_the_interval_is_that_of_counted_votes():
    votes, truth = crowd_with_mistaken_items(0)
    certain = torch.full((300, 3), -60.0, dtype=torch.float64)
    certain[torch.arange(300), torch.from_numpy(truth)] = 0.0
    fitted = aggregate(votes)
    found = accuracies(fitted.labels, fitted.channels[0], certain.log_softmax(dim=1))
    who = votes.annotators.numpy()
    n = np.bincount(who, minlength=40)
    right = np.bincount(who, votes.votes.numpy() == truth[votes.items.numpy()], 40)
    m = (right.sum() + 1) / (n.sum() + 2)
    between = ((n * (right / n - m) ** 2).sum() - (right / n * (1 - right / n)).sum()) / n.sum()
    s = np.clip(m * (1 - m) / between - 1, 1, MOST_SHRINK)
    expected = beta(right + s * m, n - right + s * (1 - m))
    np.testing.assert_allclose(found.mean, expected.mean(), atol=1e-6)
    np.testing.assert_allclose(found.low, expected.ppf(0.025), atol=1e-6)
    np.testing.assert_allclose(found.high, expected.ppf(0.975), atol=1e-6)


def test_doubt_of_items_widens_and_no_votes_leave_the_mean_of_all():
    # every item has two votes; those of annotators 0 and 1 disagree on half of theirs, with nobody else to ask
    items = torch.arange(80).repeat_interleave(2)
    pair = torch.where(torch.arange(80) < 40, 0, 2)
    who = torch.stack([pair, pair + 1], dim=1).reshape(-1)
    votes = torch.zeros(80, 2, dtype=torch.long)
    votes[::3] = 1
    votes[:40:2, 1] = 1 - votes[:40:2, 1]
    crowd = Crowd(items, who, votes.reshape(-1), 2, n_annotators=5)
    found = judge_annotators(aggregate(crowd).labels)
    width = found.accuracy_high - found.accuracy_low
    assert width[0] > 1.3 * width[2]
    assert width[4] > width[0]
    assert found.accuracy[4] == pytest.approx(found.accuracy[:4].mean(), abs=0.1)


def test_beta_interval_is_that_of_the_distribution():
    low, high = beta_interval(np.array([0.75]), np.array([3 * 1 / (16 * 5)]))
    np.testing.assert_allclose([low[0], high[0]], beta(3, 1).ppf([0.025, 0.975]), atol=1e-9)
