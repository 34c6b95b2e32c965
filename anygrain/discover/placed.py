"""Names of classes, and their places under the coarse ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anygrain.discover.task import Task
from anygrain.labels import Taxonomy


def class_names(task: Task, node: Tensor) -> tuple[str, ...]:
    """Names (K,): known ones as they are; "department / 1" for the first new class under a coarse one, else "new 1".

    A coarse class that is one class keeps its name.
    """
    evidence = task.evidence
    known, names = evidence.known_names, list(evidence.known_names)
    many = torch.bincount(node, minlength=evidence.n_nodes)
    count = [0] * evidence.n_nodes
    for above in node[len(known) :].tolist():
        count[above] += 1
        if not evidence.node_names:
            names.append(_free(f"new {count[above]}", known))
        elif many[above] == 1:
            names.append(_free(evidence.node_names[above], known))
        else:
            names.append(_free(f"{evidence.node_names[above]} / {count[above]}", known))
    return tuple(names)


def _free(name: str, taken: tuple[str, ...]) -> str:
    while name in taken:
        name += "'"
    return name


def taxonomy_of(names: Sequence[str], node: Tensor, nodes: Sequence[str]) -> Taxonomy:
    """Classes below their coarse ones; one level where nothing coarse is known.

    A coarse class of the name of a class that is not all of it is called "coarse " and its name.

    Args:
        names: of the classes, (K,).
        node: (K,) the coarse class above every class.
        nodes: names of the coarse classes; none where nothing coarse is known.
    """
    if not nodes:
        return Taxonomy.from_levels([list(names)], ["class"])
    above, many = node.tolist(), torch.bincount(node, minlength=len(nodes)).tolist()
    whole = {name for name, c in zip(names, above, strict=True) if nodes[c] == name and many[c] == 1}
    taken = set(names) - whole
    called = [_free(f"coarse {name}" if name in taken else name, tuple(taken)) for name in nodes]
    return Taxonomy.from_levels([list(names), [called[c] for c in above]], ["class", "coarse"])
