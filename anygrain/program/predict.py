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
from anygrain.data.table import Table, check_writable, is_pattern, read_table, write_table
from anygrain.metrics import (
    expected_calibration_error,
    log_loss,
    macro_tag_f1,
    mean_average_precision,
    mean_interval,
    micro_f1,
    ranking_loss,
    tag_scores,
    wilson_interval,
)
from anygrain.program.measure_tags import named
from anygrain.program.predict_units import check_unit, instances_of_bags, sets_of_rows
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


def fitted_config(run: Path) -> Config:
    """The configuration of a finished run of fit, whose labels can be read again.

    Raises:
        InputError: no finished run there, or one of discover.
    """
    config = run_config(run)
    if (run / "classes.csv").exists():
        raise InputError(
            f"{run} holds classes that anygrain discover found. Expected a run of fit: make them labels first, with "
            f'kind = "Exact", source = "{run / "labels.parquet"}", id = "row", column = "name"'
        )
    return config


def predict(
    run: str | Path,
    source: str | Path,
    out: str | Path,
    screen: Screen,
    *,
    truth: str = "",
    level: str = "",
    coverage: float | None = None,
    threshold: float | None = None,
    unit: str = "row",
    instances: str = "",
    overwrite: bool = False,
) -> None:
    """Predict the rows of a table, and write what is predicted of every row.

    Of classes: row id, class, probability, entropy and the next two classes. Of a number: row id, mean, standard
    deviation, and the ends of an interval. Of tags: row id, the tags above a threshold, and the probability of each.

    Args:
        run: folder of the run.
        source: table with the columns that the model was trained on.
        out: file to write.
        screen: where to say so.
        truth: column with the true class or number, or the list of tags, to measure how good the predictions are; of
            tags also a pattern, such as "is_*", of 0 / 1 columns.
        level: a level of the taxonomy to name as well, or "auto": the deepest node that is sure enough.
        coverage: share of true numbers that intervals are to hold; 0.9 when not given.
        threshold: probability above which a tag is named; 0.5 when not given.
        unit: "instance" writes the instances of rows that are bags, "set" the bags of rows that are instances; else
            the rows of the table.
        instances: where the instances of bags lie, as data.instances; where those of the training were, or a folder or
            file of that name beside the table, when not given.
        overwrite: whether `out` may exist.

    Raises:
        InputError: bad input; nothing has been written.
    """
    from anygrain.labels import LabelError
    from anygrain.learn import Learner

    run, out = Path(run), Path(out)
    config = run_config(run)
    _check_options(config, run, level=level, coverage=coverage, threshold=threshold)
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
    check_unit(unit, config, table)
    if config.data.instances:
        config.data.instances = _instances_beside(Path(source), config.data.instances, instances, run)
    columns = read_columns(config, table)
    _same_types(columns, config, run, table)
    check_numbers(table, columns, ids)
    data = model_input(table, columns, ids)
    if unit != "row":
        if truth or level:
            raise InputError(f"--unit {unit} writes chances only. Leave out --truth and --level")
        try:
            result, said = (
                instances_of_bags(learner, data, identity, ids)
                if unit == "instance"
                else sets_of_rows(learner, data, table, config)
            )
        except LabelError as error:
            raise InputError(str(error)) from error
        write_table(result, out)
        screen.line(f"{said} -> {out}  ({', '.join(result)})")
        return
    predicted: Predicted
    if config.space == "real":
        predicted = Numbers(learner, config, table, truth, 0.9 if coverage is None else coverage)
    elif config.space == "tags":
        predicted = TagLists(learner, config, table, truth, 0.5 if threshold is None else threshold)
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


def _instances_beside(source: Path, known: str, given: str, run: Path) -> str:
    """Where the bags of a table lie: where it is said, beside the table, or where those of the training were.

    Raises:
        InputError: nothing is there.
    """
    if given:
        return str(Path(given).resolve()) if Path(given).exists() else given
    beside = source.parent / Path(known).name
    if beside.exists():
        return str(beside.resolve())
    if "/" in known and not Path(known).exists():
        raise InputError(f"{known}, where {run} had its bags, is not there. Add --instances FOLDER")
    return known


