"""Asking for labels: how many are saved against rows drawn at random, at equal accuracy?

    ANYGRAIN_DATA=... python benchmarks/ask.py --cache FOLDER [--data usps,trec] [--seeds 8] [--encoder NAME] [--tables]

A pool of 1,000 rows without labels and a test set of 1,500, features cut to 100 principal components, so that a fit
takes less than a second. Two rows per class are labelled at random to begin with; every round a strategy then chooses
one and a half rows per class on average, the truth answers, and a `Learner` with default settings is fitted again.

Labels saved: 1 - (labels with which the mean curve of a strategy reaches the accuracy of random rows at the end) /
(labels that these took), by linear interpolation; negative where it needs more. Curves are means over seeds, and the
interval is the bootstrap's over seeds, which all strategies share: the first rows, the pool and the test set of a seed
are the same for all.

A second part measures what a coarse answer (the parent of the class) is worth: the accuracy that coarse answers on rows
at random add to four fine ones per class, and the number of fine answers that add as much. A third asks for
votes of six annotators, one of them an expert at three times the cost: first votes on new rows or second ones on old
rows, by whoever comes or by whom the votes so far recommend. A fourth asks for numbers, from 20 rows in rounds of
20, by a linear model with a variance of its own for every row. Every case is a line of FOLDER/ask.jsonl, so a stopped
run goes on where it was; the tables go to ASK_RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import recipe as sets
import torch
from sklearn.datasets import load_diabetes
from sklearn.decomposition import PCA
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from results import write_section

from anygrain.audit.ask import Question, choose, choose_numbers
from anygrain.labels import Coarse, Crowd, Exact, Value
from anygrain.learn import Learner, recipe
from anygrain.metrics import expected_calibration_error, log_loss

POOL, TEST, COMPONENTS, ROUNDS = 1000, 1500, 100, 4
START, STEP = 2, 1.5  # rows per class
DATA = ("usps", "trec", "newsgroups20")
STRATEGIES = ("random", "margin, spread", "badge", "evidence_gain, spread")
WORTH_SETS = ("trec", "newsgroups20")
WORTH_START = 4  # fine answers per class on average, on rows at random
FINE_STEPS, COARSE_STEPS = (2, 4, 8), (5, 20)  # answers per class on top of it
CROWD_SETS = ("usps", "newsgroups20")
ACCURACY = (0.95, 0.8, 0.8, 0.6, 0.6, 0.3)  # of annotators
COST = (3.0, 1.0, 1.0, 1.0, 1.0, 1.0)
CROWD_WAYS = (
    "new rows at random, one vote each",
    "new rows at random, two votes each",
    "new rows, chosen",
    "new and old rows, chosen",
    "new and old rows and by whom, chosen",
    "new and old rows by badge, by whom by evidence",
)

NUMBER_SETS = ("abalone", "diabetes")
NUMBER_STRATEGIES = ("random", "variance", "model_variance", "badge")
NUMBER_POOL, NUMBER_STEP, NUMBER_ROUNDS = 300, 20, 4

Curve = list[dict[str, float]]


def features_of(name: str, encoder: str, cache: Path) -> dict[str, np.ndarray]:
    """Features and classes of a data set, computed once."""
    kept = cache / f"{name}.npz"
    if not kept.exists():
        np.savez(kept, **sets.LOADERS[name](encoder, cache))
    return dict(np.load(kept))


def task(found: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """A pool and a test set of this seed, all classes in the pool."""
    random = np.random.default_rng(seed)
    pool = random.permutation(len(found["y"]))[:POOL]
    test = random.permutation(len(found["y_test"]))[:TEST]
    kept = np.unique(found["y"][pool])  # classes that nobody could find are left out
    code = np.full(int(found["y"].max()) + 1, -1)
    code[kept] = np.arange(len(kept))
    inside = np.isin(found["y_test"][test], kept)
    _, parents = np.unique(found["parents"][kept], return_inverse=True)
    cut = PCA(min(COMPONENTS, found["x"].shape[1]), random_state=seed).fit(found["x"][pool])
    return {
        "x": cut.transform(found["x"][pool]).astype(np.float32),
        "y": code[found["y"][pool]],
        "x_test": cut.transform(found["x_test"][test][inside]).astype(np.float32),
        "y_test": code[found["y_test"][test][inside]],
        "parents": parents,
    }


def some_of_every_class(y: np.ndarray, per_class: int, seed: int) -> Tensor:
    """Rows that are labelled to begin with: bool (N,)."""
    order = np.random.default_rng([seed, 1]).permutation(len(y))
    known = np.zeros(len(y), dtype=bool)
    for k in range(int(y.max()) + 1):
        known[order[y[order] == k][:per_class]] = True
    return torch.from_numpy(known)


def scores(learner: Learner, data: dict[str, np.ndarray], labels: float) -> dict[str, float]:
    probs, y = learner.predict_proba(data["x_test"]), data["y_test"]
    return {
        "labels": labels,
        "accuracy": float((probs.argmax(axis=1) == y).mean()),
        "log_loss": float(log_loss(probs, y)),
        "ece": float(expected_calibration_error(probs, y)),
    }


# -- fine answers ------------------------------------------------------------------------------------------------------


@contextmanager
def without_correction() -> Iterator[None]:
    """Temperatures as if labelled rows were always like the others."""
    kept, recipe.unlike_all = recipe.unlike_all, lambda place, weight: 0.0
    try:
        yield
    finally:
        recipe.unlike_all = kept


def fine_curve(data: dict[str, np.ndarray], strategy: str, seed: int) -> Curve:
    x, y, k = data["x"], torch.from_numpy(data["y"]), int(data["y"].max()) + 1
    known = some_of_every_class(data["y"], START, seed)
    by, _, spread = strategy.partition(", ")
    out: Curve = []
    for round in range(ROUNDS + 1):
        learner = Learner(seed=seed).fit(x, Exact(torch.where(known, y, -1), k))
        out.append(scores(learner, data, float(known.sum())))
        if round == ROUNDS:
            with without_correction():
                timid = scores(Learner(seed=seed).fit(x, Exact(torch.where(known, y, -1), k)), data, 0.0)
            out[-1] |= {f"{key} without": timid[key] for key in ("log_loss", "ece")}
        else:
            features = torch.from_numpy(learner.transform(x)) if spread or by == "badge" else None
            n, draw = int(STEP * k), 100 * seed + round
            asked = choose(learner.log_probs(x), n, by=by, may_ask=~known, features=features, seed=draw)
            known[asked.rows] = True
    return out


# -- coarse answers ----------------------------------------------------------------------------------------------------


def worth(data: dict[str, np.ndarray], _: str, seed: int) -> Curve:
    """Accuracy with more fine answers (labels above 0) or coarse ones (below 0) per class, on rows at random."""
    x, y, k = data["x"], torch.from_numpy(data["y"]), int(data["y"].max()) + 1
    parents = torch.from_numpy(data["parents"])
    membership = torch.nn.functional.one_hot(parents).T.double()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    start = torch.zeros(len(y), dtype=torch.bool).index_fill_(0, order[: WORTH_START * k], True)
    order = order[WORTH_START * k :]
    out: Curve = []
    for step in (0, *FINE_STEPS, *(-c for c in COARSE_STEPS)):
        told = torch.zeros(len(y), dtype=torch.bool)
        told[order[: abs(step) * k]] = True
        labels = Exact(torch.where(start | told if step > 0 else start, y, -1), k)
        if step < 0:
            labels = labels & Coarse(torch.where(told, parents[y], -1), membership)
        learner = Learner(seed=seed).fit(x, labels)
        out.append(scores(learner, data, float(math.copysign(int(told.sum()), step))))
    return out


# -- votes -------------------------------------------------------------------------------------------------------------


def vote_curve(data: dict[str, np.ndarray], way: str, seed: int) -> Curve:
    """As `fine_curve`, by cost, from two votes of anybody on three rows per class at random."""
    x, y, k = data["x"], data["y"], int(data["y"].max()) + 1
    random = np.random.default_rng([seed, 2])
    answers = np.where(
        random.random((len(y), len(ACCURACY))) < np.array(ACCURACY), y[:, None], random.integers(k, size=(len(y), 6))
    )
    given = np.zeros(answers.shape, dtype=bool)
    for row in random.permutation(len(y))[: 3 * k]:
        given[row, random.permutation(len(ACCURACY))[:2]] = True
    out: Curve = []
    for round in range(ROUNDS + 1):
        rows, who = given.nonzero()
        crowd = Crowd(rows, who, answers[rows, who], k, len(y), n_annotators=len(ACCURACY))
        learner = Learner(seed=seed).fit(x, crowd)
        out.append(scores(learner, data, float(np.array(COST)[who].sum())))
        if round == ROUNDS:
            return out
        told, left = learner.labels_, STEP * k * float(np.mean(COST))
        known = told.posterior(torch.as_tensor(learner.held_out_log_probs_)).clamp(min=1e-30).log()
        old = torch.from_numpy(given.any(axis=1))
        if "random" in way:
            order = random.permutation((~old).nonzero()[:, 0].numpy())
            each = 2 if "two" in way else 1
            wanted = [(row, a) for row in order for a in random.permutation(len(ACCURACY))[:each]]
        else:
            channel = told.channels[0]
            by_whom = "whom" in way
            asked_of = [Question.vote(channel, a, k, COST[a]) for a in range(len(ACCURACY))]
            may_ask = torch.from_numpy(~given) if "old" in way else ~old[:, None].expand(-1, len(ACCURACY))
            if not by_whom:
                asked_of, may_ask = [Question.vote(channel, -1, k)], may_ask.any(dim=1)
            n = min(int(2 * left), int((may_ask if may_ask.dim() == 1 else may_ask.any(dim=1)).sum()))
            features = torch.from_numpy(learner.transform(x))
            by, draw = "badge" if "badge" in way else "evidence_gain", 100 * seed + round
            asked = choose(known, n, by=by, questions=asked_of, may_ask=may_ask, features=features, seed=draw)
            whom = (
                asked.question.numpy()
                if by_whom
                else [random.permutation((~given[r]).nonzero()[0])[0] for r in asked.rows]
            )
            wanted = list(zip(asked.rows.tolist(), whom, strict=True))
        for row, a in wanted:
            left -= COST[a]
            if left < 0:
                break
            given[row, a] = True
    return out


# -- numbers -----------------------------------------------------------------------------------------------------------


def number_task(name: str, seed: int) -> dict[str, np.ndarray]:
    """A pool and a test set of this seed."""
    if name == "diabetes":
        x, y = load_diabetes(return_X_y=True)
    else:
        table = pq.read_table(sets.folder("abalone") / "abalone.parquet").to_pandas()
        sex = np.stack([(table.sex == s).to_numpy(float) for s in "MFI"], axis=1)
        x = np.concatenate([sex, table.drop(columns=["sex", "rings"]).to_numpy(float)], axis=1)
        y = table.rings.to_numpy(float)
    order = np.random.default_rng(seed).permutation(len(y))
    pool, test = order[:NUMBER_POOL], order[NUMBER_POOL : NUMBER_POOL + TEST]
    return {"x": x[pool], "y": y[pool], "x_test": x[test], "y_test": y[test]}


def number_curve(data: dict[str, np.ndarray], by: str, seed: int) -> Curve:
    """As `fine_curve`; accuracy: share of variance explained, log loss: minus log-density, ECE: of 90 % intervals."""
    x, y = data["x"], torch.from_numpy(data["y"])
    known = torch.zeros(len(y), dtype=torch.bool)
    known[:NUMBER_STEP] = True
    out: Curve = []
    for round in range(NUMBER_ROUNDS + 1):
        learner = Learner(head="gaussian", seed=seed).fit(x, Value(torch.where(known, y, torch.nan)))
        mean, sd = learner.predict_distribution(data["x_test"])
        gap = data["y_test"] - mean
        point = {"labels": float(known.sum()), "accuracy": 1 - float(np.mean(gap**2) / data["y_test"].var())}
        point["log_loss"] = float(np.mean(0.5 * (gap / sd) ** 2 + np.log(sd) + 0.5 * math.log(2 * math.pi)))
        point["ece"] = abs(float(np.mean(np.abs(gap) < 1.645 * sd)) - 0.9)
        out.append(point)
        if round < NUMBER_ROUNDS:
            centre, spread = learner.predict_distribution(x)
            features, draw = torch.from_numpy(learner.transform(x)), 100 * seed + round
            asked = choose_numbers(
                centre, spread**2, NUMBER_STEP, by=by, may_ask=~known, features=features, known=known, seed=draw
            )
            known[asked.rows] = True
    return out


# -- tables ------------------------------------------------------------------------------------------------------------


def saved(labels: Sequence[float], accuracy: np.ndarray, base_labels: Sequence[float], base: np.ndarray) -> float:
    """Share of labels saved at the accuracy that random rows have at the end, of mean curves."""
    best, goal = np.maximum.accumulate(accuracy), float(np.maximum.accumulate(base)[-1])
    if best[-1] < goal:
        slope = max((best[-1] - best[0]) / (labels[-1] - labels[0]), 1e-9)
        return 1 - (labels[-1] + (goal - best[-1]) / slope) / base_labels[-1]
    at = int(np.argmax(best >= goal))
    if at == 0:
        return 1 - labels[0] / base_labels[-1]
    part = (goal - best[at - 1]) / max(best[at] - best[at - 1], 1e-12)
    return 1 - (labels[at - 1] + part * (labels[at] - labels[at - 1])) / base_labels[-1]


def bootstrap(statistic: Callable[[np.ndarray], float], n: int, times: int = 1000) -> tuple[float, float, float]:
    """A statistic of the n seeds, and its 95 % interval over seeds drawn with replacement."""
    random = np.random.default_rng(0)
    drawn = [statistic(random.integers(n, size=n)) for _ in range(times)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return statistic(np.arange(n)), float(low), float(high)


def shown(found: tuple[float, float, float], digits: int = 2) -> str:
    value, low, high = found
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def interval(values: np.ndarray) -> str:
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f}"
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{mean:.3f} ± {half:.3f}"


Done = dict[tuple[str, str, str, int], Curve]


def stacked(done: Done, part: str, name: str, ways: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Curves (seeds, points) of every way by what was measured, over the seeds that all ways have."""
    seeds = sorted({s for p, d, _, s in done if (p, d) == (part, name)})
    seeds = [s for s in seeds if all((part, name, w, s) in done for w in ways)]
    if not seeds:
        return {}
    keys = ("labels", "accuracy", "log_loss", "ece")
    return {w: {k: np.array([[p[k] for p in done[part, name, w, s]] for s in seeds]) for k in keys} for w in ways}


