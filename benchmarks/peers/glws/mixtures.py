"""Mixtures of kinds that no other project runs: coarse labels, votes, counts, a few exact labels."""

import torch
from torch import Tensor

from anygrain.labels import Bags, Coarse, Counts, Crowd, Exact, Labels
from benchmarks.peers.glws.pictures import Pictures

#: groups of classes that coarse labels name
GROUPS = {
    "digits": ((0, 1, 2, 3), (4, 5, 6), (7, 8, 9)),
    "cifar10": ((0, 1, 8, 9), (2, 6), (3, 4, 5, 7)),
}
ALL = "all of them"


def mixtures(pictures: Pictures, generator: torch.Generator) -> dict[str, Labels]:
    """Each kind alone, and all of them: by name."""
    classes, n = pictures.classes, len(pictures.classes)
    membership = torch.zeros(3, 10)
    for group, members in enumerate(GROUPS[pictures.name]):
        membership[group, list(members)] = 1
    parts: dict[str, Labels] = {
        "coarse on all (3 groups)": Coarse(membership.argmax(dim=0)[classes], membership),
        "two votes on a third": _votes(classes, generator),
        "counts over bags of ten, half of them": _counts(classes, generator),
        "ten exact": _exact(classes, generator),
    }
    together, *rest = parts.values()
    for part in rest:
        together = together & part
    assert together.n_instances == n
    return {**parts, ALL: together}


def _votes(classes: Tensor, generator: torch.Generator) -> Labels:
    """Two votes of five annotators, right with .5 to .8, on a third of the pictures."""
    n = len(classes)
    asked = torch.randperm(n, generator=generator)[: n // 3]
    accuracy = torch.linspace(0.5, 0.8, 5)
    who = torch.rand(len(asked), 5, generator=generator).topk(2, dim=1).indices.reshape(-1)
    items = asked.repeat_interleave(2)
    right = torch.rand(len(items), generator=generator) < accuracy[who]
    other = (classes[items] + torch.randint(1, 10, (len(items),), generator=generator)) % 10
    return Crowd(items, who, torch.where(right, classes[items], other), 10, n_items=n)


def _counts(classes: Tensor, generator: torch.Generator) -> Labels:
    """The counts of all ten classes in disjoint bags of ten, half of the pictures in bags."""
    n = len(classes)
    bags = n // 20
    members = torch.randperm(n, generator=generator)[: 10 * bags]
    counts = torch.nn.functional.one_hot(classes[members].view(bags, 10), 10).sum(dim=1)
    return Counts(Bags(members, torch.arange(bags + 1) * 10, n_instances=n), counts)


def _exact(classes: Tensor, generator: torch.Generator) -> Labels:
    """One picture of every class."""
    order = torch.randperm(len(classes), generator=generator)
    first = torch.stack([order[classes[order] == k][0] for k in range(10)])
    labels = torch.full_like(classes, -1)
    labels[first] = classes[first]
    return Exact(labels, 10)
