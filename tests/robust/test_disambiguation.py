"""Disambiguation: merging against a loop, limits of the threshold, heads that sum to 1, the second target."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from anygrain.encoders import Convolutional
from anygrain.labels import LabelError
from anygrain.learn import Learner, load
from anygrain.learn.head import Linear, Perceptron
from anygrain.robust.disambiguation import (
    Disambiguation,
    MergedHead,
    RefinedHead,
    SecondTarget,
    confusion,
    fuse,
    merged_classes,
    unfolded,
)

X, Y = load_digits(return_X_y=True)
X = X / 16


def random_confusion(k, seed):
    table = torch.rand(k, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    return table / table.sum(dim=1, keepdim=True)


def merged_by_loops(table, threshold, linkage):
    """Groups as sets, similarities from all pairs of members."""
    similar = 0.5 * (table + table.T)
    groups = [{i} for i in range(len(table))]
    while len(groups) > 1:
        scores = {}
        for a, b in itertools.combinations(range(len(groups)), 2):
            pairs = [float(similar[i, j]) for i in groups[a] for j in groups[b]]
            scores[a, b] = max(pairs) if linkage == "max" else sum(pairs) / len(pairs)
        (a, b), best = max(scores.items(), key=lambda item: item[1])
        if not best > threshold:
            break
        groups[a] |= groups.pop(b)
    return {frozenset(g) for g in groups}


@pytest.mark.parametrize("linkage", ["mean", "max"])
@pytest.mark.parametrize("seed", range(5))
def test_merging_is_that_of_the_loops(linkage, seed):
    table = random_confusion(7, seed)
    for threshold in (0.0, 0.1, 0.2, 0.3):
        group = merged_classes(table, threshold, linkage)
        found = {frozenset((group == g).nonzero()[:, 0].tolist()) for g in group.unique().tolist()}
        assert found == merged_by_loops(table, threshold, linkage)


def test_limits_of_the_threshold():
    table = random_confusion(6, 0)
    assert merged_classes(table, 1.0).tolist() == list(range(6))
    assert merged_classes(table, 0.0).tolist() == [0] * 6
    blocks = torch.block_diag(torch.full((2, 2), 0.5), torch.full((3, 3), 1 / 3), torch.ones(1, 1)).double()
    assert merged_classes(blocks, 0.0).tolist() == [0, 0, 1, 1, 1, 2]  # everything connected, and nothing else


def test_confusions_are_shares_of_each_class():
    truth = torch.eye(3, dtype=torch.float64)[[0, 0, 0, 1]]
    probs = torch.eye(3, dtype=torch.float64)[[0, 1, 1, 1]]
    expected = torch.tensor([[1 / 3, 2 / 3, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    assert torch.allclose(confusion(probs, truth), expected)


@pytest.mark.parametrize("kind", [Linear, Perceptron])
def test_a_merged_head_shares_the_probability_of_groups(kind):
    torch.manual_seed(0)
    inner, group = kind(5, 3).double(), torch.tensor([0, 1, 1, 2])
    torch.nn.init.normal_(inner.weight)
    share = torch.tensor([2.0, 3.0, 1.0, 5.0], dtype=torch.float64)
    head, x = MergedHead(inner, group, share), torch.randn(6, 5, dtype=torch.float64)
    coarse = inner(x).exp()
    expected = torch.stack([coarse[:, 0], 0.75 * coarse[:, 1], 0.25 * coarse[:, 1], coarse[:, 2]], dim=1)
    assert torch.allclose(head(x).exp(), expected)
    assert torch.allclose(unfolded(head, kind(5, 4).double())(x), head(x), atol=1e-12)
    base = kind(5, 4).double()
    torch.nn.init.normal_(base.weight)
    refined = RefinedHead(inner, group, base)(x).exp()
    assert torch.allclose(refined.sum(dim=1), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(refined[:, 1] + refined[:, 2], coarse[:, 1])
    assert torch.allclose(refined[:, 1] / refined[:, 2], base(x)[:, 1].exp() / base(x)[:, 2].exp())


def swapped(n, pairs, seed=0):
    """Labels of digits, of which 40 % in some pairs of classes say the other one."""
    generator = np.random.default_rng(seed)
    y = Y[:n].copy()
    for a, b in pairs:
        swap = np.isin(Y[:n], [a, b]) & (generator.random(n) < 0.4)
        y[swap] = a + b - y[swap]
    return y


def test_swapped_pairs_are_found_and_the_model_can_be_saved(tmp_path):
    pairs = [(0, 7), (3, 6)]
    procedure = Disambiguation()
    model = Learner(procedure=procedure).fit(X[:800], swapped(800, pairs))
    groups = {}
    for c, g in enumerate(procedure.group_.tolist()):
        groups.setdefault(g, []).append(c)
    assert sorted(tuple(g) for g in groups.values() if len(g) > 1) == pairs
    probs = model.predict_proba(X[800:])
    assert np.allclose(probs.sum(axis=1), 1)
    right = procedure.group_.numpy()[probs.argmax(axis=1)] == procedure.group_.numpy()[Y[800:]]
    assert right.mean() > 0.9
    model.save(tmp_path / "model")
    assert np.allclose(load(tmp_path / "model").predict_proba(X[:5]), model.predict_proba(X[:5]), atol=1e-6)
    refined = Learner(procedure=Disambiguation(refine=True)).fit(X[:800], swapped(800, pairs))
    assert np.allclose(refined.predict_proba(X[:9]).sum(axis=1), 1)


def test_nothing_is_merged_where_nothing_is_confused():
    procedure = Disambiguation()
    plain = Learner(procedure=procedure).fit(X[:500], Y[:500])
    assert procedure.group_.tolist() == list(range(10))
    assert plain.score(X[500:], Y[500:]) > 0.85


def test_the_second_target_shapes_an_encoder_and_weight_zero_does_not():
    images = (X[:150].reshape(-1, 8, 8) * 255).astype(np.uint8)
    soft = torch.eye(2)[torch.tensor(Y[:150] % 2)]
    soft[:10] = torch.nan

    def fit(*terms):
        how = {"epochs": 3, "batch_size": 50, "augmentation": None}
        return Learner(encoder=Convolutional(widths=(4, 8)), terms=terms, **how).fit(images, Y[:150])

    term = SecondTarget(soft, weight=1.0)
    ours, none = fit(term), fit(SecondTarget(soft, weight=0.0))
    assert not np.allclose(ours.predict_proba(images), none.predict_proba(images))
    assert float(term.second.weight.detach().abs().sum()) > 0
    with pytest.raises(LabelError, match="fixed features do not move"):
        Learner(terms=[SecondTarget(soft)], epochs=1).fit(X[:150], Y[:150])


def test_the_second_target_by_hand():
    from anygrain.learn.step import Step

    soft = torch.tensor([[0.2, 0.8], [torch.nan, torch.nan], [1.0, 0.0]])
    term = SecondTarget(soft, weight=0.5)
    term.second = torch.nn.Linear(3, 2)
    features = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    step = Step(torch.zeros(3, 2), features, torch.zeros(3, 2), torch.tensor([2, 1, 0]), 0)
    said = term.second(features).log_softmax(dim=1)
    expected = -0.5 * (said[0, 0] + 0.2 * said[2, 0] + 0.8 * said[2, 1]) / 3
    assert torch.allclose(term(step), expected)


def test_fusing_is_the_weighted_mean_of_probabilities():
    a, b = (torch.randn(5, 3, generator=torch.Generator().manual_seed(s)).double().log_softmax(dim=1) for s in (0, 1))
    assert torch.allclose(fuse([a, b]).exp(), (a.exp() + b.exp()) / 2)
    assert torch.allclose(fuse([a, b], [3.0, 1.0]).exp(), 0.75 * a.exp() + 0.25 * b.exp())
    assert torch.allclose(fuse([a, b], [1.0, 0.0]), a)
    with pytest.raises(LabelError, match="expected 2 numbers"):
        fuse([a, b], [1.0])
    with pytest.raises(LabelError, match="sum to 1"):
        SecondTarget(torch.ones(3, 2))
