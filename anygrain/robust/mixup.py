"""Mixup: between two rows a model should be of two minds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.learn.loss import Loss, cross_entropy, terms_alone
from anygrain.learn.step import Step, View
from anygrain.learn.tag_recipe import tags_of
from anygrain.learn.term import Term
from anygrain.robust.settings import above

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


def mixable(arrays: dict[str, Tensor]) -> bool:
    """Whether inputs are numbers that may be averaged: fractions, or pixels; not words or categories."""
    return all(array.is_floating_point() or array.dtype == torch.uint8 for array in arrays.values())


def mixed_inputs(arrays: dict[str, Tensor], partner: Tensor, share: float) -> dict[str, Tensor]:
    """share x + (1 - share) x[partner] of every array, in its own type."""
    out = {}
    for name, array in arrays.items():
        between = share * array.float() + (1 - share) * array[partner].float()
        out[name] = between.round().to(array.dtype) if array.dtype == torch.uint8 else between.to(array.dtype)
    return out


def mixed_outputs(step: Step, view: View, partner: Tensor, share: float) -> Tensor:
    """Log-probabilities (B, K) of instances of rows that are mixed with others, (R,).

    Inputs are mixed where they are numbers; words and categories are mixed as the features that the head sees.
    """
    if mixable(view.arrays):
        return view.of_instances(view.network(mixed_inputs(view.arrays, partner, share))[0], view.place, step.instances)
    rows = len(partner)
    first = step.instances.new_full((rows,), len(view.place)).scatter_reduce(
        0, view.place, torch.arange(len(view.place), device=view.place.device), "amin"
    )
    features = step.features[first]
    given = share * features + (1 - share) * features[partner]
    head = getattr(view.head, "log_probs", view.head)
    return view.of_instances(head(given), view.place, step.instances)


def partner_of(place: Tensor, tag: Tensor, partner: Tensor) -> Tensor:
    """For every instance (B,) the one of its partner row with the same tag, -1 where there is none.

    Args:
        place: (B,) row of every instance.  tag: (B,) its tag, 0 where rows have none.
        partner: (R,) partner of every row.
    """
    width = int(tag.max()) + 1 if len(tag) else 1
    found = torch.full((len(partner) * width,), -1, device=place.device)
    found[(place * width + tag).flip(0)] = torch.arange(len(place), device=place.device).flip(0)
    return found[partner[place] * width + tag]


class Mixup(Term):
    r"""Rows are mixed with others of their batch, and their posteriors alike.

    .. math:: \mathrm{loss}\big(\log p(\lambda x_i + (1 - \lambda) x_j),\; \lambda q_i + (1 - \lambda) q_j\big), \qquad
              \lambda \sim \mathrm{Beta}(a, a)

    Inputs are mixed where they are numbers or pixels, else the features. The loss is that of the Learner; with
    `loss=terms_alone` it is `loss` here, and mixed rows are all that is learnt from, as in the source.

    Args:
        amount: a, above 0; the smaller, the nearer to one of the two rows.
        loss: see above.

    Raises:
        LabelError: an amount that is not above 0.

    Source: Zhang, Cisse, Dauphin and Lopez-Paz, mixup: Beyond Empirical Risk Minimization, 2018; features: Verma and
    others, Manifold Mixup, 2019.
    """

    def __init__(self, amount: float = 0.4, loss: Loss = cross_entropy) -> None:
        super().__init__()
        above(amount, "amount")
        self.amount, self.own = amount, loss

    def on_fit_start(self, learner: Learner) -> None:
        labels = learner.labels_
        self.loss = self.own if learner.loss is None or learner.loss is terms_alone else learner.loss
        self.weight = labels.instance_weight()
        self.tag = tags_of(labels).tag if learner.space_ == "tags" else torch.zeros_like(labels.rows)

    def forward(self, step: Step) -> Tensor:
        view = step.view
        if view is None:
            return 0 * step.log_probs.sum()
        rows = int(view.place.max()) + 1
        # the loop seeds torch's generator by epoch
        share = float(torch.distributions.Beta(self.amount, self.amount).sample())
        partner = torch.randperm(rows).to(view.place.device)
        names = step.instances.to(self.tag.device)
        other = partner_of(view.place, self.tag[names].to(view.place.device), partner)
        target = share * step.posterior + (1 - share) * step.posterior[other]
        weight = self.weight[names].to(step.posterior) * (other >= 0)
        value = self.loss(mixed_outputs(step, view, partner, share), target)
        return (weight * value).sum() / weight.sum().clamp(min=1e-12)
