"""The verb predict: a model on new rows."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from anygrain.data.checks import row_keys
from anygrain.data.classes import Spelling
from anygrain.data.config import Config, parse_config
from anygrain.data.dataset import Columns, check_numbers, model_input, read_columns, row_ids
from anygrain.data.error import InputError, counted, quoted
from anygrain.data.table import Table, check_writable, read_table, write_table
from anygrain.metrics import expected_calibration_error, log_loss, wilson_interval
from anygrain.program.screen import Screen

CHUNK = 20_000


def run_config(run: Path) -> Config:
    """The configuration of a finished run.

    Raises:
        InputError: no finished run there.
    """
    if not run.is_dir():
        raise InputError(f"There is no run folder {run}. Expected one that anygrain fit wrote")
    if not (run / "config.toml").exists() or not (run / "model").is_dir():
        more = " It holds an unfinished run: add --resume to its fit" if (run / ".state").is_dir() else ""
        raise InputError(f"{run} holds no finished run (config.toml and model/).{more}")
    return parse_config(tomllib.loads((run / "config.toml").read_text(encoding="utf-8")), str(run / "config.toml"))


def predict(
    run: str | Path,
    source: str | Path,
    out: str | Path,
    screen: Screen,
    *,
    truth: str = "",
    level: str = "",
    overwrite: bool = False,
) -> None:
    """Predict the rows of a table, and write row id, class, probability, entropy and the next two classes.

    Args:
        run: folder of the run.
        source: table with the columns that the model was trained on.
        out: file to write.
        screen: where to say so.
        truth: column with the true class, to measure accuracy.
        level: a level of the taxonomy to name as well, or "auto": the deepest node that is sure enough.
        overwrite: whether `out` may exist.

    Raises:
        InputError: bad input; nothing has been written.
    """
    from anygrain.labels import LabelError
    from anygrain.learn import Learner

    run, out = Path(run), Path(out)
    config = run_config(run)
    check_writable(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists. Choose another --out, or add --overwrite")
    try:
        learner = Learner.load(run)
    except LabelError as error:
        raise InputError(str(error)) from error
    table = read_table(source)
    identity = config.data.id if config.data.id in table.columns else ""
    ids = row_ids(table, identity)
    columns = read_columns(config, table)
    _same_types(columns, config, run, table)
    check_numbers(table, columns, ids)
    data = model_input(table, columns, ids)
    true = _truth(table, truth, config, [str(c) for c in learner.classes_]) if truth else None
    try:
        parts = [learner.predict_proba(data[at : at + CHUNK]) for at in range(0, len(table), CHUNK)]
        node = learner.predict(data, level=level) if level else None
    except LabelError as error:
        raise InputError(str(error)) from error
    probs = np.concatenate(parts)
    names = np.array([str(c) for c in learner.classes_], dtype=object)
    order = np.argsort(-probs, axis=1, kind="stable")[:, : min(3, probs.shape[1])]
    entropy = -np.where(probs > 0, probs * np.log(probs.clip(1e-300)), 0.0).sum(axis=1)
    rows = np.arange(len(table))
    result: dict[str, Any] = {identity or "row": ids.tolist()}
    for rank in range(order.shape[1]):
        end = f"_{rank + 1}" if rank else ""
        result[f"class{end}"] = names[order[:, rank]].tolist()
        result[f"probability{end}"] = probs[rows, order[:, rank]].astype(np.float32)
        if not rank:
            result["entropy"] = entropy.astype(np.float32)
    if node is not None:
        result["node"] = [str(v) for v in node]
    write_table(result, out)
    screen.line(f"{counted(len(table), 'row')} -> {out}  ({', '.join(result)})")
    _say_seen(config, table, columns, screen)
    if true is not None:
        _say_truth(probs, true, truth, screen)
    elif shared := _exact_columns(config, table):
        screen.line(f"{table.name} has {quoted(shared)}: add --truth {shared} to see how often the model is right")
    screen.line(
        f"mean probability of the named class {float(probs.max(axis=1).mean()):.2f}. Next:  anygrain report {run} "
        "--open"
    )


def _same_types(columns: Any, config: Config, run: Path, table: Table) -> None:
    """Raise where a column that was numbers is something else now."""
    import json

    model = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    known = dict(tuple(c) for c in model["encoder"]["config"].get("columns") or [])
    for column in columns.categories:
        if known.get(column) in ("number", "date"):
            values = table.strings(column)
            raise InputError(
                f"{table.name}: {quoted(column)} was a column of {known[column]}s in training and is not here (it "
                f"holds {quoted(values[0])})"
            )
    for column in list(columns.numbers):
        if known.get(column) in ("category", "text"):
            columns.numbers.remove(column)
            columns.categories.append(column)


def _exact_columns(config: Config, table: Table) -> str:
    return next(
        (e.column for e in config.labels if e.kind == "Exact" and e.column in table.columns and not e.source), ""
    )


def _truth(table: Table, column: str, config: Config, names: list[str]) -> np.ndarray:
    from anygrain.data.classes import Classes

    spelling = Spelling(config.data.missing, config.data.aliases, fold_case=config.data.fold_case)
    classes = Classes(names, "the classes of the model", spelling)
    return classes.encode(spelling.read(table.strings(column)), column, table.name)


def _say_truth(probs: np.ndarray, true: np.ndarray, column: str, screen: Screen) -> None:
    known = true >= 0
    n = int(known.sum())
    if not n:
        screen.line(f"{quoted(column)} is empty: nothing to compare with")
        return
    right = int((probs[known].argmax(axis=1) == true[known]).sum())
    low, high = wilson_interval(right, n)
    screen.line(
        f"on {counted(n, 'row')} with {quoted(column)}: accuracy {right / n:.2f} [{low:.2f}, {high:.2f}] · log loss "
        f"{log_loss(probs[known], true[known]):.2f} · calibration error "
        f"{expected_calibration_error(probs[known], true[known], bins=10):.2f}"
    )


def _say_seen(config: Config, table: Table, columns: Columns, screen: Screen) -> None:
    """Say how many rows the model was trained on."""
    if not Path(config.data.source).is_file():
        return
    trained = set(row_keys(read_table(config.data.source), columns))
    seen = sum(row in trained for row in row_keys(table, columns))
    if seen:
        screen.line(f"worth knowing: {counted(seen, 'row')} stand in the training table as well")
