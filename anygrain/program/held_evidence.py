"""What a fitted model makes of rows that it did not see: the likelihood of their labels, and of their truth."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch

from anygrain.data.dataset import Dataset, Given, combined
from anygrain.data.number_dataset import NumberDataset
from anygrain.data.tag_dataset import TagDataset
from anygrain.labels import Labels, Positive, RealAll, SetLabels, aggregate


@dataclass
class Truth(ABC):
    """Predictions beside given truths of some rows, which may be none."""

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The rows of several, one after another."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    @abstractmethod
    def by_row(self) -> dict[str, np.ndarray]:
        """Measures that are means over rows."""

    @abstractmethod
    def of_all(self) -> dict[str, float]:
        """Measures that are not."""


@dataclass
class ClassTruth(Truth):
    """Probabilities (T, K) and exact classes (T,)."""

    probs: np.ndarray
    truth: np.ndarray

    def by_row(self) -> dict[str, np.ndarray]:
        from anygrain.metrics import log_losses

        if not len(self.truth):
            return {}
        right = (self.probs.argmax(axis=1) == self.truth).astype(float)
        return {"accuracy": right, "log_loss": np.asarray(log_losses(self.probs, self.truth))}

    def of_all(self) -> dict[str, float]:
        from anygrain.metrics import expected_calibration_error

        if not len(self.truth):
            return {}
        recalls = [(self.probs.argmax(axis=1) == k)[self.truth == k].mean() for k in np.unique(self.truth)]
        return {
            "balanced_accuracy": float(np.mean(recalls)),
            "calibration_error": expected_calibration_error(self.probs, self.truth),
        }


@dataclass
class TagTruth(Truth):
    """Probabilities of on (T, L), and what is given, 1, 0 or -1, (T, L)."""

    probs: np.ndarray
    truth: np.ndarray

    def by_row(self) -> dict[str, np.ndarray]:
        return {}

    def of_all(self) -> dict[str, float]:
        from anygrain.metrics import mean_average_precision, micro_f1

        known = self.truth >= 0
        if not (self.truth == 1).any() or not (self.truth == 0).any():
            return {}
        right = (self.probs > 0.5) == (self.truth == 1)
        return {
            "mAP": mean_average_precision(self.probs, self.truth),
            "micro_F1": micro_f1(self.probs, self.truth),
            "entries_right": float(right[known].mean()),
        }


@dataclass
class NumberTruth(Truth):
    """Means, standard deviations and given values, all (T,)."""

    mean: np.ndarray
    sd: np.ndarray
    truth: np.ndarray

    def by_row(self) -> dict[str, np.ndarray]:
        return {"mean_absolute_error": np.abs(self.mean - self.truth)} if len(self.truth) else {}

    def of_all(self) -> dict[str, float]:
        from anygrain.metrics import crps, rmse

        if not len(self.truth):
            return {}
        return {"rmse": rmse(self.mean, self.truth), "crps": crps(self.mean, self.sd, self.truth)}


def held_out_scores(learner: Any, data: Any, dataset: Given[Any], rows: np.ndarray) -> tuple[np.ndarray, Truth]:
    """Log-likelihood of what is observed of held-out rows, (M,), and predictions beside their given truth.

    Channels (annotators, noise) and a class prior that the fit estimated are those of the fit.

    Args:
        learner: fitted to other rows.
        data: of the held-out rows, as the Learner reads it.
        dataset: of all rows.
        rows: numbers of the held-out rows, (R,).
    """
    chosen = torch.from_numpy(rows)
    parts = [copy.deepcopy(e.labels)[chosen] for e in dataset.evidence]
    named = [torch.from_numpy(e.rows[rows]) for e in dataset.evidence]
    if isinstance(dataset, NumberDataset):
        from anygrain.program.of_numbers import adopt_channels as adopt_numbers

        adopt_numbers(parts, learner.labels_)
        found = learner.predict_distribution(data)
        labels = RealAll(*parts) if len(parts) > 1 else parts[0]
        mean, variance = (torch.from_numpy(np.asarray(v)).double() for v in (found.mean, np.square(found.sd)))
        value = labels.infer(mean[labels.rows], variance[labels.rows])[0]
        given = dataset.values()[0][rows]
        known = ~np.isnan(given)
        return value.numpy(), NumberTruth(found.mean[known], found.sd[known], given[known])
    from anygrain.program.of_classes import adopt_channels

    adopt_channels(parts, learner.labels_)
    estimate = getattr(learner, "class_prior_estimate_", None)
    parts = [
        p.with_possible_prior(estimate.estimate)
        if estimate is not None and isinstance(p, Positive) and p.prior is None
        else p
        for p in parts
    ]
    if isinstance(dataset, TagDataset):
        from anygrain.learn.tags import instance_log_probs

        log_probs = instance_log_probs(learner, data, combined(parts)).double()
        value = _observed(parts, named, log_probs, learner.error_)
        given = dataset.given()[rows]
        told = (given >= 0).any(axis=1)
        return value, TagTruth(np.asarray(learner.predict_proba(data))[told], given[told])
    log_probs = learner.log_probs(data, prior=None).double()
    assert isinstance(dataset, Dataset)
    exact = dataset.exact()[rows]
    truth = ClassTruth(log_probs.exp().numpy()[exact >= 0], exact[exact >= 0])
    labels = combined(parts)
    return _observed(parts, named, log_probs[labels.rows], learner.error_), truth


def _observed(
    parts: Sequence[Labels], named: Sequence[torch.Tensor], log_probs: torch.Tensor, error: float
) -> np.ndarray:
    """Log-likelihood (M,) of labels of instances with log-probabilities (N, K).

    Rules and teachers saw the features that the model sees; they are only scored where nothing else is known, and then
    as the belief that all of them come to.

    Args:
        named: of every kind, bool (R,): rows with a label.
    """
    others = [part for part in parts if not part.given_x]
    if not others:
        belief = aggregate(combined(list(parts))).posterior.to(log_probs)
        return np.asarray((belief * log_probs).sum(dim=1).numpy())
    labels = combined(others)
    if error:
        labels = labels.with_error(error)
    value = labels.infer(log_probs)[0]
    said = _said(labels, others, [n for n, part in zip(named, parts, strict=True) if not part.given_x])
    return np.asarray(value[said].numpy())


def _said(labels: Labels, parts: Sequence[Labels], named: Sequence[torch.Tensor]) -> torch.Tensor:
    """bool (M,): observations that say anything; single instances of which nothing is known are none.

    The same whatever a fit made of the sources: votes that cancel each other say something too.
    """
    told = torch.zeros(labels.n_instances, dtype=torch.bool)
    for part, rows in zip(parts, named, strict=True):
        if isinstance(part, SetLabels):
            continue
        if part.channels:
            told |= rows[part.rows]
        else:
            uniform = torch.full((labels.n_instances, labels.n_classes), -float(np.log(labels.n_classes)))
            told |= (part.posterior(uniform) - uniform.exp()).abs().max(dim=1).values > 1e-6
    structure = labels.structure
    if not structure.n_sets:
        return told
    return torch.cat([torch.ones(structure.n_sets, dtype=torch.bool), told[structure.free]])
