"""The graph under a taxonomy: gathered from edges or rows, checked for orphans and cycles, put in order, climbed."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anygrain.labels.error import LabelError


class Dag:
    """Edges from child to parent, without a cycle, and the walk up along them.

    Args:
        edges: long, shape (2, E); child and parent.
        weight: P(parent | child), shape (E,).
        n_nodes: number of nodes.
    """

    def __init__(self, edges: Tensor, weight: Tensor, n_nodes: int) -> None:
        order = torch.argsort(edges[0] * n_nodes + edges[1])
        self.child, self.parent = edges[:, order]
        self.weight = weight[order].to(torch.float64)
        self.n_nodes = n_nodes
        self.n_parents = torch.bincount(self.child, minlength=n_nodes)
        self.first_edge = self.n_parents.cumsum(0) - self.n_parents
        self.height = heights(self.child, self.parent, n_nodes)
        self.roots = (self.n_parents == 0).nonzero()[:, 0]

    def climb(
        self, sources: Tensor, stop: Tensor | None = None, *, shortest: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes met on the ways up from each of `sources` (S,), as sparse entries without repeats.

        Args:
            sources: node indices; entry s of the result's columns belongs to sources[s].
            stop: bool, shape (n_nodes,); ways end at the first such node, and only such nodes are returned. When None,
                all nodes are.
            shortest: give the number of edges of the shortest way instead of the probability of the walk.

        Returns:
            (node, column, value), each of shape (entries,), sorted by the height of the node.
        """
        wide = max(len(sources), 1)
        waiting: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in range(int(self.height.max()) + 1)]

        def wait(node: Tensor, column: Tensor, value: Tensor) -> None:
            at = self.height[node]
            for height in torch.unique(at).tolist():
                here = at == height
                waiting[height].append((node[here], column[here], value[here]))

        start = torch.zeros if shortest else torch.ones
        wait(sources, torch.arange(len(sources)), start(len(sources), dtype=torch.float64))
        met = []
        for entries in waiting:  # a node's children are lower, so all that arrives at it has arrived
            if not entries:
                continue
            node, column, value = (torch.cat(parts) for parts in zip(*entries, strict=True))
            key, place = torch.unique(node * wide + column, return_inverse=True)
            if shortest:
                value = value.new_full((len(key),), torch.inf).scatter_reduce(0, place, value, "amin")
            else:
                value = value.new_zeros(len(key)).index_add(0, place, value)
            node, column = key // wide, key % wide
            if stop is None:
                met.append((node, column, value))
            else:
                ends = stop[node]
                met.append((node[ends], column[ends], value[ends]))
                node, column, value = node[~ends], column[~ends], value[~ends]
            times = self.n_parents[node]
            origin = torch.arange(len(node)).repeat_interleave(times)
            within = torch.arange(len(origin)) - (times.cumsum(0) - times)[origin]
            edge = self.first_edge[node][origin] + within
            value = value[origin] + 1 if shortest else value[origin] * self.weight[edge]
            wait(self.parent[edge], column[origin], value)
        node, column, value = (torch.cat(parts) for parts in zip(*met, strict=True))
        return node, column, value


def heights(child: Tensor, parent: Tensor, n_nodes: int) -> Tensor:
    """Edges on the longest way down from every node, shape (n_nodes,); -1 on cycles and above them."""
    height = torch.full((n_nodes,), -1)
    waits = torch.bincount(parent, minlength=n_nodes)
    ready, step = waits == 0, 0
    while bool(ready.any()):
        height[ready] = step
        waits = waits - torch.bincount(parent[ready[child]], minlength=n_nodes)
        ready, step = (waits == 0) & (height < 0), step + 1
    return height


class Plan(NamedTuple):
    """What a taxonomy is made of: names (classes first), edges (2, E), weights (E,), node indices of every level."""

    names: list[str]
    n_classes: int
    edges: Tensor
    weights: Tensor
    levels: list[Tensor]
    level_names: list[str]