def _check_options(config: Config, run: Path, *, level: str, coverage: float | None, threshold: float | None) -> None:
    """Raise for options that mean nothing for the model, or lie outside their range."""
    predicts = {"classes": "classes", "real": "a number", "tags": "tags"}[config.space]
    for option, given, of, space in (
        ("--level", level or None, "classes", "classes"),
        ("--coverage", coverage, "numbers", "real"),
        ("--threshold", threshold, "tags", "tags"),
    ):
        if given is not None and config.space != space:
            raise InputError(f"{option} is for {of}, and {run} predicts {predicts}. Leave it out")
    if coverage is not None and not 0 < coverage < 1:
        raise InputError(f"--coverage is {coverage:g}. Expected a share between 0 and 1, such as 0.9")
    if threshold is not None and not 0 <= threshold < 1:
        raise InputError(f"--threshold is {threshold:g}. Expected a probability of at least 0 and below 1, such as 0.5")


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


class TagLists:
    """Predicted tags: those above a threshold, and the probability of each."""

    kind, question = "Tags", "how often the model is right"

    def __init__(self, learner: Any, config: Config, table: Table, truth: str, threshold: float):
        self.learner, self.threshold, self.column = learner, threshold, truth
        self.names = tuple(str(name) for name in learner.tag_names_)
        self.true = _true_tags(table, truth, config, self.names) if truth else None

    def of(self, data: Any) -> dict[str, Any]:
        self.probs = np.concatenate([self.learner.predict_proba(part) for part in _chunks(data)])
        each = {f"p_{name}": column.astype(np.float32) for name, column in zip(self.names, self.probs.T, strict=True)}
        return {"tags": named(self.probs > self.threshold, self.names), **each}

    def against_truth(self) -> str:
        assert self.true is not None
        rows = (self.true >= 0).any(axis=1)
        if not rows.any():
            return f"{quoted(self.column)} is empty: nothing to compare with"
        probs, true = self.probs[rows], self.true[rows]
        known = true >= 0
        kept = tag_scores(probs, true, threshold=self.threshold)
        parts = [
            f"{name} {value:.2f}"
            for name, value in (
                ("mAP", mean_average_precision(probs, true)),
                ("micro F1", micro_f1(probs, true, threshold=self.threshold)),
                ("macro F1", macro_tag_f1(probs, true, threshold=self.threshold)),
                ("log loss", float((kept.log_loss * kept.known)[kept.known > 0].sum() / known.sum())),
                ("ranking loss", ranking_loss(probs, true)),
            )
            if value == value
        ]
        return f"on {counted(int(rows.sum()), 'row')} with {quoted(self.column)}: {' · '.join(parts)}"

    def summary(self) -> str:
        return f"{float((self.probs > self.threshold).sum(axis=1).mean()):.1f} tags a row above {self.threshold:g}"


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


def _true_tags(table: Table, column: str, config: Config, names: tuple[str, ...]) -> np.ndarray:
    """What is true of every row and tag (N, L), 1, 0 or -1, read as the labels of the run were."""
    from anygrain.data.classes import Classes as Known
    from anygrain.data.config import TagsColumns
    from anygrain.data.evidence import Rows
    from anygrain.data.kinds.tags import read_tags

    spelling = Spelling(config.data.missing, config.data.aliases, fold_case=config.data.fold_case)
    rows = Rows(table, row_ids(table, config.data.id if config.data.id in table.columns else ""), "", spelling)
    like = next((e for e in config.labels if e.column or e.columns), config.labels[0])
    where = {"columns": [column]} if is_pattern(column) else {"column": column}
    entry = TagsColumns(name="truth", separator=like.separator, unlisted=like.unlisted, empty=like.empty, **where)
    cells = read_tags(entry, table, np.arange(len(table)), [], rows)
    if entry.column:
        cells.names = list(names)
    return cells.table(Known(names, "the tags of the model", spelling), rows.ids)[0]


def _say_seen(config: Config, table: Table, columns: Columns, screen: Screen) -> None:
    """Say how many rows the model was trained on."""
    if not Path(config.data.source).is_file():
        return
    if columns.instances:  # bags are known by their ids
        trained = set(read_table(config.data.source).strings(config.data.id).tolist())
        seen = sum(row in trained for row in table.strings(config.data.id).tolist())
    else:
        trained = set(row_keys(read_table(config.data.source), columns))
        seen = sum(row in trained for row in row_keys(table, columns))
    if seen:
        screen.line(f"worth knowing: {counted(seen, 'row')} stand in the training table as well")
