"""What a fit is worth, whatever it speaks of: suspects by the audit, the table of rows, forms of the numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor

from anygrain.data.dataset import Given
from anygrain.data.error import counted
from anygrain.data.pictures import image_cells, thumbnail
from anygrain.metrics import wilson_interval
from anygrain.program.audited import Audited
from anygrain.program.records import map_columns, records_of

D = TypeVar("D", bound=Given[Any])
WORST = 20  # labels that the report lists


class Measured(ABC, Generic[D]):
    """All that metrics.json and labels.parquet hold of a fit.

    Args:
        dataset: the data; the channels of its labels are those of the fit.
        audit: of the labels as they were read.
        held_out: bool, where models could speak that had not seen the label.
    """

    def __init__(self, dataset: D, audit: Audited, held_out: np.ndarray):
        self.dataset, self.audit, self.held_out = dataset, audit, held_out
        self.records = records_of(audit.judgement, dataset)

    # -- rows ---------------------------------------------------------------------------------------------------------

    @abstractmethod
    def beliefs(self) -> dict[str, Any]:
        """Columns of labels.parquet: what is believed of every row, by all that is known and by the features."""

    @abstractmethod
    def given_columns(self) -> dict[str, Any]:
        """Columns: what labels say of every row."""

    @abstractmethod
    def evidence(self) -> tuple[np.ndarray, np.ndarray]:
        """log P(own labels of every row | features), and bool, rows with any, both (N,)."""

    def more_columns(self) -> dict[str, Any]:
        """Columns that stand last."""
        return {}

    def table(self, places: np.ndarray | None) -> dict[str, Any]:
        """The columns of labels.parquet."""
        import pyarrow as pa

        n = len(self.dataset)
        evidence, said = self.evidence()
        return {
            "row": self.dataset.ids.tolist(),
            **self.beliefs(),
            "evidence": pa.array(evidence, pa.float32(), mask=~said),
            **self.records.suspects_by_row(n),
            **self.given_columns(),
            "text": self.dataset.snippets().tolist(),
            **map_columns(places, n),
            **self.more_columns(),
        }

    # -- single labels ------------------------------------------------------------------------------------------------

    def suspects(self) -> int:
        """Number of labels that look wrong."""
        return int(self.records.looks_wrong.sum())

    def worst(self, shown: int = WORST) -> list[dict[str, Any]]:
        """The most suspect labels."""
        r = self.records
        text, columns = self.dataset.snippets(), self.dataset.columns.images
        images = image_cells(self.dataset.table, columns[0]) if columns else None
        out = []
        for at in r.order[:shown].tolist():
            if not self.is_shown(at):
                break
            row, part = int(r.row[at]), self.dataset.evidence[int(r.part[at])]
            of_set = row < 0
            out.append(
                {
                    "row": str(r.source[at] if of_set else self.dataset.ids[row]),
                    "source": part.name if of_set else str(r.source[at]),
                    "given": str(r.value[at]),
                    **self.about(at),
                    "wrong": float(r.wrong[at]),
                    "suspect": float(r.suspect[at]),
                    "text": counted(int(part.labels.bags[0].sizes[r.place[at]]), "row") if of_set else str(text[row]),
                    "image": None if of_set or images is None else thumbnail(images[row]),
                }
            )
        return out

    def is_shown(self, at: int) -> bool:
        """Whether the list of the most suspect labels goes on with a record."""
        return bool(self.records.looks_wrong[at])

    @abstractmethod
    def about(self, at: int) -> dict[str, Any]:
        """What else is known of a suspect record."""

    def source(self, chosen: np.ndarray, name: str, part: int) -> dict[str, Any]:
        """What there is to say of any source.

        Args:
            chosen: its records, bool (R,).
            part: place of its kind in the evidence.
        """
        evidence = self.dataset.evidence[part]
        return {
            "name": name,
            "part": evidence.name,
            "kind": evidence.kind,
            "labels": int(chosen.sum()),
            "suspects": int(self.records.looks_wrong[chosen].sum()),
        }

    def expected_accuracy(self, chosen: np.ndarray) -> dict[str, Any]:
        """Expected share of right ones among chosen records, bool (R,), with an interval."""
        right, n = float((1 - self.records.wrong[chosen]).sum()), int(chosen.sum())
        return {"accuracy": right / n, "interval": list(wilson_interval(round(right), n))}

    # -- how good -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def log_likelihoods(self) -> tuple[Tensor, Tensor]:
        """Log-likelihood of all observations under the features, and under nothing that differs between rows, (M,)."""

    def held_out_evidence(self) -> dict[str, Any]:
        """Mean log-likelihood of the labels of a row, over rows with labels: under the features, and by chance."""
        value, chance = self.log_likelihoods()
        rows = max(int(self.dataset.labelled.sum()), 1)
        return {
            "evidence_per_row": float(value.sum()) / rows,
            "chance": float(chance.sum()) / rows,
            "rows": rows,
        }


def evaluated(rows: int, folds: int, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The head of an evaluation: how many rows, and how they were kept apart."""
    return {
        "rows": rows,
        "folds": folds,
        "method": f"each row was scored by models that were not trained on it ({folds} parts)",
        "entries": entries,
    }


def agreeing(first: str, second: str, rows: int, agree: int) -> dict[str, Any]:
    """How often two kinds of label agree."""
    return {
        "first": first,
        "second": second,
        "rows": rows,
        "agree": agree,
        "share": agree / rows,
        "interval": list(wilson_interval(agree, rows)),
    }
