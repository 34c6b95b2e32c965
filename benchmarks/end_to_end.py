"""Encoders trained with the head: do the defaults work without tuning?

    ANYGRAIN_DATA=... python benchmarks/end_to_end.py --cache FOLDER [--data usps,mnist] [--seeds 1]

For every data set: test accuracy of the defaults, and of a grid of learning rates and batch sizes around them, for as
many epochs; and of the recipe on fixed features, where there are such for the data. All training labels are exact.
Every finished fit is a line in FOLDER/end_to_end.jsonl, so a stopped run goes on where it was, and `--tables` writes
END_TO_END_RESULTS.md from what is there.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import io
import json
import math
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch

from anygrain.encoders import Columns, Convolutional, HuggingFace, Pretrained, Residual, Transformer, encoder_for
from anygrain.encoders.image import ImageEncoder
from anygrain.encoders.trainable import TrainableEncoder
from anygrain.learn import Learner
from anygrain.metrics import expected_calibration_error, log_loss

#: factors on the default learning rate and batch size; the first is the default itself
GRID = [(1.0, 1.0), (0.25, 1.0), (4.0, 1.0), (1.0, 0.5), (1.0, 2.0)]
WITHIN = 0.01  # of the best of the grid, so much accuracy may the default lack
MOST_TEST_ROWS = 3000
#: what of a pretrained encoder is trained, and what the table calls it
FINE = {"once": "frozen, once", "none": "frozen", "lora": "LoRA", "full": "full"}
FINE_ROWS, FINE_EPOCHS = 1000, 2
STEP_ROWS = 144  # of what steps are timed on


class Split(NamedTuple):
    """Rows to train on and to test on, and the encoder; None is what a Learner chooses."""

    train: Any
    classes: np.ndarray
    test: Any
    test_classes: np.ndarray
    encoder: TrainableEncoder | None = None


def usps(data: Path) -> Split:
    """Digits of 16 x 16, 3,000 of them."""
    found = np.load(data / "digits_domains" / "usps.npz")
    part = np.random.default_rng(0).permutation(len(found["X_train"]))[:3000]
    return Split(found["X_train"][part], found["y_train"][part], found["X_test"], found["y_test"])


def digits(data: Path) -> Split:
    """Digits of 8 x 8, two thirds of 1,797 of them, as they come with scikit-learn."""
    from sklearn.datasets import load_digits

    images, classes = load_digits()["images"] / 16, load_digits()["target"]
    train = np.random.default_rng(0).random(len(classes)) < 2 / 3
    return Split(images[train], classes[train], images[~train], classes[~train])


def mnist(data: Path) -> Split:
    """Digits of 28 x 28, 3,000 of them."""
    found = np.load(data / "digits_domains" / "mnist_test.npz")
    part = np.random.default_rng(0).permutation(len(found["X"]))
    train, test = part[:3000], part[3000:]
    return Split(found["X"][train], found["y"][train], found["X"][test], found["y"][test])


def cifar10(data: Path) -> Split:
    """Photographs of 32 x 32 in ten classes, 10,000 of them."""
    train = pq.read_table(data / "cifar10_human" / "train.parquet", columns=["image", "label"]).slice(0, 10_000)
    test = pq.read_table(data / "cifar10_human" / "test.parquet", columns=["image", "label"])
    return Split(pixels(train), train["label"].to_numpy(), pixels(test), test["label"].to_numpy())


def cifar10_residual(data: Path) -> Split:
    """The same through a residual network."""
    return cifar10(data)._replace(encoder=Residual())


def omniglot(data: Path) -> Split:
    """Drawings of 242 characters, 15 of each, brought to 16 x 16."""
    found = np.load(data / "omniglot_small" / "omniglot_small.npz")
    seen, encoder = found["drawer"] <= 15, Convolutional(size=16)
    return Split(found["X"][seen], found["fine"][seen], found["X"][~seen], found["fine"][~seen], encoder)


def grocery(data: Path) -> Split:
    """Photographs of 81 groceries, 16 to 70 of each, brought to 48 x 48."""
    table = pq.read_table(data / "grocery_store" / "grocery_store.parquet", columns=["split", "image", "fine"])
    split, image = np.array(table["split"].to_pylist()), np.array(table["image"].to_pylist(), dtype=object)
    fine, train, test = table["fine"].to_numpy(), split == "train", split == "test"
    encoder = Convolutional(size=48)
    return Split(image[train].tolist(), fine[train], image[test].tolist(), fine[test], encoder)


def trec(data: Path) -> Split:
    """Questions by what they ask for, six classes, 5,452 of them."""
    return texts(pq.read_table(data / "trec_questions" / "trec.parquet"), "coarse")


def clinc150(data: Path) -> Split:
    """Requests to an assistant by what is wanted, 150 classes, 20 of each."""
    table = pq.read_table(data / "clinc150" / "clinc150.parquet")
    fine, split = np.array(table["fine"].to_pylist()), np.array(table["split"].to_pylist())
    kept = split == "test"
    for name in np.unique(fine):
        kept[((fine == name) & (split == "train")).nonzero()[0][:20]] = True
    return texts(table.filter(kept & (fine != "oos")), "fine")


def banking77(data: Path) -> Split:
    """Questions to a bank, 77 classes, 10,003 of them."""
    return texts(pq.read_table(data / "banking77" / "banking77.parquet"), "label")


def adult(data: Path) -> Split:
    """People by income, 14 columns of numbers and categories, 32,561 of them."""
    table = pq.read_table(data / "adult" / "adult.parquet").to_pandas()
    return columns(table.drop(columns="split"), "income", (table["split"] == "train").to_numpy())


def abalone(data: Path) -> Split:
    """Shellfish by age, young, middle or old: eight columns, three quarters of 4,177 of them."""
    table = pq.read_table(data / "abalone" / "abalone.parquet").to_pandas()
    table["rings"] = np.searchsorted([8.5, 10.5], table["rings"])
    return columns(table, "rings", np.random.default_rng(0).random(len(table)) < 0.75)


def scene(data: Path) -> Split:
    """Photographs of one of six scenes, as 294 numbers, 1,120 of them."""
    found = np.load(data / "ml_scene" / "ml_scene.npz")
    one = np.diff(found["Y_indptr"]) == 1
    table = pd.DataFrame(found["X"][one], columns=[f"x{i}" for i in range(found["X"].shape[1])])
    table["scene"] = found["Y_indices"][found["Y_indptr"][:-1][one]]
    return columns(table, "scene", found["train"][one])


def texts(table: Any, label: str) -> Split:
    """Texts, through the transformer."""
    train = np.array(table["split"].to_pylist()) == "train"
    said, classes = np.array(table["text"].to_pylist(), dtype=object), np.array(table[label].to_pylist())
    return Split(said[train].tolist(), classes[train], said[~train].tolist(), classes[~train], Transformer())


def columns(table: Any, label: str, train: np.ndarray) -> Split:
    """A data frame, through the network of columns."""
    classes, rest = table[label].to_numpy(), table.drop(columns=label)
    return Split(rest[train], classes[train], rest[~train], classes[~train], Columns())


LOADERS: dict[str, Callable[[Path], Split]] = {
    "usps": usps,
    "digits": digits,
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar10 residual": cifar10_residual,
    "omniglot": omniglot,
    "grocery": grocery,
    "trec": trec,
    "clinc150": clinc150,
    "banking77": banking77,
    "adult": adult,
    "abalone": abalone,
    "scene": scene,
}


def pixels(table: Any) -> np.ndarray:
    """The decoded images of a column of bytes, (N, H, W, C)."""
    from PIL import Image

    with ThreadPoolExecutor() as pool:
        return np.stack(
            list(pool.map(lambda b: np.asarray(Image.open(io.BytesIO(b)).convert("RGB")), table["image"].to_pylist()))
        )


def fit(split: Split, seed: int, rate: float, batch: float, epochs: int | None) -> dict[str, Any]:
    """One fit, with factors on the default learning rate and batch size."""
    encoder = encoder_for(split.train) if split.encoder is None else split.encoder
    likes = encoder.training_defaults
    settings = {"learning_rate": rate * likes.learning_rate, "batch_size": max(1, round(batch * likes.batch_size))}
    return {**settings, **measured(Learner(encoder=encoder, seed=seed, epochs=epochs, **settings), split)}


def measured(learner: Learner, split: Split) -> dict[str, Any]:
    """What a fit is worth, and what it took."""
    began, cpu = time.perf_counter(), time.process_time()
    learner.fit(split.train, split.classes)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    part = np.random.default_rng(0).permutation(len(split.test_classes))[:MOST_TEST_ROWS]
    test, true = rows_of(split.test, part), np.searchsorted(learner.classes_, split.test_classes[part])
    probs = learner.predict_proba(test)
    return {
        "encoder": type(learner.encoder_).__name__,
        "train": len(split.classes),
        "test": len(true),
        "classes": len(learner.classes_),
        "epochs": len(learner.history_),
        "chosen_epoch": learner.chosen_.get("epoch"),
        "accuracy": float((probs.argmax(axis=1) == true).mean()),
        "right": np.packbits(probs.argmax(axis=1) == true).tobytes().hex(),
        "log_loss": log_loss(probs, true),
        "ece": expected_calibration_error(probs, true, bins=10),
        "trained": sum(p.numel() for p in trained_parts(learner)),
        "cpu": cpu,
        "wall": wall,
    }


def trained_parts(learner: Learner) -> list[torch.Tensor]:
    """Parameters that the fit has moved: those of the head, and of the encoder where it is trained."""
    own = learner.encoder_.parameters() if isinstance(learner.encoder_, TrainableEncoder) else []
    return [p for p in (*learner.head_.parameters(), *own) if p.requires_grad]


def fine_tuned(split: Split, folder: str, tune: str) -> dict[str, Any]:
    """One fit of a pretrained encoder, on at most FINE_ROWS rows."""
    part = np.random.default_rng(0).permutation(len(split.classes))[:FINE_ROWS]
    split = split._replace(train=rows_of(split.train, part), classes=split.classes[part])
    if tune == "once":
        return measured(Learner(encoder=Pretrained(folder, cache=""), seed=0), split)
    encoder = HuggingFace(folder, tune=tune)  # type: ignore[arg-type]
    return measured(Learner(encoder=encoder, seed=0, epochs=FINE_EPOCHS), split)


def step_costs() -> dict[str, float]:
    """CPU milliseconds of a training step by encoder, of a fit and of plain torch, interleaved; the median of three."""
    draw = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(2000)])
    images = draw.integers(0, 256, (STEP_ROWS, 32, 32, 3), dtype=np.uint8)
    texts = [" ".join(draw.choice(words, length)) for length in draw.integers(4, 20, STEP_ROWS)]
    numbers = pd.DataFrame(draw.normal(size=(STEP_ROWS, 8))).rename(columns=str)
    classes = np.arange(STEP_ROWS) % 10
    found = {}
    for encoder, rows in [
        (Convolutional(), images),
        (Residual(), images),
        (Transformer(), texts),
        (Columns(), numbers),
    ]:
        plain = copy.deepcopy(encoder).learn(rows)
        if isinstance(plain, ImageEncoder):
            plain.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        costs = [(plain_step(plain, rows, classes), fit_step(encoder, rows, classes)) for _ in range(3)]
        for way, cost in zip(("plain", "fit"), zip(*costs, strict=True), strict=True):
            found[f"{type(encoder).__name__} {way}"] = float(np.median(cost))
    return found


def fit_step(encoder: TrainableEncoder, rows: Any, classes: np.ndarray) -> float:
    """CPU milliseconds of a step of a fit: two epochs more or less, by their steps."""
    took = []
    for epochs in (1, 3):
        learner = Learner(encoder=copy.deepcopy(encoder), seed=0, epochs=epochs, batch_size=64)
        began = time.process_time()
        learner.fit(rows, classes)
        took.append(time.process_time() - began)
    return 1000 * (took[1] - took[0]) / (2 * math.ceil(0.9 * len(classes) / 64))


def plain_step(encoder: TrainableEncoder, rows: Any, classes: np.ndarray) -> float:
    """CPU milliseconds of a step of the same network in a loop of plain torch."""
    network = copy.deepcopy(encoder).train()
    head = torch.nn.Linear(encoder.feature_dim, 10)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()])
    inputs, targets = network.inputs(rows), torch.from_numpy(classes)
    batches = torch.randperm(len(classes)).split(64)
    began = time.process_time()
    for batch in batches:
        arrays = inputs[batch]
        images = isinstance(network, ImageEncoder)
        features = network.network(network.standardised(arrays).contiguous()) if images else network.encode(arrays)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(features), targets[batch]).backward()
        optimizer.step()
    return 1000 * (time.process_time() - began) / len(batches)


def rows_of(data: Any, rows: np.ndarray) -> Any:
    """Some rows of a list, an array or a data frame."""
    if isinstance(data, list):
        return [data[row] for row in rows]
    return data.iloc[rows] if hasattr(data, "iloc") else data[rows]


def key(name: str, seed: int, rate: float, batch: float) -> str:
    return f"{name}|{seed}|{rate:g}|{batch:g}"


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Finished fits by their key; of several, the last."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {record["key"]: record for record in map(json.loads, lines)}


def keep(file: Path, record: dict[str, Any]) -> None:
    """Add a finished fit."""
    with open(file, "a") as lines:
        lines.write(json.dumps(record) + "\n")
    print(json.dumps({what: value for what, value in record.items() if what != "right"}), flush=True)


def table(records: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = [
        "# End to end: the defaults without tuning",
        "",
        f"{datetime.date.today()} · {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, shared with other "
        f"work; one thread · torch {torch.__version__} · "
        "`python benchmarks/end_to_end.py --cache CACHE --pretrained all-MiniLM-L6-v2`",
        "",
        "All training labels are exact. A tenth of the training rows is held out by the fit itself, to choose the "
        f"epoch and the temperature. Test rows: at most {MOST_TEST_ROWS:,}.",
        "",
        *grid_tables({name: by_factors(records, name) for name in LOADERS}),
        *fine_table(records),
        *step_table(records),
    ]
    return "\n".join(lines) + "\n"


Runs = dict[tuple[float, float], list[dict[str, Any]]]


def by_factors(records: dict[str, dict[str, Any]], name: str) -> Runs:
    """Fits of one data set by their factors on the default rate and batch size, one per seed."""
    found: Runs = {}
    for record in records.values():
        if record["data"] == name and "rate" in record:
            found.setdefault((record["rate"], record["batch"]), []).append(record)
    return found


def grid_tables(found: dict[str, Runs]) -> list[str]:
    """The default against the grid and against fixed features, then every point of the grid."""
    lines = [
        "Best of the grid: learning rate times 1/4 or 4, or batch size times 1/2 or 2, for as many epochs, chosen by "
        "test accuracy, which flatters it. Lacks: best less default, with the standard error of this difference over "
        f'test rows. Aim: {WITHIN:g}; "within its error" where a difference above that is less than two standard '
        "errors. CPU seconds: of one fit with the defaults. Empty: the grid was not run whole. *: fits that were kept "
        "from an earlier state of the code, without what they said of single rows, so that there is no error.",
        "",
        "| data | encoder | rows | classes | epochs | rate | batch | seeds | default | best of the grid | lacks "
        "| within the aim | CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    other = [
        "",
        "## Beside it",
        "",
        "Log loss and expected calibration error (10 bins) of the defaults; fixed features: the recipe on `Text` or "
        "`Frame`, on the same rows.",
        "",
        "| data | log loss | best log loss of the grid | ECE | fixed features, accuracy | log loss | ECE |",
        "|---|---|---|---|---|---|---|",
    ]
    grid = [
        "",
        "## The grid",
        "",
        "Test accuracy, mean over seeds; the first column is the default.",
        "",
        f"| data | {' | '.join(f'rate × {r:g}, batch × {b:g}' for r, b in GRID)} |",
        "|---" * (len(GRID) + 1) + "|",
    ]
    for name, runs in found.items():
        default, fixed = runs.get(GRID[0]), runs.get((0.0, 0.0), [])
        if not default:
            continue
        whole = set(GRID) <= set(runs)
        first, best = default[0], max(GRID, key=lambda at: mean(runs.get(at, []), "accuracy"))
        lacks, error = difference(runs[best], default)
        within = "yes" if lacks <= WITHIN else "within its error" if lacks <= 2 * error else "no"
        cells = [
            name if "right" in first else f"{name} *",
            first["encoder"],
            f"{first['train']:,}",
            str(first["classes"]),
            str(first["epochs"]),
            f"{first['learning_rate']:g}",
            str(first["batch_size"]),
            str(min(len(runs[at]) for at in GRID) if whole else len(default)),
            f"{mean(default, 'accuracy'):.3f}",
            *(
                (
                    f"{mean(runs[best], 'accuracy'):.3f}",
                    f"{lacks:.3f}" + (f" ± {error:.3f}" if error == error else ""),
                    within,
                )
                if whole
                else ("", "", "")
            ),
            f"{mean(default, 'cpu'):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        least = f"{min(mean(runs[at], 'log_loss') for at in GRID):.3f}" if whole else ""
        cells = [f"{mean(default, 'log_loss'):.3f}", least, f"{mean(default, 'ece'):.3f}"]
        cells += [f"{mean(fixed, what):.3f}" if fixed else "" for what in ("accuracy", "log_loss", "ece")]
        other.append(f"| {name} | {' | '.join(cells)} |")
        shown = [f"{mean(runs[at], 'accuracy'):.3f}" if at in runs else "" for at in GRID]
        grid.append(f"| {name} | {' | '.join(shown)} |")
    return [*lines, *other, *grid]


def mean(records: list[dict[str, Any]], what: str) -> float:
    """Over seeds; the lowest there is where there are none."""
    return float(np.mean([record[what] for record in records])) if records else -np.inf


def difference(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> tuple[float, float]:
    """How much more accurate the first fits are than the second on the same test rows, and its standard error.

    The error is NaN where a fit was kept without what it said of single rows.
    """
    if not all("right" in record for record in (*first, *second)):
        return mean(first, "accuracy") - mean(second, "accuracy"), math.nan
    shares = [np.mean([right(record) for record in records], axis=0) for records in (first, second)]
    more = shares[0] - shares[1]
    return float(more.mean()), float(more.std() / np.sqrt(len(more)))


def right(record: dict[str, Any]) -> np.ndarray:
    """Which test rows a fit got right, (N,) of 0 and 1."""
    bits: np.ndarray = np.unpackbits(np.frombuffer(bytes.fromhex(record["right"]), dtype=np.uint8))
    return bits[: record["test"]]


def step_table(records: dict[str, dict[str, Any]]) -> list[str]:
    """What a step of a fit costs, beside plain torch."""
    if "steps" not in records:
        return []
    lines = [
        "",
        "## What a step costs",
        "",
        "CPU milliseconds of a step on 64 rows (images of 32 x 32 in colour, texts of 4 to 19 words, eight numbers), "
        "by one thread; the median of three. A fit: with augmentation, clipping, averaged weights and what is "
        "held out. Plain torch: the same network in its default layout, cross-entropy and AdamW.",
        "",
        "| encoder | a fit | plain torch | ratio |",
        "|---|---|---|---|",
    ]
    costs = records["steps"]["costs"]
    for encoder in dict.fromkeys(name.split()[0] for name in costs):
        fit, plain = costs[f"{encoder} fit"], costs[f"{encoder} plain"]
        lines.append(f"| {encoder} | {fit:.0f} | {plain:.0f} | {fit / plain:.2f} |")
    return lines


def fine_table(records: dict[str, dict[str, Any]]) -> list[str]:
    """What tuning a pretrained encoder brings."""
    lines = [
        "",
        "## A pretrained sentence encoder",
        "",
        f"all-MiniLM-L6-v2 from its folder, {FINE_ROWS:,} rows, for {FINE_EPOCHS} epochs where the encoder is in the "
        'loop; rates and batch sizes are the defaults. Frozen, once: `Learner(encoder="folder")`, where every text is '
        'encoded once and the head comes from the recipe. Frozen, LoRA, full: `HuggingFace("folder", tune=...)`.',
        "",
        "| data | classes | tuned | trained parameters | accuracy | log loss | ECE | CPU seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found = [record for record in records.values() if "tune" in record]
    for record in sorted(found, key=lambda r: (r["data"], list(FINE).index(r["tune"]))):
        cells = [record["data"], str(record["classes"]), FINE[record["tune"]], f"{record['trained']:,}"]
        cells += [f"{record[what]:.3f}" for what in ("accuracy", "log_loss", "ece")]
        lines.append(f"| {' | '.join(cells)} | {record['cpu']:.0f} |")
    return lines if found else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for finished fits")
    parser.add_argument("--data", default=",".join(LOADERS), help="data sets, separated by commas")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--no-grid", action="store_true", help="the defaults alone")
    parser.add_argument("--pretrained", help="folder of a sentence encoder that is tuned as well")
    parser.add_argument("--fine", default="trec,banking77", help="data sets of texts for it")
    parser.add_argument("--tables", action="store_true", help="run nothing, write the tables")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("END_TO_END_RESULTS.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    file = args.cache / "end_to_end.jsonl"
    if not args.tables and "steps" not in read(file):
        keep(file, {"key": "steps", "data": "", "costs": step_costs()})
    for name in [] if args.tables else args.data.split(","):
        split = LOADERS[name](Path(os.environ["ANYGRAIN_DATA"]))
        for seed in range(args.seeds):
            if not isinstance(encoder_for(split.train), TrainableEncoder) and key(name, seed, 0, 0) not in read(file):
                record = {"key": key(name, seed, 0, 0), "data": name, "rate": 0.0, "batch": 0.0}
                keep(file, {**record, **measured(Learner(seed=seed), split)})
            for rate, batch in GRID[:1] if args.no_grid else GRID:
                done = read(file)
                if key(name, seed, rate, batch) in done:
                    continue
                default = done.get(key(name, seed, *GRID[0]))
                record = fit(split, seed, rate, batch, None if default is None else default["epochs"])
                record = {"key": key(name, seed, rate, batch), "data": name, "rate": rate, "batch": batch, **record}
                keep(file, record)
    for name in args.fine.split(",") if args.pretrained and not args.tables else []:
        for tune in FINE:
            if f"{name}|{tune}" not in read(file):
                found = fine_tuned(LOADERS[name](Path(os.environ["ANYGRAIN_DATA"])), args.pretrained, tune)
                keep(file, {"key": f"{name}|{tune}", "data": name, "tune": tune, **found})
    args.out.write_text(table(read(file)), encoding="utf-8")


if __name__ == "__main__":
    main()
