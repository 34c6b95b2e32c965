"""Methods that cut rows into groups, once below every coarse class."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from anygrain.discover.components import components, projected
from anygrain.discover.discoverer import AT_ONCE, Callback, Discoverer
from anygrain.discover.exemplars import class_means
from anygrain.discover.found import ClassModel, Found
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Arrays

VOTERS = 10  # nearest rows of which a new row's class is the majority
DOUBT = 0.5  # votes spread over all classes
OWN = 0.6  # weight of the group a row was put in, against the votes of its neighbours
HELD = 2**22  # distances held at once


class Votes(ClassModel):
    """Classes by the votes of the nearest of some reference rows (R, d) in a space z = (x - m) W.

    .. math:: p(k | x) = (n_k + a / K) / (n + a)

    of n = 10 nearest rows, n_k of class k, and a = .5.
    """

    mean: Tensor
    directions: Tensor
    reference: Tensor
    label: Tensor

    def __init__(self, mean: Tensor, directions: Tensor, reference: Tensor, label: Tensor, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        self.register_buffer("reference", reference)
        self.register_buffer("label", label)

    def embed(self, arrays: Arrays) -> Tensor:
        return (arrays["features"] - self.mean) @ self.directions

    def forward(self, arrays: Arrays) -> Tensor:
        at_once = max(1, HELD // len(self.reference))
        return torch.cat([self._said(part) for part in self.embed(arrays).split(at_once)])

    def _said(self, z: Tensor) -> Tensor:
        apart = torch.addmm(self.reference.square().sum(dim=1), z, self.reference.T, alpha=-2)
        near = apart.topk(min(VOTERS, len(self.reference)), dim=1, largest=False).indices
        count = z.new_zeros(len(z), self.n_classes).scatter_add_(
            1, self.label[near], torch.ones_like(near, dtype=z.dtype)
        )
        return ((count + DOUBT / self.n_classes) / (near.shape[1] + DOUBT)).log()


class Partitioned(Discoverer):
    """A method that cuts the rows below one coarse class into groups.

    A subclass gives `_cut`. Here the rows are brought to few principal components, a sample is cut below every coarse
    class, groups are matched to known classes (the matching that keeps most told rows in their class, then the one with
    the nearest means), told rows are put back where they were told to be, and all others follow the votes of their
    neighbours.

    Args:
        components: principal components in which the rows are cut.
        most_rows: size of the sample; rows beyond it follow it.
    """

    learns_from = None

    def __init__(
        self,
        *,
        components: int = 64,
        most_rows: int = 20000,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.components, self.most_rows = components, most_rows

    @abstractmethod
    def _cut(self, task: Task) -> tuple[Tensor, dict[str, Any]]:
        """Group (n,) of every row, and facts, of a task with one coarse class and more rows than `task.least`.

        Groups are 0, 1, ..., at least `task.least` and at most `task.most` of them. A fact that is a bool tensor (n,)
        becomes one of all rows, of others there is a list, one of every coarse class.
        """

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        mean, basis = components(task.features, self.components, task.seed)
        z = projected(task.features, mean, basis)
        chosen = sample(task, self.most_rows)
        flat = replace(task, features=z)
        where, known = task.evidence.sure_node()[chosen], task.evidence.node_of_known
        label = torch.full((len(chosen),), -1)
        node, history = [known], []
        facts: dict[str, Any] = {}
        for c in range(task.evidence.n_nodes):
            rows = (where == c).nonzero().flatten()
            own = (known == c).nonzero().flatten()
            group, of_part, number = self._classes(flat.below(c, chosen[rows]))
            if task.per_node is not None:
                number = int(task.per_node[c])
            before = sum(len(part) for part in node)
            new = torch.full((number - len(own),), c)
            label[rows] = torch.cat([own, before + torch.arange(len(new))])[group]
            node.append(new)
            history.append({"step": f"group {c + 1}", "rows": len(rows), "classes": number})
            for name, value in of_part.items():
                if isinstance(value, Tensor):
                    everywhere = facts.setdefault(name, np.zeros(task.n_rows, dtype=bool))
                    everywhere[chosen[rows[value]].numpy()] = True
                else:
                    facts.setdefault(name, []).append(value)
            if callback is not None:
                callback(c + 1, task.evidence.n_nodes, history[-1])
        there, classes = label >= 0, torch.cat(node)
        at = chosen[there].to(z.device)
        model = Votes(mean, basis, z[at], label[there].to(z.device), len(classes))
        log_probs = torch.cat([model.forward({"features": part}) for part in task.features.split(AT_ONCE)])
        own_group = one_hot(label[there], len(classes)).to(log_probs)
        log_probs[at] = torch.log(OWN * own_group + (1 - OWN) * log_probs[at].exp())
        return Found(classes, model, log_probs, why=self._why(len(chosen), task), history=history, facts=facts)

    def _classes(self, task: Task) -> tuple[Tensor, dict[str, Any], int]:
        """Class (n,) of every row below one coarse class, the known ones first; facts; how many classes there are."""
        n, known = task.n_rows, task.n_known
        facts: dict[str, Any] = {}
        if n == 0 or task.most == 1:
            return torch.zeros(n, dtype=torch.long), facts, max(known, 1)
        group, facts = (torch.arange(n), facts) if n <= task.least else self._cut(task)
        label, number = known_first(task, group.cpu(), max(int(group.max()) + 1, known))
        return label, facts, number

    def _why(self, n_rows: int, task: Task) -> str:
        every = "all rows" if n_rows == task.n_rows else f"{n_rows} of the rows; the others follow their neighbours"
        return f"groups of {every}, below every coarse class" if task.evidence.n_nodes > 1 else f"groups of {every}"


def sample(task: Task, most: int) -> Tensor:
    """At most about `most` rows: of every coarse class the same share, but 200 at least; told ones go first."""
    if task.n_rows <= most:
        return torch.arange(task.n_rows)
    generator = torch.Generator().manual_seed(task.seed)
    where = task.evidence.sure_node()
    first = (task.evidence.sure_known() >= 0).double()
    first = first * min(1.0, most / 2 / max(float(first.sum()), 1.0))  # at most half of the sample by being told
    order = torch.argsort(torch.rand(task.n_rows, generator=generator, dtype=torch.float64) - first)
    order = order[where[order] >= 0]
    order = order[where[order].argsort(stable=True)]
    size = torch.bincount(where[order], minlength=task.evidence.n_nodes)
    place = torch.arange(len(order)) - (size.cumsum(0) - size)[where[order]]
    share = (size * (most / task.n_rows)).ceil().clamp(min=200)
    return order[place < share[where[order]]].sort().values


def known_first(task: Task, group: Tensor, n_groups: int) -> tuple[Tensor, int]:
    """Class (n,) of every row from its group: known classes by the told rows, then new ones; and their number.

    A known class is the group that holds its told rows, by the best matching; one whose rows are nowhere in the
    majority takes the nearest group that is left. Told rows are put in their class, whatever their group.
    """
    from scipy.optimize import linear_sum_assignment

    known = task.n_known
    if known == 0:
        return group, n_groups
    told = task.evidence.sure_known()
    rows = told >= 0
    count = torch.bincount(told[rows] * n_groups + group[rows], minlength=known * n_groups).view(known, n_groups)
    x = task.features.cpu()
    apart = torch.cdist(class_means(x[rows], told[rows], known)[0], class_means(x, group, n_groups)[0])
    gain = count.double() - 0.5 * apart.double() / apart.max().clamp(min=1e-12) / known
    _, chosen = linear_sum_assignment(gain.numpy(), maximize=True)
    name = torch.full((n_groups,), -1)
    name[torch.from_numpy(chosen)] = torch.arange(known)
    name[name < 0] = known + torch.arange(n_groups - known)
    return torch.where(rows, told, name[group]), n_groups
