"""Several labels of the same instances at once: evidence multiplies."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.base import IMPOSSIBLE, Labels
from anygrain.labels.channels.channel import Channel
from anygrain.labels.error import LabelError
from anygrain.labels.instance import InstanceLabels, tilt, with_gradient
from anygrain.labels.joined import Joined, require_same_instances
from anygrain.labels.propagation import Factors
from anygrain.labels.sets import SetLabels


class All(Joined[Labels], Labels):
    r"""The product of its parts: `a & b` is `All(a, b)`.

    The log evidence of instance kinds adds up and tilts log_probs (renormalised; the log normaliser stays in the
    likelihood); set kinds see the tilted log_probs. Where sets share instances their messages are propagated: exact
    on forests of sets and, by enumeration, on small loops; else damped belief propagation, and `exact` is False.

    Observations: the sets of the parts in order, then the instances that lie in no set. Records: those of the parts
    in order. Training targets (`Soft(kind="target")`) replace the posterior, cut to the classes that hard evidence
    leaves and renormalised.

    Args:
        parts: labels of the same instances, rows and classes; nested `All` are unpacked.

    Raises:
        LabelError: parts that differ in instances, rows, classes or class names.
    """

    def __init__(self, *parts: Labels):
        flat: list[Labels] = []
        for part in parts:
            flat += part.parts if isinstance(part, All) else [part]
        if not flat:
            raise LabelError("All needs at least one kind of label")
        for part in flat:
            if not isinstance(part, InstanceLabels | SetLabels):
                kind = type(part).__name__
                raise LabelError(f"{kind} is neither InstanceLabels nor SetLabels and cannot be combined")
        first = flat[0]
        require_same_instances(flat)
        names = next((p.class_names for p in flat if p.class_names is not None), None)
        for part in flat:
            ours, theirs = type(first).__name__, type(part).__name__
            if part.n_classes != first.n_classes:
                raise LabelError(f"{ours} and {theirs} differ in n_classes: {first.n_classes} and {part.n_classes}")
            if part.class_names is not None and part.class_names != names:
                raise LabelError(
                    f"{ours} and {theirs} have different class lists ({_differing(names, part.class_names)}); "
                    "pass the same classes= or taxonomy= to both"
                )
        self.parts = flat
        self.instance_parts = [p for p in flat if isinstance(p, InstanceLabels)]
        self.set_parts = [p for p in flat if isinstance(p, SetLabels)]
        super().__init__(
            first.n_classes, first.n_instances, rows=first.rows, n_rows=first.n_rows, class_names=names, weight=None
        )
        self.weight = self.joined_weight()

    @property
    def channels(self) -> tuple[Channel, ...]:
        return tuple(c for p in self.parts for c in p.channels)

    @property
    def exact(self) -> bool:
        inside = all(p.exact for p in self.instance_parts) and all(p.factor_exact for p in self.set_parts)
        return inside and self.factors.exact

    @property
    def log_prior_shift(self) -> Tensor:
        """That of the parts.

        Raises:
            LabelError: parts that speak of different populations.
        """
        found = super().log_prior_shift
        for part in self.parts:
            shift = part.log_prior_shift
            if bool((shift != 0).any()):
                if bool((found != 0).any()) and not torch.allclose(found, shift, atol=1e-6):
                    raise LabelError("two parts shift the class prior differently; state how all rows were drawn once")
                found = shift
        return found

    @property
    def pooled_prior(self) -> Tensor | None:
        return next((prior for p in self.parts if (prior := p.pooled_prior) is not None), None)

    def update(self, posterior: Tensor, log_probs: Tensor | None = None) -> None:
        for part in self.parts:
            part.update(posterior, log_probs)

    # -- inference ----------------------------------------------------------------------------------------------------

    @cached_property
    def factors(self) -> Factors:
        """The sets as factors of a graph, made ready for inference."""
        return Factors(self.set_parts, self.n_instances, self.n_classes, self.device)

    def log_evidence(self, dtype: torch.dtype = torch.float32, classes: Tensor | None = None) -> Tensor:
        if self.set_parts:
            return super().log_evidence(dtype, classes)
        tables = [p.log_evidence(dtype, classes) for p in self.instance_parts]
        return torch.stack(tables).sum(dim=0)

    def _evidence(self, dtype: torch.dtype) -> Tensor:
        total = torch.zeros(self.n_instances, self.n_classes, dtype=dtype, device=self.device)
        for part in self.instance_parts:
            total = total + part.log_evidence(dtype)
        return total

    def _target(self, dtype: torch.dtype) -> Tensor | None:
        targets = [t for p in self.instance_parts if (t := p.target(dtype)) is not None]
        if not targets:
            return None
        total = targets[0]
        for other in targets[1:]:  # two targets of one row: the mean
            both = (total.sum(dim=1) > 0) & (other.sum(dim=1) > 0)
            total = torch.where(both[:, None], (total + other) / 2, total + other)
        return total

    def infer(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = log_probs.detach()
        tilted, normaliser, against = tilt(log_probs, self._evidence(log_probs.dtype))
        messages = self.factors.propagate(tilted)
        if messages.change > 1e-3:
            moving = f"{messages.moving} instances still move, by up to {messages.change:.2g}"
            warnings.warn(f"belief propagation over overlapping sets did not settle: {moving}", stacklevel=2)
        posterior = torch.softmax(torch.where(messages.against[:, None], tilted, tilted + messages.incoming), dim=-1)
        free = self.structure.free
        alone = torch.where(against, torch.full_like(normaliser, IMPOSSIBLE), normaliser)[free]
        value = self.factors.values(messages, normaliser, against)
        value = torch.cat([value, alone])
        target = self._target(log_probs.dtype)
        if target is None:
            return value, posterior
        kept = target * (posterior > 0)
        mass = kept.sum(dim=1, keepdim=True)
        posterior = torch.where(mass > 0, kept / mass.clamp(min=torch.finfo(mass.dtype).tiny), posterior)
        reached = log_probs.clamp(min=IMPOSSIBLE)
        fit = torch.where(posterior > 0, posterior * reached, torch.zeros_like(posterior)).sum(dim=1)
        has = (mass[:, 0] > 0)[free]
        value[self.structure.n_sets :] = torch.where(has, fit[free], value[self.structure.n_sets :])
        return value, posterior

    def log_likelihood(self, log_probs: Tensor) -> Tensor:
        value, posterior = self.infer(log_probs)
        if not log_probs.requires_grad:
            return value
        possible = (value != IMPOSSIBLE).to(value.dtype)
        owner = self.factors.owner_of_instance(value == IMPOSSIBLE)
        owner[self.structure.free] = torch.arange(self.structure.n_sets, len(value), device=self.device)
        linear = with_gradient(torch.zeros_like(posterior[:, 0]), posterior, log_probs)
        held = owner >= 0
        share = torch.zeros_like(value).index_add(0, owner[held], linear[held])
        return value + share * possible

    def record_scores(self, log_probs: Tensor) -> Tensor:
        log_probs = log_probs.detach()
        dtype = log_probs.dtype
        tilted, _, _ = tilt(log_probs, self._evidence(dtype))
        messages = self.factors.propagate(tilted)
        of_sets = iter(self.factors.set_scores(messages))
        # everything that speaks of an instance, as finite parts and a count of hard zeros, so that one can be left out
        total = _LeaveOneOut(log_probs)
        total.add(messages.incoming)
        for own in self.instance_parts:
            total.add_records(own.record_log_prob(dtype), own.record_instances)
            silence = own.unrecorded_evidence(dtype)
            if silence is not None:
                total.add(silence)
        scores = []
        for part in self.parts:
            if isinstance(part, InstanceLabels):
                scores.append(total.score(part.record_log_prob(dtype), part.record_instances, log_probs))
            else:
                scores.append(_finite(next(of_sets)))
        return torch.cat(scores)

    # -- selections ---------------------------------------------------------------------------------------------------

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        return self.joined([p.relabel(mapping, n_classes) for p in self.parts])

    def with_error(self, error: float) -> Self:
        return self.joined([p.with_error(error) for p in self.parts])


class _LeaveOneOut:
    """Sums of log evidence (N, K) from which one summand can be taken back, hard zeros included."""

    def __init__(self, start: Tensor):
        self.finite = torch.where(start == -torch.inf, torch.zeros_like(start), start)
        self.zeros = (start == -torch.inf).to(start.dtype)

    def add(self, table: Tensor) -> None:
        zero = table == -torch.inf
        self.finite = self.finite + torch.where(zero, torch.zeros_like(table), table)
        self.zeros = self.zeros + zero

    def add_records(self, table: Tensor, instances: Tensor | None) -> None:
        if instances is None:
            return self.add(table)
        zero = table == -torch.inf
        self.finite = self.finite.index_add(0, instances, torch.where(zero, torch.zeros_like(table), table))
        self.zeros = self.zeros.index_add(0, instances, zero.to(table.dtype))
        return None

    def score(self, table: Tensor, instances: Tensor | None, log_probs: Tensor) -> Tensor:
        """log P(record | all else), shape (R,), for records that say `table` (R, K)."""
        at: Any = slice(None) if instances is None else instances
        zero = table == -torch.inf
        rest = self.finite[at] - torch.where(zero, torch.zeros_like(table), table)
        hard = self.zeros[at] - zero.to(table.dtype) > 0.5
        rest = torch.where(hard, torch.full_like(rest, -torch.inf), rest)
        nothing = torch.isneginf(rest).all(dim=1, keepdim=True)  # all else contradicts itself: only x is left
        rest = torch.log_softmax(torch.where(nothing, log_probs[at], rest), dim=1)
        said = (table != 0).any(dim=1)
        score = _finite(torch.logsumexp(rest + table, dim=1))
        return torch.where(said, score, torch.zeros_like(score))


def _finite(score: Tensor) -> Tensor:
    return torch.where(score == -torch.inf, torch.full_like(score, IMPOSSIBLE), score)


def _differing(ours: tuple[str, ...] | None, theirs: tuple[str, ...]) -> str:
    if ours is None or set(ours) == set(theirs):
        return "another order"
    odd = sorted(set(ours) ^ set(theirs))
    return f"only one has {', '.join(repr(o) for o in odd[:3])}" + (f" and {len(odd) - 3} more" if len(odd) > 3 else "")
