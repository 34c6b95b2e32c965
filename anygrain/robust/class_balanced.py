"""Class-balanced weights: an instance of a frequent class says less that is new."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.learn.step import Step
from anygrain.learn.weighting import Weighting
from anygrain.robust.class_counts import class_counts
from anygrain.robust.settings import share

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


def effective_weights(counts: Tensor, beta: float) -> Tensor:
    r"""Weights (K,) of classes with counts (K,), of mean 1 over instances.

    .. math:: w_k \propto \frac{1 - \beta}{1 - \beta^{n_k}}, \qquad \sum_k n_k w_k = \sum_k n_k

    At beta = 0 they are all 1; as beta tends to 1 they tend to 1 / n_k. A class without instances weighs as one with a
    single instance.
    """
    counts = counts.double()
    beta_ = torch.as_tensor(beta, dtype=torch.float64)
    number = -torch.expm1(counts.clamp(min=1.0) * beta_.log()) / (1 - beta_) if beta > 0 else torch.ones_like(counts)
    weight = 1 / number
    return weight * counts.sum() / (counts * weight).sum().clamp(min=1e-12)


class ClassBalanced(Weighting):
    r"""Weight of an instance by the effective number of instances of its class.

    .. math:: w_i = \sum_k q_{ik} w_k, \qquad w_k \propto \frac{1 - \beta}{1 - \beta^{n_k}}

    with n the soft class counts of the fit. Goes with every loss.

    Args:
        beta: in [0, 1); .99, .999 and .9999 are usual; 0 is no weighting.

    Attributes:
        class_weight_: (K,), once a fit has begun.

    Raises:
        LabelError: a beta outside that range.

    Source: Cui and others, Class-Balanced Loss Based on Effective Number of Samples, 2019.
    """

    def __init__(self, beta: float = 0.999) -> None:
        share(beta, "beta")
        self.beta = beta

    def on_fit_start(self, learner: Learner) -> None:
        self.class_weight_ = effective_weights(class_counts(learner), self.beta)

    def __call__(self, step: Step) -> Tensor:
        return step.posterior @ self.class_weight_.to(step.posterior)
