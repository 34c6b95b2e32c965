"""Residuals of numbers: what right records leave, mixed with records that have nothing to do with their row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: records that the mixture is learnt from, at most
ENOUGH = 20_000
#: errors that are expected beforehand: their weight is 1, and that of right records this many and a share of all
RIGHT, SHARE_RIGHT = 30.0, 0.02
#: standard deviations beforehand: of log(nu - 2), of log spread, of how it follows the prediction, of log skewness
TAILS, SPREAD, FOLLOWS, SKEW = 1.0, 1.5, 0.5, 0.3
#: of shift and stretch of the predictions, in standard deviations of the records
OFF = 0.2
#: tails beforehand: nu - 2
TAIL = 6.0
#: Gaussians that the density of all records is made of, and the share of a far broader one
PLACES, BROAD = 64, 0.03
CHUNK = 2**17


@dataclass(frozen=True)
class Residuals:
    r"""Records g with predictions c and spreads s, all (R,), where some have nothing to do with their row.

    .. math:: P(g \mid c, s) = (1 - e)\, \frac{1}{\tau} f_\nu^\kappa\Big( \frac{g - c - \alpha - \beta h}{\tau} \Big)
              + e\, u(g), \qquad \tau = s \exp(\gamma_0 + \gamma_1 h + \gamma_2 (h^2 - 1))

    with h the standardised prediction, f Student's t with nu degrees of freedom and scales that differ above and below
    by kappa^2, and u the density of all records. So long tails, skewness and a spread that follows the prediction are
    not taken for errors, and predictions that were drawn to the mean by wrong records are stretched again.

    Attributes:
        found: the eight parameters, in the order e, nu, alpha, beta, the gammas, kappa, without their links.
        middle, scale: mean and standard deviation of the predictions.
        spread: standard deviation of the records.
        places, widths: of the Gaussians of u, (64,).
        centre: median of the records.
    """

    found: Tensor
    middle: Tensor
    scale: Tensor
    spread: Tensor
    places: Tensor
    widths: Tensor
    centre: Tensor

    @classmethod
    def learnt(cls, given: Tensor, predicted: Tensor, sd: Tensor) -> Residuals:
        """The most probable mixture of records, predictions and spreads, (R,) each; R is 1 or more."""
        if len(given) > ENOUGH:
            some = torch.randperm(len(given), generator=torch.Generator().manual_seed(0))[:ENOUGH]
            given, predicted, sd = given[some], predicted[some], sd[some]
        tiny = torch.finfo(torch.float64).eps * (1 + given.abs().amax())
        # a few records do not tell how far records reach
        spread = (given.var(correction=0) + sd.median().square() / len(given)).sqrt().clamp(min=tiny)
        places, widths = _density_of_all(given, spread)
        residual = ((given - predicted) / sd).abs().mean().clamp(min=0.05, max=20)
        start = torch.zeros(8, dtype=torch.float64)
        start[0], start[1], start[4] = math.log(0.05 / 0.95), math.log(TAIL), residual.log()
        new = cls(
            start,
            predicted.mean(),
            predicted.std(correction=0).clamp(min=tiny),
            spread,
            places,
            widths,
            given.median(),
        )
        wrong = new.log_wrong(given)
        found = start.clone().requires_grad_()
        usual = torch.tensor([math.log(TAIL), 0, 0, 0, 0, 0, 0], dtype=torch.float64)
        width = torch.tensor([TAILS, OFF, OFF, SPREAD, FOLLOWS, FOLLOWS / 2, SKEW], dtype=torch.float64)
        right_before = RIGHT + SHARE_RIGHT * len(given)
        optimiser = torch.optim.LBFGS(
            [found], max_iter=100, line_search_fn="strong_wolfe", tolerance_change=1e-7 * len(given)
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            error = torch.nn.functional.logsigmoid(found[0])
            right = torch.nn.functional.logsigmoid(-found[0])
            likelihood = torch.logaddexp(right + new._log_right(found, given, predicted, sd), error + wrong).sum()
            before = error + right_before * right - ((found[1:] - usual) / width).square().sum() / 2
            loss = -(likelihood + before)
            loss.backward()
            return loss

        optimiser.step(closure)
        return cls(found.detach(), new.middle, new.scale, spread, places, widths, new.centre)

    def wrong(self, given: Tensor, predicted: Tensor, sd: Tensor) -> Tensor:
        """P(record has nothing to do with its row), (R,)."""
        parts = [
            torch.sigmoid(self.found[0] + self.log_wrong(g) - self._log_right(self.found, g, c, s))
            for g, c, s in zip(given.split(CHUNK), predicted.split(CHUNK), sd.split(CHUNK), strict=True)
        ]
        return torch.cat(parts) if parts else given

    def log_wrong(self, given: Tensor) -> Tensor:
        """log u, (R,)."""
        off = (given[:, None] - self.places) / self.widths
        near = torch.logsumexp(-off.square() / 2 - self.widths.log(), dim=1)
        near = near - math.log(PLACES) - 0.5 * math.log(2 * math.pi)
        wide = 2 * self.spread
        far = -torch.log1p(((given - self.centre) / wide).square()) - math.log(math.pi) - wide.log()
        return torch.logaddexp(near + math.log1p(-BROAD), far + math.log(BROAD))

    def _log_right(self, found: Tensor, given: Tensor, predicted: Tensor, sd: Tensor) -> Tensor:
        """Log-density of records that are right, (R,)."""
        h = (predicted - self.middle) / self.scale
        near = h.clamp(-3, 3)
        nu = 2 + found[1].exp()
        log_tau = sd.log() + found[4] + found[5] * near + found[6] * (near.square() - 1)
        z = (given - predicted - self.spread * (found[2] + found[3] * h)) / log_tau.exp()
        kappa = found[7].exp()
        z = torch.where(z > 0, z / kappa, z * kappa)
        constant = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - 0.5 * torch.log(nu * math.pi)
        constant = constant + math.log(2) - torch.log(kappa + 1 / kappa)
        return constant - (nu + 1) / 2 * torch.log1p(z.square() / nu) - log_tau


def _density_of_all(given: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Places and widths of Gaussians, one for each 64th of the records: as wide as the gaps, and as smooth as usual."""
    ranks = (torch.arange(PLACES, dtype=torch.float64) + 0.5) / PLACES
    places = torch.quantile(given, ranks)
    inner = torch.quantile(given, torch.tensor([0.25, 0.75], dtype=torch.float64)).diff()[0] / 1.349
    size = torch.where((inner > 0) & (inner < spread), inner, spread)
    gaps = places.diff()
    beside = torch.cat([gaps[:1], torch.maximum(gaps[1:], gaps[:-1]), gaps[-1:]])
    smooth = 0.9 * size * min(len(given), 8 * PLACES) ** -0.2
    return places, torch.maximum(1.5 * beside, smooth)
