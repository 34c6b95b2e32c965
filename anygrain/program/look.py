"""What fit and check begin with: the data that a configuration names, read and checked, and what there is of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anygrain.data.config import Config, load_config
from anygrain.data.conflicts import message
from anygrain.data.dataset import Given
from anygrain.data.error import InputError, counted, number
from anygrain.data.run_folder import fingerprint
from anygrain.program.screen import Screen, seconds
from anygrain.program.space import Space, space_of

SHOWN = 40  # lines of a table of counts


@dataclass
class Looked:
    """Checked data.

    Attributes:
        space: of its labels.
        dataset: softened, where labels contradict each other and that was asked for.
        warnings: what is worth knowing.
        seconds: that it took.
    """

    space: Space[Any]
    dataset: Given[Any]
    warnings: list[str]
    seconds: float


def read_checked(config: Config, screen: Screen) -> tuple[Space[Any], Given[Any]]:
    """The space of a configuration, and what it names, softened where labels contradict each other and that was asked.

    Raises:
        InputError: bad input, or labels that contradict each other; the first of them are shown.
    """
    space = space_of(config)
    dataset = space.read(config)
    if not dataset.conflicts:
        return space, dataset
    if config.learn.conflicts == "stop":
        for conflict in dataset.conflicts[1:8]:
            screen.line(f"row {conflict.row}: {conflict.problem}")
        raise InputError(message(dataset.conflicts))
    return space, space.soften(dataset)


def fingerprint_of(config: Config) -> str:
    """A short text that changes with the files that a configuration names; empty where one is missing."""
    paths = [config.data.source, config.taxonomy]
    for label in config.labels:
        paths += [getattr(label, name, "") for name in ("source", "taxonomy", "transition")]
    files: list[str | Path] = [p for p in dict.fromkeys(paths) if p]
    return fingerprint(files) if all(Path(p).is_file() for p in files) else ""


def look(config: Config, screen: Screen) -> Looked:
    """Read what a configuration names, and say in a line what it is.

    Raises:
        InputError: bad input, or labels that contradict each other; the first of them are shown.
    """
    began = time.monotonic()
    space, dataset = read_checked(config, screen)
    found = Looked(space, dataset, space.warnings(dataset), time.monotonic() - began)
    kinds = counted(len(dataset.evidence), "kind", "kinds")
    screen.line(
        f"{counted(len(dataset), 'row')} · {space.says(dataset)} · {kinds} of evidence · held out by evidence in "
        f"{space.folds(dataset)} parts, no row shared  {seconds(found.seconds)}"
    )
    return found


def say_counts(found: Looked, screen: Screen) -> None:
    """How much there is of every class or tag, and what is worth knowing."""
    rows = found.space.counts(found.dataset)
    if rows:
        screen.table(rows[: SHOWN + 1], gap=3)
    if len(rows) > SHOWN + 1:
        screen.line(f"... ({number(len(rows) - SHOWN - 1)} more)")
    for sentence in [*found.warnings, *found.dataset.notes]:
        screen.line(f"worth knowing: {sentence}")


def check_data(config_path: Path, settings: Sequence[str], screen: Screen) -> None:
    """Check everything that a configuration names, as a fit would before it begins.

    Raises:
        InputError: bad input.
    """
    found = look(load_config(config_path, settings), screen)
    rows = [("label", "kind", "says", "labels", "rows")]
    for e in found.dataset.evidence:
        rows.append((e.name, e.kind, e.says, number(e.n_labels), number(int(e.rows.sum()))))
    screen.table(rows, gap=3)
    say_counts(found, screen)
    if found.dataset.conflicts:
        screen.line(f"{counted(len(found.dataset.conflicts), 'contradiction')}, softened as asked")
    screen.line(f"nothing is wrong with the data. Next:  anygrain fit {config_path} --out runs/1")
