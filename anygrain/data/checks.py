"""What is worth knowing before a fit: nothing of it is an error, each is said once, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from anygrain.data.dataset import Columns, Dataset, Given, texts
from anygrain.data.error import counted, number, quoted, some
from anygrain.data.evidence import Evidence
from anygrain.data.table import Table
from anygrain.labels import InstanceLabels, Positive, Rules
from anygrain.labels.positive import with_any_prior


def warnings_for(dataset: Dataset) -> list[str]:
    """Sentences about labels, columns and rows that may not be what the user thinks."""
    return [
        *_few_exact(dataset),
        *_more_classes_than_rows(dataset),
        *warnings_of_labels(dataset),
        *warnings_of_rows(dataset),
        *_telling_columns(dataset),
    ]


def warnings_of_labels(dataset: Dataset) -> list[str]:
    """Those about classes that no label names, and about annotators and rules."""
    return [*_silent_classes(dataset), *_one_annotator(dataset), *_silent_rules(dataset)]


def warnings_of_rows(dataset: Given[Any]) -> list[str]:
    """Those that do not hang on what the labels speak of."""
    return [
        *_constant_columns(dataset),
        *_ids_as_text(dataset),
        *_repeated_rows(dataset),
        *_group_as_input(dataset),
        *_simulated(dataset),
    ]


def _few_exact(dataset: Dataset) -> list[str]:
    n = int((dataset.exact() >= 0).sum())
    if n == 0:
        return ["no row has an exact label: accuracy cannot be measured, only how well labels are predicted"]
    return [f"only {counted(n, 'exact row')}: the interval of the accuracy is wide"] if n < 20 else []


def _more_classes_than_rows(dataset: Dataset) -> list[str]:
    k, n = len(dataset.classes), int(dataset.labelled.sum())
    return [f"{number(k)} classes for {counted(n, 'row')} with labels: more classes than rows"] if k > n else []


def _silent_classes(dataset: Dataset) -> list[str]:
    """Classes that no label names, and classes that only labels of several classes include."""
    k = len(dataset.classes)
    named, included = np.zeros(k, dtype=bool), np.zeros(k, dtype=bool)
    names_classes = False
    for evidence in dataset.evidence:
        labels = evidence.labels
        if not isinstance(labels, InstanceLabels):
            included[:] = True  # sets say something of every class
            continue
        if evidence.kind in ("Exact", "Noisy", "Crowd", "Rules"):
            names_classes = True
            named[np.unique(_named(evidence, dataset))] = True
        elif not labels.channels:
            table = with_any_prior(labels).log_evidence()
            if not isinstance(labels, Positive):  # whose rows without a label speak too
                table = table[torch.from_numpy(evidence.rows)]
            included |= (table > -torch.inf).any(dim=0).numpy()
    silent = ~named & ~included
    out = []
    if silent.any():
        out.append(f"no label at all speaks for {_these(silent, dataset)}")
    unnamed = ~named & included
    if names_classes and unnamed.any() and not unnamed.all():
        out.append(f"no single label names {_these(unnamed, dataset)}; only coarser labels include it")
    return out


def _named(evidence: Evidence, dataset: Dataset) -> np.ndarray:
    said = evidence.record_value[evidence.record_value != ""]
    return dataset.classes.encode(said, evidence.name, evidence.source)


def _these(mask: np.ndarray, dataset: Dataset) -> str:
    names = [dataset.classes.names[i] for i in mask.nonzero()[0].tolist()]
    return f"{counted(len(names), 'class', 'classes')}: {some(map(quoted, names))}"


def _one_annotator(dataset: Dataset) -> list[str]:
    return [
        f"{quoted(e.name)} has one annotator only, {e.record_source[0]}: nothing tells how reliable they are"
        for e in dataset.evidence
        if e.kind == "Crowd" and len(set(e.record_source.tolist())) == 1
    ]


def _silent_rules(dataset: Dataset) -> list[str]:
    out = []
    for e in dataset.evidence:
        if isinstance(e.labels, Rules):
            votes = torch.bincount(e.labels.rules[e.labels.votes >= 0], minlength=e.labels.n_rules).tolist()
            names = e.labels.rule_names or [str(i) for i in range(len(votes))]
            quiet = [quoted(name) for name, n in zip(names, votes, strict=True) if n == 0]
            if quiet:
                verb = "abstains" if len(quiet) == 1 else "abstain"
                rules = counted(len(quiet), "rule")
                out.append(f"{rules} of {quoted(e.name)} {verb} on every row: {some(quiet)}")
    return out


def _constant_columns(dataset: Given[Any]) -> list[str]:
    constant = [c for c in dataset.columns.all if len(set(dataset.table.strings(c).tolist())) == 1]
    if not constant:
        return []
    return [f"{counted(len(constant), 'column')} with one value only: {some(map(quoted, constant))}"]


def _ids_as_text(dataset: Given[Any]) -> list[str]:
    out = []
    for column in dataset.columns.text:
        values = dataset.table.strings(column)
        filled = [v for v in values.tolist() if v]
        if filled and len(set(filled)) == len(filled) and all(" " not in v for v in filled):
            out.append(f"text column {quoted(column)} looks like an id: every value is one word, all are different")
    return out


def _repeated_rows(dataset: Given[Any]) -> list[str]:
    rows = row_keys(dataset.table, dataset.columns)
    repeats = len(rows) - len(set(rows))
    if not repeats:
        return []
    verb = "repeats" if repeats == 1 else "repeat"
    return [f"{counted(repeats, 'row')} {verb} the features of another row: what is held out was partly seen"]


def row_keys(table: Table, columns: Columns) -> list[str]:
    """What the model sees of every row, as one string each."""
    if columns.text and len(columns.all) == len(columns.text):
        return texts(table, columns.text)
    cells = [table.strings(c).tolist() for c in columns.all]
    return ["\x1f".join(row) for row in zip(*cells, strict=True)]


def _telling_columns(dataset: Dataset) -> list[str]:
    """Category and number columns of which every value goes with one exact class."""
    exact = dataset.exact()
    rows = exact >= 0
    n = int(rows.sum())
    if n < 20 or len(np.unique(exact[rows])) < 2:
        return []
    out = []
    for column in [*dataset.columns.categories, *dataset.columns.numbers]:
        values = dataset.table.strings(column)[rows]
        distinct = set(values.tolist())
        if 1 < len(distinct) <= n // 2 and len(set(zip(values.tolist(), exact[rows].tolist(), strict=True))) == len(
            distinct
        ):
            out.append(f"column {quoted(column)} predicts the exact label perfectly: does it come from the label?")
    return out


def _group_as_input(dataset: Given[Any]) -> list[str]:
    config = dataset.config.data
    return [
        f"{setting} column {quoted(column)} is an input as well: new rows of a {setting} that was not seen gain nothing"
        for setting, column in (("group", config.group), ("bag", config.bag))
        if column and column in dataset.columns.all
    ]


def _simulated(dataset: Given[Any]) -> list[str]:
    return [
        (f"the labels of {quoted(e.name)} are simulated: a program drew them") for e in dataset.evidence if e.simulated
    ]
