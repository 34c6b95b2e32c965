"""RCAL: a clean, balanced Gaussian per class in a representation that has not seen the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.neighbors import LocalOutlierFactor
from torch import Tensor

from anygrain.labels import LabelError, Labels
from anygrain.learn.loss import cross_entropy
from anygrain.learn.procedure import Procedure
from anygrain.learn.step import Step
from anygrain.learn.term import Term
from anygrain.robust.fresh import alone, fit_with, fresh_head, takes_only

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

FEWEST = 5  # rows of a class below which nothing is called an outlier


def outliers(features: Tensor, group: Tensor, share: float, neighbours: int = 20) -> Tensor:
    r"""bool (N,): rows far from the bulk of their group, the `share` of it with the highest local outlier factor.

    .. math:: \mathrm{LOF}(a) = \frac{1}{|N(a)|} \sum_{b \in N(a)} \frac{\mathrm{lrd}(b)}{\mathrm{lrd}(a)}, \quad
              \mathrm{lrd}(a)^{-1} = \frac{1}{|N(a)|} \sum_{b \in N(a)} \max(d_k(b), |a - b|)

    Args:
        features: (N, D).
        group: (N,); -1 belongs to none and is no outlier.
        share: of every group, 0..0.5. Groups of less than five rows have none.
        neighbours: at most; a group of n rows uses n - 1.

    Source: Breunig et al., LOF: Identifying Density-Based Local Outliers, 2000; computed by scikit-learn.
    """
    if not 0 <= share <= 0.5:
        raise LabelError(f"the share of outliers is {share}; expected 0 to .5")
    found = torch.zeros(len(features), dtype=torch.bool)
    table, groups = features.detach().cpu().double().numpy(), group.cpu()
    for g in groups[groups >= 0].unique().tolist():
        rows = (groups == g).nonzero()[:, 0]
        if len(rows) < FEWEST or share == 0:
            continue
        measure = LocalOutlierFactor(n_neighbors=min(neighbours, len(rows) - 1), contamination=share)
        found[rows] = torch.from_numpy(measure.fit_predict(table[rows.numpy()]) == -1)
    return found.to(features.device)


def class_gaussians(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    r"""Means (K, D) and covariances (K, D, D) of features (N, D), each row in class k with weight (N, K).

    A class without rows has the mean of all and the pooled covariance.
    """
    mass = weight.sum(dim=0)
    empty = mass <= 0
    mean = weight.T @ features / mass.clamp(min=1e-12)[:, None]
    mean[empty] = features.mean(dim=0)
    spreads = []
    for k in range(weight.shape[1]):
        centred = features - mean[k]
        spreads.append((weight[:, k, None] * centred).T @ centred / mass[k].clamp(min=1e-12))
    covariance = torch.stack(spreads)
    pooled = (mass[:, None, None] * covariance).sum(dim=0) / mass.sum().clamp(min=1e-12)
    covariance[empty] = pooled
    return mean, covariance


def borrow(
    mean: Tensor,
    covariance: Tensor,
    size: Tensor,
    tail: Tensor,
    *,
    share: float,
    nearest: int,
    spread: float,
    temperature: float | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Gaussians of tail classes drawn towards those of the nearest head classes.

    .. math:: \mu_k \leftarrow \gamma \sum_{c \in C_k} \omega_c \mu_c + (1 - \gamma) \mu_k, \quad
              \Sigma_k \leftarrow \gamma \sum_c \omega_c \Sigma_c + (1 - \gamma) \Sigma_k + \alpha I, \quad
              \omega_c \propto n_c\, e^{-|\mu_c - \mu_k|^2 / T}

    Head classes keep mean and covariance, plus :math:`\alpha I`.

    Args:
        size: rows of the classes, (K,).
        tail: bool (K,).
        share: :math:`\gamma`.
        nearest: how many head classes :math:`C_k` holds.
        spread: :math:`\alpha`.
        temperature: T; the mean squared distance between tail and head classes where not given.
    """
    covariance = covariance + spread * torch.eye(mean.shape[1], dtype=mean.dtype, device=mean.device)
    heads = (~tail).nonzero()[:, 0]
    if not len(heads) or not bool(tail.any()) or share == 0:
        return mean, covariance
    square = torch.cdist(mean[tail], mean[heads]).square()
    scale = float(square.mean()) if temperature is None else temperature
    near, at = square.topk(min(nearest, len(heads)), dim=1, largest=False)
    chosen = heads[at]
    weight = (size[chosen].to(mean).log() - near / max(scale, 1e-12)).softmax(dim=1)
    lent_mean = torch.einsum("tq,tqd->td", weight, mean[chosen])
    lent = torch.einsum("tq,tqde->tde", weight, covariance[chosen])  # the spread is in both parts
    mean, covariance = mean.clone(), covariance.clone()
    mean[tail] = share * lent_mean + (1 - share) * mean[tail]
    covariance[tail] = share * lent + (1 - share) * covariance[tail]
    return mean, covariance


