"""The head that learns from labels of few sets: small networks of several weight decays, averaged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from anygrain.labels import All, Labels, SetLabels
from anygrain.labels.target_sets import TargetSets
from anygrain.learn.head import Committee, SmallPerceptron, make_head
from anygrain.learn.recipe import Callback, Recipe, RecipeResult, RecipeState, split_groups

#: weight decay in units of that of an observation that speaks of one instance
DECAYS = (0.3, 3.0, 20.0)
MOST = 2000  # sets up to which the network is tried: of more, a fit takes its time, and a linear head has learnt enough
FOLDS = 4  # at least: of sets, which are few, most should be learnt from
STEPS = 100  # of gradient
PACE = 0.01  # of the first step; it falls to 0
LARGEST = 2**25  # hidden activations that are held at once
SLOPES = tuple(float(s) for s in torch.logspace(-6, 1, 15, base=2.0))  # of log-odds of what sets say
EM_STEPS = 30

#: makes a recipe of a head: its name, decay, finished steps, what is called after each, and further arguments
Make = Callable[..., Recipe]
Found = tuple[dict[str, Tensor], dict[str, Any]]


def wants_network(labels: Labels) -> bool:
    """Whether sets, few of them, say all that is known, some of them of a target class, with an exact likelihood."""
    parts = labels.parts if isinstance(labels, All) else [labels]
    sets = sum(len(part.sets) for part in parts if isinstance(part, SetLabels))
    of_target = any(isinstance(part, TargetSets) for part in parts)
    only = all(isinstance(part, SetLabels) for part in parts) and not labels.channels
    return of_target and only and sets <= MOST and labels.exact


def likeliest_constant(labels: Labels) -> Tensor:
    r"""The log-probabilities (K,), the same for every instance, that make the evidence likeliest, by EM.

    A class that every other bag of n members holds at least once is as frequent as 0.7 / n. From equal probabilities a
    large bag that holds it would seem to say nothing of its members.
    """
    found = torch.full((labels.n_classes,), -math.log(labels.n_classes), device=labels.device)
    for _ in range(EM_STEPS):
        posterior = labels.posterior(found.expand(labels.n_instances, -1))
        found = posterior.mean(dim=0).clamp(min=1e-6).log().log_softmax(dim=0)
    return found


class SideBySide:
    """J networks like `SmallPerceptron`, fitted at once, from the same first weights.

    Args:
        features: D.
        before: log-probabilities (K,) of every instance before anything is learnt.
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
        """(J, N, K)."""
        found: Tensor = (features @ self.inner + self.shift).relu() @ self.outer + self.bias
        return found

    def learn(self, features: Tensor, labels: Labels, decay: Tensor, share: Tensor) -> None:
        r"""Minimise, for each j, by Adam with a pace that falls as a cosine to 0,

        .. math:: -\frac{1}{M_j} \sum_{o \in j} \log P(o \mid p) + \frac{\lambda_j}{2} |W|^2

        Args:
            features: (N, D).
            labels: of J copies of the N instances, see `copies_of`.
            decay: (J,), lambda.
            share: (J, N), 1 / M_j of the instances from which j learns, 0 elsewhere.
        """
        parameters = [self.inner, self.shift, self.outer, self.bias]
        optimizer = torch.optim.Adam(parameters, lr=PACE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        with torch.enable_grad():
            for _ in range(STEPS):
                optimizer.zero_grad()
                log_probs = self.logits(features).log_softmax(dim=2)
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


def copies_of(labels: Labels, n: int) -> Labels:
    """Set labels of n disjoint copies of the instances."""
    parts = labels.parts if isinstance(labels, All) else [labels]
    return All(*[part.tiled(n) for part in parts if isinstance(part, SetLabels)])


def fit_network(
    make: Make, labels: Labels, penalty: float, state: RecipeState | None, callback: Callback | None
) -> tuple[Recipe, RecipeResult, RecipeState]:
    r"""Networks of every decay, on all sets and without each fold, and the mean of those of all sets: a `Committee`.

    A set is one observation however many instances it has, so the loss and the decay are taken per set. Which decay is
    right differs widely, and the likelihood of held-out sets alone prefers a model that is afraid to be wrong to one
    that ranks better, so members are weighed by what they could say once calibrated, see `worth`:

    .. math:: \lambda_c = c \, \lambda_0, \quad c \in \{0.3, 3, 20\}, \qquad
              z = \sum_c w_c z_c, \quad w = \mathrm{softmax}(\text{worth})

    Args:
        make: makes the recipe that heads of one's own are fitted with.
        labels: of N instances.
        penalty: lambda_0.
        state: finished steps of an interrupted fit.
        callback: called after every step.
    """
    whole = RecipeState() if state is None else state
    recipe = make("small-mlp", penalty, whole, None, before=likeliest_constant(labels))
    features, before = recipe.features, recipe.uniform[0]
    generator = torch.Generator().manual_seed(0)
    fold = split_groups(labels.groups()[labels.rows].cpu(), max(recipe.settings.folds, FOLDS), generator)
    fold = fold.to(features.device)
    parts = int(fold.max()) + 1
    # of every decay a network without each fold, and one of all sets
    inside = torch.stack([*(fold != f for f in range(parts)), torch.ones_like(fold).bool()])
    share = inside * labels.instance_weight().to(features)
    share = share * len(fold) / (max(labels.structure.n_sets, 1) * inside.sum(dim=1, keepdim=True))
    pairs = [(decay, part) for decay in range(len(DECAYS)) for part in range(parts + 1)]
    at_once = min(len(pairs), max(1, LARGEST // (len(features) * SmallPerceptron.width)))
    groups = [pairs[at : at + at_once] for at in range(0, len(pairs), at_once)]
    logits = features.new_zeros(len(DECAYS), len(features), recipe.k)
    members: list[SmallPerceptron] = []
    for number, group in enumerate(groups):
        decay, part = torch.tensor(group, device=features.device).unbind(dim=1)
        nets = SideBySide(features.shape[1], before, len(group))

        def compute(nets: SideBySide = nets, decay: Tensor = decay, part: Tensor = part, number: int = number) -> Found:
            sizes = penalty * features.new_tensor(DECAYS)[decay]
            nets.learn(features, copies_of(labels, len(decay)), sizes, share[part])
            return nets.state(), {"track": "networks", "round": number + 1}

        found, now = whole.step(f"networks {number + 1}", compute)
        if now and callback is not None:
            callback(number + 1, len(groups), whole.history[-1])
        nets.load(found)
        with torch.no_grad():
            said = nets.logits(features)
        for j, (at, out) in enumerate(group):
            if out == parts:
                members.append(nets.member(j))
            else:
                logits[at, fold == out] = said[j, fold == out]
    weight = torch.tensor([worth(labels, each.log_softmax(dim=1)) for each in logits]).softmax(dim=0).to(logits)
    log_probs = (weight @ logits.flatten(1)).view_as(logits[0]).log_softmax(dim=1)
    committee = make_head("committee", features.shape[1], recipe.k).to(features.device)
    assert isinstance(committee, Committee)
    by_decay = {f"weight of decay {decay:g}": w for decay, w in zip(DECAYS, weight.tolist(), strict=True)}
    result = RecipeResult(
        head=committee.joined(members, weight.tolist()),
        temperature=1.0,
        posterior=labels.posterior(log_probs),
        held_out_log_probs=log_probs,
        held_out=torch.ones_like(fold).bool(),
        chosen={"chosen": "evidence", "why": "sets say all that is known", **by_decay},
        history=list(whole.history),
    )
    return recipe, result, whole


def worth(labels: Labels, log_probs: Tensor) -> float:
    r"""What log-probabilities (N, K) of models that have not seen the sets say of them, once calibrated.

    .. math:: \max_s \sum_m \log\sigma(s \, l_m), \qquad
              l_m = \log \frac{P(o_m)}{1 - P(o_m)} \text{ up to } \pm\log(M + 1)

    over all M sets of a target class: yes or no was said of each. No answer is read as surer than M of them can tell.
    """
    parts = labels.parts if isinstance(labels, All) else [labels]
    value = torch.cat([part.infer(log_probs)[0] for part in parts if isinstance(part, TargetSets)]).double()
    value = value[value < 0]  # nothing is said by sets of which nothing is known
    if not len(value):
        return 0.0
    most = math.log(len(value) + 1)
    odds = (value - torch.log(-torch.expm1(value))).clamp(min=-most, max=most)
    slopes = torch.tensor(SLOPES, dtype=odds.dtype, device=odds.device)
    return float(torch.nn.functional.logsigmoid(slopes[:, None] * odds).sum(dim=1).max())
