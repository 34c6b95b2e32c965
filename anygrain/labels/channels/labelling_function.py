"""Labelling functions: rules that vote or abstain, whose silence is an outcome too."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from anygrain.labels.channels.channel import Channel, Records
from anygrain.labels.channels.dirichlet import learn_strength

#: residual correlation (sum of squares with all other rules) at which abstentions count half
TOLERATED = 0.01
#: pseudo-rows per row that hold dependent rules to their first estimate, at weight 1/2 of abstentions
HOLD = 3.0


class LabellingFunction(Channel):
    r"""Each rule r has a table over outcomes, the classes v and abstention: :math:`\theta_{rkv}`, :math:`\theta_{rk-}`.

    .. math:: \log P(o_i \mid y_i = k) = \sum_{r \text{ votes } v} u_r \log \theta_{rkv} +
              \sum_{r \text{ abstains}} d \log \theta_{rk-}

    A rule that votes for one class only speaks by how often it does so on each class, so abstention has to be an
    outcome: a table normalised over votes cast would say nothing.

    *Prior.* Each output (r, v) is worth s votes, shared among the classes as :math:`m_v` = P(y | a rule says v),
    pooled over rules; rows are added so that the rule keeps its coverage. Before the first update m puts `accuracy` on
    the class voted for. s and m are learnt by the marginal likelihood of the counts of all rules. Outputs that a rule
    never shows get next to no mass.

    *Dependent rules.* Rules that read the same text fire together more (or less) often than their classes explain.
    With :math:`\rho_{rs}` the residual correlation of firing given the class and
    :math:`\delta` the mean over rules of :math:`\sum_s \rho_{rs}^2` beyond chance, abstentions get the weight
    d = 1 / (1 + 100 :math:`\delta`), the votes of rule r the weight :math:`u_r = 1 / (1 + \sum_s \rho_{rs}^+)` (the
    design effect), and :math:`3 (1 / d - 1)^2` pseudo-rows per row hold every table to its first estimate; without this
    EM turns groups of rules that fire together into classes. As many hold the class shares, which `aggregate` estimates
    beside it: how often rules fire for a class says more of the rules than of the class. Independent rules have
    d = u = 1: the plain model.

    `learn_prior` sets the weights, and its first call takes the first estimate; `update` is the exact M-step of the
    weighted objective. Unseen rules (-1) get the pooled table, and their silence says nothing.

    Args:
        n_sources: R.
        n_classes: K.
        accuracy: P(the class is v | a rule says v) before anything is learnt.
        strength: s, votes.
        discount: whether dependent rules count less, as above; False: the plain model, d = u = 1.

    Attributes:
        independence: d, a scalar; 1 for independent rules.
        vote_weight: u, shape (R,).
        mean: m, shape (K, K): vote, class.
        counts: expected votes of the last update, shape (R, K, K): rule, vote, class.

    Source: after Ratner et al., Snorkel, 2017, and Dawid and Skene, 1979; power likelihoods for dependent parts.
    """

    independence: Tensor
    vote_weight: Tensor
    mean: Tensor
    base: Tensor
    strength: Tensor
    share: Tensor
    coverage: Tensor
    first: Tensor
    held: Tensor
    together: Tensor
    anchored: Tensor
    counts: Tensor
    log_vote: Tensor
    log_abstain: Tensor

    def __init__(
        self, n_sources: int, n_classes: int, *, accuracy: float = 0.7, strength: float = 5.0, discount: bool = True
    ):
        super().__init__()
        self.discount = bool(discount)
        r, k = self.n_sources, self.n_classes = int(n_sources), int(n_classes)
        right = accuracy if k > 1 else 1.0
        base = torch.full((k, k), (1 - right) / max(k - 1, 1), dtype=torch.float64).fill_diagonal_(right)
        for name, value in {
            "base": base,
            "mean": base.clone(),
            "strength": torch.tensor(float(strength)).double(),
            "independence": torch.ones(()).double(),
            "vote_weight": torch.ones(r).double(),
            "share": torch.full((r, k), 1 / k).double(),
            "coverage": torch.full((r,), 0.5).double(),
            "first": torch.zeros(r, k + 1, k).double(),
            "held": torch.zeros(r, k + 1, k).double(),
            "together": torch.zeros(r, r).double(),
            "anchored": torch.zeros((), dtype=torch.bool),
            "counts": torch.zeros(r, k, k).double(),
            "log_vote": torch.zeros((r + 1) * k, k).double(),
            "log_abstain": torch.zeros(r, k).double(),
        }.items():
            self.register_buffer(name, value)
        self._store(self._pseudo_counts())

    # -- what outcomes say --------------------------------------------------------------------------------------------

    def cells(self, records: Records) -> Tensor:
        """Row of `log_vote` of every record, shape (V,)."""
        kept: Tensor | None = records.__dict__.get("_cells")
        if kept is None:
            kept = torch.where(records.sources < 0, self.n_sources, records.sources) * self.n_classes + records.values
            records.__dict__["_cells"] = kept
        return kept

    def _weighted_votes(self) -> Tensor:
        weight = torch.cat([self.vote_weight, self.vote_weight.new_ones(1)])
        return self.log_vote * weight.repeat_interleave(self.n_classes)[:, None]

    def log_prob(self, records: Records) -> Tensor:
        """u log P(vote | y = k) of every vote cast, shape (V, K)."""
        return self._weighted_votes()[self.cells(records)]

    def log_evidence(self, records: Records, n_items: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Only votes cast are stored: silence of all rules, and what each vote changes about that."""
        silence = self.independence * torch.cat([self.log_abstain, self.log_abstain.new_zeros(1, self.n_classes)])
        change = self._weighted_votes() - silence.repeat_interleave(self.n_classes, dim=0)
        return records.sums(change.to(dtype), self.cells(records), n_items) + silence.sum(dim=0).to(dtype)

    # -- learning -----------------------------------------------------------------------------------------------------

    def statistics(self, records: Records, posterior: Tensor) -> dict[str, Tensor]:
        """`counts` (R, K, K): expected votes of rule, vote, class; `rows` (K,): expected rows of each class.

        Before the first `learn_prior` also `together` (R, R): how often two rules fire on one row.
        """
        found = records.counts(posterior, self.cells(records), len(self.log_vote))[: self.n_sources * self.n_classes]
        out = {
            "counts": found.double().view(self.n_sources, self.n_classes, self.n_classes),
            "rows": posterior.sum(dim=0, dtype=torch.float64),
        }
        if not self.anchored:
            out["together"] = self._together(records, posterior.sum(dim=1))
        return out

    def outcomes(self, records: Records, n_items: int, width: int = 1) -> Iterator[tuple[int, Tensor]]:
        """Blocks of rows, dense one at a time: the first row, and what each rule says, K where it abstains (b, R).

        Args:
            width: numbers that will be needed for each outcome; blocks are smaller where there are more.
        """
        order = records.by_item
        items, sources, values = (
            t if order is None else t[order] for t in (records.items, records.sources, records.values)
        )
        seen = sources >= 0
        items, sources, values = items[seen], sources[seen], values[seen]
        step = max(4_000_000 // max(self.n_sources * width, 1), 1)
        for start in range(0, n_items, step):
            stop = min(start + step, n_items)
            low, high = torch.searchsorted(items, torch.tensor([start, stop], device=items.device)).tolist()
            said = torch.full((stop - start, self.n_sources), self.n_classes, device=items.device)
            said[items[low:high] - start, sources[low:high]] = values[low:high]
            yield start, said

    def _together(self, records: Records, weight: Tensor) -> Tensor:
        total = torch.zeros(self.n_sources, self.n_sources, dtype=torch.float64, device=weight.device)
        for start, said in self.outcomes(records, len(weight)):
            fires = (said < self.n_classes).float()
            total += (fires.T @ (fires * weight[start : start + len(said), None].to(fires))).double()
        return total

    def learn_prior(self, statistics: dict[str, Tensor]) -> None:
        counts, rows = statistics["counts"], statistics["rows"]
        if not self.anchored:
            self._anchor(counts, rows, statistics["together"])
        else:
            self.strength, draws = learn_strength(counts, self.mean, self.strength, guess=5.0)
            mean = draws.sum(dim=0) + 2 * self.base
            self.mean = mean / mean.sum(dim=1, keepdim=True)
        self._weigh(counts, rows)

    def _anchor(self, counts: Tensor, rows: Tensor, together: Tensor) -> None:
        """Coverage and outputs of the rules, and the first estimate."""
        votes = counts.sum(dim=2)
        fires = votes.sum(dim=1)
        # a tenth of a vote for outputs not shown, so that one that shows up later still speaks as the pooled rule does
        self.share = (votes + 0.1 / self.n_classes) / (fires + 0.1)[:, None]
        self.coverage = (fires + 0.1) / (rows.sum() + 0.2)
        silent = (rows - counts.sum(dim=1)).clamp(min=0)
        first = torch.cat([counts, silent[:, None]], dim=1) + self._pseudo_counts()
        self.first = first / first.sum(dim=1, keepdim=True) * rows
        self.together, self.anchored = together, torch.ones_like(self.anchored)

    def _weigh(self, counts: Tensor, rows: Tensor) -> None:
        """How dependent the rules are, by how often they fire together beyond what their classes explain."""
        if not self.discount:
            return
        total = rows.sum().clamp(min=1e-9)
        rate = counts.sum(dim=1) / rows.clamp(min=1e-9)
        spread = ((rate * (1 - rate)).clamp(min=0) * rows).sum(dim=1)
        scale = (spread[:, None] * spread).sqrt()
        residual = (self.together - (rate * rows) @ rate.T) / scale.clamp(min=1e-12)
        residual = torch.where(scale > 1e-6 * total, residual, 0.0).fill_diagonal_(0.0)
        residual = residual - self._explained(residual)
        chance = 2 * (self.n_sources - 1) / total
        excess = (residual.square().sum(dim=1).mean() - chance).clamp(min=0)
        self.independence = 1 / (1 + excess / TOLERATED)
        beyond = (residual - 3 / total.sqrt()).clamp(min=0).sum(dim=1)
        self.vote_weight = 1 / (1 + (1 - self.independence) * beyond)
        self.held = self.first * self.share_hold

    @property
    def share_hold(self) -> float:
        return float(HOLD * (1 / self.independence - 1).square())

    def _explained(self, residual: Tensor) -> Tensor:
        """The part of the residual correlations (R, R) that the model accounts for."""
        return torch.zeros_like(residual)

    def update(self, statistics: dict[str, Tensor]) -> None:
        self.counts = statistics["counts"]
        silent = (statistics["rows"] - self.counts.sum(dim=1)).clamp(min=0) * self.independence
        outcomes = torch.cat([self.counts * self.vote_weight[:, None, None], silent[:, None]], dim=1)
        self._store(outcomes + self._pseudo_counts() + self.held)

    def _pseudo_counts(self) -> Tensor:
        """What the prior is worth, shape (R, K + 1, K): outcome, class."""
        votes = self.strength * self.share[:, :, None] * self.mean
        cast = votes.sum(dim=1)
        rows = self.strength / (self.n_classes * self.coverage)
        return torch.cat([votes, torch.maximum(rows[:, None] - cast, 0.01 * cast)[:, None]], dim=1)

    def log_prior(self) -> Tensor:
        k = self.n_classes
        votes = self.log_vote[: self.n_sources * k].view(self.n_sources, k, k)
        outcomes = torch.cat([votes, self.log_abstain[:, None]], dim=1)
        return ((self._pseudo_counts() + self.held) * outcomes).sum()

    def _store(self, amounts: Tensor) -> None:
        share = (amounts / amounts.sum(dim=1, keepdim=True)).clamp(min=1e-30)
        pooled = share[:, :-1].mean(dim=0) if self.n_sources else 0.5 * self.mean
        self.log_vote = torch.cat([share[:, :-1], pooled[None]]).log().reshape(-1, self.n_classes)
        self.log_abstain = share[:, -1].log()

    # -- what is read off ---------------------------------------------------------------------------------------------

    @property
    def table(self) -> Tensor:
        """P(outcome | class) of every rule, shape (R, K, K + 1): rule, class, outcome; abstention comes last."""
        k = self.n_classes
        votes = self.log_vote[: self.n_sources * k].view(self.n_sources, k, k)
        return torch.cat([votes, self.log_abstain[:, None]], dim=1).exp().transpose(1, 2)

    @property
    def pooled(self) -> Tensor:
        """P(vote | class) of a rule that was not seen, shape (K, K), rows are the truth; the rest is abstention."""
        return self.log_vote[self.n_sources * self.n_classes :].exp().T

    def accuracy(self, prior: Tensor | None = None) -> Tensor:
        """P(a vote of the rule is right), shape (R,), classes weighted by `prior` (K,) or equally."""
        table = self.table[:, :, :-1]
        weight = torch.full_like(table[0, 0], 1 / self.n_classes) if prior is None else prior.to(table)
        joint = table * weight[:, None]
        return torch.diagonal(joint, dim1=1, dim2=2).sum(dim=1) / joint.sum(dim=(1, 2))
