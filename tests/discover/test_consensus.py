"""Classes on which several methods agree."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from anygrain.discover import Consensus, SemiSupervisedKMeans, Ward
from anygrain.discover.consensus import matched
from anygrain.discover.found import ClassModel
from anygrain.discover.start import found_by, log_probs_of
from anygrain.labels import Coarse, Exact, LabelError
from tests.discover.test_network import blobs, task_of


def partly(classes=8, known=6, n=320):
    x, y = blobs(n, classes, dim=10, seed=2)
    return x, y, torch.where((y < known) & (torch.arange(n) // classes % 3 == 0), y, -1)


@pytest.mark.parametrize("seed", range(5))
def test_the_match_is_the_best_of_all_permutations(seed):
    x, y = blobs(60, 6)
    told = torch.where(y < 2, y, -1)
    task = task_of(x, Exact(told, 2), 6)
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.rand(60, 6, generator=generator).pow(4) for _ in range(2))
    first, second = first / first.sum(1, keepdim=True), second / second.sum(1, keepdim=True)

    def jaccard(k, other):
        both = (first[:, k] * second[:, other]).sum()
        return both / (first[:, k].sum() + second[:, other].sum() - both)

    def value(order):
        return float(sum(jaccard(k, other) for k, other in zip(range(2, 6), order, strict=True)))

    best = max(permutations(range(2, 6)), key=value)
    assert matched(first, second, task).tolist() == [0, 1, *best]


def test_classes_are_matched_inside_their_coarse_class():
    x, y = blobs(120, 4)
    task = task_of(x, Coarse(y // 2, torch.eye(2)), {0: 2, 1: 2})
    first = torch.eye(4)[y]
    assert matched(first, first[:, [1, 0, 2, 3]], task).tolist() == [1, 0, 2, 3]
    across = matched(first, first[:, [2, 3, 0, 1]], task)  # the best match by far, of other coarse classes
    assert sorted(across[:2].tolist()) == [0, 1]


def test_it_is_the_mean_of_its_members():
    x, _, told = partly()
    task = task_of(x, Exact(told, 6), 8)
    members = [Ward(), SemiSupervisedKMeans()]
    found = Consensus(members=members)._find(task)
    by = [found_by(member, task) for member in members]
    said = [log_probs_of(one, task).exp() for one in by]
    swapped = said[1][:, [0, 1, 2, 3, 4, 5, 7, 6]]
    means = [(said[0] + other) / 2 for other in (said[1], swapped)]
    apart = [float((mean.log() - found.log_probs).abs().max()) for mean in means]
    assert min(apart) < 1e-5 < max(apart)
    new = {"features": blobs(40, 8, dim=10, seed=2)[0] + 0.1}
    match = [0, 1, 2, 3, 4, 5, 6, 7] if apart[0] < apart[1] else [0, 1, 2, 3, 4, 5, 7, 6]
    by_hand = (by[0].model(new).exp() + by[1].model(new).exp()[:, match]) / 2
    assert torch.allclose(found.model(new).exp(), by_hand, atol=1e-6)


def test_new_classes_that_a_member_numbers_otherwise_are_the_same():
    x, _, told = partly()
    task = task_of(x, Exact(told, 6), 8)
    order = torch.tensor([0, 1, 2, 3, 4, 5, 7, 6])

    class Reordered(ClassModel):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, arrays):
            return self.model(arrays)[:, order]

    class Turned(Ward):
        def _find(self, task, callback=None):
            found = super()._find(task, callback)
            return replace(found, model=Reordered(found.model), log_probs=log_probs_of(found, task)[:, order])

    alone = found_by("ward", task)
    both = Consensus(members=["ward", Turned()])._find(task)
    assert torch.allclose(both.log_probs.exp(), log_probs_of(alone, task).exp(), atol=1e-6)
    new = {"features": x + 0.1}
    assert torch.allclose(both.model(new), alone.model(new), atol=1e-5)
    assert both.facts["agreement"] == {"ward": 1.0, "Turned": 1.0}


def test_with_one_member_it_is_that():
    x, _, told = partly()
    model = Consensus(members=["ward"], bootstrap=0).fit(x.numpy(), Exact(told, 6), 8)
    alone = Ward(bootstrap=0).fit(x.numpy(), Exact(told, 6), 8)
    assert np.allclose(np.exp(model.log_probs_), np.exp(alone.log_probs_), atol=1e-6)
    assert np.array_equal(model.predict(x.numpy()), alone.predict(x.numpy()))
    assert model.agreement_ == {"ward": 1.0}
    with pytest.raises(LabelError, match="members are none"):
        Consensus(members=[]).fit(x.numpy(), Exact(told, 6), 8)


def test_classes_are_found_and_known_ones_stay():
    x, y, told = partly()
    model = Consensus(members=("ward", "mixture", SemiSupervisedKMeans()), bootstrap=2)
    model.fit(x.numpy(), Exact(told, 6), 8)
    assert (model.labels_[y < 6] == y[y < 6].numpy()).mean() > 0.95
    assert len(set(model.labels_[y == 6]) | set(model.labels_[y == 7])) >= 2
    assert (model.labels_[told >= 0] == told[told >= 0].numpy()).all()
    assert list(model.agreement_) == ["ward", "mixture", "SemiSupervisedKMeans"]
    assert min(model.agreement_.values()) > 0.8
    assert f"ward {model.agreement_['ward']:.0%}" in model.why_
    assert model.stability_[:6].min() > 0.75
