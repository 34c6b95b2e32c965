"""Features in which classes are round."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from anygrain.discover import Adapted, ConstrainedMixture, Discover, SemiSupervisedKMeans, Ward
from anygrain.discover import whitening as module
from anygrain.discover.adapted import offset_of_new, surest
from anygrain.discover.found import Found
from anygrain.discover.whitening import whitened, whitening
from anygrain.labels import Candidates, Coarse, Exact, Pairs
from anygrain.metrics import hungarian_accuracy
from tests.discover.test_network import blobs, task_of

STRETCH = torch.tensor([9.0, 1.0, 1.0, 1.0, 1.0, 1.0])  # of rows of one class, along the columns


def long_classes(n=600, classes=6, seed=0):
    """Classes that are long in a direction which says nothing of them."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    place = 4 * torch.randn(classes, 6, generator=generator)
    place[:, 0] = 0
    return place[y] + STRETCH * torch.randn(n, 6, generator=generator), y


def told(y, known, share=3):
    return torch.where((y < known) & (torch.arange(len(y)) // int(y.max() + 1) % share == 0), y, -1)


def by_hand(x, label, pairs=()):
    """The matrix of the docstring, from sums over rows one by one."""
    x, d = x.double(), x.shape[1]
    total, free = torch.zeros(d, d, dtype=torch.float64), 0
    for k in label[label >= 0].unique():
        own = x[label == k]
        for row in own:
            total += torch.outer(row - own.mean(0), row - own.mean(0))
        free += len(own) - 1
    for i, j in pairs:
        middle = (x[i] + x[j]) / 2
        for row in (x[i], x[j]):
            total += torch.outer(row - middle, row - middle)
        free += 1
    mean = total.trace() / free / d
    values, vectors = torch.linalg.eigh((total / mean + d * torch.eye(d)) / (free + d))
    return vectors @ (values**-0.5).diag() @ vectors.T


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_inverse_root_of_what_is_believed_of_the_spread(seed):
    x, y = blobs(60, 4, dim=6, seed=seed)
    label = told(y, 3)
    assert torch.allclose(whitening(task_of(x, None, 4), label)(x).double(), x.double() @ by_hand(x, label), atol=1e-4)
    i, j = torch.tensor([0, 4, 9]), torch.tensor([4, 12, 1])
    task = task_of(x, Pairs(i, j, torch.tensor([1, 1, 1]), 60, 4), 4)
    for classes in (label, torch.full((60,), -1)):
        matrix = by_hand(x, classes, zip(i.tolist(), j.tolist(), strict=True))
        assert torch.allclose(whitening(task, classes)(x).double(), x.double() @ matrix, atol=1e-4)


def test_few_rows_in_many_columns_and_few_directions(monkeypatch):
    x, y = blobs(24, 4, dim=40)  # the spread of twelve rows has nine directions
    label = told(y, 4, share=2)
    assert torch.allclose(whitening(task_of(x, None, 4), label)(x).double(), x.double() @ by_hand(x, label), atol=1e-4)
    full, y = long_classes()
    monkeypatch.setattr(module, "DIRECTIONS", 1)
    one = whitening(task_of(full, None, 6), y)
    values = torch.linalg.svdvals(one(torch.eye(6)))  # of columns 1 to 5 the mean is taken
    assert one.directions.shape == (6, 1)
    assert torch.allclose(values[:5], values[:5].mean().expand(5), atol=1e-5)
    assert float(values[0] / values[5]) == pytest.approx(float(STRETCH[0]), rel=0.1)


def test_classes_become_round_and_nothing_told_changes_nothing():
    x, y = long_classes(6000)
    task = task_of(x, None, 6)
    z = whitened(task, whitening(task, y)).features
    spread = torch.cat([z[y == k] - z[y == k].mean(0) for k in range(6)]).std(dim=0)
    assert float(spread.max() / spread.min()) < 1.05
    assert whitening(task, torch.full((6000,), -1)) is None
    alone = torch.full((6000,), -1)
    alone[:3] = torch.arange(3)
    assert whitening(task, alone) is None  # of one row nobody sees a spread
    same = task_of(x[y], None, 6)
    assert whitening(same, y) is None
    few = torch.where(torch.arange(6000) < 12, y, -1)  # 6 degrees of freedom, as many as columns
    values = torch.linalg.svdvals(whitening(task, few)(torch.eye(6)))
    whole = torch.linalg.svdvals(whitening(task, y)(torch.eye(6)))
    assert 1 < float(values[0] / values[-1]) < float(whole[0] / whole[-1])


def test_rows_of_length_one_stay_so_and_others_do_not():
    x, y = long_classes()
    unit = normalize(x, dim=1)
    assert torch.allclose(whitening(task_of(unit, None, 6), y)(unit).norm(dim=1), torch.ones(len(x)), atol=1e-5)
    length = whitening(task_of(x, None, 6), y)(x).norm(dim=1)
    assert float(length.max() / length.min()) > 2


def test_told_rows_help_to_find_the_classes_that_are_new():
    x, y = long_classes()
    labels = Exact(told(y, 4), 4)
    raw, adapted = (one.fit(x.numpy(), labels, 6) for one in (Ward(bootstrap=0), Adapted(method="ward", bootstrap=1)))
    right = [(one.labels_[y < 4] == y[y < 4].numpy()).mean() for one in (raw, adapted)]
    assert right[1] > max(0.95, right[0] + 0.1)
    new = adapted.labels_[y >= 4]
    assert max((new == 4 + (y[y >= 4] % 2).numpy()).mean(), (new == 5 - (y[y >= 4] % 2).numpy()).mean()) > 0.95
    assert adapted.adapted_ == int((told(y, 4) >= 0).sum())
    assert adapted.why_.startswith(
        "in features as they are and whitened by told rows and whitened by the surer half of what was found: "
    )
    assert np.array_equal(adapted.predict(x.numpy()), adapted.predict_log_proba(x.numpy()).argmax(axis=1))
    assert (adapted.predict(x.numpy()) == adapted.labels_).mean() > 0.95
    assert adapted.stability_[:4].min() > 0.75


def test_it_is_the_mean_over_features_as_they_are_and_whitened():
    x, y = long_classes()
    labels, of = Exact(told(y, 4), 4), ConstrainedMixture(bootstrap=0)
    found = Adapted(method="mixture", rounds=1, bootstrap=0).fit(x.numpy(), labels, 6)
    raw = task_of(found.encoder_(x.numpy()), labels, 6)
    white = whitened(raw, whitening(raw, told(y, 4)))
    by = [of._find(task).model({"features": task.features}).exp() for task in (raw, white)]
    means = [(by[0] + by[1][:, match]) / 2 for match in ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 5, 4])]
    apart = [np.abs(found.predict_proba(x.numpy()) - mean.numpy()).max() for mean in means]
    assert min(apart) < 1e-4 < max(apart)
    assert found.why_.startswith("in features as they are and whitened by told rows: ")


