"""Groups become classes: known ones first, votes for new rows, a sample that is fair."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from anygrain.discover import HDBSCAN, SpectralClustering, Ward
from anygrain.discover.hdbscan import fitted
from anygrain.discover.partitioned import Votes, known_first, sample
from anygrain.discover.task import read_task
from anygrain.labels import Coarse, Exact


def task_of(x, labels=None, n_classes=None):
    return read_task(x, labels, n_classes, encoder=None, train=False, seed=0, device=torch.device("cpu"))[0]


def test_votes_are_counted():
    reference = torch.arange(12.0)[:, None]
    label = torch.tensor([0] * 6 + [1] * 6)
    model = Votes(torch.zeros(1), torch.eye(1), reference, label, 3)
    got = model({"features": torch.tensor([[0.0], [4.4]])}).exp()
    np.testing.assert_allclose(got[0], (torch.tensor([6.0, 4.0, 0.0]) + 0.5 / 3) / 10.5, rtol=1e-6)
    np.testing.assert_allclose(got.sum(dim=1), 1, rtol=1e-6)


def test_a_known_class_is_the_group_with_its_told_rows_or_the_nearest():
    x = np.array([0, 0.1, 5, 5.1, 5.2, 9, 9.1, 20, 20.1], np.float32)[:, None]
    group = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 3])
    # class 0 is told in group 1; class 1 once in group 1 as well, where it is outvoted, so that it takes the nearest
    told = torch.tensor([-1, -1, 0, 0, 1, -1, -1, -1, -1])
    label, number = known_first(task_of(x, Exact(told, 2), 4), group, 4)
    assert number == 4
    assert label.tolist() == [2, 2, 0, 0, 1, 1, 1, 3, 3]


def test_a_sample_holds_every_coarse_class_and_told_rows_first():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 2)).astype(np.float32)
    node = torch.from_numpy((rng.random(5000) < 0.01).astype(int))
    told = torch.where((torch.arange(5000) % 100 == 0) & (node == 0), 0, -1)
    task = task_of(x, Coarse(node, torch.eye(2)) & Exact(told, 2), (4, 6))
    rows = sample(task, 1000)
    assert len(rows.unique()) == len(rows)
    assert 1000 <= len(rows) <= 1250
    assert torch.isin((node == 1).nonzero().flatten(), rows).all()  # fewer than 200
    assert torch.isin((told >= 0).nonzero().flatten(), rows).all()
    assert len(sample(task, 5000)) == 5000


@pytest.mark.parametrize("of", [Ward, SpectralClustering, HDBSCAN])
def test_rows_beyond_the_sample_follow_it(of):
    rng = np.random.default_rng(0)
    y = np.arange(1200) % 3
    x = (9 * np.eye(3)[y] + rng.normal(size=(1200, 3))).astype(np.float32)
    found = of(bootstrap=0, most_rows=400).fit(x, Exact(torch.from_numpy(np.where(np.arange(1200) % 9, -1, y)), 3), 3)
    assert (found.labels_ == y).mean() > 0.97
    assert "of the rows" in found.why_


def test_rings_are_found_by_their_graph():
    rng = np.random.default_rng(0)
    angle, y = rng.random(600) * 2 * np.pi, np.arange(600) % 2
    x = (1 + 2 * y)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * rng.normal(size=(600, 2))
    found = SpectralClustering(bootstrap=0).fit(x.astype(np.float32), None, 2)
    assert max((found.labels_ == y).mean(), (found.labels_ != y).mean()) > 0.99


def test_noise_is_said_and_placed():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    x = np.concatenate([10 * np.eye(2)[y] + 0.3 * rng.normal(size=(300, 2)), [[40.0, 0.0], [0.0, 40.0]]])
    found = HDBSCAN(bootstrap=0, least_size=20).fit(x.astype(np.float32), None, (2, 6))
    assert found.n_classes_ == 2
    assert found.noise_.dtype == bool
    assert found.noise_[300:].all()
    assert found.noise_[:300].mean() < 0.2
    assert found.smallest_ == [20]
    assert found.labels_[300] == found.labels_[0]
    assert found.labels_[301] == found.labels_[1]


def test_groups_are_brought_to_the_number_that_is_asked_for():
    x = np.concatenate([np.zeros((10, 1)), np.full((6, 1), 5.0), np.full((4, 1), 6.0)]).astype(np.float32)
    x += 0.01 * np.arange(20)[:, None].astype(np.float32)
    group = torch.tensor([0] * 10 + [1] * 6 + [2] * 3 + [-1])
    task = task_of(x, None, 2)
    assert fitted(replace(task, least=2, most=2), group.clone()).tolist() == [0] * 10 + [1] * 10
    cut = fitted(replace(task, least=4, most=4), group.clone())
    assert cut.unique().tolist() == [0, 1, 2, 3]
    assert len(cut[:10].unique()) == 2  # the largest is cut
    assert fitted(replace(task, least=1, most=1), torch.full((20,), -1)).tolist() == [0] * 20
