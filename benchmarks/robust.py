"""Methods for doubtful labels, by name, on labels that people, rules and workers really got wrong.

    ANYGRAIN_DATA=... python benchmarks/robust.py --cache FOLDER [--data cifar10_human,weak_trec] [--seeds 3]
        [--methods gce,forward] [--again storm,default/kind]

For every set, method and seed: accuracy, balanced accuracy, log loss and calibration on rows with true labels (of tags:
mean average precision, log loss and calibration). Each seed draws the training rows, and what of the noise is drawn.
The first row of a table is the default `Learner` on the labels as one would give them; "truth" is the same with clean
labels, the ceiling; `cross_entropy` on hard labels is the plain baseline. Every finished case is a line of
FOLDER/robust.jsonl, so a stopped run goes on where it was; --again forgets what was found for methods that have changed
since ("default/kind" for one kind of labels alone), in this run. The tables go to ROBUST_RESULTS.md.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import recipe as sets
import torch

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from results import write_section

from anygrain.encoders import Convolutional
from anygrain.labels import Crowd, Exact, LabelError, Labels, Noisy, Rules, Tags
from anygrain.learn import Learner
from anygrain.metrics import expected_calibration_error, log_loss, tag_scores
from anygrain.robust import SecondTarget, all_methods, method

TEST_ROWS = 2000
ENOUGH = 3  # seeds for an interval
PICTURES = 8000  # training rows of a network
MARKED = 0.4  # of the tags that are on, the share that stays marked
HEADS = {"storm": "mlp", "sbcl": "mlp", "spl": "mlp"}  # that these methods need
OTHER_HEADS = ("cross_entropy",)  # with the head of those methods too, to compare with
WITH_KIND = ("cross_entropy", "gce", "label_smoothing", "symmetric", "co_teaching", "rcal")  # beside `Crowd`
NETWORK = "cifar10_network"
TRAINED = ("label_smoothing", "gce", "bootstrapping", "symmetric", "forward", "mixup", "co_teaching_term")
ON_FEATURES = ("cross_entropy", "co_teaching", "self_training", "rcal", "disambiguation")  # of the default network
TRUSTED = 5  # rows of every class whose true label is known, for the methods that need some
WITH_TRUSTED = ("default", "spl", "fopro")
WITH_FEW = ("default", "self_training", "co_training", "tri_training", "label_propagation", "tsvm")
EPOCHS = 20  # of a network

Arrays = dict[str, np.ndarray]


@dataclass
class Task:
    """Rows of one seed.

    Attributes:
        x, x_test: features.
        truth, truth_test: classes, or tags (N, L).
        given: hard labels as they came, -1 for none; tags: marks, -1 where there is none.
        kind: the same evidence as the kind of label that knows how it errs, or None.
        other, other_given: rows and labels of another network, or None.
    """

    x: np.ndarray
    x_test: np.ndarray
    truth: np.ndarray
    truth_test: np.ndarray
    given: np.ndarray
    kind: Callable[[], Labels] | None = None
    other: np.ndarray | None = None
    other_given: np.ndarray | None = None

    @property
    def trained(self) -> bool:
        """Whether rows are pictures, for a network that is trained with its head."""
        return self.x.ndim > 2

    def learner(self, seed: int, **how: Any) -> Learner:
        """Of the recipe, or of a small network."""
        if self.trained:
            how = {"encoder": Convolutional(widths=(32, 64, 128)), "epochs": EPOCHS, **how}
        return Learner(seed=seed, **how)


@dataclass(frozen=True)
class Set:
    """A data set: how it is read once, how rows of a seed are drawn, and what its table says.

    Attributes:
        natural: what one would give to the default `Learner`: "given", "kind" or "off" (unmarked tags are off).
        kind: what the kind of label that knows how these labels err is called.
    """

    load: Callable[[], Arrays]
    draw: Callable[[Arrays, int], Task]
    natural: str
    says: str
    kind: str = ""


# -- sets --------------------------------------------------------------------------------------------------------------


def text_scores(train: list[str], test: list[str], components: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Words and pairs of words by tf-idf, their leading singular vectors, rows of length 1."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    counted = words.fit_transform(train)
    svd = TruncatedSVD(components, random_state=0).fit(counted)
    x, x_test = (normalize(svd.transform(part)).astype(np.float32) for part in (counted, words.transform(test)))
    return x, x_test


def scaled(x: np.ndarray, x_test: np.ndarray) -> Arrays:
    scale = float(np.sqrt((x**2).mean()))
    return {"x": (x / scale).astype(np.float32), "x_test": (x_test / scale).astype(np.float32)}


def rows_of(data: Arrays, seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    generator = np.random.default_rng(seed)
    train = generator.permutation(len(data["x"]))[:n]
    return train, generator.permutation(len(data["x_test"]))[:TEST_ROWS], generator


def load_cifar() -> Arrays:
    """Pictures of 16 x 16: 100 principal components, then 400 random Fourier features."""
    from sklearn.decomposition import PCA

    root = sets.folder("cifar10_human")
    columns = ["image", "label", "worse_label", "random_label1"]
    train = pq.read_table(root / "train.parquet", columns=columns).slice(0, 8000).to_pandas()
    test = pq.read_table(root / "test.parquet", columns=["image", "label"]).slice(0, 3000).to_pandas()
    flat, flat_test = sets.pixels(train.image, 16), sets.pixels(test.image, 16)
    pca = PCA(100, random_state=0).fit(flat)
    features = scaled(*sets.fourier(pca.transform(flat), pca.transform(flat_test), 400))
    named = {c: train[c].to_numpy().astype(int) for c in columns[1:]}
    return {**features, **named, "y_test": test.label.to_numpy().astype(int)}


def draw_cifar(data: Arrays, seed: int, column: str) -> Task:
    train, test, _ = rows_of(data, seed, 3000)
    given = data[column][train]
    return Task(
        data["x"][train],
        data["x_test"][test],
        data["label"][train],
        data["y_test"][test],
        given,
        lambda: Noisy(torch.from_numpy(given), 10),
    )


def load_pictures() -> Arrays:
    """Pictures of 16 x 16, (N, 16, 16, 3) bytes."""
    root = sets.folder("cifar10_human")
    columns = ["image", "label", "worse_label", "random_label1"]
    train = pq.read_table(root / "train.parquet", columns=columns).slice(0, 2 * PICTURES).to_pandas()
    test = pq.read_table(root / "test.parquet", columns=["image", "label"]).slice(0, 3000).to_pandas()
    x, x_test = (
        (255 * sets.pixels(part.image, 16)).round().astype(np.uint8).reshape(len(part), 16, 16, 3)
        for part in (train, test)
    )
    named = {c: train[c].to_numpy().astype(int) for c in columns[1:]}
    return {"x": x, "x_test": x_test, **named, "y_test": test.label.to_numpy().astype(int)}


def draw_pictures(data: Arrays, seed: int) -> Task:
    train, test, _ = rows_of(data, seed, PICTURES)
    given = data["worse_label"][train]
    rest = np.setdiff1d(np.arange(len(data["x"])), train)
    return Task(
        data["x"][train],
        data["x_test"][test],
        data["label"][train],
        data["y_test"][test],
        given,
        lambda: Noisy(torch.from_numpy(given), 10),
        data["x"][rest],
        data["random_label1"][rest],
    )


def load_clinc() -> Arrays:
    """100 intents, ten of each domain: intents 0-4 and 5-9 of a domain are two superclasses of CIFAR-100."""
    table = pq.read_table(sets.folder("clinc150") / "clinc150.parquet").to_pandas()
    named = table[table.fine != "oos"].groupby("coarse").fine.unique()
    intents = [fine for coarse in sorted(named.index) for fine in sorted(named[coarse])[:10]]
    code = {fine: i for i, fine in enumerate(intents)}
    table = table[table.fine.isin(code)]
    train, test = table[table.split == "train"], table[table.split == "test"]
    human = pq.read_table(sets.folder("cifar100n_labels") / "labels.parquet").to_pandas()
    classes = pq.read_table(sets.folder("cifar100n_labels") / "classes.parquet").to_pandas()
    order = classes.sort_values(["coarse", "fine"]).fine.to_numpy()  # position of an intent -> fine class of CIFAR-100
    counts = np.zeros((100, 100))
    np.add.at(counts, (human.fine.to_numpy(), human.fine_human.to_numpy()), 1)
    matrix = counts[order][:, order] / counts[order].sum(axis=1, keepdims=True)
    x, x_test = text_scores(list(train.text), list(test.text))
    y, y_test = (np.array([code[v] for v in part.fine]) for part in (train, test))
    return {**scaled(x, x_test), "y": y, "y_test": y_test, "matrix": matrix}


def draw_clinc(data: Arrays, seed: int) -> Task:
    train, test, generator = rows_of(data, seed, 3000)
    truth = data["y"][train]
    step = data["matrix"].cumsum(axis=1)[truth]
    given = np.minimum((generator.random(len(truth))[:, None] > step).sum(axis=1), 99)
    return Task(
        data["x"][train],
        data["x_test"][test],
        truth,
        data["y_test"][test],
        given,
        lambda: Noisy(torch.from_numpy(given), 100),
    )


def load_weak(name: str) -> Arrays:
    table = pq.read_table(sets.folder(name) / f"{name}.parquet").to_pandas()
    train, test = table[table.split == "train"], table[table.split == "test"]
    features = scaled(*text_scores(list(train.text), list(test.text)))
    votes = np.stack(train.weak_labels.to_list()).astype(np.int64)
    y, y_test = (part.label.to_numpy().astype(int) for part in (train, test))
    return {**features, "votes": votes, "y": y, "y_test": y_test}


def majority(votes: np.ndarray, n_classes: int, generator: np.random.Generator) -> np.ndarray:
    """Class with most votes (N,) of votes (N, R), ties by lot, -1 without a vote."""
    counts = (votes[:, :, None] == np.arange(n_classes)).sum(axis=1)
    choice = (counts + 0.5 * generator.random(counts.shape)).argmax(axis=1)
    return np.where(counts.sum(axis=1) > 0, choice, -1)


def draw_weak(data: Arrays, seed: int, n: int) -> Task:
    train, test, generator = rows_of(data, seed, n)
    votes, k = data["votes"][train], int(data["y"].max()) + 1
    return Task(
        data["x"][train],
        data["x_test"][test],
        data["y"][train],
        data["y_test"][test],
        majority(votes, k, generator),
        lambda: Rules(torch.from_numpy(votes), k),
    )


def load_labelme() -> Arrays:
    data = np.load(sets.folder("crowd_labelme") / "crowd_labelme.npz")
    features = scaled(data["X_train"].astype(np.float32), data["X_test"].astype(np.float32))
    named = {"votes": "answers_train", "y": "y_train", "y_test": "y_test"}
    return {**features, **{key: data[name].astype(np.int64) for key, name in named.items()}}


def draw_labelme(data: Arrays, seed: int) -> Task:
    train, test, generator = rows_of(data, seed, 800)
    votes = data["votes"][train]
    item, worker = np.nonzero(votes >= 0)
    items, workers, cast = (torch.from_numpy(part) for part in (item, worker, votes[item, worker]))
    return Task(
        data["x"][train],
        data["x_test"][test],
        data["y"][train],
        data["y_test"][test],
        majority(votes, 8, generator),
        lambda: Crowd(items, workers, cast, 8, n_items=len(votes), n_annotators=votes.shape[1]),
    )


def load_tags(name: str) -> Arrays:
    data = np.load(sets.folder(name) / f"{name}.npz", allow_pickle=True)
    on = np.zeros(tuple(data["Y_shape"]), dtype=np.int64)
    on[np.repeat(np.arange(len(on)), np.diff(data["Y_indptr"])), data["Y_indices"]] = 1
    train, x = data["train"], data["X"].astype(np.float32)
    x = (x - x[train].mean(axis=0)) / (x[train].std(axis=0) + 1e-6)
    return {"x": x[train], "x_test": x[~train], "y": on[train], "y_test": on[~train]}


def draw_tags(data: Arrays, seed: int) -> Task:
    generator = np.random.default_rng(seed)
    on = data["y"]
    given = np.where((on == 1) & (generator.random(on.shape) < MARKED), 1, -1)
    return Task(data["x"], data["x_test"], on, data["y_test"], given)


def weak_set(name: str, n: int, says: str) -> Set:
    return Set(lambda: load_weak(name), lambda data, seed: draw_weak(data, seed, n), "kind", says, "`Rules`")


TEXT = "TF-IDF of words and pairs, 200 singular vectors"
SETS: dict[str, Set] = {
    "cifar10_human": Set(
        load_cifar,
        lambda data, seed: draw_cifar(data, seed, "worse_label"),
        "given",
        "CIFAR-10N, the worse of three human answers: 40 % of the labels are wrong. 3,000 training pictures, 2,000 for"
        " test; frozen features (100 principal components of 16 x 16 pixels, 400 random Fourier features): the ceiling"
        " is low.",
        "`Noisy`",
    ),
    NETWORK: Set(
        load_pictures,
        draw_pictures,
        "given",
        f"The same labels, {PICTURES:,} training pictures of 16 x 16, and a small network of three convolutions that is"
        f" trained with its head for {EPOCHS} epochs. *On its features*: a method for fixed features, on those of the"
        " network of the first row. `second_target`: the soft labels of a network like the first row's, trained on as"
        " many other pictures and the first human answer to each (17 % wrong), are the target of a second layer.",
        "`Noisy`",
    ),
    "clinc150": Set(
        load_clinc,
        draw_clinc,
        "given",
        "100 intents of CLINC150 in ten domains, each wrong as the human answers for one class of CIFAR-100N are (40 %"
        f" wrong, a third of that within the superclass). 3,000 training rows, 30 per class; {TEXT}.",
        "`Noisy`",
    ),
    "weak_youtube": weak_set("weak_youtube", 1200, f"Ten rules, two classes, 1,200 training rows; {TEXT}."),
    "weak_trec": weak_set("weak_trec", 3000, f"68 rules, six classes, 3,000 training rows; {TEXT}."),
    "weak_hausa": weak_set("weak_hausa", 1500, f"Five rules, five classes, 1,500 training rows; {TEXT}."),
    "crowd_labelme": Set(
        load_labelme,
        draw_labelme,
        "kind",
        "Eight scenes, 59 workers, 2.5 answers per picture of which 74 % are right; 800 training pictures, 512 features"
        " of a network.",
        "`Crowd`",
    ),
    "ml_emotions": Set(
        lambda: load_tags("ml_emotions"),
        draw_tags,
        "off",
        f"Six tags, 391 training songs; {MARKED:.0%} of the tags that are on are marked, by lot; nothing is said of"
        " the others. Given so, with no tag known to be off, the default learns that all are on.",
    ),
    "ml_scene": Set(
        lambda: load_tags("ml_scene"),
        draw_tags,
        "off",
        f"Six tags, 1,211 training pictures; {MARKED:.0%} of the tags that are on are marked, by lot; nothing is said"
        " of the others. Given so, with no tag known to be off, the default learns that all are on.",
    ),
}


# -- cases -------------------------------------------------------------------------------------------------------------


def is_tags(name: str) -> bool:
    return name.startswith("ml_")


def cases(name: str) -> list[tuple[str, str]]:
    """What is fitted, (method, labels), in the order of the table."""
    names = [m for m in all_methods() if m != "default"]
    if is_tags(name):
        own = [("pu_mlc", "given"), ("comic", "given")]
        off = [(m, "off") for m in names if m not in ("pu_mlc", "comic")]
        return [("default", "off"), ("default", "given"), ("default", "truth"), *own, *off]
    if name == NETWORK:
        out = [("default", "given"), ("default", "kind"), ("default", "truth"), *((m, "given") for m in TRAINED)]
        return [*out, ("second_target", "given"), *((m, "features") for m in ON_FEATURES)]
    other = "given" if SETS[name].natural == "kind" else "kind"
    out = [("default", SETS[name].natural), ("default", other), ("default", "truth"), ("cross_entropy", "given")]
    out += [(f"{m}, mlp", "given") for m in OTHER_HEADS]
    guessing = () if name.startswith("weak_") else WITH_FEW  # methods that learn rows without labels: there are none
    out += [(m, "given") for m in names if m != "cross_entropy" and m not in guessing]
    if name == "crowd_labelme":  # methods beside the kind that knows the workers
        out += [(m, "kind") for m in WITH_KIND]
    return [*out, *((m, "trusted") for m in WITH_TRUSTED), *((m, "few") for m in WITH_FEW)]


def labels_of(task: Task, how: str) -> Labels:
    if task.truth.ndim == 2:
        table = {"truth": task.truth, "off": np.maximum(task.given, 0), "given": task.given}[how]
        return Tags(torch.from_numpy(table))
    if how == "kind":
        assert task.kind is not None
        return task.kind()
    n_classes = int(max(task.truth.max(), task.truth_test.max())) + 1
    few = torch.from_numpy(first_of_classes(task.truth, TRUSTED))
    if how == "few":
        return Exact(few, n_classes)
    if how == "trusted":
        return Exact(few, n_classes) & Noisy(torch.from_numpy(task.given), n_classes)
    return Exact(torch.from_numpy(task.truth if how == "truth" else task.given), n_classes)


def first_of_classes(truth: np.ndarray, n: int) -> np.ndarray:
    """The classes (N,) of the first n rows of every class, -1 elsewhere."""
    order = np.argsort(truth, kind="stable")
    count = np.bincount(truth)
    place = np.empty(len(truth), dtype=int)
    place[order] = np.arange(len(truth)) - np.repeat(count.cumsum() - count, count)
    return np.where(place < n, truth, -1)


def scores(learner: Learner, task: Task) -> dict[str, float]:
    if task.truth.ndim == 2:
        found = tag_scores(learner.predict_proba(task.x_test), task.truth_test)
        by_tag = {"map": found.average_precision, "log_loss": found.log_loss, "ece": found.calibration_error}
        return {key: float(values.mean()) for key, values in by_tag.items()}
    probs, y = learner.predict_proba(task.x_test), task.truth_test
    right = probs.argmax(axis=1) == y
    return {
        "accuracy": float(right.mean()),
        "balanced": float(np.mean([right[y == k].mean() for k in np.unique(y)])),
        "log_loss": float(log_loss(probs, y)),
        "ece": float(expected_calibration_error(probs, y)),
    }


class Starts:
    """What methods on the same labels and seed share, and the seconds that it took."""

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed = task, seed
        self.found: dict[str, tuple[Learner, float]] = {}
        self.inner: Starts | None = None

    def default(self, how: str) -> tuple[Learner, float]:
        """The default `Learner` on these labels."""
        if how not in self.found:
            began = time.process_time()
            learner = self.task.learner(self.seed).fit(self.task.x, labels_of(self.task, how))
            self.found[how] = learner, time.process_time() - began
        return self.found[how]

    def on_features(self) -> Starts:
        """The same rows as the default network on the given labels sees them."""
        if self.inner is None:
            network, _ = self.default("given")
            x, x_test = (network.transform(x) for x in (self.task.x, self.task.x_test))
            self.inner = Starts(dataclasses.replace(self.task, x=x, x_test=x_test), self.seed)
        return self.inner

    def second_target(self) -> SecondTarget:
        """Soft labels of another network."""
        other = self.task.learner(self.seed + 1000).fit(self.task.other, self.task.other_given)
        return SecondTarget(torch.from_numpy(other.predict_proba(self.task.x)))


def run(starts: Starts, name: str, how: str) -> dict[str, Any]:
    """Scores of one fit, or {"refused": the message}."""
    if how == "features":
        return run(starts.on_features(), name, "given")
    plain, _, head = name.partition(", ")
    head = head or HEADS.get(plain, "linear")
    task, labels = starts.task, labels_of(starts.task, how)
    began = time.process_time()
    if plain == "second_target":
        arguments: dict[str, Any] = {"terms": [starts.second_target()]}
    else:
        known = all_methods()[plain]
        try:
            space = "tags" if task.truth.ndim == 2 else "classes"
            known.check(space, trained=task.trained, kinds=(type(labels).__name__,))
        except LabelError as error:
            return {"refused": str(error)}
        arguments = method(plain)
    if not arguments:
        learner, seconds = starts.default(how)
        return {**scores(learner, task), "seconds": seconds}
    state, before = None, 0.0
    if "procedure" not in arguments and head == "linear" and task.truth.ndim == 1 and not task.trained:
        default, before = starts.default(how)
        state = copy.deepcopy(default.recipe_state_)
        began = time.process_time()
    try:
        learner = task.learner(starts.seed, head=head, **arguments).fit(task.x, labels, state=state)
    except LabelError as error:
        return {"refused": str(error)}
    return {**scores(learner, task), "seconds": time.process_time() - began + before}


# -- tables ------------------------------------------------------------------------------------------------------------

BETTER = "Better than the default, interval above 0"
WORSE = "**Worse than the default**, interval below 0"
LOWER = "Lower mean than the default, interval around 0 or too few seeds"
SAID = (BETTER, WORSE, LOWER)
APART = ("trusted", "few")  # labels that are compared with the default on the same

Done = dict[tuple[str, str, str, int], dict[str, Any]]
WORDS = {
    "given": "as given",
    "off": "unknown is off",
    "truth": "truth",
    "features": "on its features",
    "trusted": "trusted & `Noisy`",
    "few": "few",
}


def half_width(values: np.ndarray) -> float:
    """Of the 95 % interval of Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))


