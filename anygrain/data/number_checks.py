"""What is worth knowing before a fit of a number: nothing of it is an error, each is said once, in words."""

from __future__ import annotations

import numpy as np

from anygrain.data.checks import warnings_of_rows
from anygrain.data.error import counted, quoted, some
from anygrain.data.number_dataset import NumberDataset
from anygrain.labels import Ratings, Value


def warnings_for_numbers(dataset: NumberDataset) -> list[str]:
    """Sentences about labels, columns and rows that may not be what the user thinks."""
    return [
        *_few_values(dataset),
        *_few_numbers(dataset),
        *_one_annotator(dataset),
        *warnings_of_rows(dataset),
        *_telling_columns(dataset),
    ]


def _few_values(dataset: NumberDataset) -> list[str]:
    n = int((~np.isnan(dataset.values()[0])).sum())
    if n == 0:
        return ["no row has a value: errors cannot be measured, only how well labels are predicted"]
    return [f"only {counted(n, 'row')} with a value: the interval of the error is wide"] if n < 20 else []


def _few_numbers(dataset: NumberDataset) -> list[str]:
    out = []
    for entry in dataset.evidence:
        if isinstance(entry.labels, Value) and entry.values < min(6, entry.n_labels):
            shown = some(sorted({float(v) for v in entry.record_value.tolist() if v}), 5)
            out.append(
                f"{quoted(entry.columns[0])} holds {counted(entry.values, 'number')} only ({shown}): are they classes? "
                f'kind = "Exact"'
            )
    return out


def _one_annotator(dataset: NumberDataset) -> list[str]:
    return [
        f"{quoted(e.name)} has one annotator only, {e.record_source[0]}: nothing tells how reliable they are"
        for e in dataset.evidence
        if isinstance(e.labels, Ratings) and len(set(e.record_source.tolist())) == 1
    ]


def _telling_columns(dataset: NumberDataset) -> list[str]:
    """Number columns that are the value, up to scale and shift."""
    given, _ = dataset.values()
    rows = ~np.isnan(given)
    if rows.sum() < 20 or np.ptp(given[rows]) == 0:
        return []
    out = []
    for column in [*dataset.columns.numbers, *dataset.columns.features]:
        values = dataset.table.numbers(column)[rows]
        known = np.isfinite(values)
        if known.sum() < 20 or np.ptp(values[known]) == 0:
            continue
        if abs(np.corrcoef(values[known], given[rows][known])[0, 1]) > 1 - 1e-9:
            out.append(f"column {quoted(column)} predicts the value perfectly: does it come from the label?")
    return out
