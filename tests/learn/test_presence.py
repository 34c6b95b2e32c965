"""Which class of bags one instance makes."""

import numpy as np
import pytest
import torch

from anygrain.data.bag_data import BagData
from anygrain.learn import presence
from anygrain.learn.presence import made_by_one, some_of_each


def bags(seed, n=80, size=12):
    """Bags of normal instances; of every other bag one instance lies far off."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, size, 4))
    holds = np.arange(n) % 2
    x[holds == 1, 0, 0] += 6
    data = BagData.from_ids(x.reshape(-1, 4).astype(np.float32), np.repeat(np.arange(n), size))
    return data, torch.from_numpy(holds)


@pytest.mark.parametrize("seed", range(3))
def test_finds_the_class_whatever_its_name(seed):
    data, holds = bags(seed)
    assert made_by_one(data, holds, seed) == 1
    assert made_by_one(data, 1 - holds, seed) == 0


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_second_where_nothing_tells(seed):
    data, holds = bags(seed)
    shuffled = holds[torch.randperm(len(holds), generator=torch.Generator().manual_seed(seed))]
    assert made_by_one(data, shuffled, seed) == 1


def test_bags_of_unknown_class_say_nothing(monkeypatch):
    data, holds = bags(0)
    known = torch.where(torch.arange(len(holds)) < 60, holds, -1)
    seen = []
    held_out = presence._held_out
    monkeypatch.setattr(presence, "_held_out", lambda d, *rest: seen.append(len(d)) or held_out(d, *rest))
    assert made_by_one(data, known, 0) == 1
    monkeypatch.setattr(presence, "ENTRIES", 20 * 12 * 4)  # of many bags some are enough
    assert made_by_one(data, known, 0) == 1
    assert seen == [60, 20]


def test_some_bags_of_each_class():
    data, holds = bags(0)
    classes = torch.where(torch.arange(len(holds)) % 8 == 1, 1, 0)
    assert sorted(some_of_each(data, classes, 80 * 12 * 4).tolist()) == list(range(80))
    half = some_of_each(data, classes, 40 * 12 * 4, seed=1)
    assert torch.bincount(classes[half]).tolist() == [35, 5]
    assert torch.bincount(classes[some_of_each(data, classes, 1)]).tolist() == [2, 2]
    assert half.tolist() != some_of_each(data, classes, 40 * 12 * 4, seed=2).tolist()
    assert set(some_of_each(data, torch.where(classes == 0, -1, 1), 10**9).tolist()) == set(range(1, 80, 8))
