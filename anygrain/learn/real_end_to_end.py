r"""An encoder and the head of a number, trained together from evidence.

.. math:: \max_\theta \sum_o w_o \log P(o \mid m_\theta(x), v_\theta(x))

by gradient steps on batches that keep sets whole (`Loop`). What is held out, the choice of the epoch and the average of
the weights are those of `EndToEnd`; held-out evidence also calibrates the standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anygrain.encoders.trainable import Augmentation, Inputs, TrainableEncoder, to_device
from anygrain.labels import RealAll, RealLabels, Value
from anygrain.labels.observations import Batch
from anygrain.labels.real import Belief
from anygrain.learn.end_to_end import SHRINK, EndToEnd
from anygrain.learn.fabric import Fabric
from anygrain.learn.loop import Loop, Network
from anygrain.learn.real import ENOUGH, RealResult, best_spread, weighted
from anygrain.learn.real_head import RealHead
from anygrain.learn.step import RealStep
from anygrain.learn.term import Term

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


class RealLoop(Loop):
    """Towards the largest likelihood of labels of a number; rows are seen in their weak view.

    Of overlapping bags that together are larger than a batch, a batch counts those that lie wholly in it.
    """

    order: RealLabels

    def __init__(self, *args: Any, augmentation: Augmentation | None, terms: Sequence[Term] = (), **more: Any) -> None:
        super().__init__(*args, hooked=terms, **more)
        self.augmentation, self.terms = augmentation, terms

    def keep_what_is_said(self, mean: float, variance: float) -> None:
        """From now on `said` holds mean and variance (N,) of all instances, as they were when their batch came."""
        like = torch.ones(self.order.n_instances, dtype=torch.float64, device=self.order.device)
        self.said = (like * mean, like * variance)

    def whole(self, batch: Batch) -> Tensor:
        """Gradient of the objective in mean and variance, (B, 2), for each instance's share of the weight."""
        found = torch.stack(self.found(batch.instances), dim=1).requires_grad_(True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self._loss(batch, found[:, 0], found[:, 1]), found)
        weight = self.weight_of(batch).to(slope)
        return slope * (weight.sum() / weight.clamp(min=1e-12))[:, None]

    def _loss(self, batch: Batch, mean: Tensor, variance: Tensor) -> Tensor:
        part = self.order.select(batch)
        value = weighted(part, part.log_likelihood(mean, variance))
        return -value.sum() / max(len(batch.instances), 1)

    def objective(
        self, batch: Batch, known: Tensor | None, silent: Tensor, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, RealStep | None]:
        rows, place = self.row_of[self.name_of[batch.instances.cpu()]].unique(return_inverse=True)
        arrays = self.rows[rows]
        if self.augmentation is not None:
            arrays = self.augmentation.weak(arrays, generator)
        (mean, variance), features = self.module(to_device(arrays, self.fabric.device))
        place = place.to(mean.device)
        mean, variance = mean[place].to(self.order.device), variance[place].to(self.order.device)
        if self.said is not None:
            self.said[0][batch.instances], self.said[1][batch.instances] = mean.detach(), variance.detach()
        if known is None:
            value = self._loss(batch, mean, variance)
        else:
            weight = self.weight_of(batch).to(mean)
            towards = (known * torch.stack([mean, variance], dim=1)).sum(dim=1)
            value = (weight * towards).sum() / weight.sum().clamp(min=1e-12)
        if not self.terms:
            return value, None
        # of a set that is trained in parts, the part alone is not what was observed
        said = mean if known is not None else self.order.select(batch).posterior(mean.detach(), variance.detach()).mean
        names = self.name_of[batch.instances.cpu()].to(place.device)
        step = RealStep(mean, variance, features[place], said.detach(), names, epoch)
        for term in self.terms:
            value = value + term(step)
        return value, step


