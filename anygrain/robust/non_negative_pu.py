"""Non-negative risk of positive and unlabelled rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from anygrain.labels import All, LabelError, Positive
from anygrain.labels.positive import LABELLED
from anygrain.learn.step import Step
from anygrain.learn.term import Term
from anygrain.robust.settings import share

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

Surrogate = Literal["sigmoid", "log"]


def log_odds_parts(log_probs: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """log p and log(1 - p) of a class, both (B,), from log-probabilities (B, K)."""
    others = log_probs.clone()
    others[:, target] = -torch.inf
    return log_probs[:, target], others.logsumexp(dim=1).clamp(max=-1e-12)


def pu_risk(
    log_probs: Tensor,
    labelled: Tensor,
    unlabelled: Tensor,
    prior: float,
    *,
    target: int = 1,
    surrogate: Surrogate = "sigmoid",
    non_negative: bool = True,
    slack: float = 0.0,
    back: float = 1.0,
) -> Tensor:
    r"""The risk of telling one class from the rest, without a row known to be of the rest; a scalar with gradient.

    .. math:: \pi \hat R_P^+ + \max\big(0, \hat R_U^- - \pi \hat R_P^-\big)

    The second part estimates the risk of the other classes, which is not below 0; where the estimate falls below
    -slack the model has learnt rows by heart, and the gradient is turned round: that of :math:`-g (\hat R_U^- - \pi
    \hat R_P^-)`, the value is the risk all the same.

    Args:
        log_probs: (B, K).
        labelled: bool (B,), rows known to be of the target class.
        unlabelled: bool (B,), a sample of the population.
        prior: pi, share of the target class in the population.
        surrogate: "sigmoid", 1 - p and p, or "log", -log p and -log(1 - p).
        non_negative: False leaves the maximum out, which gives the unbiased risk.
        slack, back: the two constants of the rule above.

    Source: Kiryo, Niu, du Plessis and Sugiyama, Positive-Unlabeled Learning with Non-Negative Risk Estimator, 2017; the
    unbiased risk: du Plessis, Niu and Sugiyama, 2014.
    """
    yes, no = log_odds_parts(log_probs, target)
    as_positive, as_negative = (no.exp(), yes.exp()) if surrogate == "sigmoid" else (-yes, -no)

    def mean(values: Tensor, rows: Tensor) -> Tensor:
        return (values * rows).sum() / rows.sum().clamp(min=1)

    positive = prior * mean(as_positive, labelled)
    negative = mean(as_negative, unlabelled) - prior * mean(as_negative, labelled)
    if not non_negative:
        return positive + negative
    if float(negative.detach()) >= -slack:
        return positive + negative
    turned = -back * negative
    return turned + (positive.detach() - turned.detach())


class NonNegativePU(Term):
    r"""The non-negative risk of `Positive` labels as the objective of a fit; use it with `loss=terms_alone`.

    In one training set ("single") all rows are the sample of the population, with case-control the unlabelled ones. The
    class prior is that of the labels, or what `Learner.fit` estimates. See `pu_risk` for the formula. The network
    speaks of the rows as they were pooled; the risk, that of the population, is taken of what it says once moved there.

    Args:
        prior: in place of that of the labels.
        surrogate: "sigmoid" or "log".
        slack, back: see `pu_risk`.

    Raises:
        LabelError: in a fit, labels without a `Positive`.
    """

    labelled: Tensor
    unlabelled: Tensor

    def __init__(
        self, prior: float | None = None, *, surrogate: Surrogate = "sigmoid", slack: float = 0.0, back: float = 1.0
    ) -> None:
        super().__init__()
        if prior is not None and not 0 < prior < 1:
            raise LabelError(f"prior is {prior}; expected a number between 0 and 1")
        if surrogate not in ("sigmoid", "log"):
            raise LabelError(f'surrogate is "{surrogate}"; expected "sigmoid" or "log"')
        share(back, "back", open_top=False)
        self.given, self.surrogate, self.slack, self.back = prior, surrogate, slack, back

    def on_fit_start(self, learner: Learner) -> None:
        labels = learner.labels_
        parts = labels.parts if isinstance(labels, All) else [labels]
        found = next((part for part in parts if isinstance(part, Positive)), None)
        if found is None:
            raise LabelError("NonNegativePU is for Positive labels: rows of one class, and unlabelled ones")
        prior = found.prior if self.given is None else self.given
        assert prior is not None  # a fit estimates it, or refuses
        self.prior, self.target = float(prior), found.target_class
        self.labelled = found.group == LABELLED
        self.unlabelled = found.group >= 0 if found.scenario == "single" else found.group > LABELLED
        self.log_prior_shift = labels.log_prior_shift

    def forward(self, step: Step) -> Tensor:
        at = step.instances.to(self.labelled.device)
        log_probs = step.log_probs + self.log_prior_shift.to(step.log_probs)
        if step.shift is not None:
            log_probs = log_probs - step.shift.to(log_probs)
        return pu_risk(
            log_probs.log_softmax(dim=1),
            self.labelled[at].to(step.log_probs.device),
            self.unlabelled[at].to(step.log_probs.device),
            self.prior,
            target=self.target,
            surrogate=self.surrogate,
            slack=self.slack,
            back=self.back,
        )
