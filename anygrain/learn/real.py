r"""How a head of a number learns from evidence: the largest likelihood, and held-out evidence for all that is chosen.

.. math:: \max_\theta \; \frac1n \sum_o w_o \log P(o \mid m_\theta(x), v_\theta(x)) - \frac{\lambda}{2} |W|^2
          - \frac{\kappa\lambda}{2} |U|^2

with W the weights of the mean and U those of the log-variance. Rows are split in folds that keep every observation
whole; a head that did not see a fold predicts it. By the log-likelihood of what is held out the recipe chooses the
head, lambda and kappa, and the factor on all standard deviations that makes it largest. Annotators are fitted by EM,
whose E-steps use held-out predictions. Where values stand beside weaker labels, the head of the values alone stays a
candidate: it is taken where all evidence predicts held-out values worse by two standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anygrain.labels import RealAll, RealLabels, Value, aggregate
from anygrain.labels.real import Belief
from anygrain.learn.real_head import RealHead, make_real_head
from anygrain.learn.recipe import Callback, RecipeState, split_groups

PENALTIES = {"gaussian": (1e-1, 1e-2, 1e-3, 1e-4), "gaussian-mlp": (1e-2, 3e-3, 1e-3)}
VARIANCE_PENALTY = 10.0  # kappa; ten times more and less are tried
STEPS = {"gaussian": 40, "gaussian-mlp": 60}  # of L-BFGS
EM_ROUNDS = 3
ENOUGH = 50  # held-out values from which intervals take their width
FEW = 20  # values below which nothing is compared on them


@dataclass(frozen=True)
class Choice:
    """A head and its penalties."""

    head: str
    penalty: float
    variance_penalty: float


@dataclass(frozen=True)
class Candidate:
    """A choice and what its heads predict of rows that they did not see.

    Attributes:
        value: log-likelihood of every observation, times its weight, (M,).
        belief: mean and variance (N,), calibrated.
        spread: the factor on standard deviations that calibrates.
        heads: parameters of the heads, by fold.
    """

    choice: Choice
    value: Tensor
    belief: Belief
    spread: float
    heads: list[dict[str, Tensor]]


@dataclass
class RealResult:
    """What a fit found.

    Attributes:
        head: the fitted head, calibrated.
        posterior: mean and variance (N,) of the training instances, with all evidence.
        held_out: mean and variance (N,) of heads that saw neither the row nor its evidence, calibrated.
        is_held_out: bool (N,), False where that could not be done.
        residuals: sorted absolute standardised residuals of held-out values; empty where these are few.
        chosen: "evidence" or "exact only", and why; the head and its penalties.
        score: mean log-likelihood per observation of the evidence that was held out.
    """

    head: RealHead
    posterior: Belief
    held_out: Belief
    is_held_out: Tensor
    residuals: Tensor
    chosen: dict[str, Any]
    history: list[dict[str, Any]]
    score: float


class RealRecipe:
    """One fit on frozen features.

    Args:
        features: (N, D), one row per instance, of unit mean square.
        labels: of the same instances; their channels are fitted in place.
        head: "gaussian", "gaussian-mlp", or "linear": whichever of the two predicts held-out evidence better.
        folds: parts that rows are split in.
        seed: where folds and the start of networks come from.
        state: finished steps of an earlier, interrupted fit.
        callback: called after every step.

    Raises:
        LabelError: labels that say nothing, an unknown head.
    """

    def __init__(
        self,
        features: Tensor,
        labels: RealLabels,
        *,
        head: str = "linear",
        folds: int = 4,
        seed: int = 0,
        state: RecipeState | None = None,
        callback: Callback | None = None,
    ) -> None:
        self.features, self.labels, self.seed = features.float(), labels, seed
        self.by_row = torch.argsort(labels.rows, stable=True)  # instances as `labels[rows]` orders them
        self.heads = list(PENALTIES) if head == "linear" else [head]
        for name in self.heads:
            make_real_head(name, 1)
        self.state = RecipeState() if state is None else state
        self.callback = callback
        self.location, self.scale = labels.location_scale()
        self._split(folds)
        self.values_only = self._values_alone()
        searches = 1 if self.values_only is None else 2
        self.done = 0
        self.total = (
            (EM_ROUNDS + 1) * bool(labels.channels)
            + searches * sum(len(PENALTIES[name]) + 2 for name in self.heads)
            + 1
        )

    def _split(self, folds: int) -> None:
        """Folds of the instances in groups that some label speaks of; -1 elsewhere, and where nothing can be split."""
        labels = self.labels
        _, group = labels.groups().unique(return_inverse=True)
        told = torch.zeros(int(group.max()) + 1, dtype=torch.bool, device=group.device)
        told[group[labels.rows[labels.evident]]] = True
        rows = told[group].nonzero()[:, 0]
        group = group[rows].unique(return_inverse=True)[1].cpu()
        largest = int(torch.bincount(group).max())
        self.told = torch.zeros(labels.n_rows, dtype=torch.bool, device=labels.device)
        self.told[rows] = True
        fold = torch.full((labels.n_rows,), -1, device=labels.device)
        self.folds = min(folds, int(group.max()) + 1)
        if self.folds < 2 or largest > len(rows) / 2:
            self.folds = 0
        else:
            generator = torch.Generator().manual_seed(self.seed)
            fold[rows] = split_groups(group, self.folds, generator).to(fold.device)
        self.fold_of_row = fold
        self.fold = fold[labels.rows]

    def _values_alone(self) -> RealLabels | None:
        """The values among several kinds of label; None where there is nothing else, or too few of them."""
        parts = self.labels.parts if isinstance(self.labels, RealAll) else [self.labels]
        values = [p for p in parts if isinstance(p, Value)]
        if not values or len(values) == len(parts) or not self.folds:
            return None
        alone = RealAll(*values)
        return alone if int(alone.evident.sum()) >= FEW else None

    def step(self, name: str, compute: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]) -> dict[str, Tensor]:
        """Run a step, or take it from the state of an earlier fit; then say so."""
        self.done += 1
        found, now = self.state.step(name, compute, self.labels.channels)
        if now and self.callback is not None:
            self.callback(self.done, max(self.total, self.done), self.state.history[-1])
        return found

    # -- heads --------------------------------------------------------------------------------------------------------

    def make(self, choice: Choice) -> RealHead:
        """An unfitted head."""
        head = make_real_head(choice.head, self.features.shape[1]).to(self.features.device)
        head.standardise(self.location, self.scale)
        head.start(torch.Generator().manual_seed(self.seed))
        return head

    def fit_head(
        self, labels: RealLabels, rows: Tensor, choice: Choice, start: dict[str, Tensor] | None = None
    ) -> RealHead:
        """A head fitted to the labels of some data rows, bool (rows,), which hold observations whole.

        Args:
            start: parameters to begin with.
        """
        head = self.make(choice)
        if start is not None:
            head.load_state_dict(start)
        part = labels[rows]
        instances = self.by_row[rows[labels.rows[self.by_row]]]
        features = self.features[instances]
        if not bool(part.evident.any()):
            return head
        weight = None if part.weight is None else part.weight.double()
        n = float(part.evident.sum())
        optimizer = torch.optim.LBFGS(
            head.parameters(),
            max_iter=STEPS[choice.head],
            history_size=10,
            tolerance_grad=1e-5,
            tolerance_change=1e-7,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = part.log_likelihood(*head(features))
            total = value.sum() if weight is None else (weight * value).sum()
            loss: Tensor = -total / n + 0.5 * choice.penalty * head.penalty(choice.variance_penalty)
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        return head

    def held_out(
        self, labels: RealLabels, choice: Choice, start: list[dict[str, Tensor]] | None = None
    ) -> tuple[Belief, list[dict[str, Tensor]]]:
        """Mean and variance (N,) of every instance by heads that did not see its fold, and these heads."""
        mean = torch.full((labels.n_instances,), self.location, dtype=torch.float64, device=self.features.device)
        variance = torch.full_like(mean, self.scale**2)
        heads = []
        for f in range(max(self.folds, 1)):
            rows = self.told & (self.fold_of_row != f) if self.folds else self.told
            head = self.fit_head(labels, rows, choice, None if start is None else start[f])
            out = self.fold == f if self.folds else torch.ones_like(mean, dtype=torch.bool)
            with torch.no_grad():
                mean[out], variance[out] = (t.to(mean) for t in head(self.features[out]))
            heads.append({key: value.detach().clone() for key, value in head.state_dict().items()})
        return Belief(mean, variance), heads

    # -- choosing -----------------------------------------------------------------------------------------------------

    def candidate(self, labels: RealLabels, choice: Choice, track: str, like: Candidate | None = None) -> Candidate:
        """A choice with its held-out predictions, calibrated; its heads start where those of another ended."""

        def compute() -> tuple[dict[str, Tensor], dict[str, Any]]:
            belief, heads = self.held_out(labels, choice, None if like is None else like.heads)
            spread = best_spread(labels, belief) if self.folds else 1.0
            belief = Belief(belief.mean, belief.variance * spread**2)
            value = weighted(labels, labels.infer(*belief)[0])
            facts = {
                "track": track,
                "round": self.done,
                "head": choice.head,
                "penalty": choice.penalty,
                "variance_penalty": choice.variance_penalty,
                "held_out_evidence": float(value.sum() / max(int(self.told.sum()), 1)),
            }
            found = {"mean": belief.mean, "variance": belief.variance, "value": value, "spread": torch.tensor(spread)}
            for f, head in enumerate(heads):
                found.update({f"head{f}.{key}": tensor for key, tensor in head.items()})
            return found, facts

        found = self.step(f"{track} {choice.head} {choice.penalty:g} {choice.variance_penalty:g}", compute)
        keys = list(self.make(choice).state_dict())
        heads = [{key: found[f"head{f}.{key}"] for key in keys} for f in range(max(self.folds, 1))]
        belief = Belief(found["mean"], found["variance"])
        return Candidate(choice, found["value"], belief, float(found["spread"]), heads)

    def search(self, labels: RealLabels, track: str) -> Candidate:
        """The candidate that predicts held-out evidence best: penalty first, then that of the variance, head by head.

        Less penalty must be ahead by half a standard error, and a network of the line by one.
        """
        best: Candidate | None = None
        for name in self.heads:
            tried: list[Candidate] = []
            for penalty in PENALTIES[name]:
                before = tried[-1] if tried else None
                tried.append(self.candidate(labels, Choice(name, penalty, VARIANCE_PENALTY), track, before))
            found = simplest(tried)
            stiff, free = (
                self.candidate(labels, Choice(name, found.choice.penalty, VARIANCE_PENALTY * times), track, found)
                for times in (10, 0.1)
            )
            found = simplest([stiff, found, free])
            best = found if best is None else simplest([best, found], errors=1.0)
        assert best is not None
        return best

    def _fit_channels(self) -> None:
        """EM of the annotators: without features, then with held-out predictions."""

        def alone() -> tuple[dict[str, Tensor], dict[str, Any]]:
            aggregate(self.labels)
            return {}, {"track": "channels", "round": 0}

        def together() -> tuple[dict[str, Tensor], dict[str, Any]]:
            belief, _ = self.held_out(self.labels, Choice(self.heads[0], 1e-2, 10.0))
            spread = best_spread(self.labels, belief) if self.folds else 1.0
            belief = Belief(belief.mean, belief.variance * spread**2)
            for _ in range(5):
                self.labels.update(*self.labels.posterior(*belief))
            return {}, {"track": "channels", "round": self.done - 1}

        self.step("channels 0", alone)
        for r in range(EM_ROUNDS):
            self.step(f"channels {r + 1}", together)

    def run(self) -> RealResult:
        """The whole recipe."""
        if self.labels.channels:
            self._fit_channels()
        best = self.search(self.labels, "evidence")
        chosen: dict[str, Any] = {"chosen": "evidence", "why": "all labels count by their likelihood"}
        learn_from = self.labels
        if self.values_only is not None:
            own = self.search(self.values_only, "exact only")
            of_values = self.values_only.evident
            with_all = self.values_only.infer(*best.belief)[0][of_values]
            gap = self.values_only.infer(*own.belief)[0][of_values] - with_all
            lead, doubt = float(gap.mean()), float(gap.std()) / math.sqrt(len(gap))
            chosen["why"] = (
                f"on {len(gap)} values held out, log-density {float(with_all.mean()):.3f} "
                f"with all evidence, and {lead:+.3f} +- {doubt:.3f} with values only"
            )
            if lead > 2 * doubt:
                best, learn_from, chosen["chosen"] = own, self.values_only, "exact only"
        choice, belief = best.choice, best.belief
        chosen.update(head=choice.head, penalty=choice.penalty, variance_penalty=choice.variance_penalty)

        def compute() -> tuple[dict[str, Tensor], dict[str, Any]]:
            head = self.fit_head(learn_from, self.told, choice, best.heads[0])
            head.spread.fill_(best.spread)
            facts = {"track": "final", "round": 1, "held_out_evidence": self._score(belief)}
            return {f"head.{key}": value.clone() for key, value in head.state_dict().items()}, facts

        found = self.step("final", compute)
        head = self.make(choice)
        head.load_state_dict({key: found[f"head.{key}"] for key in head.state_dict()})
        with torch.no_grad():
            mean, variance = (t.double() for t in head(self.features))
        seen = self.fold >= 0
        held = Belief(torch.where(seen, belief.mean, mean), torch.where(seen, belief.variance, variance))
        is_held_out = seen | ~self.told[self.labels.rows]
        return RealResult(
            head=head,
            posterior=self.labels.posterior(*held),
            held_out=held,
            is_held_out=is_held_out,
            residuals=self._residuals(held),
            chosen=chosen,
            history=list(self.state.history),
            score=self._score(held),
        )

    def _score(self, belief: Belief) -> float:
        """Mean log-likelihood per row with evidence."""
        value = weighted(self.labels, self.labels.infer(*belief)[0])
        return float(value.sum() / max(int(self.told.sum()), 1))

    def _residuals(self, belief: Belief) -> Tensor:
        """Sorted |value - mean| / sd of held-out values, noise included; empty where they are fewer than 50."""
        parts = self.labels.parts if isinstance(self.labels, RealAll) else [self.labels]
        found = [p.residual(*belief)[(self.fold >= 0) & p.said()] for p in parts if isinstance(p, Value)]
        joined = torch.cat([torch.zeros(0, dtype=torch.float64, device=self.fold.device), *found]).abs()
        return joined.sort().values if len(joined) >= ENOUGH else joined[:0]


def simplest(candidates: Sequence[Candidate], errors: float = 0.5) -> Candidate:
    """The first of candidates, simplest first, that the best is ahead of by no more than some standard errors."""
    best = max(candidates, key=lambda c: float(c.value.sum()))
    for candidate in candidates:
        behind = best.value - candidate.value
        doubt = float(behind.std()) * math.sqrt(len(behind)) if len(behind) > 1 else 0.0
        if float(behind.sum()) <= errors * doubt:
            return candidate
    return best


def weighted(labels: RealLabels, value: Tensor) -> Tensor:
    """Log-likelihoods (M,) times the weights of the observations."""
    return value if labels.weight is None else value * labels.weight.to(value)


def best_spread(labels: RealLabels, belief: Belief) -> float:
    """The factor on all standard deviations that makes evidence likeliest, between a quarter and four times."""

    def score(log_factor: float) -> float:
        value = labels.infer(belief.mean, belief.variance * math.exp(2 * log_factor))[0]
        return float(weighted(labels, value).sum())

    low, high = -math.log(4.0), math.log(4.0)
    golden = (math.sqrt(5.0) - 1) / 2
    a, b = high - golden * (high - low), low + golden * (high - low)
    at_a, at_b = score(a), score(b)
    while high - low > 2e-3:
        if at_a > at_b:
            high, b, at_b = b, a, at_a
            a = high - golden * (high - low)
            at_a = score(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + golden * (high - low)
            at_b = score(b)
    return math.exp((low + high) / 2)
