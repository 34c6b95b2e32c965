"""Logit adjustment: the model learns what tells classes apart, not how frequent they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.learn.loss import AdaptiveLoss, cross_entropy
from anygrain.robust.class_counts import class_counts
from anygrain.robust.settings import above, distribution

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


class LogitAdjustment(AdaptiveLoss):
    r"""Cross-entropy of probabilities that the class prior is put back into.

    .. math:: -\sum_k q_k \log \frac{p_k \pi_k^\tau}{\sum_l p_l \pi_l^\tau}

    So p itself is as if every class were as frequent (at :math:`\tau = 1`), which has the least balanced error. Where
    the population is as skewed as the training rows, probabilities of the fitted model are too high for rare classes.

    Args:
        tau: how far, at least 0; 0 is cross-entropy.
        prior: pi, (K,); None: class counts of the posteriors (on fixed features) or of the evidence alone.

    Raises:
        LabelError: a negative tau, a prior that is no distribution, or, in a fit, one of another number of classes.

    Source: Menon and others, Long-tail Learning via Logit Adjustment, 2021.
    """

    log_prior: Tensor

    def __init__(self, tau: float = 1.0, prior: Tensor | None = None) -> None:
        super().__init__()
        above(tau, "tau", open_bottom=False)
        self.tau, self.given = tau, prior is not None
        found = torch.zeros(0) if prior is None else distribution(prior, "prior").clamp(min=1e-12).log()
        self.register_buffer("log_prior", found)

    def on_fit_start(self, learner: Learner) -> None:
        counts = class_counts(learner)
        if not self.given:
            self.log_prior = (counts.clamp(min=0.5) / counts.clamp(min=0.5).sum()).log()
        elif len(self.log_prior) != len(counts):
            from anygrain.labels import LabelError

            raise LabelError(f"prior has {len(self.log_prior)} classes; the labels have {len(counts)}")

    def forward(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        """(B, K), (B, K) -> (B,); without a prior, before any fit, cross-entropy."""
        if len(self.log_prior):
            log_probs = (log_probs + self.tau * self.log_prior.to(log_probs)).log_softmax(dim=-1)
        return cross_entropy(log_probs, posterior)
