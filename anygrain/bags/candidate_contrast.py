"""Contrast and prototypes of instances whose class is one of a few candidates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anygrain.labels import Labels
from anygrain.robust.fresh import alone

POSSIBLE = 1e-9  # posterior under equal classes, above which a class is a candidate


def candidate_classes(labels: Labels) -> Tensor:
    """Which classes the evidence leaves possible, bool (N, K).

    Of a bag without the target every class but the target; of a bag with it all classes, but only the target where it
    is the one instance that is left; of an exact label its class.
    """
    return alone(labels, torch.float64) > POSSIBLE


def weakly_supervised_contrast(
    query: Tensor, pool: Tensor, classes: Tensor, pool_classes: Tensor, temperature: float = 0.07
) -> Tensor:
    r"""Mean over anchors, a scalar; the first B rows of the pool are the anchors themselves.

    .. math:: L = \frac1B \sum_i -\frac1{|P(i)|} \sum_{j \in P(i)}
              \log \frac{e^{q_i \cdot z_j / \tau}}{\sum_{l \ne i} e^{q_i \cdot z_l / \tau}}, \quad
              P(i) = \{j \ne i: c_j = c_i\}

    Args:
        query: (B, D) unit vectors.
        pool: (P, D) unit vectors: the queries, their keys, and keys of earlier batches.
        classes, pool_classes: pseudo classes (B,) and (P,).
        temperature: :math:`\tau`.

    Source: Qu et al., Rethinking Multiple Instance Learning for Whole Slide Image Classification, 2023.
    """
    own = torch.eye(len(query), len(pool), dtype=torch.bool, device=query.device)
    logits = (query @ pool.T / temperature).masked_fill(own, -torch.inf)
    log_share = logits - logits.logsumexp(dim=1, keepdim=True)
    positive = (classes[:, None] == pool_classes) & ~own
    total = torch.where(positive, log_share, 0.0).sum(dim=1)
    return (-total / positive.sum(dim=1).clamp(min=1)).mean()


def moved_prototypes(prototypes: Tensor, vectors: Tensor, classes: Tensor, keep: float = 0.9) -> Tensor:
    r"""Prototypes (K, D) after :math:`\mu_c \leftarrow \kappa \mu_c + (1 - \kappa) q` for every vector in turn, unit.

    Args:
        prototypes: (K, D); zero before the first vectors.
        vectors: (B, D), in the order in which they count.
        classes: (B,).
        keep: :math:`\kappa`.
    """
    member = nn.functional.one_hot(classes, len(prototypes)).to(vectors)
    later = member.flip(0).cumsum(0).flip(0) - member  # vectors of the class that come after each, (B, K)
    weight = (1 - keep) * keep**later * member
    moved = keep ** member.sum(0)[:, None] * prototypes + weight.T @ vectors
    return nn.functional.normalize(moved, dim=1)
