"""Rows out to labelling tools, and their answers back: Label Studio, Argilla, doccano.

`write_tasks(tasks, form, path, "label-studio")` writes what the tool imports; `read_answers(path, "label-studio")`
reads what it exports as a table with the columns row, annotator, question, answer, certain, and the task's own fields.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

from anygrain.data.error import InputError, did_you_mean, quoted, some
from anygrain.data.exchange import argilla, doccano, label_studio
from anygrain.data.exchange.reading import ROW, as_text
from anygrain.data.exchange.task import Answers, Form, Task
from anygrain.data.table import Table, check_place

#: sorts of answers that a tool has no field for, and what to do
_NO_FIELD = {
    ("argilla", "number"): "Argilla has no field for numbers: its ratings are whole. Expected --tool label-studio",
    ("doccano", "number"): "doccano has no field for numbers. Expected --tool label-studio",
    ("doccano", "rating"): "doccano has no field for ratings. Expected --tool label-studio or argilla",
}
TOOLS: dict[str, ModuleType] = {"label-studio": label_studio, "argilla": argilla, "doccano": doccano}

__all__ = ["TOOLS", "Answers", "Form", "Task", "check_form", "read_answers", "write_tasks"]


def check_form(form: Form, tool: str) -> None:
    """Raise where a tool has no field for such answers.

    Raises:
        InputError: an unknown tool, or an answer that it cannot take.
    """
    _tool(tool)
    said = _NO_FIELD.get((tool, form.answer))
    if said is not None:
        raise InputError(f"{said}, or no tool for a plain table")


def write_tasks(tasks: Sequence[Task], form: Form, path: str | os.PathLike[str], tool: str) -> list[Path]:
    """Write tasks in the order to label; the files, whole or not at all.

    Of Label Studio the second file is the labelling interface (XML) that fits the tasks.

    Raises:
        InputError: an unknown tool, one that has no field for such answers, or a place that cannot be written.
    """
    path = Path(path)
    check_form(form, tool)
    check_place(path)
    texts = _tool(tool).write(tasks, form)
    places = [path, path.with_suffix(".interface.xml")][: len(texts)]
    path.parent.mkdir(parents=True, exist_ok=True)
    for place, text in zip(places, texts, strict=True):
        part = place.with_name(place.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(place)
    return places


def read_answers(
    path: str | os.PathLike[str],
    tool: str,
    *,
    key: str = ROW,
    question: str = "",
    certain: bool | None = None,
    none: bool = False,
) -> Table:
    """Answers of an export as a long table.

    Args:
        path: the file that the tool exported.
        tool: "label-studio", "argilla" or "doccano".
        key: field of a task that holds the row id.
        question: only answers to this one; needed where the export holds several.
        none: whether to keep that none of several choices was taken, as an empty answer.
        certain: True: only answers that the tool marks as the truth; False: only the others.

    Raises:
        InputError: no such file, not an export of that tool, no answer, several questions.
    """
    path = Path(path)
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise InputError(f"There is no file {path}.{did_you_mean(path.name, near)}")
    found: Answers = _tool(tool).read(path, key)
    asked = list(dict.fromkeys(q for q, a in zip(found.question, found.answer, strict=True) if a))
    if question and question not in asked:
        raise InputError(
            f"{path.name} has no answers to {quoted(question)}.{did_you_mean(question, asked)} "
            f"It has {some(map(quoted, asked)) or 'none at all'}"
        )
    if not question and len(asked) > 1:
        raise InputError(
            f"{path.name} has answers to {len(asked)} questions. Say which: question = one of "
            f"{some(map(quoted, asked), 6)}"
        )
    kept = [
        i
        for i in range(len(found))
        if (not question or found.question[i] in (question, ""))
        and (certain is None or found.certain[i] == certain)
        and (none or found.answer[i])
    ]
    if not kept:
        which = {True: " that is marked as the truth", False: " that is a vote", None: ""}[certain]
        raise InputError(f"{path.name} has no answer{which}. Expected an export with finished annotations")
    return Table(pa.table(_columns(found, kept)), path.name, path)


def _columns(found: Answers, kept: Sequence[int]) -> dict[str, Any]:
    """Columns of a long table; fields of the task that share a name with ours are left out."""
    columns: dict[str, Any] = {
        ROW: [found.row[i] for i in kept],
        "annotator": [found.annotator[i] for i in kept],
        "question": [found.question[i] for i in kept],
        "answer": [found.answer[i] for i in kept],
        "certain": [found.certain[i] for i in kept],
    }
    names = dict.fromkeys(k for i in kept for k in found.fields[i] if k not in columns)
    for name in names:
        values = [found.fields[i].get(name) for i in kept]
        columns[name] = pa.array([None if v is None else as_text(v) for v in values], type=pa.string())
    return columns


def _tool(name: str) -> ModuleType:
    if name not in TOOLS:
        raise InputError(
            f"The format {quoted(name)} is not known.{did_you_mean(name, list(TOOLS))} One of {some(TOOLS)}"
        )
    return TOOLS[name]
