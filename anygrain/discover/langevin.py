"""Samples of a density that is known up to a factor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def langevin(
    energy: Callable[[Tensor], Tensor], x: Tensor, steps: int, size: float, noise: float, generator: torch.Generator
) -> Tensor:
    r"""Rows (B, D) after some steps of Langevin dynamics, :math:`x \leftarrow x - \frac a2 \nabla E(x) + \epsilon`.

    With :math:`\epsilon \sim N(0, a)` the chains come to :math:`p(x) \propto e^{-E(x)}` for small a; with less noise
    they stay nearer to its modes.

    Args:
        energy: (B,) of rows (B, D), with gradient.
        size: a.
        noise: standard deviation of epsilon.

    Source: Welling and Teh, Bayesian Learning via Stochastic Gradient Langevin Dynamics, 2011.
    """
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(energy(x).sum(), x)
        step = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        x = x.detach() - size / 2 * slope + noise * step
    return x.detach()


class Replay:
    """Chains that go on from one call to the next; a few begin anew, uniformly in the box that holds the rows.

    Args:
        low, high: (D,) corners of the box.
        size: chains that are kept.
        fresh: share that begins anew at every draw.
    """

    def __init__(self, low: Tensor, high: Tensor, size: int, fresh: float, generator: torch.Generator) -> None:
        self.low, self.high, self.fresh, self.generator = low, high, fresh, generator
        self.rows = self._uniform(size)

    def _uniform(self, n: int) -> Tensor:
        drawn = torch.rand(n, len(self.low), generator=self.generator, dtype=self.low.dtype).to(self.low.device)
        return self.low + (self.high - self.low) * drawn

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Places (n,) of some chains, and where they are (n, D)."""
        place = torch.randperm(len(self.rows), generator=self.generator)[:n].to(self.rows.device)
        new = (torch.rand(len(place), generator=self.generator) < self.fresh).to(self.rows.device)
        return place, torch.where(new[:, None], self._uniform(len(place)), self.rows[place])

    def put(self, place: Tensor, rows: Tensor) -> None:
        """Chains at these places are now there; what left the box is brought to its edge."""
        self.rows[place] = torch.minimum(torch.maximum(rows, self.low), self.high)
