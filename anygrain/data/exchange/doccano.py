"""Rows for doccano with labels to confirm, and its exports read back.

Written: JSON lines `{"text", "label": [...]}` with the row id, priority and reason as metadata. Read: JSON, JSONL, CSV
(several labels joined by "#"), or the zip with a file per annotator, whose name is the annotator's.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from anygrain.data.error import InputError
from anygrain.data.exchange.reading import (
    PRIORITY,
    QUESTION,
    REASON,
    ROW,
    as_text,
    parse_json,
    read_lines,
    read_text,
    row_of,
)
from anygrain.data.exchange.task import Answers, Form, Task

SHARED = "all"  # name of the file when annotation is shared between people
LABELS = ("label", "labels", "cats")


def write(tasks: Sequence[Task], form: Form) -> list[str]:
    """JSON lines; the fields are joined to one text, or name the image's file."""
    lines = []
    for task in tasks:
        shown = (
            {"filename": task.fields[form.image]}
            if form.image
            else {"text": "\n".join(str(v) for v in task.fields.values() if v)}
        )
        about = {ROW: task.row, PRIORITY: task.priority, REASON: task.reason, QUESTION: task.question}
        label = list(task.several) or ([task.proposed] if task.proposed else [])
        lines.append(json.dumps({**shown, "label": label, **about}, ensure_ascii=False) + "\n")
    return ["".join(lines)]


def read(path: Path, key: str = ROW) -> Answers:
    """Answers of an export; a row without labels has not been seen.

    Args:
        path: .jsonl, .json, .csv or .zip.
        key: field that holds the row id; the tool's own `id` where it is not there.

    Raises:
        InputError: not such an export.
    """
    out = Answers()
    if path.suffix.lower() == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                for name in sorted(archive.namelist()):
                    if not name.endswith("/"):
                        text = archive.read(name).decode("utf-8-sig")
                        who = Path(name).stem
                        _add(_records(text, name), f"{path.name}: {name}", "" if who == SHARED else who, key, out)
        except (zipfile.BadZipFile, UnicodeDecodeError) as error:
            raise InputError(f"{path.name} cannot be read as a zip of UTF-8 files: {error}") from error
        return out
    text = read_text(path)
    who = "" if path.stem == SHARED else path.stem
    _add(_records(text, path.name), path.name, who, key, out)
    return out


def _records(text: str, name: str) -> Iterable[Mapping[str, Any]]:
    ending = Path(name).suffix.lower()
    if ending == ".csv":
        rows = csv.DictReader(io.StringIO(text))
        return [{k: v.split("#") if k in LABELS and v else v for k, v in row.items() if k} for row in rows]
    if ending == ".json":
        found = parse_json(text, name)
        if not isinstance(found, list) or not all(isinstance(r, dict) for r in found):
            raise InputError(f"{name} is no doccano export. Expected a JSON list of records")
        return found
    return read_lines(text, name)


def _add(records: Iterable[Mapping[str, Any]], where: str, annotator: str, key: str, out: Answers) -> None:
    for at, record in enumerate(records):
        here = f"{where}, record {at + 1}"
        given = next((name for name in LABELS if name in record), None)
        if given is None:
            raise InputError(f'{here} has no "label". Expected a classification export of doccano')
        labels = record[given]
        if isinstance(labels, list) and any(isinstance(v, list) for v in labels):
            raise InputError(f"{here} marks spans of text. Expected labels of whole rows")
        row = row_of(dict(record), key, record.get("id"), here)
        data = {k: v for k, v in record.items() if k != given}
        for label in labels if isinstance(labels, list) else [labels] if labels else []:
            out.add(row, annotator, given, as_text(label), data)
