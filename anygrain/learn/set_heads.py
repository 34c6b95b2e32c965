"""Heads that learn from labels of few sets: small networks of several weight decays, averaged and calibrated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from anygrain.labels import All, Labels, SetLabels, Tags
from anygrain.labels.base import IMPOSSIBLE
from anygrain.labels.target_sets import TargetSets
from anygrain.learn.bounded import least_point
from anygrain.learn.calibration import evidence_score
from anygrain.learn.head import Committee, SmallPerceptron
from anygrain.learn.recipe import Callback, Recipe, RecipeResult, RecipeState, split_groups
from anygrain.learn.slope_offset import LOG_SLOPE, OFFSET
from anygrain.learn.tag_committee import TagCommittee
from anygrain.learn.tag_recipe import TagResult, tags_of

#: weight decay in units of that of an observation that speaks of one instance
DECAYS = (0.3, 3.0, 20.0)
MOST = 2000  # sets up to which the network is tried: of more, a fit takes its time, and a linear head has learnt enough
FOLDS = 4  # at least: of sets, which are few, most should be learnt from
STEPS = 100  # of gradient
PACE = 0.01  # of the first step; it falls to 0
LARGEST = 2**25  # hidden activations that are held at once
EM_STEPS = 30
HOLD = 0.1  # one over the variance of an offset
DOUBT = 4.0  # likelihoods of held-out sets that differ by less tell little of which decay is better

#: makes a recipe of a head: its name, decay, finished steps, what is called after each, and further arguments
Make = Callable[..., Recipe]
Found = tuple[dict[str, Tensor], dict[str, Any]]
#: log-probabilities (..., I, K) of the instances, from the outputs (..., N, O) of networks for the rows
Said = Callable[[Tensor], Tensor]


def wants_network(labels: Labels) -> bool:
    """Whether sets, few of them, say all that is known, some of them of a target class, with an exact likelihood."""
    parts = labels.parts if isinstance(labels, All) else [labels]
    parts = [part for part in parts if not (isinstance(part, Tags) and bool((part.labels < 0).all()))]
    sets = sum(len(part.sets) for part in parts if isinstance(part, SetLabels))
    of_target = any(isinstance(part, TargetSets) for part in parts)
    only = all(isinstance(part, SetLabels) for part in parts) and not labels.channels
    n_tags = max((part.n_tags for part in sets_and_tags(labels)[1]), default=1)
    return of_target and only and sets <= MOST * n_tags and labels.exact


def sets_and_tags(labels: Labels) -> tuple[list[SetLabels], list[Tags]]:
    """The parts of either sort."""
    parts = labels.parts if isinstance(labels, All) else [labels]
    return [p for p in parts if isinstance(p, SetLabels)], [p for p in parts if isinstance(p, Tags)]


def likeliest_constant(labels: Labels, kind: Tensor | None = None, n_kinds: int = 1) -> Tensor:
    r"""The log-probabilities (C, K), the same for every instance of a kind, that make the evidence likeliest, by EM.

    A class that every other bag of n members holds at least once is as frequent as 0.7 / n. From equal probabilities a
    large bag that holds it would seem to say nothing of its members.

    Args:
        kind: of every instance, (N,); all are of one when not given.
        n_kinds: C.
    """
    kind = torch.zeros(labels.n_instances, dtype=torch.long, device=labels.device) if kind is None else kind
    found = torch.full((n_kinds, labels.n_classes), -math.log(labels.n_classes), device=labels.device)
    count = torch.bincount(kind, minlength=n_kinds)[:, None]
    for _ in range(EM_STEPS):
        posterior = labels.posterior(found[kind])
        mean = torch.zeros_like(found).index_add_(0, kind, posterior) / count.clamp(min=1)
        found = mean.clamp(min=1e-6).log().log_softmax(dim=1)
    return found


class SideBySide:
    """J networks like `SmallPerceptron`, fitted at once, from the same first weights.

    Args:
        features: D.
        before: outputs (O,) for every row before anything is learnt.
        n: J.
    """

    def __init__(self, features: int, before: Tensor, n: int) -> None:
        width = SmallPerceptron.width
        generator = torch.Generator().manual_seed(0)
        inner = torch.randn(features, width, generator=generator) / features**0.5
        outer = torch.randn(width, len(before), generator=generator) / width**0.5
        first = [inner, torch.zeros(1, width), outer, before[None].cpu()]
        self.inner, self.shift, self.outer, self.bias = (
            one.to(before.device).repeat(n, 1, 1).requires_grad_(True) for one in first
        )

    def logits(self, features: Tensor) -> Tensor:
        """Outputs (J, N, O)."""
        found: Tensor = (features @ self.inner + self.shift).relu() @ self.outer + self.bias
        return found

    def learn(self, features: Tensor, labels: Labels, said: Said, decay: Tensor, share: Tensor) -> None:
        r"""Minimise, for each j, by Adam with a pace that falls as a cosine to 0,

        .. math:: -\frac{1}{M_j} \sum_{o \in j} \log P(o \mid p) + \frac{\lambda_j}{2} |W|^2

        Args:
            features: (N, D).
            labels: of J copies of the I instances, see `copies_of`.
            said: what outputs say of the instances.
            decay: (J,), lambda.
            share: (J, I), 1 / M_j of the instances from which j learns, 0 elsewhere.
        """
        parameters = [self.inner, self.shift, self.outer, self.bias]
        optimizer = torch.optim.Adam(parameters, lr=PACE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        with torch.enable_grad():
            for _ in range(STEPS):
                optimizer.zero_grad()
                log_probs = said(self.logits(features))
                posterior = labels.posterior(log_probs.detach().flatten(0, 1)).view_as(log_probs)
                size = self.inner.square().sum(dim=(1, 2)) + self.outer.square().sum(dim=(1, 2))
                # the gradient of the likelihood is that of the cross-entropy to the posterior
                loss = -(share[..., None] * posterior * log_probs).sum() + 0.5 * (decay * size).sum()
                loss.backward()
                optimizer.step()
                schedule.step()

    def state(self) -> dict[str, Tensor]:
        """The parameters."""
        return {name: getattr(self, name).detach().clone() for name in ("inner", "shift", "outer", "bias")}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over parameters."""
        with torch.no_grad():
            for name, value in state.items():
                getattr(self, name).copy_(value)

    def member(self, j: int) -> SmallPerceptron:
        """One of them as a head."""
        head = SmallPerceptron(self.inner.shape[1], self.outer.shape[2]).to(self.inner.device)
        with torch.no_grad():
            head.inner_weight.copy_(self.inner[j].T)
            head.inner_bias.copy_(self.shift[j, 0])
            head.weight.copy_(self.outer[j].T)
            head.bias.copy_(self.bias[j, 0])
        return head


