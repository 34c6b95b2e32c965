"""Instances cut into tiles of one length, each in one bag, for matrix products bag by bag."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.encoders.bags.segments import bag_of, first_of, place_of, widened

LONGEST = 64  # places of a tile


class Tiles:
    r"""T tiles of c places; a bag of n instances fills :math:`\lceil n / c \rceil` of them, the last one in part.

    With c at most the mean size of a bag, fewer places stay empty than there are instances. Sums over a bag of outer
    products (E, p, q) then need the memory of T of them.

    Args:
        sizes: (B,), instances of every bag.
    """

    def __init__(self, sizes: Tensor) -> None:
        self.sizes = sizes
        self.places = max(1, min(LONGEST, int(sizes.sum()) // max(len(sizes), 1)))
        many = (sizes + self.places - 1) // self.places
        #: bag of every tile, (T,)
        self.bag = bag_of(many)
        #: flat place of every instance, (E,)
        self.at = (first_of(many) * self.places)[bag_of(sizes)] + place_of(sizes)
        self.full = len(self.at) == len(self.bag) * self.places

    def lay(self, values: Tensor) -> Tensor:
        """Values (E, ...) as (T, c, ...), 0 where there is no instance."""
        shape = (len(self.bag), self.places, *values.shape[1:])
        if self.full:
            return values.reshape(shape)
        return (
            values.new_zeros(len(self.bag) * self.places, *values.shape[1:]).index_copy(0, self.at, values).view(shape)
        )

    def flat(self, tiles: Tensor) -> Tensor:
        """Values (E, ...) of tiles (T, c, ...)."""
        rows = tiles.flatten(0, 1)
        return rows if self.full else rows[self.at]

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        r""":math:`\sum_{i \in b} l_i r_i^\top` (B, H, p, q) of left (E, H, p) and right (E, H, q)."""
        product = widened(torch.einsum("tchp,tchq->thpq", self.lay(left), self.lay(right)))
        return product.new_zeros(len(self.sizes), *product.shape[1:]).index_add(0, self.bag, product)

    def apply(self, left: Tensor, matrix: Tensor) -> Tensor:
        r""":math:`l_i^\top M_{b(i)}` (E, H, q) of left (E, H, p) and matrices (B, H, p, q)."""
        return self.flat(torch.einsum("tchp,thpq->tchq", self.lay(left), matrix.to(left.dtype)[self.bag]))
