"""Instances that see each other by linear attention, then attention pooling."""

from __future__ import annotations

from torch import Tensor, nn

from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.attention import Attention
from anygrain.encoders.bags.linear_attention import Block
from anygrain.encoders.bags.pooled import Pooled
from anygrain.encoders.bags.sparing import sparing
from anygrain.encoders.bags.tiles import Tiles


class Transformer(Aggregator):
    """Blocks of `linear_attention` and a network per instance, a norm, and `Attention` over what comes out.

    No positions: the order of instances does not matter. The score of an instance is that of the instance as the bag
    shows it; a common instance of a striking bag may score high, too.

    Args:
        dim: features of an instance.
        layers: number of blocks.
        heads: of every block.
        dropout: share of activations dropped in training.
        hidden: of the attention that pools.
    """

    def __init__(self, dim: int, layers: int = 2, heads: int = 4, dropout: float = 0.1, hidden: int = 64) -> None:
        super().__init__()
        self.feature_dim = dim
        self.blocks = nn.ModuleList([Block(dim, heads, dropout) for _ in range(layers)])
        self.norm, self.pool = nn.LayerNorm(dim), Attention(dim, hidden)

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Pooled:
        tiles = Tiles(sizes)
        for block in self.blocks:
            features = sparing(block, features, tiles)
        pooled: Pooled = self.pool(self.norm(features), sizes)
        return pooled
