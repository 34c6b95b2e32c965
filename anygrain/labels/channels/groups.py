"""Annotators of a few types: experts, spammers, those who mistake one class for another."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels.channels.dirichlet import learn_strength, log_marginal
from anygrain.labels.channels.tabular import TabularChannel

#: types that are tried where their number is not given
MOST = 6
#: steps in which types are refined when they are found
STEPS = 20
#: calls of `learn` that look for types
LOOKS = (2, 5)
#: votes of a typical annotator on its own type before types are learnt
EVEN = 4.0


class Groups(TabularChannel):
    r"""Each source w is of one of G types, whose confusion matrix its own shrinks to.

    .. math:: P(z_w = g) = \pi_g, \qquad
              P(v \mid y = k, w) = \frac{n_{wkv} + s \sum_g r_{wg} M_{gkv}}{n_{wk} + s}

    .. math:: r_{wg} \propto \pi_g \prod_k \frac{\Gamma(s)}{\Gamma(s + n_{wk})}
              \prod_v \frac{\Gamma(s M_{gkv} + n_{wkv})}{\Gamma(s M_{gkv})}

    with expected counts n. So somebody with three votes is told by the type that these fit, and somebody with three
    hundred by their own. The matrices of the types, their shares and the strength s are learnt by the marginal
    likelihood of the counts of all sources, and so is the number of types G, by the Bayesian information criterion,
    from those that split a type along its members' rates of right votes or of single classes. With one type and a great
    s all share one confusion matrix; with a small s each has their own.

    Args:
        n_sources: S.
        n_classes: K.
        history: counts of earlier votes whose truth is known, shape (S, K, K), rows are the truth.
        strength: votes that the matrix of a type is worth at the start.
        n_groups: G; None: found, at most 6.

    Attributes:
        member: r, shape (S, G): P(source is of type g). G is 6 where it is found; types not needed have share 0.
        group_confusion: M, shape (G, K, K), rows are the truth.
        group_share: pi, shape (G,).
        turn: how often `learn` was called.

    Raises:
        LabelError: counts of history that do not fit.

    Source: Venanzi, Guiver, Kazai, Kohli and Shokouhi, Community-based Bayesian aggregation models for crowdsourcing,
    2014.
    """

    base: Tensor
    turn: Tensor
    member: Tensor
    group_confusion: Tensor
    group_share: Tensor
    strength: Tensor

    def __init__(
        self,
        n_sources: int,
        n_classes: int,
        *,
        history: Tensor | None = None,
        strength: float = EVEN,
        n_groups: int | None = None,
    ):
        super().__init__(n_sources, n_classes, history=history)
        self.n_groups = None if n_groups is None else max(int(n_groups), 1)
        right = 0.6 if n_classes > 1 else 1.0
        base = torch.full((n_classes, n_classes), (1 - right) / max(n_classes - 1, 1), dtype=torch.float64)
        self.register_buffer("base", base.fill_diagonal_(right))
        most = MOST if self.n_groups is None else self.n_groups
        first = torch.zeros(most, dtype=torch.float64)
        first[0] = 1.0
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))
        self.register_buffer("group_confusion", self.base.repeat(most, 1, 1))
        self.register_buffer("group_share", first)
        self.register_buffer("member", first.repeat(self.n_sources, 1))
        self.register_buffer("strength", torch.tensor(float(strength), dtype=torch.float64))
        self._store(*self.estimate(self.counts))

    @property
    def group(self) -> Tensor:
        """The likeliest type of every source, shape (S,)."""
        return self.member.argmax(dim=1)

    def _log_member(self, counts: Tensor, share: Tensor, matrices: Tensor, strength: Tensor) -> Tensor:
        """log pi_g P(counts of w | type g), shape (S, G)."""
        fits = log_marginal(counts[:, None].expand(-1, len(share), -1, -1), matrices, strength).sum(dim=2)
        return share.clamp(min=1e-300).log() + fits

    def _own(self, counts: Tensor) -> Tensor:
        """The matrices of the sources given each type, averaged over types, (S, K, K)."""
        seen = counts + self.strength * torch.einsum("sg,gkv->skv", self.member, self.group_confusion)
        return seen / seen.sum(dim=2, keepdim=True)

    def estimate(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        pooled = torch.einsum("g,gkv->kv", self.group_share, self.group_confusion)
        return pooled, self._own(counts)

    def learn(self, counts: Tensor) -> None:
        live = self.group_share > 0
        found = (self.group_share[live], self.group_confusion[live], self.strength)
        if int(self.turn) in LOOKS:
            one = counts.sum(dim=0) + 2 * self.base
            one = one / one.sum(dim=1, keepdim=True)
            found = self._searched(counts, (found[0].new_ones(1), one[None], self.strength))
        share, matrices, self.strength = self._refined(counts, *found, steps=3)
        self.turn = self.turn + 1
        member = self._log_member(counts, share, matrices, self.strength).softmax(dim=1)
        rest = len(self.group_share) - len(share)
        self.group_share = torch.cat([share, share.new_zeros(rest)])
        self.group_confusion = torch.cat([matrices, self.base.repeat(rest, 1, 1)])
        self.member = torch.cat([member, member.new_zeros(len(member), rest)], dim=1)

    def _refined(
        self, counts: Tensor, share: Tensor, matrices: Tensor, strength: Tensor, steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shares, matrices and strength after some steps up the marginal likelihood."""
        for _ in range(steps):
            member = self._log_member(counts, share, matrices, strength).softmax(dim=1)
            share = (member.sum(dim=0) + 1) / (member.sum() + len(share))
            alpha = strength * matrices
            draws = alpha * (torch.digamma(counts[:, None] + alpha) - torch.digamma(alpha))
            total = torch.einsum("sg,sgkv->gkv", member, draws) + 2 * self.base
            matrices = total / total.sum(dim=2, keepdim=True)
            expected = torch.einsum("sg,gkv->skv", member, matrices)
            strength = learn_strength(counts, expected, strength)[0]
        return share, matrices, strength

    def _score(self, counts: Tensor, found: tuple[Tensor, Tensor, Tensor]) -> float:
        """Marginal log-likelihood of all counts, less the Bayesian information criterion's penalty."""
        share, matrices, strength = found
        value = torch.logsumexp(self._log_member(counts, share, matrices, strength), dim=1).sum()
        prior = 2 * (self.base * matrices.clamp(min=1e-300).log()).sum()
        n = int((counts.sum(dim=(1, 2)) > 0).sum())
        numbers = len(share) * (self.n_classes * (self.n_classes - 1) + 1) - 1
        return float(value + prior) - 0.5 * numbers * float(torch.tensor(max(n, 2)).log())

    def _searched(self, counts: Tensor, found: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """One type more, if it is worth it, or as many as were asked for."""
        wanted = MOST if self.n_groups is None else self.n_groups
        best, score = found, self._score(counts, found)
        while len(best[0]) < min(wanted, max(self.n_sources, 1)):
            tried = [self._refined(counts, *start, steps=STEPS) for start in self._splits(counts, best)]
            scores = [self._score(counts, t) for t in tried]
            top = max(range(len(tried)), key=lambda i: scores[i])
            if self.n_groups is None and scores[top] <= score:
                break
            best, score = tried[top], scores[top]
        return best

    def _splits(self, counts: Tensor, found: tuple[Tensor, Tensor, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Starts with one type more: the largest type in two, along right votes and along votes for one class."""
        share, matrices, strength = found
        member = self._log_member(counts, share, matrices, strength).softmax(dim=1)
        at = int((member.sum(dim=0)).argmax())
        total = counts.sum(dim=(1, 2))
        right = torch.diagonal(counts, dim1=1, dim2=2).sum(dim=1)
        along = [right, *counts.sum(dim=1).unbind(dim=1)][: 1 + min(self.n_classes, 4)]
        starts = []
        for rate in along:
            place = (rate + 1) / (total + 2)
            middle = place[total > 0].median() if bool((total > 0).any()) else place.new_zeros(())
            side = (place > middle).double()
            pair = []
            for weight in (side, 1 - side):
                own = torch.einsum("s,skv->kv", member[:, at] * weight, counts) + 4 * matrices[at]
                pair.append(own / own.sum(dim=1, keepdim=True))
            rest = torch.arange(len(share), device=share.device) != at
            shares = torch.cat([share[rest], share[at].repeat(2) / 2])
            starts.append((shares, torch.cat([matrices[rest], torch.stack(pair)]), strength))
        return starts

    def accuracy_variance(self, weight: Tensor) -> Tensor:
        right = torch.diagonal(self.confusion, dim1=1, dim2=2)
        total = self.counts.sum(dim=2) + self.strength
        of_rows = (right * (1 - right) / (total + 1)) @ weight.square()
        # which type it is, which all rows lean on
        lean = self.strength / total
        types = torch.einsum("sk,gkk,k->sg", lean, self.group_confusion, weight)
        mean = (self.member * types).sum(dim=1, keepdim=True)
        return of_rows + (self.member * (types - mean).square()).sum(dim=1)

    def log_prior(self) -> Tensor:
        log_prob = self.confusion.clamp(min=1e-300).log()
        expected = torch.einsum("sg,gkv->skv", self.member, self.group_confusion)
        return ((self.strength * expected + self.history) * log_prob).sum()
