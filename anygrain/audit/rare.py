"""Classes that hardly a record names: nothing else can speak against the few that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from anygrain.audit.judged import JudgedPart, array
from anygrain.labels import Coarse, Labels, Tags

#: other instances that must be said to be of a class before a record of it can look wrong
FEWEST = 2
#: the most that a record of a rarer class is wrong with
EVEN = 0.5


def spare_rare(parts: Sequence[Labels], judged: Sequence[JudgedPart], instance: np.ndarray) -> list[JudgedPart]:
    """Records of classes that fewer than `FEWEST` other instances are said to be of: wrong with .5 at most.

    A model that was cross-fitted on the labels has hardly seen such a class, and finds it improbable everywhere: that
    is nothing against its one label. Tags and the nodes of each kind count by themselves, the classes of all kinds
    together.

    Args:
        instance: of every record, -1 of sets, (R,).
    """
    place = np.cumsum([0, *(len(found.given) for found in judged)])
    named = [at for at, found in enumerate(judged) if found.given.dtype.kind in "iu"]
    together = [at for at in named if not isinstance(parts[at], Coarse | Tags)]
    out = list(judged)
    for group in [together, *([at] for at in named if at not in together)]:
        given = [_codes(parts[at], judged[at].given) for at in group]
        about = [instance[place[at] : place[at + 1]] for at in group]
        if not given:
            continue
        count = _instances_of(np.concatenate(given), np.concatenate(about))
        for at, codes in zip(group, given, strict=True):
            rare = (codes >= 0) & (count[codes] <= FEWEST)
            if rare.any():
                wrong = np.where(rare, np.minimum(out[at].wrong, EVEN), out[at].wrong)
                out[at] = replace(out[at], wrong=wrong)
    return out


def _codes(part: Labels, given: np.ndarray) -> np.ndarray:
    """What every record names, (R,), -1 for nothing; every tag has codes of its own."""
    return np.where(given < 0, -1, 2 * array(part.tag) + given) if isinstance(part, Tags) else given


def _instances_of(codes: np.ndarray, about: np.ndarray) -> np.ndarray:
    """How many different instances every code is said of, (codes,)."""
    said = codes >= 0
    code, row = codes[said].astype(np.int64), about[said].astype(np.int64)
    if not len(code):
        return np.zeros(1, dtype=np.int64)
    rows = int(row.max()) + 1
    return np.bincount(np.unique(code * rows + row) // rows)
