"""Encoders trained with the head: do the defaults work without tuning?

    ANYGRAIN_DATA=... python benchmarks/end_to_end.py --cache FOLDER [--data usps,mnist] [--seeds 1]

For every data set: test accuracy of the defaults, and of a grid of learning rates and batch sizes around them, for as
many epochs. All training labels are exact. Every finished fit is a line in FOLDER/end_to_end.jsonl, so a stopped run
goes on where it was, and `--tables` writes END_TO_END_RESULTS.md from what is there.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch

from anygrain.encoders import Convolutional, Residual, encoder_for
from anygrain.encoders.trainable import TrainableEncoder
from anygrain.learn import Learner
from anygrain.metrics import expected_calibration_error, log_loss

#: factors on the default learning rate and batch size; the first is the default itself
GRID = [(1.0, 1.0), (0.25, 1.0), (4.0, 1.0), (1.0, 0.5), (1.0, 2.0)]
WITHIN = 0.01  # of the best of the grid, so much accuracy may the default lack
MOST_TEST_ROWS = 3000


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
    """Drawings of 242 characters, 15 of each."""
    found = np.load(data / "omniglot_small" / "omniglot_small.npz")
    seen = found["drawer"] <= 15
    return Split(found["X"][seen], found["fine"][seen], found["X"][~seen], found["fine"][~seen])


def grocery(data: Path) -> Split:
    """Photographs of 81 groceries, 16 to 70 of each, brought to 48 x 48."""
    table = pq.read_table(data / "grocery_store" / "grocery_store.parquet", columns=["split", "image", "fine"])
    split, image = np.array(table["split"].to_pylist()), np.array(table["image"].to_pylist(), dtype=object)
    fine, train, test = table["fine"].to_numpy(), split == "train", split == "test"
    encoder = Convolutional(size=48)
    return Split(image[train].tolist(), fine[train], image[test].tolist(), fine[test], encoder)


LOADERS: dict[str, Callable[[Path], Split]] = {
    "usps": usps,
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar10 residual": cifar10_residual,
    "omniglot": omniglot,
    "grocery": grocery,
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
    began, cpu = time.perf_counter(), time.process_time()
    learner = Learner(encoder=encoder, seed=seed, epochs=epochs, **settings).fit(split.train, split.classes)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    part = np.random.default_rng(0).permutation(len(split.test_classes))[:MOST_TEST_ROWS]
    test, true = rows_of(split.test, part), np.searchsorted(learner.classes_, split.test_classes[part])
    probs = learner.predict_proba(test)
    return {
        **settings,
        "encoder": type(encoder).__name__,
        "train": len(split.classes),
        "classes": len(learner.classes_),
        "epochs": len(learner.history_),
        "chosen_epoch": learner.chosen_["epoch"],
        "accuracy": float((probs.argmax(axis=1) == true).mean()),
        "log_loss": log_loss(probs, true),
        "ece": expected_calibration_error(probs, true, bins=10),
        "cpu": cpu,
        "wall": wall,
    }


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


def table(records: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown: a line per data set, then the grid."""
    lines = [
        "# End to end: the defaults without tuning",
        "",
        f"{datetime.date.today()} · {platform.machine()}, 2 cores shared with other work, one thread · "
        f"torch {torch.__version__} · `python benchmarks/end_to_end.py --cache CACHE`",
        "",
        "All training labels are exact. Best of the grid: learning rate times 1/4 or 4, or batch size times 1/2 or 2, for "
        "as many epochs, chosen by test accuracy, which flatters it. ECE: expected calibration error of the defaults, "
        f"10 bins. Aim: within {WITHIN:g} of the best.",
        "",
        "| data | encoder | rows | classes | epochs | rate | batch | default | best of the grid | lacks "
        "| within the aim | log loss | ECE | CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    grid = ["", "## The grid", "", "Test accuracy, mean over seeds; the first column is the default.", ""]
    grid += [
        f"| data | {' | '.join(f'rate × {r:g}, batch × {b:g}' for r, b in GRID)} |",
        "|---" * (len(GRID) + 1) + "|",
    ]
    for name in LOADERS:
        found = {(r["rate"], r["batch"]): [] for r in records.values() if r["data"] == name}
        for record in records.values():
            if record["data"] == name:
                found[record["rate"], record["batch"]].append(record)
        default = found.get((1.0, 1.0))
        if not default:
            continue
        means = {at: float(np.mean([r["accuracy"] for r in those])) for at, those in found.items()}
        mine, best, first = means[1.0, 1.0], max(means.values()), default[0]
        cells = [
            name,
            first["encoder"],
            f"{first['train']:,}",
            str(first["classes"]),
            str(first["epochs"]),
            f"{first['learning_rate']:g}",
            str(first["batch_size"]),
            f"{mine:.3f}",
            f"{best:.3f}" if len(means) > 1 else "",
            f"{best - mine:.3f}" if len(means) > 1 else "",
            ("yes" if best - mine <= WITHIN else "no") if len(means) > 1 else "",
            *(f"{np.mean([r[what] for r in default]):.3f}" for what in ("log_loss", "ece")),
            f"{np.mean([r['cpu'] for r in default]):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        shown = [f"{means[at]:.3f}" if at in means else "" for at in GRID]
        grid.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join([*lines, *grid]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for finished fits")
    parser.add_argument("--data", default=",".join(LOADERS), help="data sets, separated by commas")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--no-grid", action="store_true", help="the defaults alone")
    parser.add_argument("--tables", action="store_true", help="run nothing, write the tables")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("END_TO_END_RESULTS.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    file = args.cache / "end_to_end.jsonl"
    for name in [] if args.tables else args.data.split(","):
        split = LOADERS[name](Path(os.environ["ANYGRAIN_DATA"]))
        for seed in range(args.seeds):
            for rate, batch in GRID[:1] if args.no_grid else GRID:
                done = read(file)
                if key(name, seed, rate, batch) in done:
                    continue
                default = done.get(key(name, seed, *GRID[0]))
                record = fit(split, seed, rate, batch, None if default is None else default["epochs"])
                record = {"key": key(name, seed, rate, batch), "data": name, "rate": rate, "batch": batch, **record}
                with open(file, "a") as lines:
                    lines.write(json.dumps(record) + "\n")
                print(json.dumps(record), flush=True)
    args.out.write_text(table(read(file)), encoding="utf-8")


if __name__ == "__main__":
    main()
