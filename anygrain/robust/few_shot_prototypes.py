"""FoPro: a few trusted rows per class clean and relabel many noisy ones, through prototypes."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from anygrain.encoders.trainable import seeded
from anygrain.labels import LabelError, Labels
from anygrain.learn.head import Head
from anygrain.learn.loss import Loss, cross_entropy
from anygrain.learn.procedure import Procedure
from anygrain.robust.fresh import fresh_head, takes_only
from anygrain.robust.sub_pseudo_labels import clean_and_weak

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

DROP, KEEP, RELABEL, TRUSTED = 0, 1, 2, 3
NAMES = ("drop", "keep", "relabel", "trusted")
FIRST_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Decisions:
    """What became of the noisy labels, one entry per instance.

    Attributes:
        given: (N,) class that was given, -1 where none was.
        label: (N,) class that was learnt; -1 of dropped rows.
        decision: (N,) 0 drop, 1 keep, 2 relabel, 3 trusted; rows without a label are dropped.
        score: (N,) belief in the label that was given.
        highest: (N,) belief in the likeliest class.
    """

    given: Tensor
    label: Tensor
    decision: Tensor
    score: Tensor
    highest: Tensor

    def table(self) -> list[dict[str, Any]]:
        """One dict per instance: row, given, label, decision in words, score, highest."""
        columns = (self.given, self.label, self.decision, self.score, self.highest)
        return [
            {"row": i, "given": g, "label": y, "decision": NAMES[d], "score": s, "highest": h}
            for i, (g, y, d, s, h) in enumerate(zip(*(c.tolist() for c in columns), strict=True))
        ]


def clean(belief: Tensor, given: Tensor, trusted: Tensor, sure: float, *, also: Tensor | None = None) -> Decisions:
    r"""Keep, relabel or drop by beliefs u (N, K) in the classes of rows.

    A class with :math:`\max u > \gamma` becomes the label; else the given label is kept where :math:`u_y > 1 / K`; the
    rest is dropped. Trusted rows stay as they are.

    Args:
        given: (N,), -1 for none.
        trusted: bool (N,).
        sure: :math:`\gamma`.
        also: bool (N,), rows whose given label is kept in any case, unless it is replaced.
    """
    n, k = belief.shape
    highest, best = belief.max(dim=1)
    score = belief[torch.arange(n, device=belief.device), given.clamp(min=0)].masked_fill(given < 0, 0.0)
    fits = (score > 1 / k) if also is None else (score > 1 / k) | also
    decision = torch.where(fits & (given >= 0), KEEP, DROP)
    replaced = (highest > sure) & (best != given) & (given >= 0)
    decision = torch.where(replaced, RELABEL, torch.where((highest > sure) & (best == given), KEEP, decision))
    decision = torch.where(trusted, TRUSTED, decision)
    label = torch.where(decision == RELABEL, best, given)
    label = torch.where(decision == DROP, -1, label)
    return Decisions(given, label, decision, score, highest)


def updated(prototypes: Tensor, unit: Tensor, label: Tensor, momentum: float) -> Tensor:
    r"""Prototypes (K, D) moved to the mean of the rows (B, D) of their class, of unit length.

    .. math:: c_k \leftarrow \mathrm{unit}\big(m\, c_k + (1 - m)\, \bar z_k\big)

    The mean of the batch, not row by row: the order of rows does not matter. Classes without rows stay.
    """
    k = len(prototypes)
    count = torch.bincount(label, minlength=k)[:, None].to(unit)
    mean = torch.zeros_like(prototypes).index_add(0, label, unit) / count.clamp(min=1)
    moved = nn.functional.normalize(momentum * prototypes + (1 - momentum) * mean, dim=1)
    return torch.where(count > 0, moved, prototypes)


def densities(unit: Tensor, label: Tensor, prototypes: Tensor, before: Tensor) -> Tensor:
    r"""Temperatures (K,) :math:`\phi_k = \sum_i |z_i - c_k| / (N_k \log(N_k + 10))`; without rows as before."""
    k = len(prototypes)
    count = torch.bincount(label, minlength=k).to(unit)
    distance = unit.new_zeros(k).index_add(0, label, (unit - prototypes[label]).norm(dim=1))
    found = distance / (count.clamp(min=1) * (count + 10).log())
    return torch.where((count > 0) & (found > 0), found, before)


def prototype_distance(unit: Tensor, label: Tensor, prototypes: Tensor) -> Tensor:
    r"""How unlike its class a row is, (B,): :math:`\frac12 |z c_y - 1| + \frac12 \sum_{k \ne y} |z c_k - c_y c_k|`.

    It sums K terms, so a threshold of it depends on the number of classes.
    """
    gap = (unit @ prototypes.T - prototypes[label] @ prototypes.T).abs()
    return 0.5 * gap.sum(dim=1)


class Projector(nn.Module):
    """Features (B, D) to unit vectors (B, 128), and back."""

    def __init__(self, feature_dim: int, inner: int = 256, width: int = 128) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(feature_dim, inner), nn.Linear(inner, width)
        self.back = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, feature_dim))

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.normalize(self.outer(self.inner(features).relu()), dim=1)


class Relation(nn.Module):
    """How well rows (B, D) fit prototypes (K, D): scores (B, K), by a network on both side by side."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2 * width, 128), nn.Linear(128, 1)

    def forward(self, unit: Tensor, prototypes: Tensor) -> Tensor:
        b, k = len(unit), len(prototypes)
        pairs = torch.cat([unit[:, None].expand(b, k, -1), prototypes[None].expand(b, k, -1)], dim=2)
        found: Tensor = self.outer(self.inner(pairs).relu())[..., 0]
        return found


