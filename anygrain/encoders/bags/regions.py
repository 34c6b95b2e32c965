"""Bags laid on a square row by row, and the square cut into regions."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.encoders.bags.segments import bag_of, first_of, place_of


class Regions:
    r"""Regions of B bags, :math:`\ell \times \ell` of every bag, each :math:`w \times w` places.

    The square of a bag of n has :math:`S = \ell w` places a side, the least multiple of :math:`\ell` with
    :math:`S^2 \ge n`; the last of its places are empty. :math:`\ell` is lowered to :math:`\lfloor\sqrt n\rfloor` in
    small bags, and raised until :math:`w^2` is at most `most` in large ones.

    Args:
        sizes: (B,), instances of every bag.
        per_side: regions on a side.
        most: places of a region.

    Attributes:
        read: (T,), instance in every place, regions one after another, places row by row; E where it is empty.
        stands: (E,), place of every instance.
        sizes: (G,), places of every region.
        many: (B,), regions of every bag.
    """

    def __init__(self, sizes: Tensor, per_side: int, most: int) -> None:
        root = sizes.double().sqrt()
        needed = root.ceil().long()  # places on a side
        longest = max(int(most**0.5), 1)
        side = torch.minimum(torch.full_like(sizes, per_side), root.floor().long())
        side = torch.maximum(side, (needed + longest - 1) // longest)
        width = (needed + side - 1) // side
        self.many = side.square()
        self.sizes = torch.repeat_interleave(width.square(), self.many)
        whole = (side * width).square()
        bag, place = bag_of(whole), place_of(whole)
        side, width = side[bag], width[bag]
        region, inside = place // width.square(), place % width.square()
        row = region // side * width + inside // width
        column = region % side * width + inside % width
        source = row * side * width + column
        real = source < sizes[bag]
        self.read = torch.where(real, first_of(sizes)[bag] + source, int(sizes.sum()))
        self.stands = torch.empty(int(sizes.sum()), dtype=torch.long, device=sizes.device)
        at = real.nonzero()[:, 0]
        self.stands[self.read[at]] = at

    def lay(self, values: Tensor) -> Tensor:
        """Instances (E, ...) in their places, (T, ...), 0 where there is none."""
        return torch.cat([values, values.new_zeros(1, *values.shape[1:])])[self.read]

    def flat(self, places: Tensor) -> Tensor:
        """Instances (E, ...) of places (T, ...)."""
        return places[self.stands]

    @property
    def real(self) -> Tensor:
        """Whether a place holds an instance, bool (T,)."""
        return self.read < len(self.stands)
