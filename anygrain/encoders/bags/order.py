"""The order of instances in their bags."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.encoders.bags.segments import bag_of, first_of


def row_by_row(coords: Tensor, sizes: Tensor) -> Tensor:
    """Instances (E,) of every bag from top to bottom and, in a row, from left to right, bags as they come.

    Args:
        coords: (E, 2), x and y.
        sizes: (B,).
    """
    order = coords[:, 0].argsort(stable=True)
    for key in (coords[:, 1], bag_of(sizes)):
        order = order[key[order].argsort(stable=True)]
    return order


def inverse(order: Tensor) -> Tensor:
    """Where every instance went, (E,)."""
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return back


def strided(sizes: Tensor, rate: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Every bag read in steps of `rate`: instances 0, r, 2r, ..., then 1, r + 1, ...

    A bag of n is filled up to :math:`n' = r \lceil n / r \rceil` and read as the columns of an (n' / r, r) table.

    Returns:
        What is read, (E',), with E for a place that was filled up; sizes n' (B,); where every instance stands, (E,).
    """
    steps = (sizes + rate - 1) // rate
    filled = steps * rate
    bag = bag_of(filled)
    place = torch.arange(len(bag), device=sizes.device) - first_of(filled)[bag]
    source = place % steps[bag] * rate + place // steps[bag]
    real = source < sizes[bag]
    read = torch.where(real, first_of(sizes)[bag] + source, int(sizes.sum()))
    stands = torch.empty(int(sizes.sum()), dtype=torch.long, device=sizes.device)
    stands[read[real]] = real.nonzero()[:, 0]
    return read, filled, stands
