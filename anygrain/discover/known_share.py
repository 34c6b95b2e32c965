"""Which share of the rows is of known classes: told rows near told rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from anygrain.discover.k_means import squared_distances

NEIGHBOURS = 10
ASKED = 2000  # told rows whose neighbours are looked at
HELD = 2**24  # distances held at once


@dataclass(frozen=True)
class KnownShare:
    """The share of rows that are of known classes, and the standard error of its logarithm."""

    share: float
    error: float


def known_share(z: Tensor, told: Tensor, generator: torch.Generator) -> KnownShare | None:
    r"""The share of rows (N, D) whose class is known, from some rows whose class is told.

    Of T told rows, of G classes, let s be the share of their neighbours that are told of the same class, d of those
    told of another, and r the share of told rows among all. Where q of the neighbours of a row are of its class and the
    others are drawn from all rows, :math:`s = q r / \pi` and :math:`d = (1 - q) r` with :math:`\pi` the share of known
    classes, so that

    .. math:: \pi = \frac{r - d}{s} \cdot \frac{T - G}{T},

    the last as a row is not its own neighbour and has one told row of its class less around it. Told rows are taken to
    be drawn at random from their classes. The standard error is that over told rows (of a ratio, linearised), with what
    the sizes of classes differ.

    Args:
        told: (N,) class of every row, -1 where none is told.

    Returns:
        None where no told row has a neighbour told of its class, or no class two told rows.
    """
    rows = (told >= 0).nonzero().flatten()
    size = torch.bincount(told[rows]) if len(rows) else torch.zeros(0)
    size = size[size > 0].double()
    spare = float(len(rows) - len(size))
    if spare <= 0 or len(z) < 3:
        return None
    asked = rows[torch.randperm(len(rows), generator=generator)[:ASKED]]
    same, other = _told_near(z, told, asked)
    rate = (len(rows) - 1) / (len(z) - 1)
    s, d = float(same.mean()), float(other.mean())
    if s <= 0:
        return None
    factor = spare / len(rows)
    share = (rate - d) / s * factor
    floor = len(rows) / len(z)  # told rows are of known classes
    spread = (other - d + (rate - d) * (same - s) / s) / s * factor
    error = float(spread.std()) / math.sqrt(len(asked)) if len(asked) > 1 else share
    share = max(share, floor)
    differ = float(size.std() / size.mean()) / math.sqrt(len(size)) if len(size) > 1 else 1.0
    return KnownShare(share, math.hypot(error / share, differ))


def _told_near(z: Tensor, told: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Shares (R,) of the neighbours of rows (R,) that are told of the same class, and of another."""
    told, near = told.to(z.device), min(NEIGHBOURS, len(z) - 1)
    same, other = [], []
    for part in asked.to(z.device).split(max(1, HELD // len(z))):
        apart = squared_distances(z[part], z).scatter_(1, part[:, None], torch.inf)
        around = told[apart.topk(near, dim=1, largest=False).indices]
        alike = around == told[part][:, None]
        same.append(alike.double().mean(dim=1))
        other.append(((around >= 0) & ~alike).double().mean(dim=1))
    return torch.cat(same).cpu(), torch.cat(other).cpu()
