"""How many more votes an item needs until its class is sure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.audit.judged import array
from anygrain.labels import LabelError

#: multiplications that the exact sum may take, and numbers held at a time
EXACT, CHUNK = 5e8, 2**22
#: votes that are looked ahead, and paths that are drawn where that is too many for the exact sum
MOST, PATHS = 30, 64


@dataclass(frozen=True)
class VotesNeeded:
    """What it takes to be sure of N items.

    Attributes:
        expected: expected number of votes until an item is sure, or `most` are given, (N,); 0 where it is sure.
        reached: P(it is sure within `most` votes), (N,).
        most: votes that were looked ahead.
        exact: whether the numbers are sums over all votes; else means of drawn ones.
    """

    expected: np.ndarray
    reached: np.ndarray
    most: int
    exact: bool

    @property
    def total(self) -> float:
        """Expected number of votes for all items."""
        return float(self.expected.sum())


def votes_needed(
    posterior: Any,
    confusion: Any,
    *,
    confidence: float = 0.95,
    most: int = MOST,
    exact: bool | None = None,
    seed: int = 0,
) -> VotesNeeded:
    r"""Expected number of further votes until the most probable class of an item has probability c.

    Votes are drawn as the posterior believes, one after another, and each changes it:

    .. math:: E[T] = \sum_{t=0}^{\text{most} - 1} P(\max_k P(k \mid v_1 \dots v_s) < c \;\; \forall s \le t), \qquad
              P(k \mid v_1 \dots v_t) \propto P(k) \prod_{s \le t} \theta_{k v_s}

    The state after t votes of one channel is how often each class was named, so the sum runs over compositions of t and
    is exact; where there are too many of these, votes are drawn (`PATHS` per item).

    Args:
        posterior: P(class | all that is known now), (N, K).
        confusion: theta, P(vote | class) of those who will be asked, (K, K): `channel.pooled` for anybody, or
            `channel.confusion[w]`.
        confidence: c, above 1 / K and below 1.
        most: votes that are looked ahead.
        exact: whether to sum or to draw; as the work allows when not given.
        seed: of the draws.

    Raises:
        LabelError: tables that do not fit or are no probabilities, a confidence outside its range.
    """
    p = _probabilities(posterior, "posterior")
    theta = _probabilities(confusion, "confusion")
    k = p.shape[1]
    if theta.shape != (k, k):
        raise LabelError(f"confusion has shape {tuple(theta.shape)}; expected ({k}, {k}), as posterior has {k} classes")
    if not 1 / k < confidence < 1:
        raise LabelError(f"confidence is {confidence}; expected a number above 1/{k} and below 1")
    if most < 1:
        raise LabelError(f"most is {most}; expected a number of votes, 1 or more")
    expected, reached = torch.zeros(len(p), dtype=torch.float64), torch.ones(len(p), dtype=torch.float64)
    unsure = (p.amax(dim=1) < confidence).nonzero()[:, 0]
    # items of which the same is known need the same
    kinds, of = torch.unique((p[unsure] * 1e6).round(), dim=0, return_inverse=True)
    kinds = kinds / kinds.sum(dim=1, keepdim=True)
    states = math.comb(most + k - 1, k) if k < 40 else math.inf
    sums = exact if exact is not None else len(kinds) * states * k * k <= EXACT
    step = max(CHUNK // int(math.comb(most + k - 2, k - 1) * k if sums else PATHS * k), 1)
    generator = torch.Generator().manual_seed(seed)
    parts = [
        _summed(part, theta, confidence, most) if sums else _drawn(part, theta, confidence, most, generator)
        for part in kinds.split(step)
        if len(part)
    ]
    if parts:
        expected[unsure] = torch.cat([part[0] for part in parts])[of]
        reached[unsure] = torch.cat([part[1] for part in parts])[of]
    return VotesNeeded(array(expected), array(reached), most, bool(sums))


def _summed(p: Tensor, theta: Tensor, confidence: float, most: int) -> tuple[Tensor, Tensor]:
    """Expected votes and P(sure) of items (n,), over all counts of votes."""
    k = p.shape[1]
    mass = p[:, None, :]  # P(class, counts of votes, not yet sure), (n, counts, K)
    counts = torch.zeros(1, k, dtype=torch.long)
    expected = torch.zeros(len(p), dtype=torch.float64)
    alive = torch.ones(len(p), dtype=torch.float64)
    for _ in range(most):
        expected = expected + alive
        after = (counts[:, None, :] + torch.eye(k, dtype=torch.long)).reshape(-1, k)
        counts, place = torch.unique(after, dim=0, return_inverse=True)
        place = place.reshape(-1, k)
        new = mass.new_zeros(len(p), len(counts), k)
        for v in range(k):
            new.index_add_(1, place[:, v], mass * theta[:, v])
        total = new.sum(dim=2)
        mass = torch.where((new.amax(dim=2) < confidence * total)[:, :, None], new, 0.0)
        alive = mass.sum(dim=(1, 2))
    return expected, 1 - alive


def _drawn(p: Tensor, theta: Tensor, confidence: float, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Expected votes and P(sure) of items (n,), over drawn votes."""
    n, k = p.shape
    truth = torch.multinomial(p, PATHS, replacement=True, generator=generator).reshape(-1)
    item = torch.arange(n).repeat_interleave(PATHS)
    logs = p.clamp(min=1e-300).log().repeat_interleave(PATHS, dim=0)
    evidence = theta.clamp(min=1e-300).log().T  # (vote, K)
    reach = theta.cumsum(dim=1)
    expected = torch.zeros(n, dtype=torch.float64)
    for _ in range(most):
        if not len(item):
            break
        expected += torch.bincount(item, minlength=n).double() / PATHS
        draw = torch.rand(len(item), 1, generator=generator, dtype=torch.float64)
        vote = (draw > reach[truth]).sum(dim=1).clamp(max=k - 1)
        logs = logs + evidence[vote]
        left = logs.softmax(dim=1).amax(dim=1) < confidence
        item, truth, logs = item[left], truth[left], logs[left]
    return expected, 1 - torch.bincount(item, minlength=n).double() / PATHS


def _probabilities(values: Any, name: str) -> Tensor:
    """A table of probabilities in float64, rows that sum to 1."""
    table = torch.as_tensor(values).detach().double().cpu()
    if table.ndim != 2 or not table.shape[1]:
        raise LabelError(f"{name} has shape {tuple(table.shape)}; expected a row of probabilities for each")
    bad = (~((table.sum(dim=1) - 1).abs() < 1e-3) | (table < 0).any(dim=1)).nonzero()[:, 0]
    if len(bad):
        row, total = int(bad[0]), float(table[int(bad[0])].sum())
        raise LabelError(
            f"{len(bad)} rows of {name} are no probabilities (first: row {row}, which sums to {total:.3g})"
        )
    return table / table.sum(dim=1, keepdim=True)
