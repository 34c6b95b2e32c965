"""Predictions of the other unit: instances of rows that are bags, and bags of rows that are instances."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from anygrain.data.bag_data import BagData
from anygrain.data.config import Config
from anygrain.data.error import InputError, counted, quoted
from anygrain.data.table import Table
from anygrain.labels import Bags, LabelError

UNITS = ("row", "instance", "set")


def check_unit(unit: str, config: Config, table: Table) -> None:
    """Raise for a unit that is none, or that a run does not have.

    Raises:
        InputError: one line.
    """
    if unit not in UNITS:
        raise InputError(f"--unit is {quoted(unit)}. Expected one of {', '.join(UNITS)}")
    if unit == "row":
        return
    if config.space != "classes":
        raise InputError(f"--unit {unit} is for classes. Leave it out")
    if unit == "instance" and not config.data.instances:
        raise InputError("--unit instance is for a run of bags (data.instances). Here rows are instances: leave it out")
    if unit == "set":
        if config.data.instances:
            raise InputError("--unit set is for rows that are instances. Here rows are bags: leave it out")
        if not config.data.bag:
            raise InputError(
                "--unit set needs to know which rows make a bag. The run has no data.bag, a column of bag ids"
            )
        table.require(config.data.bag)


def instances_of_bags(learner: Any, data: BagData, identity: str, ids: np.ndarray) -> tuple[dict[str, Any], str]:
    """Columns of a row per instance: the bag, its number there, its place, probabilities, attention; and a sentence.

    Bags are read one chunk after another.
    """
    names = [f"p_{c}" for c in learner.classes_]
    parts: list[dict[str, np.ndarray]] = []
    with_attention = True
    for rows in _chunks(data):
        here = data[rows]
        probs = learner.predict_proba(here, unit="instance")
        sizes = here.sizes.numpy()
        found = {
            identity or "row": np.repeat(ids[rows], sizes),
            "instance": np.concatenate([np.arange(size) for size in sizes.tolist()]),
        }
        if data.has_coords:
            found["x"], found["y"] = np.asarray(here.coords).T
        found |= {name: column.astype(np.float32) for name, column in zip(names, probs.T, strict=True)}
        if with_attention:
            try:
                found["attention"] = np.asarray(learner.attention(here), dtype=np.float32)
            except LabelError:  # this model has none
                with_attention = False
        parts.append(found)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    said = f"{counted(data.n_instances, 'instance')} of {counted(len(data), 'bag')}"
    return {name: values.tolist() if values.dtype == object else values for name, values in columns.items()}, said


def _chunks(data: BagData, at_once: int = 1 << 18) -> list[np.ndarray]:
    """Rows of bags that have about so many instances together."""
    chunk = (data.sizes.cumsum(0).numpy() - 1) // at_once
    return [np.flatnonzero(chunk == number) for number in np.unique(chunk)]


def sets_of_rows(learner: Any, data: Any, table: Table, config: Config) -> tuple[dict[str, Any], str]:
    """Columns of a row per bag: its id, how many rows it has, and what is predicted of it; and a sentence."""
    ids = table.strings(config.data.bag).astype(str)
    inside = np.flatnonzero(ids != "")
    if not len(inside):
        raise InputError(f"{table.name}: {quoted(config.data.bag)} is empty. Expected a bag id for the rows of a bag")
    names, bag = np.unique(ids[inside], return_inverse=True)
    of_row = np.full(len(ids), -1)
    of_row[inside] = bag
    bags = Bags.from_ids(torch.from_numpy(of_row))
    result: dict[str, Any] = {config.data.bag: names.tolist(), "rows": np.bincount(bag)}
    questions = list(learner.questions_)
    if not questions:
        raise InputError("--unit set: the labels of this run asked nothing of bags that can be asked of others")
    for number, question in enumerate(questions):
        chances = learner.predict_proba(data, unit="set", bags=bags, question=number)
        answers = question.columns or [str(c) for c in learner.classes_]
        before = f"{question.kind}_" if len(questions) == 1 else f"{question.kind}{number + 1}_"
        result |= {f"{before}{name}": chances[:, at].astype(np.float32) for at, name in enumerate(answers)}
    return result, f"{counted(len(inside), 'row')} in {counted(len(names), 'bag')}"
