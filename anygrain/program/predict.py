"""The verb predict: a model on new rows."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from anygrain.data.checks import row_keys
from anygrain.data.classes import Spelling
from anygrain.data.config import Config, parse_config
from anygrain.data.dataset import Columns, check_numbers, model_input, read_columns, row_ids
from anygrain.data.error import InputError, counted, quoted
from anygrain.data.table import Table, check_writable, read_table, write_table
from anygrain.metrics import expected_calibration_error, log_loss, mean_interval, wilson_interval
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
    coverage: float | None = None,
    overwrite: bool = False,
) -> None:
    """Predict the rows of a table, and write what is predicted of every row.

    Of classes: row id, class, probability, entropy and the next two classes. Of a number: row id, mean, standard
    deviation, and the ends of an interval.

    Args:
        run: folder of the run.
        source: table with the columns that the model was trained on.
        out: file to write.
        screen: where to say so.
        truth: column with the true class or number, to measure how good the predictions are.
        level: a level of the taxonomy to name as well, or "auto": the deepest node that is sure enough.
        coverage: share of true numbers that intervals are to hold; 0.9 when not given.
        overwrite: whether `out` may exist.

    Raises:
        InputError: bad input; nothing has been written.
    """
    from anygrain.labels import LabelError
    from anygrain.learn import Learner

    run, out = Path(run), Path(out)
    config = run_config(run)
    if config.space == "real" and level:
        raise InputError(f"--level is for classes, and {run} predicts a number. Leave it out")
    if coverage is not None and config.space != "real":
        raise InputError(f"--coverage is for numbers, and {run} predicts classes. Leave it out")
    if coverage is not None and not 0 < coverage < 1:
        raise InputError(f"--coverage is {coverage:g}. Expected a share between 0 and 1, such as 0.9")
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
    predicted: Predicted
    if config.space == "real":
        predicted = Numbers(learner, config, table, truth, 0.9 if coverage is None else coverage)
    else:
        predicted = Classes(learner, config, table, truth, level)
    try:
        columns_of = predicted.of(data)
    except LabelError as error:
        raise InputError(str(error)) from error
    result = {identity or "row": ids.tolist(), **columns_of}
    write_table(result, out)
    screen.line(f"{counted(len(table), 'row')} -> {out}  ({', '.join(result)})")
    _say_seen(config, table, columns, screen)
    if truth:
        screen.line(predicted.against_truth())
    elif shared := _label_column(config, table, predicted.kind):
        screen.line(f"{table.name} has {quoted(shared)}: add --truth {shared} to see {predicted.question}")
    screen.line(f"{predicted.summary()}. Next:  anygrain report {run} --open")


class Predicted(Protocol):
    """What is predicted of the rows of a table."""

    kind: str  # of labels that tell the truth
    question: str  # that the truth answers

    def of(self, data: Any) -> dict[str, Any]:
        """Columns to write."""

    def against_truth(self) -> str:
        """A sentence that compares with the true values."""

    def summary(self) -> str:
        """A few words about all rows."""


class Classes:
    """Predicted classes: the likeliest and its probability, entropy, the next two."""

    kind, question = "Exact", "how often the model is right"

    def __init__(self, learner: Any, config: Config, table: Table, truth: str, level: str):
        self.learner, self.level, self.column = learner, level, truth
        self.names = [str(c) for c in learner.classes_]
        self.true = _true_classes(table, truth, config, self.names) if truth else None

    def of(self, data: Any) -> dict[str, Any]:
        probs = np.concatenate([self.learner.predict_proba(part) for part in _chunks(data)])
        node = self.learner.predict(data, level=self.level) if self.level else None
        names = np.array(self.names, dtype=object)
        order = np.argsort(-probs, axis=1, kind="stable")[:, : min(3, probs.shape[1])]
        entropy = -np.where(probs > 0, probs * np.log(probs.clip(1e-300)), 0.0).sum(axis=1)
        rows = np.arange(len(probs))
        result: dict[str, Any] = {}
        for rank in range(order.shape[1]):
            end = f"_{rank + 1}" if rank else ""
            result[f"class{end}"] = names[order[:, rank]].tolist()
            result[f"probability{end}"] = probs[rows, order[:, rank]].astype(np.float32)
            if not rank:
                result["entropy"] = entropy.astype(np.float32)
        if node is not None:
            result["node"] = [str(v) for v in node]
        self.probs = probs
        return result

    def against_truth(self) -> str:
        assert self.true is not None
        known = self.true >= 0
        n = int(known.sum())
        if not n:
            return f"{quoted(self.column)} is empty: nothing to compare with"
        probs, true = self.probs[known], self.true[known]
        right = int((probs.argmax(axis=1) == true).sum())
        low, high = wilson_interval(right, n)
        return (
            f"on {counted(n, 'row')} with {quoted(self.column)}: accuracy {right / n:.2f} [{low:.2f}, {high:.2f}] · "
            f"log loss {log_loss(probs, true):.2f} · calibration error "
            f"{expected_calibration_error(probs, true, bins=10):.2f}"
        )

    def summary(self) -> str:
        return f"mean probability of the named class {float(self.probs.max(axis=1).mean()):.2f}"


class Numbers:
    """A predicted number: mean, standard deviation, and an interval."""

    kind, question = "Value", "how far off the model is"

    def __init__(self, learner: Any, config: Config, table: Table, truth: str, coverage: float):
        self.learner, self.coverage, self.column = learner, coverage, truth
        self.true = _true_numbers(table, truth, config) if truth else None

    def of(self, data: Any) -> dict[str, Any]:
        parts = [
            (*self.learner.predict_distribution(part), *self.learner.predict_interval(part, coverage=self.coverage).T)
            for part in _chunks(data)
        ]
        self.mean, sd, self.low, self.high = (np.concatenate(column) for column in zip(*parts, strict=True))
        return {"mean": self.mean, "sd": sd, "low": self.low, "high": self.high}

    def against_truth(self) -> str:
        assert self.true is not None
        known = ~np.isnan(self.true)
        n = int(known.sum())
        if not n:
            return f"{quoted(self.column)} is empty: nothing to compare with"
        true, mean = self.true[known], self.mean[known]
        square = np.square(true - mean)
        low, high = (float(np.sqrt(end)) for end in mean_interval(square))
        total = float(np.square(true - true.mean()).sum())
        r2 = f" · R2 {1 - float(square.sum()) / total:.2f}" if total > 0 else ""
        held = int(((self.low[known] <= true) & (true <= self.high[known])).sum())
        return (
            f"on {counted(n, 'row')} with {quoted(self.column)}: RMSE {float(np.sqrt(square.mean())):.3g} "
            f"[{low:.3g}, {high:.3g}] · mean absolute error {float(np.abs(true - mean).mean()):.3g}{r2} · "
            f"{100 * held / n:.0f} % inside the {100 * self.coverage:g} % intervals"
        )

    def summary(self) -> str:
        return (
            f"mean {float(self.mean.mean()):.3g}, from {float(self.mean.min()):.3g} to {float(self.mean.max()):.3g} · "
            f"{100 * self.coverage:g} % intervals are {float((self.high - self.low).mean()):.3g} wide"
        )


def _chunks(data: Any) -> Iterator[Any]:
    for at in range(0, len(data), CHUNK):
        yield data[at : at + CHUNK]


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


def _label_column(config: Config, table: Table, kind: str) -> str:
    """A column of labels of one kind that the table has too."""
    return next((e.column for e in config.labels if e.kind == kind and e.column in table.columns and not e.source), "")


def _true_classes(table: Table, column: str, config: Config, names: list[str]) -> np.ndarray:
    from anygrain.data.classes import Classes as Known

    spelling = Spelling(config.data.missing, config.data.aliases, fold_case=config.data.fold_case)
    return Known(names, "the classes of the model", spelling).encode(
        spelling.read(table.strings(column)), column, table.name
    )


def _true_numbers(table: Table, column: str, config: Config) -> np.ndarray:
    from anygrain.data.kinds.numbers import number_cells

    spelling = Spelling(config.data.missing, config.data.aliases, fold_case=config.data.fold_case)
    return number_cells(table, table.require(column), spelling)


def _say_seen(config: Config, table: Table, columns: Columns, screen: Screen) -> None:
    """Say how many rows the model was trained on."""
    if not Path(config.data.source).is_file():
        return
    trained = set(row_keys(read_table(config.data.source), columns))
    seen = sum(row in trained for row in row_keys(table, columns))
    if seen:
        screen.line(f"worth knowing: {counted(seen, 'row')} stand in the training table as well")
