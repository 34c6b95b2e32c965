"""Bags drawn at random, for simulated labels of sets."""

from __future__ import annotations

import torch

from anygrain.labels.bags import Bags
from anygrain.labels.error import LabelError


def random_bags(n_instances: int, size: int, generator: torch.Generator) -> Bags:
    """Disjoint bags of `size` instances each that hold every instance once; the last may be smaller.

    Raises:
        LabelError: a size below 1.
    """
    if size < 1:
        raise LabelError(f"bag_size is {size}; expected 1 or more")
    order = torch.randperm(n_instances, generator=generator, device=generator.device)
    edges = torch.arange(0, n_instances + size, size, device=order.device).clamp(max=n_instances)
    return Bags(order, edges.unique_consecutive(), n_instances)
