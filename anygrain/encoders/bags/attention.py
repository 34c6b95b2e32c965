"""Attention pooling, plain and gated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.pooled import Pooled


class Attention(Aggregator):
    r"""A mean of instances whose weights are learnt (AB-MIL).

    .. math:: z = \sum_i a_i h_i, \qquad a = \mathrm{softmax}_i\, w^\top (\tanh(V h_i) \odot \sigma(U h_i)),

    without the second factor where not gated. Of several heads each has its w, and z holds them one after another.
    Under a linear head the score of a bag is the attention-weighted mean of its instances' scores; attention itself is
    no evidence, see `Pooled`.

    Args:
        dim: features of an instance.
        hidden: rows of V and U.
        gated: whether the gate U is there.
        heads: how many weightings.

    Source: Ilse, Tomczak and Welling, Attention-based Deep Multiple Instance Learning, 2018.
    """

    def __init__(self, dim: int, hidden: int = 64, gated: bool = False, heads: int = 1) -> None:
        super().__init__()
        self.feature_dim, self.heads = dim * heads, heads
        self.value = nn.Linear(dim, hidden)
        self.gate = nn.Linear(dim, hidden) if gated else None
        self.weight = nn.Linear(hidden, heads, bias=False)

    def scores(self, features: Tensor) -> Tensor:
        """Attention before the softmax, (E, heads)."""
        shown = torch.tanh(self.value(features))
        if self.gate is not None:
            shown = shown * torch.sigmoid(self.gate(features))
        found: Tensor = self.weight(shown)
        return found

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Pooled:
        attention = segments.softmax(self.scores(features), sizes)
        bag = segments.total(attention[:, :, None] * features[:, None], sizes)  # (B, heads, d)
        shown = features if self.heads == 1 else features.repeat(1, self.heads)
        return Pooled(bag.flatten(1), shown, attention.mean(dim=1))
