"""Class priors that labels state: of the rows pooled for training, and of the population spoken about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.labels import All, LabelError, Labels
from anygrain.labels.sampling import SampledRows, check_prior
from anygrain.learn.step import Step
from anygrain.learn.term import Term

#: how the class prior of predictions may be given
Prior = str | float | Sequence[float] | np.ndarray | Tensor | Mapping[Any, float] | None


def pooled_prior(labels: Labels) -> tuple[Tensor, Tensor] | None:
    """The class prior (K,) of pooled rows and which instances these are, bool (N,), where labels state it."""
    for part in labels.parts if isinstance(labels, All) else [labels]:
        prior = part.pooled_prior
        if prior is not None:
            inside = part.group >= 0 if isinstance(part, SampledRows) else torch.ones_like(part.rows, dtype=torch.bool)
            return prior, inside
    return None


class StatedPrior(Term):
    r"""Keeps the mean prediction of pooled rows at the class prior that their labels state.

    .. math:: \mathrm{KL}\Big(\pi \,\Big\|\, \frac1B \sum_i p_i\Big)

    over the pooled rows of a batch: per row, minus the log-likelihood of class counts in the shares pi. How rows were
    sampled tells a network little about any single one; one that remembers rows would forget the prior.

    Args:
        prior: of the pooled rows, (K,).
        inside: which instances these are, bool (N,).
    """

    def __init__(self, prior: Tensor, inside: Tensor) -> None:
        super().__init__()
        self.register_buffer("prior", prior, persistent=False)
        self.register_buffer("inside", inside, persistent=False)

    prior: Tensor
    inside: Tensor

    def forward(self, step: Step) -> Tensor:
        mine = self.inside[step.instances]
        share = step.log_probs.exp()[mine].sum(dim=0) / mine.sum().clamp(min=1)
        prior = self.prior.to(share)
        return torch.where(mine.any(), torch.xlogy(prior, prior / share.clamp(min=1e-6)).sum(), share.sum() * 0)


def class_prior_of(labels: Labels, posterior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class prior of training rows, as labels state it or as the mean of posteriors (N, K), and `log_prior_shift`."""
    stated = pooled_prior(labels)
    if stated is not None and bool(stated[1].all()):
        prior = np.asarray(stated[0].cpu().numpy())
    else:
        prior = posterior.astype(np.float64).mean(axis=0)
    return prior, np.asarray(labels.log_prior_shift.cpu().numpy())


def shift_to(
    prior: Prior, classes: Sequence[Any], class_prior: np.ndarray, log_prior_shift: np.ndarray
) -> Tensor | None:
    r"""What is added to the log-probabilities of training rows to speak of rows of another class prior.

    .. math:: \log \pi_{\text{new}}(y) - \log \pi_{\text{train}}(y)

    Args:
        prior: None: of the training rows, as they were pooled. "population": of the population that the labels were
            sampled from. An array (K,) in the order of the classes, a mapping from class to probability, or, for two
            classes, the probability of the second.
        classes: the K classes.
        class_prior: of the training rows, (K,).
        log_prior_shift: from the training rows to the population, (K,).

    Returns:
        (K,), or None where nothing is added.

    Raises:
        LabelError: a prior of another shape, outside (0, 1), that does not sum to 1, or of an unknown class.
    """
    if prior is None:
        return None
    if isinstance(prior, str):
        if prior != "population":
            raise LabelError(f'prior is "{prior}"; expected "population", None, or a probability per class')
        return torch.as_tensor(log_prior_shift) if (log_prior_shift != 0).any() else None
    if isinstance(prior, Mapping):
        odd = [c for c in prior if c not in set(classes)]
        gone = [c for c in classes if c not in prior]
        if odd or gone:
            raise LabelError(
                f"the class prior {'names' if odd else 'lacks'} {(odd or gone)[0]!r}; expected the classes "
                f"{', '.join(map(str, classes[:6]))}{', ...' if len(classes) > 6 else ''}"
            )
        prior = [float(prior[c]) for c in classes]
    wanted = check_prior(prior, len(classes))
    return wanted.log() - torch.as_tensor(class_prior).clamp(min=1e-12).log()


def shifted(log_probs: Tensor, shift: Tensor | None) -> Tensor:
    """Log-probabilities (N, K) with a shift (K,) added, normalised."""
    return log_probs if shift is None else (log_probs + shift.to(log_probs)).log_softmax(dim=1)
