"""A classifier of coarse classes whose outputs have duplicates, which become the finer classes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.network import ClassNetwork, Moment, Pace, Said, Views, train
from anygrain.discover.perceptron import body_of
from anygrain.discover.start import Start, found_by, given_said, on_features
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Arrays, seeded

EPS = 1e-8
HELD = 0.5  # share of the training over which the start holds


class ACOL(Discoverer):
    r"""Auto-clustering output layer with graph-based activity regularisation.

    A network with one output per fine class is trained on what is said of coarse ones alone: a coarse class has the sum
    of the probabilities of its fine ones. A regulariser of the active outputs :math:`B = \max(0, Z)` of a batch lets
    each row activate one output, and all outputs be used alike:

    .. math:: L = -\log \sum_k q_k P(o \mid k) + c_\alpha \alpha + c_\beta (1 - \beta) + c_F |Z|_F^2,

    see `affinity_and_balance`. It takes coarse labels; told fine classes enter the first term too.

    A clustering may hold the outputs at the start, by its cross-entropy with a weight that falls from 1 to 0 over the
    first half of the training; alone, from a random start, what is found depends on luck.

    Args:
        start: a method by name, or one, which holds the outputs at first; None for the published form.
        per_parent: whether rows of a coarse class are regularised by themselves, over its own outputs alone; needed
            where coarse classes differ in size. False is the published form, over all outputs.
        affinity: c alpha; `balance`: c beta; `size`: c F.
        dropout: share of outputs that are dropped in training, so that siblings back each other up.
        hidden: width of the two layers for fixed features.
        epochs: times that every row is seen.
        rate: learning rate.
        batch_size: rows at once; several per fine class, five or more.

    Source: Kilinc and Uysal, Auto-clustering Output Layer, 2017; Learning Latent Representations in Neural Networks
    for Clustering through Pseudo Supervision and Graph-based Activity Regularization, 2018.
    """

    trains_encoder = True

    def __init__(
        self,
        *,
        start: Start | None = "mixture",
        per_parent: bool = True,
        affinity: float = 3.0,
        balance: float = 3.0,
        size: float = 1e-6,
        dropout: float = 0.0,
        hidden: int = 256,
        epochs: int = 30,
        rate: float = 3e-3,
        batch_size: int = 256,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.start = start
        self.per_parent, self.affinity, self.balance, self.size = per_parent, affinity, balance, size
        self.dropout, self.hidden, self.epochs, self.rate, self.batch_size = dropout, hidden, epochs, rate, batch_size

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        node = task.node
        network = self._network(task, len(node))
        views, said = Views(task), Said(task, node)
        above = node.to(task.features.device)
        where = task.evidence.sure_node().to(above.device)
        start: Tensor | None = None
        if self.start is not None:
            fixed = on_features(task)
            start = given_said(found_by(self.start, fixed), fixed).to(above.device)

        def loss(rows: Tensor, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
            facts = dict.fromkeys(("coarse", "affinity", "balance", "start"), torch.zeros((), device=above.device))
            squares = []
            held = max(0.0, 1 - moment.share / HELD)
            for view in views(rows, moment.generator):
                z = network.logits(view)
                log_q = z.log_softmax(dim=1)
                told = said.loss(log_q, rows)
                near = z.sum() * 0 if start is None else -(start[rows.to(start.device)] * log_q).sum(dim=1).mean()
                inside = where[rows.to(where.device)] if self.per_parent else None
                alpha, beta = affinity_and_balance(z, above if self.per_parent else above * 0, inside)
                squares.append(z.square().sum())
                for name, value in zip(facts, (told, alpha, 1 - beta, held * near), strict=True):
                    facts[name] = facts[name] + value / 2
            facts["coarse"] = facts["coarse"] + said.pair_loss(network, len(rows), moment.generator)
            u = self.affinity * facts["affinity"] + self.balance * facts["balance"] + self.size * sum(squares) / 2
            return facts["coarse"] + facts["start"] + u, facts

        pace = Pace(self.epochs, self.batch_size, self.rate)
        history = train(network, loss, task.n_rows, pace, seed=task.seed, callback=callback)
        return Found(node, network, why="duplicate outputs of a classifier of coarse classes", history=history)

    def _network(self, task: Task, n_classes: int) -> ClassNetwork:
        with seeded(task.seed):
            if task.encoder is None:
                body: nn.Module | None = nn.Sequential(body_of(task.features, [self.hidden] * 2, task.seed), nn.ReLU())
                dim, encoder = self.hidden, None
            else:
                body, dim, encoder = None, task.encoder.feature_dim, copy.deepcopy(task.encoder)
            head = nn.Sequential(nn.Linear(dim, n_classes), nn.Dropout(self.dropout))
        return Duplicates(head, body, encoder).to(task.features.device)


class Duplicates(ClassNetwork):
    """A network whose hidden layer is not brought to length one: outputs must be free to be large, or 0."""

    def embed(self, arrays: Arrays) -> Tensor:
        embedded: Tensor = self.body(self.features(arrays))
        return embedded


def affinity_and_balance(z: Tensor, node: Tensor, where: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Affinity alpha and balance beta of outputs Z (B, n), scalars, averaged over coarse classes with siblings.

    With :math:`B = \max(0, Z)`, :math:`N = B^T B`, :math:`v = \mathrm{diag} N` and :math:`V = v v^T` over the n outputs
    of one coarse class,

    .. math:: \alpha = \frac{\sum_{i \ne j} N_{ij}}{(n - 1) \sum_i N_{ii} + \epsilon}, \qquad
              \beta = \frac{\sum_{i \ne j} V_{ij}}{(n - 1) \sum_i V_{ii} + \epsilon}.

    Alpha is 0 where every row has one active output, beta 1 where all outputs are used alike.

    Args:
        node: (n,) coarse class of every output; all the same for the form over all outputs.
        where: (B,) coarse class of every row, -1 for not known: outputs of other ones do not count; None: all count.
    """
    active = z.clamp(min=0)
    parents = torch.nn.functional.one_hot(node).to(z)  # (n, C)
    if where is not None:
        active = active * ((where[:, None] == node) | (where < 0)[:, None])
    products = active.T @ active * (parents @ parents.T)
    v = products.diagonal()
    v_sum, square = v @ parents, v.square() @ parents
    total = (products.sum(dim=1) @ parents) - v_sum
    others = parents.sum(dim=0) - 1
    counted = others > 0
    if not bool(counted.any()):
        return z.sum() * 0, z.sum() * 0 + 1
    alpha = total / (others * v_sum + EPS)
    beta = (v_sum.square() - square) / (others * square + EPS)
    return alpha[counted].mean(), beta[counted].mean()
