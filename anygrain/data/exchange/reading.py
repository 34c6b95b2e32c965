"""JSON of other tools, read leniently, with messages that name the file and the record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anygrain.data.error import InputError
from anygrain.data.table import wrong_encoding

#: what our own tasks carry; such a field names the row
ROW = "row"
PRIORITY, REASON, QUESTION = "anygrain_priority", "anygrain_reason", "anygrain_question"


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: not UTF-8, or not JSON.
    """
    return parse_json(read_text(path), path.name)


def parse_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{name} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error


def read_lines(text: str, name: str) -> Iterator[dict[str, Any]]:
    """The objects of JSON lines.

    Raises:
        InputError: a line that is no JSON object.
    """
    for at, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{name}, line {at} is not JSON: {error.msg}") from error
        if not isinstance(found, dict):
            raise InputError(f"{name}, line {at} is not a record. Expected an object such as {{...}}")
        yield found


def read_text(path: Path) -> str:
    """The content of a text file.

    Raises:
        InputError: not UTF-8, with the command that changes it.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(wrong_encoding(path)) from error


def row_of(fields: dict[str, Any], key: str, fallback: Any, where: str) -> str:
    """Row id of a record: the field `key`, else the tool's own id.

    Raises:
        InputError: neither is there.
    """
    found = fields.get(key, fallback)
    if found is None or found == "":
        raise InputError(f"{where} has no {key!r} and no id of its own, so its row is not known".replace("'", '"'))
    return as_text(found)


def as_text(value: Any) -> str:
    """A JSON value as a cell: whole floats lose their ".0"."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else str(value)
