"""Soft labels of real crowds: each method, four ways to pool them, and crowd-kit's, scored against gold.

    ANYGRAIN_DATA=/path/to/data python benchmarks/peers/soft_labels.py

The peer needs `pip install --no-deps crowd-kit attrs nltk`, and is skipped without it; its Wawa and ZeroBasedSkill
do not run with today's scikit-learn.
"""

import importlib.util
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from crowd import REAL, load
from results import write_section
from scipy.stats import rankdata

from anygrain.audit import soft_labels
from anygrain.audit.pooling import POOLS
from anygrain.labels import Crowd
from anygrain.labels.aggregate import aggregate
from anygrain.metrics import expected_calibration_error, log_loss

PEERS = {"Dawid-Skene": "DawidSkene", "MACE": "MACE", "GLAD": "GLAD"}
FLOOR = 1e-12


def of_crowdkit(name: str, votes: tuple) -> np.ndarray:
    import pandas
    from crowdkit.aggregation import classification

    item, annotator, vote, truth, k = votes
    given = {"n_restarts": 10, "n_iter": 50, "random_state": 0} if name == "MACE" else {"n_iter": 100}
    model = getattr(classification, PEERS[name])(**given)
    frame = pandas.DataFrame({"task": item, "worker": annotator, "label": vote})
    probs = model.fit_predict_proba(frame)
    return probs.reindex(index=range(len(truth)), columns=range(k)).fillna(0.0).to_numpy()


def tables(votes: tuple, has_peer: bool) -> dict[str, np.ndarray]:
    """P(class) of every item (N, K) by name of the method."""
    item, annotator, vote, truth, k = votes
    crowd = Crowd(*map(torch.from_numpy, (item, annotator, vote)), k, n_items=len(truth))
    _, each = soft_labels(crowd)
    out = {name: table.numpy() for name, table in each.items()}
    voted = ~torch.isnan(each["standard"][:, 0])
    for name, pool in POOLS.items():
        table = torch.full_like(each["standard"], torch.nan)
        table[voted] = pool(torch.stack([t[voted] for t in each.values()]))
        out[f"pooled: {name}"] = table.numpy()
    out["aggregate"] = aggregate(crowd).posterior.numpy()
    if has_peer:
        out |= {f"crowd-kit {name}": of_crowdkit(name, votes) for name in PEERS}
    return out


def scores(probs: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Accuracy with ties shared out, log loss, calibration error, over items with gold and a vote."""
    kept = (truth >= 0) & np.isfinite(probs[:, 0])
    probs, truth = np.clip(probs[kept].astype(float), FLOOR, None), truth[kept]
    probs /= probs.sum(axis=1, keepdims=True)
    tied = np.isclose(probs, probs.max(axis=1, keepdims=True))
    accuracy = float((tied[np.arange(len(truth)), truth] / tied.sum(axis=1)).mean())
    return accuracy, float(log_loss(probs, truth)), float(expected_calibration_error(probs, truth))


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if "ANYGRAIN_DATA" not in os.environ:
        raise SystemExit("ANYGRAIN_DATA is not set: the crowds are read from there")
    has_peer = all(importlib.util.find_spec(m) for m in ("crowdkit", "attr", "nltk"))
    found: dict[str, list[tuple[float, float, float]]] = {}
    for name in REAL:
        votes = load(name)
        for method, table in tables(votes, has_peer).items():
            found.setdefault(method, []).append(scores(table, votes[3]))
        print(name, {m: f"{v[-1][1]:.3f}" for m, v in found.items()}, flush=True)
    names = list(found)
    values = np.array([found[m] for m in names])  # (methods, crowds, 3)
    rank = np.stack([rankdata(values[:, c, 1]) for c in range(len(REAL))], axis=1)
    half = [1.96 * values[m].std(axis=0, ddof=1) / np.sqrt(len(REAL)) for m in range(len(names))]
    lines = ["| method | accuracy | log loss | calibration error | mean rank of log loss |", "|---" * 5 + "|"]
    for at, name in enumerate(names):
        cells = [f"{values[at, :, c].mean():.3f} ± {half[at][c]:.3f}" for c in range(3)]
        lines.append(f"| {name} | {' | '.join(cells)} | {rank[at].mean():.1f} |")
    per_crowd = ["| log loss | " + " | ".join(REAL) + " |", "|---" * (len(REAL) + 1) + "|"]
    per_crowd += [f"| {n} | " + " | ".join(f"{v:.3f}" for v in values[at, :, 1]) + " |" for at, n in enumerate(names)]
    remark = (
        f"Means over {len(REAL)} crowds ({', '.join(REAL)}), ± 1.96 standard errors over crowds; items with gold and a "
        "vote, clipped at 1e-12. softmax, wawa and zero_based_skill are weighted counts; aggregate chooses "
        f"and averages models of annotators by held-out likelihood. Rank among {len(names)}."
    )
    text = "\n".join(lines) + "\n\n" + "\n".join(per_crowd)
    write_section("soft_labels", f"## Soft labels of crowds\n\n{text}\n\n{remark}")


if __name__ == "__main__":
    main()
