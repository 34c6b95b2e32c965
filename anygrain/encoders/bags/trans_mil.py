"""Instances on a square, seen by attention and convolutions, and read out by a token of the class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.linear_attention import Block, positive
from anygrain.encoders.bags.order import inverse, row_by_row
from anygrain.encoders.bags.pooled import Pooled
from anygrain.encoders.bags.tiles import Tiles


class TransMIL(Aggregator):
    r"""Attention, convolutions on the square that instances are laid on, attention, and the token of the class.

    n instances are filled up to :math:`S^2`, :math:`S = \lceil\sqrt n\rceil`, with the first of them once more, and
    read row by row. Between the two blocks stands the pyramid position encoding: depth-wise convolutions of 7, 5 and 3
    places added to what was there. z is the token of the class.

    Attention here is `linear_attention`, exact and linear in n, in place of the original's Nyström approximation of
    softmax attention and its convolution over values; the block has no network per instance, as in the original. Where
    there are places, instances are read by them, row by row; where not, as they come, and their order matters.

    `Pooled.instances` are the instances after the last block, where the token of the class stands among them: under the
    head they tell instances of a bag apart, but their level is not that of bags. Attention is that of the token in the
    last block, on the mean over heads, itself left out.

    Args:
        dim: features of an instance.
        heads: of attention, which divide dim.
        dropout: share of activations dropped in training.

    Source: Shao, Bian, Chen, Wang, Zhang, Ji and Zhang, TransMIL: Transformer based Correlated Multiple Instance
    Learning, 2021.
    """

    ordered = True

    def __init__(self, dim: int, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.feature_dim = dim
        self.token = nn.Parameter(0.02 * torch.randn(dim))
        self.first, self.second = (Block(dim, heads, dropout, widened=0) for _ in range(2))
        self.position, self.norm = PyramidPosition(dim), nn.LayerNorm(dim)

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Pooled:
        order = None if coords is None else row_by_row(coords, sizes)
        if order is not None:
            features = features[order]
        side = sizes.double().sqrt().ceil().long()
        whole = side.square() + 1  # with the token, which comes first
        bag, place = segments.bag_of(whole), segments.place_of(whole) - 1
        read = segments.first_of(sizes)[bag] + torch.where(place < sizes[bag], place, place - sizes[bag])
        read = torch.where(place < 0, len(features), read)
        real = ((place >= 0) & (place < sizes[bag])).nonzero()[:, 0]
        tiles = Tiles(whole)
        hidden = self.first(torch.cat([features, self.token[None]])[read], tiles)
        on_square = (place >= 0).nonzero()[:, 0]
        hidden = hidden.index_copy(0, on_square, self.position(hidden[on_square], side))
        query, key, _ = self.second.parts(hidden)
        out = self.norm(self.second(hidden, tiles))
        starts = segments.first_of(whole)
        likeness = (positive(query)[starts][bag] * positive(key)).sum(dim=-1)[real]  # (E, H)
        attention = (likeness / segments.total(likeness, sizes)[segments.bag_of(sizes)]).mean(dim=1)
        instances = out[real]
        if order is not None:
            back = inverse(order)
            instances, attention = instances[back], attention[back]
        return Pooled(out[starts], instances, attention)


class PyramidPosition(nn.Module):
    r""":math:`x + \sum_{k \in \{7, 5, 3\}} \mathrm{conv}_k(x)` on squares, feature by feature.

    The three convolutions are taken as one of 7 places, which is the same, and their biases are one.

    Args:
        dim: features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.large, self.middle, self.small = (nn.Conv2d(dim, dim, k, groups=dim, bias=False) for k in (7, 5, 3))
        self.shift = nn.Parameter(torch.zeros(dim))

    def kernel(self) -> Tensor:
        """Weights (D, 1, 7, 7) of the one convolution, what was there included."""
        weight = self.large.weight.new_zeros(1, 1, 7, 7)
        weight[0, 0, 3, 3] = 1
        for ring, convolution in enumerate((self.large, self.middle, self.small)):
            weight = weight + functional.pad(convolution.weight, [ring] * 4)
        return weight

    def forward(self, tokens: Tensor, side: Tensor) -> Tensor:
        """Tokens (T, D) of squares row by row, sides (B,), squares of one side together."""
        weight = self.kernel()
        square = segments.bag_of(side.square())
        out = tokens
        for length in side.unique().tolist():
            at = (side == length)[square].nonzero()[:, 0]
            image = tokens[at].view(-1, length, length, tokens.shape[1]).permute(0, 3, 1, 2)
            seen = functional.conv2d(image, weight, self.shift, padding=3, groups=tokens.shape[1])
            out = out.index_copy(0, at, seen.permute(0, 2, 3, 1).reshape(len(at), -1))
        return out
