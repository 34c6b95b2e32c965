"""Pooling by likeness to the instance that stands out most."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.pooled import Pooled


class DSMIL(Aggregator):
    r"""Two streams: the highest score, and a mean of instances by their likeness to the one that has it.

    .. math:: z = [b_1, \dots, b_C, \max_i s_{i1}, \dots, \max_i s_{iC}], \qquad b_c = \sum_i a_{ic} h_i, \qquad
        a_{\cdot c} = \mathrm{softmax}_i \frac{q(h_i)^\top q(h_{m_c})}{\sqrt{D_q}}, \quad m_c = \arg\max_i s_{ic},
        \quad s_i = W h_i

    A linear head adds the scores of both streams, as the original does with fixed halves; W learns through the
    maximum. The score of an instance under the head is that of a bag of it alone.

    Args:
        dim: features of an instance.
        streams: C, kinds of instance that may stand out; the original has one for each class.
        hidden: :math:`D_q`.

    Source: Li, Li and Eliceiri, Dual-stream Multiple Instance Learning Network for Whole Slide Image Classification
    with Self-supervised Contrastive Learning, 2021.
    """

    def __init__(self, dim: int, streams: int = 1, hidden: int = 64) -> None:
        super().__init__()
        self.feature_dim, self.streams = streams * (dim + 1), streams
        self.score = nn.Linear(dim, streams)
        self.query = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.Tanh())

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Pooled:
        scores = self.score(features)  # (E, C)
        highest = segments.maximum(scores, sizes)
        bag = segments.bag_of(sizes)
        with torch.no_grad():  # the first instance with the highest score
            own = torch.arange(len(features), device=features.device)[:, None]
            first = torch.where(scores == highest[bag], own, len(features))
            critical = segments.first_of(sizes)[:, None].expand_as(highest).clone()
            critical.scatter_reduce_(0, bag[:, None].expand_as(first), first, "amin", include_self=False)
        query = self.query(features)
        likeness = torch.einsum("ed,ecd->ec", query, query[critical][bag]) / query.shape[1] ** 0.5
        attention = segments.softmax(likeness, sizes)
        mixed = segments.total(attention[:, :, None] * features[:, None], sizes)
        pooled = torch.cat([mixed.flatten(1), highest], dim=1)
        alone = torch.cat([features.repeat(1, self.streams), scores], dim=1)
        return Pooled(pooled, alone, attention.mean(dim=1))
