"""Every record of labels of any kind judged by probabilities that did not see it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.audit.judged import JudgedPart, array
from anygrain.audit.named import as_named, judge_named
from anygrain.audit.narrowed import judge_narrowed
from anygrain.audit.of_numbers import judge_numbers
from anygrain.audit.of_sets import doubtful, judge_sets
from anygrain.audit.rare import spare_rare
from anygrain.audit.votes import judge_votes
from anygrain.labels import (
    All,
    Crowd,
    Exact,
    IdentifiabilityWarning,
    InstanceLabels,
    LabelError,
    Labels,
    Noisy,
    RealLabels,
    Rules,
    aggregate,
)
from anygrain.labels.error import numbers
from anygrain.learn.reading import read_classes
from anygrain.robust.label_noise import CHUNK, Noise

#: error that the other kinds are read with while one of them is judged
OTHERS = 0.05
#: entries up to which all is computed in float64
DOUBLE = 2**21


@dataclass(frozen=True)
class Judgement:
    """What is believed of all records, (R,) each, parts in order.

    Attributes:
        parts: see `JudgedPart`.
        part: place of its kind in the labels.
        instance: that the record is about, -1 of sets.
        believe: finds P(class | x, all records), (N, K); None of numbers.
        noise: of the first part whose records name a class or a node, and its place; None where there is none.
    """

    parts: tuple[JudgedPart, ...]
    part: np.ndarray
    instance: np.ndarray
    believe: Callable[[], Tensor] | None
    noise: tuple[int, Noise] | None

    @cached_property
    def posterior(self) -> np.ndarray | None:
        """P(class | x, all records), (N, K): the likely true class with its probability; None of numbers."""
        return None if self.believe is None else array(self.believe())

    @property
    def said(self) -> np.ndarray:
        """bool (R,): records that are not missing."""
        found = [_told(part.given) for part in self.parts]
        return np.concatenate(found) if found else np.zeros(0, dtype=bool)

    def joined(self, name: str) -> np.ndarray:
        """A field of all parts one after another, (R,); names where the parts' indices mean different things."""
        found = [getattr(p, name) for p in self.parts]
        if name in ("given", "proposed") and (len(found) > 1 or self.parts[0].names is not None):
            found = [named(values, p) for values, p in zip(found, self.parts, strict=True)]
        return np.concatenate(found) if found else np.zeros(0)


def _told(given: np.ndarray) -> np.ndarray:
    """bool (R,): whether anything is given."""
    if given.dtype == object:
        return np.asarray(given != "")
    return ~np.isnan(given) if given.dtype.kind == "f" else given >= 0


def named(values: np.ndarray, part: JudgedPart) -> np.ndarray:
    """Class indices as names, "" where missing; words as they are."""
    if values.dtype == object:
        return values
    if values.dtype.kind == "f":
        return np.array([f"{v:g}" for v in values.tolist()], dtype=object)
    if part.names is None:
        return np.asarray(np.where(values < 0, "", values.astype(str)).astype(object))
    return np.asarray(np.array([*part.names, ""], dtype=object)[values])


def as_labels(labels: Any, n_classes: int | None) -> Labels | RealLabels:
    """Labels as they are; a vector of classes as `Exact`: of indices, -1 is missing, or of K other values.

    Raises:
        LabelError: no classes, or values that are neither indices nor as many as there are probabilities.
    """
    if isinstance(labels, Labels | RealLabels):
        return labels
    given = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else labels
    values = np.asarray(given)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind == "f" and np.isnan(values).any() and (n_classes or 0) > 2:
        values = np.where(np.isnan(values), -1.0, values)
    whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool(np.all(values == np.floor(values))))
    if whole and n_classes is not None and values.size and values.min() >= -1 and values.max() < n_classes:
        signs = n_classes == 2 and set(np.unique(values).tolist()) == {-1, 1}
        if not signs:
            return Exact(torch.from_numpy(values.astype(np.int64)), n_classes)
    classes, codes = read_classes(values)
    if n_classes is not None and len(classes) != n_classes:
        raise LabelError(
            f"the labels have {len(classes)} classes, the probabilities {n_classes} columns; give class indices "
            f"0..{n_classes - 1}, or Labels"
        )
    names = [str(c) for c in classes.tolist()] if classes.dtype.kind in "UO" else None
    return Exact(torch.from_numpy(codes), len(classes), class_names=names)