def draw(mean: Tensor, covariance: Tensor, count: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points (S, D) of Gaussians, `count` (K,) of each, and whose they are (S,). Covariances may be singular."""
    classes = torch.repeat_interleave(torch.arange(len(mean)), count.cpu())
    noise = torch.randn(len(classes), mean.shape[1], generator=generator, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(covariance.double().cpu())
    root = vectors * values.clamp(min=0).sqrt()[:, None, :]
    parts = [n @ r.T for n, r in zip(noise.split(count.tolist()), root, strict=True)]
    points = torch.cat(parts) + mean.double().cpu()[classes]
    return points.to(mean), classes.to(mean.device)


class RepresentationCalibration(Procedure):
    r"""Noisy labels and skewed classes: outliers go, tail classes borrow, and the head learns from balanced draws.

    1. *Robust*: in every class as labelled, the `outliers` are left out; the rest gives mean and covariance.
    2. *Tail*: classes smaller than the average `borrow` from the nearest larger ones.
    3. *Balance*: points are drawn until every class has as many as the largest; they and the rows that are left train
       the head.

    Features must not have seen the labels: those of a self-supervised or frozen encoder. Composes with every kind of
    label, head and loss: a row's class is the likeliest one of what its evidence alone says, its weight in a Gaussian
    the probability of it, its target that posterior. Not with terms or a weighting.

    Args:
        outlier_share: of every class.
        neighbours: of the outlier factor.
        share: :math:`\gamma` of `borrow`, what a tail class borrows.
        nearest: how many classes it borrows from.
        spread: :math:`\alpha`, in units of the mean variance of features within classes.
        mixup: rows are mixed in pairs with shares from Beta(a, a); 0 for none.
        steps: of L-BFGS.

    Attributes:
        mean_, covariance_: (K, D) and (K, D, D), calibrated.
        outlier_: bool (N,).
        tail_: bool (K,).

    Source: When Noisy Labels Meet Long Tail Dilemmas: A Representation Calibration Method, 2023; weights of borrowed
    classes and all defaults are a reconstruction.
    """

    def __init__(
        self,
        outlier_share: float = 0.1,
        *,
        neighbours: int = 20,
        share: float = 0.3,
        nearest: int = 4,
        spread: float = 0.3,
        mixup: float = 0.0,
        steps: int = 60,
    ) -> None:
        if not 0 <= share <= 1:
            raise LabelError(f"share is {share}; expected a number from 0 to 1")
        if not 0 <= outlier_share <= 0.5:
            raise LabelError(f"outlier_share is {outlier_share}; expected 0 to .5")
        if nearest < 1 or spread < 0 or mixup < 0:
            raise LabelError(
                f"nearest is {nearest}, spread {spread}, mixup {mixup}; expected 1 or more, 0 or more twice"
            )
        self.outlier_share, self.neighbours, self.share = outlier_share, neighbours, share
        self.nearest, self.spread, self.mixup, self.steps = nearest, spread, mixup, steps

    def check(self, learner: Learner, labels: Labels) -> None:
        takes_only(self, learner, "loss")

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        self.check(learner, labels)
        loss = cross_entropy if learner.loss is None else learner.loss
        target = alone(labels, torch.float64)
        told = target.amax(dim=1) > (1 + 1e-6) / labels.n_classes
        if not bool(told.any()):
            raise LabelError("no row has any evidence: there is nothing to learn from")
        classes = torch.where(told, target.argmax(dim=1), -1)
        self.outlier_ = outliers(features, classes, self.outlier_share, self.neighbours)
        kept = told & ~self.outlier_
        weight = target[kept] * labels.instance_weight().to(target)[kept, None]
        rows = features[kept].double()
        mean, covariance = class_gaussians(rows, weight)
        size = weight.sum(dim=0)
        self.tail_ = size < size.mean()
        within = torch.einsum("k,kdd->", size, covariance) / size.sum() / rows.shape[1]
        self.mean_, self.covariance_ = borrow(
            mean,
            covariance,
            size,
            self.tail_,
            share=self.share,
            nearest=self.nearest,
            spread=self.spread * float(within),
        )
        generator = torch.Generator().manual_seed(int(learner.seed))
        count = (size.max() - size).round().long()
        points, whose = draw(self.mean_, self.covariance_, count, generator)
        real, wanted = rows, target[kept]
        if self.mixup:
            part = _beta(self.mixup, len(rows), generator).to(rows)[:, None]
            partner = torch.randperm(len(rows), generator=generator).to(rows.device)
            real = part * rows + (1 - part) * rows[partner]
            wanted = part * wanted + (1 - part) * wanted[partner]
        made = torch.nn.functional.one_hot(whose, labels.n_classes).to(target)
        head = fresh_head(learner, features.shape[1], labels.n_classes, like=features)
        x, q = torch.cat([real, points]).to(features), torch.cat([wanted, made]).to(features)
        w = torch.cat([labels.instance_weight().to(features)[kept], features.new_ones(len(points))])
        head.start(x, q)
        learner.head_ = fit_with(head, x, q, w, loss, penalty=learner.penalty, steps=self.steps)
        learner.history_ = [
            {
                "step": "calibrated",
                "track": "representation calibration",
                "round": 1,
                "outliers": int(self.outlier_.sum()),
                "drawn": count.tolist(),
            }
        ]


def _beta(a: float, n: int, generator: torch.Generator) -> Tensor:
    """(n,) draws of Beta(a, a)."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(a, a, n))


class KeepRepresentation(Term):
    r"""Ties a trained encoder to where it started: :math:`\frac{\beta}{B} \sum_i |f(x_i) - z_i|^2`.

    It keeps the network from bending to single wrong labels. For a trained encoder; fixed features do not move.

    Args:
        anchor: z, features (N, D) of all instances by the encoder before training, without augmentation.
        weight: :math:`\beta`.
    """

    anchor: Tensor

    def __init__(self, anchor: Tensor, weight: float = 1.0) -> None:
        super().__init__()
        if anchor.ndim != 2:
            raise LabelError(f"anchor has shape {tuple(anchor.shape)}; expected (N, D), the features of every instance")
        self.register_buffer("anchor", anchor.detach().clone(), persistent=False)
        self.weight = float(weight)

    def forward(self, step: Step) -> Tensor:
        anchor = self.anchor[step.instances]
        if anchor.shape != step.features.shape:
            raise LabelError(f"anchor has {anchor.shape[1]} features, the encoder {step.features.shape[1]}")
        return self.weight * (step.features - anchor.to(step.features)).square().sum(dim=1).mean()
