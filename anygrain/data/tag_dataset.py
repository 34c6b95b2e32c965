"""A configuration of tags read: rows, what the model sees of them, and which tags they are known to have or lack."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from anygrain.data.classes import Classes
from anygrain.data.config import Config
from anygrain.data.dataset import OfClasses, read_source, require_labels, softened_config
from anygrain.data.error import InputError, counted, some
from anygrain.data.evidence import Evidence, Rows
from anygrain.data.kinds import read_tag_evidence
from anygrain.data.tag_conflicts import find_tag_conflicts
from anygrain.labels import Tags


@dataclass(kw_only=True)
class TagDataset(OfClasses):
    """Everything that a fit of tags needs.

    Attributes:
        tags: the list of tags.
        rows: what labels are joined to.
    """

    tags: Classes
    rows: Rows

    def table_of(self, evidence: Evidence) -> np.ndarray:
        """What one kind says of every row and tag (N, L): 1, 0, or -1 for nothing."""
        labels = evidence.labels
        assert isinstance(labels, Tags)
        return np.asarray(labels.labels.reshape(-1, labels.n_tags).numpy())

    def given(self) -> np.ndarray:
        """What is said of every row and tag (N, L): 1, 0, or -1 for nothing; by the first kind that says something."""
        out = self.table_of(self.evidence[0])
        for entry in self.evidence[1:]:
            out = np.where(out < 0, self.table_of(entry), out)
        return out


def read_tag_dataset(config: Config, *, marks_alone: bool = False) -> TagDataset:
    """Everything that a configuration of tags names, checked.

    Args:
        marks_alone: whether the method learns from tags that rows have, where nothing says that a row lacks one.

    Raises:
        InputError: the first kind of problem that was found; nothing is trained before all checks are passed. Rows
            that are said to have a tag and to lack it are returned in `conflicts`.
    """
    source = read_source(config)
    evidence, tags, against = read_tag_evidence(config.labels, source.rows, config.classes)
    require_labels(evidence)
    out = TagDataset(
        config=config,
        table=source.table,
        ids=source.rows.ids,
        columns=source.columns,
        tags=tags,
        evidence=evidence,
        groups=source.groups,
        conflicts=[],
        notes=[*source.notes, *(n for e in evidence for n in e.notes)],
        rows=source.rows,
    )
    out.conflicts = [*against, *find_tag_conflicts(evidence, out.ids, tags.names)]
    given = out.given()
    if marks_alone and not (given == 0).any():
        out.notes.append(
            "Nothing says that a row lacks a tag: what is measured and labels.parquet give every row every tag. The "
            "method is in the model alone: anygrain predict ranks rows by it, and its probabilities have no scale."
        )
    elif not (given == 0).any():
        many = counted(int((given == 1).sum()), "label says", "labels say")
        raise InputError(
            f"{some(dict.fromkeys(e.source for e in evidence))}: {many} that a row has a tag, and none that it lacks "
            "one: every row would be given every tag. Expected cells of 0, a column of tags that rows lack "
            '(absent = "..."), unlisted = "absent" where lists are complete, or [learn] method = "pu_mlc" or "comic", '
            "which learn from such labels"
        )
    return out


def softened_tags(dataset: TagDataset) -> TagDataset:
    """The same data with labels that may be wrong: kinds that contradict each other get an error of their own.

    The error is the share of contradicting entries among all entries of which several kinds speak, at least .005.
    """
    if not dataset.conflicts:
        return dataset
    between = [conflict for conflict in dataset.conflicts if len(conflict.sources) > 1]
    note = 'Of tags that the same labels say a row has and lacks, nothing is taken to be known (conflicts = "soften").'
    if not between:
        return replace(dataset, notes=[*dataset.notes, note])
    several = int((np.sum([dataset.table_of(e) >= 0 for e in dataset.evidence], axis=0) > 1).sum())
    config, note = softened_config(dataset.config, len(between), several)
    evidence, tags, _ = read_tag_evidence(config.labels, dataset.rows, config.classes)
    return replace(dataset, config=config, tags=tags, evidence=evidence, notes=[*dataset.notes, note])