def as_log_probs(log_probs: Any, labels: Labels) -> Tensor:
    """Log-probabilities of the instances, (N, K), on the CPU; of a table by data rows, each instance has its row's.

    Raises:
        LabelError: another shape, NaN, probabilities in place of their logarithm, rows that do not sum to 1.
    """
    given = numbers(log_probs.detach() if isinstance(log_probs, Tensor) else np.asarray(log_probs), "log_probs").cpu()
    n, k = labels.n_instances, labels.n_classes
    if given.ndim != 2 or given.shape[1] != k or len(given) not in (n, labels.n_rows):
        rows = f"({n}, {k})" if n == labels.n_rows else f"({n}, {k}), or ({labels.n_rows}, {k}) by data rows"
        raise LabelError(f"log_probs have shape {tuple(given.shape)}; expected {rows}")
    given = given.to(torch.float64 if given.numel() <= DOUBLE else torch.float32)
    total = torch.cat([rows.exp().sum(dim=1) for rows in given.split(max(CHUNK // max(k, 1), 1))])
    bad = (~((total - 1).abs() < 2e-3)).nonzero()[:, 0]
    if len(bad):
        first = int(bad[0])
        row = given[first]
        if bool(row.isnan().any()):
            raise LabelError(f"{len(bad)} rows of log_probs hold NaN or do not sum to 1 (first: row {first} holds NaN)")
        if bool((given >= 0).all()):
            raise LabelError("log_probs hold no negative number: these are probabilities; pass their logarithm")
        raise LabelError(
            f"{len(bad)} rows of log_probs do not sum to 1 (first: row {first}, to {float(total[first]):.3g}); "
            "expected logarithms of probabilities"
        )
    if given.dtype == torch.float64:
        given = given - total.log()[:, None]
    return given if len(given) == n else given[labels.rows.cpu()]


def judge_labels(log_probs: Any, labels: Labels | RealLabels) -> Judgement:
    """Judge every record of labels.

    Each kind is judged by the log-probabilities and by what the other kinds say; these are read as erring now and then.
    Sources that see x (`given_x`) take no part in judging others.

    Args:
        log_probs: (N, K), see `suspects`; (mean, variance) of numbers.
    """
    if isinstance(labels, RealLabels):
        if not isinstance(log_probs, tuple | list) or len(log_probs) != 2:
            raise LabelError("the labels are of a number: give (mean, variance) of every row in place of log_probs")
        found = judge_numbers(labels, *log_probs)
        return Judgement((found,), array(labels.records()[0]), np.full(len(found.given), -1), None, None)
    labels = labels.to("cpu")
    given = None if log_probs is None else as_log_probs(log_probs, labels)
    if given is None:
        base = torch.full((labels.n_instances, labels.n_classes), -float(np.log(labels.n_classes)), dtype=torch.float64)
    else:
        base = given
    parts: list[Labels] = list(labels.parts) if isinstance(labels, All) else [labels]
    if len(parts) > 1:
        parts = _started(labels)
    judged: list[JudgedPart] = []
    noise: tuple[int, Noise] | None = None
    posterior: Tensor | None = None
    for at, part in enumerate(parts):
        others = [p.with_error(OTHERS) for i, p in enumerate(parts) if i != at and not p.given_x]
        rest = _given(others, base)
        if isinstance(part, Crowd | Rules):
            with_x = given is not None or bool(others)
            found, belief = judge_votes(part, base if with_x else None, rest - base if others else None)
            if len(parts) == 1:
                posterior = belief
        elif (said := as_named(part)) is not None:
            known = part.channel.transition if isinstance(part, Noisy) and part.channel.known else None
            found, learnt = judge_named(said, rest, known)
            noise = (at, learnt) if noise is None else noise
        elif isinstance(part, InstanceLabels):
            found = judge_narrowed(part, rest)
        else:
            scores = All(*others, part).record_scores(doubtful(base))
            found = judge_sets(part, scores[len(scores) - part.n_records :])  # type: ignore[arg-type]
        judged.append(found)

    def believe() -> Tensor:
        return _belief(parts, judged, base, noise) if posterior is None else posterior

    instance = instances_of(parts)
    spared = spare_rare(parts, judged, instance)
    return Judgement(tuple(spared), array(labels.records()[0]), instance, believe, noise)


def _started(labels: Labels) -> list[Labels]:
    """Parts of a join with channels of their own, which no other part has taught: each is to judge the others."""
    own = labels.with_own_channels()
    parts: list[Labels] = list(own.parts) if isinstance(own, All) else [own]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        for part in parts:
            if isinstance(part, Crowd | Rules):
                aggregate(part, pool=False)
    return parts


def _given(others: list[Labels], log_probs: Tensor) -> Tensor:
    """Log-probabilities (N, K) given other labels."""
    if not others:
        return log_probs
    posterior = (others[0] if len(others) == 1 else All(*others)).posterior(log_probs)
    return posterior.clamp(min=1e-30).log()


def _belief(
    parts: list[Labels], judged: list[JudgedPart], log_probs: Tensor, noise: tuple[int, Noise] | None
) -> Tensor:
    """P(class | x, all records), (N, K): kinds are read with the errors that were found."""
    read: list[Labels] = []
    base = log_probs
    for at, (part, found) in enumerate(zip(parts, judged, strict=True)):
        if part.given_x:
            continue
        said = as_named(part)
        if said is not None and said.membership is None and found.transition is not None:
            evidence = torch.from_numpy(found.transition).log()
            if evidence.ndim == 2:
                evidence = evidence[None]
            if noise is not None and noise[0] == at:
                group = None if said.groups is None else said.groups[0]
                base = noise[1].sharpness.logits(base, group).log_softmax(dim=1)
            of = torch.zeros_like(said.given) if said.groups is None else said.groups[0]
            table = evidence.to(base).transpose(1, 2)[of, said.given.clamp(min=0)]
            base = (base + torch.where((said.given >= 0)[:, None], table, 0.0)).log_softmax(dim=1)
        else:
            read.append(part.with_error(min(max(found.error, 1e-3), 0.9)))
    return _given(read, base).exp()


def instances_of(parts: list[Labels]) -> np.ndarray:
    """Instance (R,) of every record, -1 of sets."""
    out = []
    for part in parts:
        if not isinstance(part, InstanceLabels):
            out.append(torch.full((part.n_records,), -1))
        else:
            own = part.record_instances
            out.append(torch.arange(part.n_records) if own is None else own)
    return array(torch.cat(out))