def copies_of(labels: Labels, n: int) -> All:
    """Set labels of n disjoint copies of the instances."""
    return All(*[part.tiled(n) for part in sets_and_tags(labels)[0]])


@dataclass
class Networks:
    """What was fitted.

    Attributes:
        members: networks of all sets, one of every decay.
        weight: of each, (3,).
        slope, offset: of the weighted mean of their outputs, () and (O,).
        held_out: outputs (N, O) of networks that have not seen the row, so scaled.
    """

    members: list[SmallPerceptron]
    weight: Tensor
    slope: Tensor
    offset: Tensor
    held_out: Tensor

    def joined(self, head: Committee) -> Committee:
        """All of it as one head."""
        head.joined(self.members, (self.slope * self.weight).tolist())
        with torch.no_grad():
            head.bias.add_(self.offset)
        return head

    def chosen(self) -> dict[str, Any]:
        by_decay = {f"weight of decay {decay:g}": w for decay, w in zip(DECAYS, self.weight.tolist(), strict=True)}
        return {"chosen": "evidence", "why": "sets say all that is known", **by_decay}


def fit_networks(
    features: Tensor,
    labels: Labels,
    said: Said,
    row: Tensor,
    before: Tensor,
    n_offsets: int,
    *,
    folds: int,
    penalty: float,
    state: RecipeState,
    callback: Callback | None,
) -> Networks:
    r"""Networks of every decay, on all sets and without each fold, and the mean of those of all sets.

    A set is one observation however many instances it has, so the loss and the decay are taken per set. Which decay is
    right differs widely, and a network is surer, or less sure, of instances that it has not seen than is right. Both
    are told by what sets that were held out say of their members, see `calibrated`:

    .. math:: \lambda_c = c \, \lambda_0, \quad c \in \{0.3, 3, 20\}, \qquad
              z = s \sum_c w_c z_c + b, \quad w = \mathrm{softmax}(\log L_c / 4)

    with :math:`L_c` the likelihood of held-out sets under :math:`z_c` at its own best slope and offset.

    Args:
        features: (N, D).
        labels: of I instances.
        said: what outputs (N, O) say of these.
        row: of `features`, of every instance, (I,).
        before: outputs (O,) before anything is learnt.
        n_offsets: O, or 1: one offset of all outputs.
        folds: parts of the rows that are held out once each.
        penalty: lambda_0.
        state: finished steps of an interrupted fit.
        callback: called after every step.
    """
    sets = copies_of(labels, 1)
    group = torch.zeros(len(features), dtype=torch.long, device=features.device)
    group[row] = labels.groups().to(row.device)[labels.rows]
    fold = split_groups(group.cpu(), folds, torch.Generator().manual_seed(0)).to(features.device)
    parts = int(fold.max()) + 1
    # of every decay a network without each fold, and one of all sets
    inside = torch.stack([*(fold != f for f in range(parts)), torch.ones_like(fold).bool()])[:, row]
    share = inside * labels.instance_weight().to(features)
    # sets of the same members are one observation; each output has its own
    n_sets = max(sets.factors.structure.n_sets, 1) / (len(row) / len(features))
    share = share * len(row) / (n_sets * inside.sum(dim=1, keepdim=True))
    pairs = [(decay, part) for decay in range(len(DECAYS)) for part in range(parts + 1)]
    at_once = min(len(pairs), max(1, LARGEST // (len(features) * SmallPerceptron.width)))
    groups = [pairs[at : at + at_once] for at in range(0, len(pairs), at_once)]
    outputs = features.new_zeros(len(DECAYS), len(features), len(before))
    members: list[SmallPerceptron] = []
    for number, pick in enumerate(groups):
        decay, part = torch.tensor(pick, device=features.device).unbind(dim=1)
        nets = SideBySide(features.shape[1], before, len(pick))

        def compute(nets: SideBySide = nets, decay: Tensor = decay, part: Tensor = part, number: int = number) -> Found:
            sizes = penalty * features.new_tensor(DECAYS)[decay]
            nets.learn(features, copies_of(labels, len(decay)), said, sizes, share[part])
            return nets.state(), {"track": "networks", "round": number + 1}

        found, now = state.step(f"networks {number + 1}", compute)
        if now and callback is not None:
            callback(number + 1, len(groups), state.history[-1])
        nets.load(found)
        with torch.no_grad():
            given = nets.logits(features)
        for j, (at, out) in enumerate(pick):
            if out == parts:
                members.append(nets.member(j))
            else:
                outputs[at, fold == out] = given[j, fold == out]
    likelihood = torch.stack([calibrated(sets, each, said, n_offsets)[2] for each in outputs])
    weight = (likelihood / DOUBT).softmax(dim=0).to(outputs)
    pooled = (weight @ outputs.flatten(1)).view_as(outputs[0])
    slope, offset = (found.to(outputs) for found in calibrated(sets, pooled, said, n_offsets)[:2])
    return Networks(members, weight, slope, offset, slope * pooled + offset)


def calibrated(labels: Labels, outputs: Tensor, said: Said, n_offsets: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Slope, offset, and the likelihood of labels, of outputs (N, O) of models that have not seen them.

    .. math:: \max_{s, b} \; \sum_o \log P(o \mid p(s z + b)) - \frac{(\log s)^2}{2} - \frac{h}{2} |b|^2

    so that probabilities of instances, of which nothing else is known, are those that explain what is said of sets.
    """
    z = outputs.double()
    weight = 1.0 if labels.weight is None else labels.weight.to(z)

    def unlikeliness(free: Tensor) -> Tensor:
        value = weight * labels.log_likelihood(said(free[0].exp() * z + free[1:]))
        held = torch.where(value > IMPOSSIBLE / 2, value, 0.0).sum()
        return 0.5 * free[0].square() + 0.5 * HOLD * free[1:].square().sum() - held

    bounds = [LOG_SLOPE] + [OFFSET] * n_offsets
    best = least_point(unlikeliness, z.new_zeros(1 + n_offsets), bounds, steps=30)
    return best[0].exp(), best[1:], -unlikeliness(best)


def fit_network(
    make: Make, labels: Labels, penalty: float, state: RecipeState | None, callback: Callback | None
) -> tuple[Recipe, RecipeResult, RecipeState]:
    """The `Committee` of `fit_networks` for classes.

    Args:
        make: makes the recipe that heads of one's own are fitted with.
        labels: of N instances.
        penalty: see `fit_networks`.
        state: finished steps of an interrupted fit.
        callback: called after every step.
    """
    whole = RecipeState() if state is None else state
    recipe = make("small-mlp", penalty, whole, None, before=likeliest_constant(labels)[0])
    found = fit_networks(
        recipe.features,
        labels,
        partial(torch.log_softmax, dim=-1),
        torch.arange(len(recipe.features), device=recipe.features.device),
        recipe.uniform[0],
        recipe.k,
        folds=max(recipe.settings.folds, FOLDS),
        penalty=penalty,
        state=whole,
        callback=callback,
    )
    log_probs = found.held_out.log_softmax(dim=1)
    result = RecipeResult(
        head=found.joined(Committee(recipe.features.shape[1], recipe.k).to(recipe.features.device)),
        temperature=1.0,
        posterior=labels.posterior(log_probs),
        held_out_log_probs=log_probs,
        held_out=torch.ones_like(labels.rows).bool(),
        chosen=found.chosen(),
        history=list(whole.history),
        calibration=(float(found.slope), found.offset.tolist()),
    )
    return recipe, result, whole


def fit_tag_network(
    features: Tensor, labels: Labels, *, folds: int, penalty: float, state: RecipeState, callback: Callback | None
) -> tuple[TagResult, dict[str, Any]]:
    """The `TagCommittee` of `fit_networks`, with an output for every tag; and what was chosen.

    Args:
        features: (N, D) of the data rows.
        labels: sets of the tags of these.
        folds, penalty, state, callback: see `fit_networks`.
    """
    tags = tags_of(labels)
    constant = likeliest_constant(labels, tags.tag, tags.n_tags)

    def said(outputs: Tensor) -> Tensor:
        mine = outputs[..., tags.rows, tags.tag]
        return torch.nn.functional.logsigmoid(torch.stack([-mine, mine], dim=-1))

    found = fit_networks(
        features,
        labels,
        said,
        tags.rows,
        (constant[:, 1] - constant[:, 0]).to(features),
        1,
        folds=max(folds, FOLDS),
        penalty=penalty,
        state=state,
        callback=callback,
    )
    log_probs = said(found.held_out)
    head = TagCommittee(features.shape[1], tags.n_tags).to(features.device)
    found.joined(head)
    score = evidence_score(labels, log_probs, torch.ones_like(tags.rows).bool())
    history = list(state.history)
    return TagResult(head, labels.posterior(log_probs), log_probs, [], score, history), found.chosen()
