"""Attention among the instances of a bag whose cost grows with their number, and blocks of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from anygrain.encoders.bags.aggregator import require_heads
from anygrain.encoders.bags.dropout import Dropout
from anygrain.encoders.bags.tiles import Tiles


def linear_attention(query: Tensor, key: Tensor, value: Tensor, tiles: Tiles) -> Tensor:
    r""":math:`o_i = \sum_j \frac{\phi(q_i)^\top \phi(k_j)}{\sum_l \phi(q_i)^\top \phi(k_l)} v_j`, j and l in the bag.

    with :math:`\phi(x) = \mathrm{elu}(x) + 1`. All (E, H, p), tiles of the bags. Exact, in time and memory that are
    linear in E: sums over the bag are taken once for all queries.

    Source: Katharopoulos, Vyas, Pappas and Fleuret, Transformers are RNNs: Fast Autoregressive Transformers with Linear
    Attention, 2020.
    """
    query, key = positive(query), positive(key)
    ones = torch.ones_like(value[..., :1])
    found = tiles.apply(query, tiles.outer(key, torch.cat([value, ones], dim=-1)))
    return found[..., :-1] / found[..., -1:]


def positive(values: Tensor) -> Tensor:
    """The feature map of linear attention."""
    return functional.elu(values) + 1


class Block(nn.Module):
    """Linear attention and a network per instance, each after a norm and added to what was there.

    Args:
        dim: features.
        heads: of attention, which divide dim.
        dropout: share of what is added that is dropped in training.
        widened: hidden units of the network per feature; 0 for attention alone.
    """

    def __init__(self, dim: int, heads: int, dropout: float, widened: int = 2) -> None:
        super().__init__()
        require_heads(dim, heads)
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.project, self.mix = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = (
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, widened * dim), nn.GELU(), nn.Linear(widened * dim, dim))
            if widened
            else None
        )
        self.drop = Dropout(dropout)

    def parts(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (E, H, p) of (E, D)."""
        query, key, value = self.project(self.norm(hidden)).unflatten(1, (3, self.heads, -1)).unbind(dim=1)
        return query, key, value

    def forward(self, hidden: Tensor, tiles: Tiles) -> Tensor:
        """(E, D) to (E, D)."""
        seen = linear_attention(*self.parts(hidden), tiles).flatten(1)
        hidden = hidden + self.drop(self.mix(seen))
        return hidden if self.mlp is None else hidden + self.drop(self.mlp(hidden))
