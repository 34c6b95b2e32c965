"""What a person makes of the classes that were found, and what follows for the next fit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from anygrain.discover.class_table import ClassLine, check_classes, read_classes, write_classes
from anygrain.discover.evidence import Evidence
from anygrain.discover.naming import Suggestion, describe
from anygrain.discover.placed import taxonomy_of
from anygrain.labels import Exact, LabelError, Taxonomy

SURE = 0.8  # probability of its class from which on a row of an accepted class counts as told
LEAST_ERROR, MOST_ERROR = 0.005, 0.05  # of rows that are told so


@dataclass(frozen=True, eq=False)
class Revision:
    """The classes that were found, each with what is to become of it.

    ```python
    revision = Revision.of(found, texts).accept(3, "refunds").merge(5, into=3).split(7, 2).drop(8)
    again = Discover().fit(texts, revision.evidence(labels), revision.n_classes)  # accepted classes are known now
    model = Learner(taxonomy=revision.taxonomy).fit(texts, revision.labels)  # or train on what is accepted
    ```

    A class that nothing is said of stays open: it is looked for again, and may become another. Rows of an accepted
    class that are of it with probability .8 or more are evidence that it is theirs, wrong with the probability that
    their posteriors leave, from .005 to .05. A class into which another is merged is accepted. A class to be split
    becomes a coarse class of its own, so that its rows stay together apart from all others.

    Args:
        lines: what is known and decided of every class, by id.
        rows: (N,) class of every row, -1 where it has none (a row that is new).
        probability: (N,) of that class.

    Raises:
        LabelError: decisions that contradict each other; rows of classes without a line.
    """

    lines: tuple[ClassLine, ...]
    rows: np.ndarray
    probability: np.ndarray

    def __post_init__(self) -> None:
        check_classes(self.lines, lambda k, column: f"class {k}, {column}")
        if len(self.rows) and int(self.rows.max()) >= len(self.lines):
            raise LabelError(f"rows are of class {int(self.rows.max())}, and there are {len(self.lines)} classes")

    @classmethod
    def of(
        cls, found: Any, data: Any = None, *, suggestions: Sequence[Suggestion] | None = None, parents: Any = None
    ) -> Revision:
        """The classes of a fitted `Discover`, of which nothing is decided yet.

        Args:
            found: the fitted `Discover` or method.
            data: the rows, for names; see `describe`. Without, classes are called as they were found.
            suggestions: of `describe`, where they are there already.
            parents: name of the coarse class above every class, (K,), where it is not that of the fit.
        """
        if suggestions is None and data is not None:
            suggestions = describe(found, data)
        names = list(found.class_names_)
        said = suggestions or [Suggestion(name, (), "") for name in names]
        size = np.bincount(found.labels_, minlength=len(names)).tolist()
        if parents is None:
            parents = [found.node_names_[c] if found.node_names_ else "" for c in found.node_.tolist()]
        lines = tuple(
            ClassLine(
                k,
                said[k].name,
                said[k].name,
                "; ".join(said[k].terms),
                parents[k],
                size[k],
                float(found.stability_[k]),
                bool(found.known_[k]),
                names[near] if (near := int(found.nearest_known_[k])) >= 0 and near != k else "",
            )
            for k in range(len(names))
        )
        rows = np.asarray(found.labels_)
        return cls(lines, rows, np.exp(found.log_probs_[np.arange(len(rows)), rows]))

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], rows: Any, probability: Any = None) -> Revision:
        """The decisions of a table that `to_csv` wrote and a person has edited.

        Args:
            path: of the table.
            rows: (N,) class of every row, as the table was made from; or the fitted `Discover`.
            probability: (N,) of that class; 1 when None.

        Raises:
            LabelError: what cannot be read or cannot be, with its line and column; a table of other classes.
        """
        if hasattr(rows, "labels_"):
            rows, log_probs = rows.labels_, rows.log_probs_
            probability = np.exp(log_probs[np.arange(len(rows)), rows])
        lines, place = read_classes(path)
        check_classes(lines, place)
        rows = np.asarray(rows)
        size = np.bincount(rows[rows >= 0], minlength=len(lines))
        for k in np.flatnonzero(size[: len(lines)] != [line.size for line in lines])[:1].tolist():
            raise LabelError(
                f"{place(k, 'size')}: class {k} has {lines[k].size} rows there and {size[k]} in the run; expected the "
                "table of that run"
            )
        return cls(tuple(lines), rows, np.ones(len(rows)) if probability is None else np.asarray(probability))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the table: id, name, suggested, terms, parent, size, stability, known, nearest, action."""
        write_classes(self.lines, path)

    def on(self, rows: np.ndarray, probability: np.ndarray) -> Revision:
        """The same decisions about other rows, whose classes are (N,), -1 for none."""
        return replace(self, rows=rows, probability=probability)

    # -- decisions ----------------------------------------------------------------------------------------------------

    def accept(self, k: int, name: str = "") -> Revision:
        """Class k is one, by its suggested name or another."""
        return self._with(k, "accept", name)

    def merge(self, k: int, into: int) -> Revision:
        """Class k is the same as another one of the same parent, which is accepted with it."""
        return self._with(k, f"merge {into}")

    def split(self, k: int, number: int = 2) -> Revision:
        """Class k is so many classes, to be found."""
        return self._with(k, f"split {number}")

    def drop(self, k: int) -> Revision:
        """Class k is none; its rows belong to others."""
        return self._with(k, "drop")

    def _with(self, k: int, action: str, name: str = "") -> Revision:
        if not 0 <= k < len(self.lines):
            raise LabelError(f"there is no class {k}; expected an id from 0 to {len(self.lines) - 1}")
        line = replace(self.lines[k], action=action, name=name or self.lines[k].name)
        return replace(self, lines=(*self.lines[:k], line, *self.lines[k + 1 :]))

    # -- what follows -------------------------------------------------------------------------------------------------

    @property
    def final(self) -> np.ndarray:
        """The class that every class is from now on, (K,): itself, or the one it is merged into; -1 for open ones."""
        into = np.full(len(self.lines), -1)
        for line in self.lines:
            end = line
            while end.verb == "merge":
                end = self.lines[end.number]
            if line.known or line.accepted or line.verb == "merge":
                into[line.id] = into[end.id] = end.id
        return into

    @property
    def kept(self) -> list[int]:
        """Ids of the classes that are known from now on: those that were, and the accepted ones."""
        return sorted({int(k) for k in self.final if k >= 0})

    @property
    def open(self) -> list[int]:
        """Ids of the classes of which nothing was said."""
        final = self.final
        return [line.id for line in self.lines if not line.verb and final[line.id] < 0]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes that are known from now on."""
        return tuple(self.lines[k].name for k in self.kept)

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes that are known from now on, below their coarse ones.

        Raises:
            LabelError: no class is known or accepted.
        """
        if not self.kept:
            raise LabelError("no class is accepted; expected one with the action accept, or a name of its own")
        return taxonomy_under(self.names, [self.lines[k].parent for k in self.kept])

    @property
    def labels(self) -> Exact:
        """What the rows are told to be of the classes that are known from now on, for a `Learner`.

        Raises:
            LabelError: fewer than two are.
        """
        if len(self.kept) < 2:
            raise LabelError(f"{len(self.kept)} classes are known or accepted; expected two for a model of them")
        told = self._told()
        place = np.full(len(self.lines) + 1, -1)
        place[self.kept] = np.arange(len(self.kept))
        y = torch.from_numpy(place[told])
        return Exact(y, len(self.kept), error=self._error(told), class_names=self.names)

    def _told(self) -> np.ndarray:
        """The class (N,) from now on of rows that are surely of one, else -1."""
        return np.where((self.rows >= 0) & (self.probability >= SURE), self.final[self.rows], -1)

    def _error(self, told: np.ndarray) -> float:
        doubt = 1 - self.probability[told >= 0]
        return float(np.clip(doubt.mean() if len(doubt) else 0.0, LEAST_ERROR, MOST_ERROR))

    def evidence(self, labels: Any = None) -> Evidence:
        """What is said of the rows from now on, for `Discover.fit`.

        Args:
            labels: what was said of them, as `Discover.fit` takes it.

        Raises:
            LabelError: labels of other rows or of classes that the table does not know; a coarse class of which all
                classes were dropped.
        """
        splits = not _is_coarse(labels) and any(line.parent for line in self.lines)
        given = Evidence.read(labels, len(self.rows), split=splits)
        return self._with_accepted(self._with_splits(given), {line.name: line.id for line in self.lines})

    @property
    def n_classes(self) -> int | dict[str, int]:
        """How many classes there are to be: in all, or in every coarse class, to be asked of `Discover.fit`."""
        count: dict[str, int] = {}
        for k in [*self.kept, *self.open]:
            count[self.lines[k].parent] = count.get(self.lines[k].parent, 0) + 1
        below = self.split_names
        if not below and not any(count):
            return sum(count.values())
        return {
            **{self._rest(name): n for name, n in count.items()},
            **{n: self.lines[k].number for k, n in below.items()},
        }

    @property
    def split_names(self) -> dict[int, str]:
        """What the coarse classes are called that classes to be split become, by id."""
        taken = {self._rest(line.parent) for line in self.lines}
        out: dict[int, str] = {}
        for line in self.lines:
            if line.verb == "split":
                name = line.name
                while name in taken:
                    name += "'"
                taken.add(name)
                out[line.id] = name
        return out

    def parents_of(self, found: Any) -> list[str]:
        """The coarse class above every class of a fit on `evidence`, a class that was split not being one."""
        above: Mapping[str, str] = {name: self.lines[k].parent for k, name in self.split_names.items()}
        names = [found.node_names_[c] if found.node_names_ else "" for c in found.node_.tolist()]
        return [above.get(name, "" if name == REST else name) for name in names]

    def _rest(self, parent: str) -> str:
        return parent or REST

    def _with_splits(self, given: Evidence) -> Evidence:
        """The evidence with classes to be split as coarse classes of their own."""
        below = self.split_names
        if not below:
            self._check_parents(given.node_names)
            return given
        base = given.node_names or (REST,)
        nodes = torch.zeros(given.n_rows, 1) if given.nodes is None else given.nodes
        stays = {self._rest(self.lines[k].parent) for k in [*self.kept, *self.open]}
        self._check_parents(base, stays | {self._rest(self.lines[k].parent) for k in below})
        own = torch.full((given.n_rows, len(below)), -torch.inf)
        rows = torch.from_numpy(self.rows)
        nodes = nodes.clone()
        for at, k in enumerate(below):
            inside = rows == k
            nodes[inside] = -torch.inf
            own[inside, at] = 0.0
            parent = self._rest(self.lines[k].parent)
            free = rows < 0
            if parent not in stays:  # nothing else is left below it: rows of dropped classes go to its parts
                dropped = np.array([line.id for line in self.lines if line.verb == "drop"], dtype=np.int64)
                free = free | torch.from_numpy(np.isin(self.rows, dropped))
            own[free, at] = nodes[free, base.index(parent)]
        kept = [at for at, name in enumerate(base) if name in stays]
        place = torch.full((len(base),), -1, dtype=torch.long)
        place[kept] = torch.arange(len(kept))
        return replace(
            given,
            nodes=torch.cat([nodes[:, kept], own], dim=1),
            node_names=(*(base[at] for at in kept), *below.values()),
            node_of_known=place[given.node_of_known],
        )

    def _check_parents(self, names: Sequence[str], stays: set[str] | None = None) -> None:
        left = {self.lines[k].parent for k in [*self.kept, *self.open]} if stays is None else stays
        for name in names:
            if name not in left:
                raise LabelError(f'every class of "{name}" is dropped; expected one that stays')
        for line in self.lines:
            if self._rest(line.parent) not in (*names, REST):
                raise LabelError(
                    f'class {line.id} lies in "{line.parent}", which the labels do not have; expected the labels that '
                    "its classes were found with"
                )

    def _with_accepted(self, given: Evidence, ids: Mapping[str, int]) -> Evidence:
        """The evidence with accepted classes as known ones."""
        for name in given.known_names:
            if name not in ids or not self.lines[ids[name]].known:
                raise LabelError(
                    f'the labels know the class "{name}", which the table of classes does not have as known'
                )
        before = [ids[name] for name in given.known_names]
        new = [k for k in self.kept if k not in before]
        if not new:
            return given
        order = [*before, *new]
        place = np.full(len(self.lines) + 1, -1)
        place[order] = np.arange(len(order))
        told = self._told()
        first = np.isin(self.rows, before) | given.told.numpy()  # rows of which the labels themselves speak
        y = torch.from_numpy(np.where(first, -1, place[told]))
        error, k = self._error(told), len(order)
        table = torch.zeros(given.n_rows, k)
        if given.known is not None:
            table[:, : len(before)] = given.known
        table[:, len(before) :][given.told] = -torch.inf
        rows = (y >= 0).nonzero().flatten()
        share = torch.full((len(rows), k), error / k)
        share[torch.arange(len(rows)), y[rows]] += 1 - error
        table[rows] += share.log()
        names = given.node_names
        node = [names.index(self._rest(self.lines[i].parent)) if names else 0 for i in new]
        return replace(
            given,
            known=table,
            told=given.told | (y >= 0),
            known_names=(*given.known_names, *(self.lines[i].name for i in new)),
            node_of_known=torch.cat([given.node_of_known, torch.tensor(node, dtype=torch.long)]),
        )


#: the coarse class of all rows that are not in a class to be split, where there is no other
REST = "all others"


def taxonomy_under(names: Sequence[str], parents: Sequence[str]) -> Taxonomy:
    """Classes below their parents; one level where no class has one."""
    nodes = list(dict.fromkeys(parents))
    return taxonomy_of(names, torch.tensor([nodes.index(p) for p in parents]), nodes if any(nodes) else [])


def _is_coarse(labels: Any) -> bool:
    from anygrain.labels import All, Coarse

    parts = labels.parts if isinstance(labels, All) else [labels]
    return any(isinstance(part, Coarse | Evidence) for part in parts)
