"""Positive and unlabelled pictures through a trained network: the class prior that was not given.

    ANYGRAIN_DATA=... python -m benchmarks.learn.trained_prior --cache FOLDER [--seeds 2]

Digits below five are positive; some of them are labelled, drawn by chance. Per class prior, number of labelled pictures
and seed: the prior that `Learner.fit` estimates with its interval, and test accuracy with it and with the true one.
Every finished case is a line of FOLDER/trained_prior.jsonl; `--tables` only writes TRAINED_PRIOR_RESULTS.md.
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

from anygrain.labels import Positive
from anygrain.learn import Learner
from benchmarks.peers.glws.network import BATCH, Small
from benchmarks.peers.glws.pictures import load

CASES = [(prior, labelled) for prior in (0.25, 0.5) for labelled in (60, 150)]
PICTURES, EPOCHS = 1200, 15


def measured(prior: float, labelled: int, seed: int) -> dict[str, Any]:
    """One training set, with the prior estimated and given."""
    pictures = load("digits", train=2000, test=2000, shrink=2)
    positive = torch.isin(pictures.classes, torch.tensor(pictures.positive))
    order = torch.randperm(len(positive), generator=torch.Generator().manual_seed(seed))
    count = int(prior * PICTURES)
    rows = torch.cat([order[positive[order]][:count], order[~positive[order]][: PICTURES - count]])
    known = (torch.arange(PICTURES) < labelled).long()
    train, test = (shown.permute(0, 2, 3, 1).numpy() for shown in (pictures.train[rows], pictures.test))
    true = torch.isin(pictures.test_classes, torch.tensor(pictures.positive)).numpy()
    found: dict[str, Any] = {"prior": prior, "labelled": labelled, "seed": seed}
    for name, stated in (("estimated", None), ("given", prior)):
        learner = Learner(encoder=Small(), seed=seed, epochs=EPOCHS, batch_size=BATCH, learning_rate=2e-3)
        began = time.process_time()
        learner.fit(train, Positive(known, prior=stated))
        found[f"cpu_{name}"] = time.process_time() - began
        found[f"accuracy_{name}"] = float((learner.predict(test) == true).mean())
        if stated is None:
            found["estimate"], found["low"], found["high"] = learner.class_prior_estimate_
    return found


def table(records: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Class prior of positive and unlabelled pictures, trained network",
        "",
        f"{datetime.date.today()} · {platform.machine()}, 2 cores shared with other work, one thread · "
        f"torch {torch.__version__} · `python -m benchmarks.learn.trained_prior --cache CACHE`",
        "",
        f"MNIST digits at half their side, below five against the others, {PICTURES:,} pictures, the small network, "
        f"{EPOCHS} epochs; accuracy on 2,000 test pictures, half of them positive, at the training prior.",
        "",
        "| prior | labelled | seeds | estimate | interval, mean | intervals with the truth | accuracy, estimated "
        "| accuracy, given | CPU seconds, estimated | given |",
        "|---" * 10 + "|",
    ]
    for prior, labelled in CASES:
        found = [r for r in records if (r["prior"], r["labelled"]) == (prior, labelled)]
        if not found:
            continue
        mean = {k: float(np.mean([r[k] for r in found])) for k in found[0]}
        spread = float(np.std([r["estimate"] for r in found]))
        inside = sum(r["low"] <= prior <= r["high"] for r in found)
        cells = [f"{prior:g}", str(labelled), str(len(found)), f"{mean['estimate']:.3f} ± {spread:.3f}"]
        cells += [f"{mean['low']:.3f} to {mean['high']:.3f}", f"{inside} of {len(found)}"]
        cells += [f"{mean[f'accuracy_{name}']:.3f}" for name in ("estimated", "given")]
        cells += [f"{mean[f'cpu_{name}']:.0f}" for name in ("estimated", "given")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for finished cases")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tables", action="store_true", help="run nothing, write the table")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("TRAINED_PRIOR_RESULTS.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    file = args.cache / "trained_prior.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in [] if args.tables else range(args.seeds):
        for prior, labelled in CASES:
            if not any((r["prior"], r["labelled"], r["seed"]) == (prior, labelled, seed) for r in done):
                done.append(measured(prior, labelled, seed))
                with open(file, "a") as lines:
                    lines.write(json.dumps(done[-1]) + "\n")
                print(json.dumps(done[-1]), flush=True)
    args.out.write_text(table(done), encoding="utf-8")


if __name__ == "__main__":
    main()
