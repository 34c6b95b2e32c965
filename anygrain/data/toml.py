"""TOML written, and the lines on which its settings stand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(r"\s*(\[{1,2})\s*([^\[\]]+?)\s*\]{1,2}\s*(#.*)?$")
_SETTING = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_.-]+)\s*=""")

Path = tuple[str | int, ...]


def to_toml(settings: Mapping[str, Any]) -> str:
    """Settings as TOML: scalars first, then a table per mapping, and an array of tables per list of mappings."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in settings.items() if not _is_table(value)]
    for key, value in settings.items():
        if not _is_table(value):
            continue
        tables = value if isinstance(value, list) else [value]
        mark = "[[{}]]" if isinstance(value, list) else "[{}]"
        for table in tables:
            lines += ["", mark.format(_key(key))]
            lines += [f"{_key(k)} = {_value(v)}" for k, v in table.items()]
    return "\n".join(lines).lstrip("\n") + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)
    )


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)  # also inf and nan, which TOML spells alike
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    raise TypeError(f"{type(value).__name__} has no place in TOML")


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1 on, of every table and setting: ("labels", 1, "column") is one of the second [[labels]]."""
    found: dict[Path, int] = {}
    table: Path = ()
    counts: dict[str, int] = {}
    for line, content in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(content)
        if header:
            names = tuple(part.strip().strip("\"'") for part in header[2].split("."))
            if header[1] == "[[":
                counts[header[2]] = counts.get(header[2], -1) + 1
                table = (*names, counts[header[2]])
            elif names[0] in counts:
                table = (names[0], counts[names[0]], *names[1:])
            else:
                table = names
            found.setdefault(table, line)
            continue
        setting = _SETTING.match(content)
        if setting:
            raw = setting[1]
            names = (raw[1:-1],) if raw[0] in "\"'" else tuple(raw.split("."))
            for depth in range(1, len(names) + 1):
                found.setdefault((*table, *names[:depth]), line)
    return found
