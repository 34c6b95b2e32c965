"""The entropic I-projection: the law of independent members that is nearest to p and has given expected counts."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

SCALINGS = 3  # first steps of iterative scaling
NEWTON = 40  # steps after it, each no worse than one more of iterative scaling
REACH = 50.0  # longest step of a tilt


class Tilt(NamedTuple):
    """Members tilted by class so that expected counts approach the given ones."""

    tilt: Tensor  # (B, C) lambda; 0 for the first column
    log_q: Tensor  # (B, n, C) log of the tilted probabilities
    log_z: Tensor  # (B, n) log normaliser of every member
    expected: Tensor  # (B, C) expected counts


def tilt_to_counts(log_p: Tensor, counts: Tensor, within: float) -> Tilt:
    r"""The tilt :math:`\lambda` at which :math:`\sum_i p_i(k) e^{\lambda_k} / Z_i` is the count of every class.

    It minimises the convex :math:`D(\lambda) = \sum_i \log Z_i(\lambda) - \sum_k \lambda_k n_k`, by Newton steps of
    bounded length, replaced by iterative scaling (which never raises D) wherever they raise it.

    Args:
        log_p: (B, n, C) log-probabilities of the members of B sets, not necessarily normalised.
        counts: (B, C), of sum n. Columns of count 0 must be -inf in log_p wherever another column is finite.
        within: on a CPU the steps end when all expected counts are this close; elsewhere their number is fixed.
    """
    counts = counts.to(log_p.dtype)
    used = counts > 0
    early = log_p.device.type == "cpu"
    now = _evaluate(log_p, torch.zeros_like(counts))
    eye = torch.eye(counts.shape[1], dtype=log_p.dtype, device=log_p.device)
    digit = used.clone()
    digit[:, 0] = False
    for step in range(SCALINGS + NEWTON):
        miss = (counts - now.expected).masked_fill(~used, 0.0)
        if early and bool((miss.abs() <= within).all()):
            break
        scaling = torch.log(counts / now.expected)
        scaling = torch.where(torch.isfinite(scaling) & used, scaling, 0.0)
        scaled = now.tilt + scaling - scaling[:, :1]
        if step < SCALINGS:
            now = _evaluate(log_p, scaled)
            continue
        curvature = covariance(now)
        curvature = torch.where(digit[:, :, None] & digit[:, None, :], curvature, eye)
        ridge = 1e-13 * curvature.diagonal(dim1=1, dim2=2).mul(digit).amax(dim=1) + torch.finfo(log_p.dtype).tiny
        move = torch.linalg.solve_ex(curvature + ridge[:, None, None] * eye, miss.masked_fill(~digit, 0.0)[..., None])[
            0
        ]
        move = move[..., 0]
        longest = move.abs().amax(dim=1, keepdim=True)
        move = move * (REACH / longest).clamp(max=1.0)
        newton = _evaluate(log_p, now.tilt + move)
        better = bound(newton, counts) <= bound(now, counts)
        if not early or not bool(better.all()):
            fallback = _evaluate(log_p, scaled)
            choice = [
                torch.where(better.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(newton, fallback, strict=True)
            ]
            now = Tilt(*choice)
        else:
            now = newton
    return now


def _evaluate(log_p: Tensor, tilt: Tensor) -> Tilt:
    moved = log_p + tilt[:, None]
    log_z = torch.logsumexp(moved, dim=2)
    log_q = moved - log_z[..., None]
    log_q = torch.where(torch.isneginf(log_z)[..., None], -torch.inf, log_q)
    return Tilt(tilt, log_q, log_z, log_q.exp().sum(dim=1))


def bound(tilted: Tilt, counts: Tensor) -> Tensor:
    """D (B,), the Chernoff bound on log P(counts); at the right tilt it is -KL(q || p)."""
    # member by member minus their share of the counts: large tilts cancel before they are summed
    share = torch.einsum("bnc,bc->bn", tilted.log_q.exp(), tilted.tilt)
    return (tilted.log_z - share).sum(dim=1) + (tilted.tilt * (tilted.expected - counts)).sum(dim=1)


def covariance(tilted: Tilt) -> Tensor:
    """Covariance (B, C, C) of the tilted counts."""
    q = tilted.log_q.exp()
    return torch.diag_embed(tilted.expected) - q.transpose(1, 2) @ q


def i_projection(log_p: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    r"""Joint counts by the I-projection :math:`q_i(k) \propto p_i(k) e^{\lambda_k}` with the counts as its means.

    .. math:: \log P(o) \approx -\mathrm{KL}(q \| p) - \tfrac12 \log \det(2 \pi H), \qquad
              \log P(o \mid y_i = k) - \log P(o) \approx \lambda_k - \log Z_i + \log(1 + u_{ik} - q_i \cdot u_i), \quad
              u_{ik} = (W q_i)_k - \tfrac12 W_{kk} - (W g)_k

    H is the covariance of the tilted counts without the first column, W its inverse, and g the derivative of
    :math:`-\tfrac12 \log \det H` in the tilt: the posterior is the gradient of log P. The terms of H are left out
    unless every variance exceeds 1; then the value is an upper bound and the posterior is q.

    Args:
        log_p: (B, n, C), see `tilt_to_counts`.
        counts: (B, C) of sum n.

    Returns:
        log P (B,), -inf where no assignment of classes has these counts, and messages relative to it (B, n, C), finite
        also where p is 0.

    Source: Csiszar, I-divergence geometry of probability distributions, 1975; the correction is the saddle-point
    approximation of Daniels, 1954.
    """
    counts = counts.to(log_p.dtype)
    tilted = tilt_to_counts(log_p, counts, within=1e-9 if log_p.dtype == torch.float64 else 1e-4)
    used = counts > 0
    digit = used.clone()
    digit[:, 0] = False
    both = digit[:, :, None] & digit[:, None, :]
    eye = torch.eye(counts.shape[1], dtype=log_p.dtype, device=log_p.device)
    spread = torch.where(both, covariance(tilted), eye)
    variances = torch.diagonal(spread, dim1=1, dim2=2)
    wide = ((variances > 1) | ~digit).all(dim=1)
    log_det = torch.linalg.slogdet(torch.where(wide[:, None, None], spread, eye)).logabsdet
    log_det = log_det + digit.sum(dim=1) * math.log(2 * math.pi)
    value = bound(tilted, counts) - 0.5 * torch.where(wide, log_det, 0.0)
    # counts are integers, so expectations that cannot reach them miss by one or more
    missed = (tilted.expected - counts).masked_fill(~used, 0.0).abs().amax(dim=1) > 0.4
    impossible = missed | torch.isneginf(tilted.log_z).any(dim=1)
    ratio = torch.where(wide[:, None, None], _gradient_of_spread(tilted, spread, both), 1.0)
    # far below 1 the expansion is no guide: a ratio of .1 goes on as its tangent in logs
    log_ratio = torch.where(ratio > 0.1, torch.log(ratio.clamp(min=0.1)), math.log(0.1) + (ratio - 0.1) / 0.1)
    message = (tilted.tilt[:, None] - tilted.log_z[..., None] + log_ratio).masked_fill(~used[:, None], -torch.inf)
    return value.masked_fill(impossible, -torch.inf), message.masked_fill(impossible[:, None, None], 0.0)


def _gradient_of_spread(tilted: Tilt, spread: Tensor, digits: Tensor) -> Tensor:
    """1 + u - q . u (B, n, C), the factor by which -1/2 log det H changes the posterior q; see `i_projection`."""
    q = tilted.log_q.exp()
    inverse = torch.where(digits, torch.linalg.inv_ex(spread).inverse, 0.0)
    own = q @ inverse - 0.5 * torch.diagonal(inverse, dim1=1, dim2=2)[:, None]
    g = (q * (own - (q * own).sum(dim=2, keepdim=True))).sum(dim=1)
    u = own - (inverse @ g[..., None])[:, None, :, 0]
    return 1.0 + u - (q * u).sum(dim=2, keepdim=True)
