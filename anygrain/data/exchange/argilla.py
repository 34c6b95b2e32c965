"""Records for Argilla with suggestions, and its data sets read back.

Written: the nested form, `suggestions` with score and agent, and `metadata.anygrain_priority`. Read: the flat columns
(`class.responses`, `.responses.users`, `.responses.status`), of which only submitted responses count; and the nested
form, which does not say the status, so that every response counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anygrain.data.error import InputError
from anygrain.data.exchange.reading import PRIORITY, QUESTION, REASON, ROW, as_text, read_json, row_of
from anygrain.data.exchange.task import Answers, Form, Task
from anygrain.data.table import read_table

MODEL = "anygrain"
RESPONSES, USERS, STATUS = ".responses", ".responses.users", ".responses.status"


def write(tasks: Sequence[Task], form: Form) -> list[str]:
    """The records as JSON."""
    return [json.dumps([_record(t, form) for t in tasks], ensure_ascii=False, indent=1)]


def _record(task: Task, form: Form) -> dict[str, Any]:
    out: dict[str, Any] = {
        "id": task.row,
        "fields": dict(task.fields),
        "metadata": {ROW: task.row, PRIORITY: task.priority, REASON: task.reason, QUESTION: task.question},
        "vectors": {},
        "suggestions": {},
        "responses": {},
    }
    if task.proposed or task.several:
        value: Any = list(task.several) if form.answer == "several" else task.proposed
        if form.answer == "rating":
            value = round(float(task.proposed))
        out["suggestions"] = {form.name: {"value": value, "score": float(task.score), "agent": MODEL}}
    return out


def read(path: Path, key: str = ROW) -> Answers:
    """Answers of a data set: .json (nested, or a list of flat records), .jsonl or .parquet (flat).

    Args:
        path: the file.
        key: metadata or column that holds the row id; the record's `id` where it is not there.

    Raises:
        InputError: not such a data set.
    """
    if path.suffix.lower() == ".json":
        records = read_json(path)
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise InputError(f"{path.name} is no Argilla data set. Expected a JSON list of records")
    else:
        records = read_table(path).arrow.to_pylist()
    nested = [isinstance(r.get("fields"), dict) for r in records]
    flat = any(name.endswith(RESPONSES) for r in records[:1] for name in r)
    if records and not flat and not all(nested):
        raise InputError(
            f"{path.name} is no Argilla data set. Expected records with fields and responses, or columns such as "
            '"class.responses"'
        )
    out = Answers()
    for at, record in enumerate(records):
        where = f"{path.name}, record {at + 1}"
        if flat:
            _flat(record, where, key, out)
        else:
            _nested(record, where, key, out)
    return out


def _nested(record: Mapping[str, Any], where: str, key: str, out: Answers) -> None:
    data = {**(record.get("fields") or {}), **(record.get("metadata") or {})}
    row = row_of(data, key, record.get("id"), where)
    for question, responses in (record.get("responses") or {}).items():
        for response in responses or []:
            if response.get("status", "submitted") == "submitted":
                for answer in _values(response.get("value")):
                    out.add(row, as_text(response.get("user_id") or ""), question, answer, data)


def _flat(record: Mapping[str, Any], where: str, key: str, out: Answers) -> None:
    questions = [name.removesuffix(RESPONSES) for name in record if name.endswith(RESPONSES)]
    data = {k: v for k, v in record.items() if not any(k.startswith(f"{q}.") for q in questions)}
    row = row_of(data, key, record.get("id"), where)
    for question in questions:
        given = record[question + RESPONSES] or []
        users = record.get(question + USERS) or [""] * len(given)
        status = record.get(question + STATUS) or ["submitted"] * len(given)
        if not len(given) == len(users) == len(status):
            raise InputError(
                f"{where}: {question} has {len(given)} responses, {len(users)} users, {len(status)} states"
            )
        for value, user, state in zip(given, users, status, strict=True):
            if state == "submitted":
                for answer in _values(value):
                    out.add(row, as_text(user or ""), question, answer, data)


def _values(value: Any) -> list[str]:
    """A label, several labels, or a rating; "" where none of several labels was chosen."""
    if value is None:
        return []
    return [as_text(v) for v in value] or [""] if isinstance(value, list) else [as_text(value)]
