"""Attention through inducing points, and pooling by attention of learnt seeds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.aggregator import Aggregator, require_heads
from anygrain.encoders.bags.pooled import Pooled
from anygrain.encoders.bags.tiles import Tiles


class Multihead(nn.Module):
    """What attention of several heads does beside attending: projections, and MAB's sums, norms and network.

    .. math:: \\mathrm{MAB}(X, Y) = \\mathrm{norm}(H + \\mathrm{relu}(W H)), \\quad
        H = \\mathrm{norm}(X + \\mathrm{multihead}(X, Y, Y))

    Args:
        dim: features of what asks and of what is asked.
        heads: which divide dim.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        require_heads(dim, heads)
        self.heads = heads
        self.query, self.key, self.value, self.mix = (nn.Linear(dim, dim) for _ in range(4))
        self.first, self.second, self.feed = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.Linear(dim, dim)

    def split(self, values: Tensor) -> Tensor:
        """(..., D) as (..., H, p)."""
        return values.view(*values.shape[:-1], self.heads, values.shape[-1] // self.heads)

    def finish(self, asked: Tensor, seen: Tensor) -> Tensor:
        """From what asked (..., D) and what its heads saw (..., H, p) to (..., D)."""
        hidden = self.first(asked + self.mix(seen.flatten(-2)))
        found: Tensor = self.second(hidden + torch.relu(self.feed(hidden)))
        return found

    def few_of_bags(self, asking: Tensor, features: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor]:
        """Each of m vectors (m, D) attends to the instances (E, D) of every bag: (B, m, D), attention (E, H, m)."""
        query, key = self.split(self.query(asking)), self.split(self.key(features))
        logits = torch.einsum("mhp,ehp->ehm", query, key) / key.shape[-1] ** 0.5
        attention = segments.softmax(logits, tiles.sizes)
        seen = tiles.outer(attention, self.split(self.value(features))).transpose(1, 2)  # (B, m, H, p)
        return self.finish(asking.expand(len(tiles.sizes), *asking.shape), seen), attention

    def few_of_one(self, asking: Tensor, features: Tensor) -> Tensor:
        """The same where every instance is a bag: (E, m, D)."""
        seen = self.split(self.value(features))[:, None].expand(-1, len(asking), -1, -1)
        return self.finish(asking.expand(len(features), *asking.shape), seen)

    def instances_of_few(self, features: Tensor, asked: Tensor, tiles: Tiles) -> Tensor:
        """Every instance (E, D) attends to the m vectors (B, m, D) of its bag: (E, D)."""
        key, value = (self.split(part(asked)).transpose(1, 2) for part in (self.key, self.value))  # (B, H, m, p)
        logits = tiles.apply(self.split(self.query(features)), key.transpose(2, 3)) / key.shape[-1] ** 0.5
        return self.finish(features, tiles.apply(logits.softmax(dim=-1), value))

    def among(self, values: Tensor) -> Tensor:
        """Each of m vectors (B, m, D) attends to all of them."""
        query, key, value = (self.split(part(values)).transpose(1, 2) for part in (self.query, self.key, self.value))
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.finish(values, seen.transpose(1, 2))


class InducedAttention(nn.Module):
    r"""ISAB: :math:`\mathrm{MAB}(X, \mathrm{MAB}(I, X))`, instances attend to each other through m learnt points I.

    Args:
        dim: features.
        heads: of attention.
        points: m.
    """

    def __init__(self, dim: int, heads: int, points: int) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.empty(points, dim))
        nn.init.xavier_uniform_(self.points)
        self.gather, self.spread = Multihead(dim, heads), Multihead(dim, heads)

    def forward(self, features: Tensor, tiles: Tiles) -> Tensor:
        """(E, D) to (E, D)."""
        return self.spread.instances_of_few(features, self.gather.few_of_bags(self.points, features, tiles)[0], tiles)


class SetTransformer(Aggregator):
    """Instances see each other through inducing points (ISAB), learnt seeds pool them (PMA) and see each other (SAB).

    D is the number of seeds times `dim`. Time and memory are linear in the instances. Attention is the mean over seeds
    and heads of the pooling. The score of an instance is that of a bag that shows it as its context does, and it alone.

    Args:
        dim: features of an instance.
        layers: of induced attention.
        heads: of all attention, which divide dim.
        points: inducing points.
        seeds: vectors that a bag is pooled into.

    Source: Lee, Lee, Kim, Kosiorek, Choi and Teh, Set Transformer, 2019.
    """

    def __init__(self, dim: int, layers: int = 1, heads: int = 4, points: int = 16, seeds: int = 1) -> None:
        super().__init__()
        self.feature_dim = seeds * dim
        self.layers = nn.ModuleList([InducedAttention(dim, heads, points) for _ in range(layers)])
        self.seeds = nn.Parameter(torch.empty(seeds, dim))
        nn.init.xavier_uniform_(self.seeds)
        self.pool, self.among = Multihead(dim, heads), Multihead(dim, heads)

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Pooled:
        tiles = Tiles(sizes)
        for layer in self.layers:
            features = layer(features, tiles)
        seen, attention = self.pool.few_of_bags(self.seeds, features, tiles)
        alone = self.pool.few_of_one(self.seeds, features)
        bag, instances = (self.among.among(values).flatten(1) for values in (seen, alone))
        return Pooled(bag, instances, attention.flatten(1).mean(dim=1))
