"""Rows that one kind of label gives a tag, and another says to lack it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from anygrain.data.conflicts import Conflict
from anygrain.data.error import quoted
from anygrain.data.evidence import Evidence
from anygrain.labels import Tags


def find_tag_conflicts(evidence: Sequence[Evidence], ids: np.ndarray, names: Sequence[str]) -> list[Conflict]:
    """Every row and tag of which two kinds without an error say different things; each once."""
    tables = [
        (entry, entry.labels.labels.reshape(len(ids), -1).numpy())
        for entry in evidence
        if isinstance(entry.labels, Tags) and entry.labels.error == 0
    ]
    told = np.zeros((len(ids), len(names)), dtype=bool)
    out: list[Conflict] = []
    for (one, first), (other, second) in combinations(tables, 2):
        against = (first >= 0) & (second >= 0) & (first != second) & ~told
        told |= against
        for row, tag in np.argwhere(against).tolist():
            has, lacks = (one.name, other.name) if first[row, tag] else (other.name, one.name)
            problem = f"{has} says that it has {quoted(names[tag])}, {lacks} that it lacks it"
            out.append(Conflict(str(ids[row]), problem, (one.name, other.name)))
    return out
