"""Instances seen anew by attention inside and across regions of their bag, in front of any aggregator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.aggregator import require_heads
from anygrain.encoders.bags.convolution import convolved
from anygrain.encoders.bags.order import inverse, row_by_row
from anygrain.encoders.bags.regions import Regions
from anygrain.encoders.bags.softmax_attention import softmax_attention
from anygrain.encoders.bags.sparing import sparing
from anygrain.labels import LabelError


class ReEmbedding(nn.Module):
    """Re-embedded regional transformer: (E, D) to (E, D), between instance features and an aggregator.

    A layer of `RegionAttention`, one of `CrossRegionAttention`, each after a norm and added to what was there, and a
    norm. Instances lie on a square row by row: by their places where there are any, else as they come; then their order
    matters, and a bag whose instances were shuffled is another bag.

    Args:
        dim: features of an instance.
        regions: on a side of the square.
        kernel: k, places of the position encoding; odd; 0 for none.
        representatives: K, of every region.
        heads: of the attention in regions, which divide dim.
        cross_heads: of the attention across regions; as many when not given.
        shortcut: whether the input is added to what comes out, before the last norm.
        deep_scores: whether the scores of representatives have a hidden layer.
        mask: whether empty places take no part; False is the original, where they do.
        most: places of a region, at most: more regions are cut in large bags. It bounds memory, which grows with the
            instances.
        dropout: of the attention.

    Source: Tang, Zhou, Huang, Zhu, Zhang and Liu, Feature Re-Embedding: Towards Foundation Model-Level Performance in
    Computational Pathology, 2024.
    """

    def __init__(
        self,
        dim: int,
        regions: int = 8,
        kernel: int = 15,
        representatives: int = 1,
        heads: int = 4,
        cross_heads: int | None = None,
        shortcut: bool = True,
        deep_scores: bool = False,
        mask: bool = True,
        most: int = 1024,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if regions < 1 or most < 1:
            raise LabelError(f"regions is {regions} and most {most}; expected 1 or more")
        self.regions, self.most, self.shortcut = regions, most, shortcut
        self.first, self.second, self.last = (nn.LayerNorm(dim) for _ in range(3))
        self.inside = RegionAttention(dim, heads, kernel, mask, dropout)
        self.across = CrossRegionAttention(
            dim, heads if cross_heads is None else cross_heads, representatives, deep_scores, mask, dropout
        )

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Tensor:
        """Instances (E, D), bag after bag, sizes (B,), places (E, 2) or None to (E, D)."""
        order = None if coords is None else row_by_row(coords, sizes)
        given = features if order is None else features[order]
        regions = Regions(sizes, self.regions, self.most)
        hidden = given + sparing(self.seen_inside, given, regions)
        hidden = hidden + sparing(self.seen_across, hidden, regions)
        out: Tensor = self.last(hidden + given if self.shortcut else hidden)
        return out if order is None else out[inverse(order)]

    def seen_inside(self, features: Tensor, regions: Regions) -> Tensor:
        """What the first layer adds to (E, D)."""
        return regions.flat(self.inside(regions.lay(self.first(features)), regions))

    def seen_across(self, features: Tensor, regions: Regions) -> Tensor:
        """What the second layer adds to (E, D)."""
        return regions.flat(self.across(regions.lay(self.second(features)), regions))


class RegionAttention(nn.Module):
    r"""Attention inside regions, with a position encoding of its logits (R-MSA with EPEG).

    .. math:: \mathrm{softmax}(E + \mathrm{conv}(E))\, V, \qquad E = Q K^\top / \sqrt p

    with a depth-wise convolution over the axis of queries. It is linear and acts on queries alone, so that
    :math:`E + \mathrm{conv}(E) = (Q + \mathrm{conv}(Q)) K^\top / \sqrt p`: queries are convolved, logits are never
    written down. Its bias would move all logits of a query alike, which softmax does not see; there is none.

    Args:
        dim, heads, kernel, mask, dropout: as in `ReEmbedding`.
    """

    def __init__(self, dim: int, heads: int, kernel: int, mask: bool, dropout: float) -> None:
        super().__init__()
        require_heads(dim, heads)
        if kernel < 0 or (kernel and kernel % 2 == 0):
            raise LabelError(f"kernel is {kernel}; expected an odd number, or 0 for none")
        self.heads, self.kernel, self.mask = heads, kernel, mask
        self.project, self.mix, self.drop = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), nn.Dropout(dropout)
        self.position = nn.Parameter(torch.zeros(heads, kernel)) if kernel else None
        if self.position is not None:
            nn.init.uniform_(self.position, -(kernel**-0.5), kernel**-0.5)

    def forward(self, places: Tensor, regions: Regions) -> Tensor:
        """(T, D) to (T, D)."""
        parts = self.project(places)
        if self.mask:
            parts = parts * regions.real[:, None]  # an empty place is no neighbour of a query
        query, key, value = parts.unflatten(1, (3, self.heads, -1)).unbind(dim=1)
        if self.position is not None:
            query = query + self.encoded(query, regions.sizes)
        if not self.mask:
            return self.out(softmax_attention(query, key, value, regions.sizes))
        real = regions.real.nonzero()[:, 0]
        region = segments.bag_of(regions.sizes)[real]
        sizes = torch.bincount(region, minlength=len(regions.sizes))
        seen = softmax_attention(query[real], key[real], value[real], sizes)
        return torch.zeros_like(places).index_copy(0, real, self.out(seen))

    def encoded(self, query: Tensor, sizes: Tensor) -> Tensor:
        """Convolution of queries (T, H, p) along the places of their region."""
        assert self.position is not None
        weight = self.position.repeat_interleave(query.shape[2], dim=0)
        return convolved(query.flatten(1), weight, sizes, ahead=self.kernel // 2).view(query.shape)

    def out(self, seen: Tensor) -> Tensor:
        found: Tensor = self.drop(self.mix(seen.flatten(1)))
        return found


class CrossRegionAttention(nn.Module):
    r"""Attention among representatives of the regions of a bag, given back to the instances (CR-MSA).

    .. math:: R_{rk} = \sum_{p \in r} \mathrm{softmax}_p(L_{pk})\, x_p, \quad
        \hat R_{\cdot k} = \mathrm{attention}(R_{\cdot k}), \quad
        y_p = \sum_k \mathrm{softmax}_k(L_{pk})\, \frac{L_{pk} - \min_r L_k}{\max_r L_k - \min_r L_k + 10^{-8}}\,
        \hat R_{r(p) k}, \quad L = x \Phi

    Where all logits of a region are equal, as in a region of one place, y is 0: what was there stays.

    Args:
        dim, heads, representatives, deep_scores, mask, dropout: as in `ReEmbedding`.
    """

    def __init__(
        self, dim: int, heads: int, representatives: int, deep_scores: bool, mask: bool, dropout: float
    ) -> None:
        super().__init__()
        require_heads(dim, heads)
        if representatives < 1:
            raise LabelError(f"representatives is {representatives}; expected at least 1 for every region")
        self.heads, self.mask = heads, mask
        self.scores: nn.Module = nn.Linear(dim, representatives, bias=False)
        if deep_scores:
            self.scores = nn.Sequential(
                nn.Linear(dim, 128, bias=False), nn.Tanh(), nn.Linear(128, representatives, bias=False)
            )
        self.project, self.mix, self.drop = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), nn.Dropout(dropout)

    def forward(self, places: Tensor, regions: Regions) -> Tensor:
        """(T, D) to (T, D)."""
        if not self.mask:
            return self.exchanged(places, regions.sizes, regions.many)
        real = regions.real.nonzero()[:, 0]
        region = segments.bag_of(regions.sizes)[real]
        sizes = torch.bincount(region, minlength=len(regions.sizes))
        held = sizes > 0  # regions without any instance take no part
        bag = segments.bag_of(regions.many)
        many = torch.bincount(bag[held], minlength=len(regions.many))
        return torch.zeros_like(places).index_copy(0, real, self.exchanged(places[real], sizes[held], many))

    def exchanged(self, places: Tensor, sizes: Tensor, many: Tensor) -> Tensor:
        """(T, D) of regions with sizes (G,), of which every bag has `many` (B,), to (T, D)."""
        region = segments.bag_of(sizes)
        scores: Tensor = self.scores(places)  # (T, K)
        combine = segments.softmax(scores, sizes)
        among = self.attended(segments.total(combine[:, :, None] * places[:, None], sizes), many)
        low, high = segments.minimum(scores, sizes)[region], segments.maximum(scores, sizes)[region]
        share = self.dispatch(scores) * (scores - low) / (high - low + 1e-8)
        return (share[:, :, None] * among[region]).sum(dim=1)

    def dispatch(self, scores: Tensor) -> Tensor:
        """Share of every representative in what a place is given, (T, K); 1 where there is one."""
        return scores.softmax(dim=1)

    def attended(self, representatives: Tensor, many: Tensor) -> Tensor:
        """Attention among the representatives (G, K, D) of a bag that have the same number."""
        parts = self.project(representatives).unflatten(2, (3, self.heads, -1))  # (G, K, 3, H, p)
        query, key, value = (part.flatten(1, 2) for part in parts.unbind(dim=2))
        seen = softmax_attention(query, key, value, many).view(*representatives.shape)
        found: Tensor = self.drop(self.mix(seen))
        return found
