r"""How heads of L tags learn on frozen features from whatever is known of the tags.

All tags are one linear map, fitted at once. What each needs beside is chosen on held-out entries: its weight decay,
from a grid, shrunk towards what suits all tags, and a scale and a shift of its scores, shrunk towards those of all.
Where labels speak of several tags together (counts of a row, pairs), or through annotators, the fit alternates with
cross-fitted posteriors and the channels; entries of which nothing is known take no part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from anygrain.labels import All, InstanceLabels, LabelError, Labels, SetLabels, Tags
from anygrain.learn.calibration import evidence_score
from anygrain.learn.recipe import Callback, RecipeState, split_groups
from anygrain.learn.tag_committee import TagCommittee

#: weight decays that are tried, from strong to weak, as factors of the one that is given
FACTORS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
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
        #: weight decay of every tag in gradient steps, in units of the common one
        self.register_buffer("decay", torch.ones(n_tags), persistent=False)

    decay: Tensor
    log_scale: Tensor
    shift: Tensor

    def penalty(self) -> Tensor:
        """Squared size of a tag's weights times its decay, the mean over tags, as the loss of a batch is: a scalar."""
        return self.decay @ self.weight.square().sum(dim=1) / self.n_tags

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


TAG_HEADS = {"linear": TagHead, "committee": TagCommittee}


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
        head: a `TagHead` or a `TagCommittee`, calibrated.
        posterior: of the instances, (N L, 2), with all evidence.
        held_out_log_probs: (N L, 2), of heads that saw neither the row nor its evidence.
        heads: these, one for every fold, not calibrated.
        score: log-likelihood of the evidence under these, per tag of a row.
        history: one dict per round.
    """

    head: Any
    posterior: Tensor
    held_out_log_probs: Tensor
    heads: list[TagHead]
    score: float
    history: list[dict[str, Any]]


class TagRecipe:
    """Fits a `TagHead` to labels of N rows with L tags.

    Args:
        features: (N, D).
        labels: `Tags`, or an `All` with some; their channels are fitted in place.
        folds: parts of the rows that are held out once each; what one observation joins stays together.
        rounds: posteriors and fits, where labels speak of several tags together.
        seed: of the folds.
        penalty: middle of the grid from which the weight decay of every tag is chosen, see `fit_tag_head`.
        state: finished steps of an earlier, interrupted fit.
        callback: called after every step.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Labels,
        *,
        folds: int,
        rounds: int,
        seed: int,
        penalty: float = 0.01,
        state: RecipeState | None = None,
        callback: Callback | None = None,
    ) -> None:
        self.features, self.labels = features, labels
        self.state = RecipeState() if state is None else state
        self.callback = callback
        self.penalty = penalty
        self.penalties = tuple(factor * penalty for factor in FACTORS) if penalty else (0.0,)
        parts = labels.parts if isinstance(labels, All) else [labels]
        self.tags = tags_of(labels)
        self.joint = len(parts) > 1
        self.rounds = max(rounds, 1) if self.joint else 1
        self.folds = min(folds, labels.n_rows)
        self.fold = split_groups(labels.groups().cpu(), self.folds, torch.Generator().manual_seed(seed))
        self.fold = self.fold.to(features.device)
        self.spoken = self._spoken()

    def _spoken(self) -> Tensor:
        """Weight of every entry (N, L); 0 where neither a tag nor a set says anything."""
        said = self.tags.labels >= 0
        for part in self.labels.parts if isinstance(self.labels, All) else []:
            if isinstance(part, SetLabels):
                said = said.index_fill(0, part.sets.members[spoken_members(part)], True)
            elif isinstance(part, InstanceLabels):
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
        known = self.tags.table(self.tags.labels, -1)
        on, off = (known == 1).sum(dim=0), (known == 0).sum(dim=0)
        # before any head, a tag is as frequent as where it is known
        odds = ((on + 0.5) / (off + 0.5)).log().to(self.features)
        found: dict[str, Tensor] = {}
        for round_ in range(self.rounds):
            found = self._step(round_ + 1, f"tags {round_ + 1}", partial(self._round, round_ + 1, found, odds))
            if round_:  # the one before is not needed any more; that it was done is
                self.state.steps[f"tags {round_}"] = {"done": torch.ones(1)}
        log_odds, scale, score = found["log_odds"], found["scale"], self._score(found["log_odds"])
        head = self._new(odds)

        def last() -> tuple[dict[str, Tensor], dict[str, Any]]:
            fit_tag_head(head, self.features, self._target(log_odds), self.spoken, found["penalty"], steps=60)
            with torch.no_grad():
                head.log_scale.copy_(scale[0])
                head.shift.copy_(scale[1])
            kept = {f"head.{key}": value.clone() for key, value in head.state_dict().items()}
            return kept, {"track": "final", "round": 1, "held_out_evidence": score * self.tags.n_tags}

        final = self._step(self.rounds + 1, "final", last)
        head.load_state_dict({key: final[f"head.{key}"] for key in head.state_dict()})
        decay = found["penalty"] / self.penalty if self.penalty else torch.ones_like(found["penalty"])
        head.decay.copy_(decay)
        heads = [self._new(odds) for _ in range(self.folds)]
        for f, part in enumerate(heads):
            part.load_state_dict({key: found[f"head{f}.{key}"] for key in part.state_dict()})
            part.decay.copy_(decay)
        with torch.no_grad():
            said = self._as_instances(head(self.features))
        return TagResult(
            head,
            self.labels.posterior(said),
            self._as_instances(log_odds),
            heads,
            score,
            list(self.state.history),
        )

    def _step(
        self, done: int, name: str, compute: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]
    ) -> dict[str, Tensor]:
        """Run a step, or take it from the state of an earlier fit; then say so."""
        found, now = self.state.step(name, compute, self.labels.channels)
        if now and self.callback is not None:
            self.callback(done, self.rounds + 1, self.state.history[-1])
        return found

    def _round(self, number: int, before: dict[str, Tensor], odds: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Posteriors, heads, their calibration, channels; the first round, with none before, chooses weight decays."""
        heads = [self._new(odds) for _ in range(self.folds)]
        if not before:
            target = self._target(odds.expand(len(self.features), -1))
            penalty = self._choose(target, odds)
            heads = self._heads(target, penalty, heads, steps=40)
        else:
            target, penalty = self._target(before["log_odds"]), before["penalty"]
            for f, head in enumerate(heads):
                head.load_state_dict({key: before[f"head{f}.{key}"] for key in head.state_dict()})
            heads = self._heads(target, penalty, heads, steps=15)
        scores = self._held_out(heads)
        scale = torch.stack(calibrate(scores, target, self.spoken))
        log_odds = scale[0].exp() * scores + scale[1]
        if self.labels.channels:
            said = self._as_instances(log_odds)
            self.labels.update(self.labels.posterior(said), said)
        found = {"log_odds": log_odds, "scale": scale, "penalty": penalty}
        for f, head in enumerate(heads):
            found.update({f"head{f}.{key}": value.clone() for key, value in head.state_dict().items()})
        score = self._score(log_odds) * self.tags.n_tags
        return found, {"track": "tags", "round": number, "held_out_evidence": score}

    def _score(self, log_odds: Tensor) -> float:
        """Mean log-likelihood of the evidence per instance under held-out log odds (N, L)."""
        return evidence_score(self.labels, self._as_instances(log_odds), torch.ones_like(self.tags.rows).bool())

    def _new(self, odds: Tensor) -> TagHead:
        head = TagHead(self.features.shape[1], self.tags.n_tags).to(self.features)
        with torch.no_grad():
            head.bias.copy_(odds)
        return head

    def _choose(self, target: Tensor, odds: Tensor) -> Tensor:
        """The weight decay of every tag, (L,), with the best held-out entries."""
        losses = []
        heads = [self._new(odds) for _ in range(self.folds)]
        for each in self.penalties:  # each fit starts from the one before
            heads = self._heads(target, self.features.new_full((self.tags.n_tags,), each), heads, steps=12)
            losses.append((self.spoken * cross_entropy(self._held_out(heads), target)).sum(dim=0))
        table, seen = torch.stack(losses), self.spoken.sum(dim=0)
        common = table.sum(dim=1, keepdim=True) / seen.sum().clamp(min=1e-12)
        best = (table + SHARED * common).argmin(dim=0)
        return torch.tensor(self.penalties, device=best.device).to(self.features)[best]

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


def spoken_members(sets: SetLabels) -> Tensor:
    """bool (E,): members of whose tag a set says something, at one or another probability of being on."""
    said = torch.zeros(len(sets.sets.members), dtype=torch.bool, device=sets.device)
    for on in (1e-3, 0.5, 1 - 1e-3):
        log_p = torch.tensor([1 - on, on], dtype=torch.float64, device=sets.device).log().expand(len(said), -1)
        message = sets.factor(log_p)[1]
        said |= ((message[:, 0] - message[:, 1]).abs() > 1e-12) & ~message.isnan().any(dim=1)
    return said


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
