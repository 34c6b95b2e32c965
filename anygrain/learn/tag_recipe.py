r"""How heads of L tags learn on frozen features from whatever is known of the tags.

All tags are one linear map, fitted at once. What each needs beside is chosen on held-out entries: its weight decay,
from a grid, shrunk towards what suits all tags, and a scale and a shift of its scores, shrunk towards those of all.
Where labels speak of several tags together (counts of a row, pairs), the fit alternates with cross-fitted posteriors;
entries of which nothing is known take no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from anygrain.labels import All, LabelError, Labels, Tags
from anygrain.learn.calibration import evidence_score

#: weight decays that are tried, from strong to weak
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
#: entries that the choice of all tags is worth in the choice of one
SHARED = 200.0
#: one over the variance of a tag's log scale and shift around those of all tags
HOLD = 10.0


class TagHead(nn.Module):
    r""":math:`\log p(y_{il} = 1) = \log\sigma(a_l (w_l^\top z_i + b_l) + c_l)` for L tags."""

    def __init__(self, feature_dim: int, n_tags: int) -> None:
        super().__init__()
        self.feature_dim, self.n_tags = feature_dim, n_tags
        self.weight = nn.Parameter(torch.zeros(n_tags, feature_dim))
        self.bias = nn.Parameter(torch.zeros(n_tags))
        self.register_buffer("log_scale", torch.zeros(n_tags))
        self.register_buffer("shift", torch.zeros(n_tags))

    log_scale: Tensor
    shift: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Linear scores (B, L), as fitted."""
        return functional.linear(features, self.weight, self.bias)

    def calibrated(self, scores: Tensor) -> Tensor:
        """Log odds (B, L) of scores (B, L)."""
        return self.log_scale.exp() * scores + self.shift

    def forward(self, features: Tensor) -> Tensor:
        """Calibrated log odds (B, L)."""
        return self.calibrated(self.scores(features))

    def log_probs(self, features: Tensor) -> Tensor:
        """Log-probabilities (B, L, 2) of off and on."""
        odds = self(features)
        return functional.logsigmoid(torch.stack([-odds, odds], dim=-1))


TAG_HEADS = {"linear": TagHead}