class Gathering:
    """Nodes and edges as they come, with the rows they came from, until `plan` checks and orders them.

    Args:
        where: what the errors call it; a file's name.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.nodes: dict[str, int | None] = {}
        self.edges: dict[tuple[str, str], tuple[int | None, float]] = {}

    def node(self, name: str, row: int | None = None) -> None:
        """Note a node."""
        self.nodes.setdefault(name, row)

    def edge(self, child: str, parent: str, row: int | None = None, weight: float = 1.0) -> None:
        """Note an edge; an empty parent only notes the child."""
        if not child:
            raise LabelError(f"{self.where} has an edge{at(row)} without a child (its parent is {quote(parent)})")
        self.node(child, row)
        if not parent:
            return
        self.node(parent, row)
        known, before = self.edges.setdefault((child, parent), (row, weight))
        if before != weight:
            raise LabelError(
                f"{self.where} gives the edge {child} -> {parent} two weights, "
                f"{before:g}{at(known)} and {weight:g}{at(row)}. Expected one"
            )

    def plan(
        self,
        level_names: Sequence[str] | None = None,
        columns: Sequence[set[str]] | None = None,
        *,
        lone: bool = False,
    ) -> Plan:
        """Check for orphans and cycles, order the nodes and find the levels.

        Args:
            level_names: names of the levels, finest first.
            columns: the nodes of every level, finest first; found by depth when None.
            lone: whether a node may have neither parent nor child.
        """
        if not self.nodes:
            raise LabelError(f"{self.where} is empty. Expected at least one class")
        if not lone:
            tied = {name for edge in self.edges for name in edge}
            orphans = [f"{quote(name)}{at(row)}" for name, row in self.nodes.items() if name not in tied]
            if orphans:
                raise LabelError(
                    f"{self.where} has {count(orphans, 'orphan')}, without parent or child: {some(orphans)}. "
                    "Give each a parent, or remove it"
                )
        inner = {parent for _, parent in self.edges}
        names = [name for name in self.nodes if name not in inner] + [name for name in self.nodes if name in inner]
        n, n_classes = len(names), len(names) - len(inner)
        position = {name: i for i, name in enumerate(names)}
        pairs = [(position[child], position[parent]) for child, parent in self.edges]
        edges = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
        weights = torch.tensor([weight for _, weight in self.edges.values()], dtype=torch.float64)
        height = heights(edges[0], edges[1], n)
        if bool((height < 0).any()):
            raise self._cycle({name for name, h in zip(names, height.tolist(), strict=True) if h < 0})

        weights = weights / torch.zeros(n, dtype=torch.float64).index_add(0, edges[0], weights)[edges[0]]
        depth = heights(edges[1], edges[0], n)
        node, column, _ = Dag(edges, weights, n).climb(torch.arange(n_classes))
        first = torch.full((n,), n_classes).scatter_reduce(0, node, column, "amin").tolist()
        deep = depth.tolist()
        order = [*range(n_classes), *sorted(range(n_classes, n), key=lambda i: (-deep[i], first[i], names[i]))]
        moved = torch.empty(n, dtype=torch.long).index_put((torch.tensor(order),), torch.arange(n))
        edges, names = moved[edges], [names[i] for i in order]
        first, depth = [first[i] for i in order], depth[torch.tensor(order)]

        if columns is None:
            dag = Dag(edges, weights, n)
            levels = [
                torch.unique(dag.climb(torch.arange(n_classes), depth <= d)[0]).tolist()
                for d in range(int(depth.max()), -1, -1)
            ]
        else:
            position = {name: i for i, name in enumerate(names)}
            levels = [[position[name] for name in level] for level in columns]
        level_names = [f"level_{i}" for i in range(len(levels))] if level_names is None else list(level_names)
        if len(level_names) != len(levels) or len(set(level_names)) < len(level_names):
            raise LabelError(
                f"{self.where} has {count(levels, 'level')} and the level names {some(map(quote, level_names))}. "
                "Expected a different name for each, finest first"
            )
        by_class = [torch.tensor(sorted(level, key=lambda i: (first[i], i)), dtype=torch.long) for level in levels]
        return Plan(names, n_classes, edges, weights, by_class, level_names)

    def _cycle(self, stuck: set[str]) -> LabelError:
        """The error that names one cycle among nodes that each have a child in `stuck`."""
        below = {parent: child for child, parent in self.edges if child in stuck}
        name = next(name for name in self.nodes if name in stuck)
        seen: dict[str, None] = {}
        while name not in seen:
            seen[name] = None
            name = below[name]
        way = list(seen)
        ring = way[way.index(name) :][::-1]
        rank = {name: i for i, name in enumerate(self.nodes)}
        start = min(range(len(ring)), key=lambda i: rank[ring[i]])
        ring = [*ring[start:], *ring[:start], ring[start]]
        rows = [self.edges[edge][0] for edge in pairwise(ring)]
        places = f" (rows {', '.join(map(str, rows))})" if None not in rows else ""
        return LabelError(
            f"{self.where} has a cycle: {' -> '.join(ring)}{places}. A node cannot lie under itself; remove an edge"
        )


def plan_rows(rows: Mapping[tuple[str, ...], int], level_names: Sequence[str] | None, where: str) -> Plan:
    """The plan of a table: one column per level, finest first, with the number of every row.

    Neighbouring equal cells are one node of both levels. A name in different columns of different rows makes the table
    a list of edges, whose levels are found by depth.
    """
    gathering = Gathering(where)
    spans: dict[str, tuple[int, int, int]] = {}
    faults: list[str] = []
    tiers = True
    width = len(next(iter(rows)))
    titles = list(level_names) if level_names is not None else [f"level_{i}" for i in range(width)]
    if len(titles) != width:
        raise LabelError(
            f"{where} has {width} columns and {len(titles)} level names. Expected one name per column, finest first"
        )
    for row, number in rows.items():
        if not any(row):
            continue
        if row[0] and not any(row[1:]) and width > 1:
            gathering.node(row[0], number)
            continue
        if not all(row):
            gap = row.index("")
            below = (
                f"{quote(row[gap - 1])} has no parent"
                if gap
                else f"{quote(next(filter(None, row)))} has no class below it"
            )
            faults.append(f"{below} (row {number}, column {quote(titles[gap])} is empty)")
            continue
        starts = [j for j in range(width) if j == 0 or row[j] != row[j - 1]]
        for j, end in zip(starts, [*starts[1:], width], strict=True):
            before, until, known = spans.setdefault(row[j], (j, end, number))
            if (before, until) != (j, end):
                tiers = False
                if max(until - before, end - j) > 1:
                    raise LabelError(
                        f"{where}: {quote(row[j])} stands in {_columns(titles, before, until)} of row {known} and in "
                        f"{_columns(titles, j, end)} of row {number}. A name is one node wherever it stands: "
                        f"rename one, such as {quote(f'{titles[max(until, end) - 1]} {row[j]}')}"
                    )
        gathering.node(row[0], number)
        for j in starts[1:]:
            gathering.edge(row[j - 1], row[j], number)
    tied = {name for edge in gathering.edges for name in edge}
    if width > 1:
        bare = ((name, row) for name, row in gathering.nodes.items() if name not in tied and name not in spans)
        faults += [f"{quote(name)} has no parent (row {row}, column {quote(titles[1])} is empty)" for name, row in bare]
    if faults:
        raise LabelError(f"{where} has {count(faults, 'orphan')}: {some(faults)}. Fill the cells, or remove the rows")
    columns = [{name for name, (a, b, _) in spans.items() if a <= j < b} for j in range(width)] if tiers else None
    if columns is not None:
        return gathering.plan(level_names, columns, lone=True)
    plan = gathering.plan(lone=True)
    return plan._replace(level_names=titles) if level_names is not None and len(plan.levels) == width else plan


def _columns(titles: Sequence[str], start: int, end: int) -> str:
    return " and ".join(map(quote, titles[start:end]))


def clean(cell: Any) -> str:
    """A cell as a name; "" where it is missing (None, NaN or blank)."""
    return "" if cell is None or cell != cell else str(cell).strip()


def quote(name: str) -> str:
    """A name between quotation marks."""
    return f'"{name}"'


def count(things: Sequence[Any], noun: str) -> str:
    """Their number with the noun: 1 orphan, 2 orphans, 2 classes."""
    plural = "" if len(things) == 1 else "es" if noun.endswith("s") else "s"
    return f"{len(things)} {noun}{plural}"


def some(things: Iterable[str]) -> str:
    """Up to three examples and the number of the others."""
    listed = list(things)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more


def at(row: int | None) -> str:
    """Where it stands, if that is known."""
    return "" if row is None else f" in row {row}"
