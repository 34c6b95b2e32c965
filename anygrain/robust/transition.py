"""Losses corrected by a transition matrix: how probably an instance of one class is labelled as another."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.encoders.trainable import TrainableEncoder
from anygrain.labels import LabelError
from anygrain.learn.loss import AdaptiveLoss, cross_entropy
from anygrain.learn.step import RealStep, Step
from anygrain.robust.label_noise import learn_noise
from anygrain.robust.settings import above, distribution

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

WORST_CONDITION = 50.0  # of a matrix that is inverted: errors of estimation grow by it


def estimate_transition(log_probs: Tensor, posterior: Tensor, *, seed: int = 0) -> Tensor:
    r"""Transition matrix T (K, K), T[k, j] = P(given j | true k), with what the model confuses by itself taken off.

    .. math:: \max_{a, b, T} \sum_i \log \sum_k q_{ik} T_{k v_i}, \qquad q_i = \mathrm{softmax}(a \log p(x_i) + b)

    Rows that are predicted as k and labelled j are no count of label errors: a weak model is wrong by itself, and one
    that learnt from wrong labels predicts them. What tells the two apart is that errors of labels stay as frequent
    where the model is sure, and its own do not, see `anygrain.robust.label_noise.learn_noise`.

    It is biased where that does not hold: towards no errors where the model predicts exactly the probabilities of the
    wrong labels and is never sure, and towards too many where labels are wrong more often on hard rows. Errors of rare
    classes are shrunk towards those of all.

    Args:
        log_probs: (N, K), of rows that the model was not fitted to.
        posterior: (N, K), what labels say of the same rows; where that is not one class, one is drawn.
        seed: of these draws.
    """
    said = posterior.detach().double().clamp(min=0)
    sure, given = said.max(dim=1)
    open_rows = ((sure < 1 - 1e-6) & (sure > 0)).nonzero()[:, 0]
    if len(open_rows):
        draw = torch.rand(len(open_rows), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        reach = said[open_rows].cumsum(dim=1)
        given[open_rows] = (draw.to(reach) * reach[:, -1:] > reach).sum(dim=1).clamp(max=said.shape[1] - 1)
    given = torch.where(sure > 0, given, -1)
    return learn_noise(log_probs.detach().double(), given).transition[0]


def _sums_of_sure(log_probs: Tensor, posterior: Tensor, surest: float) -> Tensor:
    r"""Sums of posteriors (K, K) over the surest rows that are predicted as each class.

    Their shares :math:`T_{kj} = \frac{1}{|S_k|} \sum_{i \in S_k} q_{ij}`, with S_k the surest rows predicted as k, take
    these rows to be of their class: what labels say of them is how labels err. They add up over batches, and suit an
    encoder that was trained and is hardly wrong where it is sure.

    Source: anchors: Patrini and others, Making Deep Neural Networks Robust to Label Noise: a Loss Correction Approach,
    2017; counts of confident rows: Northcutt, Jiang and Chuang, Confident Learning, 2021.
    """
    k = log_probs.shape[1]
    best = log_probs.max(dim=1)
    predicted = torch.nn.functional.one_hot(best.indices, k).double()
    order = best.values.argsort(descending=True)
    rank = torch.empty_like(best.values, dtype=torch.float64)
    rank[order] = (predicted[order].cumsum(dim=0) * predicted[order]).sum(dim=1)
    counted = rank <= (surest * predicted.sum(dim=0)).ceil()[best.indices]
    return predicted.T @ (counted[:, None] * posterior.double())


def _rows_of_sums(sums: Tensor) -> Tensor:
    """Rows that sum to 1; the unit vector where there is nothing."""
    total = sums.sum(dim=1, keepdim=True)
    return torch.where(total > 0, sums / total.clamp(min=1e-12), torch.eye(len(sums), device=sums.device).to(sums))


class _Corrected(AdaptiveLoss):
    """A loss with a transition matrix, which is given or estimated.

    It is counted on the rows that a model is surest of: on fixed features by held-out probabilities of the recipe's
    heads before the first epoch; with a trained encoder the loss is cross-entropy for some epochs, and the last of
    these counts. A head that predicts the probabilities of wrong labels leaves nothing else to tell them by; where it
    is weak instead, and errs by itself on its surest rows, `estimate_transition` takes that off: give the loss its
    matrix.
    """

    transition: Tensor
    unmixing: Tensor
    sums: Tensor

    def __init__(self, transition: Tensor | None = None, *, surest: float = 0.5, warm_up: int = 5) -> None:
        super().__init__()
        above(surest, "surest")
        above(1 - surest, "1 - surest", open_bottom=False)
        above(warm_up, "warm_up")
        self.given, self.surest, self.warm_up = transition is not None, surest, warm_up
        matrix = torch.zeros(0, 0) if transition is None else distribution(transition, "transition")
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise LabelError(f"transition has shape {tuple(matrix.shape)}; expected (K, K), rows by true class")
        self.register_buffer("transition", matrix)
        self.register_buffer("unmixing", self._prepared(matrix))
        self.register_buffer("sums", torch.zeros(0, 0))

    def _prepared(self, transition: Tensor) -> Tensor:
        """What the loss works with."""
        return transition

    def as_given(self, log_probs: Tensor) -> Tensor:
        """Through a matrix that was given; an estimate takes what the model cannot tell apart for errors of labels."""
        if not self.given:
            return log_probs
        return (log_probs.exp() @ self.transition.to(log_probs)).clamp(min=1e-30).log()

    def on_fit_start(self, learner: Learner) -> None:
        k = learner.labels_.n_classes
        if self.given:
            if len(self.transition) != k:
                raise LabelError(f"transition has {len(self.transition)} classes; the labels have {k}")
            return
        if isinstance(learner.encoder_, TrainableEncoder):
            self._keep(torch.eye(k))
            self.sums = torch.zeros(k, k, dtype=torch.float64)
            return
        held = torch.as_tensor(learner.held_out_)
        where = held if bool(held.any()) else torch.ones_like(held)
        said = torch.as_tensor(learner.held_out_log_probs_)[where]
        posterior = torch.as_tensor(learner.posterior_)[where]
        self._keep(_rows_of_sums(_sums_of_sure(said, posterior, self.surest)))

    def _keep(self, transition: Tensor) -> None:
        self.transition, self.unmixing = transition, self._prepared(transition)

    def on_epoch_start(self, epoch: int) -> None:
        if self.given or not len(self.sums):
            return
        if epoch == self.warm_up:
            self._keep(_rows_of_sums(self.sums))
        self.sums = torch.zeros_like(self.sums)

    def after_step(self, step: Step | RealStep) -> None:
        if self.given or not len(self.sums) or not isinstance(step, Step) or step.epoch >= self.warm_up:
            return
        self.sums = self.sums + _sums_of_sure(step.log_probs.detach(), step.posterior, self.surest).to(self.sums)


class ForwardCorrection(_Corrected):
    r"""Cross-entropy of the labels as they are given: the model's classes go through the transition matrix first.

    .. math:: -\sum_j q_j \log \sum_k p_k T_{kj}

    Its minimum is the model of the true classes where T is right. The posterior q is taken for a label that may be
    wrong; where the kind of label knows its own errors (`Noisy`, `Crowd`), these need no correction.

    Args:
        transition: T, (K, K), T[k, j] = P(given j | true k); None: estimated, see `estimate_transition`.
        surest: with a trained encoder: share of the rows predicted as a class that is counted.
        warm_up: with a trained encoder: epochs of cross-entropy before the estimate.

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

    Args, Raises, Source: as `ForwardCorrection`; besides, a matrix given that cannot be inverted raises LabelError.
    One that is estimated warns, and the loss stays cross-entropy.
    """

    def _prepared(self, transition: Tensor) -> Tensor:
        if not len(transition):
            return transition
        if not float(torch.linalg.cond(transition.double())) < WORST_CONDITION:
            if self.given:
                raise LabelError("transition cannot be inverted: two classes are labelled alike. Use ForwardCorrection")
            warnings.warn(
                "BackwardCorrection: the estimated transition matrix cannot be inverted, as two classes are labelled "
                "alike. The loss stays cross-entropy. Use ForwardCorrection, or give transition",
                stacklevel=2,
            )
            return torch.eye(len(transition)).to(transition)
        inverse: Tensor = torch.linalg.inv(transition.double())
        return inverse.to(transition)

    def forward(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        """(B, K), (B, K) -> (B,)."""
        if not len(self.transition):
            return cross_entropy(log_probs, posterior)
        return -((posterior @ self.unmixing.to(posterior)) * log_probs.clamp(min=-20)).sum(dim=-1)
