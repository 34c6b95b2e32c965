"""Large bags, read from files while a model is trained.

    python benchmarks/bags_scale.py --folder FOLDER [--bags 200] [--instances 20000] [--epochs 3] [--ways ...]
    python benchmarks/bags_scale.py --folder FOLDER --single 100000 [--ways ...]

Every bag is a file (NPZ, half precision, not compressed; 4 GB together), drawn from a seed; in every second bag a
twentieth of the instances is shifted. A process per way trains a network over all bags but a fifth, answers for that
fifth, and reports CPU seconds, wall seconds, and how far memory rose above what the libraries take; the bags would take
8 GB as float32. The plain loop is what one writes by hand: a bag at a time, the same network without dropout, plain
torch. What was measured is kept in FOLDER/measured.jsonl, a line per way, and the tables of BAGS_SCALE_RESULTS.md are
made of it. With --single one bag of that many instances goes through every network: the gradient of one step, and an
answer.
"""

from __future__ import annotations

import argparse
import json
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

WIDTH = 512
WAYS = ("anygrain", "plain loop", "anygrain, transformer", "anygrain, re-embedding", "anygrain, mamba")
RESULTS = Path(__file__).with_name("BAGS_SCALE_RESULTS.md")


def write_bags(folder: Path, bags: int, instances: int) -> None:
    """The bags as files, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for bag in range(bags):
        path = folder / f"bag_{bag:04d}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng(bag)
        x = rng.standard_normal((instances, WIDTH), dtype=np.float32)
        if bag % 2:
            x[: instances // 20, :8] += 1.5
        np.savez(path, features=x.astype(np.float16))


def peak() -> float:
    """Largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(way: str, folder: Path, epochs: int) -> dict[str, float]:
    """One training in this process; the last fifth of the bags is kept to test on."""
    from sklearn.metrics import roc_auc_score

    from anygrain.bags import BagData
    from anygrain.labels import Exact
    from anygrain.learn import Learner

    data = BagData.from_folder(folder)
    y = np.arange(len(data)) % 2
    cut = len(data) - len(data) // 5
    train, test = np.arange(cut), np.arange(cut, len(data))
    before, cpu, wall = peak(), time.process_time(), time.monotonic()
    if way == "plain loop":
        said = plain_loop(data, y, train, test, epochs)
    else:
        learner = Learner(encoder=encoder_of(way), epochs=epochs, cross_fit=False, augmentation=None, seed=0)
        said = learner.fit(data[train], Exact(y[train], 2)).predict_proba(data[test])[:, 1]
    return {
        "cpu": time.process_time() - cpu,
        "wall": time.monotonic() - wall,
        "memory": peak() - before,
        "auc": roc_auc_score(y[test], said),
    }


def encoder_of(way: str, **settings: Any) -> Any:
    from anygrain.encoders.bags import BagEncoder

    name = way.split(", ")[1] if ", " in way else "attention"
    again = name == "re-embedding"
    return BagEncoder("attention" if again else name, reembedding={} if again else None, **settings)


def single(way: str, instances: int) -> dict[str, float]:
    """CPU seconds of a gradient and of an answer for one bag, and the memory beside its features."""
    torch.manual_seed(0)
    encoder = encoder_of(way, feature_count=WIDTH)
    encoder.build()
    many, few = ({"features": torch.zeros(n, WIDTH).normal_(), "sizes": torch.tensor([n])} for n in (instances, 100))
    encoder.encode(few).sum().backward()
    found: dict[str, float] = {}
    before, began = peak(), time.process_time()
    with torch.no_grad():
        encoder.eval().encode(many)
    found["answer"], found["answer memory"] = time.process_time() - began, peak() - before
    began = time.process_time()
    encoder.train().encode(many).sum().backward()
    found["gradient"], found["gradient memory"] = time.process_time() - began, peak() - before
    return found


def plain_loop(data: object, y: np.ndarray, train: np.ndarray, test: np.ndarray, epochs: int) -> np.ndarray:
    """Attention pooling by hand, a bag at a time."""
    torch.manual_seed(0)
    enter, value, weight = torch.nn.Linear(WIDTH, 128), torch.nn.Linear(128, 64), torch.nn.Linear(64, 1)
    out = torch.nn.Linear(128, 2)
    modules = torch.nn.ModuleList([enter, value, weight, out])
    optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-3, weight_decay=0.05)

    def logits(bag: int) -> torch.Tensor:
        hidden = torch.nn.functional.gelu(enter(torch.from_numpy(data[bag])))  # type: ignore[index]
        attention = weight(torch.tanh(value(hidden))).softmax(dim=0)
        return out((attention * hidden).sum(dim=0))

    for _ in range(epochs):
        for bag in np.random.default_rng(0).permutation(train).tolist():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits(bag)[None], torch.tensor([y[bag]])).backward()
            optimizer.step()
    with torch.no_grad():
        return np.array([float(logits(bag).softmax(0)[1]) for bag in test.tolist()])


