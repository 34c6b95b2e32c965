"""Accuracy: by level against counting by hand, of nodes, and in edges."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from anygrain.labels.taxonomy import Taxonomy
from anygrain.metrics import accuracy, accuracy_by_level, macro_f1, mean_distance, node_accuracy

TREE = Taxonomy.from_levels({"fine": ["a1", "a2", "b1", "b2"], "coarse": ["A", "A", "B", "B"]})
RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet(np.full(4, 0.5), size=300)
TRUTH = RNG.integers(4, size=300)


def test_accuracy_takes_classes_or_probabilities_and_leaves_out_missing_truth() -> None:
    assert accuracy(PROBS, TRUTH) == accuracy(PROBS.argmax(1), TRUTH) == accuracy_score(TRUTH, PROBS.argmax(1))
    assert accuracy(torch.tensor([0, 1, 2]), torch.tensor([0, -1, 1])) == 0.5


def test_coarse_accuracy_adds_probabilities_up_first() -> None:
    probs, truth = np.array([[0.4, 0.0, 0.3, 0.3]]), np.array([3])
    assert accuracy_by_level(probs, truth, TREE) == {"fine": 0.0, "coarse": 1.0}
    assert accuracy_by_level(probs.argmax(1), truth, TREE) == {"fine": 0.0, "coarse": 0.0}
    got = accuracy_by_level(PROBS, TRUTH, TREE)
    coarse = PROBS.reshape(-1, 2, 2).sum(2).argmax(1)
    assert got == {"fine": accuracy(PROBS, TRUTH), "coarse": pytest.approx((coarse == TRUTH // 2).mean())}
    by_class = accuracy_by_level(PROBS.argmax(1), TRUTH, TREE)
    assert by_class["coarse"] == pytest.approx((PROBS.argmax(1) // 2 == TRUTH // 2).mean())


def test_one_of_several_parents_is_enough() -> None:
    shared = Taxonomy.from_edges([("x", "P"), ("x", "Q"), ("y", "Q"), ("z", "R")])
    assert accuracy_by_level([1], [0], shared)["level_1"] == 1.0
    assert accuracy_by_level([2], [0], shared)["level_1"] == 0.0


def test_nodes_of_any_depth() -> None:
    nodes = [TREE.index("A"), TREE.index("A"), TREE.index("b1"), -1, TREE.index("b1")]
    assert node_accuracy(nodes, [1, 2, 2, 0, -1], TREE) == 0.75
    node, _ = TREE.deepest(torch.tensor(PROBS).log(), 0.0)
    assert node_accuracy(node, TRUTH, TREE) == accuracy(PROBS, TRUTH)
    assert node_accuracy([-1], [0], TREE) == 1


def test_distance_and_macro_f1() -> None:
    assert mean_distance([0, 0, 0], [0, 1, 2], TREE) == pytest.approx((0 + 2 + 4) / 3)
    want = f1_score(TRUTH, PROBS.argmax(1), average="macro")
    assert macro_f1(PROBS, TRUTH) == pytest.approx(want)
    assert macro_f1([0, 2], [0, 0]) == pytest.approx(2 / 3)  # class 2 is nowhere true


def test_predictions_of_another_task_are_refused() -> None:
    for metric in (accuracy_by_level, mean_distance):
        with pytest.raises(ValueError, match="5 classes, the taxonomy of 4"):
            metric([4], [0], TREE)
    with pytest.raises(ValueError, match="3 classes, the taxonomy of 4"):
        accuracy_by_level([[0.2, 0.3, 0.5]], [0], TREE)
    with pytest.raises(ValueError, match="node of row 0 is 6"):
        node_accuracy([6], [0], TREE)
    with pytest.raises(ValueError, match="no distance"):
        mean_distance([-1], [0], TREE)
