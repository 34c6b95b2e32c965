"""Labelling rules without features: ours beside snorkel's LabelModel, majority, and channels fitted to the truth.

    ANYGRAIN_DATA=/path/to/data python benchmarks/peers/rules.py

Each way runs in a process of its own, one thread; times are CPU seconds of the fit and the posterior, memory is the
growth of the peak while they run. The peer needs `pip install --no-deps snorkel munkres`, and is skipped without it.
Real sets are read from $ANYGRAIN_DATA (`weak_youtube`, `weak_trec`, `weak_hausa`), and left out without it.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from generators import labelling_functions
from results import write_section

from anygrain.labels.aggregate import aggregate
from anygrain.labels.rules import Rules
from anygrain.metrics import accuracy, expected_calibration_error, log_loss

WAYS = (
    "majority",
    "anygrain",
    "snorkel, 100 epochs",
    "snorkel, 500 epochs",
    "channels fitted to the truth",
)
REAL = ("weak_youtube", "weak_trec", "weak_hausa")
COPIED = ", a rule copied 5 times"
LEARNT = "anygrain, dependent pairs learnt"


def load(name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Votes (N, R), truth (N,) and number of classes of one set."""
    if name.startswith("synthetic"):
        copying = 0.5 if "copying" in name else 0.0
        made = labelling_functions(seed=int(name.rsplit(" ", 1)[1]), copying=copying)
        return made["votes"], made["truth"], 5
    import pandas

    if name.endswith(COPIED):  # the one that votes most, which is seldom the best
        votes, truth, k = load(name.removesuffix(COPIED))
        most = (votes >= 0).sum(axis=0).argmax()
        return np.concatenate([votes, np.repeat(votes[:, [most]], 5, axis=1)], axis=1), truth, k
    frame = pandas.read_parquet(Path(os.environ["ANYGRAIN_DATA"]) / name / f"{name}.parquet")
    truth = frame["label"].to_numpy().astype(int)
    return np.array(frame["weak_labels"].tolist()).astype(int), truth, int(truth.max()) + 1


def majority(votes: np.ndarray, k: int) -> np.ndarray:
    """Shares of the votes cast, plus a tenth of a vote for every class."""
    counts = np.stack([(votes == c).sum(axis=1) for c in range(k)], axis=1) + 0.1
    return counts / counts.sum(axis=1, keepdims=True)


def ceiling(votes: np.ndarray, truth: np.ndarray, k: int) -> np.ndarray:
    """Independent channels with abstention, counted with the truth: what a model of this form can reach."""
    rules = Rules(torch.from_numpy(votes), k)
    certain = torch.nn.functional.one_hot(torch.from_numpy(truth), k).double()
    rules.channel.prior_is_settled = True
    rules.channel.coverage = torch.from_numpy((votes >= 0).mean(axis=0)).clamp(min=1e-3)
    rules.update(certain)
    shares = certain.mean(dim=0)
    return rules.posterior(shares.log().expand(len(truth), -1)).numpy()


def run(way: str, name: str) -> dict[str, float]:
    """One way on one set: scores, CPU seconds, growth of peak memory in MB."""
    torch.set_num_threads(1)
    votes, truth, k = load(name)
    if way.startswith("snorkel"):
        from snorkel.labeling.model import LabelModel
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    if way == "majority":
        probs = majority(votes, k)
    elif way.startswith("anygrain"):
        dependencies = "learn" if way == LEARNT else "discount"
        probs = aggregate(Rules(torch.from_numpy(votes), k, dependencies=dependencies)).posterior.numpy()
    elif way.startswith("snorkel"):
        model = LabelModel(cardinality=k, verbose=False)
        model.fit(votes, n_epochs=int(way.split()[1]), seed=0, progress_bar=False)
        probs = model.predict_proba(votes)
    else:
        probs = ceiling(votes, truth, k)
    seconds = time.process_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    measured = {
        "accuracy": accuracy(probs.argmax(axis=1), truth),
        "log_loss": log_loss(probs, truth),
        "ece": expected_calibration_error(probs, truth),
    }
    return {**measured, "seconds": seconds, "megabytes": grown, "rows": len(truth)}


