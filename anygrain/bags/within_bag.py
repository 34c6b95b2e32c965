"""Predictions of a bag, pulled together: a term for any evidence."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.bags.aggregate_losses import within_bag_spread
from anygrain.labels import Bags, LabelError
from anygrain.learn import Term
from anygrain.learn.step import RealStep, Step


class WithinBag(Term):
    r"""Adds :math:`\rho R`, the spread of predictions within bags, to whatever the labels say.

    .. math:: R = \frac1m \sum_a \frac1{k_a} \sum_{i \in a} |f_i - \bar f_a|^2

    f are probabilities, or the mean of a number. Beside mean responses (`AggregateValue`, `Proportions`) this is the
    loss between bag and instances of `anygrain.bags.aggregate_losses`. Where bags hold similar rows (one street, one
    slide) it is smoothness that is true; over bags drawn at random it is shrinkage.

    Args:
        bags: of the instances.
        rho: its weight.

    Raises:
        LabelError: rho below 0.
    """

    def __init__(self, bags: Bags, rho: float = 0.1) -> None:
        super().__init__()
        if rho < 0:
            raise LabelError(f"rho is {rho:g}; expected 0 or more")
        self._bags, self.rho = bags, rho

    def bags(self) -> Bags:
        return self._bags

    def forward(self, step: Step | RealStep) -> Tensor:
        predicted = step.mean if isinstance(step, RealStep) else step.log_probs.exp()
        place = step.instances.new_full((self._bags.n_instances,), -1)
        place[step.instances] = torch.arange(len(step.instances), device=place.device)
        members = self._bags.members.to(place.device)
        index = self._bags.index.to(place.device)
        whole = place.new_ones(len(self._bags)).scatter_reduce(0, index, (place[members] >= 0).long(), "amin")
        chosen = whole.nonzero()[:, 0]
        if len(chosen) == 0:
            return predicted.sum() * 0.0
        here = self._bags.to(place.device).select(chosen, step.instances)
        return self.rho * within_bag_spread(predicted, here)
