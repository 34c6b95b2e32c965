"""Numbers from values, ranges, means over bags and ratings: what does each kind of label come to?

    ANYGRAIN_DATA=... python benchmarks/real.py --cache FOLDER [--data abalone,sts,emotion] [--seeds 5] [--encoder NAME]

For every data set, label and seed: errors, intervals and densities of `Learner` on test rows, beside ridge regression
and gradient boosting (scikit-learn) on what one would otherwise do with such labels: the middle of a range, the mean of
the bag copied to its members, the mean of the ratings; for bags also ridge on the bags' mean features. The standard
deviation of a baseline is that of its cross-validated residuals. For `crowd_emotion` there are no features: the
posterior mean of `aggregate` against the plain mean and the median of the ratings.

Every finished fit is a line in FOLDER/results.jsonl, so a stopped run goes on where it was. sts needs a sentence
encoder (--encoder folder or name; anygrain[text]). The tables go to REAL_RESULTS.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from anygrain.labels import AggregateValue, Censored, Ratings, RealLabels, Value, aggregate
from anygrain.learn import Learner
from anygrain.metrics import (
    coverage_error,
    crps,
    interval_coverage,
    interval_width,
    log_density,
    mean_absolute_error,
    paired_lower_bound,
    rmse,
)

FEW = 60
Data = dict[str, np.ndarray]


def folder(name: str) -> Path:
    root = os.environ.get("ANYGRAIN_DATA")
    if not root:
        sys.exit("ANYGRAIN_DATA is not set: the folder with abalone, sts_semeval, crowd_emotion")
    return Path(root) / name


def load_abalone(encoder: str, cache: Path) -> Data:
    table = pq.read_table(folder("abalone") / "abalone.parquet").to_pandas()
    sex = np.stack([(table.sex == s).to_numpy(float) for s in "MFI"], axis=1)
    x = np.concatenate([sex, table.drop(columns=["sex", "rings"]).to_numpy(float)], axis=1)
    return {"x": x, "y": table.rings.to_numpy(float), "cuts": np.array([7.5, 9.5, 11.5])}


def load_sts(encoder: str, cache: Path) -> Data:
    """|u - v| and u * v of the two embeddings, 64 principal components each, and their cosine; 2016 is the test."""
    from sklearn.decomposition import PCA

    from anygrain.encoders import Pretrained

    table = pq.read_table(folder("sts_semeval") / "sts.parquet").to_pandas()
    early = np.random.default_rng(0).permutation(np.flatnonzero(table.year <= 2014))[:3000]
    kept = np.sort(np.concatenate([early, np.flatnonzero(table.year == 2016)]))
    table = table.iloc[kept]
    network = Pretrained(encoder, cache=str(cache))
    u, v = (network(table[c].tolist()).numpy() for c in ("text_a", "text_b"))
    train = (table.year <= 2014).to_numpy()
    parts = [PCA(64, random_state=0).fit(t[train]).transform(t) for t in (np.abs(u - v), u * v)]
    cosine = (u * v).sum(axis=1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
    x = np.concatenate([*parts, cosine[:, None]], axis=1)
    return {"x": x, "y": table.score.to_numpy(float), "cuts": np.array([1.0, 2.0, 3.0, 4.0]), "train": train}


LOADERS: dict[str, Callable[[str, Path], Data]] = {"abalone": load_abalone, "sts": load_sts}
ROWS = {"abalone": 1000, "sts": 1000}


class Task:
    """Training and test rows of one seed."""

    def __init__(self, name: str, data: Data, seed: int) -> None:
        generator = np.random.default_rng(seed)
        n = len(data["y"])
        if "train" in data:
            train, test = generator.permutation(np.flatnonzero(data["train"])), np.flatnonzero(~data["train"])
        else:
            order = generator.permutation(n)
            train, test = order[: ROWS[name]], order[ROWS[name] :]
        train = train[: ROWS[name]]
        self.x, self.y, self.x_test, self.y_test = (data[k][rows] for rows in (train, test) for k in ("x", "y"))
        self.cuts, self.seed = data["cuts"].tolist(), seed

    def few(self, n: int) -> np.ndarray:
        return np.where(np.arange(len(self.y)) < n, self.y, np.nan)


def labels_of(task: Task, kind: str) -> RealLabels:
    """Labels of the training rows; "+" joins kinds."""
    generator = torch.Generator().manual_seed(task.seed)
    y = torch.from_numpy(task.y)
    out: RealLabels | None = None
    for part in kind.split(" + "):
        made: RealLabels
        if part == "values":
            made = Value(y)
        elif part.endswith("values"):
            made = Value(torch.from_numpy(task.few(int(part.split()[0]))))
        elif part == "ranges":
            made = Censored.simulate(y, generator=generator, cuts=task.cuts)
        elif part.startswith("means of"):
            made = AggregateValue.simulate(y, generator=generator, bag_size=int(part.split()[2]))
        else:  # two ratings of ten annotators, who differ in bias (0 on average, else nobody could tell) and care
            sd = float(y.std())
            bias = 0.5 * sd * torch.randn(10, generator=generator, dtype=torch.float64)
            made = Ratings.simulate(
                y, generator=generator, ratings_per_item=2, bias=bias - bias.mean(), noise=(0.1 * sd, 2 * sd)
            )
        out = made if out is None else out & made
    assert out is not None
    return out


def targets_of(task: Task, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and numbers that a plain regression would be given for these labels."""
    labels = labels_of(task, kind)
    guess = labels.rough().numpy()
    if kind.startswith(f"{FEW} values + "):
        guess = np.where(np.arange(len(guess)) < FEW, task.y, labels.parts[1].rough().numpy())  # type: ignore[attr-defined]
    rows = np.flatnonzero(~np.isnan(guess))
    return rows, guess[rows]


