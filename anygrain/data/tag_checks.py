"""What is worth knowing before a fit of tags: nothing of it is an error, each is said once, in words."""

from __future__ import annotations

import numpy as np

from anygrain.data.checks import warnings_of_rows
from anygrain.data.error import closest, counted, quoted, some
from anygrain.data.tag_dataset import TagDataset

FEW = 5  # rows below which little can be said of a tag
OFTEN = 10  # times as many rows as a spelling that may be a mistake
MOST_NAMES = 2000  # up to which spellings are compared


def warnings_for_tags(dataset: TagDataset) -> list[str]:
    """Sentences about tags, columns and rows that may not be what the user thinks."""
    given = dataset.given()
    return [
        *_few_rows(given),
        *_rare(given, dataset.tags.names),
        *_never_absent(given, dataset.tags.names),
        *_similar_names(given, dataset),
        *warnings_of_rows(dataset),
        *_telling_columns(given, dataset),
    ]


def _few_rows(given: np.ndarray) -> list[str]:
    n = int((given >= 0).any(axis=1).sum())
    return [f"only {counted(n, 'row')} of which tags are known: all numbers are unsure"] if n < 20 else []


def _rare(given: np.ndarray, names: tuple[str, ...]) -> list[str]:
    on = (given == 1).sum(axis=0)
    rare = sorted((on < FEW).nonzero()[0].tolist(), key=lambda tag: int(on[tag]))
    if not rare:
        return []
    verb = "stands" if len(rare) == 1 else "stand"
    shown = some([f"{quoted(names[tag])} ({counted(int(on[tag]), 'row')})" for tag in rare])
    return [f"{counted(len(rare), 'tag')} {verb} on fewer than {FEW} rows, little can be learnt of them: {shown}"]


def _never_absent(given: np.ndarray, names: tuple[str, ...]) -> list[str]:
    never = (~(given == 0).any(axis=0)).nonzero()[0].tolist()
    if not never or len(never) == given.shape[1]:  # a note on all of them stands with the data
        return []
    shown = some(quoted(names[tag]) for tag in never)
    return [f"nothing says that any row lacks {counted(len(never), 'tag')}, so every row will be given it: {shown}"]


def _similar_names(given: np.ndarray, dataset: TagDataset) -> list[str]:
    """Rare tags that are spelt like frequent ones, where the list of tags was found in the cells."""
    names, on = dataset.tags.names, (given == 1).sum(axis=0)
    if dataset.tags.origin or len(names) > MOST_NAMES:
        return []
    out = []
    for tag in (on < FEW).nonzero()[0].tolist():
        often = [names[other] for other in (on >= OFTEN * max(int(on[tag]), 1)).nonzero()[0].tolist()]
        near = closest(names[tag], often)
        if near is not None:
            out.append(f"{quoted(names[tag])} ({counted(int(on[tag]), 'row')}) for {quoted(near)}")
    return [f"tags that may be misspelt: {some(out)}. Other spellings: [data] aliases, fold_case"] if out else []


def _telling_columns(given: np.ndarray, dataset: TagDataset) -> list[str]:
    """Columns of two values that are one of the tags."""
    out = []
    for column in [*dataset.columns.categories, *dataset.columns.numbers, *dataset.columns.features]:
        values, code = np.unique(dataset.table.strings(column).astype(str), return_inverse=True)
        if len(values) != 2:
            continue
        known = given >= 0
        same = ((given == code[:, None]) | ~known).all(axis=0) | ((given == 1 - code[:, None]) | ~known).all(axis=0)
        enough = (known.sum(axis=0) >= 20) & (given == 1).any(axis=0) & (given == 0).any(axis=0)
        out += [
            f"column {quoted(column)} is the tag {quoted(dataset.tags.names[tag])}: does it come from the label?"
            for tag in (same & enough).nonzero()[0].tolist()
        ]
    return out
