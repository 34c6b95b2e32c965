"""Losses corrected by a transition matrix: how probably an instance of one class is labelled as another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.encoders.trainable import TrainableEncoder
from anygrain.labels import LabelError
from anygrain.learn.loss import AdaptiveLoss, cross_entropy
from anygrain.learn.step import RealStep, Step
from anygrain.robust.settings import above, distribution

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

WORST_CONDITION = 1e4  # of a matrix that is inverted


def estimate_transition(log_probs: Tensor, quantile: float = 0.97) -> Tensor:
    r"""Transition matrix (K, K) from what a model of the *given* labels says of rows, by anchors.

    .. math:: T_{kj} = P(\text{given } j \mid x^{(k)}), \qquad x^{(k)}: \text{the row most probably given class } k

    An anchor is taken to be of its class for certain, so its probabilities are those of the errors. A quantile in place
    of the largest is less at the mercy of one odd row.

    Args:
        log_probs: (N, K), of rows that the model was not fitted to.
        quantile: of the probabilities of a class, at which its anchor stands; 1 is the largest.

    Source: Patrini and others, Making Deep Neural Networks Robust to Label Noise: a Loss Correction Approach, 2017.
    """
    probs = log_probs.double().softmax(dim=1)
    place = min(int(quantile * len(probs)), len(probs) - 1)
    anchors = probs.argsort(dim=0)[place]
    return probs[anchors]


class _Corrected(AdaptiveLoss):
    """A loss with a transition matrix, which is given or estimated.

    On fixed features it is estimated from held-out probabilities of the recipe's heads before the first epoch. With a
    trained encoder the loss is cross-entropy for some epochs, and the surest instance of every class in the last of
    these is its anchor.
    """

    transition: Tensor
    surest: Tensor
    anchors: Tensor

    def __init__(self, transition: Tensor | None = None, *, quantile: float = 0.97, warm_up: int = 5) -> None:
        super().__init__()
        above(quantile, "quantile")
        above(1 - quantile, "1 - quantile", open_bottom=False)
        above(warm_up, "warm_up", open_bottom=False)
        self.given, self.quantile, self.warm_up = transition is not None, quantile, warm_up
        matrix = torch.zeros(0, 0) if transition is None else distribution(transition, "transition")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise LabelError(f"transition has shape {tuple(matrix.shape)}; expected (K, K), rows by true class")
        self.register_buffer("transition", self._prepared(matrix))
        self.register_buffer("surest", torch.zeros(0))
        self.register_buffer("anchors", torch.zeros(0, 0))

    def _prepared(self, transition: Tensor) -> Tensor:
        """The matrix that the loss works with."""
        return transition

    def on_fit_start(self, learner: Learner) -> None:
        k = learner.labels_.n_classes
        if self.given:
            if len(self.transition) != k:
                raise LabelError(f"transition has {len(self.transition)} classes; the labels have {k}")
            return
        if isinstance(learner.encoder_, TrainableEncoder):
            self.transition = torch.eye(k)
            self.surest, self.anchors = torch.zeros(k), torch.zeros(k, k)
            return
        held = torch.as_tensor(learner.held_out_)
        said = torch.as_tensor(learner.held_out_log_probs_)
        self.transition = self._prepared(estimate_transition(said[held] if bool(held.any()) else said, self.quantile))

    def on_epoch_start(self, epoch: int) -> None:
        if self.given or not len(self.surest):
            return
        if epoch == self.warm_up and bool((self.surest > 0).all()):
            self.transition = self._prepared(self.anchors / self.anchors.sum(dim=1, keepdim=True))
        if epoch <= self.warm_up:
            self.surest = torch.zeros_like(self.surest)

    def after_step(self, step: Step | RealStep) -> None:
        if self.given or not len(self.surest) or not isinstance(step, Step) or step.epoch >= self.warm_up:
            return
        probs = step.log_probs.detach().exp().to(self.anchors)
        best = probs.max(dim=0)
        better = best.values > self.surest.to(probs)
        self.anchors = torch.where(better[:, None], probs[best.indices], self.anchors.to(probs))
        self.surest = torch.where(better, best.values, self.surest.to(probs))


class ForwardCorrection(_Corrected):
    r"""Cross-entropy of the labels as they are given: the model's classes go through the transition matrix first.

    .. math:: -\sum_j q_j \log \sum_k p_k T_{kj}

    Its minimum is the model of the true classes where T is right. The posterior q is taken for a label that may be
    wrong; where the kind of label knows its own errors (`Noisy`, `Crowd`), these need no correction.

    Args:
        transition: T, (K, K), T[k, j] = P(given j | true k); None: estimated, see `estimate_transition`.
        quantile: of the estimate.
        warm_up: epochs of cross-entropy before the estimate, with a trained encoder.

    Raises:
        LabelError: a matrix whose rows are no distributions, or, in a fit, of another number of classes.

    Source: Patrini and others, 2017.
    """

    def forward(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        """(B, K), (B, K) -> (B,)."""
        if not len(self.transition):
            return cross_entropy(log_probs, posterior)
        given = log_probs.exp() @ self.transition.to(log_probs)
        return -(posterior * given.clamp(min=1e-30).log()).sum(dim=-1)


class BackwardCorrection(_Corrected):
    r"""Cross-entropy, unmixed by the inverse of the transition matrix, so that on average it is that of the truth.

    .. math:: -\sum_j q_j \sum_k (T^{-1})_{jk} \log p_k, \qquad
              \sum_j T_{kj} \, \mathrm{loss}(p, e_j) = -\log p_k

    It can be negative, and has a high variance where errors are frequent: `ForwardCorrection` is mostly the better one.
    Log-probabilities are held above -20, below which the parts of negative weight would have no end.

    Args, Raises, Source: as `ForwardCorrection`; besides, a matrix that cannot be inverted raises LabelError.
    """

    def _prepared(self, transition: Tensor) -> Tensor:
        if not len(transition):
            return transition
        if not float(torch.linalg.cond(transition.double())) < WORST_CONDITION:
            raise LabelError("transition cannot be inverted: two classes are labelled alike. Use ForwardCorrection")
        inverse: Tensor = torch.linalg.inv(transition.double())
        return inverse.to(transition)

    def forward(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        """(B, K), (B, K) -> (B,)."""
        if not len(self.transition):
            return cross_entropy(log_probs, posterior)
        return -((posterior @ self.transition.to(posterior)) * log_probs.clamp(min=-20)).sum(dim=-1)