class FewShotPrototypes(Procedure):
    r"""Few rows with `Exact` labels are trusted; the others' labels, of any kind, are kept, replaced or dropped.

    1. The head learns all labels; a projection of the features learns to tell them apart by prototypes, which start at
       the trusted rows of each class and follow the rows that are kept.
    2. From `clean_from` on, beliefs :math:`u = \alpha\, p_{head} + (1 - \alpha)\, p_{prototypes}` decide once an epoch
       about every noisy row (`clean`). The head learns :math:`u_y CE(y) + (1 - u_y) CE(u)`.
    3. A relation network learns to score pairs of row and prototype on the rows that are like their class
       (`prototype_distance`); then half as many epochs follow in which rows with a high score are kept as well.

    Features are fixed, so neither a momentum encoder nor a contrast of augmented views is part of it. Composes with
    every head and loss; not with terms or a weighting. Weights are not decayed.

    Args:
        alpha: of the head's part in beliefs; 1 cleans by the head alone.
        sure: :math:`\gamma`, belief from which on a class replaces the label.
        prototype_momentum, momentum: of prototypes, by batch, and of the projection that they are made of.
        margin: subtracted from the cosine of a trusted row with its own class, in the loss alone.
        density: whether each class's temperature follows how dense it is, else .1.
        relation: whether step 3 is taken.
        clean_from: first epoch of cleaning, as a share of all.
        distance: threshold of `prototype_distance`, per class.
        epochs, batch_size, learning_rate: used where the learner has none of its own.

    Attributes:
        decisions_: see `Decisions`.
        prototypes_: (K, 128).

    Source: FoPro: Few-Shot Guided Robust Webly-Supervised Prototypical Learning, 2023.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        sure: float = 0.6,
        prototype_momentum: float = 0.99,
        momentum: float = 0.99,
        margin: float = 0.5,
        density: bool = False,
        relation: bool = True,
        clean_from: float = 0.25,
        distance: float = 0.2,
        epochs: int = 40,
        batch_size: int = 128,
        learning_rate: float = 0.002,
    ) -> None:
        if not 0 <= alpha <= 1 or not 0 < sure <= 1 or not 0 <= clean_from <= 1:
            raise LabelError(
                f"alpha is {alpha}, sure {sure} and clean_from {clean_from}; expected shares of 0 to 1, sure above 0"
            )
        if not 0 <= prototype_momentum <= 1 or not 0 <= momentum <= 1:
            raise LabelError(f"momenta are {prototype_momentum} and {momentum}; expected numbers from 0 to 1")
        self.alpha, self.sure, self.margin, self.density, self.relation = alpha, sure, margin, density, relation
        self.prototype_momentum, self.momentum = prototype_momentum, momentum
        self.clean_from, self.distance = clean_from, distance
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        takes_only(self, learner, "loss")
        loss = cross_entropy if learner.loss is None else learner.loss
        epochs = self.epochs if learner.epochs is None else learner.epochs
        seed, k = int(learner.seed), labels.n_classes
        exact, weak = clean_and_weak(labels, features.dtype)
        trusted = exact >= 0
        missing = [c for c in range(k) if not bool((exact == c).any())]
        if missing:
            raise LabelError(f"class {missing[0]} has no trusted row; expected an Exact label or more for every class")
        given = torch.where(trusted, exact, weak)
        head = fresh_head(learner, features.shape[1], k, seed=seed, like=features)
        generator = torch.Generator().manual_seed(seed)
        history: list[dict[str, Any]] = []
        with seeded(seed):
            state = _State(self, learner, head, features, given, trusted, loss, generator)
            state.weight = labels.instance_weight().to(features)
            first = math.ceil(self.clean_from * epochs)
            for epoch in range(epochs):
                if epoch >= first:
                    state.decide()
                history.append(state.epoch(f"epoch {epoch + 1}", 1 - epoch / epochs, counted=epoch + 1))
            if self.relation:
                state.decide()
                state.learn_relation(max(epochs // 2, 1))
                for epoch in range(epochs // 2):
                    state.decide()
                    history.append(
                        state.epoch(f"fused {epoch + 1}", 0.5 * (1 - 2 * epoch / epochs), counted=epochs + epoch + 1)
                    )
            state.decide()
        self.decisions_ = Decisions(*(value.cpu() for value in vars(state.decisions).values()))
        self.prototypes_ = state.prototypes.cpu()
        learner.head_, learner.history_ = head.eval(), history


class _State:
    """Networks, prototypes and decisions as they stand."""

    def __init__(
        self,
        how: FewShotPrototypes,
        learner: Learner,
        head: Head,
        features: Tensor,
        given: Tensor,
        trusted: Tensor,
        loss: Loss,
        generator: torch.Generator,
    ) -> None:
        self.how, self.head, self.features, self.given, self.trusted = how, head, features, given, trusted
        self.loss, self.generator, self.k = loss, generator, head.n_classes
        #: of the instances, (N,)
        self.weight = features.new_ones(len(features))
        self.size = how.batch_size if learner.batch_size is None else learner.batch_size
        self.rate = how.learning_rate if learner.learning_rate is None else learner.learning_rate
        self.projector = Projector(features.shape[1]).to(features)
        self.slow = copy.deepcopy(self.projector).requires_grad_(False)
        self.stepper = torch.optim.Adam([*head.parameters(), *self.projector.parameters()], lr=self.rate)
        known = trusted.nonzero()[:, 0]
        with torch.no_grad():
            unit = self.slow(features[known])
        self.prototypes = updated(features.new_zeros(self.k, unit.shape[1]), unit, given[known], 0.0)
        self.temperature = features.new_full((self.k,), FIRST_TEMPERATURE)
        self.relation: Relation | None = None
        one_hot = torch.nn.functional.one_hot(given.clamp(min=0), self.k).to(features)
        self.belief = one_hot
        said = given >= 0
        decision = torch.where(trusted, TRUSTED, torch.where(said, KEEP, DROP))
        self.decisions = Decisions(given, given, decision, said.to(features), said.to(features))

    def decide(self) -> None:
        """Beliefs and decisions about all rows."""
        with torch.no_grad():
            unit = self.projector(self.features)
            by_head = self.head.eval()(self.features).exp()
            by_prototype = (unit @ self.prototypes.T / self.temperature).softmax(dim=1)
            belief = self.how.alpha * by_head + (1 - self.how.alpha) * by_prototype
            one_hot = torch.nn.functional.one_hot(self.given.clamp(min=0), self.k).to(belief)
            self.belief = torch.where(self.trusted[:, None], one_hot, belief)
            also = None
            if self.relation is not None:
                score = self.relation(unit, self.prototypes).sigmoid()
                at = torch.arange(len(score), device=score.device)
                also = score[at, self.given.clamp(min=0)] > self.how.sure
            self.decisions = clean(self.belief, self.given, self.trusted, self.how.sure, also=also)
            if self.how.density:
                rows = (self.decisions.label >= 0).nonzero()[:, 0]
                self.temperature = densities(unit[rows], self.decisions.label[rows], self.prototypes, self.temperature)

    def epoch(self, name: str, pace: float, *, counted: int) -> dict[str, Any]:
        """A pass over the rows that have a label; facts about it."""
        how = self.how
        self.head.train()
        for group in self.stepper.param_groups:
            group["lr"] = self.rate * max(pace, 0.02)
        label, trusted = self.decisions.label, self.trusted
        rows = (label >= 0).nonzero()[:, 0]
        total = 0.0
        for batch in rows[torch.randperm(len(rows), generator=self.generator).to(rows.device)].split(self.size):
            x, y, u = self.features[batch], label[batch], self.belief[batch]
            unit = self.projector(x)
            one_hot = torch.nn.functional.one_hot(y, self.k).to(x)
            own = (u * one_hot).sum(dim=1, keepdim=True)
            cosine = unit @ self.prototypes.T - how.margin * one_hot * trusted[batch, None]
            each = self.loss(self.head(x), own * one_hot + (1 - own) * u)  # linear in the target
            each = each + torch.nn.functional.cross_entropy(cosine / self.temperature, y, reduction="none")
            value = self.weight[batch] @ each / self.weight[batch].sum().clamp(min=1e-12)
            value = value + (self.projector.back(unit) - x).square().mean()
            self.stepper.zero_grad()
            value.backward()
            self.stepper.step()
            with torch.no_grad():
                for slow, fast in zip(self.slow.parameters(), self.projector.parameters(), strict=True):
                    slow.lerp_(fast, 1 - how.momentum)
                self.prototypes = updated(self.prototypes, self.slow(x), y, how.prototype_momentum)
            total += float(value.detach()) * len(batch)
        counts = torch.bincount(self.decisions.decision, minlength=4).tolist()
        facts = dict(zip(NAMES, counts, strict=True))
        return {"step": name, "track": "prototypes", "round": counted, "objective": total / len(rows), **facts}

    def learn_relation(self, epochs: int) -> None:
        """Fit the relation network to the rows that are like their class."""
        with torch.no_grad():
            unit, label = self.projector(self.features), self.decisions.label
            near = prototype_distance(unit, label.clamp(min=0), self.prototypes) <= self.how.distance * self.k
        rows = ((label >= 0) & (near | self.trusted)).nonzero()[:, 0]
        relation = Relation().to(self.features)
        stepper = torch.optim.Adam(relation.parameters(), lr=self.rate)
        for _ in range(epochs):
            for batch in rows[torch.randperm(len(rows), generator=self.generator).to(rows.device)].split(self.size):
                value = torch.nn.functional.cross_entropy(relation(unit[batch], self.prototypes), label[batch])
                stepper.zero_grad()
                value.backward()
                stepper.step()
        self.relation = relation
