"""A row that people are asked about, and an answer that came back, in no tool's format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Task:
    """One row to label, with what the model thinks.

    Attributes:
        row: row id; it comes back with the answer.
        fields: what people see of the row, by column.
        priority: 1 is to be labelled first.
        reason: why this row, in a few words.
        question: what is asked, such as "class" or a level of the taxonomy.
        proposed: the answer that the model expects, "" where it has none; a number as text.
        several: the answers that the model expects where several may be given.
        path: nodes of the taxonomy from the root to `proposed`, empty where there is no taxonomy.
        score: probability of `proposed`, 0 to 1.
    """

    row: str
    fields: Mapping[str, str]
    priority: int
    reason: str = ""
    question: str = "class"
    proposed: str = ""
    several: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    score: float = 0.0


@dataclass(frozen=True)
class Form:
    """What is asked of every task: the choices, and what is shown.

    Attributes:
        choices: names of all possible answers; with a taxonomy its classes; () where the answer is a number.
        name: of the control that people answer by, which answers are found under.
        paths: for every node of the taxonomy the nodes from the root to it; empty where there is none.
        image: the field that holds an image, "" where there is none.
        answer: one of the choices, several of them, a number, or a rating from 1 to `highest` in whole steps.
        highest: rating.
    """

    choices: tuple[str, ...]
    name: str = "class"
    paths: tuple[tuple[str, ...], ...] = ()
    image: str = ""
    answer: Literal["choice", "several", "number", "rating"] = "choice"
    highest: int = 10


@dataclass
class Answers:
    """Answers of people, one entry per answer: the columns of a long table.

    Attributes:
        row: row id of every answer.
        annotator: who gave it, "" where the file does not say.
        question: name of the control or question answered.
        answer: what was said; one entry per choice where several were chosen.
        certain: whether the answer counts as the truth.
        fields: what was known of the row, for every answer.
    """

    row: list[str] = field(default_factory=list)
    annotator: list[str] = field(default_factory=list)
    question: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    certain: list[bool] = field(default_factory=list)
    fields: list[Mapping[str, Any]] = field(default_factory=list)

    def add(
        self, row: str, annotator: str, question: str, answer: str, fields: Mapping[str, Any], certain: bool = False
    ) -> None:
        self.row.append(row)
        self.annotator.append(annotator)
        self.question.append(question)
        self.answer.append(answer)
        self.certain.append(certain)
        self.fields.append(fields)

    def __len__(self) -> int:
        return len(self.row)
