"""The verb init: guess a configuration, show the guess, and write it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from anygrain.data.config import parse_config
from anygrain.data.error import InputError
from anygrain.data.toml import to_toml
from anygrain.demo import simulated_columns
from anygrain.program.guess import guess
from anygrain.program.screen import Screen


def init(
    source: Path,
    screen: Screen,
    *,
    taxonomy: Path | None = None,
    given: Sequence[str] = (),
    target: str = "",
    out: Path | None = None,
    overwrite: bool = False,
    next_out: str = "runs/1",
) -> Path:
    """Guess the configuration of a table and write it; its path.

    Raises:
        InputError: bad input, or a configuration that is there already.
    """
    place = Path(f"{source.stem}.toml") if out is None else out
    known = simulated_columns(source) if source.is_file() else ()
    found = guess(source, taxonomy, given=given, simulated=known, target=target)
    if place.exists() and not overwrite:
        raise InputError(f"{place} exists. Choose another --out, or add --overwrite")
    rows = [("column", "read as", "why", "evidence")]
    rows += [(row.columns, row.read_as, row.why, row.evidence) for row in found.rows]
    if taxonomy is not None:
        found.settings["taxonomy"] = _relative(taxonomy, place.parent)
    found.settings["data"]["source"] = _relative(source, place.parent)
    instances = found.settings["data"].get("instances", "")
    if instances and Path(instances).is_dir():
        found.settings["data"]["instances"] = _relative(Path(instances), place.parent)
    text = to_toml(found.settings)
    parse_config(found.settings, place.name)
    screen.table(rows, gap=3)
    for note in found.notes:
        screen.line(f"worth knowing: {note}")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(
        f"# guessed by anygrain init from {source.name}; all settings: config.toml of a run\n{text}",
        encoding="utf-8",
    )
    screen.line(f"-> {place} (edit it, or pass --set). Next:  anygrain fit {place} --out {next_out}")
    return place


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return str(path.resolve())
