"""What labels say of fine classes: against the joint of all rows, written out."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.discover.evidence import Evidence, LogEvidence, belief, in_parts
from anygrain.labels import Bags, Coarse, Exact, LabelError, Pairs, Proportions, Soft

C, G, K, N = 2, 2, 4, 4
NODE = torch.tensor([0, 1, 0, 1])  # of two known classes and two new ones


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.booleans(), st.booleans())
def test_posterior_is_that_of_the_joint(seed, with_nodes, with_known, with_pairs):
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(N, K, generator=generator, dtype=torch.float64).log_softmax(dim=1)
    coarse = torch.tensor([0, 1, -1, 0])
    told = torch.tensor([0, -1, -1, -1])
    pairs, same = torch.tensor([[0, 1], [2, 3], [1, 3]]), torch.tensor([0, 1, -1])
    error = 0.3
    parts = []
    if with_nodes:
        parts.append(Coarse(coarse, torch.eye(C), error=error))
    if with_known:
        parts.append(Exact(told, G))
    if with_pairs:
        parts.append(Pairs(pairs[:, 0], pairs[:, 1], same, N, 2, error=0.1))
    labels = None
    for part in parts:
        labels = part if labels is None else labels & part
    evidence = Evidence.read(labels, N, split=False)
    node = NODE if with_nodes else torch.zeros(K, dtype=torch.long)

    expected = torch.zeros(N, K, dtype=torch.float64)
    for y in itertools.product(range(K), repeat=N):
        weight = float(log_probs[torch.arange(N), list(y)].sum().exp())
        for i in range(N):
            if with_nodes and coarse[i] >= 0:
                weight *= (1 - error) * (int(node[y[i]]) == int(coarse[i])) + error / C
            if with_known and told[i] >= 0:
                weight *= y[i] == int(told[i])
        for (i, j), answer in zip(pairs.tolist(), same.tolist(), strict=True):
            if with_pairs and answer >= 0:
                weight *= 0.9 * ((y[i] == y[j]) == bool(answer)) + 0.05
        expected[torch.arange(N), list(y)] += weight
    expected /= expected.sum(dim=1, keepdim=True)
    got = evidence.over(node)
    posterior = log_probs.exp() if got is None else got.posterior(log_probs)
    np.testing.assert_allclose(posterior, expected, atol=1e-6)

    total = float(torch.tensor(0.0))
    for rows, some in in_parts(got, N, at_once=3):
        value, part = belief(some, log_probs[rows] + 1.5)
        np.testing.assert_allclose(part, expected[rows], atol=1e-6)
        total += value
    whole = got.infer(log_probs)[0].sum() if got is not None else 0.0
    assert total == pytest.approx(float(whole) + 1.5 * N, abs=1e-5)


def test_rows_that_contradict_their_model_keep_what_the_model_says():
    labels = LogEvidence(torch.tensor([[0.0, -torch.inf]]))
    log_joint = torch.tensor([[-torch.inf, -1.0]])
    value, posterior = belief(labels, log_joint)
    assert posterior.tolist() == [[0, 1]]
    assert value == -1


def test_one_known_class_is_told_only_where_it_is_told():
    found = Evidence.read(Exact(torch.tensor([0, -1]), 1), 2, split=False)
    assert found.sure_known().tolist() == [0, -1]
    assert found.log_table(torch.zeros(2, dtype=torch.long)).tolist() == [[0, -torch.inf], [0, 0]]


def test_who_names_a_class_names_a_known_one():
    table = Evidence.read(Exact(torch.tensor([1, -1]), 2), 2, split=False).log_table(torch.zeros(3, dtype=torch.long))
    assert table[0].tolist() == [-torch.inf, 0, -torch.inf]
    assert table[1].tolist() == [0, 0, 0]


def test_crowds_and_soft_labels_are_evidence_of_known_classes():
    soft = Soft(torch.tensor([[0.98, 0.02], [0.6, 0.4], [0.5, 0.5]]))
    found = Evidence.read(soft, 3, split=False)
    assert found.sure_known().tolist() == [0, -1, -1]
    assert found.n_known == 2


@pytest.mark.parametrize("split", [False, True])
def test_a_vector_of_classes_some_missing(split):
    found = Evidence.read(["spam", None, "ham", ""], 4, split=split)
    names, sure = (found.node_names, found.sure_node()) if split else (found.known_names, found.sure_known())
    assert names == ("ham", "spam")
    assert sure.tolist() == [1, -1, 0, -1]


def test_coarse_labels_with_known_classes_below_them():
    membership = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = Evidence.read(Coarse(torch.tensor([0, 1]), membership) & Exact(torch.tensor([1, -1]), 3), 2, split=True)
    assert found.node_of_known.tolist() == [0, 0, 1]
    assert found.sure_known().tolist() == [1, -1]
    assert found.sure_node().tolist() == [0, 1]
    crossing = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    with pytest.raises(LabelError, match="of a tree"):
        Evidence.read(Coarse(torch.tensor([0, 1]), crossing), 2, split=False)


def test_the_node_of_a_known_class_is_where_most_of_its_rows_are():
    coarse = Coarse(torch.tensor([0, 0, 1, 1, 1]), torch.eye(2))
    found = Evidence.read(coarse & Exact(torch.tensor([1, 1, 1, 0, -1]), 2), 5, split=False)
    assert found.node_of_known.tolist() == [1, 0]


def test_parts_of_evidence():
    coarse = Coarse(torch.tensor([0, 0, 1, 1]), torch.eye(2), class_names=["x", "y"])
    labels = coarse & Exact(torch.tensor([0, -1, 1, -1]), 2, class_names=["x", "y"])
    labels = labels & Pairs(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([1, 0]), 4, 2)
    found = Evidence.read(labels, 4, split=False)
    some = found.of_rows(torch.tensor([0, 1]))
    assert some.pairs.tolist() == [[0, 1]]
    assert some.same.tolist() == [1]
    below = found.below(1, torch.tensor([2, 3]))
    assert (below.n_nodes, below.known_names, below.sure_known().tolist()) == (1, ("y",), [0, -1])
    hidden = found.without(torch.tensor([0]))
    assert hidden.known_names == ("y",)
    assert hidden.sure_known().tolist() == [-1, -1, 0, -1]
    assert hidden.sure_node().tolist() == [0, 0, 1, 1]


def test_labels_of_sets_are_refused():
    sets = Proportions(Bags.from_ids(torch.tensor([0, 0])), torch.tensor([[0.5, 0.5]]))
    with pytest.raises(LabelError, match="speaks of sets: fit a Learner"):
        Evidence.read(sets, 2, split=False)
