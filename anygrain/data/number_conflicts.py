"""Rows and bags whose labels of a number cannot all be true."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anygrain.data.conflicts import Conflict
from anygrain.data.error import quoted
from anygrain.data.evidence import NumberEvidence
from anygrain.labels import AggregateValue, Censored, Value

CLOSE = 1e-5  # relative difference up to which numbers are the same


def find_number_conflicts(evidence: Sequence[NumberEvidence], ids: np.ndarray) -> tuple[list[Conflict], float]:
    """Rows where exact values and ranges do not meet, bags whose mean or sum their members cannot have; how far apart.

    Returns:
        The conflicts, and the root mean square of the distances between what contradicts each other, 0 without any.
    """
    low, high = np.full(len(ids), -np.inf), np.full(len(ids), np.inf)
    out: list[Conflict] = []
    gaps: list[float] = []
    before: list[tuple[NumberEvidence, np.ndarray, np.ndarray]] = []
    for entry in evidence:
        ends = _ends(entry)
        if ends is None:
            continue
        room = CLOSE * np.maximum(np.abs(ends[0]), np.abs(ends[1]))
        apart = np.maximum(ends[0] - high, low - ends[1])
        clash = apart > np.where(np.isfinite(room), room, 0.0)
        for row in clash.nonzero()[0].tolist():
            out.append(_explain(row, before, entry, str(ids[row]), ends))
            gaps.append(float(apart[row]))
        low = np.where(clash, low, np.maximum(low, ends[0]))
        high = np.where(clash, high, np.minimum(high, ends[1]))
        before.append((entry, *ends))
    for entry in evidence:
        labels = entry.labels
        if not isinstance(labels, AggregateValue):
            continue
        bags, values = labels.sets, labels.values.double().numpy()
        members, index, sizes = bags.members.numpy(), bags.index.numpy(), bags.sizes.numpy()
        share = 1 / sizes if labels.how == "mean" else np.ones(len(sizes))
        least = np.bincount(index, low[members], len(sizes)) * share
        most = np.bincount(index, high[members], len(sizes)) * share
        apart = np.maximum(least - values, values - most)
        clash = (apart > CLOSE * np.abs(values)) & (labels.noise.numpy() == 0)
        for bag in clash.nonzero()[0].tolist():
            said = quoted(entry.record_value[bag])
            problem = (
                f"{entry.name} {said} cannot be with what is known of its members, whose {labels.how} lies in "
                f"{least[bag]:.6g}..{most[bag]:.6g}"
            )
            out.append(Conflict(str(entry.record_source[bag]), problem, (entry.name,)))
            gaps.append(float(apart[bag]))
    return out, float(np.sqrt(np.mean(np.square(gaps)))) if gaps else 0.0


def _ends(entry: NumberEvidence) -> tuple[np.ndarray, np.ndarray] | None:
    """Lowest and highest number of every row (N,) by one kind; None where it rules nothing out."""
    labels = entry.labels
    if isinstance(labels, Value):
        given, exact = labels.values.double().numpy(), labels.noise.numpy() == 0
        known = exact & ~np.isnan(given)
        return np.where(known, given, -np.inf), np.where(known, given, np.inf)
    if isinstance(labels, Censored):
        return labels.low.double().numpy(), labels.high.double().numpy()
    return None


def _explain(
    row: int,
    before: Sequence[tuple[NumberEvidence, np.ndarray, np.ndarray]],
    entry: NumberEvidence,
    name: str,
    ends: tuple[np.ndarray, np.ndarray],
) -> Conflict:
    low, high = ends[0][row], ends[1][row]
    said = f"{entry.name} {quoted(entry.record_value[row])}"
    other = next((e for e, a, b in before if a[row] > high or b[row] < low), None)
    if other is None:
        names = [e.name for e, _, _ in before if e.rows[row]]
        return Conflict(name, f"{said} cannot be with {', '.join(names)} together", (*names, entry.name))
    first = f"{other.name} {quoted(other.record_value[row])}"
    kinds = {other.kind, entry.kind}
    problem = f"{first} and {said} differ" if kinds == {"Value"} else f"{first} and {said} do not meet"
    return Conflict(name, problem, (other.name, entry.name))
