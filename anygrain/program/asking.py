"""What the verb ask has to know and gives, whatever labels speak of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.data.config import Config
from anygrain.data.dataset import Columns
from anygrain.data.error import InputError, counted, did_you_mean, quoted, some
from anygrain.data.exchange import Form, Task
from anygrain.data.table import Table
from anygrain.program.screen import Screen

ANYBODY = "anybody"
SHOWN_FIELDS = 8  # columns of a table that people see of a row
ROUNDS = 10  # of fitting annotators to what the model says
#: the strategy by what labels speak of: what saved most labels in benchmarks/ASK_RESULTS.md (tags are as classes)
DEFAULTS = {"classes": "badge", "real": "model_variance", "tags": "badge"}


@dataclass(frozen=True)
class Asking:
    """A run, the rows to choose from, and what the user wants.

    Attributes:
        dataset: of the run.
        table, columns, ids, data: the rows to choose from, (N,).
        same: whether these are the rows of the run.
        n, by, questions: as given.
        form: what people answer by.
    """

    run: Path
    config: Config
    learner: Any
    dataset: Any
    table: Table
    columns: Columns
    ids: np.ndarray
    data: Any
    same: bool
    n: int
    by: str
    questions: tuple[str, ...]
    form: Form
    screen: Screen

    def features(self) -> Tensor:
        return torch.from_numpy(self.learner.transform(self.data))

    def fields(self) -> dict[str, np.ndarray]:
        """What people see of the rows, by column."""
        shown = self.columns.images or self.columns.text or self.columns.all[:SHOWN_FIELDS]
        return {name: self.table.strings(name) for name in shown}

    def wanted(self, free: int, what: str = "row", known: str = "the others have an exact label") -> int:
        """How many questions of so many that can be asked.

        Raises:
            InputError: none can.
        """
        if not free:
            raise InputError(
                "Every row has an exact label: there is nothing to ask. Expected --table NEW with other rows"
            )
        if free < self.n:
            self.screen.line(f"only {counted(free, what)} can be asked about: {known}")
        return min(self.n, free)

    def prices(self, usual: Sequence[str], known: Sequence[str]) -> list[tuple[str, float]]:
        """Names and costs of what may be asked.

        Args:
            usual: where the user said nothing.
            known: names that may be asked.

        Raises:
            InputError: no cost, a cost that is no number above 0, a name that is nothing.
        """
        out = []
        for text in self.questions or usual:
            name, _, cost = text.rpartition("=")
            try:
                price = float(cost)
            except ValueError:
                price = -1.0
            if not name or not 0 < price < float("inf"):
                raise InputError(
                    f"--question {text} has no cost. Expected NAME=COST with a number above 0, such as {known[0]}=1"
                )
            if name not in known:
                raise InputError(
                    f"--question {text}: {quoted(name)} is nothing that can be asked.{did_you_mean(name, known)} "
                    f"Expected one of {some(map(quoted, known), 8)}"
                )
            out.append((name, price))
        return out


@dataclass(frozen=True)
class Proposal:
    """What to ask, the first question first.

    Attributes:
        tasks: for the tool, or the table.
        cost, gain: of every answer, (n,).
        unit: of the gain.
        proposed: what the model takes to be right, for the screen.
        columns: of a plain table, beside those that all have.
        kind: of label that the answers are.
        more: further settings of these labels.
        by_name: whether questions are counted by their names.
    """

    tasks: list[Task]
    cost: Tensor
    gain: Tensor
    unit: str
    proposed: list[str]
    columns: Mapping[str, Sequence[Any]]
    kind: str
    more: str = ""
    by_name: bool = True


@dataclass
class Voters:
    """Named annotators of votes or ratings, and on which rows each has spoken.

    Attributes:
        at: labels and place among their annotators, by name.
    """

    at: dict[str, tuple[Any, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, evidence: Sequence[Any]) -> Voters:
        found = cls()
        for entry in evidence:
            names = getattr(entry.labels, "annotator_names", None)
            for place, name in enumerate(names or ()):
                found.at[name] = (entry.labels, place)
        return found

    def channel(self, name: str) -> tuple[Any, int]:
        """The channel of an annotator, and their place there; -1 is somebody new."""
        labels, place = self.at[name] if name != ANYBODY else (next(iter(self.at.values()))[0], -1)
        return labels.channel, place

    def may_ask(self, name: str, n_rows: int) -> Tensor:
        """Rows that an annotator has not spoken of yet, bool (N,)."""
        free = torch.ones(n_rows, dtype=torch.bool)
        if name in self.at:
            labels, place = self.at[name]
            mine = labels.annotators == place
            free[labels.rows[labels.record_instances[mine]].cpu()] = False
        return free
