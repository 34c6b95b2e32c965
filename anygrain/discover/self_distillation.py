"""A cosine head that learns from its own answers about rows that are alike."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.network import (
    ClassNetwork,
    CosineHead,
    Moment,
    Pace,
    Residual,
    Said,
    Views,
    teach,
    train,
)
from anygrain.discover.start import Start, class_sums, found_by, given_said, on_features
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import in_batches

AT_ONCE = 8192
EPOCHS = 10
EPOCH_BATCHES = 10  # that rows are divided in at least, where these have SMALL_BATCH rows
SMALL_BATCH = 64
TAUGHT = 3  # epochs in which the head learns the start first, at most
MOST_BATCHES = 200  # of an epoch
MOST_OFFSET = 2.0  # by which the logits of new classes are raised
MEMORY = 0.9  # weight of the batches before in the mean answer
FEW_CLASSES = 3  # known or coarse ones: of fewer nobody can say how unlike in size classes are
UNKNOWN = 0.25  # weight of the masses of the start there

History = list[dict[str, Any]]


class SelfDistillation(Discoverer):
    r"""A residual layer and a cosine head, which start where another method ended and learn from pairs of views.

    .. math::
        z = \frac{x + W_2\, \mathrm{relu}(W_1 x)}{|\cdot|}, \quad p(k \mid x) \propto e^{\langle z, w_k \rangle / .1},
        \quad t(k \mid x) \propto e^{\langle z, w_k \rangle / .07} P(o \mid k),

    .. math:: (1 - \alpha)\, \tfrac12 \big[H(t(x), p(x')) + H(t(x'), p(x))\big]
              + \beta \sum_k \bar p_k \log \frac{m_k}{\pi_k} - \alpha \log \textstyle\sum_k p(k \mid x) P(o \mid k)

    with x' a second view of row x (of fixed features its mix with one of ten neighbours), :math:`\bar p` the mean
    answer of a batch, m its running mean, at first pi, then :math:`m \leftarrow .9\, m + .1\, \bar p`, pi the class
    masses (see `class_mass`), and the last term over rows of which something is said. Targets, which obey what is said
    of their row, and m have no gradient. Where m is :math:`\bar p` the second term has the gradient of
    :math:`KL(\bar p \| \pi)`; but 512 rows hold three of each of 150 classes, and to bring every batch to the masses
    would move rows out of classes of which it happens to hold five. W2 is 0 at the start, and w the mean directions of
    the classes that `start` found. Where classes are known both views then learn what it says of their
    rows, for three epochs: directions alone would forget what a start knows of the spread of its classes. Below coarse
    classes, where a start has less to go by, they do better. An encoder that can be trained is trained too, on its own
    changes of rows; one without pretrained weights learns what the start says for as many epochs as there are.

    Args:
        start: a method by name, or one; what it finds is where the classes are at first.
        epochs: times that every row is seen; of many rows, some of them, see `batch_size`.
        hidden: width of the residual layer.
        supervised: alpha.
        balance: beta.
        temperature: of the answers; `target_temperature`: of the targets, lower, so that they are surer.
        rate: highest learning rate of layer and head.
        batch_size: rows at once; a tenth of the rows where these are fewer. An epoch has 200 batches at most.

    Source: Wen, Zhao, Qi, Parametric Classification for Generalized Category Discovery, 2023.
    """

    trains_encoder = True

    def __init__(
        self,
        *,
        start: Start = "consensus",
        epochs: int = EPOCHS,
        hidden: int = 256,
        supervised: float = 0.35,
        balance: float = 1.5,
        temperature: float = 0.1,
        target_temperature: float = 0.07,
        rate: float = 4e-3,
        batch_size: int = 512,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.start, self.epochs, self.hidden, self.supervised, self.balance = start, epochs, hidden, supervised, balance
        self.temperature, self.target_temperature = temperature, target_temperature
        self.rate, self.batch_size = rate, batch_size

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        fixed = on_features(task)
        begun = found_by(self.start, fixed, callback)
        network, history = self.distilled(task, given_said(begun, fixed), callback)
        return Found(task.node, network, why=f"a cosine head from {begun.why}", history=history, facts=begun.facts)

    def distilled(self, task: Task, start: Tensor, callback: Callback | None = None) -> tuple[ClassNetwork, History]:
        """The network that starts from probabilities (N, K) of the rows' classes, trained, and its history."""
        network = self.network(task, start)
        views, said = Views(task), Said(task, task.node)
        mass = class_mass(task, start)
        log_mass = mass.log().to(task.features.device)
        sharper = self.temperature / self.target_temperature
        running = log_mass.exp()

        def loss(rows: Tensor, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
            logits = [network.logits(view) for view in views(rows, moment.generator)]
            log_probs = [one.log_softmax(dim=1) for one in logits]
            table = said.table(rows)
            targets = [(one.detach() * sharper + table).softmax(dim=1) for one in logits]
            first, second = (-(t * p).sum(dim=1).mean() for t, p in zip(targets, reversed(log_probs), strict=True))
            mean = torch.cat(log_probs).exp().mean(dim=0)
            running.lerp_(mean.detach(), 1 - MEMORY)
            facts = {
                "distillation": (first + second) / 2,
                "balance": (mean * (running.clamp(min=1e-12).log() - log_mass)).sum(),
                "told": (said.loss(log_probs[0], rows) + said.loss(log_probs[1], rows)) / 2
                + said.pair_loss(network, len(rows), moment.generator),
            }
            a = self.supervised
            value = (1 - a) * facts["distillation"] + self.balance * facts["balance"] + a * facts["told"]
            return value, facts

        size = min(self.batch_size, max(SMALL_BATCH, task.n_rows // EPOCH_BATCHES))
        pace = Pace(self.epochs, size, self.rate, most_batches=MOST_BATCHES)
        if task.encoder is not None and not task.encoder.has_pretrained:
            teach(network, views, start, pace, seed=task.seed)
        elif task.n_known:
            teach(network, views, start, replace(pace, epochs=min(TAUGHT, self.epochs)), seed=task.seed)
        history = train(network, loss, task.n_rows, pace, seed=task.seed, callback=callback)
        if history:  # something was learnt
            assert isinstance(network.head, CosineHead)
            network.head.offset[task.n_known :] = new_class_offset(network, task, float(mass[task.n_known :].sum()))
        return network, history

    def network(self, task: Task, start: Tensor) -> ClassNetwork:
        """The network before it is trained: the residual layer changes nothing, directions are those of the classes."""
        dim = task.features.shape[1] if task.encoder is None else task.encoder.feature_dim
        head = CosineHead(torch.zeros(start.shape[1], dim), self.temperature)
        network = ClassNetwork(head, Residual(dim, self.hidden, seed=task.seed), copy.deepcopy(task.encoder))
        network = network.to(task.features.device)
        embedded = in_batches(network.embed, task.rows, AT_ONCE, network)
        with torch.no_grad():
            head.direction.copy_(normalize(class_sums(embedded, start), dim=1))
        return network


def new_class_offset(network: ClassNetwork, task: Task, mass: float) -> float:
    r"""What to add to the logits of new classes, b between 0 and 2, so that they hold a share of all rows.

    .. math:: \frac{1}{|U|} \sum_{i \in U} \sigma\Big(b + \log \frac{p(\text{new} \mid x_i)}{p(\text{known} \mid x_i)}
              \Big) = \frac{\text{mass} \cdot N}{|U|}

    with U the rows that are not told to be of a known class. 0 where no class is new or none is told.

    Args:
        mass: the share.
    """
    known, free = task.n_known, (task.evidence.sure_known() < 0).nonzero().flatten()
    if known in (0, len(task.node)) or not 0 < len(free) < task.n_rows:
        return 0.0
    log_probs = in_batches(network, task.rows, AT_ONCE, network, on=free).double()
    odds = log_probs[:, known:].logsumexp(dim=1) - log_probs[:, :known].logsumexp(dim=1)
    low, high, wanted = 0.0, MOST_OFFSET, mass * task.n_rows / len(free)
    for _ in range(40):  # halving the interval: the share grows with b
        middle = (low + high) / 2
        low, high = (middle, high) if float((odds + middle).sigmoid().mean()) < wanted else (low, middle)
    return (low + high) / 2


def class_mass(task: Task, start: Tensor) -> Tensor:
    r"""How much of the rows every class is taken to hold, (K,): the masses of the start, shrunk towards equal ones.

    .. math:: \pi_k = w\, m_k + (1 - w) \frac{M_c}{K_c}, \qquad w = \min(1, v / v_{start})

    with m the shares of the start, M_c their sum over the K_c classes of the same coarse class, v the variance of class
    sizes relative to their mean, and v_start that of the start. Clusters differ in size for two reasons: classes do,
    and rows are in the wrong one. Most errors of a start go from new classes to known ones, and equal masses bring
    those rows back. How unlike classes are, told rows show, or the rows of coarse classes (see `size_variance`); where
    neither does, w is a quarter.

    Args:
        start: (N, K) probabilities of the rows' classes.
    """
    mass = (start.double().sum(dim=0) + 1) / (len(start) + start.shape[1])
    node = task.node
    per_node = torch.bincount(node).double()
    equal = (torch.zeros_like(per_node).index_add(0, node, mass) / per_node)[node]
    found = (mass.var() / mass.mean().square()).clamp(min=1e-12)
    v = size_variance(task)
    weight = UNKNOWN if v is None else float((v / found).clamp(max=1))
    return (weight * mass + (1 - weight) * equal).float()


def size_variance(task: Task) -> Tensor | None:
    r"""Variance of the sizes of classes relative to their mean, plus its standard error, as far as labels show it.

    Of told rows, where three known classes or more have some: the variance of their numbers, less what chance gives.
    Else of the rows n_c of coarse classes, where these are three or more,

    .. math:: v = \frac{1}{C - 1} \sum_c K_c \Big(\frac{n_c / K_c}{n / K} - 1\Big)^2 .

    Returns:
        None where nobody can say, also where told rows are equally many in all classes: somebody chose so.
    """
    told = task.evidence.sure_known()
    count = torch.bincount(told[told >= 0], minlength=max(task.n_known, 1)).double()
    count = count[count > 0]
    if len(count) >= FEW_CLASSES:
        if len(count.unique()) == 1:
            return None
        mean = count.mean()
        spread = count.var() / mean.square()
        shown: Tensor = (spread - 1 / mean).clamp(min=0) + spread * (2 / len(count)) ** 0.5
        return shown
    where, inside = task.evidence.sure_node(), torch.bincount(task.node).double()
    held = torch.bincount(where[where >= 0], minlength=len(inside)).double()
    if len(inside) < FEW_CLASSES or float(held.sum()) == 0:
        return None
    differ = held / inside / (held.sum() / inside.sum()) - 1
    v: Tensor = (inside * differ.square()).sum() / (len(inside) - 1)
    v = v * (1 + (2 / (len(inside) - 1)) ** 0.5)
    return v
