"""Rows whose labels cannot all be true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from anygrain.data.classes import Classes
from anygrain.data.error import counted, quoted
from anygrain.data.evidence import Evidence
from anygrain.labels import InstanceLabels, SetLabels
from anygrain.labels.positive import with_any_prior


@dataclass(frozen=True)
class Conflict:
    """A row, or a bag, whose labels contradict each other.

    Attributes:
        row: row id or name of the bag.
        problem: which labels, in words.
        sources: names of the evidence at odds.
    """

    row: str
    problem: str
    sources: tuple[str, ...]


def find_conflicts(evidence: Sequence[Evidence], ids: np.ndarray, classes: Classes) -> list[Conflict]:
    """Every row and set whose labels have probability 0 together, whatever the features say."""
    single = [e for e in evidence if isinstance(e.labels, InstanceLabels) and not e.labels.channels]
    n, k = len(ids), len(classes)
    out: list[Conflict] = []
    possible = torch.ones(n, k, dtype=torch.bool)
    broken = torch.zeros(n, dtype=torch.bool)
    for at, entry in enumerate(single):
        allowed = _allowed(entry)
        both = possible & allowed
        clash = possible.any(1) & ~both.any(1) & ~broken
        for row in clash.nonzero()[:, 0].tolist():
            out.append(_explain(row, single[:at], entry, ids, classes))
        broken |= clash
        possible = torch.where(clash[:, None], possible, both)
    sets = [e for e in evidence if isinstance(e.labels, SetLabels)]
    if sets:
        log_probs = possible.double().log()
        log_probs = log_probs - torch.logsumexp(log_probs, dim=1, keepdim=True)
        for entry in sets:
            labels = entry.labels
            value, _ = labels.factor(log_probs[labels.bags[0].members])  # type: ignore[attr-defined]
            for at in (value == -torch.inf).nonzero()[:, 0].tolist():
                said = entry.record_value[at]
                out.append(
                    Conflict(
                        str(entry.record_source[at]),
                        f"{entry.name} {quoted(said)} cannot be with what is known of its members",
                        (entry.name,),
                    )
                )
    return out


def _allowed(entry: Evidence) -> torch.Tensor:
    """bool (N, K): classes that are possible."""
    return with_any_prior(entry.labels).log_evidence() > -torch.inf


def _explain(row: int, before: Sequence[Evidence], entry: Evidence, ids: np.ndarray, classes: Classes) -> Conflict:
    own = _allowed(entry)[row]
    other = next((e for e in before if not bool((_allowed(e)[row] & own).any())), None)
    value = quoted(entry.record_value[row])
    if other is None:
        names = [e.name for e in before if e.rows[row]]
        return Conflict(
            str(ids[row]), f"{entry.name} {value} cannot be with {', '.join(names)} together", (*names, entry.name)
        )
    said = quoted(other.record_value[row])
    first, second = (other.name, said), (entry.name, value)
    if entry.kind == "Coarse" and other.kind != "Coarse":
        first, second = second, first
    fine = other if entry.kind == "Coarse" and other.kind != "Coarse" else entry
    parent = _parent(fine.record_value[row], classes)
    hint = f" (parent {quoted(parent)})" if parent and "Coarse" in (entry.kind, other.kind) else ""
    return Conflict(
        str(ids[row]), f"{first[0]} {first[1]} excludes {second[0]} {second[1]}{hint}", (other.name, entry.name)
    )


def _parent(value: str, classes: Classes) -> str:
    taxonomy = classes.taxonomy
    if taxonomy is None:
        return ""
    name = next((c for c in classes.names if classes.spelling.fold(c) == classes.spelling.fold(value)), None)
    return " or ".join(taxonomy.parents(name)) if name is not None else ""


def message(conflicts: Sequence[Conflict]) -> str:
    """One line: the first conflict, how many there are, what to do."""
    first = conflicts[0]
    names = list(dict.fromkeys(c.row for c in conflicts))
    rows = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    one = len(names) == 1
    total = f"{counted(len(names), 'row')} contradict{'s' if one else ''} {'itself' if one else 'themselves'}"
    return f'Row {first.row}: {first.problem}. {total}: {rows}. Continue with --set conflicts="soften", or fix them'
