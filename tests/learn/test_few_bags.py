"""Fewer bags of an answer than folds: said in one line, once, by models of bags and of their instances."""

import warnings

import numpy as np
import pytest
import torch

from anygrain.data.bag_data import BagData
from anygrain.labels import AnyOf, Exact
from anygrain.learn import Learner
from anygrain.learn.few_bags import FewBagsWarning, warn_of_few_bags


def said(work):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    return [str(w.message) for w in caught if w.category is FewBagsWarning]


@pytest.mark.parametrize(
    ("count", "line"), [([5, 5], ""), ([0, 5], ""), ([4, 9], "only 4 bags are ill"), ([9, 1], "only 1 bag is")]
)
def test_the_fewest_are_named(count, line):
    found = said(lambda: warn_of_few_bags(torch.tensor(count), ["ill", "well"], 5))
    assert len(found) == bool(line)
    assert all(line in message and "\n" not in message for message in found)


def test_a_learner_says_it_once():
    rng = np.random.default_rng(0)
    data = BagData.from_arrays([rng.normal(size=(4, 3)) for _ in range(12)])
    y = np.arange(12) == 0
    assert len(said(lambda: Learner(seed=0).fit(data, Exact(y.astype(int), 2)))) == 1
    labels = AnyOf(data.bags, torch.from_numpy(y.astype(int)), 1, 2)
    (line,) = said(lambda: Learner(seed=0).fit(data.features, labels))
    assert line.startswith('only 1 bag is answered by "present", fewer than the 2 parts')