class RealEndToEnd(EndToEnd):
    """An encoder and the head of a number.

    Args:
        learner: of which this is the fit.
        encoder, rows, labels: as in `EndToEnd`; channels are fitted in place.
        head: unfitted.
        augmentation: None for none.
        terms: added to the objective.
        how: epochs, batch_size, learning_rate, accumulate, callback, state.
    """

    def __init__(
        self,
        learner: Learner,
        encoder: TrainableEncoder,
        head: RealHead,
        rows: Inputs,
        labels: RealLabels,
        *,
        augmentation: Augmentation | None,
        terms: Sequence[Term] = (),
        seed: int,
        fabric: Fabric,
        **how: Any,
    ) -> None:
        self.labels, self.head = labels, head
        told = torch.zeros(len(labels), dtype=torch.bool)
        told[labels.rows.cpu()[labels.evident.cpu()]] = True
        super().__init__(encoder, rows, labels, told=told, order=labels, channels=labels.channels, seed=seed, **how)
        self.taught = labels[self.taught_rows]
        self.held = labels[self.held_rows] if bool(self.held_rows.any()) else None
        location, scale = self.taught.location_scale()
        head.standardise(location, scale)
        head.start(torch.Generator().manual_seed(seed))
        loop = RealLoop(
            learner,
            Network(head, encoder, terms),
            rows,
            self.taught,
            self.pace,
            seed=seed,
            fabric=fabric,
            augmentation=augmentation,
            terms=terms,
            instances=self.names,
            row_of=labels.rows,
            weight=labels.instance_weight(),
        )
        if labels.channels:
            loop.keep_what_is_said(location, scale**2)
        self.watch(loop)

    def start_epoch(self) -> None:
        """Nothing is prepared."""

    def learn_channels(self) -> None:
        if self.loop.said is None:
            return
        said = self.loop.said
        if self.loop.fabric.world_size > 1:  # every process has seen its own batches only
            said = self.loop.found(torch.arange(self.taught.n_instances))
        self.taught.update(*self.taught.posterior(said[0], said[1]))

    def held_out_value(self) -> Tensor:
        assert self.held is not None
        belief = self._belief(self.held_rows.nonzero()[:, 0])
        return weighted(self.held, self.held.infer(*(table[self.held.rows] for table in belief))[0])

    def _belief(self, on: Tensor | None = None) -> Belief:
        """Mean and variance (R,) of all data rows, or some, by the averaged network."""
        table = self._table(on)
        return Belief(table[:, 0], table[:, 1])

    def _table(self, on: Tensor | None = None, rows: Inputs | None = None) -> Tensor:
        return self.table(lambda arrays: torch.stack(self.network(arrays)[0], dim=1), on, rows).double()

    def predicted(self, rows: Inputs) -> Tensor:
        return self._table(rows=rows)

    def fit(self) -> int:
        epoch = self.train()
        head = self.network.head
        assert isinstance(head, RealHead)
        #: sorted, of the held-out values
        self.residuals = torch.zeros(0, dtype=torch.float64)
        if self.held is not None:
            belief = Belief(*(table[self.held.rows] for table in self._belief(self.held_rows.nonzero()[:, 0])))
            n = self.held.n_observations
            spread = best_spread(self.held, belief) ** (n / (n + SHRINK))
            head.spread.fill_(spread)
            belief = Belief(belief.mean, belief.variance * spread**2)
            self.residuals = _residuals(self.held, belief)
        return epoch

    def run(self) -> RealResult:
        epoch = self.fit()
        head = self.network.head
        assert isinstance(head, RealHead)
        held = self.held_rows[self.labels.rows.cpu()].to(self.labels.device)
        found = Belief(*(table[self.labels.rows] for table in self._belief()))
        value = weighted(self.labels, self.labels.infer(*found)[0])
        return RealResult(
            head=head,
            posterior=self.labels.posterior(*found),
            held_out=found,
            is_held_out=held,
            residuals=self.residuals,
            chosen={**self.chosen(epoch), "head": "gaussian"},
            history=list(self.state.history),
            score=float(value.sum() / max(int(self.labels.evident.sum()), 1)),
        )


def held_apart(result: RealResult, labels: RealLabels, held_out: Belief, history: list[dict[str, Any]]) -> RealResult:
    """A result whose held-out predictions, mean and variance (N,), are those of networks that saw no such row."""
    value = weighted(labels, labels.infer(*held_out)[0])
    return replace(
        result,
        held_out=held_out,
        is_held_out=torch.ones_like(result.is_held_out),
        residuals=_residuals(labels, held_out),
        history=history,
        score=float(value.sum() / max(int(labels.evident.sum()), 1)),
    )


def _residuals(labels: RealLabels, belief: Belief) -> Tensor:
    """Sorted |value - mean| / sd of the values among labels, noise included; empty where they are few."""
    parts = labels.parts if isinstance(labels, RealAll) else [labels]
    found = [p.residual(*belief)[p.said()] for p in parts if isinstance(p, Value)]
    joined = torch.cat([torch.zeros(0, dtype=torch.float64, device=labels.device), *found]).abs()
    return joined.sort().values if len(joined) >= ENOUGH else joined[:0]