def test_the_mean_answers_new_classes_as_often_as_its_parts():
    x, y = blobs(300, 6)
    task = task_of(x, Exact(told(y, 4), 4), 6)
    generator = torch.Generator().manual_seed(0)
    known = 3 * torch.randn(300, 4, generator=generator)  # on which they agree
    parts = [torch.cat([known, 3 * torch.randn(300, 2, generator=generator)], 1).softmax(dim=1) for _ in range(3)]
    labels = torch.stack([part.argmax(dim=1) for part in parts])
    mean, free = (sum(parts) / 3).log(), told(y, 4) < 0
    share = (labels[:, free] >= 4).double().mean()
    offset = offset_of_new(mean, labels, task)
    assert offset[:4].tolist() == [0] * 4
    assert offset[4] == offset[5] > 0
    assert (mean[free].argmax(dim=1) >= 4).double().mean() < share - 0.02
    after = (mean + offset)[free].argmax(dim=1) >= 4
    assert float(after.double().mean()) == pytest.approx(float(share), abs=1 / len(after))
    assert offset_of_new(mean, labels, task_of(x, None, 6)).tolist() == [0] * 6  # no class is known
    assert offset_of_new(mean, mean.argmax(dim=1)[None], task).max() < 1e-4
    often = torch.full((1, 300), 0)  # no part answers new ones: they are not lowered
    assert offset_of_new(mean, often, task).tolist() == [0] * 6