def scores(mean: np.ndarray, sd: np.ndarray, ends: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {
        "rmse": rmse(mean, truth),
        "mae": mean_absolute_error(mean, truth),
        "crps": crps(mean, sd, truth),
        "log_density": log_density(mean, sd, truth),
        "coverage": interval_coverage(ends, truth),
        "width": interval_width(ends),
        "coverage_error": coverage_error(mean, sd, truth),
    }


def run_ours(task: Task, kind: str) -> dict[str, Any]:
    began = time.process_time()
    learner = Learner(seed=task.seed).fit(task.x, labels_of(task, kind))
    spent = time.process_time() - began
    mean, sd = learner.predict_distribution(task.x_test)
    found = scores(mean, sd, learner.predict_interval(task.x_test, 0.9), task.y_test)
    return {**found, "seconds": spent, "chosen": learner.chosen_["chosen"], "head": learner.chosen_["head"]}


def run_baseline(task: Task, kind: str, method: str) -> dict[str, Any]:
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    began = time.process_time()
    rows, target = targets_of(task, kind)
    x = task.x[rows]
    if method == "ridge on bags":
        bags = labels_of(task, kind).bags[0]
        x = np.stack(
            [task.x[bags.members[a:b]].mean(axis=0) for a, b in zip(bags.offsets, bags.offsets[1:], strict=False)]
        )
        target = labels_of(task, kind).values.numpy()  # type: ignore[attr-defined]
    model = (
        GradientBoostingRegressor(random_state=task.seed)
        if method == "boosting"
        else make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 4, 15)))
    )
    spread = float(np.std(cross_val_predict(model, x, target, cv=5) - target))
    mean = model.fit(x, target).predict(task.x_test)
    sd = np.full(len(mean), spread)
    ends = np.stack([mean - 1.644854 * sd, mean + 1.644854 * sd], axis=1)
    return {**scores(mean, sd, ends, task.y_test), "seconds": time.process_time() - began}


KINDS = [
    "values",
    f"{FEW} values",
    f"{FEW} values + ranges",
    "ranges",
    f"{FEW} values + means of 20",
    "means of 5",
    "means of 20",
    "ratings",
]
METHODS = ["Learner", "ridge", "boosting", "ridge on bags"]


def jobs(names: list[str], seeds: int) -> list[tuple[str, str, int, str]]:
    out = []
    for seed in range(seeds):
        for name in names:
            for kind in KINDS:
                for method in METHODS:
                    if method != "ridge on bags" or kind.startswith("means"):
                        out.append((name, kind, seed, method))
    return out


def emotion() -> str:
    """Ratings without features, against the experts."""
    from scipy.stats import spearmanr

    table = pq.read_table(folder("crowd_emotion") / "answers.parquet").to_pandas()
    gold = pq.read_table(folder("crowd_emotion") / "gold.parquet").to_pandas().set_index("item").gold
    items = np.sort(gold.index.to_numpy())
    truth = gold.loc[items].to_numpy(float)

    def ratings(rows: Any, slope: bool = False) -> Ratings:
        return Ratings.from_long(rows, annotator="worker", value="label", items=items, slope=slope)

    def methods(rows: Any) -> dict[str, np.ndarray]:
        by_item = rows.groupby("item").label
        return {
            "mean of ratings": by_item.mean().loc[items].to_numpy(),
            "median of ratings": by_item.median().loc[items].to_numpy(),
            "bias and variance": aggregate(ratings(rows), iterations=200).mean.numpy(),
            "bias, variance and use of the scale": aggregate(ratings(rows, True), iterations=200).mean.numpy(),
        }

    lines = ["| ratings per item | method | RMSE | MAE | Pearson | Spearman |", "|---|---|---|---|---|---|"]
    for per_item, repeats in ((10, 1), (5, 10), (3, 10)):
        found: dict[str, list[list[float]]] = {}
        for seed in range(repeats):
            rows = table.sample(frac=1, random_state=seed).groupby("item").head(per_item)
            for name, mean in methods(rows).items():
                line = [rmse(mean, truth), mean_absolute_error(mean, truth)]
                line += [float(np.corrcoef(mean, truth)[0, 1]), float(spearmanr(mean, truth)[0])]
                found.setdefault(name, []).append(line)
        for name, values in found.items():
            a, b, c, d = np.mean(values, axis=0)
            lines.append(f"| {per_item} | {name} | {a:.2f} | {b:.2f} | {c:.3f} | {d:.3f} |")
    return "\n".join(lines)


