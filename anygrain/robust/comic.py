"""COMIC: tags with a long tail, of which some that are on are not marked."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from anygrain.encoders.trainable import TrainableEncoder
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
    rows: Tensor | None = None,
) -> Tensor:
    r"""The loss on recalled marks Y': focal terms, no focus where on, 3 + omega where off; times B / number on.

    Args:
        log_odds: z, (B, L).  on: bool (B, L), recalled.  marks: bool (B, L), given: these have the margin.
        weight: omega, (L,).  rows: how much each counts, (B,); 1 where not given.
    """
    probability = (log_odds - margin * marks.to(log_odds)).sigmoid()
    off = (1 - probability + clip).clamp(max=1.0)
    terms = focal_terms(probability, off, on, weight, 0.0, focus + weight)
    terms = terms if rows is None else rows[:, None] * terms
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
    rows: Tensor | None = None,
) -> Tensor:
    r"""The multi-focal modifier on given marks, the main loss: a sum over entries.

    Of marked tags the probability is :math:`\pi (1 - a)`; of others :math:`m = \min(1, 1 - \pi + .05)` is raised by the
    factor 1.2 where a is not 0: what goes with the marks of the row is not pressed down as hard. Focus 0 where on,
    :math:`3 + \omega_c` where off.

    Args:
        log_odds: z, (B, L).  on: bool (B, L).  weight: omega, (L,).  beside: a, (B, L), `attention`.
        rows: how much each counts, (B,); 1 where not given.
    """
    probability = log_odds.sigmoid()
    off = (1 - probability + clip).clamp(max=1.0)
    off = torch.where(beside > 0, (lift * off).clamp(max=1.0), off)
    spread = focus + weight if focus else torch.zeros_like(weight)
    terms = focal_terms(probability * (1 - beside), off, on, weight, 0.0, spread)
    return (terms if rows is None else rows[:, None] * terms).sum()


class CosineTags(nn.Module):
    r"""Log odds (B, L) by the cosine of features and weights, :math:`s \frac{x}{|x|} \frac{w_l}{|w_l| + 1/32}`."""

    def __init__(self, feature_dim: int, n_tags: int, generator: torch.Generator, scale: float = 16.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_tags, feature_dim, generator=generator) * feature_dim**-0.5)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        unit = nn.functional.normalize(features, dim=1)
        found: Tensor = self.scale * unit @ (self.weight / (self.weight.norm(dim=1, keepdim=True) + 1 / 32)).T
        return found


def sampled(on: Tensor, counts: Tensor, power: float) -> Tensor:
    r"""What rows (B,) would count if tags were drawn as :math:`n_c^{1 - p}` and then a row that has it, mean 1.

    0 draws rows as they come, 1 all tags alike, 2 rare tags as often as frequent ones are. A row counts the mean of
    :math:`n_c^{-p}` over its marks; one without marks counts 1.

    Args:
        on: bool (B, L).  counts: (L,), at least 1 each.
    """
    marks = on.to(counts)
    number = marks.sum(dim=1)
    each = marks @ counts.clamp(min=1).pow(-power) / number.clamp(min=1)
    marked = number > 0
    mean = each[marked].mean() if bool(marked.any()) else each.new_ones(())
    return torch.where(marked, each / mean, torch.ones_like(each))


class COMIC(Term):
    r"""Learns `Tags` of a long tail whose marks are not complete: correction, modification and balance in one term.

    .. math:: L = \sum_{s} \big( L_{mod}(z^s) + c\, L_{cor}(z^s) \big) + b \big( h\, D(z^{head}, z) +
              (1 - h)\, D(z^{tail}, z) \big), \quad h = \frac{L_{mod}(z^{head})^2}{L_{mod}(z^{head})^2 +
              L_{mod}(z^{tail})^2}

    over three streams s: the network itself, for which all tags count alike, one that leans to frequent and one that
    leans to rare tags (`sampled`, with powers 1, 0 and 2 of the counts, stands for drawing rows that often). The two
    have cosine heads and, with a trained encoder, networks of their own. *Modification*: `modifier_loss`. *Correction*:
    from the second epoch on tags that are surely on are recalled (`recalled`), and class weights follow what has been
    recalled; in it the two streams look at `leaning` features. *Balance*: what both say of a tag, detached, is a second
    target of the network, D the binary cross-entropy.

    The released code of the source leaves the distillation out; then its other streams move nothing that is used.

    Marks that say off are taken for missing ones, as in the source. Sums are divided by the number of entries, so that
    the learning rate does not hang on the batch. Use it with `loss=terms_alone`.

    Args:
        threshold: tau of `recalled`.
        correction: c.
        kappa: of the weights of tags.
        balance: b; 0: the network alone.
        apart: whether streams have networks of their own, at three times the cost, or see the features of the one.

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
    centres: Tensor
    together: Tensor

    def __init__(
        self,
        threshold: float = 0.7,
        *,
        correction: float = 0.2,
        kappa: float = 1 / 6,
        balance: float = 1.0,
        apart: bool = True,
    ) -> None:
        super().__init__()
        share(threshold, "threshold", open_top=False)
        for name, value in (("correction", correction), ("kappa", kappa), ("balance", balance)):
            above(value, name, open_bottom=False)
        self.threshold, self.correction, self.kappa, self.balance = threshold, correction, kappa, balance
        self.apart = apart
        self.marks: Tags | None = None
        for name in ("counts", "added", "found", "centres", "together"):
            self.register_buffer(name, torch.zeros(0))
        self.heads, self.networks = nn.ModuleList(), nn.ModuleList()
        self.epoch = 0

    @property
    def recalled_(self) -> int:
        return int((self.added if self.added.any() else self.found).sum())

    def on_fit_start(self, learner: Learner) -> None:
        self.marks = marks_of(learner, "COMIC")
        table = self.marks.table(self.marks.labels, -1) == 1
        self.counts, self.together = table.sum(dim=0).float(), co_occurrence(table)
        self.added, self.found = torch.zeros_like(self.counts), torch.zeros_like(self.counts)
        width, self.epoch = int(learner.encoder_.feature_dim), 0
        self.centres = self.counts.new_zeros(2, width)
        if self.balance:
            generator = torch.Generator().manual_seed(int(learner.seed))
            self.heads = nn.ModuleList(CosineTags(width, table.shape[1], generator) for _ in range(2)).to(self.counts)
            encoder = learner.encoder_
            if self.apart and isinstance(encoder, TrainableEncoder):
                self.networks = nn.ModuleList(copy.deepcopy(encoder) for _ in range(2)).to(self.counts.device)

    def on_epoch_start(self, epoch: int) -> None:
        self.epoch, self.found, self.added = epoch, self.added, torch.zeros_like(self.added)

    def forward(self, step: Step) -> Tensor:
        assert self.marks is not None
        assert step.view is not None
        table = table_of(step, self.marks)
        odds, on = table.log_odds, table.on
        beside = attention(on, self.together.to(odds))
        weight = tag_weight(self.counts, self.kappa).to(odds)
        follows = tag_weight(self.counts + self.found.to(self.counts), self.kappa).to(odds)
        correct = bool(self.epoch and self.correction)
        counts = self.counts.to(odds)
        rows = sampled(on, counts, 1.0) if self.balance else None
        value = modifier_loss(odds, on, weight, beside, rows=rows)
        if correct:
            more = recalled(odds.detach(), on, self.threshold)
            self.added = self.added + (more & ~on).sum(dim=0).to(self.added)
            value = value + self.correction * correction_loss(odds, more, on, follows, rows=rows)
        if self.balance:
            parts, targets = [], []
            for stream, power in enumerate((0.0, 2.0)):
                features = table.features
                if len(self.networks):
                    network = cast(TrainableEncoder, self.networks[stream])
                    features = network.encode(step.view.arrays)
                rows = sampled(on, counts, power)
                said = self.heads[stream](features)
                parts.append(modifier_loss(said, on, weight, beside, rows=rows))
                targets.append(said.detach().sigmoid())
                value = value + parts[-1]
                if correct:
                    with torch.no_grad():
                        centre = 0.9 * self.centres[stream].to(features) + features.mean(dim=0)
                        self.centres[stream] = centre.to(self.centres)
                    leant = self.heads[stream](leaning(features, centre)[stream])
                    more = recalled(leant.detach(), on, self.threshold)
                    value = value + self.correction * correction_loss(leant, more, on, follows, rows=rows)
            squares = torch.stack(parts).detach().square()
            share_of_head = squares[0] / squares.sum().clamp(min=TINY)
            wanted = share_of_head * targets[0] + (1 - share_of_head) * targets[1]  # the loss is linear in its target
            value = value + self.balance * (nn.functional.softplus(odds) - wanted * odds).sum()
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
