"""Several distributions over the same classes joined to one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SMALL = 1e-12
PASSES = 500
PAIR_PENALTY, START = 1e-3, 1.5


def mean(tables: Tensor) -> Tensor:
    r""":math:`\frac1M \sum_m D^{(m)}`, (N, K), of tables (M, N, K)."""
    return tables.mean(dim=0)


def product(tables: Tensor) -> Tensor:
    r""":math:`\prod_m D^{(m)}` scaled to sum to 1, (N, K); zeros count as 1e-12."""
    return tables.clamp(min=SMALL).log().sum(dim=0).softmax(dim=1)


def js_centroid(tables: Tensor) -> Tensor:
    r"""The distribution with the least mean Jensen-Shannon divergence to all of them, (N, K).

    Its fixed point, with natural parameters :math:`\nabla F(\theta) = \log(\theta / (1 - \sum \theta))`:

    .. math:: c \propto \exp \Big( \frac1M \sum_m \log \frac{c + D^{(m)}}{2} \Big)

    which is iterated from the mean until nothing moves by 1e-10.

    Source: Nielsen, On a Generalization of the Jensen-Shannon Divergence and the Jensen-Shannon Centroid, 2020.
    """
    centre = tables.mean(dim=0)
    for _ in range(PASSES):
        moved = ((centre + tables).clamp(min=SMALL) / 2).log().mean(dim=0).softmax(dim=1)
        settled = float((moved - centre).abs().max()) < 1e-10 if len(centre) else True
        centre = moved
        if settled:
            break
    return centre


def tempered_mean(tables: Tensor) -> Tensor:
    """The mean after every table got the temperature of `agreeing_temperatures`, (N, K)."""
    return mean(tempered(tables, agreeing_temperatures(tables)))


def tempered(tables: Tensor, temperature: Tensor) -> Tensor:
    r""":math:`D^{1/T}` of tables (M, N, K), scaled to sum to 1, with temperatures (M,)."""
    return (tables.clamp(min=SMALL).log() / temperature[:, None, None]).softmax(dim=2)


def js_divergence(a: Tensor, b: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the rows of a and b, (..., K), in nats: 0 to log 2."""
    half = (a + b) / 2
    log_half = half.clamp(min=SMALL).log()
    # a floor inside the logarithm, as its slope at 0 is infinite
    of_a: Tensor = (a * (a.clamp(min=SMALL).log() - log_half)).sum(dim=-1)
    of_b: Tensor = (b * (b.clamp(min=SMALL).log() - log_half)).sum(dim=-1)
    return (of_a + of_b) / 2


def agreeing_temperatures(tables: Tensor) -> Tensor:
    r"""Temperatures (M,) at which the methods agree most.

    .. math:: \arg\min_T \; \overline{\mathrm{JS}}\big(D^{(m)}_{T_m}, D^{(l)}_{T_l}\big) + 10^{-3} \sum_m T_m^2

    over pairs of methods and items, from T = 1.5, by L-BFGS on log T.
    """
    first, second = torch.triu_indices(len(tables), len(tables), offset=1)
    with torch.enable_grad():
        log_t = torch.full((len(tables),), START, dtype=tables.dtype).log().requires_grad_()
        optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            shown = tempered(tables, log_t.exp())
            apart = js_divergence(shown[first], shown[second]).mean() if len(first) else log_t.sum() * 0
            loss: Tensor = apart + PAIR_PENALTY * log_t.exp().square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    return log_t.detach().exp()


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": mean,
    "product": product,
    "js_centroid": js_centroid,
    "tempered_mean": tempered_mean,
}