def shown(values: list[float], digits: int = 3) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.{digits}f}"


def tables(results: dict[tuple[str, str, int, str], dict[str, Any]]) -> str:
    out = []
    for name in dict.fromkeys(key[0] for key in results):
        out.append(f"## {name}\n")
        out.append("| labels | method | n | RMSE | MAE | CRPS | log-density | 90 % intervals hold | width | seconds |")
        out.append("|---|---|---|---|---|---|---|---|---|---|")
        for kind in KINDS:
            for method in METHODS:
                runs = [r for k, r in sorted(results.items()) if (k[0], k[1], k[3]) == (name, kind, method)]
                if runs:
                    cells = [shown([r[m] for r in runs]) for m in ("rmse", "mae", "crps", "log_density", "coverage")]
                    cells += [
                        f"{np.mean([r['width'] for r in runs]):.2f}",
                        f"{np.mean([r['seconds'] for r in runs]):.1f}",
                    ]
                    out.append(f"| {kind} | {method} | {len(runs)} | {' | '.join(cells)} |")
        out.append(
            "\nWhat weak labels add to the same values, paired by seed (gain in RMSE and CRPS: above 0 is better):\n"
        )
        out.append("| labels | beside | n | RMSE gain | lower bound | CRPS gain | lower bound |")
        out.append("|---|---|---|---|---|---|---|")
        alone = f"{FEW} values"
        for kind in KINDS:
            seeds = [k[2] for k in results if k[0] == name and k[1] == kind and k[3] == "Learner"]
            seeds = [s for s in sorted(seeds) if (name, alone, s, "Learner") in results]
            if kind.startswith(f"{alone} + ") and len(seeds) > 1:
                cells = []
                for metric in ("rmse", "crps"):
                    before, after = ([results[name, k, s, "Learner"][metric] for s in seeds] for k in (alone, kind))
                    gain = np.mean(np.array(before) - np.array(after))
                    cells += [f"{gain:+.3f}", f"{paired_lower_bound(before, after):+.3f}"]
                out.append(f"| {kind} | {alone} | {len(seeds)} | {' | '.join(cells)} |")
        out.append("")
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for features and finished fits")
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="sentence encoder for sts")
    parser.add_argument("--data", default="abalone,sts,emotion", help="data sets, separated by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tables", action="store_true", help="fit nothing, write the tables")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("REAL_RESULTS.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    args.cache.mkdir(parents=True, exist_ok=True)
    record = args.cache / "results.jsonl"
    results: dict[tuple[str, str, int, str], dict[str, Any]] = {}
    for line in record.read_text().splitlines() if record.exists() else []:
        entry = json.loads(line)
        results[tuple(entry["job"])] = entry["result"]  # type: ignore[index]
    names = args.data.split(",")
    data: dict[str, Data] = {}
    for job in [] if args.tables else jobs([n for n in names if n in LOADERS], args.seeds):
        name, kind, seed, method = job
        if job in results:
            continue
        if name not in data:
            data[name] = LOADERS[name](args.encoder, args.cache)
        task = Task(name, data[name], seed)
        results[job] = run_ours(task, kind) if method == "Learner" else run_baseline(task, kind, method)
        with record.open("a") as out:
            out.write(json.dumps({"job": job, "result": results[job]}) + "\n")
        print(*job, {k: round(v, 3) if isinstance(v, float) else v for k, v in results[job].items()}, flush=True)
    words = [a for a in sys.argv[1:] if a != "--tables"]
    for i, word in enumerate(words[:-1]):
        if word in ("--cache", "--encoder", "--out"):
            words[i + 1] = word.strip("-").upper()
    head = (
        "# Labels of a number, measured\n\n"
        f"{datetime.date.today()} · {platform.machine()}, {os.cpu_count()} cores shared with other work, one thread ·"
        f" torch {torch.__version__} · `python benchmarks/real.py {' '.join(words)}`\n\n"
        f"Means over seeds ± standard deviation. abalone: {ROWS['abalone']} training rows, rings; ranges are cut at"
        " 7.5, 9.5 and 11.5 rings. sts: similarity of two sentences, 0 to 5;"
        " 1000 pairs of 2012 to 2014, tested on 2016;"
        " ranges are cut at 1, 2, 3 and 4. Bags are random; ratings are drawn: two of ten annotators each, biases"
        " (0 on average) of half a standard deviation, errors of .1 to 2.\n\n"
    )
    text = head + tables({job: found for job, found in results.items() if job[0] in names})
    if "emotion" in names:
        text += (
            "## crowd_emotion\n\nRatings of 700 items by 38 workers against experts, no features; ten random draws"
            " where fewer than all ten ratings are used.\n\n" + emotion() + "\n"
        )
    args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
