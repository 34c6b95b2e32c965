"""Instances that are left out, summed up in a few tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.aggregator import Aggregator, require_heads
from anygrain.encoders.bags.pooled import Pooled


class Recycle(nn.Module):
    r"""k query tokens look at the masked instances of a bag; what they see stays in the bag in their place.

    .. math:: R = \mathrm{MCA}(\mathrm{LN}(Q), \mathrm{LN}(X_{masked})), \qquad Q \leftarrow \mu Q + (1 - \mu) \bar R

    Q is not trained by gradient but follows the mean of R over bags. A bag that nothing is masked of gets no token.

    Args:
        dim: features of an instance.
        tokens: k.
        heads: of the attention.
        keep: :math:`\mu`.

    Source: Tang et al., Multiple Instance Learning Framework with Masked Hard Instance Mining for Gigapixel
    Histopathology Image Analysis, 2025.
    """

    queries: Tensor

    def __init__(self, dim: int, tokens: int, heads: int = 4, keep: float = 0.999) -> None:
        super().__init__()
        require_heads(dim, heads)
        self.heads, self.keep = heads, keep
        bound = (6 / (3 * 16 * 16 + dim)) ** 0.5
        self.register_buffer("queries", torch.empty(tokens, dim).uniform_(-bound, bound))
        self.norm = nn.LayerNorm(dim)
        self.ask, self.show, self.tell = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def tokens(self, masked: Tensor, sizes: Tensor) -> Tensor:
        """R (B, k, d) of masked instances (E, d) of B bags, all with at least one."""
        k, dim = self.queries.shape
        query = self.ask(self.norm(self.queries.clone())).view(k, self.heads, -1)
        seen = self.norm(masked)
        key, value = (layer(seen).view(len(seen), self.heads, -1) for layer in (self.show, self.tell))
        scores = torch.einsum("ehd,khd->ekh", key, query) * (dim // self.heads) ** -0.5
        weight = segments.softmax(scores, sizes)
        found = segments.total(weight[..., None] * value[:, None], sizes)  # (B, k, heads, d / heads)
        out: Tensor = self.out(found.flatten(2))
        return out

    def forward(
        self, hidden: Tensor, sizes: Tensor, coords: Tensor | None, masked: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Kept instances of every bag and behind them the tokens, their sizes and places.

        Args:
            hidden: (E, d).
            sizes: (B,).
            coords: (E, 2) or None; a token lies in the middle of what it stands for.
            masked: bool (E,), not all of a bag.
        """
        bag, k = segments.bag_of(sizes), len(self.queries)
        many = torch.bincount(bag[masked], minlength=len(sizes))
        some = (many > 0).nonzero()[:, 0]
        if len(some) == 0 or k == 0:
            return without(hidden, sizes, coords, masked)
        tokens = self.tokens(hidden[masked], many[some])
        if self.training:
            with torch.no_grad():
                self.queries.lerp_(tokens.mean(dim=0), 1 - self.keep)
        owner = torch.cat([bag[~masked], some.repeat_interleave(k)])
        order = owner.argsort(stable=True)
        mixed = torch.cat([hidden[~masked], tokens.flatten(0, 1)])[order]
        places = None
        if coords is not None:
            middle = segments.mean(coords[masked], many[some]).repeat_interleave(k, dim=0)
            places = torch.cat([coords[~masked], middle])[order]
        return mixed, torch.bincount(owner, minlength=len(sizes)), places

    def beside(self, hidden: Tensor, sizes: Tensor, coords: Tensor | None, aggregator: Aggregator) -> Pooled:
        """Bags whose instances all stay, with tokens of all of them behind; what is said of instances is of them alone.

        Args:
            hidden: (E, d).
            sizes: (B,).
            coords: (E, 2) or None.
            aggregator: of instances and tokens.
        """
        k = len(self.queries)
        bag = segments.bag_of(sizes)
        token = torch.arange(len(sizes), device=sizes.device).repeat_interleave(k)
        order = torch.cat([bag, token]).argsort(stable=True)
        mixed = torch.cat([hidden, self.tokens(hidden, sizes).flatten(0, 1)])[order]
        places = None
        if coords is not None:
            places = torch.cat([coords, segments.mean(coords, sizes).repeat_interleave(k, dim=0).to(coords)])[order]
        found = aggregator(mixed, sizes + k, places)
        own = order < len(hidden)
        attention = found.attention
        if attention is not None:
            attention = attention[own] / segments.total(attention[own], sizes)[bag]
        return Pooled(found.bag, found.instances[own], attention)


def without(
    hidden: Tensor, sizes: Tensor, coords: Tensor | None, masked: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Instances that are not masked, how many each bag has, and their places."""
    kept = torch.bincount(segments.bag_of(sizes)[~masked], minlength=len(sizes))
    return hidden[~masked], kept, None if coords is None else coords[~masked]
