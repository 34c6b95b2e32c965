"""Every label that was given, one by one, with what the audit says of it: the same for fit's report and for audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anygrain.data.dataset import Given
from anygrain.data.kinds.tags import SAID
from anygrain.labels import Tags

if TYPE_CHECKING:
    from anygrain.audit.judged import JudgedPart
    from anygrain.audit.judging import Judgement

IN_DOUBT = 0.5  # a label looks wrong where it is more probably wrong than right
SUREST = 1e-6  # no label is right with a smaller probability than this, so that nats stay finite


@dataclass(frozen=True)
class Records:
    """Every label that was given: (R,) each.

    Attributes:
        part: place of its kind in the evidence.
        place: among the records of its kind.
        row: data row, -1 of a label of a set.
        tag: that it speaks of, "" elsewhere.
        source, value: who gave it (the column, the annotator, the bag), and what it says.
        proposed, probability: what is likely true, in words, and how probable that is.
        wrong: probability that it is wrong, given the features and all labels.
        nats: what believing it costs, see `anygrain.audit.suspects`.
    """

    part: np.ndarray
    place: np.ndarray
    row: np.ndarray
    tag: np.ndarray
    source: np.ndarray
    value: np.ndarray
    proposed: np.ndarray
    probability: np.ndarray
    wrong: np.ndarray
    nats: np.ndarray

    @property
    def suspect(self) -> np.ndarray:
        """How much there is against each label: -log P(it is right | features, all labels), in nats."""
        return np.asarray(-np.log((1 - self.wrong).clip(SUREST, 1.0)))

    @property
    def looks_wrong(self) -> np.ndarray:
        """bool (R,): labels that are more probably wrong than right."""
        return np.asarray(self.wrong > IN_DOUBT)

    @property
    def order(self) -> np.ndarray:
        """Places of all labels, the most suspect first, (R,)."""
        return np.lexsort((-self.nats, -self.wrong))

    @property
    def words(self) -> np.ndarray:
        """What each label says with the tag that it speaks of, (R,): "has late"."""
        return np.where(self.tag == "", self.value, self.value + " " + self.tag)

    def suspects_by_row(self, n: int) -> dict[str, Any]:
        """Columns (n,): how many labels of a row look wrong, and its most suspect one."""
        import pyarrow as pa

        single = self.row >= 0
        order = self.order[::-1]
        order = order[single[order]]
        worst = np.full(n, -1)
        worst[self.row[order]] = order  # the last written is the most suspect

        def of_worst(values: np.ndarray) -> list[Any]:
            return [values[at] if at >= 0 else None for at in worst.tolist()]

        return {
            "wrong_labels": pa.array(np.bincount(self.row[self.looks_wrong & single], minlength=n), pa.int32()),
            "suspect": pa.array(of_worst(self.suspect), pa.float32()),
            "suspect_source": pa.array(of_worst(self.source), pa.string()),
            "suspect_value": pa.array(of_worst(self.words), pa.string()),
        }

    def said(self, n: int) -> list[str]:
        """All labels of every row (n,), "department=Billing; worker_2=refund"."""
        out: list[list[str]] = [[] for _ in range(n)]
        for row, source, value in zip(self.row.tolist(), self.source.tolist(), self.value.tolist(), strict=True):
            if row >= 0:
                out[row].append(f"{source}={value}")
        return ["; ".join(parts) for parts in out]


def records_of(judgement: Judgement, dataset: Given[Any]) -> Records:
    """What an audit says of the labels of a data set; missing ones are left out."""
    evidence = dataset.evidence

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(e, name) for e in evidence])

    many = [len(e.record_row) for e in evidence]
    row, value = joined("record_row").astype(np.int64), joined("record_value").astype(str).astype(object)
    wrong, probability = judgement.joined("wrong"), judgement.joined("probability")
    said = np.flatnonzero(judgement.said & (value != ""))
    proposed = np.concatenate([_words(part, dataset) for part in judgement.parts])
    proposed = np.where(row >= 0, proposed, value)
    proposed = np.where((row < 0) & (wrong > IN_DOUBT), "something else", proposed)
    columns = {
        "part": np.repeat(np.arange(len(evidence)), many),
        "place": np.concatenate([np.arange(n) for n in many]),
        "row": row,
        "tag": np.concatenate([_tags(e.labels, n) for e, n in zip(evidence, many, strict=True)]),
        "source": joined("record_source").astype(str).astype(object),
        "value": value,
        "proposed": proposed.astype(object),
        "probability": probability,
        "wrong": wrong,
        "nats": judgement.joined("nats"),
    }
    return Records(**{name: values[said] for name, values in columns.items()})


def _tags(labels: Any, n: int) -> np.ndarray:
    if not isinstance(labels, Tags):
        return np.full(n, "", dtype=object)
    names = [str(at) for at in range(labels.n_tags)] if labels.tag_names is None else list(labels.tag_names)
    return np.asarray(np.array(names, dtype=object)[labels.tag.cpu().numpy()])


def _words(part: JudgedPart, dataset: Given[Any]) -> np.ndarray:
    """What is proposed, in words, (R,)."""
    proposed = part.proposed
    if proposed.dtype.kind in "iu":
        names = SAID[1:] if dataset.config.space == "tags" else part.names or dataset.classes.names  # type: ignore[attr-defined]
        return np.asarray(np.array([*names, ""], dtype=object)[proposed])
    if proposed.dtype.kind == "f":
        return np.array(["" if np.isnan(v) else f"{v:.4g}" for v in proposed.tolist()], dtype=object)
    return proposed.astype(str).astype(object)


def map_columns(places: np.ndarray | None, n: int) -> dict[str, Any]:
    """Columns map_x and map_y (n,), null where a row was not placed."""
    import pyarrow as pa

    xy = np.full((n, 2), np.nan) if places is None else places
    return {
        name: pa.array(column, pa.float32(), mask=~np.isfinite(column))
        for name, column in zip(("map_x", "map_y"), xy.T, strict=True)
    }
