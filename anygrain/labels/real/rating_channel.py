"""Annotators of numbers: a bias, a variance and a use of the scale each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from anygrain.labels.error import LabelError

STRENGTHS = tuple(float(s) for s in torch.logspace(-1, 9, 21, base=2.0))  # ratings that the pooled variance is worth
PASSES = 5  # of coordinate ascent within a step


class RatingChannel(nn.Module):
    r"""Ratings :math:`r = y + b_j + (c_j - 1)(y - \mu) + N(0, v_j)` of annotators j = 1..W.

    .. math:: b_j \sim N(0, \tau^2), \qquad c_j \sim N(1, \kappa^2), \qquad
              \log p(v_j) = -\frac{s}{2} \Big( \log v_j + \frac{v_0}{v_j} \Big)

    b is an annotator's bias at the centre :math:`\mu` of the scale, v their variance, and c their use of the scale, 1
    unless it is learnt. EM over any number of shards: `statistics` add up, `update` raises the penalised objective,
    `learn_prior` estimates :math:`\tau, \kappa, v_0` and s from all annotators together, as the channels of votes do.
    Before the first update all annotators are alike. Somebody unknown (-1) is an annotator drawn from the prior.

    Args:
        n_annotators: W.
        scale: standard deviation of the ratings, where the variances start.
        centre: mu, such as the mean of the ratings.
        slope: whether the use of the scale, c, is learnt.

    Source: Raykar and others, Learning from crowds, 2010; Dempster, Laird and Rubin, 1977.
    """

    bias: Tensor
    variance: Tensor
    slope: Tensor
    count: Tensor
    bias_variance: Tensor
    slope_variance: Tensor
    pooled: Tensor
    strength: Tensor
    centre: Tensor
    prior_is_settled: bool = False

    def __init__(self, n_annotators: int, scale: float = 1.0, centre: float = 0.0, slope: bool = False):
        super().__init__()
        if not scale > 0:
            raise LabelError(f"scale is {scale}; expected the standard deviation of the ratings, above 0")
        self.n_annotators, self.with_slope = int(n_annotators), bool(slope)
        one = torch.ones(self.n_annotators, dtype=torch.float64)
        start = float(scale) ** 2
        self.register_buffer("bias", torch.zeros_like(one))
        self.register_buffer("variance", one * (0.5 * start))
        self.register_buffer("slope", one.clone())
        self.register_buffer("count", torch.zeros_like(one))
        self.register_buffer("bias_variance", torch.tensor(0.1 * start, dtype=torch.float64))
        self.register_buffer("slope_variance", torch.tensor(0.05, dtype=torch.float64))
        self.register_buffer("pooled", torch.tensor(0.5 * start, dtype=torch.float64))
        self.register_buffer("centre", torch.tensor(float(centre), dtype=torch.float64))
        self.register_buffer("strength", torch.tensor(4.0, dtype=torch.float64))

    def reading(self, annotators: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slope, offset and variance of ratings, r = slope * y + offset + N(0, variance), all (R,)."""
        known = annotators >= 0
        at = annotators.clamp(min=0)
        if not self.n_annotators:
            at, known = annotators[:0], known[:0]
        slope = torch.where(known, self.slope[at], 1.0)
        return (
            slope,
            torch.where(known, self.bias[at], 0.0) - (slope - 1) * self.centre,
            torch.where(known, self.variance[at], self.pooled + self.bias_variance),
        )

    def statistics(
        self, items: Tensor, annotators: Tensor, values: Tensor, mean: Tensor, variance: Tensor, weight: Any = None
    ) -> dict[str, Tensor]:
        """Sums over the ratings of every annotator, given what is believed of the items; sums of shards add up.

        Args:
            items, annotators, values: of every rating, (R,); NaN and -1 are left out.
            mean, variance: posterior of the items, (N,).
            weight: of the items, (N,), or None.
        """
        kept = (~values.isnan() & (annotators >= 0)).nonzero()[:, 0]
        who, item = annotators[kept], items[kept]
        given, y, spread = values[kept].double(), mean[item].double(), variance[item].double()
        w = torch.ones_like(y) if weight is None else weight[item].double()
        # of the rating less y, and of y less the centre: they keep their digits where y is far from 0
        gap = given - y
        y = y - self.centre
        tables = {
            "n": w,
            "y": w * y,
            "yy": w * (y.square() + spread),
            "gap": w * gap,
            "gap_gap": w * (gap.square() + spread),
            "gap_y": w * (gap * y - spread),
        }
        zero = torch.zeros(self.n_annotators, dtype=torch.float64, device=self.bias.device)
        return {name: zero.index_add(0, who, table.to(zero)) for name, table in tables.items()}

    def _squares(self, statistics: dict[str, Tensor]) -> Tensor:
        """Expected sum of squares about each annotator's line, (W,)."""
        s, tilt = statistics, self.slope - 1
        b = self.bias
        total = s["gap_gap"] + s["n"] * b.square() + tilt.square() * s["yy"]
        total = total - 2 * b * s["gap"] - 2 * tilt * s["gap_y"] + 2 * b * tilt * s["y"]
        return total.clamp(min=0)

    def update(self, statistics: dict[str, Tensor]) -> None:
        """Raise the penalised expected log-likelihood: lines given variances, then variances given lines."""
        s = statistics
        self.count = s["n"]
        for _ in range(PASSES):
            v = self.variance
            a = s["n"] / v + 1 / self.bias_variance
            if self.with_slope:
                c, d = s["y"] / v, s["yy"] / v + 1 / self.slope_variance
                p, q = s["gap"] / v, s["gap_y"] / v
                det = a * d - c.square()
                self.bias, self.slope = (p * d - q * c) / det, 1 + (a * q - c * p) / det
            else:
                self.bias = s["gap"] / v / a
            self.variance = (self._squares(s) + self.strength * self.pooled) / (s["n"] + self.strength)

    def learn_prior(self, statistics: dict[str, Tensor]) -> None:
        """Estimate the penalty from the same statistics, by the marginal likelihood of all annotators."""
        s = statistics
        seen = s["n"] > 0
        if not bool(seen.any()):
            return
        n, squares = s["n"][seen], self._squares(s)[seen]
        v = self.variance[seen]
        lone = 1 / (n / v + 1 / self.bias_variance)
        # one annotator's worth of the start, so that a few annotators do not rule biases out
        total = (self.bias[seen].square() + lone).sum() + self.bias_variance
        self.bias_variance = total / (len(n) + 1)
        if self.with_slope:
            lone = 1 / (s["yy"][seen] / v + 1 / self.slope_variance)
            total = ((self.slope[seen] - 1).square() + lone).sum() + self.slope_variance
            self.slope_variance = total / (len(n) + 1)
        best = None
        for strength in STRENGTHS:
            pooled = (squares.sum() / n.sum()).clamp(min=1e-300)
            for _ in range(20):  # fixed point of the derivative in the pooled variance
                held = (n + strength) / (squares + strength * pooled)
                pooled = len(n) / held.sum()
            half = strength / 2
            value = torch.lgamma(n / 2 + half).sum() - len(n) * torch.lgamma(torch.tensor(half).double())
            value = value + len(n) * half * (strength * pooled).log()
            value = value - ((n / 2 + half) * (squares + strength * pooled).log()).sum()
            if best is None or float(value) > best[0]:
                best = (float(value), strength, pooled)
        assert best is not None
        self.strength, self.pooled = torch.full_like(self.strength, best[1]), best[2].to(self.pooled)

    def fit(self, statistics: dict[str, Tensor]) -> None:
        """One M-step: the penalty first, unless it is settled, then the parameters."""
        if not self.prior_is_settled:
            self.learn_prior(statistics)
        self.update(statistics)

    def log_prior(self) -> Tensor:
        """log density of the parameters under their prior, up to a constant, a scalar: the penalty of the objective."""
        variances = (self.variance.log() + self.pooled / self.variance).sum()
        out = -0.5 * self.bias.square().sum() / self.bias_variance - 0.5 * self.strength * variances
        return out - 0.5 * (self.slope - 1).square().sum() / self.slope_variance
