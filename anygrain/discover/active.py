"""Rows to ask a person about while classes are found, and classes that keep their place as names come in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from anygrain.audit.ask import choose, label_map, novelty
from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.evidence import Evidence
from anygrain.discover.found import Found
from anygrain.discover.methods import method
from anygrain.discover.start import Start
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.labels import LabelError

#: names of the classes of some rows, in their order
Oracle = Callable[[np.ndarray], Sequence[Any]]


class ActiveDiscovery(Discoverer):
    """Finds classes by another method, asks about rows that are probably of new ones, and goes on with the answers.

    ```python
    found = ActiveDiscovery().fit(x, Exact(y, 50), n_classes=80)
    rows = found.query(100)
    found.tell(rows, ["refund", "lost card", ...])
    ```

    The first rounds ask for clear members of every new class, so that classes get names, later ones for rows on
    boundaries. A name that is told makes its class a known one: it follows those that were known, in the order of
    naming, and keeps that index from then on; its rows stay in it. Where the classes without a name stand after a round
    is in `label_map_`. A name beyond the number of classes adds a class.

    Args:
        method: by name, or one; it finds the classes, anew after every round.
        by: what rows are asked about, a key of `anygrain.audit.ask.STRATEGIES`.

    Attributes:
        label_map_: index now (K before,) of every class of the round before: of known classes the same, of the others
            the assignment with most rows in common.
        asked_: rows that were asked about, in order.
        rounds_: a dict for every round: how many rows there were, and of the new classes among them the `coverage`,
            `ratio` and `uniformity`, see `anygrain.audit.ask.novelty`.

    Source: Ma et al., Active Generalized Category Discovery, 2024.
    """

    learns_from = None

    def __init__(
        self,
        *,
        method: Start = "self-distillation",
        by: str = "novel",
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 0,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.method, self.by = method, by

    def _one(self, seed: int) -> Discoverer:
        return method(self.method)(seed=seed) if isinstance(self.method, str) else self.method

    @property
    def finds_number(self) -> bool:  # type: ignore[override]
        """As the method that finds the classes."""
        return self._one(self.seed).finds_number

    @property
    def trains_encoder(self) -> bool:  # type: ignore[override]
        """As the method that finds the classes."""
        return self._one(self.seed).trains_encoder

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        return self._one(task.seed)._find(task, callback)

    def _fit_task(self, task: Task, callback: Callback | None = None) -> Self:
        super()._fit_task(task, callback)
        self._task = task.with_number(torch.bincount(torch.from_numpy(self.node_), minlength=task.evidence.n_nodes))
        self._known_at_first = task.n_known
        self.label_map_ = np.arange(self.n_classes_)
        self.asked_ = np.zeros(0, dtype=np.int64)
        self.rounds_: list[dict[str, float]] = []
        return self

    def query(self, n: int) -> np.ndarray:
        """Rows (n,) to ask about next, none of which was told.

        Raises:
            LabelError: more rows than are left, or a strategy that is not there or needs more than probabilities.
        """
        self._check_fitted()
        free = self._task.evidence.sure_known() < 0
        by = "margin" if self.by == "novel" and self.known_.all() else self.by
        asked = choose(
            self.log_probs_,
            n,
            by=by,
            may_ask=free,
            features=self._task.features,
            novel=~self.known_,
            round=len(self.rounds_),
            seed=self.seed + len(self.rounds_),
        )
        return np.asarray(asked.rows.numpy())

    def tell(self, rows: Any, names: Sequence[Any], *, callback: Callback | None = None) -> Self:
        """The names of the classes of some rows; the classes are found again.

        Args:
            rows: (n,) as `query` gave them, or any others.
            names: (n,) names of known classes, or new ones.

        Raises:
            LabelError: a row that is not there, comes twice, or was told to be of another class.
        """
        self._check_fitted()
        chosen = torch.as_tensor(np.asarray(rows), dtype=torch.long)
        said = [str(name) for name in names]
        self._check_told(chosen, said)
        classes = tuple(dict.fromkeys([*self._task.evidence.known_names, *said]))
        place = {name: k for k, name in enumerate(classes)}
        told = torch.tensor([place[name] for name in said], dtype=torch.long)
        task = self._named(chosen, told, classes)
        before, known = torch.from_numpy(self.labels_), self._task.n_known
        found = self._find(task, callback)
        self._keep(task, found, None)
        self.label_map_ = class_map(before, torch.from_numpy(self.labels_), known, self.n_classes_).numpy()
        self._task = task.with_number(torch.bincount(found.node, minlength=task.evidence.n_nodes))
        self.asked_ = np.concatenate([self.asked_, chosen.numpy()])
        new = torch.arange(self.n_classes_) >= self._known_at_first
        self.rounds_.append({"rows": float(len(chosen))} | (novelty(told, new) if bool(new.any()) else {}))
        return self

    def ask(self, oracle: Oracle, *, rounds: int = 5, n: int = 20, callback: Callback | None = None) -> Self:
        """Query and tell in turn.

        Args:
            oracle: called with rows (n,), gives the names of their classes.
            rounds: how often; n: rows a round.
        """
        for _ in range(rounds):
            rows = self.query(n)
            self.tell(rows, oracle(rows), callback=callback)
        return self

    def _check_fitted(self) -> None:
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "model_")

    def _check_told(self, rows: Tensor, names: list[str]) -> None:
        n, evidence = self._task.n_rows, self._task.evidence
        if len(rows) != len(names):
            raise LabelError(f"{len(rows)} rows and {len(names)} names were told; expected a name for every row")
        for row in rows[(rows < 0) | (rows >= n)][:1].tolist():
            raise LabelError(f"row {row} was told, the data has rows 0 to {n - 1}; expected one of them")
        count = torch.bincount(rows, minlength=n)
        for row in (count > 1).nonzero().flatten()[:1].tolist():
            raise LabelError(f"row {row} was told twice at once; expected one name for it")
        before = evidence.sure_known()[rows].tolist()
        for row, k, name in zip(rows.tolist(), before, names, strict=True):
            if k >= 0 and evidence.known_names[k] != name:
                raise LabelError(
                    f'row {row} is told to be "{name}", and was "{evidence.known_names[k]}" before; expected the same'
                )

    def _named(self, rows: Tensor, told: Tensor, names: tuple[str, ...]) -> Task:
        """The task with some rows told to be of classes (n,) among all names."""
        evidence, node = self._task.evidence, torch.from_numpy(self.node_)
        counts = torch.zeros(len(names), evidence.n_nodes)
        above = node[torch.from_numpy(self.labels_)[rows]]
        counts.index_put_((told, above), torch.ones(len(rows)), accumulate=True)
        node_of_known = counts.argmax(dim=1)
        node_of_known[: evidence.n_known] = evidence.node_of_known
        more = with_told(evidence, rows, told, names, node_of_known)
        assert self._task.per_node is not None
        taken = torch.bincount(node_of_known, minlength=evidence.n_nodes)
        return replace(self._task, evidence=more).with_number(self._task.per_node.maximum(taken))


def with_told(
    evidence: Evidence, rows: Tensor, told: Tensor, names: tuple[str, ...], node_of_known: Tensor
) -> Evidence:
    """Evidence in which some rows (n,) are told to be of classes (n,), over more known classes than before.

    Args:
        names: (G,) of all known classes; those of the evidence first.
        node_of_known: (G,) their nodes.
    """
    old = evidence.n_known
    table = torch.zeros(evidence.n_rows, len(names))
    if evidence.known is not None:
        table[:, :old] = evidence.known
    table[:, old:] = torch.where(evidence.told, -torch.inf, 0.0)[:, None]
    table[rows] = -torch.inf
    table[rows, told] = 0
    was_told = evidence.told.clone()
    was_told[rows] = True
    return replace(evidence, known=table, told=was_told, known_names=names, node_of_known=node_of_known)


def class_map(before: Tensor, now: Tensor, n_known: int, n_classes: int) -> Tensor:
    """Class now of every class before, (K,): of known ones the same, of the others that with most rows in common.

    One to one; of classes without rows it is arbitrary.

    Args:
        before, now: (N,) classes of rows.
        n_known: classes, the first, that have the same index before and now.
        n_classes: K now, at least as many as before.
    """
    there = (before >= n_known) & (now >= n_known)
    rest = label_map(now[there] - n_known, before[there] - n_known, n_classes - n_known)
    return torch.cat([torch.arange(n_known), n_known + rest])
