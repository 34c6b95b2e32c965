"""ConR: features of rare numbers are kept from falling in with those of frequent ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from anygrain.labels import LabelError
from anygrain.learn.step import RealStep
from anygrain.learn.term import Term
from anygrain.robust.settings import above

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

Push = Literal["exponential", "linear"]


def density_weights(values: Tensor, *, bins: int = 50, width: float = 1.0, power: float = 1.0) -> Tensor:
    r"""Weights (N,) of mean 1, larger where a number is rare; 1 where it is missing (NaN).

    .. math:: \omega_i \propto \tilde n(y_i)^{-p}

    with :math:`\tilde n` the histogram over `bins` equal parts of the range, smoothed by a Gaussian of `width` bins.
    They also serve as `weight=` of the labels themselves. `power` 1/2 is the square root that is often taken.

    Source: label distribution smoothing, Yang and others, Delving into Deep Imbalanced Regression, 2021.
    """
    known = ~values.isnan()
    out = torch.ones_like(values)
    if not bool(known.any()):
        return out
    given = values[known].double()
    low, high = given.min(), given.max()
    place = ((given - low) / (high - low).clamp(min=1e-12) * bins).long().clamp(max=bins - 1)
    count = torch.bincount(place, minlength=bins).double()
    at = torch.arange(bins, dtype=torch.float64, device=values.device)
    kernel = torch.exp(-0.5 * ((at[:, None] - at) / max(width, 1e-6)).square())
    kernel = kernel * ((at[:, None] - at).abs() <= 4 * max(width, 1e-6))
    smooth = (kernel / kernel.sum(dim=1, keepdim=True)) @ count
    weight = smooth[place] ** -power
    out[known] = (weight / weight.mean()).to(values)
    return out


def contrastive_regularizer(
    features: Tensor,
    targets: Tensor,
    predictions: Tensor,
    weights: Tensor | None = None,
    *,
    window: float,
    temperature: float = 0.07,
    slope: float = 0.01,
    push: Push = "exponential",
    offset: bool = False,
) -> Tensor:
    r"""The contrastive regulariser of a batch, a scalar.

    With unit features q, :math:`D_{ij} = |y_i - y_j|`, :math:`\hat D_{ij} = |\hat y_i - \hat y_j|`, an anchor j has
    positives :math:`P_j = \{i \ne j: D_{ij} \le w\}` and negatives
    :math:`N_j = \{i: D_{ij} > w, \hat D_{ij} \le w\}`, which are far apart and predicted to be near:

    .. math:: L_j = -\frac{1}{|P_j|} \sum_{i \in P_j} \log \frac{e^{q_j q_i / \tau}}{\sum_{p \in P_j} e^{q_j q_p / \tau}
              + \sum_{n \in N_j} \omega_j g(D_{jn}) e^{q_j q_n / \tau}}, \qquad
              L = \frac1B \sum_j \omega_j [N_j \ne \emptyset]\, L_j

    with g(D) = exp(e D), or e D ("linear"). Anchors without a positive or a negative have no part in it.

    Args:
        features: (B, D).
        targets: y, (B,) or (B, T).
        predictions: as targets; no gradient goes through them.
        weights: omega, (B,), larger where a target is rare; None: 1.
        window: w, in the unit of the targets.
        temperature: tau.
        slope: e, per unit of the targets: where these are large numbers it must be small.
        offset: adds 1 to the denominator for every row of the batch that is not a positive, as the code of the authors
            does by summing the exponentials of what it has masked with 0; to compare with it.

    Source: Keramati, Meng and Evans, ConR: Contrastive Regularizer for Deep Imbalanced Regression, 2024.
    """
    weights = features.new_ones(len(features)) if weights is None else weights.to(features)
    y = targets.detach().reshape(len(features), -1).double()
    said = predictions.detach().reshape(len(features), -1).double()
    apart, predicted = torch.cdist(y, y), torch.cdist(said, said)
    other = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    positive = other & (apart <= window)
    negative = other & (apart > window) & (predicted <= window)
    unit = normalize(features, dim=1)
    likeness = unit @ unit.T / temperature
    pushed = (slope * apart) if push == "exponential" else (slope * apart).clamp(min=1e-30).log()
    log_push = weights.clamp(min=1e-30).log()[:, None] + pushed.to(features)
    none = likeness.new_full((), -torch.inf)
    parts = torch.where(positive, likeness, torch.where(negative, likeness + log_push, none))
    if offset:
        zeros = torch.zeros_like(likeness[:, :1])
        rest = (len(features) - positive.sum(dim=1)).clamp(min=0).to(likeness)
        extra = zeros[:, 0] + rest.clamp(min=1e-30).log()
        parts = torch.cat([parts, extra[:, None]], dim=1)
    counted = positive.any(dim=1) & negative.any(dim=1)
    if not bool(counted.any()):
        return 0 * features.sum()
    whole = parts[counted].logsumexp(dim=1)
    mine = torch.where(positive, likeness, 0).sum(dim=1)[counted] / positive.sum(dim=1)[counted]
    return (weights[counted] * (whole - mine)).sum() / len(features)


class ConR(Term):
    r"""The contrastive regulariser for labels of a number, with a trained encoder.

    Targets are the means that the evidence gives (of `Value` the values themselves), on a scale on which the range of
    the training numbers is 1; window and slope are on that scale. Rows are seen once per step, so an anchor whose
    number nobody in the batch shares has no part; a batch must hold rare rows for them to be helped.

    Args:
        strength: beta, the factor of the term. The 4 of the source stands beside absolute errors of years; beside
            the likelihood here .2 is about as much.
        window: w, as a share of the range.
        temperature: tau.
        slope: e; 1 is the .01 of the source over 100 years.
        weighted: whether anchors weigh by `density_weights`.

    Raises:
        LabelError: a number that is not above 0, or, in a fit, labels of classes.

    Source: Keramati, Meng and Evans, 2024.
    """

    weights: Tensor

    def __init__(
        self,
        strength: float = 0.2,
        *,
        window: float = 0.05,
        temperature: float = 0.07,
        slope: float = 1.0,
        weighted: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (("strength", strength), ("window", window), ("temperature", temperature)):
            above(value, name)
        above(slope, "slope", open_bottom=False)
        self.strength, self.window, self.temperature = strength, window, temperature
        self.slope, self.weighted, self.range = slope, weighted, 1.0

    def on_fit_start(self, learner: Learner) -> None:
        if learner.space_ != "real":
            raise LabelError(f"ConR is for labels of a number; these speak of {learner.space_}")
        labels: Any = learner.labels_
        rough: Tensor = labels.rough()
        known = rough[~rough.isnan()]
        spread = float(known.max() - known.min()) if len(known) else 0.0
        self.range = spread if spread > 0 else 1.0
        self.weights = density_weights(rough) if self.weighted else torch.ones_like(rough)

    def forward(self, step: RealStep) -> Tensor:
        weights = self.weights[step.instances.to(self.weights.device)]
        return self.strength * contrastive_regularizer(
            step.features,
            step.posterior.to(step.features.device) / self.range,
            step.mean.to(step.features.device) / self.range,
            weights.to(step.features),
            window=self.window,
            temperature=self.temperature,
            slope=self.slope,
        )
