"""Classes that cannot be told apart are merged, and another network's soft labels are a second target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from anygrain.encoders.trainable import TrainableEncoder
from anygrain.labels import LabelError, Labels
from anygrain.learn.head import Head, Linear, Perceptron, make_head
from anygrain.learn.loss import cross_entropy
from anygrain.learn.procedure import Procedure
from anygrain.learn.step import Step
from anygrain.learn.term import Term
from anygrain.robust.fresh import alone, fit_with, fresh_head, takes_only
from anygrain.robust.votes import folds_of, told_rows

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

Linkage = Literal["mean", "max"]


def confusion(probs: Tensor, truth: Tensor) -> Tensor:
    r"""How often class a is taken for class b by a model that did not learn from the rows, (K, K); rows sum to 1.

    .. math:: C_{ab} \propto \sum_i q_{ia} [\arg\max_k p_{ik} = b]

    Args:
        probs: (N, K).
        truth: (N, K), one-hot or posteriors. A class without rows is taken for itself.
    """
    k = probs.shape[1]
    guess = torch.nn.functional.one_hot(probs.argmax(dim=1), k).to(truth)
    count = truth.T @ guess
    mass = count.sum(dim=1, keepdim=True)
    return torch.where(mass > 0, count / mass.clamp(min=1e-30), torch.eye(k, dtype=count.dtype, device=count.device))


def merged_classes(confusion: Tensor, threshold: float = 0.5, linkage: Linkage = "mean") -> Tensor:
    r"""Group (K,) of every class, 0..G-1 in the order of their first members.

    Bottom up: the two groups of the highest similarity are merged while it exceeds the threshold,
    :math:`S = \frac12 (C + C^\top)` of a row-normalised confusion; that of groups is the mean or the highest over pairs
    of members. Two classes that nobody can tell apart have a similarity near 1/2.

    Args:
        linkage: "max" can chain many classes together.

    Source: Wang et al., Knowledge Guided Disambiguation for Large-Scale Scene Classification, 2016.
    """
    if linkage not in ("mean", "max"):
        raise LabelError(f'linkage is "{linkage}"; expected mean or max')
    k = len(confusion)
    similar = 0.5 * (confusion + confusion.T)
    similar = similar.clone().fill_diagonal_(-torch.inf)
    group, size = torch.arange(k, device=confusion.device), confusion.new_ones(k)
    for _ in range(k - 1):
        at = int(similar.argmax())
        a, b = sorted((at // k, at % k))
        if not float(similar[a, b]) > threshold:
            break
        if linkage == "mean":
            joined = (size[a] * similar[a] + size[b] * similar[b]) / (size[a] + size[b])
        else:
            joined = torch.maximum(similar[a], similar[b])
        joined[a] = -torch.inf
        similar[a], similar[:, a] = joined, joined
        similar[b], similar[:, b] = -torch.inf, -torch.inf
        size[a] += size[b]
        group[group == b] = a
    _, found = group.unique(return_inverse=True)
    ids: Tensor = found
    return ids


class MergedHead(Head):
    r"""A head over groups of classes, and how a group's probability is shared among its classes.

    .. math:: \log p_c(z) = \log p_{s(c)}(z) + \log r_c, \quad \sum_{c \in s} r_c = 1

    Attributes:
        group: (K,).  log_share: (K,), :math:`\log r`.
    """

    group: Tensor
    log_share: Tensor

    def __init__(self, inner: Head, group: Tensor, share: Tensor) -> None:
        super().__init__(inner.feature_dim, len(group))
        self.inner = inner
        self.register_buffer("group", group)
        total = torch.zeros(int(group.max()) + 1).to(share).index_add(0, group, share)
        self.register_buffer("log_share", (share / total[group]).clamp(min=1e-30).log())

    def logits(self, features: Tensor) -> Tensor:
        coarse: Tensor = self.inner(features)
        return coarse[:, self.group] + self.log_share

    def penalty(self) -> Tensor:
        return self.inner.penalty()


class Disambiguation(Procedure):
    r"""Merges the classes that held-out confusions show to be alike, and learns the groups.

    A head is cross-fitted in three parts; the confusions of rows by heads that did not learn from them decide what is
    merged. The head that stays learns groups; within a group the classes keep the shares of the labels, or, with
    `refine`, those of a head of all classes: :math:`p(c) = p(s)\, p_{base}(c \mid s)`. Composes with every kind of
    label, every loss and every head; not with terms or a weighting.

    Args:
        threshold: similarity above which groups are merged. Two classes that are told apart by chance alone have .5 or
            less, so the .5 of the source merges only what is confused more often than not.
        linkage: "mean" or "max".
        refine: see above.
        steps: of L-BFGS.

    Attributes:
        group_: (K,).  confusion_: (K, K), of held-out rows.

    Source: Wang et al., Knowledge Guided Disambiguation for Large-Scale Scene Classification, 2016.
    """

    def __init__(
        self, threshold: float = 0.25, linkage: Linkage = "mean", *, refine: bool = False, steps: int = 60
    ) -> None:
        if not threshold >= 0:
            raise LabelError(f"threshold is {threshold}; expected a similarity of 0 or more")
        if linkage not in ("mean", "max"):
            raise LabelError(f'linkage is "{linkage}"; expected mean or max')
        self.threshold, self.linkage, self.refine, self.steps = float(threshold), linkage, refine, steps

    def check(self, learner: Learner, labels: Labels) -> None:
        takes_only(self, learner, "loss")

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        self.check(learner, labels)
        loss = cross_entropy if learner.loss is None else learner.loss
        told = told_rows(labels)
        if not bool(told.any()):
            raise LabelError("no row has any evidence: there is nothing to learn from")
        target = alone(labels, features.dtype)
        weight = labels.instance_weight().to(features)
        fold = folds_of(labels, target, told, torch.Generator().manual_seed(int(learner.seed)))

        def fitted(head: Head, rows: Tensor, wanted: Tensor) -> Head:
            head.start(features[rows], wanted[rows])
            return fit_with(
                head, features[rows], wanted[rows], weight[rows], loss, penalty=learner.penalty, steps=self.steps
            )

        def fresh() -> Head:
            return fresh_head(learner, features.shape[1], labels.n_classes, like=features)

        probs = torch.zeros_like(target)
        for f in fold[told].unique().tolist():
            head = fitted(fresh(), (told & (fold != f)).nonzero()[:, 0], target)
            with torch.no_grad():
                probs[fold == f] = head(features[fold == f]).exp()
        self.confusion_ = confusion(probs[told], target[told]).cpu()
        group = merged_classes(self.confusion_, self.threshold, self.linkage).to(features.device)
        self.group_ = group.cpu()
        rows, number = told.nonzero()[:, 0], int(group.max()) + 1
        grouped = target.new_zeros(len(target), number).index_add(1, group, target)
        inner = make_head(learner.head, features.shape[1], number).to(features)
        share = (target[rows] * weight[rows, None]).sum(dim=0).clamp(min=1e-6)
        fitted(inner, rows, grouped)
        if self.refine:
            learner.head_ = RefinedHead(inner, group, fitted(fresh(), rows, target))
        else:
            merged = MergedHead(inner, group, share)
            learner.head_ = unfolded(merged, fresh()) if type(inner) in (Linear, Perceptron) else merged
        learner.history_ = [
            {"step": "merged", "track": "disambiguation", "round": 1, "groups": number, "group": self.group_.tolist()}
        ]


def unfolded(merged: MergedHead, head: Head) -> Head:
    """A plain head of all classes, whose outer layer repeats that of the groups: the same function, which can be saved.

    Args:
        merged: over groups, its inner head with an outer layer `weight` and `bias`.
        head: of the same kind, over all classes; its parameters are replaced.
    """
    inner = dict(merged.inner.named_parameters())
    with torch.no_grad():
        for name, p in head.named_parameters():
            if name == "weight":
                p.copy_(inner[name][merged.group])
            elif name == "bias":
                p.copy_(inner[name][merged.group] + merged.log_share)
            else:
                p.copy_(inner[name])
    return head


class RefinedHead(MergedHead):
    r"""Groups by one head, the classes within them by another: :math:`p_{s(c)}(z)\, p_{base}(c \mid s(c), z)`."""

    def __init__(self, inner: Head, group: Tensor, base: Head) -> None:
        super().__init__(inner, group, torch.ones(len(group), device=group.device))
        self.base = base

    def logits(self, features: Tensor) -> Tensor:
        fine = self.base(features)
        inside = torch.nn.functional.one_hot(self.group).to(fine)
        coarse = (fine.exp() @ inside).clamp(min=1e-30).log()
        found: Tensor = (self.inner(features) - coarse)[:, self.group] + fine
        return found

    def penalty(self) -> Tensor:
        both: Tensor = self.inner.penalty() + self.base.penalty()
        return both


class SecondTarget(Term):
    r"""Soft labels of another network, over classes of its own, as a second target of the same features.

    .. math:: \frac{\lambda}{B} \sum_i \Big(-\sum_k q_{ik} \log g_k(h_i)\Big), \quad g = \mathrm{softmax}(W h)

    The second layer is left aside when predicting. For a trained encoder, or a term that shapes nothing: fixed features
    do not move.

    Args:
        soft: q, (N, M) of all instances, for instance a frozen network's probabilities; NaN rows have none.
        weight: :math:`\lambda`.

    Source: Wang et al., Knowledge Guided Disambiguation for Large-Scale Scene Classification, 2016.
    """

    soft: Tensor

    def __init__(self, soft: Tensor, weight: float = 0.25) -> None:
        super().__init__()
        soft = torch.as_tensor(soft).float()
        known = ~soft.isnan().any(dim=1) if soft.ndim == 2 else soft.new_zeros(0)
        if soft.ndim != 2 or bool((soft[known] < 0).any()) or bool(((soft[known].sum(dim=1) - 1).abs() > 1e-3).any()):
            raise LabelError(
                f"soft has shape {tuple(soft.shape)}; expected (N, M), rows of probabilities that sum to 1"
            )
        self.register_buffer("soft", soft, persistent=False)
        self.weight = float(weight)

    def on_fit_start(self, learner: Learner) -> None:
        encoder = learner.encoder_
        if not isinstance(encoder, TrainableEncoder):
            raise LabelError("SecondTarget shapes an encoder, and fixed features do not move; train one")
        self.second = nn.Linear(encoder.feature_dim, self.soft.shape[1])
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, step: Step) -> Tensor:
        target = self.soft[step.instances].to(step.features)
        known = ~target.isnan().any(dim=1)
        if not bool(known.any()):
            return step.features.sum() * 0
        said: Tensor = self.second(step.features[known]).log_softmax(dim=1)
        return self.weight * cross_entropy(said, target[known]).sum() / len(target)


def fuse(log_probs: list[Tensor], weights: list[float] | None = None) -> Tensor:
    """Weighted mean of the probabilities of several models, (N, K) each, as log-probabilities.

    Temperature-scale them first where they are not equally calibrated; a `Learner`'s are.
    """
    weight = torch.ones(len(log_probs)) if weights is None else torch.tensor(weights)
    if len(weight) != len(log_probs) or bool((weight < 0).any()) or not float(weight.sum()) > 0:
        raise LabelError(f"weights are {weights}; expected {len(log_probs)} numbers of 0 or more, not all 0")
    stacked = torch.stack(log_probs)
    part = (weight / weight.sum()).to(stacked).log()
    return (stacked + part[:, None, None]).logsumexp(dim=0)
