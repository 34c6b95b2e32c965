"""Taxonomies: fine classes, the coarser nodes above them, and the way from one to the other."""

import csv
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, overload

import torch
from torch import Tensor

from anygrain.labels.error import LabelError
from anygrain.labels.graph import Dag, Gathering, clean, count, plan_rows, quote, some

Level = str | int | None
_CELLS = 2**24  # numbers held at once by `deepest` and `threshold`


class Taxonomy:
    r"""A directed acyclic graph of named nodes whose leaves are the classes ``0 .. K-1``.

    A name is a node: the same name in two places is one node with several parents. From class k the way up is a random
    walk that leaves every node by one of its n parents, each with probability 1 / n unless weights are given, and

    .. math:: M_{ck} = P(\text{the walk from } k \text{ reaches } c)

    is the membership of class k in node c (0 or 1 in a tree). A *level* is a set of nodes that every way up meets, the
    finest one being the classes. Levels are the columns of a table; where only edges, paths or a nested dict are given,
    level d holds the first node of every way up whose depth (longest way from a root) is at most d, so that a class
    that ends early stands for itself in the finer levels.

    Build one with `from_levels`, `from_edges`, `from_paths`, `from_dict` or `from_csv`. Wherever a level is asked for,
    its name, its number (0 is the finest, -1 the coarsest) or None (all nodes, at any depth) will do.

    Attributes:
        names: all nodes; the first K are the classes, so that a class has the same index in both.
        classes: the K finest names, in order of first appearance.
        level_names: names of the levels, finest first.

    Raises:
        LabelError: a cycle, an orphan, an unknown name or level; each is named.
    """

    def __init__(
        self,
        names: Sequence[str],
        n_classes: int,
        edges: Tensor,
        weights: Tensor,
        levels: Sequence[Tensor],
        level_names: Sequence[str],
    ) -> None:
        """Take a checked graph: edges (2, E) of child and parent, weights (E,) that sum to 1 for every child."""
        self.names: tuple[str, ...] = tuple(names)
        self.n_classes: int = n_classes
        self.classes: tuple[str, ...] = self.names[:n_classes]
        self.level_names: tuple[str, ...] = tuple(level_names)
        self._position = {name: i for i, name in enumerate(self.names)}
        self._dag = Dag(edges, weights, len(self.names))
        self._levels: tuple[Tensor, ...] = tuple(levels)
        self._walks: dict[int | None, tuple[Tensor, Tensor, Tensor]] = {}

    # ------------------------------------------------------------------ building

    @classmethod
    def from_levels(cls, columns: Any, names: Sequence[str] | None = None) -> "Taxonomy":
        """One column per level, finest first; each further column holds the parent of the one before.

        The columns may be those of a data set: repeated rows count once. A name that fills neighbouring columns of a
        row is one node of both levels (a branch that is not divided further). A name that stands in different columns
        of different rows makes the table a list of edges, and levels are then found by depth.

        Args:
            columns: mapping or data frame of level name to values, or a sequence of columns.
            names: level names, finest first, for a sequence of columns.

        Raises:
            LabelError: columns of unequal length, an orphan (an empty cell), a cycle.
        """
        if hasattr(columns, "columns"):
            columns = {name: columns[name] for name in columns.columns}
        if isinstance(columns, Mapping):
            names = list(columns) if names is None else names
            columns = list(columns.values())
        table = [list(column) for column in columns]
        if not table or not table[0]:
            raise LabelError("The taxonomy is empty. Expected at least one column of class names with one row")
        if len({len(column) for column in table}) > 1:
            raise LabelError(
                f"The taxonomy's columns have {', '.join(str(len(c)) for c in table)} rows. Expected equal numbers"
            )
        rows: dict[tuple[Any, ...], int] = {}
        for number, row in enumerate(zip(*table, strict=True)):
            rows.setdefault(row, number)
        return cls(*plan_rows(_cleaned(rows), names, "The taxonomy"))

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> "Taxonomy":
        """A table with a header of level names, finest first (``product,department``), read as in `from_levels`.

        Comma separated, UTF-8; tab separated where the file ends in ``.tsv``. Blank lines are skipped. Errors name the
        file and the row, the header being row 1.
        """
        where = os.fspath(path)
        rows: dict[tuple[str, ...], int] = {}
        ragged: list[str] = []
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, delimiter="\t" if where.endswith(".tsv") else ",", strict=True)
                header: list[str] = []
                for cells in reader:
                    cells = [cell.strip() for cell in cells]
                    if not any(cells):
                        continue
                    if not header:
                        header = cells
                    elif len(cells) != len(header):
                        ragged.append(f"row {reader.line_num} has {len(cells)}")
                    else:
                        rows.setdefault(tuple(cells), reader.line_num)
        except (UnicodeDecodeError, csv.Error) as error:
            raise LabelError(f"{where} is not a comma separated table in UTF-8: {error}") from error
        if not header:
            raise LabelError(f"{where} is empty. Expected a header of level names, finest first, and a row per class")
        if "" in header or len(set(header)) < len(header):
            raise LabelError(
                f"{where}: the header ({','.join(header)}) has an empty or repeated name. "
                "Expected one name per level, finest first, such as product,department"
            )
        if ragged:
            raise LabelError(
                f"{where}: {count(ragged, 'row')} without the {len(header)} cells of the header ({','.join(header)}): "
                f"{some(ragged)}. Quote names that hold a comma"
            )
        if not rows:
            raise LabelError(f"{where} has a header ({','.join(header)}) and no rows. Expected a row per class")
        for row, number in rows.items():
            for name in header:
                if name in row:
                    raise LabelError(
                        f"{where} has no header: {quote(name)} of its first line stands again in row {number}. "
                        "Expected a first line of level names, finest first, such as product,department"
                    )
        return cls(*plan_rows(rows, header, where))

    @classmethod
    def from_edges(
        cls,
        edges: Iterable[tuple[Any, Any]],
        weights: Sequence[float] | None = None,
        names: Sequence[str] | None = None,
    ) -> "Taxonomy":
        """Pairs (child, parent).

        Args:
            edges: the pairs; an empty parent marks a root.
            weights: one positive number per pair, proportional to P(parent | child); equal when not given.
            names: level names, finest first; ``level_0``, ``level_1``, ... when not given.

        Raises:
            LabelError: a cycle, an orphan (a root without children), an edge given twice with different weights.
        """
        pairs = [(clean(child), clean(parent)) for child, parent in edges]
        values = [1.0] * len(pairs) if weights is None else [float(w) for w in weights]
        if len(values) != len(pairs):
            raise LabelError(
                f"The taxonomy has {len(pairs)} edges and {len(values)} weights. Expected one weight per edge"
            )
        graph = Gathering("The taxonomy")
        for number, ((child, parent), weight) in enumerate(zip(pairs, values, strict=True)):
            if not 0 < weight < float("inf"):
                raise LabelError(
                    f"The taxonomy's edge {child} -> {parent} has the weight {weight}. Expected a positive number"
                )
            graph.edge(child, parent, number, weight)
        return cls(*graph.plan(names))

    @classmethod
    def from_paths(cls, paths: Iterable[str], separator: str = "/", names: Sequence[str] | None = None) -> "Taxonomy":
        """Paths from the root to a class, ``"Animal/Cat/Siamese"``; they may differ in depth.

        Args:
            paths: the paths; a path that stops at an inner node adds nothing.
            separator: what stands between two nodes.
            names: level names, finest first.
        """
        graph = Gathering("The taxonomy")
        for number, path in enumerate(paths):
            parts = [part.strip() for part in str(path).split(separator)]
            if "" in parts:
                raise LabelError(
                    f"The taxonomy's path {number} ({quote(str(path))}) has an empty part, so its child is an orphan. "
                    f"Expected names separated by {quote(separator)}, such as {quote(f'Animal{separator}Cat')}"
                )
            graph.node(parts[0], number)
            for parent, child in pairwise(parts):
                graph.edge(child, parent, number)
        return cls(*graph.plan(names, lone=True))

    @classmethod
    def from_dict(cls, nested: Mapping[str, Any], names: Sequence[str] | None = None) -> "Taxonomy":
        """Nested mappings from parent to children, ``{"Animal": {"Cat": ["Siamese", "Persian"], "Dog": None}}``.

        Args:
            nested: children are a mapping, a sequence of class names, one name, or None for none.
            names: level names, finest first.
        """
        graph = Gathering("The taxonomy")
        todo = _below("", nested)
        while todo:
            parent, name, content = todo.pop()
            if not name:
                raise LabelError(
                    f"The taxonomy has a node without a name under {quote(parent) if parent else 'its top'}"
                )
            graph.node(name)
            if parent:
                graph.edge(name, parent)
            todo.extend(_below(name, content))
        return cls(*graph.plan(names, lone=True))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Taxonomy":
        """The taxonomy that `state` was taken from."""
        edges = torch.tensor([[c, p] for c, p, _ in state["edges"]], dtype=torch.long).reshape(-1, 2).T
        weights = torch.tensor([w for _, _, w in state["edges"]], dtype=torch.float64)
        levels = [torch.tensor(level, dtype=torch.long) for level in state["levels"]]
        return cls(state["names"], state["n_classes"], edges, weights, levels, state["level_names"])

    def state(self) -> dict[str, Any]:
        """Plain lists, strings and numbers that JSON can hold; `from_state` turns them back."""
        edges = zip(self._dag.child.tolist(), self._dag.parent.tolist(), self._dag.weight.tolist(), strict=True)
        return {
            "names": list(self.names),
            "n_classes": self.n_classes,
            "edges": [list(edge) for edge in edges],
            "levels": [level.tolist() for level in self._levels],
            "level_names": list(self.level_names),
        }

    def relabel(self, order: Sequence[str], *, drop: bool = False) -> "Taxonomy":
        """The same taxonomy over another list of classes; the nodes above them keep their order.

        Args:
            order: all classes in the wanted order. A name that the taxonomy lacks becomes a class without parents,
                which stands for itself on every level.
            drop: leave out classes that are not in `order`, and nodes that have no class left.

        Raises:
            LabelError: a repeated name, the name of an inner node, or, without `drop`, a missing class.
        """
        order = [clean(name) for name in order]
        if len(set(order)) < len(order) or not order:
            twice = [name for name in dict.fromkeys(order) if order.count(name) > 1]
            raise LabelError(
                f"A list of classes needs different names, at least one. Repeated: {some(map(quote, twice))}"
            )
        inner = [name for name in order if self._position.get(name, -1) >= self.n_classes]
        if inner:
            raise LabelError(
                f"The list of classes holds parents of the taxonomy: {some(map(quote, inner))}. "
                f"Expected leaves, such as {some(map(quote, self.children(inner[0])))}"
            )
        missing = [name for name in self.classes if name not in set(order)]
        if missing and not drop:
            raise LabelError(
                f"The list of classes lacks {count(missing, 'class')} of the taxonomy: {some(map(quote, missing))}. "
                "Add them, or pass drop=True to leave them out"
            )
        kept = torch.tensor([name in set(order) for name in self.classes])
        node, column, _ = self._walk(None)
        alive = torch.zeros(len(self.names), dtype=torch.bool).index_fill_(0, node[kept[column]], True).tolist()
        names = order + [
            name for name, keep in zip(self.names[self.n_classes :], alive[self.n_classes :], strict=True) if keep
        ]
        position = {name: i for i, name in enumerate(names)}
        moved = torch.tensor([position.get(name, -1) for name in self.names])
        edges = moved[torch.stack([self._dag.child, self._dag.parent])]
        both = (edges >= 0).all(0)
        new = [i for i, name in enumerate(order) if name not in self._position]
        levels = [torch.arange(len(order))]
        for level in self._levels[1:]:
            here = moved[level]
            levels.append(torch.cat([here[here >= 0], torch.tensor(new, dtype=torch.long)]))
        return type(self)(names, len(order), edges[:, both], self._dag.weight[both], levels, self.level_names)

    # ------------------------------------------------------------------ looking up

    def nodes(self, level: Level = None) -> tuple[str, ...]:
        """Names of the nodes of a level (C,), in the order of the rows of `membership`."""
        number = self._level(level)
        return self.names if number is None else tuple(self.names[i] for i in self._levels[number].tolist())

    def parents(self, name: str) -> tuple[str, ...]:
        """The parents of a node; none for a root."""
        i = self.index(name)
        first = int(self._dag.first_edge[i])
        return tuple(self.names[j] for j in self._dag.parent[first : first + int(self._dag.n_parents[i])].tolist())

    def children(self, name: str) -> tuple[str, ...]:
        """The children of a node; none for a class."""
        return tuple(
            self.names[j] for j in self._dag.child[self._dag.parent == self.index(name)].sort().values.tolist()
        )

    def index(self, name: str, level: Level = None) -> int:
        """The place of a node in `nodes(level)`.

        Raises:
            LabelError: no such node there, with the names that come close.
        """
        number = self._level(level)
        i = self._position.get(name)
        if number is not None:
            held = torch.nonzero(self._levels[number] == (-1 if i is None else i)).flatten()
            i = int(held[0]) if len(held) else None
        if i is None:
            there = self.nodes(level)
            close = difflib.get_close_matches(str(name), there, 1)
            hint = f"did you mean {quote(close[0])}?" if close else f"expected one of {some(map(quote, there))}"
            at = "the taxonomy" if number is None else f"level {quote(self.level_names[number])} of the taxonomy"
            raise LabelError(f"{quote(str(name))} is not in {at}: {hint}")
        return i

    def _level(self, level: Level) -> int | None:
        if level is None:
            return None
        if isinstance(level, str):
            if level in self.level_names:
                return self.level_names.index(level)
        elif -len(self._levels) <= level < len(self._levels):
            return level % len(self._levels)
        raise LabelError(
            f"The taxonomy has no level {level!r}. Expected one of {', '.join(map(quote, self.level_names))}"
        )

    # ------------------------------------------------------------------ membership

    def membership(self, level: Level, of: Level = None) -> Tensor:
        """P(node c of `level` is met on the way up from node b of the finer level `of`), float64, shape (C, B).

        Columns sum to 1, and ``membership(top, of=middle) @ membership(middle)`` is ``membership(top)``. With `level`
        None the rows are all nodes, as in `node_membership`.

        Args:
            level: the coarser level.
            of: the finer level; the classes (B = K) when None.

        Raises:
            LabelError: `of` is coarser than `level`.
        """
        number, start = self._level(level), self._level(0 if of is None else of)
        if number is not None and start is not None and start > number:
            raise LabelError(
                f"Level {quote(self.level_names[start])} is coarser than {quote(self.level_names[number])}. "
                "Expected the coarser level first: membership(level, of=finer level)"
            )
        sources = self._levels[start or 0]
        node, column, value = self._walk(number, sources) if start else self._walk(number)
        rows = self.names if number is None else self._levels[number]
        out = torch.zeros(len(rows), len(sources), dtype=torch.float64)
        out[self._rows(number)[node], column] = value
        return out

    def node_membership(self, names: Sequence[str] | None = None) -> Tensor:
        """P(node c is met on the way up from class k) for nodes of any depth, float64, shape (len(names), K).

        Args:
            names: nodes, repeated as often as wanted; all of them, in the order of `names`, when None.
        """
        every = range(len(self.names)) if names is None else map(self.index, names)
        wanted = torch.tensor(list(every), dtype=torch.long)
        chosen, row = torch.unique(wanted, return_inverse=True)
        node, column, value = self._walk(None)
        place = torch.full((len(self.names),), -1).index_put((chosen,), torch.arange(len(chosen)))[node]
        out = torch.zeros(len(chosen), self.n_classes, dtype=torch.float64)
        out[place[place >= 0], column[place >= 0]] = value[place >= 0]
        return out[row]

    def at_level(self, log_probs: Tensor, level: Level) -> Tensor:
        r"""Log-probabilities of the nodes of a level, :math:`\log \sum_k M_{ck} p_k`, shape (N, C); differentiable.

        With `level` None, those of all nodes: each sums over what lies below it, so they do not sum to 1.

        Args:
            log_probs: log P(class), shape (N, K).
            level: the level.
        """
        self._check(log_probs)
        number = self._level(level)
        node, column, value = (part.to(log_probs.device) for part in self._walk(number))
        row = self._rows(number).to(log_probs.device)[node].expand(len(log_probs), -1)
        terms = log_probs[:, column] + value.log().to(log_probs.dtype)
        n_rows = len(self.names) if number is None else len(self._levels[number])
        top = terms.new_full((len(terms), n_rows), -torch.inf).scatter_reduce(1, row, terms.detach(), "amax")
        shift = top.masked_fill(top == -torch.inf, 0.0)
        total = torch.zeros_like(top).scatter_add(1, row, (terms - shift.gather(1, row)).exp())
        return torch.where(total > 0, total, 1.0).log() + torch.where(total > 0, shift, -torch.inf)

    # ------------------------------------------------------------------ the deepest node one can be sure of

    def deepest(self, log_probs: Tensor, confidence: float, *, threshold: float | None = None) -> tuple[Tensor, Tensor]:
        """The deepest node, at any depth, that can be named with the asked-for confidence.

        A node qualifies where the probability that the class lies under it reaches the threshold; of the qualifying
        nodes without a qualifying child the most probable one is taken (above 1/2 in a tree there is only one). Low
        thresholds end in the most probable class, high ones at the root.

        The threshold is not the confidence: nodes that pass .9 are right more often than that. It is the lowest one at
        which the nodes taken are probable at `confidence` or more on average over the given rows, so that with
        calibrated probabilities this share of them is right. Hence a row's answer depends on the rows that come with
        it; a row that comes alone gets the plain rule, probability at least `confidence`. Pass a `threshold` found on
        held-out rows to answer row by row. Where even the most probable classes are right more often than asked, they
        are the answer.

        Args:
            log_probs: calibrated log P(class), shape (N, K).
            confidence: wanted share of true answers, in [0, 1].
            threshold: least probability of a node, from `threshold`; found on the given rows when None.

        Returns:
            Node as index into `names`, shape (N,), -1 where none of several roots can be named, and the probability
            that the class lies under it, shape (N,).
        """
        if threshold is None:
            threshold = self.threshold(log_probs, confidence)
        elif not 0 <= confidence <= 1:
            raise LabelError(f"The confidence is {confidence}. Expected a number from 0 to 1")
        self._check(log_probs)
        nodes, probs = [], []
        for chunk in self._chunks(log_probs):
            index, prob, child = self._frontier(chunk)
            prob_here, place = prob.masked_fill(child >= threshold, -1.0).max(dim=1)
            nodes.append(index.gather(1, place[:, None]).squeeze(1))
            probs.append(prob_here)
        return torch.cat(nodes), torch.cat(probs).clamp(max=1.0)

    def threshold(self, log_probs: Tensor, confidence: float) -> float:
        """The lowest threshold at which the nodes that `deepest` takes hold `confidence` on average over the rows.

        Args:
            log_probs: calibrated log P(class) of rows like those to come, shape (N, K).
            confidence: wanted share of true answers, in [0, 1].

        Returns:
            A probability; infinite where only the root holds the confidence.
        """
        self._check(log_probs)
        if not 0 <= confidence <= 1:
            raise LabelError(f"The confidence is {confidence}. Expected a number from 0 to 1")
        if not len(log_probs):
            raise LabelError("A threshold needs at least one row of probabilities")
        at, drop = [], []
        for chunk in self._chunks(log_probs):
            _, prob, child = self._frontier(chunk)
            child, order = child.sort(dim=1)
            # a node is left as soon as a child qualifies, so the choice at t is the best of those with child < t
            best = prob.gather(1, order).cummax(dim=1).values
            fall = best.diff(dim=1)
            at.append(child[:, 1:][fall > 0])
            drop.append(fall[fall > 0])
        where, order = torch.cat(at).double().sort(descending=True)
        mean = 1 - torch.cat(drop).double()[order].cumsum(0) / len(log_probs)
        last = torch.ones_like(where, dtype=torch.bool)
        last[:-1] = where[1:] < where[:-1]
        held = where[last & (mean >= confidence - 1e-12)]
        if len(held) == int(last.sum()):
            return 0.0
        return float(held[-1]) if len(held) else float("inf")

    def _frontier(self, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates of every row: the most probable class, the inner nodes, the top; (N, I + 2) each.

        Returns the node, the probability that the class lies under it, and the largest probability of a child.
        """
        probs = log_probs.detach().to(torch.promote_types(log_probs.dtype, torch.float32)).softmax(1)
        node, column, _ = (part.to(probs.device) for part in self._walk(None))
        n, device = len(self.names), probs.device
        under = probs.new_zeros(n, len(probs)).index_add_(0, node, probs.T[column]).T
        edges = under[:, self._dag.child.to(device)]
        child = under.new_full((len(probs), n), -1.0)
        child = child.scatter_reduce(1, self._dag.parent.to(device).expand(len(probs), -1), edges, "amax")
        best, which = under[:, : self.n_classes].max(dim=1, keepdim=True)
        top = under[:, self._dag.roots.to(device)].amax(dim=1, keepdim=True)
        top_node = int(self._dag.roots[0]) if len(self._dag.roots) == 1 else -1
        top_child = child[:, [top_node]] if len(self._dag.roots) == 1 else top
        inner = torch.arange(self.n_classes, n, device=device).expand(len(probs), -1)
        return (
            torch.cat([which, inner, torch.full_like(which, top_node)], dim=1),
            torch.cat([best, under[:, self.n_classes :], torch.ones_like(top)], dim=1),
            torch.cat([torch.full_like(best, -1.0), child[:, self.n_classes :], top_child], dim=1),
        )

    def _chunks(self, log_probs: Tensor) -> tuple[Tensor, ...]:
        return torch.split(log_probs, max(1, _CELLS // max(len(self._walk(None)[0]), len(self._dag.child), 1)))

    def _check(self, log_probs: Tensor) -> None:
        if log_probs.ndim != 2 or log_probs.shape[1] != self.n_classes:
            raise LabelError(
                f"log_probs has the shape {tuple(log_probs.shape)}. Expected (N, {self.n_classes}), a column per class"
            )
        if bool(log_probs.isnan().any()):
            raise LabelError(
                f"log_probs is NaN in row {int(log_probs.isnan().any(1).nonzero()[0])}. Expected log-probabilities"
            )

    # ------------------------------------------------------------------ distance

    @overload
    def distance(self) -> Tensor: ...
    @overload
    def distance(self, a: str, b: str) -> int: ...
    def distance(self, a: str | None = None, b: str | None = None) -> Tensor | int:
        """Edges on the shortest way from one node up to a common ancestor and down to the other.

        Several roots are taken to hang from one more node above them.

        Args:
            a: a node; the distances of all classes when None.
            b: another node.

        Returns:
            float64, shape (K, K), or the distance of a and b.
        """
        if a is not None and b is not None:
            return int(self._distances(torch.tensor([self.index(a), self.index(b)]))[0, 1])
        if a is not None or b is not None:
            raise LabelError("distance takes two names, or none for the distances of all classes")
        return self._distances(torch.arange(self.n_classes))

    def _distances(self, nodes: Tensor) -> Tensor:
        node, column, steps = self._dag.climb(nodes, shortest=True)
        to_root = torch.full((len(nodes),), torch.inf, dtype=torch.float64)
        ends = self._dag.n_parents[node] == 0
        to_root = to_root.scatter_reduce(0, column[ends], steps[ends], "amin") + 1
        out = to_root[:, None] + to_root
        order = torch.argsort(node, stable=True)
        sizes = torch.unique_consecutive(node[order], return_counts=True)[1].tolist()
        for members, up in zip(torch.split(column[order], sizes), torch.split(steps[order], sizes), strict=True):
            block = (members[:, None], members)
            out[block] = torch.minimum(out[block], up[:, None] + up)
        return out

    # ------------------------------------------------------------------ walking up

    def _walk(self, level: int | None, sources: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Sparse membership of the classes, or of `sources`: (node, column, probability), each (entries,)."""
        stop = None
        if level is not None:
            stop = torch.zeros(len(self.names), dtype=torch.bool).index_fill_(0, self._levels[level], True)
        if sources is not None:
            return self._dag.climb(sources, stop)
        if level not in self._walks:
            self._walks[level] = self._dag.climb(torch.arange(self.n_classes), stop)
        return self._walks[level]

    def _rows(self, level: int | None) -> Tensor:
        """Row of every node in the membership of a level, shape (n_nodes,)."""
        if level is None:
            return torch.arange(len(self.names))
        held = self._levels[level]
        return torch.full((len(self.names),), -1).index_put((held,), torch.arange(len(held)))

    # ------------------------------------------------------------------ being a value

    def __contains__(self, name: object) -> bool:
        return name in self._position

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Taxonomy):
            return NotImplemented
        return self.state() == other.state()

    def __hash__(self) -> int:
        return hash((self.names, self.n_classes, self.level_names))

    def __repr__(self) -> str:
        levels = ", ".join(f"{name}: {len(level)}" for name, level in zip(self.level_names, self._levels, strict=True))
        return f"Taxonomy({levels})"


def _cleaned(rows: Mapping[tuple[Any, ...], int]) -> dict[tuple[str, ...], int]:
    """Rows of names in place of rows of cells; the first number stays."""
    out: dict[tuple[str, ...], int] = {}
    for row, number in rows.items():
        out.setdefault(tuple(map(clean, row)), number)
    return out


def _below(parent: str, content: Any) -> list[tuple[str, str, Any]]:
    """(parent, name, content) of the children in a nested dict, last first."""
    if content is None:
        return []
    if isinstance(content, str):
        content = [content]
    items = content.items() if isinstance(content, Mapping) else ((name, None) for name in content)
    return [(parent, clean(name), below) for name, below in items][::-1]
