"""The configuration of a run: what is read, how, and every default.

A configuration is TOML: a table ``[data]``, one ``[[labels]]`` per kind of label, ``[encoder]``, ``[learn]`` and
``[output]``. Paths are relative to the file. Every setting may be given on the command line as well,
``--set learn.seed=1``; labels are addressed by name, ``--set labels.department.error=0.02``.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from anygrain.data.error import InputError, quoted, some
from anygrain.data.exchange.reading import ROW
from anygrain.data.table import wrong_encoding
from anygrain.data.toml import lines_of, to_toml


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_listed)]
Probability = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False, validate_default=False)


class Data(Section):
    """The table of instances and its columns."""

    source: str
    #: column of row ids; without it rows are known by their number, from 0 on
    id: str = ""
    #: column or columns of text
    text: Names = []
    #: number, category and date columns, by name or pattern
    columns: Names = []
    #: number columns that are features already (embeddings), by name or pattern
    features: Names = []
    #: column of images: paths relative to the table, or encoded bytes; the model then sees nothing else
    images: str = ""
    #: images that cannot be read: refuse them, or see them as images of one colour
    unreadable: Literal["stop", "blank"] = "stop"
    #: bags as rows: a folder with a file per row, named by its id (NPZ, NPY, HDF5, Zarr), a Parquet file of bags with
    #: the row id, or a column of lists in the source; the model then sees nothing else
    instances: str = ""
    #: rows of one group stay together when rows are held out
    group: str = ""
    #: column of bag ids
    bag: str = ""
    #: two columns of places, left and top, for the report's pictures of bags of rows; the model does not see them
    coords: Names = []
    #: cells that count as empty, besides "", NA, NaN and null
    missing: Names = []
    #: other spellings of class names, alias = name
    aliases: dict[str, str] = {}
    #: whether "Modem" and "modem" are the same class
    fold_case: bool = False


class LabelColumns(Section):
    """What every kind of label may say."""

    kind: str
    #: what to call it in messages; found from the columns when left out
    name: str = ""
    #: a table of its own, joined by row id; the data source when left out
    source: str = ""
    #: the labelling tool that exported the source: its answers are then the columns row, annotator and answer
    format: Literal["", "label-studio", "argilla", "doccano"] = ""
    #: of an export: which of its questions, where it has several
    question: str = ""
    #: of an export: all answers, those that the tool marks as the truth, or only the others
    answers: Literal["all", "certain", "votes"] = "all"
    #: column of row ids there; that of the data source when left out
    id: str = ""
    #: labels for rows that the data source does not have
    unknown_rows: Literal["stop", "drop"] = "stop"
    #: factor in the training loss
    weight: Annotated[float, Field(gt=0)] = 1.0
    #: whether the labels were drawn by a program, which is then said wherever they count
    simulated: bool = False

    @model_validator(mode="before")
    @classmethod
    def _columns_of_an_export(cls, given: Any) -> Any:
        """An export has the same columns always, so they need not be named."""
        if not isinstance(given, dict) or not given.get("format"):
            return given
        columns = {"id": ROW, "annotator": "annotator", "vote": "answer", "rating": "answer", "column": "answer"}
        if "tag" in cls.model_fields:  # one answer per tag chosen, or to the question about one tag
            columns = {"id": ROW, **({"value": "answer"} if "tag" in given else {"tag": "answer"})}
        return {**{k: v for k, v in columns.items() if k in cls.model_fields}, **given}


class Hard(LabelColumns):
    #: probability that a label was given without regard to the truth
    error: Probability = 0.0


class OneColumn(Hard):
    column: str
    taxonomy: str = ""
    #: several different labels of one row in a table of labels
    repeats: Literal["stop", "first", "last"] = "stop"


class ExactColumns(OneColumn):
    """The class."""

    kind: Literal["Exact"] = "Exact"


class CoarseColumns(OneColumn):
    """A node of the taxonomy above the class, at any depth."""

    kind: Literal["Coarse"] = "Coarse"
    #: name of the level the labels belong to; any when left out
    level: str = ""


class SoftColumns(LabelColumns):
    """A probability per class, one column each."""

    kind: Literal["Soft"] = "Soft"
    columns: Names
    #: the class of each column; what the pattern's star stands for when left out
    classes: Names = []
    meaning: Literal["target", "evidence", "posterior"] = "target"
    #: rows that do not sum to 1: rescale them, empty cells being 0
    normalize: bool = False
    taxonomy: str = ""


class SetColumns(Hard):
    #: one column of "a|b" cells or JSON lists, or one 0 / 1 column per class
    columns: Annotated[list[str], BeforeValidator(_listed)] = []
    column: str = ""
    classes: Names = []
    separator: str = "|"
    taxonomy: str = ""


class CandidatesColumns(SetColumns):
    """Some classes, one of which is true."""

    kind: Literal["Candidates"] = "Candidates"


class ComplementaryColumns(SetColumns):
    """Some classes, none of which is true."""

    kind: Literal["Complementary"] = "Complementary"


class IntervalColumns(Hard):
    """The lowest and highest class that an ordered class can have; an empty cell is an open end."""

    kind: Literal["Interval"] = "Interval"
    low: str
    high: str


class NoisyColumns(LabelColumns):
    """A class that is often wrong, by a transition matrix that is given or estimated."""

    kind: Literal["Noisy"] = "Noisy"
    column: str
    #: table of the transition matrix: a row per true class, a column per class said, in the order of its header
    transition: str = ""
    repeats: Literal["stop", "first", "last"] = "stop"
    taxonomy: str = ""


class CrowdColumns(LabelColumns):
    """Votes of annotators: one column per annotator, or a table of item, annotator, vote."""

    kind: Literal["Crowd"] = "Crowd"
    columns: Names = []
    #: or how many votes each class got, one column per class; who gave them is not known
    counts: Names = []
    #: the class of each column of counts; what the pattern's star stands for when left out
    classes: Names = []
    item: str = ""
    annotator: str = ""
    vote: str = ""
    #: several votes of one annotator on one row
    repeats: Literal["stop", "first", "last", "both"] = "stop"
    channel: Literal["OneCoin", "ClassCoin", "Confusion", "Spammer", "Groups", "Difficulty", "Ordinal"] = "Confusion"
    taxonomy: str = ""


class RulesColumns(LabelColumns):
    """What labelling rules say, one column per rule; an empty cell abstains."""

    kind: Literal["Rules"] = "Rules"
    columns: Names
    #: whether the rules read the same columns as the model, so that their votes are no further evidence
    given_x: bool = True
    #: rules that depend on each other: "discount" counts them less, "learn" finds dependent pairs, "none" takes them to
    #: be independent; or pairs of columns
    dependencies: Literal["discount", "learn", "none"] | list[list[str]] = "discount"
    taxonomy: str = ""


class BagColumns(Hard):
    #: column of bag ids, in the data source and in the table of bags
    bag: str = ""


class AnyOfColumns(BagColumns):
    """Whether a bag holds at least one instance of a class."""

    kind: Literal["AnyOf"] = "AnyOf"
    column: str
    #: the class or classes looked for
    target: Names
    #: cells that mean yes, and no
    yes: Names = ["1", "true", "True", "yes"]
    no: Names = ["0", "false", "False", "no"]


class AtLeastColumns(BagColumns):
    """At least how many instances of a class a bag holds."""

    kind: Literal["AtLeast"] = "AtLeast"
    column: str
    #: the class or classes counted
    target: Names


class AtMostColumns(BagColumns):
    """At most how many instances of a class a bag holds."""

    kind: Literal["AtMost"] = "AtMost"
    column: str
    #: the class or classes counted
    target: Names


class BetweenColumns(BagColumns):
    """The lowest and highest number of instances of a class that a bag holds; an empty cell is an open end."""

    kind: Literal["Between"] = "Between"
    low: str = ""
    high: str = ""
    #: the class or classes counted
    target: Names


class MajorityColumns(BagColumns):
    """The most frequent class of a bag."""

    kind: Literal["Majority"] = "Majority"
    column: str


class SetLabelColumns(BagColumns):
    """The most frequent coarse class of a bag, the number of its different classes, or its highest class."""

    kind: Literal["SetLabel"] = "SetLabel"
    column: str
    #: "majority" counts classes, or with a taxonomy or level coarse ones; "highest" goes by the order of the classes
    rule: Literal["majority", "distinct", "highest"] = "majority"
    taxonomy: str = ""
    #: name of the level of the taxonomy; the one right above the classes when left out
    level: str = ""


class AutomatonColumns(BagColumns):
    """What a finite automaton makes of the classes of a bag, read row by row."""

    kind: Literal["Automaton"] = "Automaton"
    column: str
    #: table of state, class, next state and, where several are possible, probability
    transition: str
    #: the first state; that of the table's first row when left out
    initial: str = ""
    #: the final states that make each label: final = { good = ["a", "b"], bad = ["c"] }; the state itself when left out
    final: dict[str, Names] = {}


class AggregateColumns(BagColumns):
    """The sum, or mean, of a known value per class over a bag."""

    kind: Literal["Aggregate"] = "Aggregate"
    column: str
    #: value of every class: values = { small = 1, large = 2.5 }
    values: dict[str, float]
    how: Literal["sum", "mean"] = "sum"
    #: standard deviation of the reading; 0: it is exact
    noise: Annotated[float, Field(ge=0)] = 0.0


class CountsColumns(BagColumns):
    """How many instances of each class a bag holds, one column per class."""

    kind: Literal["Counts"] = "Counts"
    columns: Names
    classes: Names = []


class ProportionsColumns(BagColumns):
    """Which share of a bag each class has, one column per class."""

    kind: Literal["Proportions"] = "Proportions"
    columns: Names
    classes: Names = []
    #: number of draws that the shares were estimated from; 0: they are exact
    noise: Annotated[float, Field(ge=0)] = 0.0
    #: shares that do not sum to 1: rescale them
    normalize: bool = False


class AnsweredPairs(Hard):
    first: str
    second: str
    column: str
    yes: Names = ["1", "true", "True", "yes", "same"]
    no: Names = ["0", "false", "False", "no", "different"]


class PairsColumns(AnsweredPairs):
    """Whether two rows have the same class: a table of two row ids and an answer."""

    kind: Literal["Pairs"] = "Pairs"


class PairsUnlabeledColumns(AnsweredPairs):
    """Pairs that were drawn as pairs of the same class, or of different ones, beside rows that were drawn alone."""

    kind: Literal["PairsUnlabeled"] = "PairsUnlabeled"
    #: share of each class in the population: prior = { ham = 0.7, spam = 0.3 }
    prior: dict[str, float]


class CompareColumns(Hard):
    """Which of two rows has the higher class: a table of two row ids and >, >=, =, <= or < (or left, right)."""

    kind: Literal["Compare"] = "Compare"
    first: str
    second: str
    column: str


class PositiveColumns(OneColumn):
    """Rows known to be of one class, by its name; empty cells are unlabelled, of that class or not."""

    kind: Literal["Positive"] = "Positive"
    #: the class of labelled rows
    target: str
    #: its share in the population; 0: estimated
    prior: Probability = 0.0
    #: "single": a random part of the positives is labelled; "case-control": positives were drawn apart
    scenario: Literal["single", "case-control"] = "single"


class TwoUnlabeledColumns(OneColumn):
    """Which of two sets a row was drawn from, whose class priors are known."""

    kind: Literal["TwoUnlabeled"] = "TwoUnlabeled"
    #: share of the target class in each set, by its name in the column
    priors: dict[str, float]
    #: the class that the priors are about; the second when left out
    target: str = ""
    #: share of the target class in the population that predictions are for; 0: as in both sets together
    prior: Probability = 0.0


class SampledColumns(OneColumn):
    """Which of several sets a row was drawn from, whose class shares are known."""

    kind: Literal["Sampled"] = "Sampled"
    #: share of each class in each set: shares = { north = { ham = 0.8, spam = 0.2 }, ... }
    shares: dict[str, dict[str, float]]
    #: share of each class in the population that predictions are for; as in all sets together when left out
    prior: dict[str, float] = {}


class NumberColumns(LabelColumns):
    """Labels of a number, not of a class."""


class ValueColumns(NumberColumns):
    """The number."""

    kind: Literal["Value"] = "Value"
    column: str
    #: standard deviation of the reading; 0: it is the number itself
    noise: Annotated[float, Field(ge=0)] = 0.0
    #: several different numbers of one row in a table of labels
    repeats: Literal["stop", "first", "last"] = "stop"


class CensoredColumns(NumberColumns):
    """The lowest and highest value that the number can have; an empty cell is an open end."""

    kind: Literal["Censored"] = "Censored"
    low: str = ""
    high: str = ""


class RatingsColumns(NumberColumns):
    """Numbers that annotators gave: one column per annotator, or a table of item, annotator, rating."""

    kind: Literal["Ratings"] = "Ratings"
    columns: Names = []
    item: str = ""
    annotator: str = ""
    rating: str = ""
    #: whether annotators may stretch or narrow the scale
    slope: bool = False
    #: several ratings of one annotator on one row
    repeats: Literal["stop", "first", "last", "both"] = "stop"


class AggregateValueColumns(NumberColumns):
    """The mean, or the sum, of the numbers of a bag."""

    kind: Literal["AggregateValue"] = "AggregateValue"
    #: column of bag ids, in the data source and in the table of bags
    bag: str = ""
    column: str
    how: Literal["mean", "sum"] = "mean"
    #: standard deviation of the mean or sum; 0: it is exact
    noise: Annotated[float, Field(ge=0)] = 0.0


class TagsColumns(Hard):
    """Which of several tags a row has, as far as known."""

    kind: Literal["Tags"] = "Tags"
    #: column of cells that list the tags a row has: "a|b", or JSON lists
    column: str = ""
    #: or one 0 / 1 column per tag; an empty cell is not known
    columns: Names = []
    #: or the column of tags in a table with a row per row id and tag
    tag: str = ""
    #: whether that row has the tag, 1 or 0, in such a table; it has when left out
    value: str = ""
    #: column of cells that list tags which a row lacks
    absent: str = ""
    #: the tags that these labels speak of, in the order of the columns; found in the cells, or in what the pattern's
    #: star stands for, when left out
    classes: Names = []
    separator: str = "|"
    #: tags of which nothing is said of a row that has labels: "auto" is absent where cells or a table without values
    #: list tags, else unknown
    unlisted: Literal["auto", "absent", "unknown"] = "auto"
    #: whether an empty cell of a list says nothing of the row, or that all tags are absent
    empty: Literal["unknown", "absent"] = "unknown"
    #: tags that no row has: refuse them, or leave them out
    unused: Literal["stop", "drop"] = "stop"
    #: a tag that a table says a row has, and has not
    repeats: Literal["stop", "first", "last"] = "stop"


KINDS: dict[str, type[LabelColumns]] = {
    "Exact": ExactColumns,
    "Soft": SoftColumns,
    "Coarse": CoarseColumns,
    "Candidates": CandidatesColumns,
    "Complementary": ComplementaryColumns,
    "Interval": IntervalColumns,
    "Noisy": NoisyColumns,
    "Crowd": CrowdColumns,
    "Rules": RulesColumns,
    "AnyOf": AnyOfColumns,
    "AtLeast": AtLeastColumns,
    "AtMost": AtMostColumns,
    "Between": BetweenColumns,
    "Majority": MajorityColumns,
    "SetLabel": SetLabelColumns,
    "Automaton": AutomatonColumns,
    "Aggregate": AggregateColumns,
    "Counts": CountsColumns,
    "Proportions": ProportionsColumns,
    "Pairs": PairsColumns,
    "PairsUnlabeled": PairsUnlabeledColumns,
    "Compare": CompareColumns,
    "Positive": PositiveColumns,
    "TwoUnlabeled": TwoUnlabeledColumns,
    "Sampled": SampledColumns,
    "Value": ValueColumns,
    "Censored": CensoredColumns,
    "Ratings": RatingsColumns,
    "AggregateValue": AggregateValueColumns,
    "Tags": TagsColumns,
}
#: what labels speak of: classes, the real number, tags
SpaceName = Literal["classes", "real", "tags"]
#: kinds that speak of a number, and those of classes that say the same
OF_NUMBERS = {
    "Value": ("Exact", "Noisy"),
    "Censored": ("Interval",),
    "Ratings": ("Crowd",),
    "AggregateValue": ("Counts", "Proportions"),
}


class Encoder(Section):
    """How an instance is seen. By default text is hashed tf-idf and tables are standardised: nothing is downloaded."""

    #: dimensions that text is brought to
    dim: Annotated[int, Field(ge=1)] = 256
    #: folder or name of a sentence encoder for text, in place of hashed tf-idf (needs anygrain[text])
    pretrained: str = ""
    #: what is trained of it: "last" (two layers), "lora" and "full" need a folder
    tune: Literal["none", "last", "lora", "full"] = "none"
    #: "hashed" tf-idf with an SVD, or a small "transformer" that is trained with the head
    text: Literal["hashed", "transformer"] = "hashed"
    #: "standardised", or "columns": a network over all columns, texts too, that is trained with the head
    table: Literal["standardised", "columns"] = "standardised"
    #: bags as rows: "auto" pools their instances as held-out bags choose; else a network by its aggregator,
    #: "attention", "transformer", "mamba", ..., or "mhim", "mhim2": attention trained on hard instances
    bags: str = "auto"
    #: network for images: "convolutional", "residual", or "timm:" and a name or folder (needs anygrain[vision])
    images: str = "convolutional"
    #: side to which images are brought; "auto" is the median side, at most 96
    size: Annotated[int, Field(ge=8)] | Literal["auto"] = "auto"
    #: whether to download the weights of a named network of timm
    download: bool = False


class Learn(Section):
    """How it is learnt; see `anygrain.learn.Learner`."""

    seed: int = 0
    #: a method for doubtful labels by name, with options: "gce", "gce:q=0.5"; `anygrain methods` lists them
    method: str = "default"
    #: numbers: "linear" is the better of "gaussian" and "gaussian-mlp" by held-out evidence; others are for classes
    head: Literal[
        "linear",
        "cosine",
        "prototype",
        "quadratic",
        "mlp",
        "small-mlp",
        "committee",
        "trees",
        "gaussian",
        "gaussian-mlp",
    ] = "linear"
    #: rounds of posterior and head
    rounds: Annotated[int, Field(ge=1)] = 4
    #: parts that rows are split in, so that a row is scored by heads that did not see it
    folds: Annotated[int, Field(ge=2)] = 2
    #: parts that exact labels are split in, to hold each out once; below 2: never
    exact_folds: Annotated[int, Field(ge=0)] = 3
    #: neighbours of a row in the graph that evidence spreads along; 0: no graph
    neighbours: Annotated[int, Field(ge=0)] = 10
    #: weight decay of the head
    penalty: Annotated[float, Field(ge=0)] = 0.01
    #: passes over the rows, where the encoder is trained with the head; "auto" is what the encoder likes
    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    #: rows at once there
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    #: highest learning rate there
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    #: batches per step there
    accumulate: Annotated[int, Field(ge=1)] = 1
    #: whether rows are changed a little, and strongly, so that they teach more, there
    augment: bool = True
    #: whether two more encoders are trained there, each on half of the rows, to score every row by one that did not see
    #: it; twice the time
    cross_fit: bool = True
    #: numbers there; other than 32 needs anygrain[train]
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    #: "auto" is a GPU if there is one
    device: str = "auto"
    #: what to do about rows that contradict themselves
    conflicts: Literal["stop", "soften"] = "stop"


class Discover(Section):
    """How classes are looked for; see `anygrain.discover.Discover`. Read by `anygrain discover` alone."""

    #: a method by name; `anygrain methods --discover` lists them
    method: str = "auto"
    #: how many classes there are, the known ones included: "auto" finds it, 20, [10, 30] for at least and at most, or
    #: for every coarse class: n_classes = { travel = 4, banking = 6 }
    n_classes: Literal["auto"] | Annotated[int, Field(ge=1)] | list[int] | dict[str, int] = "auto"
    #: how often the classes are looked for again in half of the rows, to see which are stable; 0: not at all
    bootstrap: Annotated[int, Field(ge=0)] = 5
    #: classes.csv of an earlier run, with what a person made of its classes; its labels.parquet lies beside it
    accepted: str = ""
    #: columns of classes that the search does not see, to compare with what it finds
    compare: Names = []


class Output(Section):
    """What is written."""

    #: whether to write report.html
    report: bool = True
    #: whether to place the rows on a map, for the report
    map: bool = True
    #: where the course of the fit is written besides log.jsonl: "tensorboard", "mlflow" (needs anygrain[track])
    loggers: list[Literal["tensorboard", "mlflow"]] = []


class Config(Section):
    """A whole configuration; build one with `load_config` or `parse_config`."""

    #: names of the classes, in order; found in the taxonomy or the labels when left out
    classes: list[str] = []
    #: taxonomy of all labels that do not name their own
    taxonomy: str = ""
    data: Data
    labels: list[Any] = []
    encoder: Encoder = Encoder()
    learn: Learn = Learn()
    discover: Discover = Discover()
    output: Output = Output()

    @property
    def space(self) -> SpaceName:
        """What the labels speak of; classes where there are none."""
        return space_of_label(self.labels[0]) if self.labels else "classes"

    def to_toml(self) -> str:
        """The configuration with every default written out."""
        return to_toml(self.settings())

    def settings(self) -> dict[str, Any]:
        """Plain values, labels by kind first; [discover] where it was given."""
        plain = self.model_dump(exclude={"labels"})
        labels = []
        for label in self.labels:
            dumped = label.model_dump()
            labels.append({"kind": dumped.pop("kind"), "name": dumped.pop("name"), **dumped})
        out = {k: plain[k] for k in ("classes", "taxonomy", "data")}
        sections = ("encoder", "learn", *(("discover",) if "discover" in self.model_fields_set else ()), "output")
        return {**out, "labels": labels, **{k: plain[k] for k in sections}}


def load_config(path: str | Path, settings: Sequence[str] = ()) -> Config:
    """A configuration file, with `key=value` settings on top; paths come out absolute.

    Raises:
        InputError: no such file, not TOML, a setting that is unknown or has the wrong type, with its line.
    """
    path = Path(path)
    if path.is_dir():
        inside = sorted(p.name for p in path.glob("*.toml"))
        hint = f"Did you mean {path / inside[0]}?" if inside else "Write one with: anygrain init TABLE"
        raise InputError(f"{path} is a folder. Expected a configuration, a .toml. {hint}")
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], n=1)
        hint = f" Did you mean {path.parent / near[0]}?" if near else " Write one with: anygrain init TABLE"
        raise InputError(f"There is no configuration {path}.{hint}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        raw = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise InputError(wrong_encoding(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name} is not TOML: {error}") from error
    config = parse_config(raw, path.name, lines_of(text), settings)
    return with_paths(config, path.parent)


def with_paths(config: Config, folder: Path) -> Config:
    """The configuration with its paths, relative to a folder until now, made absolute."""

    def absolute(value: str) -> str:
        return str((folder / value).resolve()) if value else ""

    config = config.model_copy(deep=True)
    config.taxonomy = absolute(config.taxonomy)
    config.data.source = absolute(config.data.source)
    if config.discover.accepted:
        config.discover.accepted = absolute(config.discover.accepted)
    if (folder / config.encoder.pretrained).is_dir():
        config.encoder.pretrained = absolute(config.encoder.pretrained)
    if config.data.instances and (folder / config.data.instances).exists():
        config.data.instances = absolute(config.data.instances)
    network = config.encoder.images.removeprefix("timm:")
    if network != config.encoder.images and (folder / network).is_dir():
        config.encoder.images = f"timm:{absolute(network)}"
    for label in config.labels:
        for name in ("source", "taxonomy", "transition"):
            if hasattr(label, name):
                setattr(label, name, absolute(getattr(label, name)))
    return config


def parse_config(
    raw: Mapping[str, Any],
    name: str = "the configuration",
    lines: Mapping[tuple[str | int, ...], int] | None = None,
    settings: Sequence[str] = (),
) -> Config:
    """A configuration from plain values.

    Args:
        raw: what TOML says.
        name: of the file, for messages.
        lines: of the settings in the file, for messages.
        settings: `key=value` on top.

    Raises:
        InputError: a setting that is unknown or has the wrong type.
    """
    values: dict[str, Any] = _copied(raw)
    given: dict[tuple[str | int, ...], str] = {}
    for setting in settings:
        _set(values, setting, given)
    problems: list[str] = []

    def at(path: tuple[str | int, ...]) -> str:
        if path in given:
            return f"--set {given[path]}: "
        line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None) if lines else None
        return f"{name} line {line}: " if line else f"{name}: "

    entries = values.pop("labels", [])
    if isinstance(entries, Mapping):
        entries = [entries]
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise InputError(
            f'{at(("labels",))}labels is no list of tables. Expected [[labels]] with kind = "Exact" and column = "..."'
        )
    labels: list[LabelColumns] = []
    for index, entry in enumerate(entries):
        kind = entry.get("kind")
        if kind not in KINDS:
            near = difflib.get_close_matches(str(kind).casefold(), [k.casefold() for k in KINDS], n=1)
            meant = next((k for k in KINDS if near and k.casefold() == near[0]), None)
            hint = f" Did you mean {quoted(meant)}?" if meant else ""
            said = f"{quoted(kind)} is not a kind of label" if kind else "a [[labels]] entry has no kind"
            problems.append(f"{at(('labels', index, 'kind'))}{said}.{hint} Kinds: {', '.join(KINDS)}")
            continue
        try:
            labels.append(KINDS[kind].model_validate(entry))
        except ValidationError as error:
            problems += _explained(error, KINDS[kind], ("labels", index), f"labels ({kind})", at)
    config: Config | None = None
    if "data" not in values:
        problems.append(
            f'{name} has no [data]. Expected [data] with source = "table.csv". Write one with: anygrain init TABLE'
        )
    else:
        try:
            config = Config.model_validate(values)
        except ValidationError as error:
            problems += _explained(error, Config, (), "", at)
    if problems or config is None:
        more = (
            f" (and {len(problems) - 1} more: {some([_short(p) for p in problems[1:]])})" if len(problems) > 1 else ""
        )
        raise InputError(problems[0] + more)
    config.labels = labels
    _name_labels(config)
    _check_space(config, name)
    return config


def space_of_label(label: LabelColumns) -> SpaceName:
    """What one kind of label speaks of."""
    return "real" if isinstance(label, NumberColumns) else "tags" if isinstance(label, TagsColumns) else "classes"


_SPEAK_OF = {"classes": "classes", "real": "a number", "tags": "tags"}
_ARE_OF = {"classes": "classes", "real": "numbers", "tags": "tags"}
_HEADS = {
    "classes": ("linear", "cosine", "prototype", "quadratic", "mlp", "small-mlp", "committee", "trees"),
    "real": ("linear", "gaussian", "gaussian-mlp"),
    "tags": ("linear",),
}


def _check_space(config: Config, name: str) -> None:
    """Raise where settings of classes, of a number and of tags are mixed.

    Raises:
        InputError: labels of two of them, or a setting that means nothing for the labels there are.
    """
    space = config.space
    first = config.labels[0] if config.labels else None
    other = next((label for label in config.labels if space_of_label(label) != space), None)
    if first is not None and other is not None:
        if space == "classes" or (space == "tags" and isinstance(other, NumberColumns)):  # the rarer one first
            first, other = other, first
        one, two = (_SPEAK_OF[space_of_label(label)] for label in (first, other))
        raise InputError(
            f"{name}: labels {quoted(first.name)} ({first.kind}) speak of {one}, {quoted(other.name)} ({other.kind}) "
            f"of {two}. Expected one of the two; fit the other with a configuration of its own.{_same(first, other)}"
        )
    if config.learn.head not in _HEADS[space]:
        expected = [quoted(head) for head in _HEADS[space]]
        fits = next(_ARE_OF[s] for s, heads in _HEADS.items() if config.learn.head in heads)
        raise InputError(
            f"{name}: learn.head {quoted(config.learn.head)} is for {fits}, and the labels speak of "
            f"{_SPEAK_OF[space]}. Expected {' or '.join(filter(None, (', '.join(expected[:-1]), expected[-1])))}"
        )
    settings = {"real": ("classes", "taxonomy"), "tags": ("taxonomy",)}.get(space, ())
    for setting in settings:
        if getattr(config, setting) and first is not None:
            raise InputError(
                f"{name}: {setting} is for labels of classes, and {quoted(first.name)} "
                f"{'is a number' if space == 'real' else 'lists tags'}. Remove it"
            )


def _same(first: LabelColumns, other: LabelColumns) -> str:
    """A hint where another kind may say the same of what the first speaks of."""
    if isinstance(first, NumberColumns):
        same = next((kind for kind, twins in OF_NUMBERS.items() if other.kind in twins), None)
        return f" Is {quoted(other.name)} the same number? kind = {quoted(same)}" if same else ""
    several = isinstance(other, SetColumns)
    return f' May a row of {quoted(other.name)} have several of them? kind = "Tags"' if several else ""


def _short(problem: str) -> str:
    return problem.split(". Did you mean")[0].split(". Expected")[0].split(". Kinds")[0]


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


def _name_labels(config: Config) -> None:
    """Give every entry a name of its own: the one given, its column, what its columns share, its file, or its kind."""
    taken: set[str] = set()
    for label in config.labels:
        columns = getattr(label, "columns", [])
        column = getattr(label, "column", "")
        name = label.name
        if not name and label.source:
            name = Path(label.source).stem
        if not name:
            name = column or (columns[0] if len(columns) == 1 else _shared(columns)) or label.kind.lower()
        name = name.strip("*?_- ") or label.kind.lower()
        label.name, count = name, 2
        while label.name in taken:
            label.name, count = f"{name}_{count}", count + 1
        taken.add(label.name)


def _shared(columns: Sequence[str]) -> str:
    """What the names of several columns begin with."""
    if not columns:
        return ""
    first, last = min(columns), max(columns)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:length].rstrip("0123456789")


# -- what is wrong ----------------------------------------------------------------------------------------------------


def _explained(
    error: ValidationError, model: type[BaseModel], prefix: tuple[str | int, ...], where: str, at: Any
) -> list[str]:
    out = []
    told = set()
    for fault in error.errors():
        location = tuple(part for part in fault["loc"] if not (isinstance(part, str) and part.startswith("function-")))
        owner, name = model, ""
        for depth, part in enumerate(location):
            fields = owner.model_fields if isinstance(owner, type) and issubclass(owner, BaseModel) else {}
            name = str(part) if isinstance(part, str) else name
            inner = fields[part].annotation if part in fields else None
            if inner is not None and isinstance(inner, type) and issubclass(inner, BaseModel) and part != location[-1]:
                owner = inner
            elif part in fields:
                location = location[: depth + 1]  # what follows is the branch of a union, or the place in a list
                break
        path = (*prefix, *location)
        if path in told and fault["type"] not in ("extra_forbidden", "missing"):
            continue
        told.add(path)
        dotted = ".".join(str(p) for p in location if isinstance(p, str))
        shown = f"{where}.{dotted}" if where else dotted
        start = at(path)
        if fault["type"] == "extra_forbidden":
            known = list(owner.model_fields)
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            if near:
                stem = shown[: len(shown) - len(name)]
                out.append(
                    f"{start}{shown} is not a setting. Did you mean {stem}{near[0]}? "
                    f"({_described(owner, near[0], limits=False)})"
                )
            else:
                out.append(f"{start}{shown} is not a setting. Settings: {', '.join(known)}")
        elif fault["type"] == "missing":
            out.append(f"{start}{shown} is missing. Expected {_described(owner, str(location[-1]))}")
        else:
            value = fault["input"]
            said = quoted(value) if isinstance(value, str) else repr(value)
            out.append(f"{start}{shown} is {said}. Expected {_described(owner, name)}")
    return sorted(out, key=lambda problem: "is not a setting" not in problem)


def _described(model: type[BaseModel], name: str, *, limits: bool = True) -> str:
    """What a setting takes, "int of at least 1, default 256"."""
    if name not in model.model_fields:
        return "a value"
    field = model.model_fields[name]
    text = _type(field.annotation) + (_limits(field.metadata) if limits else "")
    if field.is_required():
        return text
    default = field.get_default(call_default_factory=True)
    return f"{text}, default {to_toml({'x': default})[4:].strip()}" if not isinstance(default, BaseModel) else text


def _limits(metadata: Sequence[Any]) -> str:
    text = ""
    for limit in metadata:
        for attribute, words in (("ge", "of at least"), ("gt", "above"), ("lt", "below"), ("le", "of at most")):
            if getattr(limit, attribute, None) is not None:
                text += f" {words} {getattr(limit, attribute):g}"
    return text


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _type(inner) + _limits([limit for one in more for limit in getattr(one, "metadata", [one])])
    if origin is Literal:
        values = [quoted(a) for a in get_args(annotation)]
        return values[0] if len(values) == 1 else "one of " + ", ".join(values)
    if origin is list:
        inner = get_args(annotation)[0]
        if inner is int:
            return "list of ints"
        return f"a list with {_type(inner)}" if get_origin(inner) is Literal else "string or list of strings"
    if origin is dict:
        return "table of ints" if get_args(annotation)[1] is int else "table of strings"
    if origin in (Union, UnionType):
        return " or ".join(_type(a) for a in get_args(annotation))
    names = {int: "int", float: "number", bool: "true or false", str: "string"}
    return names.get(annotation, "table")


# -- settings on top --------------------------------------------------------------------------------------------------


def _set(raw: dict[str, Any], setting: str, given: dict[tuple[str | int, ...], str]) -> None:
    """Put one `key=value` where it belongs. A key may be short where only one setting ends like that."""
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not equals or not key:
        raise InputError(f"--set {setting} has no value. Expected key=value, such as --set learn.seed=1")
    path = _resolved(raw, key)
    target: Any = raw
    for part in path[:-1]:
        target = target[part] if isinstance(part, int) else target.setdefault(part, {})
    target[path[-1]] = _parsed(text.strip())
    given[path] = setting


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _resolved(raw: Mapping[str, Any], key: str) -> tuple[str | int, ...]:
    parts = tuple(key.split("."))
    entries = raw.get("labels", [])
    if parts[0] in _sections() or (len(parts) == 1 and parts[0] in ("classes", "taxonomy")):
        return parts
    if parts[0] == "labels":
        parts = parts[1:]
        if len(parts) == 1 and len(entries) == 1:
            return ("labels", 0, parts[0])
        if len(parts) > 1 and parts[0].isdigit() and int(parts[0]) < len(entries):
            return ("labels", int(parts[0]), *parts[1:])
        if len(parts) < 2:
            names = [_label_name(entry) for entry in entries]
            raise InputError(
                f"--set {key} does not say which labels. Expected labels.NAME.{parts[-1] if parts else 'setting'} "
                f"with one of {', '.join(names)}"
            )
    if len(parts) > 1:
        hits = [i for i, entry in enumerate(entries) if parts[0] in (_label_name(entry), entry.get("name"))]
        hits = hits or [
            i for i, entry in enumerate(entries) if str(entry.get("kind", "")).casefold() == parts[0].casefold()
        ]
        if len(hits) == 1:
            return ("labels", hits[0], *parts[1:])
        names = [_label_name(entry) for entry in entries]
        near = difflib.get_close_matches(parts[0], [*names, *_sections()], n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(
            f"--set {key}: there is no {parts[0]}.{hint} Expected data, encoder, learn, discover, output or labels: "
            f"{', '.join(names)}"
        )
    found = [(section, parts[0]) for section, model in _sections().items() if parts[0] in model.model_fields]
    found = [at for at in found if at[0] != "discover"] or found  # method alone is that of fit
    if len(found) == 1:
        return found[0]
    known = {name: f"{section}.{name}" for section, model in _sections().items() for name in model.model_fields}
    near = difflib.get_close_matches(parts[0], known, n=1)
    hint = f" Did you mean {known[near[0]]}?" if near else ""
    raise InputError(f"--set {key}: {key} is not a setting.{hint}")


@cache
def _sections() -> dict[str, type[BaseModel]]:
    return {"data": Data, "encoder": Encoder, "discover": Discover, "learn": Learn, "output": Output}


def _label_name(entry: Mapping[str, Any]) -> str:
    """The name that `_name_labels` will give an entry, apart from numbers against repetition."""
    if entry.get("name"):
        return str(entry["name"])
    if entry.get("source"):
        return Path(str(entry["source"])).stem
    columns = _listed(entry.get("columns", [])) or []
    column = entry.get("column") or (columns[0] if len(columns) == 1 else _shared(columns))  # type: ignore[index, arg-type]
    return str(column or entry.get("kind", "")).strip("*?_- ") or str(entry.get("kind", "")).lower()
