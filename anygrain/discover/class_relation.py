"""New classes that are learnt while the answers about known ones stay as they were."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.network import ClassNetwork, CosineHead, Moment, Pace, Residual, Said, Views, train
from anygrain.discover.sinkhorn import sinkhorn
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import TrainableEncoder, seeded

TEMPERATURE = 0.1  # of cosines
TARGET_TEMPERATURE = 0.05  # of cosines in Sinkhorn's scaling
SINKHORN_STEPS = 3
NEVER = -1e4


class ClassRelationDistillation(Discoverer):
    r"""Joint heads for known and new classes; a frozen teacher keeps how each row relates to the known ones.

    First a network with a cosine head learns the told rows of known classes; a frozen copy is the teacher. Then heads
    for the new classes join. Rows of which no class is told have as targets the outputs of the other view, scaled by
    Sinkhorn so that classes are used alike; told rows have their class. With T = 4,

    .. math:: L = L_{swap} + a\, T^2\, \frac1B \sum_i w_i\, CE(r_i, s_i), \qquad
              r = \mathrm{softmax}(l^{teacher}_{known} / T), \quad s = \mathrm{softmax}(l_{known} / T)

    and :math:`w_i \propto \sum_{k\ known} \mathrm{softmax}(l_{joint} / T)_k` of mean 1 over the batch: a row that looks
    like known classes is tied more to what the teacher says of them. Where w has a gradient, the loss also falls as
    weight goes to rows of which the teacher is surest: these are drawn to known classes, the more the larger a is.

    Args:
        relation: a; 0 for the swapped heads alone.
        weight_gradient: whether w has a gradient, as published.
        only_new: whether rows of which no class is told are all of new classes, as in the published setting; else they
            may be of any.
        heads: joint heads, of which that with the smallest loss is kept.
        projection: widths of the layers of each head before its directions.
        hidden: width of the residual layer on fixed features.
        teacher_epochs: of the first stage; `epochs`: of the second.
        rate: highest learning rate.
        batch_size: rows at once; two or three per new class at least.

    Facts: `teacher_`, the network of the first stage, None where no class is known.

    Source: Gu et al., Class-relation Knowledge Distillation for Novel Class Discovery, 2023; Fini et al., A Unified
    Objective for Novel Class Discovery, 2021.
    """

    trains_encoder = True

    def __init__(
        self,
        *,
        relation: float = 0.1,
        weight_gradient: bool = True,
        only_new: bool = False,
        heads: int = 2,
        projection: tuple[int, ...] = (256, 64),
        hidden: int = 512,
        teacher_epochs: int = 10,
        epochs: int = 20,
        rate: float = 1e-3,
        batch_size: int = 256,
        relation_temperature: float = 4.0,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.relation, self.weight_gradient, self.only_new = relation, weight_gradient, only_new
        self.heads, self.projection = heads, projection
        self.hidden, self.teacher_epochs, self.epochs = hidden, teacher_epochs, epochs
        self.rate, self.batch_size, self.relation_temperature = rate, batch_size, relation_temperature

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        known = task.n_known
        views, said = Views(task), Said(task, task.node)
        steps = self.teacher_epochs * bool(known) + self.epochs
        body, encoder, dim = self._body(task)
        teacher: ClassNetwork | None = None
        head: nn.Module | None = None
        history: list[dict[str, Any]] = []
        if known:
            teacher, history = self._teacher(task, views, said, body, encoder, dim, callback, steps)
            body, encoder = copy.deepcopy(teacher.body), copy.deepcopy(teacher.encoder)
            head = copy.deepcopy(teacher.head)
        with seeded(task.seed):
            joint = JointHeads(head, dim, len(task.node) - known, self.heads, self.projection)
        network = ClassNetwork(joint, body, encoder).to(task.features.device)
        spent = torch.zeros(self.heads, device=task.features.device)

        def loss(rows: Tensor, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
            seen = views(rows, moment.generator)
            logits = [joint.all(network.embed(view)) for view in seen]  # (H, B, K) each
            told = said.class_told[rows.to(said.class_told.device)]
            table = said.table(rows).clamp(min=NEVER)
            first, second = (targets(one.detach(), told, table, known if self.only_new else 0) for one in logits)
            swapped = -(first * logits[1].log_softmax(dim=2) + second * logits[0].log_softmax(dim=2)).sum(dim=2) / 2
            spent.add_(swapped.detach().mean(dim=1))
            facts = {"swapped": swapped.mean()}
            facts["pairs"] = said.pair_loss(network, len(rows), moment.generator)
            value = facts["swapped"] + facts["pairs"]
            if teacher is not None and self.relation and not bool(told.all()):
                relations = []
                for view, one in zip(seen, logits, strict=True):
                    with torch.no_grad():
                        before = teacher.logits(view)[~told]
                    for head_logits in one:
                        free = head_logits[~told]
                        relations.append(relation_loss(before, free, self.relation_temperature, self.weight_gradient))
                facts["relation"] = torch.stack(relations).mean()
                value = value + self.relation * facts["relation"]
            return value, facts

        def told_step(done: int, total: int, fact: dict[str, Any]) -> None:
            if callback is not None:
                callback(done + steps - self.epochs, steps, fact)

        pace = Pace(self.epochs, self.batch_size, self.rate)
        history = history + train(network, loss, task.n_rows, pace, seed=task.seed + 1, callback=told_step)
        best = int(spent.argmin())
        joint.choose(best)
        why = f"head {best + 1} of {self.heads} had the smallest loss"
        return Found(task.node, network, why=why, history=history, facts={"teacher": teacher})

    def _body(self, task: Task) -> tuple[nn.Module | None, TrainableEncoder | None, int]:
        if task.encoder is not None:
            return None, copy.deepcopy(task.encoder), task.encoder.feature_dim
        dim = task.features.shape[1]
        return Residual(dim, self.hidden, seed=task.seed), None, dim

    def _teacher(
        self,
        task: Task,
        views: Views,
        said: Said,
        body: nn.Module | None,
        encoder: TrainableEncoder | None,
        dim: int,
        callback: Callback | None,
        steps: int,
    ) -> tuple[ClassNetwork, list[dict[str, Any]]]:
        """A network of known classes alone, and the history of its training on rows of which one is told."""
        with seeded(task.seed):
            head = CosineHead(torch.randn(task.n_known, dim), TEMPERATURE)
        teacher = ClassNetwork(head, body, encoder).to(task.features.device)
        told = said.class_told.cpu().nonzero().flatten()
        known = said.known
        assert known is not None

        def loss(rows: Tensor, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
            rows = told[rows]
            seen = [teacher(view) for view in views(rows, moment.generator)]
            values = [-torch.logsumexp(one + known[rows.to(known.device)], dim=1).mean() for one in seen]
            return torch.stack(values).mean(), {}

        def told_step(done: int, total: int, fact: dict[str, Any]) -> None:
            if callback is not None:
                callback(done, steps, fact)

        pace = Pace(self.teacher_epochs, self.batch_size, self.rate)
        return teacher, train(teacher, loss, len(told), pace, seed=task.seed, callback=told_step)


class JointHeads(nn.Module):
    """Logits of known classes, and of new ones by several heads; at use, of the head that was chosen.

    Args:
        known: logits (B, G) of embedded rows; None where no class is known.
        dim: of embedded rows.
        n_new: new classes.
        heads: how many.
        projection: widths of the layers of a head before its directions.
        temperature: of cosines.
    """

    choice: Tensor

    def __init__(
        self,
        known: nn.Module | None,
        dim: int,
        n_new: int,
        heads: int,
        projection: tuple[int, ...],
        temperature: float = TEMPERATURE,
    ) -> None:
        super().__init__()
        self.known = known
        self.new = nn.ModuleList(_new_head([dim, *projection], n_new, temperature) for _ in range(heads))
        self.register_buffer("choice", torch.zeros((), dtype=torch.long))

    def choose(self, head: int) -> None:
        """Which head is read from now on."""
        self.choice.fill_(head)

    def all(self, embedded: Tensor) -> Tensor:
        """Logits (H, B, K) by all heads."""
        new = torch.stack([head(embedded) for head in self.new])
        if self.known is None:
            return new
        return torch.cat([self.known(embedded).expand(len(new), -1, -1), new], dim=2)

    def forward(self, embedded: Tensor) -> Tensor:
        return self.all(embedded)[int(self.choice)]


def _new_head(widths: list[int], n_new: int, temperature: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.LayerNorm(narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1], CosineHead(torch.randn(n_new, widths[-1]), temperature))


def targets(logits: Tensor, told: Tensor, table: Tensor, first: int) -> Tensor:
    r"""Target distributions (H, B, K) of rows for the other view.

    Of told rows what is said of them given the logits, of the others a balanced assignment: Sinkhorn's scaling of
    :math:`e^{l \tau / .05}`, l the logits and tau their temperature, over the classes from `first` on.

    Args:
        logits: (H, B, K), without gradient.
        told: (B,), of which rows a class is told.
        table: (B, K) what is said of rows, finite.
    """
    found = (logits + table).softmax(dim=2)
    free = ~told
    if bool(free.any()):
        sharp = logits[:, free] * (TEMPERATURE / TARGET_TEMPERATURE) + table[free]
        balanced = torch.zeros_like(sharp)
        for head, one in enumerate(sharp):  # heads, not rows
            balanced[head, :, first:] = sinkhorn(one[:, first:], SINKHORN_STEPS).exp()
        found[:, free] = balanced
    return found


def relation_weight(joint: Tensor, n_known: int, temperature: float) -> Tensor:
    """How near rows (B,) are to known classes, from joint logits (B, K); of mean 1."""
    weight = (joint / temperature).softmax(dim=1)[:, :n_known].sum(dim=1)
    return weight / weight.mean()


def relation_loss(teacher: Tensor, joint: Tensor, temperature: float, weight_gradient: bool = True) -> Tensor:
    r"""Distance of what is said of known classes from what a teacher said, a scalar.

    .. math:: T^2\, \frac1B \sum_i w_i \sum_{k \le G} -r_{ik} \log s_{ik}

    Args:
        teacher: (B, G) logits, cosines over tau.
        joint: (B, K) logits of known and new classes.
        weight_gradient: whether w has a gradient.
    """
    known = teacher.shape[1]
    weight = relation_weight(joint if weight_gradient else joint.detach(), known, temperature)
    relation = (teacher / temperature).softmax(dim=1)
    now = (joint[:, :known] / temperature).log_softmax(dim=1)
    return temperature**2 * (weight * -(relation * now).sum(dim=1)).mean()