def shown(values: np.ndarray, sign: str = "") -> str:
    mean = format(float(np.mean(values)), f"{sign}.3f")
    return mean if len(values) < ENOUGH else f"{mean} ± {half_width(values):.3f}"


def table(name: str, done: Done) -> str:
    about = SETS[name]
    metrics = ["map", "log_loss", "ece"] if is_tags(name) else ["accuracy", "balanced", "log_loss", "ece"]
    titles = {"map": "mAP", "accuracy": "accuracy", "balanced": "balanced", "log_loss": "log loss", "ece": "ECE"}
    lines = [f"## {name}", "", about.says, ""]
    lines.append(f"| method | labels | {' | '.join(titles[m] for m in metrics)} | against default | s | seeds |")
    lines.append("|---|---|" + "---|" * (len(metrics) + 3))
    words = {**WORDS, "kind": about.kind, **({"given": "majority vote"} if about.natural == "kind" else {})}
    defaults: dict[str, dict[int, float]] = {}
    verdicts: dict[str, list[str]] = {said: [] for said in SAID}
    for method_name, how in cases(name):
        runs = {s: found for (n, m, h, s), found in sorted(done.items()) if (n, m, h) == (name, method_name, how)}
        if not runs:
            continue
        if any("refused" in found for found in runs.values()):
            continue
        main = {s: found[metrics[0]] for s, found in runs.items()}
        alone = how if how in APART and how in defaults else ""
        first = defaults.setdefault(how if how in APART and method_name == "default" else alone, main)
        gain = np.array([main[s] - first[s] for s in sorted(main) if s in first])
        against = "-" if main is first or not len(gain) else shown(gain, "+")
        cells = [shown(np.array([found[m] for found in runs.values()])) for m in metrics]
        seconds = np.mean([found["seconds"] for found in runs.values()])
        title = f"**{method_name}**" if main is first else method_name
        lines.append(f"| {title} | {words[how]} | {' | '.join(cells)} | {against} | {seconds:.1f} | {len(runs)} |")
        if main is not first and len(gain) and how != "truth":
            told = f"{method_name} ({words[how]}, {gain.mean():+.3f})"
            half = half_width(gain) if len(gain) >= ENOUGH else math.inf
            if gain.mean() - half > 0:
                verdicts[BETTER].append(told)
            elif gain.mean() + half < 0:
                verdicts[WORSE].append(told)
            elif gain.mean() < 0:
                verdicts[LOWER].append(told)
    lines.append("")
    lines += [f"- {said}: {', '.join(found) or 'none'}." for said, found in verdicts.items()]
    return "\n".join(lines)


