"""Features in which rows of one class spread alike in all directions."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from anygrain.discover.components import components
from anygrain.discover.exemplars import class_means
from anygrain.discover.found import ClassModel
from anygrain.discover.task import Task, of_one_length
from anygrain.encoders.trainable import Arrays
from anygrain.learn.loop import FeatureRows

DIRECTIONS = 512  # that are told apart; the others are taken to be alike
MOST_PAIRS = 30_000
SAME = 1e-10  # spread relative to the size of numbers, below which rows are the same but for rounding
AT_ONCE = 65536


class Whitening(nn.Module):
    r"""Rows (B, D) made round: :math:`c x + V \mathrm{diag}(w - c) V^T x`, and of length one where all were.

    Args:
        directions: V (D, d), orthonormal.
        stretch: w (d,), along them.
        rest: c, a scalar, across them.
        unit: whether rows are brought to length one.
    """

    directions: Tensor
    stretch: Tensor
    rest: Tensor

    def __init__(self, directions: Tensor, stretch: Tensor, rest: Tensor, unit: bool) -> None:
        super().__init__()
        self.unit = unit
        self.register_buffer("directions", directions)
        self.register_buffer("stretch", stretch)
        self.register_buffer("rest", rest)

    def forward(self, x: Tensor) -> Tensor:
        turned = self.rest * x + (x @ self.directions * (self.stretch - self.rest)) @ self.directions.T
        return normalize(turned, dim=1) if self.unit else turned


def whitening(task: Task, label: Tensor) -> Whitening | None:
    r"""What makes classes round, or None where no two rows are known to be of one class.

    With S the covariance of rows around the means of their classes (of a pair of one class: around its middle), of n
    degrees of freedom, and m the mean variance of a column,

    .. math:: x \mapsto \Big(\frac{n S / m + D I}{n + D}\Big)^{-1/2} x .

    Directions in which rows of one class differ say little of classes, of those that are known and as a rule of all
    others; all methods do better where they count less. The identity counts as much as D rows: few rows change little.
    S is never D x D where D is large: 512 directions are told apart.

    Args:
        task: rows, and must-link pairs among them.
        label: (N,) class of every row, -1 where it is not known.

    Source: Bar-Hillel, Hertz, Shental, Weinshall, Learning a Mahalanobis metric from equivalence constraints, 2005;
    Hatch, Kajarekar, Stolcke, Within-class covariance normalization, 2006.
    """
    around, free = _around(task, label.to(task.features.device))
    total, dim = float(around.square().sum()), around.shape[1]
    if free < 1 or total <= SAME * around.numel() * float(task.features.square().mean()):
        return None
    directions = components(around, DIRECTIONS, task.seed)[1]
    held = (around @ directions).square().sum(dim=0)
    across = held.new_tensor(max(total - float(held.sum()), 0.0) / max(dim - len(held), 1))
    mean = total / free / dim
    stretch, rest = (((found / mean + dim) / (free + dim)) ** -0.5 for found in (held, across))
    return Whitening(directions, stretch, rest, of_one_length(task.features))


def _around(task: Task, label: Tensor) -> tuple[Tensor, int]:
    """Rows (R, D) around the means of their classes, and degrees of freedom."""
    x, rows = task.features, (label >= 0).nonzero().flatten()
    own = label[rows].unique(return_inverse=True)[1]
    means, size = class_means(x[rows], own, int(own.max()) + 1 if len(own) else 0)
    pairs = task.evidence.pairs[task.evidence.same == 1]
    drawn = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(task.seed))[:MOST_PAIRS]
    i, j = pairs[drawn].to(x.device).T
    half = (x[i] - x[j]) / 2  # both ways, so that the mean is 0
    return torch.cat([x[rows] - means[own], half, -half]), len(rows) - len(size) + len(half)


def whitened(task: Task, white: Whitening) -> Task:
    """The same task with features that were made round."""
    features = torch.cat([white(part) for part in task.features.split(AT_ONCE)])
    return replace(task, features=features, rows=FeatureRows(features))


class Whitened(ClassModel):
    """A model of features that were made round, which reads them as they were."""

    def __init__(self, white: Whitening, model: ClassModel) -> None:
        super().__init__()
        self.white, self.model = white, model

    def embed(self, arrays: Arrays) -> Tensor:
        return self.model.embed({"features": self.white(arrays["features"])})

    def forward(self, arrays: Arrays) -> Tensor:
        found: Tensor = self.model({"features": self.white(arrays["features"])})
        return found
