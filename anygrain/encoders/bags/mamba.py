"""Instances read as a sequence by a selective state-space model, as they come and re-ordered."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.attention import Attention
from anygrain.encoders.bags.convolution import convolved
from anygrain.encoders.bags.order import inverse, row_by_row, strided
from anygrain.encoders.bags.pooled import Pooled
from anygrain.encoders.bags.selective_scan import selective_scan
from anygrain.encoders.bags.sparing import sparing
from anygrain.labels import LabelError

Second = Literal["reordered", "flipped", "none"]
SLOWEST, FASTEST = 1e-3, 0.1  # steps of time at the start


class Branch(nn.Module):
    r"""Convolution over the last instances, then the selective scan, gated.

    .. math:: u \leftarrow \mathrm{silu}(\mathrm{conv}(u)), \quad [\delta, B, C] = W_x u, \quad
        \Delta = \mathrm{softplus}(W_\Delta \delta + b_\Delta), \quad
        \mathrm{scan}(u, \Delta, -e^{A}, B, C, D) \odot \mathrm{silu}(g)

    Args:
        channels: of u.
        state: numbers of the state of a channel.
        rank: of :math:`\delta`.
        reach: instances that the convolution sees, the last of them the instance itself.
    """

    def __init__(self, channels: int, state: int, rank: int, reach: int) -> None:
        super().__init__()
        self.state, self.rank = state, rank
        self.kernel = nn.Parameter(torch.empty(channels, reach).uniform_(-(reach**-0.5), reach**-0.5))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.read = nn.Linear(channels, rank + 2 * state, bias=False)
        self.time = nn.Linear(rank, channels)
        nn.init.uniform_(self.time.weight, -(rank**-0.5), rank**-0.5)
        step = torch.exp(torch.empty(channels).uniform_(math.log(SLOWEST), math.log(FASTEST))).clamp(min=1e-4)
        with torch.no_grad():
            self.time.bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus gives the step back
        self.log_a = nn.Parameter(torch.arange(1, state + 1).float().log().repeat(channels, 1))
        self.d = nn.Parameter(torch.ones(channels))

    def forward(self, values: Tensor, gate: Tensor, sizes: Tensor) -> Tensor:
        """(E, C), gates (E, C), sizes (B,) to (E, C)."""
        values = functional.silu(convolved(values, self.kernel, sizes) + self.shift)
        delta, b, c = self.read(values).split([self.rank, self.state, self.state], dim=1)
        steps = functional.softplus(self.time(delta))
        a = -torch.exp(self.log_a.float() if values.dtype != torch.float64 else self.log_a)
        parts = [part.to(a.dtype) for part in (values, steps, b, c)]  # in float32 also where the rest is narrower
        found = selective_scan(parts[0], parts[1], a, parts[2], parts[3], self.d.to(a.dtype), sizes)
        return found.to(gate.dtype) * functional.silu(gate)


class StateSpace(nn.Module):
    """One projection, a branch that reads instances as they come, one that reads them re-ordered, and their sum (SR).

    The second branch reads every bag in steps of `rate` (`strided`; places that fill the bag up are zeros and are read
    too), or from the last to the first, and has parameters of its own.

    Args:
        dim: features.
        state, expand, reach: numbers of the state of a channel; channels per feature; instances of the convolution.
        second: "reordered", "flipped" or "none".
        rate: steps of the re-ordering.
    """

    def __init__(self, dim: int, state: int, expand: int, reach: int, second: Second, rate: int) -> None:
        super().__init__()
        channels, rank = expand * dim, -(-dim // 16)
        self.second, self.rate = second, rate
        self.enter, self.leave = nn.Linear(dim, 2 * channels, bias=False), nn.Linear(channels, dim, bias=False)
        self.branches = nn.ModuleList(
            [Branch(channels, state, rank, reach) for _ in range(1 if second == "none" else 2)]
        )

    def forward(self, features: Tensor, sizes: Tensor) -> Tensor:
        """(E, D), sizes (B,) to (E, D)."""
        both = self.enter(features)
        found: Tensor = self.branches[0](*both.chunk(2, dim=1), sizes)
        if self.second != "none":
            found = found + self.read_again(both, sizes)
        out: Tensor = self.leave(found)
        return out

    def read_again(self, both: Tensor, sizes: Tensor) -> Tensor:
        """What the second branch makes of values and gates (E, 2 C), (E, C)."""
        if self.second == "flipped":
            bag = segments.bag_of(sizes)
            read = (2 * segments.first_of(sizes) + sizes - 1)[bag] - torch.arange(len(bag), device=bag.device)
            found: Tensor = self.branches[1](*both[read].chunk(2, dim=1), sizes)
            return found[read]
        read, filled, stands = strided(sizes, self.rate)
        laid = torch.cat([both, both.new_zeros(1, both.shape[1])])[read]
        found = self.branches[1](*laid.chunk(2, dim=1), filled)
        return found[stands]


class Mamba(Aggregator):
    """Layers of `StateSpace`, each after a norm and added to what was there, a norm, and `Attention` (SR-Mamba).

    Time and memory are linear in the instances; the compiled kernel of `mamba_ssm` is used where it is installed and
    the bags are on a GPU. On a CPU it is the slowest aggregator: the gradient of a bag of 100,000 instances takes half
    a minute or more and 2.5 GB, some tens of times what `Attention` takes (benchmarks/BAGS_SCALE_RESULTS.md). Where
    there are places, instances are read by them, row by row; where not, as they come, and their order matters. The
    score of an instance is that of the instance as those read before it show it.

    Args:
        dim: features of an instance.
        layers: number of blocks.
        state: numbers of the state of a channel.
        expand: channels per feature.
        reach: instances that the convolution before a scan sees.
        second: what the second branch of a block reads: "reordered", "flipped", or "none" for plain Mamba.
        rate: steps of the re-ordering.
        hidden: of the attention that pools.

    Raises:
        LabelError: an unknown second branch, a rate below 1.

    Source: Yang, Wang and Chen, MambaMIL: Enhancing Long Sequence Modeling with Sequence Reordering in Computational
    Pathology, 2024.
    """

    ordered = True

    def __init__(
        self,
        dim: int,
        layers: int = 2,
        state: int = 16,
        expand: int = 2,
        reach: int = 4,
        second: Second = "reordered",
        rate: int = 10,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        if second not in ("reordered", "flipped", "none"):
            raise LabelError(f'second is "{second}"; expected "reordered", "flipped" or "none"')
        if rate < 1:
            raise LabelError(f"rate is {rate}; expected 1 or more")
        self.feature_dim = dim
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(layers)])
        self.blocks = nn.ModuleList([StateSpace(dim, state, expand, reach, second, rate) for _ in range(layers)])
        self.norm, self.pool = nn.LayerNorm(dim), Attention(dim, hidden)

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Pooled:
        order = None if coords is None else row_by_row(coords, sizes)
        hidden = features if order is None else features[order]
        for norm, block in zip(self.norms, self.blocks, strict=True):
            hidden = hidden + sparing(block, norm(hidden), sizes)
        hidden = self.norm(hidden)
        pooled: Pooled = self.pool(hidden if order is None else hidden[inverse(order)], sizes)
        return pooled
