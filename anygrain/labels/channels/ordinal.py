"""Annotators who see ordered classes on a line, each with a bias and a spread."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anygrain.labels.channels.tabular import TabularChannel

#: standard deviation of what all sources share, around equal spacing
_LOOSE = 0.5
#: sources that the first guess of the sources' variances is worth
_GUESS = 4.0
_SQRT_HALF = math.sqrt(0.5)


class Ordinal(TabularChannel):
    r"""Each source w sees the class at a place on a line, shifted by its bias and blurred by its spread.

    .. math:: P(v \mid y = k) = (1 - g) \Big[ \Phi\Big(\frac{t_{v + 1} - m_k - b_w}{s_w}\Big) -
              \Phi\Big(\frac{t_v - m_k - b_w}{s_w}\Big) \Big] + \frac{g}{K}

    Classes are ordered 0..K-1, low to high. Their places m, the thresholds t between votes, and the share g of slips
    are common to all sources; they start equally spaced, places at 0, 1, ... with the thresholds half way. Sources
    shrink towards the others,

    .. math:: b_w \sim N(0, \tau_b^2), \qquad \log s_w \sim N(\mu, \tau_s^2),

    so a source with two numbers of its own is safe with few votes, and errs to neighbours more than to far classes.
    What is common, and the variances, are learnt by the expected counts of all sources (by Laplace's approximation).

    Args:
        n_sources: S.
        n_classes: K.
        history: counts of earlier votes whose truth is known, shape (S, K, K), rows are the truth.
        spread: of a source before the first vote, in steps between classes.

    Attributes:
        bias: b, shape (S,), in steps; above 0 votes too high.
        log_spread: log s, shape (S,).

    Source: graded responses: Samejima, 1969; raters with bias and precision: Johnson, On Bayesian analysis of
    multirater ordinal data, 1996.
    """

    bias: Tensor
    log_spread: Tensor
    first: Tensor
    common: Tensor
    scale: Tensor

    def __init__(self, n_sources: int, n_classes: int, *, history: Tensor | None = None, spread: float = 0.6):
        super().__init__(n_sources, n_classes, history=history)
        self.first_log_spread = math.log(spread)
        start = torch.zeros(2 * self.n_classes, dtype=torch.float64)
        start[0] = 0.5  # the first threshold, log steps to the next; the first place, log steps; logit of slips
        start[-1] = math.log(0.02 / 0.98)
        self.register_buffer("first", start)
        self.register_buffer("common", start.clone())
        # mean of log s, standard deviations of b and log s
        self.register_buffer("scale", torch.tensor([self.first_log_spread, 0.3, 0.4], dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(self.n_sources, dtype=torch.float64))
        self.register_buffer("log_spread", torch.full((self.n_sources,), self.first_log_spread, dtype=torch.float64))
        self._store(*self.estimate(self.counts))

    # -- the line -----------------------------------------------------------------------------------------------------

    @property
    def thresholds(self) -> Tensor:
        """t, shape (K - 1,): where votes change."""
        return _line(self.common)[0]

    @property
    def places(self) -> Tensor:
        """m, shape (K,): where the classes lie."""
        return _line(self.common)[1]

    @property
    def slips(self) -> float:
        """g, the share of votes given without looking."""
        return float(torch.sigmoid(self.common[-1]))

    def _penalty(self, own: Tensor) -> Tensor:
        """log density of bias and log spread (S, 2) of every source, shape (S,)."""
        standard = (own - self._centre()) / self.scale[1:]
        density: Tensor = -0.5 * standard.square().sum(dim=1)
        return density

    def _centre(self) -> Tensor:
        return torch.stack([self.scale.new_zeros(()), self.scale[0]])

    def _value(self, own: Tensor, common: Tensor, counts: Tensor) -> Tensor:
        """counts . log P + log prior of every source, shape (S,)."""
        return (counts * confusion(own[:, 0], own[:, 1], common).log()).sum(dim=(1, 2)) + self._penalty(own)

    # -- learning -----------------------------------------------------------------------------------------------------

    def estimate(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        own = torch.stack([self.bias, self.log_spread], dim=1)
        if self.n_classes > 1:
            for _ in range(3):
                own = self._climb(own, counts)
        self.bias, self.log_spread = own.unbind(dim=1)
        # somebody unknown: the bias is integrated over
        mean = self.scale[:1]
        blurred = 0.5 * torch.log((2 * mean).exp() + self.scale[1].square())
        both = confusion(
            torch.cat([self.bias, torch.zeros_like(mean)]), torch.cat([self.log_spread, blurred]), self.common
        )
        return both[-1], both[:-1]

    def _climb(self, own: Tensor, counts: Tensor) -> Tensor:
        """One Newton step of every source, shortened until its objective does not fall."""
        value, slope, bend = self._derivatives(own, counts)
        size, axes = torch.linalg.eigh(bend)
        along = (axes.transpose(1, 2) @ slope[:, :, None])[:, :, 0] / size.abs().clamp(min=1e-6)
        step = (axes @ along[:, :, None])[:, :, 0].clamp(-1.0, 1.0)
        settled = torch.zeros(len(own), dtype=torch.bool, device=own.device)
        best = own
        for halving in range(8):
            moved = own + step * 0.5**halving
            better = ~settled & (self._value(moved, self.common, counts) >= value)
            best = torch.where(better[:, None], moved, best)
            settled = settled | better
            if bool(settled.all()):
                break
        return best

    def _derivatives(self, own: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Objective (S,), its gradient (S, 2) and Hessian (S, 2, 2): no source depends on another."""
        with torch.enable_grad():
            own = own.detach().requires_grad_(True)
            value = self._value(own, self.common, counts)
            (slope,) = torch.autograd.grad(value.sum(), own, create_graph=True)
            bend = [torch.autograd.grad(slope[:, c].sum(), own, retain_graph=True)[0] for c in range(2)]
        return value.detach(), slope.detach(), torch.stack(bend, dim=1)

    def _covariance(self, counts: Tensor) -> Tensor:
        """Laplace's covariance of bias and log spread of every source, shape (S, 2, 2)."""
        own = torch.stack([self.bias, self.log_spread], dim=1)
        size, axes = torch.linalg.eigh(-self._derivatives(own, counts)[2])
        # never wider than the prior
        least = (1 / self.scale[1:].square()).min()
        covariance: Tensor = axes @ torch.diag_embed(1 / size.clamp(min=least)) @ axes.transpose(1, 2)
        return covariance

    def learn(self, counts: Tensor) -> None:
        if self.n_classes == 1:
            return
        own = torch.stack([self.bias, self.log_spread], dim=1)
        self.common = self._fit_common(own, counts)
        variance = torch.diagonal(self._covariance(counts), dim1=1, dim2=2)
        total = self.n_sources + _GUESS
        mean = (self.log_spread.sum() + _GUESS * self.first_log_spread) / total
        centre = torch.stack([mean.new_zeros(()), mean])
        guess = own.new_tensor([0.3**2, 0.4**2])
        spread = ((own - centre).square() + variance).sum(dim=0) + _GUESS * guess
        self.scale = torch.cat([mean[None], (spread / total).sqrt()])

    def _fit_common(self, own: Tensor, counts: Tensor) -> Tensor:
        common = self.common.clone().requires_grad_(True)
        optimizer = torch.optim.LBFGS([common], max_iter=10, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            off = (common - self.first) / _LOOSE
            return 0.5 * off.square().sum() - (counts * confusion(own[:, 0], own[:, 1], common).log()).sum()

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        with torch.enable_grad():
            before = float(loss().detach())
            optimizer.step(closure)
            after = float(loss().detach())
        return common.detach() if after <= before else self.common

    def log_prior(self) -> Tensor:
        own = torch.stack([self.bias, self.log_spread], dim=1)
        return self._penalty(own).sum() + (self.history * self.confusion.clamp(min=1e-300).log()).sum()

    def accuracy_variance(self, weight: Tensor) -> Tensor:
        with torch.enable_grad():
            own = torch.stack([self.bias, self.log_spread], dim=1).requires_grad_(True)
            matrices = confusion(own[:, 0], own[:, 1], self.common)
            right = (torch.diagonal(matrices, dim1=1, dim2=2) * weight).sum()
            (slope,) = torch.autograd.grad(right, own)
        return (slope[:, None] @ self._covariance(self.counts) @ slope[:, :, None])[:, 0, 0].clamp(min=1e-12)


def _line(common: Tensor) -> tuple[Tensor, Tensor]:
    """Thresholds (K - 1,) and places (K,) from the first of each and the logarithms of the steps (2 K,)."""
    k = len(common) // 2
    steps = torch.cat([common[:1], common[1 : k - 1].exp()]) if k > 1 else common[:0]
    places = torch.cat([common[k - 1 : k] * (k > 1), common[k : 2 * k - 1].exp()])
    return steps.cumsum(0), places.cumsum(0)


def confusion(bias: Tensor, log_spread: Tensor, common: Tensor) -> Tensor:
    """P(vote | class) of every source, shape (S, K, K), rows are the truth.

    Args:
        bias, log_spread: shape (S,).
        common: first threshold and log steps, first place and log steps, logit of slips, shape (2 K,).
    """
    thresholds, places = _line(common)
    k = len(places)
    z = (thresholds - places[:, None] - bias[:, None, None]) * (-log_spread).exp()[:, None, None]
    below, above = 0.5 * torch.erfc(-_SQRT_HALF * z), 0.5 * torch.erfc(_SQRT_HALF * z)
    ends = [z.new_zeros(len(bias), k, 1), z.new_ones(len(bias), k, 1)]
    below, above = torch.cat([ends[0], below, ends[1]], dim=2), torch.cat([ends[1], above, ends[0]], dim=2)
    # on the far side of 0 the other tail is the accurate one
    share = torch.where(below[:, :, :-1] < 0.5, below.diff(dim=2), -above.diff(dim=2))
    slips = torch.sigmoid(common[-1])
    return (1 - slips) * share + slips / k
