"""Bag means that may be given away: label differential privacy, its noise told to the model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anygrain.bags.aggregate_losses import bag_means
from anygrain.labels import AggregateValue, Bags, LabelError


def private_means(
    values: Tensor, bags: Bags, epsilon: float, bound: float, *, generator: torch.Generator
) -> AggregateValue:
    r"""Means of clipped numbers with Laplace noise, :math:`\epsilon`-differentially private in each label.

    .. math:: \tilde y_a = \frac1{k_a} \sum_{i \in a} \mathrm{clip}(y_i, \pm B) + \mathrm{Laplace}(b_a), \qquad
              b_a = \frac{2 B c}{k_a \epsilon}

    c is the largest number of bags that one member lies in: one label moves each of their means by at most 2B / k.
    Changing one label changes the probability of what is released by a factor of at most :math:`e^\epsilon`; releasing
    several bagings of the same rows adds up their epsilons. The features are not protected. Larger bags need less noise
    and blur more. The noise is drawn in floating point, whose lowest bits can give it away: round what is published.

    Args:
        values: numbers (N,), centred, so that `bound` can be small.
        bags: over the N instances.
        epsilon: the privacy of each label; above 0.
        bound: B, what numbers are clipped to, in their units.
        generator: where the noise comes from.

    Returns:
        The means as labels, whose noise, of standard deviation sqrt(2) b, a `Learner` takes into account.

    Raises:
        LabelError: epsilon or bound not above 0, numbers that do not fit the bags or are not finite.

    Source: Javanmard et al., Learning from Aggregate Responses, 2024; Dwork et al., Calibrating Noise, 2006.
    """
    if not 0 < epsilon < math.inf or not 0 < bound < math.inf:
        raise LabelError(f"epsilon is {epsilon:g}, bound {bound:g}; expected numbers above 0")
    values = torch.as_tensor(values).double()
    if values.shape != (bags.n_instances,):
        raise LabelError(
            f"values have the shape {tuple(values.shape)}; expected a number for each of {bags.n_instances} rows"
        )
    if not bool(values.isfinite().all()):
        row = int((~values.isfinite()).nonzero()[0])
        raise LabelError(f"values hold {float(values[row]):g} in row {row}; expected finite numbers")
    most = int(torch.bincount(bags.members).max())
    scale = 2 * bound * most / (bags.sizes.double() * epsilon)
    # the difference of two exponential draws is a Laplace draw
    drawn = torch.empty(2, len(bags), dtype=torch.float64).exponential_(generator=generator)
    released = bag_means(values.clamp(-bound, bound), bags) + scale * (drawn[0] - drawn[1])
    return AggregateValue(bags, released, "mean", noise=math.sqrt(2) * scale)
