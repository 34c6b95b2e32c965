"""What every aggregator offers."""

from __future__ import annotations

from torch import Tensor, nn

from anygrain.encoders.bags.pooled import Pooled
from anygrain.labels import LabelError


class Aggregator(nn.Module):
    """Instances (E, d) of B bags to `Pooled`: ragged, without padding.

    `aggregator(features, sizes)` works on plain tensors; `BagEncoder` trains it with a head. Where an aggregator has no
    context of its own (`Mean`, `Max`, `Attention`, ...), `Pooled.instances` is what the bag would be if it held that
    instance alone; behind a context (`Transformer`, `Mamba`, `ReEmbedding`) the instance as its context shows it.

    Attributes:
        feature_dim: D, columns of `Pooled.bag`.
        ordered: whether the order of the instances of a bag matters.
    """

    feature_dim: int
    ordered: bool = False

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Pooled:
        """Pool bags.

        Args:
            features: (E, d), instances bag after bag.
            sizes: (B,), instances of every bag, all at least 1.
            coords: (E, 2), places of the instances, where there are any.
        """
        raise NotImplementedError

    def learn(self, sizes: Tensor) -> None:
        """Set what depends on how large bags are, sizes (M,). Nothing by default."""


def require_heads(dim: int, heads: int) -> None:
    """Raises LabelError unless every head has as many features."""
    if heads < 1 or dim % heads:
        raise LabelError(f"{heads} heads do not share {dim} features evenly; choose heads that divide them")