def test_the_second_round_whitens_by_the_surer_half_of_what_the_first_found():
    x, y = long_classes()
    labels = Exact(told(y, 4), 4)
    seen = []

    class Watched(ConstrainedMixture):
        def _find(self, task, callback=None):
            seen.append((task, super()._find(task, callback)))
            return seen[-1][1]

    Adapted(method=Watched(bootstrap=0), bootstrap=0).fit(x.numpy(), labels, 6)
    raw, first, second = (task for task, _ in seen)
    rows, said = surest(seen[1][1], first)
    label = torch.full((600,), -1).index_put((rows,), said.argmax(dim=1))
    assert torch.allclose(second.features, whitened(raw, whitening(raw, label)).features)
    assert 300 <= len(rows) <= 306
    assert torch.isin((told(y, 4) >= 0).nonzero().flatten(), rows).all()


def test_what_was_found_whitens_below_coarse_classes():
    x, y = long_classes()
    coarse = Coarse(y // 2, torch.eye(3))
    found = Discover(seed=0, bootstrap=0).fit(x.numpy(), coarse, {0: 2, 1: 2, 2: 2})
    assert found.why_.startswith(
        "in features as they are and whitened by the surer half of what was found and so again: a cosine head from "
    )
    assert np.array_equal(found.node_[found.labels_], (y // 2).numpy())
    right = [
        hungarian_accuracy(one.fit(x.numpy(), coarse, {0: 2, 1: 2, 2: 2}).labels_, y.numpy()).all
        for one in (Ward(bootstrap=0), Adapted(method="ward", bootstrap=0))
    ]
    assert right[1] > right[0]


@pytest.mark.parametrize(
    ("numbers", "ways"),
    [
        ((4, 3, 4), "as they are and whitened by the surer half of what was found"),
        ((3, 4, 5), "whitened by the surer half of what was found"),
        ((4, 4, 4, 4), "as they are and whitened by the surer half of what was found and so again and so again"),
    ],
)
def test_of_a_method_that_finds_the_number_those_are_averaged_that_found_the_last(numbers, ways):
    x, _ = long_classes()
    seen = []

    class Looking(SemiSupervisedKMeans):
        finds_number = True

        def _find(self, task, callback=None):
            number = numbers[len(seen)]
            found = super()._find(task.with_number(torch.tensor([number])), callback)
            seen.append(replace(found, interval=(number, number + 1), why="looked"))
            return seen[-1]

    one = Adapted(method=Looking(bootstrap=0), rounds=len(numbers) - 1, bootstrap=0).fit(x.numpy())
    assert one.n_classes_ == numbers[-1]
    assert one.n_classes_interval_ == (min(numbers), max(numbers) + 1)
    assert one.why_ == f"in features {ways}: looked"
    assert len(one.model_.mean.models) == numbers.count(numbers[-1])
    assert one.model_.mean.models[0] is seen[0].model or numbers[0] != numbers[-1]


def test_told_rows_are_the_surest_and_rows_of_which_little_is_told_are_not():
    x, _ = blobs(121, 3)
    possible = torch.ones(121, 3, dtype=torch.bool)
    possible[:30] = torch.tensor([True, True, False])
    possible[30] = torch.tensor([True, False, False])
    task = task_of(x, Candidates(possible), 3)
    assert task.evidence.told[:31].all()
    log_probs = torch.tensor([0.97, 0.02, 0.01]).log().repeat(121, 1)
    log_probs[:30] = torch.tensor([0.5, 0.49, 0.01]).log()
    log_probs[30] = torch.tensor([0.01, 0.98, 0.01]).log()
    rows, said = surest(Found(task.node, None, log_probs), task)
    assert rows.tolist() == list(range(30, 91))
    assert (said.argmax(dim=1) == 0).all()


def test_pairs_alone_whiten_as_well():
    x, _ = long_classes()
    i, j = torch.arange(0, 300), torch.arange(300, 600)  # rows 300 apart are of one class
    pairs = Pairs(i, j, torch.ones(300, dtype=torch.long), 600, 6)
    found = Adapted(method="ss-kmeans", rounds=1, bootstrap=0).fit(x.numpy(), pairs, 6)
    assert found.why_.startswith("in features as they are and whitened by pairs of one class: ")
    assert found.adapted_ == 0
