"""Classes so that pairs hold: never a clash that has a way out, and close to the best."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.discover.evidence import Evidence
from anygrain.discover.linked import blocks, linked_choice, parted
from anygrain.labels import Pairs


def evidence(pairs, same, n, error=0.0):
    pairs = torch.as_tensor(pairs).view(-1, 2)
    return Evidence.read(Pairs(pairs[:, 0], pairs[:, 1], torch.as_tensor(same), n, 3, error=error), n, split=False)


def both_ways(edges):
    edges = torch.as_tensor(edges).view(-1, 2).T
    return torch.cat([edges, edges.flip(0)], dim=1).unique(dim=1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_no_clash_where_there_are_more_classes_than_partners(seed):
    rng = np.random.default_rng(seed)
    n, k = 12, 5
    degree, edges = np.zeros(n, int), []
    for i, j in rng.permutation(list(itertools.combinations(range(n), 2)))[:40]:
        if degree[i] < k - 1 and degree[j] < k - 1:
            edges.append((i, j))
            degree[[i, j]] += 1
    apart = both_ways(edges)
    label = parted(torch.from_numpy(rng.random((n, k))), apart)
    assert (label[apart[0]] != label[apart[1]]).all()


def test_of_two_that_clash_the_one_that_loses_less_moves():
    cost = torch.tensor([[0.0, 5.0, 9.0], [0.0, 1.0, 9.0], [0.0, 3.0, 9.0]])
    assert parted(cost, both_ways([[0, 1]])).tolist() == [0, 1, 0]
    best = min(
        (float(cost[torch.arange(3), list(y)].sum()), y)
        for y in itertools.product(range(3), repeat=3)
        if len(set(y)) == 3
    )
    assert parted(cost, both_ways([[0, 1], [1, 2], [0, 2]])).tolist() == list(best[1])


def test_a_clash_without_a_way_out_stays():
    inf = torch.inf
    assert parted(torch.tensor([[0.0, inf], [0.0, inf]]), both_ways([[0, 1]])).tolist() == [0, 0]


def test_chains_are_one_block():
    block, apart = blocks(evidence([[0, 1], [1, 2], [2, 4]], [1, 1, 0], 5))
    assert block[0] == block[1] == block[2]
    assert len({int(block[0]), int(block[3]), int(block[4])}) == 3
    assert {tuple(pair) for pair in apart.T.tolist()} == {
        (int(block[2]), int(block[4])),
        (int(block[4]), int(block[2])),
    }


def test_two_rows_alike_that_cannot_be_together_get_two_classes():
    probs = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1]])
    assert linked_choice(probs, evidence([[0, 1]], [0], 4))[:2].sort().values.tolist() == [0, 1]
    assert linked_choice(probs, evidence([[2, 3]], [1], 4)).tolist() == [0, 0, 1, 1]
    assert linked_choice(probs, evidence([[0, 1]], [0], 4, error=0.2)).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("n", [40])
def test_constrained_k_means_counts_what_it_had_to_break(n):
    from anygrain.discover import ConstrainedKMeans

    x = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    i, j = torch.tensor([0, 1, 0]), torch.tensor([1, 2, 2])
    found = ConstrainedKMeans(bootstrap=0).fit(x, Pairs(i, j, torch.zeros(3, dtype=torch.long), n, 2), 2)
    assert found.broken_ == 1  # three rows, all apart, in two classes
    free = ConstrainedKMeans(bootstrap=0).fit(x, Pairs(i, j, torch.zeros(3, dtype=torch.long), n, 3), 3)
    assert free.broken_ == 0
    assert len(set(free.labels_[:3])) == 3