def fit_tag_head(
    head: TagHead, features: Tensor, target: Tensor, weight: Tensor, penalty: Tensor, *, steps: int = 25
) -> TagHead:
    r"""Minimise for all tags at once, by full-batch L-BFGS from where the head stands,

    .. math:: \frac{1}{\sum_i v_{il}} \sum_i v_{il} \, \mathrm{CE}(q_{il}, \sigma(w_l^\top z_i + b_l)) +
              \frac{\lambda_l}{2} |w_l|^2

    Args:
        features: (N, D).  target: (N, L), the probabilities q.  weight: (N, L), v; 0 where nothing is known.
        penalty: (L,).
        steps: L-BFGS iterations.
    """
    share = weight / weight.sum(dim=0).clamp(min=1e-12)
    parameters = [head.weight, head.bias]
    optimizer = torch.optim.LBFGS(parameters, max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = head.scores(features)
        loss: Tensor = (share * (functional.softplus(scores) - target * scores)).sum()
        loss = loss + 0.5 * (penalty * head.weight.square().sum(dim=1)).sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return head


def cross_entropy(log_odds: Tensor, target: Tensor) -> Tensor:
    """-q log p - (1 - q) log(1 - p) of every entry, for log odds and q of one shape."""
    return functional.softplus(log_odds) - target * log_odds


def calibrate(scores: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Log scale and shift of every tag, both (L,), that suit held-out scores (N, L) best, shrunk towards one scale."""

    def fitted(log_scale: Tensor, shift: Tensor, centre: Tensor | None) -> tuple[Tensor, Tensor]:
        log_scale, shift = log_scale.clone().requires_grad_(True), shift.clone().requires_grad_(True)
        optimizer = torch.optim.LBFGS([log_scale, shift], max_iter=40, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = (weight * cross_entropy(log_scale.exp() * scores + shift, target)).sum()
            loss = loss + 0.5 * HOLD * shift.square().sum()
            if centre is not None:
                loss = loss + 0.5 * HOLD * (log_scale - centre).square().sum()
            loss = loss + 0.5 * log_scale.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        return log_scale.detach(), shift.detach()

    zero = scores.new_zeros(scores.shape[1])
    common, shift = fitted(zero[:1], zero, None)
    return fitted(common.expand_as(zero), shift, common)


@dataclass
class TagResult:
    """What a fit found.

    Attributes:
        head: calibrated.
        posterior: of the instances, (N L, 2), with all evidence.
        held_out_log_probs: (N L, 2), of heads that saw neither the row nor its evidence.
        score: log-likelihood of the evidence under these, per tag of a row.
        history: one dict per round.
    """

    head: TagHead
    posterior: Tensor
    held_out_log_probs: Tensor
    score: float
    history: list[dict[str, Any]]


class TagRecipe:
    """Fits a `TagHead` to labels of N rows with L tags.

    Args:
        features: (N, D).
        labels: `Tags`, or an `All` with some.
        folds: parts of the rows that are held out once each; what one observation joins stays together.
        rounds: posteriors and fits, where labels speak of several tags together.
        seed: of the folds.
    """

    def __init__(self, features: Tensor, labels: Labels, *, folds: int, rounds: int, seed: int) -> None:
        self.features, self.labels = features, labels
        parts = labels.parts if isinstance(labels, All) else [labels]
        self.tags = tags_of(labels)
        self.joint = len(parts) > 1
        self.rounds = max(rounds, 1) if self.joint else 1
        groups = labels.groups()
        generator = torch.Generator().manual_seed(seed)
        n = int(groups.max()) + 1 if len(groups) else 0
        # as many rows in every fold
        fold = torch.argsort(torch.rand(n, generator=generator)).to(groups.device) % folds
        self.fold, self.folds = fold[groups], folds
        self.spoken = self._spoken()

    def _spoken(self) -> Tensor:
        """Weight of every entry (N, L); 0 where neither a tag nor a set says anything."""
        said = self.tags.labels >= 0
        for part in self.labels.parts if isinstance(self.labels, All) else []:
            if part is self.tags:
                continue
            for bags in part.bags:
                said = said.index_fill(0, bags.members, True)
            if not part.bags:
                table = part.log_evidence()
                said = said | (table[:, 0] != table[:, 1])
        weight = said.to(self.features.dtype) * self.labels.instance_weight().to(self.features)
        return self.tags.table(weight, 0.0)

    def _as_instances(self, log_odds: Tensor) -> Tensor:
        """Log-probabilities (N L, 2) from log odds (N, L)."""
        mine = log_odds[self.tags.rows, self.tags.tag]
        return functional.logsigmoid(torch.stack([-mine, mine], dim=1))

    def _target(self, log_odds: Tensor) -> Tensor:
        """P(on) of every entry given all evidence, (N, L), for log odds from elsewhere."""
        on = self.labels.posterior(self._as_instances(log_odds))[:, 1]
        return self.tags.table(on.to(self.features.dtype), 0.0)

    def run(self) -> TagResult:
        n, n_tags = len(self.features), self.tags.n_tags
        known = self.tags.table(self.tags.labels, -1)
        on, off = (known == 1).sum(dim=0), (known == 0).sum(dim=0)
        # before any head, a tag is as frequent as where it is known
        odds = ((on + 0.5) / (off + 0.5)).log().to(self.features)
        log_odds, history = odds.expand(n, -1), []
        penalty = self.features.new_full((n_tags,), PENALTIES[len(PENALTIES) // 2])
        heads = [self._new(odds) for _ in range(self.folds)]
        scale = self.features.new_zeros(2, n_tags)
        for round_ in range(self.rounds):
            target = self._target(log_odds)
            if round_ == 0:
                penalty, scores = self._choose(target, odds)
                heads = self._heads(target, penalty, heads, steps=40)
            else:
                heads = self._heads(target, penalty, heads, steps=15)
            scores = self._held_out(heads)
            scale = torch.stack(calibrate(scores, target, self.spoken))
            log_odds = scale[0].exp() * scores + scale[1]
            score = evidence_score(self.labels, self._as_instances(log_odds), torch.ones_like(self.tags.rows).bool())
            history.append({"step": f"tags {round_ + 1}", "track": "tags", "round": round_ + 1, "evidence": score})
        head = fit_tag_head(self._new(odds), self.features, self._target(log_odds), self.spoken, penalty, steps=60)
        with torch.no_grad():
            head.log_scale.copy_(scale[0])
            head.shift.copy_(scale[1])
            final = head(self.features)
        return TagResult(
            head, self.labels.posterior(self._as_instances(final)), self._as_instances(log_odds), score, history
        )

    def _new(self, odds: Tensor) -> TagHead:
        head = TagHead(self.features.shape[1], self.tags.n_tags).to(self.features)
        with torch.no_grad():
            head.bias.copy_(odds)
        return head

    def _choose(self, target: Tensor, odds: Tensor) -> tuple[Tensor, Tensor]:
        """The weight decay of every tag (L,) with the best held-out entries, and held-out scores (N, L) of it."""
        losses, scores = [], []
        heads = [self._new(odds) for _ in range(self.folds)]
        for each in PENALTIES:  # each fit starts from the one before
            heads = self._heads(target, self.features.new_full((self.tags.n_tags,), each), heads, steps=12)
            scores.append(self._held_out(heads))
            losses.append((self.spoken * cross_entropy(scores[-1], target)).sum(dim=0))
        table, seen = torch.stack(losses), self.spoken.sum(dim=0)
        common = table.sum(dim=1, keepdim=True) / seen.sum().clamp(min=1e-12)
        best = (table + SHARED * common).argmin(dim=0)
        chosen = torch.stack(scores)[best, :, torch.arange(self.tags.n_tags, device=best.device)].T
        return torch.tensor(PENALTIES, device=best.device).to(self.features)[best], chosen

    def _heads(self, target: Tensor, penalty: Tensor, heads: list[TagHead], *, steps: int) -> list[TagHead]:
        """Heads of all folds, each on the rows outside of its own."""
        for held, head in enumerate(heads):
            rows = (self.fold != held).nonzero()[:, 0]
            fit_tag_head(head, self.features[rows], target[rows], self.spoken[rows], penalty, steps=steps)
        return heads

    def _held_out(self, heads: list[TagHead]) -> Tensor:
        """Scores (N, L) of heads that did not see the row."""
        with torch.no_grad():
            scores = torch.stack([head.scores(self.features) for head in heads])
        return scores[self.fold, torch.arange(len(self.fold), device=scores.device)]


def tags_of(labels: Labels) -> Tags:
    """The first `Tags` among labels.

    Raises:
        LabelError: labels without any.
    """
    parts = labels.parts if isinstance(labels, All) else [labels]
    found = next((part for part in parts if isinstance(part, Tags)), None)
    if found is None:
        raise LabelError("the model is of tags; expected Tags, or labels joined with Tags")
    return found
