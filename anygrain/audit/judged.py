"""What is believed of the records of one kind of label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class JudgedPart:
    """The records of one part of the labels, (R,) each.

    Attributes:
        given: what each record says: a class index, or words where it says something else; -1, or "", where nothing.
        proposed: what is likely true, in the same terms.
        probability: of what is proposed.
        wrong: P(record is wrong | everything, the record too); 0 where nothing is said.
        nats: log-predictive of the best alternative less that of the given, 0 or more.
        names: what the class indices are called, or None.
        transition: estimated P(given | truth), shape (C, C), or (G, C, C) by group, where records name one of C things.
        error: share of wrong records.
    """

    given: np.ndarray
    proposed: np.ndarray
    probability: np.ndarray
    wrong: np.ndarray
    nats: np.ndarray
    names: Sequence[str] | None
    transition: np.ndarray | None
    error: float


def array(values: Tensor) -> np.ndarray:
    """A tensor as an array, numbers in float64."""
    found = values.detach().cpu()
    return np.asarray(found.double().numpy() if found.is_floating_point() else found.numpy())
