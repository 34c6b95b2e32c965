"""Accuracy: how often the answer is right, at the finest level and above it."""

from typing import Any

import numpy as np

from anygrain.labels.taxonomy import Taxonomy
from anygrain.metrics.rows import as_array, as_classes, known, known_choice


def accuracy(predicted: Any, truth: Any) -> float:
    """Share of rows whose class is right.

    Args:
        predicted: class indices, shape (N,), or probabilities, shape (N, K), whose most probable class is taken.
        truth: class indices, shape (N,); rows of -1 are left out.
    """
    chosen, classes = known_choice(predicted, truth)
    return float((chosen == classes).mean())


def accuracy_by_level(predicted: Any, truth: Any, taxonomy: Taxonomy) -> dict[str, float]:
    """Accuracy at every level of a taxonomy, finest first.

    Probabilities are added up below each node before the most probable node is taken; a predicted class stands for the
    nodes above it. A node is right where the true class can lie under it (one of several parents is enough).

    Args:
        predicted: class indices, shape (N,), or probabilities, shape (N, K).
        truth: class indices, shape (N,); rows of -1 are left out.
        taxonomy: over the same K classes.
    """
    out = {}
    for level in taxonomy.level_names:
        member = taxonomy.membership(level).numpy()
        if as_array(predicted).ndim == 2:
            probs, classes = known(predicted, truth)
            _same_classes(probs.shape[1], taxonomy)
            node = (probs @ member.T).argmax(1)
            right = member[node, classes] > 0
        else:
            chosen, classes = known_choice(predicted, truth)
            _same_classes(max(int(chosen.max()), int(classes.max())) + 1, taxonomy, at_most=True)
            right = ((member[:, chosen] > 0) & (member[:, classes] > 0)).any(0) & (chosen >= 0)
        out[level] = float(right.mean())
    return out


def node_accuracy(nodes: Any, truth: Any, taxonomy: Taxonomy) -> float:
    """Share of rows whose true class lies under the named node.

    Args:
        nodes: indices into `taxonomy.names`, of any depth, shape (N,), as `Taxonomy.deepest` gives them; -1, the top
            that says nothing, is right.
        truth: class indices, shape (N,); rows of -1 are left out.
        taxonomy: the taxonomy.
    """
    named = as_classes(nodes, len(taxonomy.names), what="The node")
    classes = as_classes(truth, taxonomy.n_classes)
    named, classes = known_choice(named, classes)
    used, row = np.unique(named, return_inverse=True)
    under = np.ones((len(used), taxonomy.n_classes), dtype=bool)
    under[used >= 0] = taxonomy.node_membership([taxonomy.names[i] for i in used if i >= 0]).numpy() > 0
    return float(under[row, classes].mean())


def mean_distance(predicted: Any, truth: Any, taxonomy: Taxonomy) -> float:
    """Mean number of edges between the predicted and the true class in the taxonomy: 0 is right, siblings are 2 apart.

    Args:
        predicted: class indices, shape (N,), or probabilities, shape (N, K), whose most probable class is taken.
        truth: class indices, shape (N,); rows of -1 are left out.
        taxonomy: over the same K classes.
    """
    chosen, classes = known_choice(predicted, as_classes(truth, taxonomy.n_classes))
    _same_classes(int(chosen.max()) + 1, taxonomy, at_most=True)
    if chosen.min() < 0:
        raise ValueError("A row without a predicted class (-1) has no distance. Leave such rows out")
    return float(taxonomy.distance().numpy()[chosen, classes].mean())


def macro_f1(predicted: Any, truth: Any) -> float:
    """Unweighted mean over classes of the F1 score (scikit-learn), 0 where a class is never right.

    Args:
        predicted: class indices, shape (N,), or probabilities, shape (N, K), whose most probable class is taken.
        truth: class indices, shape (N,); rows of -1 are left out. Only classes that are true somewhere count.
    """
    from sklearn.metrics import f1_score

    chosen, classes = known_choice(predicted, truth)
    return float(f1_score(classes, chosen, labels=np.unique(classes), average="macro", zero_division=0))


def _same_classes(n_classes: int, taxonomy: Taxonomy, *, at_most: bool = False) -> None:
    if n_classes > taxonomy.n_classes or (not at_most and n_classes != taxonomy.n_classes):
        raise ValueError(f"The predictions speak of {n_classes} classes, the taxonomy of {taxonomy.n_classes}")
