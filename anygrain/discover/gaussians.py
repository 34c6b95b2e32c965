"""Classes as Gaussians, fitted by EM whose E-step is the posterior of the labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from anygrain.discover.components import components, projected
from anygrain.discover.discoverer import Callback
from anygrain.discover.evidence import Evidence, belief, in_parts
from anygrain.discover.found import ClassModel
from anygrain.discover.k_means import k_means, starting_centres
from anygrain.discover.partitioned import sample
from anygrain.discover.task import Task
from anygrain.encoders.trainable import Arrays

Covariance = Literal["tied", "diagonal", "spherical"]

STEPS = 100
START_STEPS = 10  # of k-means before EM
TRIED_STEPS = 15  # of EM from every start
TRIED_ROWS = 5000  # on so many rows, or 20 of every class
TRIED_PER_CLASS = 20
FINISHED = 3  # of the starts, on
FINISHED_ROWS = 50_000  # rows at most; the best goes on with all
SETTLED = 1e-4  # gain of the mean log-likelihood per row at which EM stops
FLOOR = 1e-3  # share of the mean variance that every direction has at least
ROUNDING = 1e-6  # least variance relative to that of all rows: what is left where every row is its class
PRIOR = 2.0  # rows of the shared variance that each class's own is mixed with, for diagonal and spherical


class Gaussians(ClassModel):
    r"""K Gaussians in a space z = W (x - m) of few dimensions.

    .. math:: \log p(k \mid x) \propto \log \pi_k + \tfrac12 \textstyle\sum_d \log \lambda_{kd}
              - \tfrac12 \sum_d \lambda_{kd} (z_d - \mu_{kd})^2

    A covariance that all classes share is in W, and :math:`\lambda = 1`.
    """

    mean: Tensor
    directions: Tensor
    centre: Tensor
    precision: Tensor
    log_share: Tensor

    def __init__(self, mean: Tensor, directions: Tensor, centre: Tensor, precision: Tensor, log_share: Tensor) -> None:
        super().__init__()
        for name, value in zip(
            ("mean", "directions", "centre", "precision", "log_share"),
            (mean, directions, centre, precision, log_share),
            strict=True,
        ):
            self.register_buffer(name, value)

    def embed(self, arrays: Arrays) -> Tensor:
        return (arrays["features"] - self.mean) @ self.directions

    def forward(self, arrays: Arrays) -> Tensor:
        return joint(self.embed(arrays), self.centre, self.precision, self.log_share).log_softmax(dim=1)


def joint(z: Tensor, centre: Tensor, precision: Tensor, log_share: Tensor) -> Tensor:
    r"""log :math:`\pi_k \mathcal N(z_i; \mu_k, \lambda_k^{-1})`, (N, K), of rows (N, d); precision is (K, d)."""
    scaled = centre * precision
    square = z.square() @ precision.T - 2 * z @ scaled.T + (centre * scaled).sum(dim=1)
    constant = z.shape[1] * torch.log(z.new_tensor(2 * torch.pi))
    return log_share + 0.5 * (precision.log().sum(dim=1) - constant - square)


@dataclass(frozen=True)
class Mixture:
    """K Gaussians in d dimensions: centre (K, d), share (K,), and what the covariance needs.

    Attributes:
        tied: (d, d) covariance that all classes share; None for variances of each class.
        variance: (K, d) of each class; None where the covariance is shared.
        covariance: the kind.
        value: mean log-likelihood of a row, with what is said of it.
        steps: EM steps that were taken.
    """

    centre: Tensor
    share: Tensor
    tied: Tensor | None
    variance: Tensor | None
    covariance: Covariance
    value: float = -torch.inf
    steps: int = 0

    def whitened(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map (d, d) of rows, centres (K, d) and precisions (K, d) there, and the log determinant of the map."""
        if self.tied is None:
            assert self.variance is not None
            eye = torch.eye(self.centre.shape[1], dtype=self.centre.dtype, device=self.centre.device)
            return eye, self.centre, 1 / self.variance, self.centre.new_zeros(())
        lower = torch.linalg.cholesky(self.tied)
        eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        map_ = torch.linalg.solve_triangular(lower, eye, upper=False).T
        return map_, self.centre @ map_, torch.ones_like(self.centre), -lower.diagonal().log().sum()

    def model(self, mean: Tensor, basis: Tensor) -> Gaussians:
        """The model that reads rows (N, D) of which z = (x - mean) basis."""
        map_, centre, precision, _ = self.whitened()
        return Gaussians(mean, basis @ map_, centre, precision, self.share.log())

    def n_parameters(self) -> int:
        """Free parameters, as BIC counts them."""
        k, d = self.centre.shape
        spread = {"tied": d * (d + 1) // 2, "diagonal": k * d, "spherical": k}
        return k * d + k - 1 + spread[self.covariance]


def best_of(
    task: Task, components_: int, starts: int, covariance: Covariance, callback: Callback | None = None
) -> tuple[Mixture, Tensor, Tensor, list[dict[str, Any]]]:
    """The most probable of some mixtures that start at k-means; mean (D,) and directions (D, d) of its space; history.

    All starts take a few steps on some of the rows, the three best are run to the end, on 50,000 rows where there are
    more, and the best of these on all.

    Args:
        task: with a known number of classes.
        components_: principal directions in which the mixtures lie.
    """
    mean, basis = components(task.features, components_, task.seed)
    flat_task = replace(task, features=projected(task.features, mean, basis))
    z, node = flat_task.features, task.node
    rows = sample(task, max(TRIED_ROWS, TRIED_PER_CLASS * len(node)))
    some = flat_task if len(rows) == len(z) else flat_task.of_rows(rows)
    labels = some.evidence.over(node)
    generator = torch.Generator().manual_seed(task.seed)
    tried: list[Mixture] = []
    history: list[dict[str, Any]] = []
    for number in range(1, starts + 1):
        centre, label = k_means(some.features, starting_centres(some, generator), labels, START_STEPS)
        mixture = start(some.features, label, centre, covariance)
        tried.append(fit(some.features, some.evidence, node, mixture, TRIED_STEPS))
        history.append({"step": f"start {number}", "log_likelihood": tried[-1].value, "em_steps": tried[-1].steps})
        if callback is not None:
            callback(number, starts, history[-1])
    many = flat_task if len(z) <= FINISHED_ROWS else flat_task.sample(FINISHED_ROWS)
    first = sorted(tried, key=lambda one: -one.value)[:FINISHED]
    finished = [fit(many.features, many.evidence, node, one) for one in first]
    best = max(finished, key=lambda one: one.value)
    if many is not flat_task:
        best = fit(z, task.evidence, node, best)
    history.append({"step": "best", "log_likelihood": best.value, "em_steps": best.steps})
    return best, mean, basis, history


def start(z: Tensor, label: Tensor, centre: Tensor, covariance: Covariance) -> Mixture:
    """A mixture from one class per row (N,); classes without rows stay at their centre (K, d)."""
    k = len(centre)
    size = torch.bincount(label, minlength=k).to(z.dtype)
    total = torch.zeros_like(centre).index_add(0, label, z)
    if covariance == "tied":
        return _update(z.T @ z, total, size, None, centre, covariance)
    square = torch.zeros_like(centre).index_add(0, label, z.square())
    return _update(None, total, size, square, centre, covariance)


def fit(z: Tensor, evidence: Evidence, node: Tensor, mixture: Mixture, steps: int = STEPS) -> Mixture:
    """EM from a mixture until it gains less than 1e-4 a row; rows that are told stay where that allows.

    Args:
        z: (N, d).
        evidence: of the rows.
        node: (K,) of every class.
        steps: at most.
    """
    parts = in_parts(evidence.over(node), len(z))
    gram = z.T @ z if mixture.tied is not None else None
    mixture = replace(mixture, value=-torch.inf)  # that of other rows, perhaps
    for step in range(steps):
        map_, centre, precision, logdet = mixture.whitened()
        log_share = mixture.share.log()
        k, d = mixture.centre.shape
        size, total = z.new_zeros(k), z.new_zeros(k, d)
        square = None if mixture.tied is not None else z.new_zeros(k, d)
        value = 0.0
        for rows, labels in parts:
            here = z[rows]
            log_joint = joint(here @ map_, centre, precision, log_share) + logdet
            said, posterior = belief(labels, log_joint)
            value += said
            size += posterior.sum(dim=0)
            total += posterior.T @ here
            if square is not None:
                square += posterior.T @ here.square()
        value /= len(z)
        gain = value - mixture.value
        mixture = _update(gram, total, size, square, mixture.centre, mixture.covariance, value, step + 1)
        if gain < SETTLED:
            break
    return mixture


def _update(
    gram: Tensor | None,
    total: Tensor,
    size: Tensor,
    square: Tensor | None,
    before: Tensor,
    covariance: Covariance,
    value: float = -torch.inf,
    steps: int = 0,
) -> Mixture:
    """The M-step from sums: z'z (d, d) or of every class squares (K, d), rows (K, d), and sizes (K,)."""
    n, k = size.sum(), len(size)
    mean = torch.where((size > 1e-6)[:, None], total / size.clamp(min=1e-6)[:, None], before)
    share = (size + 1) / (n + k)
    if gram is not None:
        within = (gram - (mean * size[:, None]).T @ mean) / n
        within = (within + within.T) / 2
        floor = torch.maximum(FLOOR * within.diagonal().mean(), ROUNDING * gram.trace() / n).clamp(min=1e-12)
        eye = torch.eye(len(within), dtype=within.dtype, device=within.device)
        return Mixture(mean, share, within + floor * eye, None, covariance, value, steps)
    assert square is not None
    own = (square - mean.square() * size[:, None]).clamp(min=0)  # (K, d) sums of squares about the means
    shared = own.sum(dim=0) / n
    shared = shared + FLOOR * shared.mean().clamp(min=1e-12)
    if covariance == "spherical":
        shared = shared.mean().expand_as(shared)
        own = own.mean(dim=1, keepdim=True).expand_as(own)
    variance = (own + PRIOR * shared) / (size + PRIOR)[:, None]
    return Mixture(mean, share, None, variance.clamp(min=float(shared.min()) * FLOOR), covariance, value, steps)
