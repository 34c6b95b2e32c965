"""Labels against brute force: every assignment of classes, one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anygrain.labels.all import All
from anygrain.labels.base import IMPOSSIBLE, Labels
from anygrain.labels.error import LabelError
from anygrain.labels.instance import InstanceLabels
from anygrain.labels.sets import SetLabels

LIMIT = 2**20  # joint states of one connected component


@dataclass(frozen=True)
class Check:
    """How far labels are from enumeration.

    Attributes:
        log_likelihood: largest error of a component's log P(o), relative to max(1, |log P(o)|).
        posterior: largest absolute error of a posterior.
        gradient: largest absolute error of softmax(z) + d log P / dz against the posterior.
        record_scores: largest error of a record's score, relative to max(1, |score|).
        variation: mean and largest total variation of posteriors: what an approximate kind is judged by.
        impossible: components of zero probability: their values must be finite and their gradient zero.
        tolerance: what `ok` asks of the four errors.
    """

    log_likelihood: float
    posterior: float
    gradient: float
    record_scores: float
    variation: tuple[float, float]
    impossible: int
    tolerance: float

    @property
    def ok(self) -> bool:
        errors = (self.log_likelihood, self.posterior, self.gradient, self.record_scores)
        return all(e <= self.tolerance for e in errors)  # NaN is not

    def __str__(self) -> str:
        return (
            f"{'equal to' if self.ok else 'NOT equal to'} enumeration within {self.tolerance:g}: "
            f"log-likelihood {self.log_likelihood:.1e} relative, posterior {self.posterior:.1e}, gradient "
            f"{self.gradient:.1e}, record scores {self.record_scores:.1e}; total variation {self.variation[0]:.1e} "
            f"mean, {self.variation[1]:.1e} worst; {self.impossible} impossible components"
        )


def check(labels: Labels, log_probs: Tensor, *, tolerance: float = 1e-9) -> Check:
    r"""Compare labels with :math:`\log \sum_y P(o \mid y) \prod_i p_i(y_i)`, summed over all y by brute force.

    P(o | y) is what the parts say of certain classes: `log_evidence` of instance kinds, `log_prob_given` of set kinds,
    and for a kind derived from `Labels` itself its `log_likelihood` at certain log_probs. Works for kinds of your own.

    Args:
        labels: any labels; training targets (`Soft(kind="target")`) are no likelihood and are refused.
        log_probs: shape (N, K), normalised; float64 for errors near 1e-9.

    Raises:
        LabelError: a connected component of more than 2**20 joint states.
    """
    log_probs = log_probs.detach()
    parts = labels.parts if isinstance(labels, All) else [labels]
    if any(isinstance(p, InstanceLabels) and p.target() is not None for p in parts):
        raise LabelError("a training target is not a likelihood: there is nothing to enumerate")
    value, posterior = labels.infer(log_probs)
    logits = log_probs.clone().requires_grad_(True)
    total = labels.log_likelihood(torch.log_softmax(logits, dim=1)).sum()
    (slope,) = torch.autograd.grad(total, logits) if total.requires_grad else (torch.zeros_like(logits),)
    scores = labels.record_scores(log_probs).double()

    component = _components(labels)
    want_scores = torch.zeros(labels.n_records, dtype=torch.float64)
    likelihood_error, gradient_error, impossible = 0.0, 0.0, 0
    want = torch.exp(log_probs).double()
    for c in range(int(component.max()) + 1):
        inside = (component == c).nonzero()[:, 0]
        state = _states(len(inside), labels.n_classes)
        unary = log_probs.double()[inside]
        prior = torch.stack([unary[j, state[:, j]] for j in range(len(inside))]).sum(dim=0)
        said, number = _given(parts, inside, state, labels.n_instances)
        prior = prior + _unrecorded(parts, inside, state)
        joint = prior + said.sum(dim=1)
        whole = torch.logsumexp(joint, dim=0)
        observed = _observed(labels, value, inside)
        if whole == -torch.inf:
            impossible += 1
            bad = not bool(torch.isfinite(value).all()) or not bool(torch.isfinite(posterior[inside]).all())
            likelihood_error = math.inf if bad or float(observed) > IMPOSSIBLE / 2 else likelihood_error
            want[inside] = posterior[inside].double()
            want_scores[number] = torch.nan
            continue
        likelihood_error = max(likelihood_error, float((observed - whole).abs() / whole.abs().clamp(min=1)))
        share = (joint - whole).exp()
        for j, i in enumerate(inside.tolist()):
            want[i] = torch.zeros(labels.n_classes, dtype=torch.float64).index_add_(0, state[:, j], share)
        moved = torch.softmax(log_probs[inside], dim=1) + slope[inside]
        gradient_error = max(gradient_error, float((moved - want[inside]).abs().max()))
        for r in range(said.shape[1]):
            rest = torch.logsumexp(prior + torch.cat([said[:, :r], said[:, r + 1 :]], dim=1).sum(dim=1), dim=0)
            want_scores[number[r]] = whole - rest
    difference = posterior.double() - want
    variation = difference.abs().sum(dim=1) / 2
    known = ~want_scores.isnan()
    apart = (scores - want_scores).abs() / want_scores.abs().clamp(min=1)
    score_error = float(apart[known].max()) if bool(known.any()) else 0.0
    return Check(
        likelihood_error,
        float(difference.abs().max()),
        gradient_error,
        score_error,
        (float(variation.mean()), float(variation.max())),
        impossible,
        tolerance,
    )


def _components(labels: Labels) -> Tensor:
    """Component of every instance; a kind derived from `Labels` itself may join all of them."""
    if isinstance(labels, All | InstanceLabels | SetLabels):
        component: Tensor = torch.unique(labels.structure.component, return_inverse=True)[1]
        return component
    return torch.zeros(labels.n_instances, dtype=torch.long)


def _states(n: int, k: int) -> Tensor:
    if n * math.log(max(k, 2)) > math.log(LIMIT):
        raise LabelError(f"a component of {n} instances and {k} classes has too many states to enumerate")
    return torch.cartesian_prod(*[torch.arange(k)] * n).reshape(-1, n)


def _observed(labels: Labels, value: Tensor, inside: Tensor) -> Tensor:
    """Sum of the log-likelihoods of the observations of one component."""
    if isinstance(labels, InstanceLabels):
        return value[inside].double().sum()
    if not isinstance(labels, All | SetLabels):
        return value.double().sum()
    s = labels.structure
    held = torch.zeros(labels.n_instances, dtype=torch.bool)
    held[inside] = True
    total = value[s.sets[held[s.members]].unique()].double().sum()
    if labels.n_observations > s.n_sets:
        total = total + value[s.n_sets :][held[s.free]].double().sum()
    return total


def _unrecorded(parts: Sequence[Labels], inside: Tensor, state: Tensor) -> Tensor:
    """log P(what stands in no record | y), the silence of rules, for every state of the component, (S,)."""
    total = torch.zeros(len(state), dtype=torch.float64)
    for part in parts:
        silence = part.unrecorded_evidence(torch.float64) if isinstance(part, InstanceLabels) else None
        if silence is not None:
            total = total + silence[inside].gather(1, state.T).sum(dim=0)
    return total


def _given(parts: Sequence[Labels], inside: Tensor, state: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """log P(record | y) for every state and record of the component, (S, r), and the numbers of these records."""
    place = torch.full((n,), -1)
    place[inside] = torch.arange(len(inside))
    tables, numbers, start = [], [], 0
    for part in parts:
        if isinstance(part, InstanceLabels):
            of = torch.arange(n) if part.record_instances is None else part.record_instances
            mine = (place[of] >= 0).nonzero()[:, 0]
            table = part.record_log_prob(torch.float64)[mine]
            tables.append(table.gather(1, state[:, place[of[mine]]].T).T)
        elif isinstance(part, SetLabels):
            mine = part.sets.index[place[part.sets.members] >= 0].unique()
            few = part._take(inside, mine)
            tables.append(few.log_prob_given(state[:, few.sets.members]).double())
        else:
            certain = torch.nn.functional.one_hot(state, part.n_classes).double().log()
            said = torch.stack([part.log_likelihood(y) for y in certain])
            mine = torch.arange(part.n_records)
            tables.append(torch.where(said <= IMPOSSIBLE, -torch.inf, said.double()))
        numbers.append(mine + start)
        start += part.n_records
    return torch.cat(tables, dim=1), torch.cat(numbers)
