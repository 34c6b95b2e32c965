"""Finds classes by what fits the data, and says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.self_distillation import SelfDistillation
from anygrain.discover.start import found_by, given_said, on_features
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder

STARTS = ("mixture", "ward", "spectral")
MOST_ROWS = 4000  # on which starts are compared
FEWEST = 4  # known classes with told rows, below which none can be hidden
ROUNDS = 2


class Automatic(Discoverer):
    """Starts with the method that finds classes that were hidden from it, and refines what it finds by a cosine head.

    Where some classes are known, half of them are made unknown, twice: their told rows say which method finds new
    classes best in these data, without a label that was not given. It is run on all rows, and `SelfDistillation` goes
    on from there. Where nothing is known but coarse classes, or nothing at all, nobody can judge; the start is the
    mixture, which is steady.

    Args:
        starts: methods among which the start is chosen, by name.
        epochs: of the head; 0 for the start as it is.
        trains_encoder: whether an encoder that can be trained is trained with the head.

    Attributes:
        start_: the method that was chosen; `hidden_accuracy_`: of every start, the accuracy on classes hidden from it.

    Source of the hiding: Vaze et al., Generalized Category Discovery, 2022.
    """

    def __init__(
        self,
        *,
        starts: Sequence[str] = STARTS,
        epochs: int = 10,
        trains_encoder: bool = False,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.starts, self.epochs, self.trains_encoder = starts, epochs, trains_encoder

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        fixed = on_features(task)
        chosen, scores = self.starts[0], hidden_accuracy(fixed, self.starts)
        if scores:
            chosen = max(scores, key=scores.__getitem__)
            told = ", ".join(f"{name} {100 * score:.0f} %" for name, score in scores.items())
            why = f'started from "{chosen}": accuracy on known classes that were hidden is {told}'
        else:
            why = (
                f'started from "{chosen}": fewer than {FEWEST} known classes have told rows, so that none can be hidden'
            )
        found = found_by(chosen, fixed)
        facts = {"start": chosen, "hidden_accuracy": scores}
        if self.epochs == 0:
            return replace(found, why=why, facts=found.facts | facts)
        head = SelfDistillation(epochs=self.epochs)
        network, history = head.distilled(task, given_said(found, fixed), callback)
        why += f"; then a cosine head learnt {self.epochs} epochs from rows and mixes with their neighbours"
        return Found(task.node, network, why=why, history=history, facts=facts)


def hidden_accuracy(task: Task, starts: Sequence[str], rounds: int = ROUNDS) -> dict[str, float]:
    """Share of told rows of hidden classes that lie in their own new class, by start; empty where none can be hidden.

    Half of the known classes are made unknown, at random; new classes are matched with the hidden ones, and a row that
    is put in a class that is still known is wrong.
    """
    told = task.evidence.sure_known()
    there = torch.bincount(told[told >= 0], minlength=max(task.n_known, 1)).nonzero().flatten()
    if len(there) < FEWEST or len(starts) < 2:
        return {}
    generator = torch.Generator().manual_seed(task.seed)
    right: dict[str, float] = dict.fromkeys(starts, 0.0)
    for _ in range(rounds):
        hidden = there[torch.randperm(len(there), generator=generator)[: len(there) // 2]].sort().values
        order = torch.randperm(task.n_rows, generator=generator)
        order = order[(told[order] < 0).long().argsort(stable=True)]  # told rows first
        rows = order[:MOST_ROWS].sort().values if task.n_rows > MOST_ROWS else torch.arange(task.n_rows)
        part = task.of_rows(rows)
        part = replace(part, evidence=part.evidence.without(hidden))
        asked = torch.isin(told[rows], hidden)
        truth = torch.searchsorted(hidden, told[rows][asked])
        for name in starts:
            label = given_said(found_by(name, part), part)[asked].argmax(dim=1) - part.n_known
            right[name] += matched(label, truth, len(hidden), len(part.node) - part.n_known) / rounds
    return right


def matched(label: Tensor, truth: Tensor, n_truth: int, n_label: int) -> float:
    """Accuracy of labels (R,) under the best matching with classes (R,); a label below 0 is wrong."""
    from scipy.optimize import linear_sum_assignment

    new = label >= 0
    both = torch.bincount(truth[new] * n_label + label[new], minlength=n_truth * n_label).view(n_truth, n_label)
    rows, columns = linear_sum_assignment(-both.numpy())
    return float(both[rows, columns].sum()) / max(len(truth), 1)
