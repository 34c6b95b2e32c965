"""K-means that keeps every pair."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.evidence import Evidence
from anygrain.discover.found import Found
from anygrain.discover.k_means import AT_ONCE, MOVING, TRIED_ROWS, squared_distances, starting_centres
from anygrain.discover.linked import blocks, parted
from anygrain.discover.semi_supervised_k_means import Centres
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder

STEPS = 50
STARTS = 4
SURE = 0.999  # probability of the class of a row that is in a pair


class ConstrainedKMeans(Discoverer):
    r"""K-means in which rows that must be together are one, and rows that cannot be are kept apart.

    .. math:: \min_{c, y}\; \sum_i |x_i - c_{y_i}|^2 \quad\text{where}\quad
              y_i = y_j \text{ (must-link)}, \quad y_i \neq y_j \text{ (cannot-link)}

    and what else is said of rows holds as well. Rows joined by must-link pairs, by chains too, move as one. Where two
    rows that cannot be together chose the same class, the one that loses less takes the best class that none of its
    partners holds, the rows without such partners at once. A pair is broken only where no class is left for a row;
    `broken_` counts these. `SemiSupervisedKMeans` reads pairs as evidence instead, which distances may outweigh.

    Args:
        starts: how many times it is started; the smallest spread is kept. Of more than 50,000 rows so many are drawn
            to try the starts on, and the best goes on with all.

    Attributes:
        broken_: number of pairs that do not hold.

    Source: Wagstaff et al., Constrained k-means clustering with background knowledge, 2001.
    """

    learns_from = None

    def __init__(
        self,
        *,
        starts: int = STARTS,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.starts = starts

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        few = task.sample(TRIED_ROWS)
        blocks = Blocks(few.features, few.evidence, few.node)
        generator = torch.Generator().manual_seed(task.seed)
        best: tuple[float, Tensor, Tensor] | None = None
        alone = replace(few, evidence=replace(few.evidence, pairs=few.evidence.pairs[:0]))
        for start in range(1, self.starts + 1):
            spread, label, centre = blocks.settle(starting_centres(alone, generator))
            if best is None or spread < best[0]:
                best = spread, label, centre
            if callback is not None:
                callback(start, self.starts, {"step": f"start {start}", "inertia": spread})
        assert best is not None
        if few is not task:
            blocks = Blocks(task.features, task.evidence, task.node)
            best = blocks.settle(best[2])
        spread, label, centre = best
        variance = task.features.new_tensor(max(spread / task.features.numel(), 1e-12))
        model = Centres(centre, variance)
        log_probs = torch.cat([model.forward({"features": part}) for part in task.features.split(AT_ONCE)]).cpu()
        rows, label = task.evidence.pairs.unique(), label[blocks.of_row].cpu()
        chosen = torch.nn.functional.one_hot(label[rows], len(centre))
        log_probs[rows] = torch.log(SURE * chosen + (1 - SURE) * log_probs[rows].exp())
        i, j = task.evidence.pairs.T
        broken = int(((label[i] == label[j]).long() != task.evidence.same).sum())
        why = f"the smallest spread of {self.starts} starts; {broken} of {len(i)} pairs do not hold"
        return Found(task.node, model, log_probs, why=why, facts={"broken": broken})


class Blocks:
    """Rows that must be together, as weighted points, and which of them cannot be.

    Attributes:
        of_row: (N,) block of every row.
        mean, weight: (B, D) and (B,) of the rows of a block.
        inside: sum of squared distances of rows to the mean of their block.
        said: (B, K) log evidence of all rows of a block, or None.
        apart: (2, A) blocks that cannot be together, both ways.
    """

    def __init__(self, x: Tensor, evidence: Evidence, node: Tensor) -> None:
        of_row, apart = blocks(evidence)
        self.of_row, self.apart = of_row.to(x.device), apart.to(x.device)
        number = int(of_row.max()) + 1
        self.weight = torch.bincount(self.of_row, minlength=number).to(x.dtype)
        self.mean = x.new_zeros(number, x.shape[1]).index_add(0, self.of_row, x) / self.weight[:, None]
        parts = zip(x.split(AT_ONCE), self.of_row.split(AT_ONCE), strict=True)
        self.inside = sum(float((part - self.mean[own]).square().sum(dtype=torch.float64)) for part, own in parts)
        table = evidence.log_table(node)
        self.said: Tensor | None = None
        if table is not None:
            self.said = x.new_zeros(number, len(node)).index_add(0, self.of_row, table.to(x))

    def settle(self, centre: Tensor) -> tuple[float, Tensor, Tensor]:
        """Spread of all rows, class (B,) of every block, and centres (K, D), once no block moves any more."""
        label: Tensor | None = None
        for _ in range(STEPS):
            cost = torch.cat([squared_distances(part, centre) for part in self.mean.split(AT_ONCE)])
            cost *= self.weight[:, None]
            scale = 2 * (cost.amin(dim=1).sum() + self.inside) / (self.weight.sum() * centre.shape[1])
            if self.said is not None:
                cost.div_(scale.clamp(min=1e-12)).sub_(self.said)
            before, label = label, parted(cost, self.apart)
            if before is not None and int((label != before).sum()) <= MOVING * len(label):
                break
            size = centre.new_zeros(len(centre)).index_add(0, label, self.weight)
            total = torch.zeros_like(centre)
            for part, own, many in zip(*(t.split(AT_ONCE) for t in (self.mean, label, self.weight)), strict=True):
                total.index_add_(0, own, part * many[:, None])
            centre = torch.where((size > 0)[:, None], total / size.clamp(min=1)[:, None], centre)
        assert label is not None
        near = 0.0
        for part, own, many in zip(*(t.split(AT_ONCE) for t in (self.mean, label, self.weight)), strict=True):
            near += float(((part - centre[own]).square().sum(dim=1) * many).sum(dtype=torch.float64))
        return near + self.inside, label, centre
