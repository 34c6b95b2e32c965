"""Asking for labels: how many are saved against rows drawn at random, at equal accuracy?

    ANYGRAIN_DATA=... python benchmarks/ask.py --cache FOLDER [--data usps,trec] [--seeds 5] [--encoder NAME]

A pool of 2,000 rows without labels and a test set of 1,500. Two rows per class are labelled at random to begin with;
then every round each strategy chooses one row per class on average, the truth answers, and a `Learner` with default
settings is fitted again. Labels saved: 1 - (labels that a strategy needs for the accuracy that random rows have at the
end) / (labels that these took), by linear interpolation along the strategy's curve; negative where it needs more.
In a second table a coarse answer (the parent of the class) costs .2 of a fine one: accuracy at equal cost where fine
answers are drawn at random, chosen, or chosen together with what to ask. Every case is a line of FOLDER/ask.jsonl, so a
stopped run goes on where it was; the tables go to ASK_RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import recipe as sets
import torch

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from results import write_section

from anygrain.audit.ask import Question, choose, head_ensemble
from anygrain.labels import Coarse, Exact
from anygrain.learn import Learner
from anygrain.metrics import expected_calibration_error, log_loss

POOL, TEST, ROUNDS = 2000, 1500, 6
START = 2  # rows per class
STRATEGIES = (
    "random",
    "margin",
    "entropy",
    "margin, spread",
    "evidence_gain, spread",
    "bald, spread",
    "badge",
    "k_center",
)
DATA = ("usps", "trec", "newsgroups20")
COARSE_COST = 0.2
COARSE_SETS = ("newsgroups20", "trec")
COARSE_WAYS = (
    "fine at random",
    "fine or coarse, at random",
    "fine, chosen",
    "fine or coarse, chosen",
    "fine or coarse, chosen for the model",
)


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
    return {
        "x": found["x"][pool],
        "y": code[found["y"][pool]],
        "x_test": found["x_test"][test][inside],
        "y_test": code[found["y_test"][test][inside]],
        "parents": parents,
    }


def first(y: np.ndarray, seed: int) -> np.ndarray:
    """Which rows are labelled to begin with: START per class, bool (N,)."""
    order = np.random.default_rng([seed, 1]).permutation(len(y))
    known = np.zeros(len(y), dtype=bool)
    for k in range(int(y.max()) + 1):
        known[order[y[order] == k][:START]] = True
    return known


def scores(learner: Learner, data: dict[str, np.ndarray]) -> dict[str, float]:
    probs, y = learner.predict_proba(data["x_test"]), data["y_test"]
    return {
        "accuracy": float((probs.argmax(axis=1) == y).mean()),
        "log_loss": float(log_loss(probs, y)),
        "ece": float(expected_calibration_error(probs, y)),
    }


def curve(data: dict[str, np.ndarray], strategy: str, seed: int) -> list[dict[str, float]]:
    x, y, k = data["x"], torch.from_numpy(data["y"]), int(data["y"].max()) + 1
    known = torch.from_numpy(first(data["y"], seed))
    out = []
    for round in range(ROUNDS + 1):
        labels = Exact(torch.where(known, y, -1), k)
        learner = Learner(seed=seed).fit(x, labels)
        out.append({"labels": int(known.sum()), **scores(learner, data)})
        if round == ROUNDS:
            return out
        by, _, spread = strategy.partition(", ")
        features = torch.from_numpy(learner.transform(x)) if spread or by in ("badge", "k_center") else None
        models = head_ensemble(learner, x, labels, x, seed=round) if by == "bald" else None
        asked = choose(
            learner.log_probs(x), k, by=by, may_ask=~known, features=features, models=models, seed=100 * seed + round
        )
        known[asked.rows] = True
    return out


def coarse_curve(data: dict[str, np.ndarray], way: str, seed: int) -> list[dict[str, float]]:
    """As `curve`, with a budget per round of one fine answer per class."""
    x, y, k = data["x"], torch.from_numpy(data["y"]), int(data["y"].max()) + 1
    parents = torch.from_numpy(data["parents"])
    membership = torch.nn.functional.one_hot(parents).T
    fine, coarse = torch.from_numpy(first(data["y"], seed)), torch.zeros(len(y), dtype=torch.bool)
    questions = [Question.fine(k)]
    if "coarse" in way:
        questions.append(Question("parent", membership.T.double(), COARSE_COST))
    generator = torch.Generator().manual_seed(seed)
    out, cost = [], float(fine.sum())
    for round in range(ROUNDS + 1):
        labels = Exact(torch.where(fine, y, -1), k)
        if bool(coarse.any()):
            labels = labels & Coarse(torch.where(coarse, parents[y], -1), membership.double())
        learner = Learner(seed=seed).fit(x, labels)
        out.append({"labels": cost, **scores(learner, data)})
        if round == ROUNDS:
            return out
        budget = float(k)
        if "random" in way:
            order = torch.randperm(len(y), generator=generator)
            order = order[~fine[order]]
            which = torch.randint(len(questions), (len(order),), generator=generator)
        else:
            known = torch.as_tensor(learner.posterior(x, labels)).clamp(min=1e-30).log()
            models = head_ensemble(learner, x, labels, x, seed=round) if "model" in way else None
            cheapest = min(q.cost for q in questions)
            asked = choose(
                known,
                min(int(budget / cheapest), int((~fine).sum())),
                questions=questions,
                may_ask=~fine,
                features=torch.from_numpy(learner.transform(x)),
                models=models,
                seed=100 * seed + round,
            )
            order, which = asked.rows, asked.question
        price = torch.tensor([q.cost for q in questions])[which]
        new = ~((which == 1) & coarse[order])
        order, which, price = order[new], which[new], price[new]
        taken = price.cumsum(0) <= budget + 1e-6
        fine[order[taken & (which == 0)]] = True
        coarse[order[taken & (which == 1)]] = True
        cost += float(price[taken].sum())
    return out


def saved(curve: list[dict[str, float]], base: list[dict[str, float]]) -> float:
    """Share of labels saved at the accuracy that random rows have at the end (mean of its last two points)."""
    goal = float(np.mean([p["accuracy"] for p in base[-2:]]))
    took = float(np.mean([p["labels"] for p in base[-2:]]))
    best = np.maximum.accumulate([p["accuracy"] for p in curve])
    labels = [p["labels"] for p in curve]
    if best[-1] < goal:
        slope = max((best[-1] - best[0]) / (labels[-1] - labels[0]), 1e-9)
        return 1 - (labels[-1] + (goal - best[-1]) / slope) / took
    at = int(np.argmax(best >= goal))
    if at == 0:
        return 1 - labels[0] / took
    part = (goal - best[at - 1]) / max(best[at] - best[at - 1], 1e-12)
    return 1 - (labels[at - 1] + part * (labels[at] - labels[at - 1])) / took


def interval(values: list[float]) -> str:
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f}"
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{mean:.3f} ± {half:.3f}"


def tables(done: dict[tuple[str, ...], list[dict[str, float]]]) -> str:
    lines = ["## Labels to ask for, against rows at random", ""]
    lines.append(
        f"Pool {POOL} rows, start {START} rows per class, {ROUNDS} rounds of one row per class on average, default "
        "Learner; mean ± half width of the 95 % interval over seeds."
    )
    for part, title in (
        ("curve", "Fine answers: share of labels saved at the accuracy of random rows, and accuracy at the end"),
        ("coarse", f"A coarse answer costs {COARSE_COST}: accuracy and log loss at equal cost"),
    ):
        names = STRATEGIES if part == "curve" else COARSE_WAYS
        lines += ["", f"### {title}", ""]
        lines.append("| data | strategy | labels saved | accuracy | log loss | ECE | seeds |")
        lines.append("|---|---|---|---|---|---|---|")
        for name in DATA:
            for strategy in names:
                seeds = [s for p, d, w, s in done if (p, d, w) == (part, name, strategy)]
                seeds = [s for s in seeds if (part, name, names[0], s) in done]
                if not seeds:
                    continue
                ends: dict[str, list[float]] = defaultdict(list)
                for s in seeds:
                    found, base = done[part, name, strategy, s], done[part, name, names[0], s]
                    ends["saved"].append(saved(found, base))
                    for key in ("accuracy", "log_loss", "ece"):
                        ends[key].append(found[-1][key])
                shown = [interval(ends[key]) for key in ("saved", "accuracy", "log_loss", "ece")]
                first_cell = "-" if strategy == names[0] else shown[0]
                lines.append(f"| {name} | {strategy} | {first_cell} | {' | '.join(shown[1:])} | {len(seeds)} |")
    return "\n".join(lines)


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategies", default="")
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2")
    how = parser.parse_args()
    torch.set_num_threads(1)
    how.cache.mkdir(parents=True, exist_ok=True)
    file = how.cache / "ask.jsonl"
    done: dict[tuple[str, ...], list[dict[str, float]]] = {}
    if file.exists():
        for line in file.read_text().splitlines():
            case = json.loads(line)
            done[tuple(case["case"])] = case["curve"]
    wanted = how.strategies.split(";") if how.strategies else list(STRATEGIES) + list(COARSE_WAYS)
    for seed in range(how.seeds):
        for name in how.data.split(","):
            found: dict[str, Any] | None = None
            for part, names in (("curve", STRATEGIES), ("coarse", COARSE_WAYS)):
                for strategy in names:
                    case = (part, name, strategy, str(seed))
                    if case in done or strategy not in wanted or (part == "coarse" and name not in COARSE_SETS):
                        continue
                    found = features_of(name, how.encoder, how.cache) if found is None else found
                    began = time.process_time()
                    run = curve if part == "curve" else coarse_curve
                    done[case] = run(task(found, seed), strategy, seed)
                    with open(file, "a") as out:
                        out.write(json.dumps({"case": case, "curve": done[case]}) + "\n")
                    end = done[case][-1]
                    print(*case, f"{end['accuracy']:.3f}", f"{time.process_time() - began:.0f} s", flush=True)
    write_section("ask", tables(done), path=Path(__file__).with_name("ASK_RESULTS.md"))


if __name__ == "__main__":
    main()