def refusals(done: Done) -> str:
    """What was refused, and on which sets."""
    where: dict[tuple[str, str], list[str]] = {}
    for (name, method_name, _, _), found in done.items():
        if "refused" in found:
            where.setdefault((method_name, found["refused"]), []).append(name)
    lines = ["## Refused", "", "| method | message | sets |", "|---|---|---|"]
    order = {name: i for i, name in enumerate(SETS)}
    for (method_name, message), names in sorted(where.items()):
        lines.append(f"| {method_name} | {message} | {', '.join(sorted(set(names), key=order.__getitem__))} |")
    return "\n".join(lines)


def page(done: Done) -> str:
    lines = [
        "Means over seeds, from three on ± half width of the 95 % interval; each seed draws training rows, test rows"
        " and what of the noise is drawn. `default` is the `Learner` without a method, in bold on the labels as one"
        " would give them; on the truth it is the ceiling. `cross_entropy` on hard labels is the plain baseline."
        " *Against default*:"
        " difference of the first score to the bold row above, paired by seed. No option of any method was tuned."
        ' storm, sbcl and spl need `head="mlp"`; `cross_entropy, mlp` is their baseline. *Trusted & `Noisy`*: beside'
        f" the given labels, which are taken to be noisy, the true class of {TRUSTED} training rows of every class;"
        " *few*: these alone, and the other rows without a label.",
    ]
    for name in SETS:
        if any(key[0] == name for key in done):
            lines += ["", table(name, done)]
    lines += ["", refusals(done)]
    return "\n".join(lines)


