"""Few exact labels and a trained network: is it as sure as it is right?

    ANYGRAIN_DATA=... python -m benchmarks.few_labels --cache FOLDER [--seeds 3]

Digits through the small network of the side-by-side runs, with 1, 3 or 6 exact labels of each of ten classes, and the
other pictures without labels, or not there at all. Each fit is measured at the temperature that twins find
(`anygrain.learn.twins`) and, the same network, at temperature 1. Every finished fit is a line in
FOLDER/few_labels.jsonl; `--tables` only writes FEW_LABELS_RESULTS.md from what is there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anygrain.labels import Exact
from anygrain.learn import Learner
from anygrain.metrics import expected_calibration_error, log_loss
from benchmarks.peers.glws.network import BATCH, Small
from benchmarks.peers.glws.pictures import load

PER_CLASS = (1, 3, 6)
EPOCHS = 15
TRAIN, TEST = 2000, 2000


def measured(per_class: int, unlabelled: bool, seed: int) -> dict[str, Any]:
    """One fit, at its own temperature and at 1."""
    pictures = load("digits", train=TRAIN, test=TEST, shrink=2)
    classes = pictures.classes
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
    known = torch.cat([order[classes[order] == k][:per_class] for k in range(10)])
    labels = torch.full_like(classes, -1)
    labels[known] = classes[known]
    rows = torch.arange(len(classes)) if unlabelled else known
    train, test = (shown.permute(0, 2, 3, 1).numpy() for shown in (pictures.train[rows], pictures.test))
    epochs = EPOCHS if unlabelled else 150  # without the rest an epoch is one or two steps
    learner = Learner(
        encoder=Small(), seed=seed, epochs=epochs, batch_size=BATCH, learning_rate=2e-3, augmentation="auto"
    )
    began = time.process_time()
    learner.fit(train, Exact(labels[rows], 10))
    took = time.process_time() - began
    with torch.no_grad():
        logits = learner.head_.logits(torch.from_numpy(learner.transform(test)))
    true = pictures.test_classes.numpy()
    found: dict[str, Any] = {
        "labels": 10 * per_class,
        "unlabelled": unlabelled,
        "seed": seed,
        "accuracy": float((logits.argmax(dim=1).numpy() == true).mean()),
        "temperature": learner.temperature_,
        "agreement": next((h["agreement"] for h in learner.history_ if h["step"] == "temperature"), None),
        "cpu": took,
    }
    for name, temperature in (("one", 1.0), ("twins", learner.temperature_)):
        probs = (temperature * logits).double().softmax(dim=1).numpy()
        found[f"ece_{name}"] = expected_calibration_error(probs, true, bins=10)
        found[f"log_loss_{name}"] = log_loss(probs, true)
    return found


def table(records: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Few exact labels, a trained network: calibration",
        "",
        f"{datetime.date.today()} · {platform.machine()}, 2 cores shared with other work, one thread · "
        f"torch {torch.__version__} · `python -m benchmarks.few_labels --cache CACHE`",
        "",
        f"MNIST digits at half their side, {TRAIN:,} pictures of which few have a label, {TEST:,} test pictures, the "
        f"small network, {EPOCHS} epochs; or the labelled pictures alone, 150 epochs. Fewer than 100 labelled rows: "
        "none is held out. At temperature 1, and at that of two twins, which are part of the fit (three trainings in "
        "all). ECE: expected calibration error, 10 bins. Mean ± standard deviation over seeds.",
        "",
        "| labels | other pictures | seeds | accuracy | agreement of twins | temperature | ECE at 1 | ECE with twins "
        "| log loss at 1 | log loss with twins | CPU seconds |",
        "|---" * 11 + "|",
    ]
    for unlabelled in (True, False):
        for per_class in PER_CLASS:
            found = [r for r in records if r["labels"] == 10 * per_class and r["unlabelled"] == unlabelled]
            if not found:
                continue

            def shown(what: str, digits: int = 3, found: list[dict[str, Any]] = found) -> str:
                values = [r[what] for r in found if r[what] is not None]
                return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}" if values else ""

            cells = [str(10 * per_class), "without labels" if unlabelled else "none", str(len(found))]
            cells += [shown(w) for w in ("accuracy", "agreement", "temperature", "ece_one", "ece_twins")]
            cells += [shown("log_loss_one"), shown("log_loss_twins"), shown("cpu", 0)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for finished fits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tables", action="store_true", help="run nothing, write the table")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("FEW_LABELS_RESULTS.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    file = args.cache / "few_labels.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in [] if args.tables else range(args.seeds):
        for unlabelled in (True, False):
            for per_class in PER_CLASS:
                if any((r["labels"], r["unlabelled"], r["seed"]) == (10 * per_class, unlabelled, seed) for r in done):
                    continue
                done.append(measured(per_class, unlabelled, seed))
                with open(file, "a") as lines:
                    lines.write(json.dumps(done[-1]) + "\n")
                print(json.dumps(done[-1]), flush=True)
    args.out.write_text(table(done), encoding="utf-8")


if __name__ == "__main__":
    main()
