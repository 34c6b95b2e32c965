"""Mixtures of sub-prototypes, agreement of clusters with classes, and how far classes are apart between domains."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from anygrain.discover import SubPrototypeMemory
from anygrain.discover.sub_prototype_memory import (
    Memory,
    class_discrepancy,
    class_means,
    consensus,
    consensus_clusters,
    entropy,
    mean_discrepancies,
)
from anygrain.labels import Exact
from anygrain.metrics import hungarian_accuracy
from tests.discover.test_network import blobs

GENERATOR = torch.Generator().manual_seed(0)
Z = torch.randn(9, 4, generator=GENERATOR, dtype=torch.float64)
PROTOTYPE = torch.randn(12, 4, generator=GENERATOR, dtype=torch.float64)


def test_addressing_is_the_hard_shrinkage_of_a_softmax_over_all():
    mixed, weight, chosen = Memory(PROTOTYPE, 5, 0.3)(Z)
    w = (normalize(Z, dim=1) @ normalize(PROTOTYPE, dim=1).T / 0.3).softmax(dim=1)
    limit = w.sort(dim=1, descending=True).values[:, 5:6]
    shrunk = (w - limit).clamp(min=0) * w / ((w - limit).abs() + 1e-14)
    shrunk = shrunk / shrunk.sum(dim=1, keepdim=True)
    assert torch.allclose(mixed, shrunk @ PROTOTYPE, atol=1e-9)
    assert torch.allclose(weight.sum(dim=1), torch.ones(9, dtype=torch.float64))
    assert torch.allclose(shrunk.gather(1, chosen), weight, atol=1e-9)
    assert ((shrunk > 0).sum(dim=1) == 5).all()


def test_all_kept_is_soft_attention():
    mixed, weight, _ = Memory(PROTOTYPE, 12, 0.3)(Z)
    w = (normalize(Z, dim=1) @ normalize(PROTOTYPE, dim=1).T / 0.3).softmax(dim=1)
    assert torch.allclose(mixed, w @ PROTOTYPE, atol=1e-9)
    assert torch.allclose(entropy(weight), -(w * w.log()).sum(dim=1).mean())


def test_gradient_reaches_only_what_is_addressed_and_what_is_not_is_put_on_rows():
    memory = Memory(PROTOTYPE, 3, 0.3)
    mixed, _, chosen = memory(Z[:2])
    mixed.square().sum().backward()
    reached = memory.prototype.grad.abs().sum(dim=1) > 0
    assert set(reached.nonzero().flatten().tolist()) == set(chosen.flatten().tolist())
    used = torch.bincount(chosen.flatten(), minlength=12)
    memory.put_on_rows(Z, used, GENERATOR)
    assert torch.equal(memory.prototype[used > 0], PROTOTYPE[used > 0])
    assert all((row == Z).all(dim=1).any() for row in memory.prototype[used == 0].detach())


def test_discrepancies_by_a_double_loop():
    source, target = torch.randn(7, 3, generator=GENERATOR), torch.randn(6, 3, generator=GENERATOR)
    y, found = torch.tensor([0, 0, 1, 1, 1, 2, 2]), torch.tensor([0, 0, 1, 1, -1, 0])
    square = mean_discrepancies(source, y, target, found, 3)
    rows = torch.cat([source, target]).double()
    width = float(torch.cdist(rows, rows).square().mean())

    def kernel(a, b):
        d = float((a.double() - b.double()).square().sum())
        return sum(math.exp(-d / (width * 2.0**m)) for m in range(-2, 3))

    def mean(a, b):
        return np.mean([[kernel(i, j) for j in b] for i in a])

    for c in range(3):
        for d in range(2):
            s, t = source[y == c], target[found == d]
            assert float(square[c, d]) == pytest.approx(mean(s, s) + mean(t, t) - 2 * mean(s, t), abs=1e-4)
    by_hand = (square[0, 0] + square[1, 1]) / 2 - (square[0, 1] + square[1, 0]) / 2  # class 2 is on one side alone
    assert float(class_discrepancy(source, y, target, found, 3)) == pytest.approx(float(by_hand), abs=1e-5)


def test_domains_that_are_the_same_have_no_discrepancy_within_classes():
    x, y = torch.randn(30, 3, generator=GENERATOR), torch.arange(30) % 3
    square = mean_discrepancies(x, y, x, y, 3)
    assert square.diagonal().abs().max() < 1e-4
    assert (square + torch.eye(3) > 1e-3).all()
    assert class_discrepancy(x, y, x, y, 3) < 0
    assert float(class_discrepancy(x, y, x, y * 0 - 1, 3)) == 0


def test_pairs_of_classes_and_clusters_are_one_to_one_and_shares_are_counted():
    source, target = (normalize(torch.randn(40, 3, generator=GENERATOR), dim=1) for _ in range(2))
    y = torch.arange(40) % 4
    centre, clusters = class_means(source, y, 4), normalize(torch.randn(6, 3, generator=GENERATOR), dim=1)
    match, agreed = consensus(source, y, centre, target, clusters)
    matched = match[match >= 0].tolist()
    assert len(matched) == len(set(matched)) > 0
    like = centre @ clusters.T
    for t, c in enumerate(match.tolist()):
        mutual = [c for c in range(4) if like[c].argmax() == t and like[:, t].argmax() == c]
        assert mutual == ([c] if c >= 0 else [])
        if c >= 0:
            forth = float(((source[y == c] @ clusters.T).argmax(1) == t).float().mean())
            mine = target[(target @ clusters.T).argmax(1) == t]
            back = float(((mine @ centre.T).argmax(1) == c).float().mean()) if len(mine) else 0.0
            assert float(agreed[t]) == pytest.approx((forth + back) / 2)


def test_the_number_of_clusters_that_agrees_best_is_found():
    x, y = blobs(300, 5)
    x = normalize(x - x.mean(0), dim=1)
    old = y < 3
    found = consensus_clusters(x[old], y[old], 3, x, [4, 5, 9], GENERATOR)
    assert len(found.centre) == 5
    assert sorted(found.match.tolist()) == [-1, -1, 0, 1, 2]
    cluster = found.match[found.cluster]
    assert (cluster == torch.where(old, y, -1)).float().mean() > 0.98


def test_new_classes_of_rows_that_look_unlike_are_found():
    x, y = blobs(400, 6)
    source = torch.arange(400) // 6 % 2 == 0
    kept = ~source | (y < 4)  # new classes are in the target alone
    x, y, source = x[kept], y[kept], source[kept]
    x[~source] += 0.3
    found = SubPrototypeMemory(device="cpu", bootstrap=0).fit(x, Exact(torch.where(source, y, -1), 4), 6)
    target = ~source.numpy()
    assert hungarian_accuracy(found.labels_[target], y[target], 4).all > 0.95
    assert (found.unknown_ == (y >= 4).numpy())[target].mean() > 0.95
    assert 0.9 < found.consensus_ <= 1
    assert found.sub_prototype_.max() < 6 * 20
    assert found.model_.decoder is None
    assert (found.predict(x)[target] == found.labels_[target]).mean() > 0.95