def names_in(text: str) -> set[str]:
    """Methods, or method/labels, of a list in words.

    Raises:
        SystemExit: a method that is not known.
    """
    found = {word.strip() for word in text.split(",")} - {""}
    odd = sorted({word.partition("/")[0] for word in found} - {*all_methods(), "second_target"})
    if odd:
        raise SystemExit(f"no method is called {', '.join(odd)}; see `anygrain methods`")
    return found


def named(method_name: str, labels: str, names: set[str]) -> bool:
    """Whether a case is among names: "gce", "default/kind"; a method with every head goes by its own name."""
    plain = method_name.partition(", ")[0]
    return plain in names or f"{plain}/{labels}" in names


def line_of(key: tuple[str, str, str, int], found: dict[str, Any]) -> str:
    return json.dumps({"case": key, "found": found}) + "\n"


def found_before(file: Path) -> Done:
    """Finished cases of earlier runs."""
    lines = file.read_text().splitlines() if file.exists() else []
    cases_of = [json.loads(line) for line in lines]
    return {tuple(case["case"]): case["found"] for case in cases_of}


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--data", default=",".join(SETS))
    parser.add_argument("--methods", default="", help="only these, separated by commas")
    parser.add_argument("--again", default="", help="methods, or method/labels, whose found cases are not to be used")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no case after so long")
    parser.add_argument("--dry", action="store_true", help="write no tables")
    parser.add_argument("--tables", action="store_true", help="fit nothing, write the tables")
    how = parser.parse_args()
    torch.set_num_threads(1)
    how.cache.mkdir(parents=True, exist_ok=True)
    file = how.cache / "robust.jsonl"
    done = found_before(file)
    began, wanted, again = time.monotonic(), names_in(how.methods), names_in(how.again)
    if again:
        done = {key: found for key, found in done.items() if not named(key[1], key[2], again)}
        file.write_text("".join(line_of(key, found) for key, found in done.items()))
    loaded: dict[str, Arrays] = {}
    for name in how.data.split(","):
        for seed in range(0 if how.tables else how.seeds):
            starts: Starts | None = None
            for method_name, labels in cases(name):
                key = (name, method_name, labels, seed)
                refused = "refused" in done.get((name, method_name, labels, 0), {})
                if key in done or refused or (wanted and not named(method_name, labels, wanted)):
                    continue
                if time.monotonic() - began > 60 * how.minutes:
                    break
                if name not in loaded:
                    loaded[name] = SETS[name].load()
                starts = Starts(SETS[name].draw(loaded[name], seed), seed) if starts is None else starts
                done[key] = run(starts, method_name, labels)
                with file.open("a") as out:
                    out.write(line_of(key, done[key]))
                print(*key, {k: round(v, 3) if isinstance(v, float) else v for k, v in done[key].items()}, flush=True)
    if how.dry:
        return
    written = [word for word in sys.argv if word != "--tables"]
    path = Path(__file__).with_name("ROBUST_RESULTS.md")
    if not path.exists():
        path.write_text("# Methods for doubtful labels, on real noise\n")
    write_section("robust", page(done), argv=written, path=path)


if __name__ == "__main__":
    main()
