"""Hidden classes in up to a million rows: CPU seconds, memory and accuracy of every method.

    python benchmarks/discover_scale.py --folder FOLDER [--rows 10000,100000] [--methods auto,mixture] [--limit 150]

Rows are like sentence embeddings: 384 numbers, of length one. There are 30 topics, and 5 classes in each; a row is its
topic (length 1), what its class has beyond that (.4), and noise (1.2) whose variance falls off by direction as
1 / (1 + d / 20), for all classes alike; classes differ in the first 40 directions, by as much as the noise does there.
Classes have unlike sizes (shares as U(0.2, 1.8)), and overlap: the page says how often the most probable class by the
truth is the right one. Of 75 % of the classes a tenth of the rows is told; the number of classes is given, and no
stability is looked for.

A process per run reads the rows, fits, and reports CPU seconds, wall seconds, and how far its memory rose at its peak
above that with libraries and rows. A run that takes more CPU seconds than --limit is stopped, and its method is not
tried at more rows. What was measured is kept in FOLDER/measured.jsonl, a line per run, and no run is repeated that is
there; DISCOVER_SCALE_RESULTS.md is made of it.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from results import write_section

from anygrain.discover.methods import METHODS, method
from anygrain.labels import Exact
from anygrain.metrics import hungarian_accuracy

WIDTH, TOPICS, CLASSES, KNOWN = 384, 30, 150, 112
NOISE = 1.2  # length of the noise, that of a topic is 1
OWN = 0.4  # length of what a class has beyond its topic
MEANT = 40  # directions in which classes differ
TOLD = 0.1
ROWS = (10_000, 30_000, 100_000, 1_000_000)
AT_ONCE = 65536
RESULTS = Path(__file__).with_name("DISCOVER_SCALE_RESULTS.md")


def write_rows(folder: Path, n: int) -> None:
    """Rows (N, 384), their classes (N,), and how often the most probable class by the truth is the right one."""
    rng = np.random.default_rng(0)
    variance = 1 / (1 + np.arange(WIDTH) / 20)
    spread = np.sqrt(variance / variance.sum())
    drawn = rng.normal(size=(2, CLASSES, WIDTH)) * spread * (np.arange(WIDTH) < MEANT)
    topic, own = drawn / np.linalg.norm(drawn, axis=2, keepdims=True)
    centre, spread = topic[np.arange(CLASSES) % TOPICS] + OWN * own, (NOISE * spread).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    share = rng.uniform(0.2, 1.8, CLASSES)
    y = rng.choice(CLASSES, n, p=share / share.sum())
    x = np.empty((n, WIDTH), dtype=np.float32)
    flat = (centre / spread).astype(np.float32)
    right = 0
    for begin in range(0, n, AT_ONCE):
        rows = slice(begin, begin + AT_ONCE)
        noise = rng.standard_normal((len(y[rows]), WIDTH), dtype=np.float32)
        here = flat[y[rows]] + noise
        score = here @ flat.T - 0.5 * (flat**2).sum(axis=1) + np.log(share)
        right += int((score.argmax(axis=1) == y[rows]).sum())
        here = (here * spread) @ turn
        x[rows] = here / np.linalg.norm(here, axis=1, keepdims=True)
    np.savez(folder / f"rows_{n}.npz", x=x, y=y, best=right / n)


def peak() -> float:
    """Largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(name: str, folder: Path, n: int, limit: int) -> dict[str, float]:
    """One method in this process."""
    with np.load(folder / f"rows_{n}.npz") as held:
        x, y = held["x"], held["y"]
    told = np.where((y < KNOWN) & (np.random.default_rng(1).random(n) < TOLD), y, -1)
    labels = Exact(torch.from_numpy(told), KNOWN)
    finder = method(name)(bootstrap=0, device="cpu")
    before, cpu, wall = peak(), time.process_time(), time.monotonic()
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu) + limit, int(cpu) + limit))
    finder.fit(x, labels, CLASSES)
    spent = {"cpu": time.process_time() - cpu, "wall": time.monotonic() - wall, "memory": peak() - before}
    right = hungarian_accuracy(finder.labels_[told < 0], y[told < 0], KNOWN)
    return spent | {"all": right.all, "old": right.old, "new": right.new}


def measured(folder: Path) -> list[dict[str, Any]]:
    """What was measured, the newest of every method and number of rows."""
    path = folder / "measured.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return list({(line["method"], line["rows"]): line for line in lines}.values())


def table(found: list[dict[str, Any]], n: int, best: float) -> str:
    """The section of one number of rows."""
    before = {line["method"]: line for line in sorted(found, key=lambda line: line["rows"]) if line["rows"] < n}
    shown = []
    for line in sorted(
        (line for line in found if line["rows"] == n), key=lambda line: list(METHODS).index(line["method"])
    ):
        if "cpu" not in line:
            shown.append(f"| {line['method']} | over {line['limit']} | | | | | | |")
            continue
        less = before.get(line["method"])
        growth = "" if less is None else f"{math.log(line['cpu'] / less['cpu']) / math.log(n / less['rows']):.2f}"
        shown.append(
            f"| {line['method']} | {line['cpu']:.1f} | {growth} | {line['wall']:.0f} | {line['memory']:.2f} | "
            f"{100 * line['all']:.1f} | {100 * line['old']:.1f} | {100 * line['new']:.1f} |"
        )
    gigabytes = n * WIDTH * 4 / 2**30
    return (
        f"## {n:,} rows\n\n"
        f"They take {gigabytes:.2f} GB; memory is beside them. Growth is the exponent of CPU seconds in rows, from\n"
        "the number of rows before. Accuracies (%, one matching over all classes) are of rows that were not told; by\n"
        f"the truth {100 * best:.1f} % would be right.\n\n"
        "| method | CPU s | growth | wall s | memory, GB | all | known classes | new classes |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(shown)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for rows and what was measured, 2 GB")
    parser.add_argument("--rows", default=",".join(str(n) for n in ROWS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--limit", type=int, default=150, help="CPU seconds of a run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure what was measured already")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.one == "rows":
        write_rows(given.folder, int(given.rows))
        return
    if given.one:
        print(json.dumps(run(given.one, given.folder, int(given.rows), given.limit)))
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    known = {} if given.again else {(line["method"], line["rows"]): line for line in measured(given.folder)}
    own = [sys.executable, __file__, "--folder", str(given.folder), "--threads", str(given.threads)]
    own += ["--limit", str(given.limit)]
    for n in (int(word) for word in given.rows.split(",")):
        if not (given.folder / f"rows_{n}.npz").exists():
            subprocess.run([*own, "--rows", str(n), "--one", "rows"], check=True)
        for name in given.methods.split(","):
            stopped = any(
                "cpu" not in line for line in measured(given.folder) if line["method"] == name and line["rows"] < n
            )
            if (name, n) in known or stopped:
                continue
            done = subprocess.run([*own, "--rows", str(n), "--one", name], capture_output=True, text=True)
            line: dict[str, Any] = {"method": name, "rows": n, "limit": given.limit}
            if done.returncode == 0:
                line |= json.loads(done.stdout.splitlines()[-1])
            elif done.returncode > 0:
                raise RuntimeError(done.stderr)
            with (given.folder / "measured.jsonl").open("a") as out:
                out.write(json.dumps(line) + "\n")
            print(line, flush=True)
        with np.load(given.folder / f"rows_{n}.npz") as held:
            best = float(held["best"])
        write_section(
            f"{n} rows", table(measured(given.folder), n, best), path=RESULTS, title="Hidden classes in many rows"
        )


if __name__ == "__main__":
    main()
