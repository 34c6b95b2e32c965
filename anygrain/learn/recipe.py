r"""The default recipe: how a head on frozen features learns from evidence so that more evidence helps.

A plain gradient on the likelihood of weak labels often ends below what the exact labels alone give. The recipe is
expectation-maximisation with four changes, each of which was needed in experiments on frozen text and image features:

1. *Cross-fitted E-steps*: the posterior of a row uses the log-probabilities of a head that did not train on it.
2. *A temperature per round*, :math:`t = \arg\max_t \log P(o \mid \mathrm{log\_softmax}(t L))`, on held-out evidence.
3. *Two starts, pooled*: one spreads evidence along the graph of nearest neighbours, one starts from the exact labels
   alone and never uses the graph. What is held out decides their weights, so neither a misleading graph nor a poor
   first head can spoil the result; the head of the exact labels alone stays a candidate.
4. *Class balance*: where only few exact labels tell classes apart, soft class counts are pulled towards those of the
   evidence alone, as far as two heads, trained on one half of the exact labels each, disagree about the difference.
   Where labels state the class prior of the rows (`Positive`, `TwoUnlabeled`, `PairsUnlabeled`), it is the target.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from anygrain.labels import All, Exact, Labels, Pairs
from anygrain.learn.calibration import (
    confidence_temperature,
    evidence_score,
    fit_temperature,
    likely_right,
    place_in,
    unlike_all,
)
from anygrain.learn.evidence import Evidence
from anygrain.learn.graph import Graph, neighbour_graph
from anygrain.learn.head import Head, fit_head
from anygrain.learn.stated_prior import pooled_prior

#: (finished steps, all steps, what was found): called after every step, for progress bars and checkpoints
Callback = Callable[[int, int, dict[str, Any]], None]

HEAD_TRACK, GRAPH_TRACK = "head", "graph"
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the graph track in the pool
HARDLY = 0.2  # ambiguity of evidence that hardly tells classes apart: exact labels do, and are the better start
ENOUGH = 5000  # rows to see how often heads agree
START_SHARPNESS = 5.0  # of a first head on the posteriors of groups of rows, which are flat


@dataclass(frozen=True)
class Settings:
    """What the recipe can be told. The defaults were chosen on all data sets at once, not per data set.

    Attributes:
        rounds: E- and M-steps of every track.
        folds: heads that cross-fit an E-step.
        exact_folds: times that a part of the exact labels is held out, to weigh the tracks; below 2: never.
        neighbours: of the graph; 0 leaves the graph track out.
        penalty: weight decay of the head, see `fit_head`.
        head_steps: L-BFGS steps of a head in a round.
        final_steps: L-BFGS steps of the heads that stay.
        temperature: of a head where no held-out evidence tells.
    """

    rounds: int = 4
    folds: int = 2
    exact_folds: int = 3
    neighbours: int = 10
    penalty: float = 0.01
    head_steps: int = 8
    final_steps: int = 40
    temperature: float = 2.0


@dataclass
class RecipeState:
    """Finished steps of a fit. Write `tensors()` and `history`, and a killed fit goes on to the same result."""

    steps: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def step(
        self,
        name: str,
        compute: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]],
        channels: Sequence[nn.Module] = (),
    ) -> tuple[dict[str, Tensor], bool]:
        """What a step found, and whether it was run now: one that is finished brings its channels back.

        Args:
            compute: gives what is found and facts for the history.
            channels: that it moves.
        """
        if name in self.steps:
            found = self.steps[name]
            for i, channel in enumerate(channels):
                kept = {key: found[f"channel{i}.{key}"] for key in channel.state_dict() if f"channel{i}.{key}" in found}
                channel.load_state_dict(kept, strict=False)
            return found, False
        found, facts = compute()
        for i, channel in enumerate(channels):
            found.update({f"channel{i}.{key}": value.clone() for key, value in channel.state_dict().items()})
        self.steps[name] = found
        self.history.append({"step": name, **facts})
        return found, True

    def tensors(self) -> dict[str, Tensor]:
        """All tensors under names "step|name"."""
        return {f"{step}|{name}": value for step, values in self.steps.items() for name, value in values.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], history: list[dict[str, Any]]) -> RecipeState:
        """The inverse of `tensors` and `history`."""
        state = cls(history=list(history))
        for key, value in tensors.items():
            step, name = key.split("|", 1)
            state.steps.setdefault(step, {})[name] = value
        return state


@dataclass
class RecipeResult:
    """What a fit found.

    Attributes:
        head: the fitted head; its log-probabilities are log_softmax(temperature x logits).
        posterior: of the training instances, (N, K), with all evidence.
        held_out_log_probs: (N, K), of heads that saw neither the row nor its evidence.
        held_out: bool (N,), False where that could not be done (the only exact label of its class).
        chosen: "evidence" or "exact only", and why.
        calibration: slope and offsets (K,) of the log-probabilities that are in the head already; None for none.
    """

    head: Any
    temperature: float
    posterior: Tensor
    held_out_log_probs: Tensor
    held_out: Tensor
    chosen: dict[str, Any]
    history: list[dict[str, Any]]
    calibration: tuple[float, list[float]] | None = None


class HeldOut(NamedTuple):
    """Exact labels that were held out in turn.

    Attributes:
        rows: instances, (n,).
        log_probs: of heads that have not seen them, at their best temperature, (n, K).
        confidence: that a model should have in all rows, on average.
    """

    rows: Tensor
    log_probs: Tensor
    confidence: float


def log(probs: Tensor) -> Tensor:
    """The logarithm with a floor that stays finite in the lowest precision in use."""
    return probs.clamp(min=1e-30).log()


def exact_classes(labels: Labels) -> Tensor:
    """Class that an `Exact` part gives every instance, (N,); -1 where none does."""
    given = torch.full((labels.n_instances,), -1, device=labels.device)
    for part in labels.parts if isinstance(labels, All) else [labels]:
        if isinstance(part, Exact):
            given = torch.where(given < 0, part.labels, given)
    return given


def without_exact(labels: Labels, instances: Tensor) -> Labels:
    """The same labels with the exact classes of some instances, bool (N,), taken back. Channels stay shared."""
    parts: list[Labels] = []
    for part in labels.parts if isinstance(labels, All) else [labels]:
        if isinstance(part, Exact):
            part = copy.copy(part)
            part.labels = torch.where(instances, -1, part.labels)
        parts.append(part)
    return labels.joined(parts) if isinstance(labels, All) else parts[0]


def split_groups(groups: Tensor, folds: int, generator: torch.Generator) -> Tensor:
    """Fold (N,) of every row, folds of about equal size; rows of one group (N,) stay together.

    Where one group holds most of the rows, no split can keep it whole: then rows are drawn one by one, and the message
    that a row gets from its partners in another fold comes from a head that has not seen those partners' fold.
    """
    _, group = groups.unique(return_inverse=True)
    if int(torch.bincount(group).max()) > len(group) / folds:
        group = torch.arange(len(group))
    order = torch.randperm(int(group.max()) + 1, generator=generator)
    sizes = torch.bincount(group)[order]
    fold_of_group = torch.empty_like(order)
    fold_of_group[order] = ((sizes.cumsum(0) - sizes) * folds // len(group)).clamp(max=folds - 1)
    return fold_of_group[group]


def ambiguity(evidence: Tensor) -> Tensor:
    r"""How far the evidence of rows (N, K), given as posteriors under equal priors, tells each class from its double.

    .. math:: D_k = \min_{l \in \text{doubles}} \frac{\sum_i |q_{ik} - q_{il}|}{\sum_i (q_{ik} + q_{il})}

    with the double of k the class whose column is most parallel to its own: 0 where nothing tells the two apart, 1
    where they never stand in doubt. Classes without mass get 1. Shape (K,).
    """
    mass = evidence.sum(dim=0)
    length = evidence.square().sum(dim=0).sqrt().clamp(min=1e-12)
    likeness = (evidence.T @ evidence) / (length[:, None] * length)
    likeness.fill_diagonal_(-1)
    double = likeness.argmax(dim=1)
    apart = (evidence - evidence[:, double]).abs().sum(dim=0)
    return torch.where(mass > 0.5, apart / (mass + mass[double]).clamp(min=1e-12), torch.ones_like(apart))


def shared_information(posterior: Tensor) -> float:
    r"""How much posteriors (N, K) tell rows apart, as a share of log K.

    .. math:: \frac{1}{\log K} \Big( H\big(\tfrac1N \sum_i q_i\big) - \tfrac1N \sum_i H(q_i) \Big)
    """
    mean = posterior.mean(dim=0)
    within = (posterior * log(posterior)).sum(dim=1).mean()
    return float((within - (mean * log(mean)).sum()) / math.log(max(posterior.shape[1], 2)))


class Recipe:
    """One fit on frozen features.

    Args:
        features: (N, D), one row per instance, of unit mean square.
        labels: N instances of K classes.
        make: builds an unfitted head.
        seed: where folds come from.
        state: finished steps of an earlier, interrupted fit.
        callback: called after every step.
        graph: of the rows, where it is at hand.
        before: log-probabilities (K,) of every row before anything is known of it; equal ones when not given.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Labels,
        make: Callable[[], Head],
        *,
        settings: Settings | None = None,
        seed: int = 0,
        state: RecipeState | None = None,
        callback: Callback | None = None,
        graph: Graph | None = None,
        before: Tensor | None = None,
    ) -> None:
        self.features, self.labels, self.make = features, labels, make
        self.settings = Settings() if settings is None else settings
        self.state = RecipeState() if state is None else state
        self.callback = callback
        self.n, self.k = labels.n_instances, labels.n_classes
        self.weight = None if labels.weight is None else labels.instance_weight().to(features)
        self.uniform = features.new_full((self.n, self.k), -math.log(self.k))
        if before is not None:
            self.uniform = before.to(features).expand(self.n, -1).clone()
        self.evidence = Evidence(labels, features.dtype)
        self.alone = self.evidence.posterior(self.uniform)  # what the evidence says without features
        self.expected = self.alone.sum(dim=0)  # class counts by the evidence alone
        self.given = exact_classes(labels)
        generator = torch.Generator().manual_seed(seed)
        group = labels.groups()[labels.rows].cpu()
        self.fold = split_groups(group, self.settings.folds, generator).to(features.device)
        self.exact_fold = self._exact_folds(generator, group)
        self.half = self._order_in_class(generator) % 2
        self._graph = graph
        self.stated = pooled_prior(labels)
        self.few, self.anchors = self._anchors()
        #: rows that no anchor speaks of, as many as are needed to see how often heads agree
        rest = (~self.anchors).nonzero()[:, 0]
        drawn = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))  # folds do not hang on it
        self.untold = rest[drawn.to(rest.device)[:ENOUGH]]
        self.shrink: float | None = None
        self.done = 0
        self.total = 0

    # -- what kind of evidence there is -------------------------------------------------------------------------------

    def _order_in_class(self, generator: torch.Generator) -> Tensor:
        """Random rank of every exact label among those of its class, (N,); 0 elsewhere."""
        order = torch.randperm(self.n, generator=generator).to(self.given.device)
        order = order[torch.argsort(self.given[order], stable=True)]
        classes = self.given[order]
        count = torch.bincount(classes + 1, minlength=self.k + 1)
        first = torch.cat([count.new_zeros(1), count.cumsum(0)])[classes + 1]
        rank = torch.empty_like(order)
        rank[order] = torch.arange(self.n, device=first.device) - first
        return torch.where(self.given >= 0, rank, 0)

    def _exact_folds(self, generator: torch.Generator, group: Tensor) -> Tensor:
        """Fold (N,) of every exact label, spread over its class, rows of one group (N,) together; -1 elsewhere."""
        folds = max(self.settings.exact_folds, 1)
        exact = self.given >= 0
        fold = torch.where(exact, (self._order_in_class(generator) + self.given) % folds, -1)
        _, group = group.to(exact.device).unique(return_inverse=True)
        if not bool(exact.any()) or int(torch.bincount(group[exact]).max()) > int(exact.sum()) / folds:
            return fold  # none, or one group that no fold could hold
        row = torch.arange(self.n, device=group.device)
        first = torch.full((int(group.max()) + 1,), self.n, device=group.device)
        first = first.scatter_reduce(0, group[exact], row[exact], "amin")
        return torch.where(exact, fold[first.clamp(max=self.n - 1)[group]], -1)

    def _anchors(self) -> tuple[bool, Tensor]:
        """Whether only few rows tell the classes apart, and which rows do, bool (N,)."""
        sure = self.alone.max(dim=1).values > 0.9
        exact = self.given >= 0
        for anchors in (exact, sure):
            rest = self.alone[~(anchors | sure)]
            if not bool(anchors.any()) or len(rest) == 0:
                continue
            covered = len(self.alone[anchors].argmax(dim=1).unique())
            silent = float((rest.max(dim=1).values < 1.001 / self.k).float().mean())
            # where the other rows say nothing, classes without an anchor are lost on either way
            if covered >= 0.9 * self.k or silent > 0.5:
                told = ambiguity(rest)
                in_doubt = rest.sum(dim=0) > 0.5
                few = bool(in_doubt.any()) and float((told[in_doubt] < HARDLY).float().mean()) > 0.25
                if few:
                    return True, anchors
        return False, torch.zeros_like(sure)

    @property
    def graph(self) -> Graph:
        if self._graph is None:
            edges = [
                torch.stack(
                    [part.sets.members[part.sets.offsets[:-1]], part.sets.members[part.sets.offsets[:-1] + 1]], 1
                )[part.same == 1]
                for part in (self.labels.parts if isinstance(self.labels, All) else [self.labels])
                if isinstance(part, Pairs)
            ]
            self._graph = neighbour_graph(
                self.features, self.settings.neighbours, edges=torch.cat(edges) if edges else None
            )
        return self._graph

    # -- steps --------------------------------------------------------------------------------------------------------

    def step(self, name: str, compute: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]) -> dict[str, Tensor]:
        """Run a step, or take it from the state of an earlier fit; then say so."""
        self.done += 1
        found, now = self.state.step(name, compute, self.labels.channels)
        if now and self.callback is not None:
            self.callback(self.done, self.total, self.state.history[-1])
        if not now and self.labels.channels and not name.startswith("without"):  # those leave this evidence as it was
            self.evidence = Evidence(self.labels, self.features.dtype)
        return found

    # -- parts of the recipe ------------------------------------------------------------------------------------------

    def head_from(self, rows: Tensor, posterior: Tensor, steps: int, start: Head | None = None) -> Head:
        """A head fitted to the posteriors of some rows, bool (N,)."""
        head = self.make()
        features, target = self.features[rows], posterior[rows]
        if start is None:
            head.start(features, target)
        else:
            head.load_state_dict(start.state_dict())
        return self.fit(head, rows, target, steps)

    def fit(self, head: Head, rows: Tensor, target: Tensor, steps: int) -> Head:
        """Fit a head from where it stands to targets (n, K) of the n rows chosen by bool (N,), with their weights."""
        weight = None if self.weight is None else self.weight[rows]
        return fit_head(head, self.features[rows], target, weight=weight, penalty=self.settings.penalty, steps=steps)

    def logits(self, head: Head) -> Tensor:
        with torch.no_grad():
            return head.logits(self.features)

    def balanced(self, evidence: Evidence, log_probs: Tensor, steps: int = 8) -> Tensor:
        r"""log_probs + lambda such that the mean posterior meets its target, shape (N, K).

        The target is the soft count :math:`n_k` shrunk towards :math:`m_k`, what the evidence alone counts (equal
        counts where it is silent, those of the parent where it is coarse): :math:`\propto n_k^w m_k^{1-w}`, or, where w
        is not known, the mean of both.
        """
        if self.stated is not None:
            return self.balanced_to_stated(evidence, log_probs, *self.stated)
        if not self.few:
            return log_probs
        count = evidence.posterior(log_probs).sum(dim=0)
        if self.shrink is None:
            target = (count + self.expected) / 2
        else:
            mixed = self.shrink * (count + 1).log() + (1 - self.shrink) * (self.expected + 1).log()
            target = torch.softmax(mixed, dim=0) * self.n
        shift = torch.zeros_like(count)
        for _ in range(steps):
            now = evidence.posterior(log_probs + shift).sum(dim=0)
            shift = shift + 0.5 * ((target + 0.1) / (now + 0.1)).log()
        return log_probs + shift

    def balanced_to_stated(self, evidence: Evidence, log_probs: Tensor, prior: Tensor, inside: Tensor) -> Tensor:
        """log_probs + lambda such that the mean posterior of the instances inside, bool (N,), is the prior (K,)."""
        target = prior.to(log_probs) * int(inside.sum())
        shift = torch.zeros_like(target)
        for _ in range(10 if self.labels.bags else 30):  # sets are dear
            now = evidence.posterior(log_probs + shift)[inside].sum(dim=0)
            shift = shift + ((target + 0.1) / (now + 0.1)).log()
        return log_probs + shift

    def size_reliability(self) -> float | None:
        r"""How far the soft class counts can be believed against the expected ones, in [0, 1]; None if unknown.

        .. math:: w = \frac{\max(c, v)}{\max(c, v) + \tau^2}

        Two heads, trained on one half of the exact labels each, count the classes; a and b are the centred logarithms
        of their counts relative to the expected ones, :math:`c = \mathrm{cov}(a, b)` and
        :math:`\tau^2 = \sqrt{\mathrm{var}(a)\,\mathrm{var}(b)} - c`. v is the variance of the logarithms of the
        expected counts: where coarse classes differ in size, so will those below them. With one exact label per class
        there are no halves, c is 0 and :math:`\tau^2` one half.
        """
        expected = (self.expected + 1).log()
        between = float(expected.var(correction=0))
        anchors = self.anchors & (self.given >= 0)
        both = torch.bincount(self.given[anchors & (self.half == 1)], minlength=self.k) > 0
        if int(both.sum()) < self.k / 2:
            return between / (between + 0.5) if self.told() else None
        counts = []
        for half in (0, 1):
            head = self.head_from(anchors & (self.half == half), self.alone, steps=30)
            scores = (4 * self.logits(head)).log_softmax(dim=1)
            shift = torch.zeros_like(expected)
            for _ in range(10):
                shift = (self.evidence.posterior(scores + shift).sum(dim=0) + 1).log()
            counts.append((shift - expected) - (shift - expected).mean())
        a, b = counts
        shared = float((a * b).mean())
        noise = max(float((a.square().mean() * b.square().mean()).sqrt()) - shared, 1e-6)
        signal = max(shared, between, 0.0)
        return signal / (signal + noise)

    def spread(self, evidence: Evidence, anchors: Tensor, steps: int = 30, balance: bool = True) -> Tensor:
        """Posteriors (N, K) after evidence has walked from the anchors along the graph."""
        source = evidence.posterior(self.uniform) * anchors[:, None]
        now = source
        for step in range(steps):
            moved = 0.95 * (self.graph.spread @ now) + 0.05 * source
            mass = moved.sum(dim=1, keepdim=True)
            reached = mass > 0
            log_probs = torch.where(reached, log(moved / mass.clamp(min=1e-30)), self.uniform)
            if balance and step >= 16 and step % 4 == 0:
                log_probs = self.balanced(evidence, log_probs, steps=6)
            now = evidence.posterior(log_probs) * reached
        return torch.where(now.sum(dim=1, keepdim=True) > 0, now, evidence.posterior(self.uniform))

    def smooth(self, evidence: Evidence, posterior: Tensor, steps: int) -> Tensor:
        """Posteriors (N, K) averaged over neighbours and joined with the evidence again, `steps` times."""
        for _ in range(steps):
            log_probs = log(self.graph.walk @ posterior)
            posterior = evidence.posterior(log_probs if self.stated is None else self.balanced(evidence, log_probs))
        return posterior

    def round(
        self, evidence: Evidence, posterior: Tensor, heads: list[Head], anchors: Tensor, *, smoothing: int
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """One round: cross-fitted head, temperature, channels, posterior: log_probs, posterior and what to say."""
        logits = torch.zeros_like(self.uniform)
        for f, head in enumerate(heads):
            rows = (self.fold != f) | anchors
            target = posterior[rows]
            self.fit(head, rows, target, self.settings.head_steps)
            out = self.fold == f
            with torch.no_grad():
                logits[out] = head.logits(self.features[out])
        temperature = fit_temperature(evidence.view, logits, ~anchors, default=self.settings.temperature)
        log_probs = (temperature * logits).log_softmax(dim=1)
        if evidence.labels.channels:
            evidence.update(evidence.posterior(log_probs), log_probs)
            temperature = fit_temperature(evidence.view, logits, ~anchors, default=self.settings.temperature)
            log_probs = (temperature * logits).log_softmax(dim=1)
        score = evidence_score(evidence.view, log_probs, ~anchors)
        log_probs = self.balanced(evidence, log_probs)
        posterior = evidence.posterior(log_probs)
        if smoothing:
            posterior = self.smooth(evidence, posterior, smoothing)
        return log_probs, posterior, {"temperature": temperature, "held_out_evidence": score}

    def start(self, name: str, evidence: Evidence, anchors: Tensor) -> Tensor:
        """First posteriors (N, K) of a track."""
        if self.few and name == GRAPH_TRACK:
            return self.spread(evidence, anchors)
        if self.few:
            return evidence.posterior(self.log_exact_only(evidence, anchors)[1])
        first = evidence.posterior(self.uniform) if self.stated is None else self.start_from_groups(evidence)
        return self.smooth(evidence, first, 10) if name == GRAPH_TRACK else first

    def start_from_groups(self, evidence: Evidence) -> Tensor:
        """First posteriors (N, K) where the prior of the pooled rows is stated.

        What a group of rows says of each of its rows is flat (of one unlabelled row hardly anything), so a cross-fitted
        head reads the groups first, is sharpened, and is brought to the prior.
        """
        assert self.stated is not None
        prior = self.stated[0].to(self.uniform).clamp(min=1e-12)
        first = evidence.posterior(prior.log().expand_as(self.uniform))
        logits = torch.zeros_like(self.uniform)
        for f in range(self.settings.folds):
            head = self.head_from(self.fold != f, first, steps=20)
            out = self.fold == f
            with torch.no_grad():
                logits[out] = head.logits(self.features[out])
        return evidence.posterior(self.balanced(evidence, (START_SHARPNESS * logits).log_softmax(dim=1)))

    def log_exact_only(self, evidence: Evidence, anchors: Tensor) -> tuple[Head, Tensor]:
        """The head that trains on the anchors alone, and its log-probabilities (N, K)."""
        head = self.head_from(anchors, evidence.posterior(self.uniform), steps=60)
        return head, self.logits(head).log_softmax(dim=1)

    def tracks(self) -> list[str]:
        return [HEAD_TRACK] + ([GRAPH_TRACK] if self.settings.neighbours and self.n > 2 else [])

    def run_track(self, name: str) -> Tensor:
        """All rounds of a track on all evidence; log-probabilities (N, K) of its last cross-fit."""
        heads = [self.make() for _ in range(self.settings.folds)]
        rounds = self.settings.rounds
        found: dict[str, Tensor] = {}
        for r in range(rounds):

            def compute(r: int = r, found: dict[str, Tensor] = found) -> tuple[dict[str, Tensor], dict[str, Any]]:
                posterior = found["posterior"] if r else self.start(name, self.evidence, self.anchors)
                for f, head in enumerate(heads):
                    if r:
                        head.load_state_dict({key: found[f"head{f}.{key}"] for key in head.state_dict()})
                    else:
                        rows = (self.fold != f) | self.anchors
                        head.start(self.features[rows], posterior[rows])
                smoothing = 5 if name == GRAPH_TRACK and r < rounds - 1 else 0
                log_probs, posterior, info = self.round(
                    self.evidence, posterior, heads, self.anchors, smoothing=smoothing
                )
                new = {"log_probs": log_probs, "posterior": posterior}
                for f, head in enumerate(heads):
                    new.update({f"head{f}.{key}": value.clone() for key, value in head.state_dict().items()})
                return new, {"track": name, "round": r + 1, **info}

            found = self.step(f"{name} {r + 1}", compute)
            if r:  # the round before is not needed any more; that it was done is
                self.state.steps[f"{name} {r}"] = {"done": torch.ones(1)}
        return found["log_probs"]

    def without(self, fold: int) -> dict[str, Tensor]:
        """Log-probabilities (N, K) by candidate, of a short fit that did not see the exact labels of a fold."""
        out = self.exact_fold == fold
        evidence, anchors = Evidence(without_exact(self.labels, out), self.features.dtype), self.anchors & ~out
        found = {"exact only": self.log_exact_only(evidence, anchors)[1]}
        for name in self.tracks():
            posterior = self.start(name, evidence, anchors)
            heads = [self.make() for _ in range(self.settings.folds)]
            for f, head in enumerate(heads):
                rows = (self.fold != f) | anchors
                head.start(self.features[rows], posterior[rows])
            for r in range(2):
                smoothing = 5 if name == GRAPH_TRACK and r == 0 else 0
                log_probs, posterior, _ = self.round(evidence, posterior, heads, anchors, smoothing=smoothing)
            found[name] = log_probs
        # the rows without an anchor stand beside these, which stand for all exact labels
        surest = found["exact only"].max(dim=1).values
        share = (~self.anchors).to(surest) + out.to(surest) * float(self.anchors.sum()) / max(int(out.sum()), 1)
        kept = {name: log_probs[out] for name, log_probs in found.items()}
        kept["place"] = place_in(surest, out.nonzero()[:, 0], share)
        pools = self.candidates({name: log_probs[self.untold] for name, log_probs in found.items()})
        kept["said"] = torch.stack([logits.argmax(dim=1) for logits in pools.values()])
        return kept

    def candidates(self, by_name: dict[str, Tensor]) -> dict[Any, Tensor]:
        """Logits (n, K) of what may be chosen: exact only, and pools by the weight of the graph track."""
        found: dict[Any, Tensor] = {"exact only": by_name["exact only"]}
        if GRAPH_TRACK not in by_name:
            return {**found, 0.0: by_name[HEAD_TRACK]}
        return {**found, **{w: (1 - w) * by_name[HEAD_TRACK] + w * by_name[GRAPH_TRACK] for w in WEIGHTS}}

    def told(self) -> bool:
        """Whether rows without an anchor carry evidence, beyond being there."""
        rest = self.alone[~self.anchors]
        return bool(((rest - 1 / self.k).abs().amax(dim=1) > 1e-6).float().mean() > 0.01)

    # -- choosing -----------------------------------------------------------------------------------------------------

    def graph_weight_from_evidence(self) -> float:
        """Weight of the graph track where no exact label can be held out.

        The evidence of the rows without an anchor decides: do neighbours, or a cross-fitted head, say it better? Where
        these rows carry none, the graph is trusted if labels stay unmixed as they walk along it: if rows and classes
        share a tenth or more of the most information they could, after `spread` without balance.
        """
        if not self.told():
            return 0.9 if shared_information(self.spread(self.evidence, self.anchors, balance=False)) > 0.1 else 0.25
        rows = ~self.anchors
        near = self.graph.walk @ self.alone
        logits = torch.zeros_like(self.uniform)
        for f in range(self.settings.folds):
            head = self.head_from(self.fold != f, self.alone, steps=20)
            out = self.fold == f
            with torch.no_grad():
                logits[out] = head.logits(self.features[out])
        by_head = evidence_score(
            self.evidence.view,
            (fit_temperature(self.evidence.view, logits, rows, default=1.0) * logits).log_softmax(dim=1),
            rows,
        )
        floor = self.alone.mean(dim=0)
        shares = (0.01, 0.03, 0.1, 0.3)
        by_graph = max(evidence_score(self.evidence.view, log((1 - e) * near + e * floor), rows) for e in shares)
        return 0.75 if by_graph > by_head else 0.25

    def run(self) -> RecipeResult:
        """The whole recipe."""
        if bool((self.alone.max(dim=1).values > 0.999).all()):
            return self._supervised()
        return self._few() if self.few else self._dense()

    def _supervised(self) -> RecipeResult:
        """Every class is known: nothing to infer, one head, and its temperature from a cross-fit."""
        self.total = 1
        return self._finish(self.alone, {"chosen": "evidence", "why": "every row has its class"}, None)

    def _dense(self) -> RecipeResult:
        """Evidence on most rows tells the classes apart: the tracks are weighed by the evidence itself."""
        names = self.tracks()
        self.total = len(names) * self.settings.rounds + 1
        log_probs = {name: self.run_track(name) for name in names}
        weight, scores = 0.0, {}
        everything = torch.ones_like(self.anchors)
        if GRAPH_TRACK in log_probs:
            for w in WEIGHTS:
                pooled = ((1 - w) * log_probs[HEAD_TRACK] + w * log_probs[GRAPH_TRACK]).log_softmax(dim=1)
                t = fit_temperature(self.evidence.view, pooled, everything, default=1.0)
                scores[w] = evidence_score(self.evidence.view, (t * pooled).log_softmax(dim=1), everything)
            weight = max(scores, key=lambda w: scores[w])
        posterior = self.pool(log_probs, weight)
        why = "the evidence of most rows tells classes apart"
        return self._finish(posterior, {"chosen": "evidence", "why": why, "graph_weight": weight}, None)

    def pool(self, log_probs: dict[str, Tensor], weight: float) -> Tensor:
        if GRAPH_TRACK not in log_probs:
            return self.evidence.posterior(log_probs[HEAD_TRACK])
        mixed = (1 - weight) * log_probs[HEAD_TRACK] + weight * log_probs[GRAPH_TRACK]
        return self.evidence.posterior(mixed.log_softmax(dim=1))

    def _few(self) -> RecipeResult:
        """Few rows tell the classes apart: two tracks, weighed by exact labels held out, beside exact only."""
        names = self.tracks()
        held = self.exact_fold >= 0
        per_class = torch.bincount(self.given[held], minlength=self.k)
        folds = self.settings.exact_folds
        comparable = folds > 1 and int((per_class > 1).sum()) >= self.k / 2
        self.total = len(names) * self.settings.rounds + 1 + (folds if comparable else 0)
        self.shrink = self.size_reliability()
        chosen: dict[str, Any] = {"chosen": "evidence", "why": "too few exact labels to hold some out"}
        held_out: HeldOut | None = None
        if comparable:
            parts = []
            for fold in range(folds):

                def compute(fold: int = fold) -> tuple[dict[str, Tensor], dict[str, Any]]:
                    return self.without(fold), {"track": "held out", "round": fold + 1}

                parts.append(self.step(f"without {fold + 1}", compute))
            order = torch.cat([(self.exact_fold == fold).nonzero()[:, 0] for fold in range(folds)])
            by_name = {name: torch.cat([p[name] for p in parts]) for name in ["exact only", *names]}
            chosen, held_out = self._weigh(order, by_name, parts)
        elif GRAPH_TRACK in names:
            chosen["graph_weight"] = self.graph_weight_from_evidence()
        log_probs = {name: self.run_track(name) for name in names}
        posterior = self.pool(log_probs, chosen.get("graph_weight", 0.0))
        return self._finish(posterior, chosen, held_out)

    def _weigh(
        self, order: Tensor, by_name: dict[str, Tensor], parts: Sequence[dict[str, Tensor]]
    ) -> tuple[dict[str, Any], HeldOut]:
        """Compare candidates on held-out exact labels, at instances `order` (n,).

        Candidates are scored by the log-probability of the held-out class, given all other evidence, each at its best
        temperature, classes weighted by their estimated size. Of the pools within half a standard error of the best the
        one with least weight on the graph is taken. Exact only wins where unlabelled rows alone do not put the pool
        ahead by two standard errors, and, where these rows carry evidence, when the pool is behind by two.

        Args:
            order: held-out instances, (n,).
            by_name: logits (n, K) of every candidate.
            parts: what `without` found, for every fold.
        """
        evidence = Evidence(without_exact(self.labels, self.exact_fold >= 0), self.features.dtype)
        truth = self.given[order]
        guess = (4 * self.log_exact_only(self.evidence, self.anchors)[1]).log_softmax(dim=1)
        count = (self.evidence.posterior(guess).sum(dim=0) + 1).log()
        believed = 0.5 if self.shrink is None else self.shrink
        share = torch.softmax(believed * count + (1 - believed) * (self.expected + 1).log(), dim=0)
        seen = torch.bincount(truth, minlength=self.k).clamp(min=1)
        weight = share[truth] / seen[truth]
        weight = weight / weight.sum()
        candidates = self.candidates(by_name)
        scores, scaled, accuracy = {}, {}, {}
        full = self.uniform.clone()
        for name, logits in candidates.items():
            best = -math.inf
            for t in (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0):
                scaled_logits = (t * logits).log_softmax(dim=1)
                full[order] = scaled_logits
                posterior = evidence.posterior(full)[order]
                value = log(posterior.gather(1, truth[:, None])[:, 0]).clamp(min=-12)
                if float(weight @ value) > best:
                    best = float(weight @ value)
                    scores[name], scaled[name] = value, scaled_logits
                    accuracy[name] = float(weight @ (posterior.argmax(dim=1) == truth).to(value.dtype))
        pools = [name for name in candidates if name != "exact only"]
        best_pool = max(pools, key=lambda w: float(weight @ scores[w]))
        taken = best_pool
        for w in sorted(pools):
            gap = scores[best_pool] - scores[w]
            mean = float(weight @ gap)
            error = float((weight.square() * (gap - mean).square()).sum().sqrt())
            if mean <= error / 2:
                taken = w
                break
        ahead = scores[taken] - scores["exact only"]
        lead = float(weight @ ahead)
        doubt = float((weight.square() * (ahead - lead).square()).sum().sqrt())
        exact_score, pool_score = float(weight @ scores["exact only"]), float(weight @ scores[taken])
        chosen: dict[str, Any] = {
            "chosen": "evidence" if lead >= (-2 if self.told() else 2) * doubt else "exact only",
            "why": f"on {len(order)} exact labels held out, log-probability {pool_score:.3f} with all evidence and "
            f"{exact_score:.3f} with exact labels only",
            "graph_weight": taken,
            "lead": lead,
            "doubt": doubt,
            "held_out_accuracy": accuracy[taken],
            "held_out_accuracy_exact_only": accuracy["exact only"],
        }
        name = taken if chosen["chosen"] == "evidence" else "exact only"
        confidence = float(weight @ scaled[name].exp().max(dim=1).values)
        unlike = unlike_all(torch.cat([part["place"] for part in parts]), weight)
        if unlike and len(self.untold):
            said = torch.stack([part["said"][list(candidates).index(name)] for part in parts])
            pairs = list(combinations(said, 2))
            agreement = sum(likely_right(a, b, share) for a, b in pairs) / len(pairs)
            chosen.update(unlike_other_rows=unlike, agreement=agreement)
            confidence = (1 - unlike) * confidence + unlike * agreement
        return chosen, HeldOut(order, scaled[name], confidence)

    def unseen(self) -> Tensor:
        """Logits (N, K) of heads that learnt from the rows of the other folds alone, by a short recipe of their own.

        In the rounds of the recipe folds teach each other, so that what a noisy label says of its own row comes back
        by way of the others. That is little where the evidence is strong, and much where a model hardly learns.
        """
        logits = torch.zeros_like(self.uniform)
        settings = replace(self.settings, rounds=2, neighbours=0)
        order = torch.argsort(self.labels.rows, stable=True)  # as a selection of rows has them
        for f in range(self.settings.folds):
            inside, out = order[(self.fold != f)[order]], self.fold == f
            if not len(inside):
                inside = order
            labels = self.labels[self.labels.rows[inside].unique()].with_own_channels()
            part = Recipe(self.features[inside], labels, self.make, settings=settings)
            posterior = part.pool({HEAD_TRACK: part.run_track(HEAD_TRACK)}, 0.0)
            head = part.head_from(torch.ones_like(part.anchors), posterior, self.settings.final_steps)
            with torch.no_grad():
                logits[out] = head.logits(self.features[out])
        return logits

    def _calibrate(self, logits: Tensor, learnt: Tensor, held: HeldOut | None) -> tuple[Tensor, float]:
        """Held-out log-probabilities (N, K) and the temperature of the head that stays, from cross-fitted logits.

        The evidence of rows that are no anchors decides; where it says nothing, the temperature is the one at which
        the mean confidence on all rows is that on exact labels held out. Where these are unlike the other rows (people
        label what is hard, or what is at hand), they tell little of them: then it is how often heads that lack one
        fold of exact labels each agree, beyond chance, on rows without any.
        """
        rows = ~self.anchors if self.few else torch.ones_like(self.anchors)
        unseen = logits if self.few or not self.labels.channels or self.labels.bags else self.unseen()
        temperature = fit_temperature(self.evidence.view, unseen, rows, default=math.nan)
        if math.isnan(temperature) and held is not None:
            temperature = confidence_temperature(logits, held.confidence)
        elif math.isnan(temperature):
            temperature = 1.0
        log_probs = (temperature * logits).log_softmax(dim=1)
        if held is not None:
            log_probs[held.rows] = held.log_probs
        return log_probs, temperature

    def _finish(self, posterior: Tensor, chosen: dict[str, Any], held: HeldOut | None) -> RecipeResult:
        """The head that stays, its temperature and the held-out log-probabilities."""
        steps = self.settings.final_steps
        rows = torch.ones_like(self.anchors)
        target, learn_from = posterior, rows
        if chosen["chosen"] == "exact only":
            target, learn_from = self.alone, self.anchors
        supervised = self.few is False and bool((self.alone.max(dim=1).values > 0.999).all())
        steps = 60 if supervised or chosen["chosen"] == "exact only" else steps

        def compute() -> tuple[dict[str, Tensor], dict[str, Any]]:
            head = self.head_from(learn_from, target, steps)
            logits = torch.zeros_like(self.uniform)
            for f in range(self.settings.folds):
                inside = learn_from & (self.fold != f)
                out = self.fold == f
                if not bool(inside.any()):
                    inside = learn_from
                part = self.head_from(inside, target, steps)
                with torch.no_grad():
                    logits[out] = part.logits(self.features[out])
            log_probs, temperature = self._calibrate(logits, learn_from, held)
            new = {"log_probs": log_probs, "temperature": torch.tensor(temperature)}
            new.update({f"head.{key}": value.clone() for key, value in head.state_dict().items()})
            score = evidence_score(self.evidence.view, log_probs, rows)
            return new, {"track": "final", "round": 1, "temperature": temperature, "held_out_evidence": score}

        found = self.step("final", compute)
        head = self.make()
        head.load_state_dict({key: found[f"head.{key}"] for key in head.state_dict()})
        held_out = torch.ones_like(self.anchors)
        if self.few and held is None:
            held_out = ~self.anchors
        return RecipeResult(
            head=head,
            temperature=float(found["temperature"]),
            posterior=self.evidence.posterior(found["log_probs"]) if chosen["chosen"] == "exact only" else posterior,
            held_out_log_probs=found["log_probs"],
            held_out=held_out,
            chosen=chosen,
            history=list(self.state.history),
        )


def settings_from(settings: Settings | None, **changes: Any) -> Settings:
    """Settings with some of them changed."""
    return replace(Settings() if settings is None else settings, **changes)
