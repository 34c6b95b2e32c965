"""Finds classes by what fits the data, and says why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from anygrain.discover.adapted import Adapted
from anygrain.discover.discoverer import AT_ONCE, Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.network import ClassNetwork
from anygrain.discover.self_distillation import EPOCHS, History, SelfDistillation
from anygrain.discover.start import found_by, given_said, on_features
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import in_batches
from anygrain.labels import LabelError

STARTS = ("mixture", "spectral", "ward")
TOGETHER = "all together"
CLEARLY = 0.9  # of the least loss of the others, below which that of the last head is kept


class Automatic(Discoverer):
    r"""A cosine head from several starts, and from what their heads say together; the one with the least loss is kept.

    No method finds the best classes in all data, and labels that could judge new classes are not there. But the heads
    that `SelfDistillation` learns from several starts go down the same objective, and the one that ends lowest tends to
    be the best, as with the starts of k-means: where classes are wrong, rows that are alike cannot agree. A last head
    starts from the mean of the answers of the others, their new classes matched by the rows they share; as it goes on
    where they ended, it is kept only if its loss is a tenth lower.

    With one start, it is `SelfDistillation`. A pretrained encoder that is given and can be trained is adapted to
    the told rows first, where these are enough (see `Adapted`), and the heads learn on its features; a network without
    pretrained weights is trained from the chosen start alone.

    Args:
        starts: methods from which heads start, by name.
        epochs: of every head.

    Attributes:
        start_: where the head that was kept started; `losses_`: of every start, the loss of its head at the end.
    """

    trains_encoder = True

    def __init__(
        self,
        *,
        starts: Sequence[str] = STARTS,
        epochs: int = EPOCHS,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.starts, self.epochs = starts, epochs

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        if self.epochs < 1:
            raise LabelError(f'epochs is {self.epochs}; expected 1 or more, or a method without a head, as "mixture"')
        if task.encoder is not None and task.encoder.has_pretrained:
            return Adapted(method=self)._find(task, callback)
        fixed, head = on_features(task), SelfDistillation(epochs=self.epochs)
        begun: dict[str, Tensor] = {}
        heads: dict[str, tuple[ClassNetwork, History]] = {}
        answers: list[Tensor] = []
        names = [*self.starts, TOGETHER] if len(self.starts) > 1 else list(self.starts)
        for place, name in enumerate(names):
            begun[name] = _together(answers, fixed) if name == TOGETHER else given_said(found_by(name, fixed), fixed)
            network, history = head.distilled(fixed, begun[name])
            heads[name] = network, history
            if name != TOGETHER:
                said = in_batches(network, fixed.rows, AT_ONCE, network)
                answers.append(given_said(Found(task.node, network, said), fixed))
            if callback is not None:
                callback(place + 1, len(names), {"step": f"head from {name}", "loss": history[-1]["loss"]})
        losses = {name: history[-1]["loss"] for name, (_, history) in heads.items()}
        start = chosen = min(self.starts, key=losses.__getitem__)
        if losses.get(TOGETHER, torch.inf) < CLEARLY * losses[start]:
            chosen = TOGETHER
        network, history = heads[chosen]
        if task.encoder is not None:
            network, history = head.distilled(task, begun[chosen], callback)
        told = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
        why = f"a cosine head from {chosen}, by the loss at the end of every start ({told})"
        facts = {"start": chosen, "losses": losses}
        again = SelfDistillation(start=start, epochs=self.epochs)
        return Found(task.node, network, why=why, history=history, facts=facts, again=again._find)


def _together(answers: Sequence[Tensor], task: Task) -> Tensor:
    """Mean of answers (N, K); new classes are matched with those of the first, below their coarse class."""
    return torch.stack([answers[0], *(one[:, matched(answers[0], one, task)] for one in answers[1:])]).mean(dim=0)


def matched(first: Tensor, second: Tensor, task: Task) -> Tensor:
    """The column (K,) of the second answer that shares most rows with every column of the first; known ones stay."""
    from scipy.optimize import linear_sum_assignment

    shared = (first.T @ second).numpy()
    order = np.arange(len(shared))
    for c in task.node.unique().tolist():  # coarse classes, not rows
        new = np.flatnonzero((task.node.numpy() == c) & (order >= task.n_known))
        order[new] = new[linear_sum_assignment(-shared[np.ix_(new, new)])[1]]
    return torch.from_numpy(order)
