"""Approximate laws of counts from their moments, and what they say of the members."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def katz(mean: Tensor, variance: Tensor, n: int) -> Tensor:
    r"""log probabilities (..., n + 1) of a law of 0..n with about the given mean and variance.

    .. math:: f(s + 1) / f(s) = (a + b s) / (s + 1), \quad a = m^2 / v, \quad b = 1 - m / v

    binomial, Poisson or negative binomial, by whether the variance is below, at or above the mean. Where the first
    would end below n it goes on with small steps, so that no count is ruled out.

    Source: Katz, Unified treatment of a broad class of discrete probability distributions, 1965.
    """
    s = torch.arange(n, dtype=mean.dtype, device=mean.device)
    a, b = mean * mean / variance, 1.0 - mean / variance
    ratio = (a[..., None] + b[..., None] * s) / (s + 1)
    step = torch.log(torch.maximum(ratio, 0.007 * variance.clamp(max=1.0)[..., None]))
    return torch.log_softmax(torch.nn.functional.pad(step.cumsum(dim=-1), (1, 0)), dim=-1)


def tangent_messages(p: Tensor, slope: Tensor) -> Tensor:
    r"""log P(o | y_i = k) - log P(o) of an approximate P, from its slope in the probabilities p of the members.

    .. math:: P(o \mid y_i = k) / P(o) = 1 + h_{ik} - \sum_j p_{ij} h_{ij}, \qquad h = \partial \log P / \partial p

    as it would be exactly for a true P, which is linear in the probabilities of every member. Far below 1 the tangent
    is no guide: a ratio of .1 goes on as its own tangent in logs, so that no class is ruled out.

    Args:
        p, slope: (..., K).
    """
    ratio = 1.0 + slope - (p * slope).sum(dim=-1, keepdim=True)
    return torch.where(ratio > 0.1, torch.log(ratio.clamp(min=0.1)), math.log(0.1) + (ratio - 0.1) / 0.1)
