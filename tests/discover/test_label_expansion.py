"""Classes whose labels get finer over time: the memory, its importance, growing heads, and a stream that goes on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.discover import LabelExpansion
from anygrain.discover.label_expansion import (
    ExpandingNetwork,
    grow,
    guessed,
    kept_rows,
    next_importance,
    row_losses,
    starting_importance,
)
from anygrain.labels import Coarse, Exact, LabelError
from tests.discover.test_network import blobs

X, Y = blobs(240, 6)
SHUFFLED = torch.randperm(240, generator=torch.Generator().manual_seed(0))
X, Y = X[SHUFFLED], Y[SHUFFLED]
TREE = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).float()
FINE = ["a", "b", "c", "d", "e", "f"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=25), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_the_largest_class_gives_up_its_least_important_row(rows, most):
    bucket = torch.tensor([b for b, _ in rows])
    importance = torch.tensor([float(i) for _, i in rows]) + torch.arange(len(rows)) * 1e-3
    kept = kept_rows(bucket, importance, most)
    left = list(range(len(rows)))
    while len(left) > most:
        count = torch.bincount(bucket[left])
        largest = int(max((int(c), k) for k, c in enumerate(count.tolist()))[1])  # of equal ones the last
        left.remove(min((i for i in left if bucket[i] == largest), key=lambda i: importance[i]))
    assert kept.tolist() == left
    if most >= len(bucket.unique()):
        assert len(bucket[kept].unique()) == len(bucket.unique())


def test_importance_of_scripted_losses_by_hand():
    importance = torch.tensor([0.0, 0.4, 0.2], dtype=torch.float64)
    after = next_importance(importance, torch.tensor(0.5, dtype=torch.float64))
    step = 0.1 * (0.5 - 0.2 / 3)
    assert torch.allclose(after, importance + step)
    for _ in range(5000):  # an exponential mean: the mean goes to b times the fall, and stays
        importance = next_importance(importance, torch.tensor(0.5, dtype=torch.float64))
    assert float(importance.mean()) == pytest.approx(1.5)


def test_a_new_row_starts_at_the_mean_of_its_class():
    there, importance = torch.tensor([0, 0, 2]), torch.tensor([1.0, 3.0, 8.0])
    assert starting_importance(torch.tensor([0, 1, 2, 3]), there, importance).tolist() == [2.0, 4.0, 8.0, 4.0]
    assert starting_importance(torch.tensor([1]), there[:0], importance[:0]).tolist() == [0.0]


def test_a_guess_is_below_its_coarse_class_and_waits_for_two():
    outputs = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    node_of, seen = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([True, True, True, False, True])
    node = torch.arange(50) % 2
    guess, sure = guessed(outputs, node, node_of, seen)
    assert sure.all()
    assert (node_of[guess] == node).all()
    assert (guess != 3).all()
    assert not guessed(outputs, node, node_of, torch.tensor([True, False, True, True, True]))[1][node == 0].any()


def test_a_fine_class_trains_the_coarse_head_as_its_coarse_class_does():
    generator = torch.Generator().manual_seed(0)
    node_out, fine_out = torch.randn(6, 2, generator=generator), torch.randn(6, 4, generator=generator)
    node, fine = torch.tensor([0, 1, 0, 1, 1, 0]), torch.tensor([0, 3, -1, -1, 2, 1])
    loss = row_losses(node_out, fine_out, node, fine)
    rows = torch.arange(6)
    by_hand = -node_out.log_softmax(1)[rows, node]
    by_hand = by_hand - torch.where(fine >= 0, fine_out.log_softmax(1)[rows, fine.clamp(min=0)], 0)
    assert torch.allclose(loss, by_hand, atol=1e-6)
    assert torch.equal(
        row_losses(node_out, fine_out[:, :0], node, fine * 0 - 1), loss * 0 - node_out.log_softmax(1)[rows, node]
    )


def test_probabilities_are_those_of_the_coarse_class_times_those_within():
    network = ExpandingNetwork(X, 16, 0)
    grow(network, "node_head", 2, optimiser := torch.optim.Adam(network.parameters()))
    grow(network, "fine_head", 3, optimiser)
    with torch.no_grad():
        network.node_head.weight.normal_()
        network.fine_head.weight.normal_()
    network.node_of, network.seen = torch.tensor([0, 0, 0]), torch.tensor([True, True, False])
    network.node_seen, network.order = torch.tensor([True, True]), torch.tensor([0, 1, 2, 4])
    found = network({"features": X}).exp()
    node, fine = network.outputs({"features": X})
    coarse = node.softmax(1)
    assert torch.allclose(found[:, :2], coarse[:, :1] * fine[:, :2].softmax(1), atol=1e-5)
    assert torch.allclose(found[:, 3], coarse[:, 1], atol=1e-5)
    assert bool((found[:, 2] < 1e-6).all())


def test_heads_grow_and_the_optimiser_remembers():
    network = ExpandingNetwork(X, 8, 0)
    optimiser = torch.optim.Adam(network.parameters())
    grow(network, "fine_head", 2, optimiser)
    network.fine_head(network.body(X[:4])).square().sum().backward()
    network.fine_head.bias.grad = torch.tensor([1.0, -1.0])
    optimiser.step()
    bias, memory = network.fine_head.bias.detach().clone(), optimiser.state[network.fine_head.bias]["exp_avg"].clone()
    grow(network, "fine_head", 5, optimiser)
    assert torch.equal(network.fine_head.bias, torch.cat([bias, torch.zeros(3)]))
    assert torch.equal(optimiser.state[network.fine_head.bias]["exp_avg"], torch.cat([memory, torch.zeros(3)]))
    assert any(one is network.fine_head.bias for one in optimiser.param_groups[0]["params"])
    assert network.fine_head(network.body(X)).shape == (240, 5)


def test_a_stream_from_coarse_to_fine_keeps_its_memory_within_bounds():
    found = LabelExpansion(memory=20, device="cpu", updates=2)
    found.partial_fit(X[:80], Coarse(Y[:80] // 3, TREE, class_names=FINE))
    assert found.class_names_ == tuple(FINE)
    assert (found.node_[found.predict(X)] == (Y // 3).numpy()).mean() > 0.95
    for rows in (slice(80, 160), slice(160, 240)):
        found.partial_fit(X[rows], Exact(Y[rows], 6, class_names=FINE))
        memory = found.stream_.memory
        assert len(memory) <= 20
        assert set(memory.bucket.tolist()) >= set(Y[rows].tolist())
    assert (found.predict(X) == Y.numpy()).mean() > 0.95
    assert found.labels_.shape == (80,)
    assert np.isnan(found.stability_).all()


def test_a_coarse_class_is_a_class_until_its_finer_ones_come():
    found = LabelExpansion(device="cpu").partial_fit(X[:80], Coarse(Y[:80] // 3, torch.eye(2)))
    assert found.class_names_ == ("0", "1")
    assert (found.predict(X) == (Y // 3).numpy()).mean() > 0.95
    tree, names = TREE[:, [0, 1, 2, 5]], [*FINE[:3], "g"]
    labels = Coarse(Y[80:160] // 3, tree, class_names=names) & Exact(Y[80:160].clamp(max=3), 4, class_names=names)
    found.partial_fit(X[80:160], labels)
    assert found.class_names_ == ("a", "b", "c", "g")
    assert found.node_.tolist() == [0, 0, 0, 1]
    assert (found.predict(X) == Y.clamp(max=3).numpy()).mean() > 0.95
    last = Coarse(Y[160:] // 3, TREE, class_names=FINE) & Exact(Y[160:], 6, class_names=FINE)
    found.partial_fit(X[160:], last)
    assert found.class_names_ == ("a", "b", "c", "g", "d", "e", "f")
    assert found.node_.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert (found.predict(X[Y < 3]) == Y[Y < 3].numpy()).mean() > 0.95


def test_without_finer_classes_pseudo_labels_change_nothing():
    labels = Coarse(Y // 3, torch.eye(2))
    one, other = (LabelExpansion(pseudo=p, memory=30, device="cpu").partial_fit(X, labels) for p in (True, False))
    np.testing.assert_array_equal(one.log_probs_, other.log_probs_)


def test_fit_begins_anew():
    labels = Exact(Y, 6)
    found = LabelExpansion(device="cpu", bootstrap=0).fit(X, labels)
    steps = found.stream_.steps
    again = found.fit(X, labels)
    assert again.stream_.steps == steps == 240
    assert again.history_[-1]["step"] == "row 240"


def test_what_cannot_go_on_is_named():
    with pytest.raises(LabelError, match="name no class"):
        LabelExpansion(device="cpu").partial_fit(X)
    flat_first = LabelExpansion(device="cpu").partial_fit(X[:80], Exact(Y[:80], 6, class_names=FINE))
    with pytest.raises(LabelError, match="from the first call on"):
        flat_first.partial_fit(X[80:], Coarse(Y[80:] // 3, torch.eye(2)))
    tree = LabelExpansion(device="cpu").partial_fit(X[:80], Coarse(Y[:80] // 3, TREE, class_names=FINE))
    with pytest.raises(LabelError, match='class "g" is new'):
        tree.partial_fit(X[80:], Exact(Y[80:], 7, class_names=[*FINE, "g"]))