def with_features(seeds: int) -> str:
    """A classifier of texts taught by rules: test accuracy, balanced accuracy, log loss and calibration."""
    from scipy.stats import t

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from robust import SETS, labels_of, scores

    from anygrain.labels import Exact
    from anygrain.learn import Learner

    ways = {"majority vote": "given", "rules": "kind", "truth": "truth"}
    names = ("accuracy", "balanced", "log_loss", "ece")
    lines = ["| set | taught by | accuracy | balanced | log loss | ECE | accuracy more than majority | CPU s |"]
    lines.append("|---" * 8 + "|")
    for name in REAL:
        data = SETS[name].load()
        found = {way: np.zeros((seeds, 5)) for way in ways}
        for seed in range(seeds):
            task = SETS[name].draw(data, seed)
            for way, how in ways.items():
                labels = labels_of(task, how)
                assert isinstance(labels, Exact | Rules)
                start = time.process_time()
                learner = Learner(seed=seed).fit(task.x, labels)
                seconds = time.process_time() - start
                got = scores(learner, task)
                found[way][seed] = [*(got[n] for n in names), seconds]
        reach = t.ppf(0.975, seeds - 1) / seeds**0.5
        first = found["majority vote"]
        for way, got in found.items():
            half = reach * got.std(axis=0, ddof=1)
            cells = " | ".join(f"{m:.3f} ± {h:.3f}" for m, h in zip(got.mean(axis=0)[:4], half, strict=False))
            more = got[:, 0] - first[:, 0]
            gap = "" if got is first else f"{more.mean():+.3f} ± {reach * more.std(ddof=1):.3f}"
            lines.append(f"| {name} | {way} | {cells} | {gap} | {got[:, 4].mean():.1f} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def in_process(way: str, name: str) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--way", way, "--set", name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{way} on {name} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=(*WAYS, LEARNT))
    parser.add_argument("--set", dest="name")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dependent", action="store_true", help="rules that copy each other, in a section of its own")
    parser.add_argument("--features", action="store_true", help="classifiers that rules teach, in a section of its own")
    given = parser.parse_args()
    if given.features:
        torch.set_num_threads(1)
        remark = (
            "The default `Learner` on TF-IDF features, as in ROBUST_RESULTS.md, taught by hard majority votes, by "
            "`Rules`, and by the truth, the ceiling. Each seed draws training rows. ± is the half width of a 95 % "
            "interval over seeds, paired by seed where ways are compared."
        )
        heading = "## Labelling rules that teach a classifier"
        write_section("rules_features", f"{heading}\n\n{with_features(given.seeds)}\n\n{remark}")
        return
    if given.way:
        print(json.dumps(run(given.way, given.name)))
        return
    torch.set_num_threads(1)
    names = [] if given.dependent else [f"synthetic 100k x 20, seed {seed}" for seed in range(given.seeds)]
    ways = [WAYS[0], WAYS[1], LEARNT, *WAYS[2:]] if given.dependent else WAYS
    names.append("synthetic 100k x 20, half of the rules copying, seed 0")
    skipped = []
    if "ANYGRAIN_DATA" in os.environ:
        names += [*REAL, *(name + COPIED for name in REAL)] if given.dependent else REAL
    else:
        skipped.append("Real sets left out: ANYGRAIN_DATA is not set.")
    has_peer = all(importlib.util.find_spec(m) for m in ("snorkel", "munkres"))
    if not has_peer:
        skipped.append("snorkel skipped: not installed (`pip install --no-deps snorkel munkres`).")
    lines = [
        "| set | way | accuracy | log loss | ECE | CPU s | memory growth, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        for way in ways:
            if way.startswith("snorkel") and not has_peer:
                continue
            got = in_process(way, name)
            half = 1.96 * (got["accuracy"] * (1 - got["accuracy"]) / got["rows"]) ** 0.5
            line = f"| {name} | {way} | {got['accuracy']:.3f} ± {half:.3f} | {got['log_loss']:.3f} | {got['ece']:.3f} "
            lines.append(line + f"| {got['seconds']:.2f} | {got['megabytes']:.0f} |")
            print(lines[-1], flush=True)
    remarks = [
        "± is the half width of a 95 % interval over rows. Majority is the share of votes, smoothed by a tenth of a "
        "vote per class; ties go to the first class. The last way of each set knows the truth of every row.",
        *skipped,
    ]
    name, heading = ("rules_dependent", ", copies among them") if given.dependent else ("rules", "")
    write_section(name, f"## Labelling rules{heading}\n\n" + "\n".join(lines) + "\n\n" + "\n\n".join(remarks))


if __name__ == "__main__":
    main()