def saved_of(curves: dict[str, dict[str, np.ndarray]], way: str, base: str, seeds: np.ndarray) -> float:
    mean = {w: {k: curves[w][k][seeds].mean(axis=0) for k in ("labels", "accuracy")} for w in (way, base)}
    return saved(mean[way]["labels"], mean[way]["accuracy"], mean[base]["labels"], mean[base]["accuracy"])


def comparison(done: Done, part: str, names: Sequence[str], ways: Sequence[str]) -> list[str]:
    lines = [
        "| data | way | labels saved | accuracy at the end | against the first | log loss | ECE | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = ways[0]
    every = {name: stacked(done, part, name, ways) for name in names}
    every = {name: curves for name, curves in every.items() if curves}
    for name, curves in every.items():
        n = len(curves[base]["accuracy"])
        for way in ways:
            end = {k: curves[way][k][:, -1] for k in ("accuracy", "log_loss", "ece")}
            lead = interval(end["accuracy"] - curves[base]["accuracy"][:, -1])
            part_saved = bootstrap(lambda s, c=curves, w=way: saved_of(c, w, base, s), n)
            cells = ["-", "-"] if way == base else [shown(part_saved), lead]
            rest = [interval(end["log_loss"]), interval(end["ece"])]
            lines.append(
                f"| {name} | {way} | {cells[0]} | {interval(end['accuracy'])} | {cells[1]} | {' | '.join(rest)} | {n} |"
            )
    if every:
        n = min(len(curves[base]["accuracy"]) for curves in every.values())
        for way in ways[1:]:
            of_all = bootstrap(lambda s, w=way: float(np.mean([saved_of(c, w, base, s) for c in every.values()])), n)
            lines.append(f"| **all {len(every)}** | {way} | **{shown(of_all)}** | | | | | {n} |")
    return lines


def correction_table(done: Done) -> list[str]:
    lines = [
        "| data | way | log loss without | with | ECE without | with | change of ECE | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in DATA:
        for way in STRATEGIES:
            ends = [c[-1] for (p, d, w, _), c in sorted(done.items()) if (p, d, w) == ("fine", name, way)]
            ends = [e for e in ends if "ece without" in e]
            if not ends:
                continue
            value = {key: np.array([e[key] for e in ends]) for key in ("log_loss", "ece")}
            before = {key: np.array([e[f"{key} without"] for e in ends]) for key in value}
            cells = [f"{interval(before[key])} | {interval(value[key])}" for key in value]
            change = interval(value["ece"] - before["ece"])
            lines.append(f"| {name} | {way} | {' | '.join(cells)} | {change} | {len(ends)} |")
    return lines


def worth_table(done: Done) -> list[str]:
    lines = [
        "| data | answers added | accuracy | added | fine answers that add as much, per coarse one | seeds |",
        "|---|---|---|---|---|---|",
    ]
    steps = (0, *FINE_STEPS, *(-c for c in COARSE_STEPS))
    for name in WORTH_SETS:
        curves = stacked(done, "worth", name, ("",))
        if not curves:
            continue
        accuracy, labels = curves[""]["accuracy"], curves[""]["labels"]
        n = len(accuracy)

        def price(seeds: np.ndarray, at: int, a: np.ndarray = accuracy, m: np.ndarray = labels) -> float:
            fine = range(len(FINE_STEPS) + 1)
            mean, cost = a[seeds].mean(axis=0), np.abs(m[seeds]).mean(axis=0)
            grown = np.maximum.accumulate(mean[list(fine)])
            return float(np.interp(mean[at], grown, cost[list(fine)]) / cost[at])

        for at, step in enumerate(steps):
            what = "none" if step == 0 else f"{abs(step)} {'fine' if step > 0 else 'coarse'} per class"
            added = "-" if step == 0 else interval(accuracy[:, at] - accuracy[:, 0])
            value = shown(bootstrap(lambda s, at=at: price(s, at), n)) if step < 0 else ""
            lines.append(f"| {name} | {what} | {interval(accuracy[:, at])} | {added} | {value} | {n} |")
    return lines


def tables(done: Done) -> str:
    return "\n".join(
        [
            "## Labels to ask for, against rows at random",
            "",
            f"Pool of {POOL} rows, {COMPONENTS} components, {START} rows per class to begin with, {ROUNDS} rounds of "
            f"{STEP} rows per class on average, default Learner. Labels saved: of mean curves, with the bootstrap's "
            "95 % interval over seeds; ±: half width of the 95 % interval of the mean, differences paired by seed.",
            "",
            "### Fine answers",
            "",
            *comparison(done, "fine", DATA, STRATEGIES),
            "",
            "### The same models without and with the correction of temperatures for rows that are unlike the others",
            "",
            *correction_table(done),
            "",
            f"### What a coarse answer is worth, beside {WORTH_START} fine ones per class",
            "",
            *worth_table(done),
            "",
            "### Votes of six people, one of them an expert at three times the cost: accuracy at equal cost",
            "",
            *comparison(done, "votes", CROWD_SETS, CROWD_WAYS),
            "",
            "### Numbers (accuracy: share of variance explained, log loss: minus log-density, ECE: of 90 % intervals)",
            "",
            *comparison(done, "numbers", NUMBER_SETS, NUMBER_STRATEGIES),
        ]
    )


PARTS: tuple[tuple[str, Sequence[str], Sequence[str], Callable[..., Curve]], ...] = (
    ("fine", DATA, STRATEGIES, fine_curve),
    ("worth", WORTH_SETS, ("",), worth),
    ("votes", CROWD_SETS, CROWD_WAYS, vote_curve),
    ("numbers", NUMBER_SETS, NUMBER_STRATEGIES, number_curve),
)


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--data", default=",".join((*DATA, *NUMBER_SETS)))
    parser.add_argument("--parts", default=",".join(part for part, *_ in PARTS))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--tables", action="store_true", help="run nothing, write the tables")
    how = parser.parse_args()
    torch.set_num_threads(1)
    how.cache.mkdir(parents=True, exist_ok=True)
    file = how.cache / "ask.jsonl"
    done: Done = {}
    if file.exists():
        for line in file.read_text().splitlines():
            case = json.loads(line)
            part, name, way, seed = case["case"]
            done[part, name, way, seed] = case["curve"]
    for seed in range(0 if how.tables else how.seeds):
        for name in how.data.split(","):
            data: dict[str, Any] | None = None
            for part, names, ways, run in PARTS:
                for way in ways if name in names and part in how.parts.split(",") else ():
                    if (part, name, way, seed) in done:
                        continue
                    if data is None and part == "numbers":
                        data = number_task(name, seed)
                    elif data is None:
                        data = task(features_of(name, how.encoder, how.cache), seed)
                    began = time.process_time()
                    curve = done[part, name, way, seed] = run(data, way, seed)
                    with open(file, "a") as out:
                        out.write(json.dumps({"case": (part, name, way, seed), "curve": curve}) + "\n")
                    taken = time.process_time() - began
                    print(part, name, way, seed, f"{curve[-1]['accuracy']:.3f}", f"{taken:.1f} s", flush=True)
    write_section("ask", tables(done), path=Path(__file__).with_name("ASK_RESULTS.md"), title="Asking")


if __name__ == "__main__":
    main()
