"""Label propagation: labels flow along a graph of neighbours, and a head learns where they arrive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.labels import Labels
from anygrain.learn.graph import neighbour_graph
from anygrain.robust.self_training import Fit, Handling, SelfTraining
from anygrain.robust.settings import above, share
from anygrain.robust.thresholds import Curriculum, Threshold

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

PRECISION = 1e-6  # of what is propagated, relative


def propagated(spread: Tensor, start: Tensor, alpha: float) -> Tensor:
    r""":math:`F = (1 - \alpha) (I - \alpha S)^{-1} Y`, by as many conjugate gradients as its condition asks for.

    Args:
        spread: S, (N, N), symmetric, eigenvalues of at most 1 in size; may be sparse.
        start: Y, (N, K).
        alpha: in [0, 1).
    """
    bound = math.sqrt((1 + alpha) / (1 - alpha))  # of the condition number, its root
    steps = math.ceil(0.5 * bound * math.log(2 * bound / PRECISION))
    tiny = torch.finfo(start.dtype).tiny
    found, rest = torch.zeros_like(start), start
    way, size = rest, rest.square().sum(dim=0)
    for _ in range(steps):
        image = way - alpha * (spread @ way)
        step = size / (way * image).sum(dim=0).clamp(min=tiny)
        found = found + step * way
        rest = rest - step * image
        now = rest.square().sum(dim=0)
        way = rest + now / size.clamp(min=tiny) * way
        size = now
    return ((1 - alpha) * found).clamp(min=0)


class Propagation:
    """What arrives at every row of the targets of some, as probabilities; even where nothing does. See `Fit`."""

    def __init__(self, features: Tensor, neighbours: int, alpha: float) -> None:
        self.spread, self.alpha = neighbour_graph(features, neighbours).spread, alpha

    def __call__(self, rows: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, None]:
        start = target.new_zeros(self.spread.shape[0], target.shape[1])
        start[rows] = weight[:, None] * target
        found = propagated(self.spread, start, self.alpha)
        mass = found.sum(dim=1, keepdim=True)
        return torch.where(mass > 0, found / mass.clamp(min=1e-30), 1 / target.shape[1]), None


class LabelPropagation(SelfTraining):
    r"""What labels say flows along the graph of nearest neighbours; a head learns from all rows that it reaches.

    .. math:: F = (1 - \alpha) (I - \alpha S)^{-1} Y, \qquad S = D^{-1/2} W D^{-1/2}

    Y holds the posteriors of rows with labels. F, row by row a distribution that is aligned to the class shares of rows
    with labels, gives the other rows a class, which counts by :math:`1 - H / \log K`. Labels that leave classes open
    are propagated again with what they say under F.

    Composes with every kind of label, every head and every loss; not with terms or a weighting. Features must be such
    that neighbours are alike; the graph is found by comparing all rows with all.

    Args:
        alpha: how far labels flow, in [0, 1); 0 is the supervised head.
        neighbours: of every row.
        threshold: which rows are learnt from; all of them where not given.
        handling: of what arrives; `Handling(weigh="entropy", align=True)` where not given.
        rounds: a second one propagates the guesses that were accepted as well.
        steps: of L-BFGS.

    Attributes:
        outcome_: see `Outcome`.

    Source: Zhou et al., Learning with Local and Global Consistency, 2004; Iscen et al., Label Propagation for Deep
    Semi-supervised Learning, 2019 (weights by entropy).
    """

    own_head = False

    def __init__(
        self,
        alpha: float = 0.99,
        neighbours: int = 10,
        threshold: Threshold | str | None = None,
        *,
        handling: Handling | None = None,
        rounds: int = 1,
        steps: int = 40,
    ) -> None:
        share(alpha, "alpha")
        above(neighbours, "neighbours", 1, open_bottom=False)
        handling = Handling(weigh="entropy", align=True) if handling is None else handling
        everyone = Curriculum(1.0) if threshold is None else threshold
        super().__init__(everyone, rounds=rounds, handling=handling, calibrate=False, steps=steps)
        self.alpha, self.neighbours = float(alpha), int(neighbours)

    def learners(self, learner: Learner, features: Tensor, labels: Labels) -> Sequence[Fit]:
        return [Propagation(features, self.neighbours, self.alpha)]

    def teach(self, votes: Tensor) -> tuple[Tensor, Tensor]:
        """A row that nothing has reached is not learnt from."""
        return votes, votes.amax(dim=2) > votes.amin(dim=2)
