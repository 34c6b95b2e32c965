"""FoPro: a few trusted rows per class clean and relabel many noisy ones, through prototypes."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from anygrain.encoders.trainable import seeded
from anygrain.labels import LabelError, Labels
from anygrain.learn.head import Head
from anygrain.learn.procedure import Procedure
from anygrain.learn.recipe import exact_classes
from anygrain.robust.fresh import Course, fresh_head, takes_only
from anygrain.robust.settings import above
from anygrain.robust.sub_pseudo_labels import clean_and_weak
from anygrain.robust.subclass_balancing import Change, noisy

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


def foreign_rows(error: Tensor, agreed: Tensor, deviations: float) -> Tensor:
    r"""bool (N,): rows that are turned back much worse than those whose label is agreed on, R.

    .. math:: \log e_i > m + d\, s, \qquad m = \mathrm{median}_R \log e, \quad
              s = 1.4826\, \mathrm{median}_R |\log e - m|

    Medians bear it that labels of some foreign rows are agreed on too. Nothing is foreign where no row is agreed on.

    Args:
        error: e, (N,), squared distances.
        agreed: bool (N,).
        deviations: d.
    """
    size = error.clamp(min=1e-30).log()
    if not bool(agreed.any()):
        return torch.zeros_like(agreed)
    middle = size[agreed].median()
    spread = 1.4826 * (size[agreed] - middle).abs().median()
    return size > middle + deviations * spread


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

    1. The head learns all labels; a projection z of what it sees, its hidden layer or else the features, learns to tell
       them apart by prototypes, which start at the trusted rows of each class and follow the rows that are kept, and to
       be turned back into what it was made of. A slow copy of hidden layer and projection makes prototypes, and is what
       changed views of a row are contrasted with, among those of a queue of other rows.
    2. From `clean_from` on, beliefs :math:`u = \alpha\, p_{head} + (1 - \alpha)\, p_{prototypes}` decide once an epoch
       about every noisy row (`clean`). The head learns :math:`u_y CE(y) + (1 - u_y) CE(u)`. Rows that are like their
       class (`prototype_distance`; later all that are kept) and their changed views also teach a classifier of z.
    3. A relation network learns to score pairs of row and prototype on the same rows; then half as many epochs follow
       in which rows with a high score are kept as well.
    4. The head is fitted on to the labels that are left, rows mixed in pairs.

    A belief says which class is the likeliest, not that a row is of any class at all: noise, too, is believed to be of
    some class. What gives it away is that its projection cannot be turned back into it: see `foreign_rows`, which is
    ours.

    A head with a hidden layer (`head="mlp"`, or a `Head` of one's own with `hidden(features) -> (B, width)` and
    `width`) is trained end to end; the source starts at a pretrained network, which it freezes at first. Composes with
    every head and loss; not with terms or a weighting. Weights are not decayed.

    Args:
        alpha: of the head's part in beliefs; 1 cleans by the head alone.
        sure: :math:`\gamma`, belief from which on a class replaces the label.
        prototype_momentum, momentum: of prototypes, by batch, and of the slow copy.
        margin: subtracted from the cosine of a trusted row with its own class, in the loss alone.
        density: whether each class's temperature follows how dense it is, else .1.
        contrast: weight of the contrast of views; 0 for none.
        queue: how many rows of earlier batches a view is told from.
        change: (features, generator) to features of the same class; None adds noise of .3 of their size.
        relation: whether step 3 is taken.
        foreign: see `foreign_rows`, which are dropped from step 2 on; None drops none of them.
        mixup: of step 4, shares from Beta(a, a); 0 leaves it out.
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
        contrast: float = 1.0,
        queue: int = 2048,
        change: Change | None = None,
        relation: bool = True,
        foreign: float | None = 3.0,
        mixup: float = 0.2,
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
        for name, value in (("contrast", contrast), ("mixup", mixup)):
            above(value, name, open_bottom=False)
        if foreign is not None:
            above(foreign, "foreign")
        above(queue, "queue", 1, open_bottom=False)
        self.alpha, self.sure, self.margin, self.density, self.relation = alpha, sure, margin, density, relation
        self.prototype_momentum, self.momentum = prototype_momentum, momentum
        self.contrast, self.queue, self.change = contrast, queue, noisy(0.3) if change is None else change
        self.foreign, self.mixup = foreign, mixup
        self.clean_from, self.distance = clean_from, distance
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate

    def check(self, learner: Learner, labels: Labels) -> None:
        takes_only(self, learner, "loss")
        exact = exact_classes(labels)
        missing = (torch.bincount(exact[exact >= 0], minlength=labels.n_classes) == 0).nonzero()[:, 0].tolist()
        if missing:
            name = labels.class_names[missing[0]] if labels.class_names else missing[0]
            raise LabelError(f"class {name} has no trusted row; expected an Exact label or more for every class")

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        self.check(learner, labels)
        course = Course.of(self, learner)
        epochs = course.epochs
        seed, k = int(learner.seed), labels.n_classes
        exact, weak = clean_and_weak(labels, features.dtype)
        trusted = exact >= 0
        given = torch.where(trusted, exact, weak)
        generator = torch.Generator().manual_seed(seed)
        history: list[dict[str, Any]] = []
        with seeded(seed):
            head = fresh_head(learner, features.shape[1], k, seed=seed, like=features)
            state = _State(self, course, head, features, given, trusted, generator)
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
            if self.mixup:
                history.append(state.finish(max(epochs // 4, 1), counted=len(history) + 1))
        self.decisions_ = Decisions(*(value.cpu() for value in vars(state.decisions).values()))
        self.prototypes_ = state.prototypes.cpu()
        learner.head_, learner.history_ = head.eval(), history


class _State:
    """Networks, prototypes and decisions as they stand."""

    def __init__(
        self,
        how: FewShotPrototypes,
        course: Course,
        head: Head,
        features: Tensor,
        given: Tensor,
        trusted: Tensor,
        generator: torch.Generator,
    ) -> None:
        self.how, self.head, self.features, self.given, self.trusted = how, head, features, given, trusted
        self.course, self.generator, self.k, self.cleaned = course, generator, head.n_classes, False
        #: of the instances, (N,)
        self.weight = features.new_ones(len(features))
        self.deep = callable(getattr(head, "hidden", None))
        width = int(getattr(head, "width", 0)) if self.deep else features.shape[1]
        self.projector = Projector(width).to(features)
        self.by_projection = nn.Parameter(torch.randn(self.k, 128, generator=generator).to(features))
        self.slow_head = copy.deepcopy(head).requires_grad_(False).eval()
        self.slow = copy.deepcopy(self.projector).requires_grad_(False)
        self.queue = features.new_zeros(0, 128)
        trained = [*head.parameters(), *self.projector.parameters(), self.by_projection]
        self.stepper = torch.optim.Adam(trained, lr=course.learning_rate)
        known = trusted.nonzero()[:, 0]
        with torch.no_grad():
            unit = self.slow(self.seen(self.slow_head, features[known]))
        self.prototypes = updated(features.new_zeros(self.k, unit.shape[1]), unit, given[known], 0.0)
        self.temperature = features.new_full((self.k,), FIRST_TEMPERATURE)
        self.relation: Relation | None = None
        one_hot = torch.nn.functional.one_hot(given.clamp(min=0), self.k).to(features)
        self.belief = one_hot
        said = given >= 0
        decision = torch.where(trusted, TRUSTED, torch.where(said, KEEP, DROP))
        self.decisions = Decisions(given, given, decision, said.to(features), said.to(features))

    def seen(self, head: Head, features: Tensor) -> Tensor:
        """What projections are made of, (B, W): the hidden layer of a head, or the features (B, D)."""
        found: Tensor = head.hidden(features) if self.deep else features  # type: ignore[operator]
        return found

    def decide(self) -> None:
        """Beliefs and decisions about all rows."""
        self.cleaned = True
        with torch.no_grad():
            by_head = self.head.eval()(self.features).exp()
            inner = self.seen(self.head, self.features)
            unit = self.projector(inner)
            by_prototype = (unit @ self.prototypes.T / self.temperature).softmax(dim=1)
            belief = self.how.alpha * by_head + (1 - self.how.alpha) * by_prototype
            one_hot = nn.functional.one_hot(self.given.clamp(min=0), self.k).to(belief)
            self.belief = torch.where(self.trusted[:, None], one_hot, belief)
            also = None
            if self.relation is not None:
                score = self.relation(unit, self.prototypes).sigmoid()
                at = torch.arange(len(score), device=score.device)
                also = score[at, self.given.clamp(min=0)] > self.how.sure
            found = clean(self.belief, self.given, self.trusted, self.how.sure, also=also)
            if self.how.foreign is not None:
                agreed = (by_head.argmax(dim=1) == self.given) & (by_prototype.argmax(dim=1) == self.given)
                error = (self.projector.back(unit) - inner).square().mean(dim=1)
                out = foreign_rows(error, agreed, self.how.foreign) & ~self.trusted
                found = replace(
                    found, label=torch.where(out, -1, found.label), decision=torch.where(out, DROP, found.decision)
                )
            self.decisions = found
            if self.how.density:
                rows = (found.label >= 0).nonzero()[:, 0]
                self.temperature = densities(unit[rows], found.label[rows], self.prototypes, self.temperature)

    def trusting(self) -> Tensor:
        """bool (N,): rows whose label is relied on: those that are kept, or before cleaning those like their class."""
        if self.cleaned:
            return self.decisions.label >= 0
        with torch.no_grad():
            unit = self.slow(self.seen(self.slow_head, self.features))
            near = prototype_distance(unit, self.given.clamp(min=0), self.prototypes) <= self.how.distance * self.k
        return (self.given >= 0) & (near | self.trusted)

    def epoch(self, name: str, pace: float, *, counted: int) -> dict[str, Any]:
        """A pass over the rows that have a label; facts about it."""
        how, cross = self.how, nn.functional.cross_entropy
        relied = self.trusting()
        self.head.train()
        self.course.at(self.stepper, max(pace, 0.02))
        label, trusted = self.decisions.label, self.trusted
        rows = (label >= 0).nonzero()[:, 0]
        total = 0.0
        for batch in self.course.batches(rows, self.generator):
            x, y, u = self.features[batch], label[batch], self.belief[batch]
            w = self.weight[batch] / self.weight[batch].sum().clamp(min=1e-12)
            inner = self.seen(self.head, x)
            unit = self.projector(inner)
            one_hot = nn.functional.one_hot(y, self.k).to(x)
            own = (u * one_hot).sum(dim=1, keepdim=True)
            cosine = unit @ self.prototypes.T - how.margin * one_hot * trusted[batch, None]
            each = self.course.loss(self.head(x), own * one_hot + (1 - own) * u)  # linear in the target
            value = w @ (each + cross(cosine / self.temperature, y, reduction="none"))
            # what the projection is turned back into is no target that moves: the hidden layer is let alone by it
            value = value + (self.projector.back(self.projector(inner.detach())) - inner.detach()).square().mean()
            if how.contrast:
                views = [how.change(x, self.generator) for _ in range(2)]
                query = self.projector(self.seen(self.head, views[0]))
                with torch.no_grad():
                    key = self.slow(self.seen(self.slow_head, views[1]))
                others = torch.cat([query @ key.T, query @ self.queue.T], dim=1) / FIRST_TEMPERATURE
                value = value + how.contrast * cross(others, torch.arange(len(key), device=x.device))
                self.queue = torch.cat([key, self.queue])[: how.queue]
                unit, y_of = torch.cat([unit, query]), y.repeat(2)
            else:
                y_of = y
            sure = relied[batch].repeat(len(y_of) // len(y))
            if bool(sure.any()):
                auxiliary = unit[sure] @ nn.functional.normalize(self.by_projection, dim=1).T / FIRST_TEMPERATURE
                value = value + cross(auxiliary, y_of[sure])
            self.stepper.zero_grad()
            value.backward()
            self.stepper.step()
            with torch.no_grad():
                pairs = [*zip(self.slow.parameters(), self.projector.parameters(), strict=True)]
                pairs += zip(self.slow_head.parameters(), self.head.parameters(), strict=True)
                for slow, fast in pairs:
                    slow.lerp_(fast, 1 - how.momentum)
                kept = relied[batch]
                inner = self.seen(self.slow_head, x[kept])
                self.prototypes = updated(self.prototypes, self.slow(inner), y[kept], how.prototype_momentum)
            total += float(value.detach()) * len(batch)
        counts = torch.bincount(self.decisions.decision, minlength=4).tolist()
        facts = dict(zip(NAMES, counts, strict=True))
        return {"step": name, "track": "prototypes", "round": counted, "objective": total / len(rows), **facts}

    def finish(self, epochs: int, *, counted: int) -> dict[str, Any]:
        """Fit the head on to the labels that are left, rows mixed in pairs."""
        rows = (self.decisions.label >= 0).nonzero()[:, 0]
        target = nn.functional.one_hot(self.decisions.label.clamp(min=0), self.k).to(self.features)
        stepper = torch.optim.Adam(self.head.parameters(), lr=self.course.learning_rate)
        seed = int(torch.randint(2**31, (1,), generator=self.generator))
        draws = np.random.default_rng(seed)
        self.head.train()
        total = 0.0
        for epoch in range(epochs):
            self.course.at(stepper, 0.5 * (1 - epoch / epochs))
            total = 0.0
            for batch in self.course.batches(rows, self.generator):
                part = torch.from_numpy(draws.beta(self.how.mixup, self.how.mixup, len(batch))).to(self.features)
                partner = batch[torch.randperm(len(batch), generator=self.generator).to(batch.device)]
                x = part[:, None] * self.features[batch] + (1 - part[:, None]) * self.features[partner]
                q = part[:, None] * target[batch] + (1 - part[:, None]) * target[partner]
                w = part * self.weight[batch] + (1 - part) * self.weight[partner]
                value = w @ self.course.loss(self.head(x), q) / w.sum().clamp(min=1e-12)
                stepper.zero_grad()
                value.backward()
                stepper.step()
                total += float(value.detach()) * len(batch)
        return {"step": "mixed", "track": "prototypes", "round": counted, "objective": total / max(len(rows), 1)}

    def learn_relation(self, epochs: int) -> None:
        """Fit the relation network to the rows whose label is relied on."""
        with torch.no_grad():
            unit, label = self.projector(self.seen(self.head.eval(), self.features)), self.decisions.label
        rows = self.trusting().nonzero()[:, 0]
        relation = Relation().to(self.features)
        stepper = torch.optim.Adam(relation.parameters(), lr=self.course.learning_rate)
        for _ in range(epochs):
            for batch in self.course.batches(rows, self.generator):
                value = torch.nn.functional.cross_entropy(relation(unit[batch], self.prototypes), label[batch])
                stepper.zero_grad()
                value.backward()
                stepper.step()
        self.relation = relation
