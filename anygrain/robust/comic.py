"""COMIC: tags with a long tail, of which some that are on are not marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.labels import Tags
from anygrain.learn.step import Step
from anygrain.learn.term import Term
from anygrain.robust.settings import above, share
from anygrain.robust.tag_tables import marks_of, table_of

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

CLIP = 0.05  # added to the probability of off: negatives that are that sure have no loss
TINY = 1e-8


def tag_weight(counts: Tensor, kappa: float) -> Tensor:
    r""":math:`\omega_c = (1 - \log(n_c / \max n))^\kappa` of counts (L,), with at least 1 each: 1 for the commonest."""
    counts = counts.clamp(min=1.0)
    return (1 - (counts / counts.max()).log()) ** kappa


def recalled(log_odds: Tensor, on: Tensor, threshold: float, margin: float = 1.0) -> Tensor:
    r"""Marks (B, L) with those added that a batch is sure of.

    .. math:: Y'_{ic} = Y_{ic} \lor \big(\pi_{ic} > \tau \land \pi_{ic} > \tfrac1B \sum_j \pi_{jc}\big), \qquad
              \pi = \sigma(z - m Y)

    Args:
        log_odds: z, (B, L).  on: bool, Y.
        threshold: tau; at 1 nothing is added.
        margin: m, taken off where a tag is marked, so that marks do not raise the mean.
    """
    probability = (log_odds - margin * on.to(log_odds)).sigmoid()
    return on | ((probability > threshold) & (probability > probability.mean(dim=0)))


def focal_terms(
    probability: Tensor, off: Tensor, on: Tensor, weight: Tensor, focus_on: Tensor | float, focus_off: Tensor | float
) -> Tensor:
    r"""Asymmetric focal cross-entropy of every entry, (B, L).

    .. math:: -\omega_c \, (1 - p_t)^{g} \big(Y \log \pi + (1 - Y) \log m\big)

    with p_t = pi and g = `focus_on` where on, m and `focus_off` elsewhere; the focusing factor has no gradient.

    Args:
        probability: pi, (B, L).  off: m, (B, L), the probability of off.  on: bool (B, L).
        weight: omega, (L,).
    """
    log = torch.where(on, probability, off).clamp(min=TINY).log()
    sure = torch.where(on, probability, off).detach()
    focus = torch.where(on, torch.as_tensor(focus_on).to(sure), torch.as_tensor(focus_off).to(sure))
    return -weight * (1 - sure).clamp(min=0) ** focus * log


def correction_loss(
    log_odds: Tensor,
    on: Tensor,
    marks: Tensor,
    weight: Tensor,
    *,
    margin: float = 1.0,
    clip: float = CLIP,
    focus: float = 3.0,
) -> Tensor:
    r"""The loss on recalled marks Y': focal terms, no focus where on, 3 + omega where off; times B / number on.

    Args:
        log_odds: z, (B, L).  on: bool (B, L), recalled.  marks: bool (B, L), given: these have the margin.
        weight: omega, (L,).
    """
    probability = (log_odds - margin * marks.to(log_odds)).sigmoid()
    off = (1 - probability + clip).clamp(max=1.0)
    terms = focal_terms(probability, off, on, weight, 0.0, focus + weight)
    return terms.sum() * len(on) / on.sum().clamp(min=1)


def attention(on: Tensor, together: Tensor) -> Tensor:
    r"""How much the marks of a row speak for each tag, (B, L): mean of the rows of `together` over its marks, sum 1.

    0 for a row without a mark. `together` (L, L) is `co_occurrence`.
    """
    marks = on.to(together)
    raw = marks @ together / marks.sum(dim=1, keepdim=True).clamp(min=1)
    return raw / raw.sum(dim=1, keepdim=True).clamp(min=TINY)


def co_occurrence(on: Tensor) -> Tensor:
    """How often two tags are on in one row, (L, L), from marks (N, L); columns sum to 1 where a tag occurs."""
    marks = on.to(torch.float64)
    counts = marks.T @ marks
    return (counts / counts.sum(dim=0).clamp(min=1)).float()


def modifier_loss(
    log_odds: Tensor,
    on: Tensor,
    weight: Tensor,
    beside: Tensor,
    *,
    clip: float = CLIP,
    lift: float = 1.2,
    focus: float = 3.0,
) -> Tensor:
    r"""The multi-focal modifier on given marks, the main loss: a sum over entries.

    Of marked tags the probability is :math:`\pi (1 - a)`; of others :math:`m = \min(1, 1 - \pi + .05)` is raised by the
    factor 1.2 where a is not 0: what goes with the marks of the row is not pressed down as hard. Focus 0 where on,
    :math:`3 + \omega_c` where off.

    Args:
        log_odds: z, (B, L).  on: bool (B, L).  weight: omega, (L,).  beside: a, (B, L), `attention`.
    """
    probability = log_odds.sigmoid()
    off = (1 - probability + clip).clamp(max=1.0)
    off = torch.where(beside > 0, (lift * off).clamp(max=1.0), off)
    spread = focus + weight if focus else torch.zeros_like(weight)
    return focal_terms(probability * (1 - beside), off, on, weight, 0.0, spread).sum()


class COMIC(Term):
    r"""Learns `Tags` of a long tail whose marks are not complete: correction, modification and balance in one term.

    .. math:: L = L_{mod}(z) + c\, L_{cor}(z) + \tfrac12 \big( L_{mod}(z^{head}) + L_{mod}(z^{tail}) \big)

    *Correction*: from the second epoch on tags that are surely on are recalled (`recalled`), and their class weights
    follow what has been recalled. *Modification*: `modifier_loss`. *Balance*: the same head looks at features whose
    part along their running mean is taken out (leaning to frequent tags) or turned round (leaning to rare ones):

    .. math:: x^{head} = \hat x - \cos(\hat x, \hat c)\, \hat c, \qquad
              x^{tail} = \hat x + 2 \cos(\hat x, \hat c)\, \hat c

    The source has three networks and cosine heads for it; this is one network with one head, at a third of the cost.

    Marks that say off are taken for missing ones, as in the source. Sums are divided by the number of rows, so that the
    learning rate does not hang on the batch. Use it with `loss=terms_alone`.

    Args:
        threshold: tau of `recalled`.
        correction: c.
        kappa: of the weights of tags.
        balance: factor of the two leaning views; 0: none.

    Attributes:
        recalled_: how many marks the last epoch added.

    Raises:
        LabelError: a threshold outside 0..1, a negative factor, or, in a fit, labels that are not of tags.

    Source: Zhang and others, Learning in Imperfect Environment: Multi-Label Classification with Long-Tailed
    Distribution and Partial Labels, 2023.
    """

    counts: Tensor
    added: Tensor
    found: Tensor
    centre: Tensor
    together: Tensor

    def __init__(
        self, threshold: float = 0.7, *, correction: float = 0.2, kappa: float = 1 / 6, balance: float = 1.0
    ) -> None:
        super().__init__()
        share(threshold, "threshold", open_top=False)
        for name, value in (("correction", correction), ("kappa", kappa), ("balance", balance)):
            above(value, name, open_bottom=False)
        self.threshold, self.correction, self.kappa, self.balance = threshold, correction, kappa, balance
        self.marks: Tags | None = None
        for name in ("counts", "added", "found", "centre", "together"):
            self.register_buffer(name, torch.zeros(0))
        self.epoch = 0

    @property
    def recalled_(self) -> int:
        return int((self.added if self.added.any() else self.found).sum())

    def on_fit_start(self, learner: Learner) -> None:
        self.marks = marks_of(learner, "COMIC")
        table = self.marks.table(self.marks.labels, -1) == 1
        self.counts, self.together = table.sum(dim=0).float(), co_occurrence(table)
        self.added, self.found = torch.zeros_like(self.counts), torch.zeros_like(self.counts)
        self.centre, self.epoch = self.counts.new_zeros(int(learner.encoder_.feature_dim)), 0

    def on_epoch_start(self, epoch: int) -> None:
        self.epoch, self.found, self.added = epoch, self.added, torch.zeros_like(self.added)

    def forward(self, step: Step) -> Tensor:
        assert self.marks is not None
        assert step.view is not None
        table = table_of(step, self.marks)
        odds, on, features = table.log_odds, table.on, table.features
        beside = attention(on, self.together.to(odds))
        weight = tag_weight(self.counts, self.kappa).to(odds)
        value = modifier_loss(odds, on, weight, beside)
        if self.epoch and self.correction:
            more = recalled(odds.detach(), on, self.threshold)
            self.added = self.added + (more & ~on).sum(dim=0).to(self.added)
            follows = tag_weight(self.counts + self.found.to(self.counts), self.kappa).to(odds)
            value = value + self.correction * correction_loss(odds, more, on, follows)
        if self.balance:
            with torch.no_grad():
                self.centre = (0.9 * self.centre.to(features) + features.mean(dim=0)).detach()
            for view in leaning(features, self.centre):
                leant = step.view.head(view)
                value = value + 0.5 * self.balance * modifier_loss(leant, on, weight, beside)
        return value / on.numel()


def leaning(features: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, D) leaning to frequent and to rare tags, of the length that they had.

    Args:
        centre: (D,), the running mean of features.
    """
    length = features.norm(dim=1, keepdim=True)
    direction = centre / centre.norm().clamp(min=TINY)
    unit = features / length.clamp(min=TINY)
    along = (unit @ direction)[:, None] * direction
    return (unit - along) * length, (unit + 2 * along) * length
