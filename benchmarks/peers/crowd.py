"""Votes of annotators without features: ours beside crowd-kit, majority, and annotators known from the truth.

    ANYGRAIN_DATA=/path/to/data python benchmarks/peers/crowd.py

Synthetic crowds run each way in a process of its own, one thread; times are CPU seconds of the fit and the posterior,
memory is the growth of the peak while they run. The peer needs `pip install --no-deps crowd-kit attrs nltk`, and is
skipped without it. Real crowds are read from $ANYGRAIN_DATA (`crowd_*`), and left out without it.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from generators import HARD, crowd
from results import write_section

from anygrain.labels.aggregate import aggregate
from anygrain.labels.crowd import Crowd
from anygrain.metrics import expected_calibration_error, log_loss

CROWDKIT = {"crowd-kit Dawid-Skene": "DawidSkene", "crowd-kit MACE": "MACE", "crowd-kit GLAD": "GLAD"}
SIZES = {"10k x 10": (10_000, 200, 10), "100k x 5": (100_000, 1_000, 5)}
SYNTHETIC_WAYS = ("majority", "anygrain", "crowd-kit Dawid-Skene", "annotators known from the truth")
REAL = (
    *("adult", "bluebirds", "dogs", "labelme", "music", "rte"),
    *("sentiment", "sentiment_500", "sentiment_text", "zencrowd_in", "zencrowd_us"),
)
REAL_WAYS = ("majority", *CROWDKIT, "anygrain", "majority, one vote more per class")
#: crowds of ordered classes
ORDERED = ("adult", "emotion in 5 steps", "offensive")
ORDERED_WAYS = {
    "majority, one vote more per class": "",
    "ClassCoin": "class_coin",
    "Confusion": "confusion",
    "Ordinal": "ordinal",
}
#: crowds of experts, spammers, one-sided annotators and those who take classes for others: items, annotators, votes
TYPED = {"400 annotators, 3 votes each": (400, 400, 3), "200 annotators, 5 votes each": (333, 200, 3)}
TYPED_WAYS = {"Confusion, pooled (default)": None, "Confusion": "confusion", "Spammer": "spammer", "Groups": "groups"}
Votes = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]


def load(name: str) -> Votes:
    """Item, annotator and vote (R,), truth (N,) with -1 where there is no gold, and the number of classes."""
    if " x " in name:
        size, _, errs = name.partition(", ")
        made = crowd(*SIZES[size], errs=errs)
        return made["item"], made["annotator"], made["vote"], made["truth"], 10
    folder = Path(os.environ["ANYGRAIN_DATA"]) / f"crowd_{name}"
    if name == "labelme":
        table = np.load(folder / "crowd_labelme.npz")
        answers, truth = table["answers_train"], table["y_train"].astype(int)
        item, annotator = np.nonzero(answers >= 0)
        return item, annotator, answers[item, annotator].astype(int), truth, 8
    import pandas

    answers = pandas.read_parquet(folder / "answers.parquet")
    gold = pandas.read_parquet(folder / ("items.parquet" if name == "sentiment_text" else "gold.parquet"))
    classes = sorted(set(answers["label"]))
    place = {c: at for at, c in enumerate(classes)}
    items, item = np.unique(answers["item"].astype(str).to_numpy(), return_inverse=True)
    annotator = np.unique(answers["worker"].astype(str).to_numpy(), return_inverse=True)[1]
    known = {str(i): place[g] for i, g in zip(gold["item"], gold["gold"], strict=True) if g in place}
    truth = np.array([known.get(i, -1) for i in items])
    return item, annotator, answers["label"].map(place).to_numpy().astype(int), truth, len(classes)


def load_ordered(name: str) -> Votes:
    """As `load`, with classes from low to high; without gold the truth is the mean of half of the votes on an item."""
    import pandas

    root = Path(os.environ["ANYGRAIN_DATA"])
    folder = root / {"adult": "crowd_adult", "offensive": "popquorn_offensive"}.get(name, "crowd_emotion")
    answers = pandas.read_parquet(folder / "answers.parquet")
    items, item = np.unique(answers["item"].astype(str).to_numpy(), return_inverse=True)
    annotator = np.unique(answers["worker"].astype(str).to_numpy(), return_inverse=True)[1]
    if name == "offensive":
        vote = answers["label"].to_numpy().astype(int) - 1
        asked = np.random.default_rng(0).random(len(vote)) < 0.5  # the other half is what the first is scored by
        total = np.bincount(item[asked], vote[asked], len(items))
        count = np.bincount(item[asked], minlength=len(items))
        truth = np.where(count >= 3, np.round(total / np.maximum(count, 1)), -1).astype(int)
        return item[~asked], annotator[~asked], vote[~asked], truth, 5
    gold = pandas.read_parquet(folder / "gold.parquet")
    if name == "adult":
        place = {c: at for at, c in enumerate("GPRX")}
        known = {str(i): place[g] for i, g in zip(gold["item"], gold["gold"], strict=True)}
        truth = np.array([known.get(i, -1) for i in items])
        return item, annotator, answers["label"].map(place).to_numpy().astype(int), truth, 4
    edges = [5, 20, 40, 60]  # of how strong an emotion is, 0 to 100, its sign left out
    known = {str(i): g for i, g in zip(gold["item"], gold["gold"], strict=True)}
    truth = np.digitize(np.abs([float(known[i]) for i in items]), edges)
    return item, annotator, np.digitize(np.abs(answers["label"].to_numpy(float)), edges), truth, 5


def ordered() -> str:
    lines = ["| crowd | channel | accuracy | within one | mean distance | log loss | CPU s |", "|---" * 7 + "|"]
    for name in ORDERED:
        item, annotator, vote, truth, k = votes = load_ordered(name)
        known = truth >= 0
        for way, channel in ORDERED_WAYS.items():
            start = time.process_time()
            if not channel:
                probs = posterior(way, votes)
            else:
                labels = Crowd(*map(torch.from_numpy, (item, annotator, vote)), k, n_items=len(truth), channel=channel)
                probs = aggregate(labels).posterior.numpy()
            seconds = time.process_time() - start
            p, y = probs[known], truth[known]
            off = np.abs(p.argmax(axis=1) - y)
            half = 1.96 * ((off == 0).mean() * (off != 0).mean() / len(y)) ** 0.5
            cells = f"{(off == 0).mean():.3f} ± {half:.3f} | {(off <= 1).mean():.3f} | {off.mean():.3f}"
            lines.append(f"| {name} | {way} | {cells} | {log_loss(np.clip(p, 1e-12, None), y):.3f} | {seconds:.1f} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def typed_crowd(n: int, w: int, per_item: int, seed: int) -> tuple[torch.Tensor, Crowd]:
    """Truth and votes of four types of annotators, each a little different from its type; four classes."""
    k, generator, draw = 4, torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    expert = np.full((k, k), 0.1 / (k - 1))
    np.fill_diagonal(expert, 0.9)
    one_sided = np.full((k, k), 0.03)
    one_sided[:, 0] = 1 - 0.03 * (k - 1)
    types = np.stack([expert, np.full((k, k), 1 / k), expert[[0, 0, 2, 2]], one_sided])
    of = types[draw.choice(4, size=w, p=[0.4, 0.2, 0.25, 0.15])]
    matrices = draw.gamma(30 * of)
    matrices = torch.from_numpy(matrices / matrices.sum(axis=2, keepdims=True))
    truth = torch.randint(k, (n,), generator=generator)
    how = {"n_annotators": w, "votes_per_item": per_item, "confusion": matrices}
    return truth, Crowd.simulate(truth, k, generator=generator, **how)


def typed(seeds: int = 10) -> str:
    from scipy.stats import t

    lines = ["| crowd | channel | accuracy | log loss | log loss less that of the default | CPU s |", "|---" * 6 + "|"]
    for name, size in TYPED.items():
        found = {way: np.zeros((seeds, 3)) for way in TYPED_WAYS}
        for seed in range(seeds):
            truth, votes = typed_crowd(*size, seed)
            for way, channel in TYPED_WAYS.items():
                start = time.process_time()
                probs = aggregate(votes.with_own_channels(), channel=channel).posterior.numpy()
                seconds = time.process_time() - start
                right = float((probs.argmax(axis=1) == truth.numpy()).mean())
                found[way][seed] = right, log_loss(np.clip(probs, 1e-12, None), truth.numpy()), seconds
        first = found[next(iter(TYPED_WAYS))]
        reach = t.ppf(0.975, seeds - 1) / seeds**0.5
        for way, got in found.items():
            mean, half = got.mean(axis=0), reach * got.std(axis=0, ddof=1)
            less = got[:, 1] - first[:, 1]
            cells = f"{mean[0]:.3f} ± {half[0]:.3f} | {mean[1]:.3f} ± {half[1]:.3f}"
            gap = "" if got is first else f"{less.mean():+.3f} ± {reach * less.std(ddof=1):.3f}"
            lines.append(f"| {name} | {way} | {cells} | {gap} | {mean[2]:.2f} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def with_features(seeds: int = 5) -> str:
    """Pictures with votes: a classifier taught by votes in four ways."""
    from scipy.stats import t

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from robust import SETS, labels_of, scores

    from anygrain.labels import Labels, Soft
    from anygrain.learn import Learner

    def crowdkit(votes: Crowd) -> Labels:
        given = tuple(part.numpy() for part in (votes.items, votes.annotators, votes.votes))
        truth = np.zeros(votes.n_instances, dtype=int)
        return Soft(torch.from_numpy(posterior("crowd-kit Dawid-Skene", (*given, truth, votes.n_classes))).float())

    ways: dict[str, Callable[[Crowd, Labels], Labels]] = {
        "majority vote, then the classifier": lambda votes, most: most,
        "aggregate, then the classifier": lambda votes, most: Soft(aggregate(votes).posterior.float()),
        "votes and classifier together": lambda votes, most: votes,
        "together, channel Groups": lambda votes, most: votes.with_channel("groups"),
    }
    if importlib.util.find_spec("crowdkit"):
        ways["crowd-kit Dawid-Skene, then the classifier"] = lambda votes, most: crowdkit(votes)
    lines = ["| taught by | accuracy | log loss | ECE | log loss less that of majority | CPU s |", "|---" * 6 + "|"]
    data = SETS["crowd_labelme"].load()
    found = {way: np.zeros((seeds, 4)) for way in ways}
    for seed in range(seeds):
        task = SETS["crowd_labelme"].draw(data, seed)
        for way, make in ways.items():
            votes = labels_of(task, "kind")
            assert isinstance(votes, Crowd)
            start = time.process_time()
            learner = Learner(seed=seed).fit(task.x, make(votes, labels_of(task, "given")))
            seconds = time.process_time() - start
            got = scores(learner, task)
            found[way][seed] = got["accuracy"], got["log_loss"], got["ece"], seconds
    reach = t.ppf(0.975, seeds - 1) / seeds**0.5
    first = found[next(iter(ways))]
    for way, got in found.items():
        half = reach * got.std(axis=0, ddof=1)
        cells = " | ".join(f"{m:.3f} ± {h:.3f}" for m, h in zip(got.mean(axis=0)[:3], half, strict=False))
        less = got[:, 1] - first[:, 1]
        gap = "" if got is first else f"{less.mean():+.3f} ± {reach * less.std(ddof=1):.3f}"
        lines.append(f"| {way} | {cells} | {gap} | {got[:, 3].mean():.1f} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def posterior(way: str, votes: Votes) -> np.ndarray:
    """P(class) of every item, shape (N, K)."""
    item, annotator, vote, truth, k = votes
    n = len(truth)
    if way.startswith("majority"):
        counts = np.bincount(item * k + vote, minlength=n * k).reshape(n, k).astype(float)
        counts += "one vote more" in way
        return counts / counts.sum(axis=1, keepdims=True)
    if way in CROWDKIT:
        import pandas
        from crowdkit.aggregation import classification

        given = {"n_restarts": 10, "n_iter": 50, "random_state": 0} if way.endswith("MACE") else {"n_iter": 100}
        model = getattr(classification, CROWDKIT[way])(**given)
        frame = pandas.DataFrame({"task": item, "worker": annotator, "label": vote})
        probs = model.fit_predict_proba(frame)
        return probs.reindex(index=range(n), columns=range(k)).fillna(0.0).to_numpy()
    labels = Crowd(torch.from_numpy(item), torch.from_numpy(annotator), torch.from_numpy(vote), k, n_items=n)
    if way == "anygrain":
        return aggregate(labels).posterior.numpy()
    certain = torch.nn.functional.one_hot(torch.from_numpy(truth), k).double()
    for _ in range(20):  # the counts stay the same, the pooled annotator settles
        labels.update(certain)
    return labels.posterior(certain.mean(dim=0).log().expand(n, -1)).numpy()


def measure(way: str, votes: Votes) -> dict[str, float]:
    """Scores against gold, ties shared out evenly; CPU seconds; growth of peak memory in MB."""
    if way in CROWDKIT:
        import crowdkit.aggregation  # noqa: F401  (importing is not part of the fit)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    probs = posterior(way, votes)
    seconds = time.process_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    truth = votes[3]
    probs, truth = np.clip(probs[truth >= 0].astype(float), 1e-12, None), truth[truth >= 0]
    probs /= probs.sum(axis=1, keepdims=True)
    tied = np.isclose(probs, probs.max(axis=1, keepdims=True))
    return {
        "accuracy": float((tied[np.arange(len(truth)), truth] / tied.sum(axis=1)).mean()),
        "log_loss": log_loss(probs, truth),
        "ece": expected_calibration_error(probs, truth),
        "seconds": seconds,
        "megabytes": grown,
        "rows": len(truth),
    }


def in_process(way: str, name: str) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", __file__, "--way", way, "--set", name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{way} on {name} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def synthetic(ways: list[str]) -> str:
    lines = [
        "| crowd | way | accuracy | log loss | ECE | CPU s | memory growth, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in SIZES:
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for errs in HARD:
            for way in ways:
                got = in_process(way, f"{size}, {errs}")
                found[way].append(got)
                lines.append(_line(f"{size}, hard items: {errs}", way, got))
                print(lines[-1], flush=True)
        for way, each in found.items():
            middle = {key: float(np.median([e[key] for e in each])) for key in each[0]}
            lines.append(_line(f"**{size}, median**", way, middle))
            print(lines[-1], flush=True)
    return "\n".join(lines)


def _line(name: str, way: str, got: dict[str, float]) -> str:
    scores = f"| {got['accuracy']:.3f} | {got['log_loss']:.3f} | {got['ece']:.3f} |"
    return f"| {name} | {way} {scores} {got['seconds']:.2f} | {got['megabytes']:.0f} |"


def real(ways: list[str]) -> str:
    from scipy.stats import rankdata

    lines = ["| crowd | " + " | ".join(ways) + " | ± |", "|---" * (len(ways) + 2) + "|"]
    ranks, losses = [], []
    ranked = [way for way in ways if "one vote more" not in way]
    for name in REAL:
        votes = load(name)
        got = {way: measure(way, votes) for way in ways}
        ranks.append(rankdata([-round(got[way]["accuracy"], 6) for way in ranked]))
        losses.append([got[way]["log_loss"] for way in ways])
        share, rows = got["majority"]["accuracy"], got["majority"]["rows"]
        half = 1.96 * (share * (1 - share) / rows) ** 0.5
        cells = [f"{g['accuracy']:.3f} / {g['log_loss']:.3f} / {g['ece']:.3f}" for g in got.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {half:.3f} |")
        print(lines[-1], flush=True)
    rank = dict(zip(ranked, np.mean(ranks, axis=0), strict=True))
    lines.append(
        "| **mean rank of accuracy** | " + " | ".join(f"{rank[w]:.2f}" if w in rank else "" for w in ways) + " | |"
    )
    lines.append("| **mean log loss** | " + " | ".join(f"{x:.3f}" for x in np.mean(losses, axis=0)) + " | |")
    print("\n".join(lines[-2:]), flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way")
    parser.add_argument("--set", dest="name")
    parser.add_argument("--only", choices=("synthetic", "real", "ordered", "typed", "features"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.way:
        print(json.dumps(measure(given.way, load(given.name))))
        return
    warnings.simplefilter("ignore")
    has_peer = all(importlib.util.find_spec(m) for m in ("crowdkit", "attr", "nltk"))
    skipped = "" if has_peer else "\n\ncrowd-kit skipped: `pip install --no-deps crowd-kit attrs nltk` brings it."
    if given.only in (None, "ordered") and "ANYGRAIN_DATA" in os.environ:
        remark = (
            "Classes are ordered, low to high. emotion: intensities of 0 to 100 in five steps. offensive: no gold; "
            "half of the votes are fitted, and scored by the rounded mean of the other half, where that has three."
        )
        write_section("crowd_ordered", f"## Crowds, ordered classes\n\n{ordered()}\n\n{remark}")
    if given.only in (None, "features") and "ANYGRAIN_DATA" in os.environ:
        remark = (
            "crowd_labelme: 800 training pictures with 2.5 votes each, test pictures with their truth. ± is the half "
            "width of a 95 % interval over five draws of the training rows, paired where ways are compared."
        )
        write_section("crowd_features", f"## Crowds, with features\n\n{with_features()}\n\n{remark}{skipped}")
    if given.only in (None, "typed"):
        remark = (
            "Four classes, three votes an item; 40 % of the annotators are experts, 20 % guess, 25 % take two classes "
            "for others, 15 % nearly always say one; each differs a little from its type. ± is the half width of a 95 "
            "% interval over ten crowds. CPU seconds of the fit and the posterior."
        )
        write_section("crowd_typed", f"## Crowds, types of annotators\n\n{typed()}\n\n{remark}")
    if given.only in (None, "synthetic"):
        table = synthetic([w for w in SYNTHETIC_WAYS if w not in CROWDKIT or has_peer])
        remark = (
            "Hard items (15 %) err towards the next class, any, one of their own, the most common, or nothing at all. "
            "The last way counts the annotators' confusions with the truth of every item; its votes are independent "
            "given the class, so it is a ceiling for such models only."
        )
        write_section("crowd", f"## Crowds, synthetic\n\n{table}\n\n{remark}{skipped}")
    if given.only in (None, "real") and "ANYGRAIN_DATA" in os.environ:
        table = real([w for w in REAL_WAYS if w not in CROWDKIT or has_peer])
        remark = (
            "Accuracy / log loss / calibration error against gold, ties shared out evenly. ± is the half width of a 95 "
            "% interval of majority's accuracy over items. Probabilities are clipped at 1e-12. The last column is not "
            "ranked."
        )
        write_section("crowd_real", f"## Crowds, real\n\n{table}\n\n{remark}{skipped}")
    elif given.only in (None, "real"):
        print("Real crowds left out: ANYGRAIN_DATA is not set.")


if __name__ == "__main__":
    main()
