"""AnyLoss: measures that are read off a confusion matrix, as losses."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from anygrain.labels import LabelError
from anygrain.learn.loss import AdaptiveLoss
from anygrain.robust.settings import above

#: (TN, FP, FN, TP) -> value, of one shape; the higher the better
Measure = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

Average = Literal["macro", "micro"]


def _over(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where there is nothing."""
    there = whole > 0
    return torch.where(there, part / torch.where(there, whole, torch.ones_like(whole)), torch.zeros_like(part))


def _root(value: Tensor) -> Tensor:
    """A square root whose slope at 0 is finite."""
    return (value.clamp(min=0) + 1e-12).sqrt()


def f_beta(beta: float) -> Measure:
    r""":math:`(1 + \beta^2) TP / ((1 + \beta^2) TP + \beta^2 FN + FP)`."""

    def measure(tn: Tensor, fp: Tensor, fn: Tensor, tp: Tensor) -> Tensor:
        return _over((1 + beta**2) * tp, (1 + beta**2) * tp + beta**2 * fn + fp)

    return measure


def mcc(tn: Tensor, fp: Tensor, fn: Tensor, tp: Tensor) -> Tensor:
    """Matthews' correlation of truth and prediction, -1 to 1."""
    spread = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / _root(spread)


#: by name; f_beta is made from its beta
MEASURES: dict[str, Measure] = {
    "accuracy": lambda tn, fp, fn, tp: _over(tn + tp, tn + fp + fn + tp),
    "f1": f_beta(1.0),
    "balanced_accuracy": lambda tn, fp, fn, tp: (_over(tp, tp + fn) + _over(tn, tn + fp)) / 2,
    "geometric_mean": lambda tn, fp, fn, tp: _root(_over(tp, tp + fn) * _over(tn, tn + fp)),
    "mcc": mcc,
    "jaccard": lambda tn, fp, fn, tp: _over(tp, tp + fp + fn),
    "precision": lambda tn, fp, fn, tp: _over(tp, tp + fp),
    "recall": lambda tn, fp, fn, tp: _over(tp, tp + fn),
    "specificity": lambda tn, fp, fn, tp: _over(tn, tn + fp),
}


def amplify(probability: Tensor, sharpness: float) -> Tensor:
    r""":math:`A(p) = 1 / (1 + \exp(-L (p - 1/2)))`: nearly a decision, and still with a slope around 1/2."""
    return (sharpness * (probability - 0.5)).sigmoid()


def soft_counts(decision: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """TN, FP, FN, TP, each (C,), of soft decisions and targets in 0..1, both (B, C)."""
    tp = (target * decision).sum(dim=0)
    fp = ((1 - target) * decision).sum(dim=0)
    fn = (target * (1 - decision)).sum(dim=0)
    tn = ((1 - target) * (1 - decision)).sum(dim=0)
    return tn, fp, fn, tp


class AnyLoss(AdaptiveLoss):
    r"""1 - g(TN, FP, FN, TP) of soft decisions of a batch.

    .. math:: \hat y_i = A(p_i), \quad TP = \sum_i y_i \hat y_i, \quad FP = \sum_i (1 - y_i) \hat y_i, \quad \dots

    With two classes p is the probability of `positive`, and y its posterior. With more, every class is one against the
    rest, with :math:`p_k = \tfrac12 + \tfrac12 (P_k - \max_{l \ne k} P_l)`, so that a class is decided for where it is
    the likeliest; "macro" averages g over the classes of the batch, "micro" adds counts first. Of tags, each entry is
    one decision.

    The value is that of the whole batch, the same for each of its instances, so weights of instances do not act on it.
    A measure of a batch is not that of all rows: batches should hold 20 positives or more. It is no proper scoring
    rule: probabilities are calibrated by their mean confidence only, and mean little where decisions are what counts.

    Args:
        measure: "f1", "f_beta" (with `beta`), "balanced_accuracy", "geometric_mean", "accuracy", "mcc", "jaccard",
            "precision", "recall", "specificity", or a function (TN, FP, FN, TP) -> value to be made large.
        beta: of "f_beta".
        sharpness: L.
        start: sharpness in the first epoch, from where it rises to L over `rise` epochs; None: L throughout. A
            small one reaches instances far from the border of decision, where a steep amplifier has no slope.
        rise: epochs.
        positive: of two classes.
        average: of more than two.

    Raises:
        LabelError: a measure or an average that is not known, numbers that are not above 0.

    Source: Han, Moniz and Chawla, AnyLoss: Transforming Classification Metrics into Loss Functions, 2024. Sharpness 73
    is theirs; the rise and the rule for several classes are ours.
    """

    def __init__(
        self,
        measure: str | Measure = "balanced_accuracy",
        *,
        beta: float = 1.0,
        sharpness: float = 73.0,
        start: float | None = None,
        rise: int = 10,
        positive: int = 1,
        average: Average = "macro",
    ) -> None:
        super().__init__()
        for name, value in (("beta", beta), ("sharpness", sharpness), ("rise", rise)):
            above(value, name)
        if start is not None:
            above(start, "start")
        if isinstance(measure, str) and measure not in (*MEASURES, "f_beta"):
            close = difflib.get_close_matches(measure, [*MEASURES, "f_beta"], n=1)
            hint = f'Did you mean "{close[0]}"?' if close else "Expected one of " + ", ".join([*MEASURES, "f_beta"])
            raise LabelError(f'measure "{measure}" is not known. {hint}')
        if average not in ("macro", "micro"):
            raise LabelError(f'average is "{average}"; expected "macro" or "micro"')
        if positive not in (0, 1):
            raise LabelError(f"positive is {positive}; expected 0 or 1, one of two classes")
        self.measure: Measure = (
            (f_beta(beta) if measure == "f_beta" else MEASURES[measure]) if isinstance(measure, str) else measure
        )
        self.sharpness, self.start, self.rise = sharpness, start, rise
        self.positive, self.average = positive, average
        self.now = sharpness if start is None else start

    def on_epoch_start(self, epoch: int) -> None:
        first = self.sharpness if self.start is None else self.start
        self.now = first + (self.sharpness - first) * min(epoch / self.rise, 1.0)

    def decisions(self, log_probs: Tensor) -> Tensor:
        """Soft decisions (B, C): one column for two classes, else one per class."""
        probs = log_probs.exp()
        if probs.shape[-1] == 2:
            return amplify(probs[..., self.positive : self.positive + 1], self.now)
        top = probs.topk(2, dim=-1).values
        other = torch.where(probs == top[..., :1], top[..., 1:], top[..., :1])
        return amplify(0.5 + 0.5 * (probs - other), self.now)

    def value(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        """1 - g of a batch, a scalar, from (B, K) and (B, K)."""
        decision = self.decisions(log_probs)
        target = posterior[..., self.positive : self.positive + 1] if posterior.shape[-1] == 2 else posterior
        counts = soft_counts(decision, target)
        if self.average == "micro":
            tn, fp, fn, tp = (count.sum() for count in counts)
            return 1 - self.measure(tn, fp, fn, tp)
        there = (target.sum(dim=0) > 0).to(log_probs) if target.shape[-1] > 1 else log_probs.new_ones(1)
        return 1 - (there * self.measure(*counts)).sum() / there.sum().clamp(min=1)

    def forward(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        """(B, K), (B, K) -> (B,), all the same."""
        return self.value(log_probs, posterior).expand(len(log_probs))
