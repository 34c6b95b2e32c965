"""What the verb discover reads: rows, and what their labels say of classes that are still to be found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anygrain.data.config import CoarseColumns, Config, ExactColumns, LabelColumns
from anygrain.data.dataset import Source, combined, read_source
from anygrain.data.error import InputError, counted, number, quoted, some
from anygrain.data.evidence import Evidence as ReadLabels
from anygrain.data.kinds import read_evidence, read_taxonomy
from anygrain.data.table import read_table
from anygrain.discover.evidence import Evidence
from anygrain.discover.revision import Revision
from anygrain.labels import Coarse


@dataclass
class Said:
    """What one kind of label, or a column to compare with, says of rows in one word each.

    Attributes:
        name, kind, says: as in the table of labels of a report.
        rows: (R,) data rows, one per word.
        values: (R,) the words.
        compared: whether the search did not see it.
    """

    name: str
    kind: str
    says: str
    rows: np.ndarray
    values: np.ndarray
    compared: bool = False


@dataclass
class Given:
    """Everything that a search for classes needs.

    Attributes:
        source: rows and columns.
        read: the kinds of label, as they were read.
        evidence: what they say together.
        said: the same in words, and the columns to compare with.
        revision: what a person made of the classes of an earlier run, or None.
    """

    source: Source
    read: list[ReadLabels]
    evidence: Evidence
    said: list[Said]
    revision: Revision | None


def read_given(config: Config) -> Given:
    """Everything that a configuration names, checked.

    A `Coarse` column without a taxonomy gives the coarse classes that are to be divided; with one, its coarsest level
    does unless `level` says another. All other kinds speak of classes that are known.

    Raises:
        InputError: the first kind of problem that was found.
        LabelError: labels that say nothing of the rows of a search.
    """
    if config.space != "classes":
        what = "a number" if config.space == "real" else "tags"
        raise InputError(f"discover looks for classes, and labels {quoted(config.labels[0].name)} speak of {what}")
    if config.data.instances:
        raise InputError("discover looks for classes of rows, not of bags. Expected text, columns, features or images")
    source = read_source(config, unlabelled=True)
    source.table.require_all(config.discover.compare)
    own = [e for e in config.labels if e.kind == "Coarse" and not (e.taxonomy or config.taxonomy)]
    if len(own) > 1:
        raise InputError(
            f"labels {quoted(own[0].name)} and {quoted(own[1].name)} are both Coarse and without a taxonomy. Expected "
            "one, or a taxonomy that joins them"
        )
    others = [_at_coarsest(e, config) for e in config.labels if e not in own]
    read: list[ReadLabels] = []
    n, split = len(source.table), isinstance(config.discover.n_classes, dict)
    evidence = Evidence.read(None, n, split=False)
    if others:
        pairs = all(e.kind == "Pairs" for e in others) and not (config.classes or config.taxonomy)
        names = ["one", "other"] if pairs else config.classes  # pairs name no class
        read, _ = read_evidence(others, source.rows, names, config.taxonomy)
        evidence = Evidence.read(combined([e.labels for e in read]), n, split=split and not own)
    if own:
        coarse, labels = _coarse(own[0], source)
        read.insert(0, coarse)
        nodes = Evidence.read(labels, n, split=False)
        evidence = nodes if not others else evidence.under(nodes)
    words = [said for said in map(_words, read) if len(said.rows)]  # pairs say nothing of a row alone
    said = [*words, *(_compared(column, source) for column in config.discover.compare)]
    revision = _accepted(config, source) if config.discover.accepted else None
    return Given(source, read, evidence, said, revision)


def _at_coarsest(entry: LabelColumns, config: Config) -> LabelColumns:
    """A `Coarse` entry with the level that its values belong to, the coarsest unless it says another."""
    if not isinstance(entry, CoarseColumns) or entry.level:
        return entry
    return entry.model_copy(update={"level": read_taxonomy(entry.taxonomy or config.taxonomy).level_names[-1]})


def _coarse(entry: CoarseColumns, source: Source) -> tuple[ReadLabels, Coarse]:
    """A column of coarse classes, read, and the labels whose classes are to be divided."""
    settings = {k: v for k, v in entry.model_dump().items() if k not in ("kind", "level", "error")}
    (read,), classes = read_evidence([ExactColumns(**settings)], source.rows, (), "")
    read.kind, read.says = "Coarse", "a coarse class, to be divided"
    codes = read.labels.labels  # type: ignore[attr-defined]
    return read, Coarse(codes, torch.eye(len(classes)), error=entry.error, class_names=classes.names)


def _words(read: ReadLabels) -> Said:
    kept = (read.record_row >= 0) & (read.record_value.astype(str) != "")
    return Said(read.name, read.kind, read.says, read.record_row[kept], read.record_value[kept].astype(str))


def _compared(column: str, source: Source) -> Said:
    values = source.rows.spelling.read(source.table.strings(column))
    rows = np.flatnonzero(values != "")
    if not len(rows):
        raise InputError(f"{source.table.name}: discover.compare names {quoted(column)}, which is empty")
    return Said(column, "", "the search did not see it", rows, values[rows].astype(str), compared=True)


def _accepted(config: Config, source: Source) -> Revision:
    """What a person made of the classes of an earlier run, joined to the rows that are here now."""
    path = Path(config.discover.accepted)
    if path.is_dir():
        path = path / "classes.csv"
    beside = path.parent / "labels.parquet"
    if path.is_file() and not beside.is_file():
        raise InputError(f"there is no {beside}. Expected labels.parquet of the run that wrote {path.name} beside it")
    table = read_table(beside) if beside.is_file() else None
    if table is None:
        raise InputError(f"there is no table of classes {path}. Expected the classes.csv of a run of anygrain discover")
    for column in ("row", "class", "probability"):
        if column not in table.columns:
            raise InputError(f"{beside} has no column {quoted(column)}. Expected what anygrain discover wrote")
    ids = table.strings("row")
    classes, probability = (table.numbers(column, ids) for column in ("class", "probability"))
    revision = Revision.from_csv(path, classes.astype(np.int64), probability)
    place = {name: at for at, name in enumerate(ids.tolist())}
    at = np.array([place.get(name, -1) for name in source.rows.ids.tolist()])
    if (at < 0).all():
        raise InputError(
            f"no row of {source.table.name} is in {beside} (first: {source.rows.ids[0]}). Expected a run on these rows"
        )
    return revision.on(np.where(at >= 0, classes[at], -1).astype(np.int64), np.where(at >= 0, probability[at], 0.0))


def number_asked(config: Config, given: Given) -> Any:
    """What to ask `Discover.fit` for: the number in the configuration, else that of an accepted table, or None.

    Raises:
        InputError: a list that is no range.
    """
    asked = config.discover.n_classes
    if isinstance(asked, list):
        if len(asked) != 2:
            raise InputError(
                f"discover.n_classes is a list of {counted(len(asked), 'number')}. Expected two, [lowest, highest]"
            )
        return asked[0], asked[1]
    if asked != "auto":
        return asked
    return None if given.revision is None else given.revision.n_classes


def number_words(asked: Any) -> str:
    """What is asked for, in words."""
    if asked is None:
        return "their number is to be found"
    if isinstance(asked, tuple):
        return f"{number(asked[0])} to {number(asked[1])} classes are looked for"
    if isinstance(asked, dict):
        parts = [f"{n} in {name}" for name, n in asked.items()]
        return f"{number(sum(asked.values()))} classes are looked for: {some(parts)}"
    return f"{number(asked)} classes are looked for"
