"""Every label that was given, one by one, and what there is against each: common to all spaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

IN_DOUBT = 0.5  # a label looks wrong where it is more probably wrong than right
SUREST = 1e-6  # no label is right with a smaller probability than this, so that nats stay finite


@dataclass(kw_only=True)
class Records:
    """Every label that was given: (R,) each.

    Attributes:
        part: place of its kind in the evidence.
        row: data row, -1 of a label of a set.
        source, value: who gave it (the column, the annotator, the bag), and what it says.
        wrong: probability that it is wrong, given the features and all labels.
    """

    part: np.ndarray
    row: np.ndarray
    source: np.ndarray
    value: np.ndarray
    wrong: np.ndarray

    @property
    def suspect(self) -> np.ndarray:
        """How much there is against each label: -log P(it is right | features, all labels), in nats."""
        return np.asarray(-np.log((1 - self.wrong).clip(SUREST, 1.0)))

    @property
    def looks_wrong(self) -> np.ndarray:
        """bool (R,): labels that are more probably wrong than right."""
        return np.asarray(self.wrong > IN_DOUBT)

    def suspects_by_row(self, n: int) -> dict[str, Any]:
        """Columns (n,): how many labels of a row look wrong, and its most suspect one."""
        import pyarrow as pa

        suspect = self.suspect
        single = self.row >= 0
        order = np.argsort(suspect, kind="stable")
        order = order[single[order]]
        worst = np.full(n, -1)
        worst[self.row[order]] = order  # the last written is the most suspect

        def of_worst(values: np.ndarray) -> list[Any]:
            return [values[at] if at >= 0 else None for at in worst.tolist()]

        return {
            "wrong_labels": pa.array(np.bincount(self.row[self.looks_wrong & single], minlength=n), pa.int32()),
            "suspect": pa.array(of_worst(suspect), pa.float32()),
            "suspect_source": pa.array(of_worst(self.source), pa.string()),
            "suspect_value": pa.array(of_worst(self.value), pa.string()),
        }

    def said(self, n: int) -> list[str]:
        """All labels of every row (n,), "department=Billing; worker_2=refund"."""
        out: list[list[str]] = [[] for _ in range(n)]
        for row, source, value in zip(self.row.tolist(), self.source.tolist(), self.value.tolist(), strict=True):
            if row >= 0:
                out[row].append(f"{source}={value}")
        return ["; ".join(parts) for parts in out]


def map_columns(places: np.ndarray | None, n: int) -> dict[str, Any]:
    """Columns map_x and map_y (n,), null where a row was not placed."""
    import pyarrow as pa

    xy = np.full((n, 2), np.nan) if places is None else places
    return {
        name: pa.array(column, pa.float32(), mask=~np.isfinite(column))
        for name, column in zip(("map_x", "map_y"), xy.T, strict=True)
    }
