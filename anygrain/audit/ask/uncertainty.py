"""How unsure a model is of single rows: the classical scores of active learning."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def entropy(log_probs: Tensor) -> Tensor:
    r""":math:`-\sum_k p_k \log p_k` in nats, (N,), of log-probabilities (N, K)."""
    return -(log_probs.exp() * log_probs.clamp(min=-1e4)).sum(dim=-1)


def margin(log_probs: Tensor) -> Tensor:
    r""":math:`1 - (p_{(1)} - p_{(2)})`, (N,), of log-probabilities (N, K): 1 at a tie, 0 at certainty.

    Source: Scheffer, Decomain, Wrobel, Active Hidden Markov Models for Information Extraction, 2001.
    """
    top = log_probs.exp().topk(2, dim=-1).values
    return 1 - (top[..., 0] - top[..., 1])


def least_confidence(log_probs: Tensor) -> Tensor:
    r""":math:`1 - \max_k p_k`, (N,), of log-probabilities (N, K)."""
    return 1 - log_probs.max(dim=-1).values.exp()


def bald(log_probs: Tensor) -> Tensor:
    r"""What the true class of a row would tell of the model, in nats, (N,).

    .. math:: I(y; \theta) = H\Big(\tfrac1T \sum_t p_t\Big) - \tfrac1T \sum_t H(p_t)

    Rows on which the members of an ensemble (or passes with dropout) are sure but disagree; a row that all of them find
    ambiguous has none.

    Args:
        log_probs: of T models, (T, N, K).

    Source: Houlsby et al., Bayesian Active Learning for Classification and Preference Learning, 2011.
    """
    mean = torch.logsumexp(log_probs, dim=0) - math.log(len(log_probs))
    return entropy(mean) - entropy(log_probs).mean(dim=0)
