"""PU-MLC: tags learnt from those that are known to be on, each as positive against unlabelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from anygrain.labels import Tags
from anygrain.learn.step import Step, View
from anygrain.learn.term import Term
from anygrain.robust.mixup import mixable, mixed_inputs
from anygrain.robust.settings import above
from anygrain.robust.tag_tables import marks_of, table_of

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

LEAST_TEMPERATURE = 0.05
TINY = 1e-10  # inside logarithms


def adaptive_temperature(log_odds: Tensor, alpha: float) -> Tensor:
    r""":math:`s_c = \min(1, \alpha\, \mathrm{std}_i(z_{ic}))`, at least .05, (L,), without gradient, of (B, L)."""
    spread = log_odds.detach().std(dim=0, correction=0)
    return (alpha * spread).clamp(min=LEAST_TEMPERATURE, max=1.0)


def variational_pu(log_odds: Tensor, on: Tensor, *, temperature: Tensor | float = 1.0, gamma: float = 0.0) -> Tensor:
    r"""The variational loss of positives and unlabelled rows, summed over tags.

    .. math:: L = \sum_c \Big[ r_c \log \frac1B \sum_i \varphi_{ic} - \frac{1}{|P_c|} \sum_{i \in P_c} \log
              \varphi_{ic} \Big], \qquad \varphi_{ic} = \sigma(z_{ic} / s_c), \quad r_c = \Big(\frac1B \sum_i
              \varphi_{ic}\Big)^\gamma

    The unlabelled rows are all of them, those that are on as well: they are the distribution of x. Without r it is
    smallest where phi is proportional to p(on | x); it does not see a factor on phi.

    Args:
        log_odds: z, (B, L).
        on: bool (B, L), known to be on: P.
        temperature: s, a number or (L,); no gradient goes through it.
        gamma: of the re-balancing factor r, which has no gradient either; 0: none. With it tags that are rarely
            predicted are pressed down less.

    Source: Chen and others, A Variational Approach for Learning from Positive and Unlabeled Data, 2020; r and s: Yuan
    and others, Positive Label Is All You Need for Multi-Label Classification, 2023.
    """
    scaled = log_odds / (temperature.detach() if isinstance(temperature, Tensor) else temperature)
    mean = scaled.sigmoid().mean(dim=0)
    factor = mean.detach() ** gamma
    known = on.sum(dim=0)
    positive = (logsigmoid(scaled) * on).sum(dim=0) / known.clamp(min=1)
    return (factor * (mean + TINY).log() - positive).sum()


def mixed_consistency(log_odds: Tensor, on: Tensor, mixed: Tensor, share: float, partner: Tensor) -> Tensor:
    r"""What the model says of mixed rows against the mixture of what it says of each, summed over tags.

    .. math:: \sum_c \frac1B \sum_i \big( \log q'_{ic} - \log\sigma(z'_{ic}) \big)^2, \qquad
              q'_{i} = \lambda q_{i} + (1 - \lambda) q_{j(i)}

    with q = 1 where a tag is known to be on, and sigma(z) elsewhere, without gradient. It gives the probabilities their
    scale.

    Args:
        log_odds: z, (B, L).  on: bool (B, L).
        mixed: z', (B, L), of rows lambda x_i + (1 - lambda) x_j(i).
        share: lambda.  partner: j, (B,).
    """
    q = torch.where(on, 1.0, log_odds.detach().sigmoid())
    target = share * q + (1 - share) * q[partner]
    return ((target + TINY).log() - logsigmoid(mixed)).square().mean(dim=0).sum()


class PUMLC(Term):
    r"""Learns `Tags` from those known to be on alone: `variational_pu` and `mixed_consistency`, in equal parts.

    Tags that are known to be off count as unlabelled, as in the source. Use it with `loss=terms_alone`. Batches should
    hold several rows that are on for each tag. Inputs are mixed where they are numbers, else features. Probabilities
    are on the scale that the mixture gives; compare rows by them, and calibrate before a threshold is set.

    Args:
        alpha: of the temperature, `adaptive_temperature`.
        gamma: of the re-balancing factor; the rarer the tags, the smaller (.55 for 80 tags, .85 for 20).
        amount: of the mixture, Beta(amount, amount).
        consistency: factor of `mixed_consistency`.

    Raises:
        LabelError: a number that is not above 0 (gamma, consistency: below 0), or, in a fit, labels that are not of
            tags.

    Source: Yuan and others, Positive Label Is All You Need for Multi-Label Classification, 2023. Its convolution with
    global context and its network are not part of this; the loss is.
    """

    def __init__(
        self, alpha: float = 1.0, gamma: float = 0.55, *, amount: float = 0.3, consistency: float = 1.0
    ) -> None:
        super().__init__()
        above(alpha, "alpha")
        above(gamma, "gamma", open_bottom=False)
        above(amount, "amount")
        above(consistency, "consistency", open_bottom=False)
        self.alpha, self.gamma, self.amount, self.consistency = alpha, gamma, amount, consistency
        self.marks: Tags | None = None

    def on_fit_start(self, learner: Learner) -> None:
        self.marks = marks_of(learner, "PUMLC")

    def forward(self, step: Step) -> Tensor:
        assert self.marks is not None
        assert step.view is not None
        table = table_of(step, self.marks)
        temperature = adaptive_temperature(table.log_odds, self.alpha)
        value = variational_pu(table.log_odds, table.on, temperature=temperature, gamma=self.gamma)
        if self.consistency:
            # the loop seeds torch's generator by epoch
            share = float(torch.distributions.Beta(self.amount, self.amount).sample())
            partner = torch.randperm(len(table.on)).to(table.on.device)
            mixed = _mixed_log_odds(step.view, table.features, share, partner)
            value = value + self.consistency * mixed_consistency(table.log_odds, table.on, mixed, share, partner)
        return value / table.on.shape[1]


def _mixed_log_odds(view: View, features: Tensor, share: float, partner: Tensor) -> Tensor:
    """Log odds (R, L) of rows mixed with their partners (R,); of features (R, D) where inputs are no numbers."""
    if mixable(view.arrays):
        out: Tensor = view.network(mixed_inputs(view.arrays, partner, share))[0]
        return out[..., 1] - out[..., 0]
    found: Tensor = view.head(share * features + (1 - share) * features[partner])
    return found
