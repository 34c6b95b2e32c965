"""Attention pooling side by side with torchmil's: training time, memory and what is learnt, on ragged bags.

    ANYGRAIN_DATA=... python benchmarks/bags_torchmil.py [--sets elephant,protein,ragged] [--repeats 3] [--epochs 50]

The same network (a layer of 128 GELU units, dropout of a quarter, attention of 64 hidden units, a linear layer), AdamW
at 1e-3, batches of 16 bags, as many epochs. torchmil 1.0.2 pads the bags of a batch to the largest (`pad_tensors`), in
a plain loop without a data loader, which would only cost it time. Ours is `Learner(encoder=BagEncoder("attention"))`
without cross-fitting: the tenth of the bags that is held out, the average of the weights, the temperature and the
posteriors of all bags are included. Every training has its own process and one thread, the two take turns; both have
fitted a few tiny bags before the clock runs. "ragged" are 150 bags of 10 to 10,000 instances (sizes even on a log
scale) of 64 features, trained for two fifths of the epochs; a twentieth of the instances of every second bag is moved.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from results import write_section

HIDDEN, ATTENTION, RATE, BATCH, DROPOUT = 128, 64, 1e-3, 16, 0.25
RESULTS = Path(__file__).with_name("BAGS_SCALE_RESULTS.md")
WAYS = ("anygrain", "torchmil")


def bags_of(name: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Bags, standardised, and their classes."""
    if name == "ragged":
        return ragged(150, 10, 10_000, 64)
    root = os.environ.get("ANYGRAIN_DATA")
    if not root:
        sys.exit("ANYGRAIN_DATA is not set: the folder with mil_elephant, ...")
    held = np.load(Path(root) / f"mil_{name}" / "bags.npz", allow_pickle=True)
    x = held["X"].astype(np.float32)
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf)
    order = np.argsort(held["bag"], kind="stable")
    sizes = np.unique(held["bag"], return_counts=True)[1]
    return np.split(x[order], np.cumsum(sizes)[:-1]), held["y"].astype(np.int64)


def ragged(number: int, least: int, most: int, width: int) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(np.log(least), np.log(most), number)).round().astype(int)
    bags = [rng.standard_normal((size, width), dtype=np.float32) for size in sizes]
    for bag in bags[1::2]:
        bag[: max(len(bag) // 20, 1), :4] += 2
    return bags, np.arange(number) % 2


def ours(bags: list[np.ndarray], y: np.ndarray, new: list[np.ndarray], epochs: int) -> np.ndarray:
    from anygrain.bags import BagData
    from anygrain.encoders.bags import BagEncoder
    from anygrain.labels import Exact
    from anygrain.learn import Learner

    learner = Learner(
        encoder=BagEncoder("attention", hidden=HIDDEN, dropout=DROPOUT),
        epochs=epochs,
        batch_size=BATCH,
        learning_rate=RATE,
        cross_fit=False,
        seed=0,
    )
    learner.fit(BagData.from_arrays(bags), Exact(y, 2))
    return np.asarray(learner.predict_proba(BagData.from_arrays(new)))[:, 1]


def torchmils(bags: list[np.ndarray], y: np.ndarray, new: list[np.ndarray], epochs: int) -> np.ndarray:
    from torchmil.data import pad_tensors
    from torchmil.models import ABMIL

    torch.manual_seed(0)
    enter = torch.nn.Sequential(torch.nn.Linear(bags[0].shape[1], HIDDEN), torch.nn.GELU(), torch.nn.Dropout(DROPOUT))
    model = ABMIL(in_shape=(bags[0].shape[1],), att_dim=ATTENTION, feat_ext=enter)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    given, truth = [torch.from_numpy(bag) for bag in bags], torch.from_numpy(y).float()
    for _ in range(epochs):
        for rows in torch.randperm(len(y)).split(BATCH):
            optimizer.zero_grad()
            said = model(*pad_tensors([given[row] for row in rows.tolist()]))
            torch.nn.functional.binary_cross_entropy_with_logits(said, truth[rows]).backward()
            optimizer.step()
    model.eval()
    found = []
    with torch.no_grad():
        for at in range(0, len(new), BATCH):
            found.append(model(*pad_tensors([torch.from_numpy(bag) for bag in new[at : at + BATCH]])))
    return torch.cat(found).sigmoid().numpy()


def peak() -> float:
    """Largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def run(way: str, name: str, epochs: int) -> dict[str, float]:
    """One training in this process."""
    from sklearn.metrics import roc_auc_score

    fit = ours if way == "anygrain" else torchmils
    few, classes = ragged(110, 2, 4, 8)
    fit(few, classes, few, 1)
    epochs = epochs * 2 // 5 if name == "ragged" else epochs
    bags, y = bags_of(name)
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[len(y) // 5 :], order[: len(y) // 5]
    given, asked = [bags[m] for m in train], [bags[m] for m in test]
    before, began = peak(), time.process_time()
    said = fit(given, y[train], asked, epochs)
    return {
        "cpu": time.process_time() - began,
        "memory": peak() - before,
        "auc": float(roc_auc_score(y[test], said)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default="elephant,protein,ragged")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one:
        print(json.dumps(run(*given.one.split(";"), given.epochs)))
        return
    rows = []
    for name in given.sets.split(","):
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for repeat in range(given.repeats):
            for way in WAYS[:: 1 - 2 * (repeat % 2)]:
                command = [sys.executable, __file__, "--epochs", str(given.epochs), "--one", f"{way};{name}"]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found[way].append(json.loads(done.stdout.splitlines()[-1]))
                print(name, repeat, way, found[way][-1], flush=True)
        sizes = np.array([len(bag) for bag in bags_of(name)[0]])
        cells = [f"{name}: {len(sizes)} bags of {sizes.min()} to {sizes.max()}"]
        for measure, digits in (("cpu", 1), ("memory", 0)):
            each = {way: np.array([one[measure] for one in found[way]]) for way in WAYS}
            ratio = each["anygrain"] / np.maximum(each["torchmil"], 1e-9)
            cells += [f"{each[way].mean():.{digits}f}" for way in WAYS]
            cells.append(f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})")
        cells += [f"{np.mean([one['auc'] for one in found[way]]):.3f}" for way in WAYS]
        rows.append(f"| {' | '.join(cells)} |")
        write_section(
            "torchmil",
            f"## Attention pooling beside torchmil's, {given.epochs} epochs\n\n"
            "CPU seconds of training and of answering for a fifth of the bags, memory in MB above that of imports,\n"
            "data and a tiny fit, at its peak; medians and ranges of the ratios, ours over torchmil's.\n\n"
            "| bags | CPU s, ours | torchmil's | ratio | MB, ours | torchmil's | ratio | AUC, ours | torchmil's |\n"
            "|---|---|---|---|---|---|---|---|---|\n" + "\n".join(rows),
            path=RESULTS,
            title="Large bags",
        )


if __name__ == "__main__":
    main()