def measured(folder: Path) -> list[dict[str, Any]]:
    """What was measured on the bags of a folder, the newest of every way."""
    path = folder / "measured.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return list({(line["way"], line["epochs"], line["instances"]): line for line in lines}.values())


def table(found: list[dict[str, Any]], bags: int, instances: int, epochs: int) -> str:
    """The section of one size."""
    rows = [
        line for line in found if (line.get("bags"), line["instances"], line["epochs"]) == (bags, instances, epochs)
    ]
    plain = {line["way"]: line["cpu"] for line in rows}.get("plain loop")
    shown = []
    for line in sorted(rows, key=lambda line: WAYS.index(line["way"])):
        beside = f"{line['cpu'] / plain:.2f}" if plain else ""
        shown.append(
            f"| {line['way']} | {line['cpu']:.0f} | {beside} | {line['wall']:.0f} | {line['memory']:.2f} | "
            f"{line['auc']:.3f} |"
        )
    size = bags * instances * WIDTH * 4 / 2**30
    return (
        f"## {bags} bags of {instances:,} instances, {WIDTH} features, {epochs} epoch{'s' * (epochs > 1)}\n\n"
        f"All instances together take {size:.1f} GB as float32. CPU seconds of training (means and scales of the\n"
        "features, choosing the epoch, the temperature and what is said of the training bags included) and of\n"
        "answering for a fifth of the bags, beside those of the plain loop, which does none of that; memory above\n"
        "that of the imports, at its peak, pages of the files included.\n\n"
        "| way | CPU s | of the plain loop | wall s | memory, GB | AUC of bags not seen |\n|---|---|---|---|---|---|\n"
        + "\n".join(shown)
    )


def single_table(found: list[dict[str, Any]], instances: int) -> str:
    """The section of one bag."""
    rows = [line for line in found if line["instances"] == instances and "answer" in line]
    shown = [
        f"| {line['way']} | {line['gradient']:.1f} | {line['gradient memory']:.2f} | {line['answer']:.1f} | "
        f"{line['answer memory']:.2f} |"
        for line in sorted(rows, key=lambda line: WAYS.index(line["way"]))
    ]
    return (
        f"## One bag of {instances:,} instances, {WIDTH} features\n\n"
        "CPU seconds of one gradient and of one answer, and memory at its peak beside the features, which take\n"
        f"{instances * WIDTH / 2**28:.2f} GB.\n\n"
        "| way | gradient, s | memory, GB | answer, s | memory, GB |\n|---|---|---|---|---|\n" + "\n".join(shown)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the bags are written, 4 GB")
    parser.add_argument("--bags", type=int, default=200)
    parser.add_argument("--instances", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", default=";".join(WAYS), help="which ways, apart by semicolons")
    parser.add_argument("--single", type=int, default=0, help="instances of one bag, for one step")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.one:
        done = single(given.one, given.single) if given.single else run(given.one, given.folder, given.epochs)
        print(json.dumps(done))
        return
    if not given.single:
        write_bags(given.folder, given.bags, given.instances)
    own = ["--folder", str(given.folder), "--epochs", str(given.epochs), "--threads", str(given.threads)]
    own += ["--single", str(given.single)]
    for way in given.ways.split(";"):
        if given.single and way == "plain loop":
            continue
        command = [sys.executable, __file__, *own, "--one", way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        if given.single:
            found.update({"way": way, "instances": given.single, "epochs": 0})
        else:
            found.update({"way": way, "bags": given.bags, "instances": given.instances, "epochs": given.epochs})
        with (given.folder / "measured.jsonl").open("a") as out:
            out.write(json.dumps(found) + "\n")
        print(found, flush=True)
        known = measured(given.folder)
        name, text = f"one bag of {given.single}", single_table(known, given.single)
        if not given.single:
            name = f"{given.bags} bags of {given.instances}, {given.epochs} epochs"
            text = table(known, given.bags, given.instances, given.epochs)
        write_section(name, text, path=RESULTS, title="Large bags")


if __name__ == "__main__":
    main()
