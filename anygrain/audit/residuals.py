"""Residuals of numbers: what right records leave, mixed with records that have nothing to do with their row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

#: records that the mixture is learnt from, at most
ENOUGH = 20_000
#: wrong records of each sort expected beforehand; right ones weigh this many and a share of all
WRONG, RIGHT, SHARE_RIGHT = 0.3, 30.0, 0.03
#: odds beforehand that no records are those of other rows
ODDS = 20.0
#: share of wrong records at most: who is in the majority is right
MOST, AT_FIRST = 0.5, 0.03
#: standard deviations beforehand: of log(nu - 2), of log spread, of how it follows the prediction, of log skewness
TAILS, SPREAD, FOLLOWS, SKEW = 1.0, 1.5, 0.5, 0.3
#: of shift and stretch of the predictions, in standard deviations of the records
OFF, STRETCH = 0.2, 0.5
#: tails beforehand: nu - 2
TAIL = 8.0
#: the scale of numbers given anyhow, in those of all records or of twice the residuals
WIDER = 2.0
#: records further from the median than so many of its typical distances do not tell how far records reach
REACH = 8.0
#: weight, in records, of the stated variance and of no shift, where the fit begins
STATED = 4.0
#: of a normal distribution: standard deviation against the median distance from its middle
NORMAL = 1.4826
#: Gaussians that the density of right records is made of
PLACES = 64
SHAPE = 7
CHUNK = 2**17


@dataclass(frozen=True)
class Residuals:
    r"""Records g with predictions c and spreads s, all (R,), where some have nothing to do with their row.

    .. math:: P(g \mid c, s) = (1 - e_1 - e_2)\, \frac{1}{\tau} f_\nu^\kappa\Big( \frac{g - c - \alpha - \beta h}{\tau}
              \Big) + e_1 u_1(g) + e_2 u_2(g), \qquad \tau = s \exp(\gamma_0 + \gamma_1 h + \gamma_2 (h^2 - 1))

    with h the standardised prediction and f Student's t with nu degrees of freedom and scales that differ above and
    below by kappa^2. So long tails, skewness and a spread that follows the prediction are not taken for errors, and
    predictions that were drawn to the mean by wrong records are stretched again. Wrong records are of two sorts: those
    of another row have the density :math:`u_1` of right records, and those that are given anyhow a Cauchy density
    :math:`u_2` that is broader than both the records and the residuals.

    What residuals look like and how many records are those of other rows can hardly be told apart where predictions are
    weak. So :math:`P(\text{wrong})` is the mean of that with :math:`e_1 = 0` and that with :math:`e_1 > 0`, weighted by
    their greatest posterior densities and odds of 20 to 1 beforehand.

    Attributes:
        alone: shape of right records and shares, without their links, where :math:`e_1 = 0`.
        both: the same where :math:`e_1 > 0`.
        weight: of the latter.
        middle, scale: mean and standard deviation of the predictions.
        spread: standard deviation of the records.
        places, widths: of the Gaussians of :math:`u_1`, (64,).
        centre, wide: of :math:`u_2`.
    """

    alone: Tensor
    both: Tensor
    weight: float
    middle: Tensor
    scale: Tensor
    spread: Tensor
    places: Tensor
    widths: Tensor
    centre: Tensor
    wide: Tensor

    @classmethod
    def learnt(cls, given: Tensor, predicted: Tensor, sd: Tensor) -> Residuals:
        """The most probable mixture of records, predictions and spreads, (R,) each; R is 1 or more."""
        if len(given) > ENOUGH:
            some = torch.randperm(len(given), generator=torch.Generator().manual_seed(0))[:ENOUGH]
            given, predicted, sd = given[some], predicted[some], sd[some]
        n = len(given)
        tiny = torch.finfo(torch.float64).eps * (1 + given.abs().amax())
        # a few records do not tell how far records reach
        unknown = sd.median().square() / n
        centre, off = given.median(), given - predicted
        away = (given - centre).abs()
        near = given[away <= REACH * away.median()] if bool(away.median() > 0) else given
        shift = off.median() * n / (n + STATED)
        typical = NORMAL * (off - off.median()).abs().median()
        inner = torch.quantile(given, torch.tensor([0.25, 0.75], dtype=torch.float64)).diff()[0] / 2
        new = cls(
            alone=torch.zeros(SHAPE),
            both=torch.zeros(SHAPE),
            weight=0.0,
            middle=predicted.mean(),
            scale=predicted.std(correction=0).clamp(min=tiny),
            spread=(near.var(correction=0) + unknown).sqrt().clamp(min=tiny),
            places=given[:0],
            widths=given[:0],
            centre=centre,
            wide=WIDER * (torch.maximum(inner, 2 * typical).square() + unknown).sqrt().clamp(min=tiny),
        )
        stated = NORMAL * ((off - off.median()) / sd).abs().median()
        usual = torch.zeros(SHAPE, dtype=torch.float64)
        usual[0], usual[1] = math.log(TAIL), shift / new.spread
        usual[3] = ((n * stated.square() + STATED) / (n + STATED)).sqrt().clamp(min=0.01, max=20).log()
        data = (given, predicted, sd)
        anyhow = new._log_anyhow(given)[None]
        start = torch.cat([usual, torch.tensor([math.log(AT_FIRST / (MOST - AT_FIRST))], dtype=torch.float64)])
        alone, found = new._fit(start, usual, data, anyhow)
        right = given[_share_wrong(alone, new._log_right(alone, *data), anyhow) < 0.5]
        places, widths = _density(right if len(right) else given, new.spread)
        new = cls(**(new.__dict__ | {"places": places, "widths": widths}))
        ways = torch.cat([anyhow, new._log_of_another(given)[None]])
        both, better = new._fit(torch.cat([alone, start[-1:]]), usual, data, ways)
        weight = 1 / (1 + math.exp(min(found + math.log(ODDS) - better, 500.0)))
        return cls(**(new.__dict__ | {"alone": alone, "both": both, "weight": weight}))

    def wrong(self, given: Tensor, predicted: Tensor, sd: Tensor) -> Tensor:
        """P(record has nothing to do with its row), (R,)."""
        parts = []
        for data in zip(given.split(CHUNK), predicted.split(CHUNK), sd.split(CHUNK), strict=True):
            ways = torch.stack([self._log_anyhow(data[0]), self._log_of_another(data[0])])
            alone = _share_wrong(self.alone, self._log_right(self.alone, *data), ways[:1])
            both = _share_wrong(self.both, self._log_right(self.both, *data), ways)
            parts.append((1 - self.weight) * alone + self.weight * both)
        return torch.cat(parts) if parts else given

    def _fit(
        self, start: Tensor, usual: Tensor, data: tuple[Tensor, Tensor, Tensor], ways: Tensor
    ) -> tuple[Tensor, float]:
        """The most probable parameters, and the logarithm of their probability."""
        n = len(data[0])
        found = start.clone().requires_grad_()
        width = torch.tensor([TAILS, OFF, STRETCH, SPREAD, FOLLOWS, FOLLOWS / 2, SKEW], dtype=torch.float64)
        optimiser = torch.optim.LBFGS([found], max_iter=100, line_search_fn="strong_wolfe", tolerance_change=1e-7 * n)

        def value() -> Tensor:
            right, wrong = _log_shares(found)
            like = torch.cat([(right + self._log_right(found, *data))[None], wrong[:, None] + ways])
            before = (RIGHT + SHARE_RIGHT * n) * right + WRONG * wrong.sum()
            return torch.logsumexp(like, dim=0).sum() + before - ((found[:SHAPE] - usual) / width).square().sum() / 2

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = -value()
            loss.backward()
            return loss

        optimiser.step(closure)
        with torch.no_grad():
            return found.detach(), float(value())

    def _log_anyhow(self, given: Tensor) -> Tensor:
        """log u_2, (R,)."""
        return -torch.log1p(((given - self.centre) / self.wide).square()) - math.log(math.pi) - self.wide.log()

    def _log_of_another(self, given: Tensor) -> Tensor:
        """log u_1, (R,)."""
        off = (given[:, None] - self.places) / self.widths
        near = torch.logsumexp(-off.square() / 2 - self.widths.log(), dim=1)
        return near - math.log(PLACES) - 0.5 * math.log(2 * math.pi)

    def _log_right(self, found: Tensor, given: Tensor, predicted: Tensor, sd: Tensor) -> Tensor:
        """Log-density of records that are right, (R,)."""
        h = (predicted - self.middle) / self.scale
        near = h.clamp(-3, 3)
        nu = 2 + found[0].exp()
        log_tau = sd.log() + found[3] + found[4] * near + found[5] * (near.square() - 1)
        z = (given - predicted - self.spread * (found[1] + found[2] * h)) / log_tau.exp()
        kappa = found[6].exp()
        z = torch.where(z > 0, z / kappa, z * kappa)
        constant = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - 0.5 * torch.log(nu * math.pi)
        constant = constant + math.log(2) - torch.log(kappa + 1 / kappa)
        return constant - (nu + 1) / 2 * torch.log1p(z.square() / nu) - log_tau


def _log_shares(found: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 - e), and the logarithms of the shares of every sort of wrong records."""
    sorts = found[SHAPE:]
    total = math.log(MOST) + logsigmoid(torch.logsumexp(sorts, dim=0))
    return torch.log1p(-total.exp()), total + sorts.log_softmax(dim=0)


def _share_wrong(found: Tensor, log_right: Tensor, ways: Tensor) -> Tensor:
    """P(wrong), (R,), from log-densities of right records, (R,), and of the sorts of wrong ones, (2, R) or (1, R)."""
    right, wrong = _log_shares(found)
    return torch.sigmoid(torch.logsumexp(wrong[:, None] + ways, dim=0) - right - log_right)


def _density(given: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Places and widths of Gaussians, one for each 64th of the records: as wide as the gaps, and as smooth as usual."""
    ranks = (torch.arange(PLACES, dtype=torch.float64) + 0.5) / PLACES
    places = torch.quantile(given, ranks)
    inner = torch.quantile(given, torch.tensor([0.25, 0.75], dtype=torch.float64)).diff()[0] / 1.349
    size = torch.where((inner > 0) & (inner < spread), inner, spread)
    gaps = places.diff()
    beside = torch.cat([gaps[:1], torch.maximum(gaps[1:], gaps[:-1]), gaps[-1:]])
    smooth = 0.9 * size * min(len(given), 8 * PLACES) ** -0.2
    return places, torch.maximum(1.5 * beside, smooth)
