"""The default method."""

import numpy as np
import pytest
import torch

from anygrain.discover import Discover
from anygrain.discover.automatic import Automatic, hidden_accuracy, matched
from anygrain.discover.discoverer import Discoverer
from anygrain.discover.self_distillation import class_mass
from anygrain.labels import Coarse, Exact
from tests.discover.test_network import blobs, task_of


def partly(classes=8, known=6, n=320):
    x, y = blobs(n, classes, dim=10, seed=2)
    return x, y, torch.where((y < known) & (torch.arange(n) // classes % 3 == 0), y, -1)


def test_accuracy_of_a_matching_is_that_of_the_best_one():
    from itertools import permutations

    generator = torch.Generator().manual_seed(0)
    label, truth = (torch.randint(low, 3, (40,), generator=generator) for low in (-1, 0))
    by_hand = max(float((torch.tensor([*p, -1])[label] == truth).float().mean()) for p in permutations(range(3)))
    assert matched(label, truth, 3, 3) == pytest.approx(by_hand)
    assert matched(torch.tensor([-1, -1]), torch.tensor([0, 1]), 2, 3) == 0


def test_a_start_that_knows_the_hidden_classes_is_judged_best_and_chosen():
    x, y, told = partly()
    task = task_of(x, Exact(told, 6), 8)
    good = hidden_accuracy(task, ["mixture", "ss-kmeans"])
    assert min(good.values()) > 0.9
    model = Automatic(starts=["mixture", "ss-kmeans"], epochs=2, bootstrap=0).fit(x.numpy(), Exact(told, 6), 8)
    assert model.start_ == max(model.hidden_accuracy_, key=model.hidden_accuracy_.get)
    assert f'"{model.start_}"' in model.why_
    assert (model.labels_[y < 6] == y[y < 6].numpy()).mean() > 0.95


def test_without_known_classes_nothing_can_be_hidden():
    x, y, _ = partly()
    model = Discover(seed=0, bootstrap=0).fit(x.numpy(), Coarse(y // 4, torch.eye(2)), {0: 4, 1: 4})
    assert isinstance(model.method_, Discoverer)
    assert model.hidden_accuracy_ == {}
    assert "none can be hidden" in model.why_
    assert np.array_equal(model.node_[model.labels_], (y // 4).numpy())


def test_without_epochs_the_start_stays_as_it_is():
    x, _, told = partly()
    model = Automatic(epochs=0, starts=["ss-kmeans"], bootstrap=0).fit(x.numpy(), Exact(told, 6), 8)
    alone = Discover("ss-kmeans", bootstrap=0).fit(x.numpy(), Exact(told, 6), 8)
    assert np.array_equal(model.labels_, alone.labels_)


def test_masses_are_shrunk_as_far_as_told_rows_are_equally_many():
    x, y = blobs(400, 4)
    start = torch.eye(4)[torch.arange(400) % 10 // 3]  # 120, 120, 120, 40
    raw = (start.sum(0) + 1) / 404
    alike = torch.where((y < 3) & (torch.arange(400) < 120), y, -1)
    alike[0] = -1  # 29, 30, 30
    almost = class_mass(task_of(x, Exact(alike, 3), 4), start)
    assert (almost - 0.25).abs().max() < 0.25 * (raw - 0.25).abs().max()
    unlike = torch.full((400,), -1)
    for k, many in enumerate((80, 10, 2)):
        unlike[(y == k).nonzero().flatten()[:many]] = k
    assert torch.allclose(class_mass(task_of(x, Exact(unlike, 3), 4), start), raw.float())
    assert torch.allclose(class_mass(task_of(x, None, 4), start), raw.float())
    equal = torch.where((y < 3) & (torch.arange(400) < 120), y, -1)
    assert torch.allclose(class_mass(task_of(x, Exact(equal, 3), 4), start), 0.5 * raw.float() + 0.125)
