"""S131: soft labels by several methods, and their average, on clean and on blurred digits.

    python benchmarks/claims/s131_soft_label_aggregation.py

600 digits, 30 simulated annotators (five spammers, some with favourite mistakes, blurred items misread more often),
five votes per item. A linear model is trained on each method's soft labels by cross-entropy; log loss and accuracy on
clean and on shifted (one pixel, blurred) digits, against the hard majority.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from scipy.ndimage import gaussian_filter, shift
from scipy.stats import rankdata
from sklearn.datasets import load_digits
from torch import Tensor

from anygrain.audit.of_votes import METHODS, soft_labels
from anygrain.labels import Crowd
from anygrain.learn.head import Linear, fit_head

ITEMS, ANNOTATORS, SPAMMERS, VOTES, K = 600, 30, 5, 5, 10
AVERAGE, MAJORITY = "average", "majority"


def crowd(y: np.ndarray, hard: np.ndarray, generator: np.random.Generator) -> Crowd:
    """Votes on items of classes y, of which some are hard."""
    skill = generator.beta(4, 2, size=ANNOTATORS)
    skill[:SPAMMERS] = 1 / K
    favourite = generator.integers(K, size=(ANNOTATORS, K))  # what an annotator takes each class for
    systematic = generator.random(ANNOTATORS) < 0.4
    item = np.repeat(np.arange(len(y)), VOTES)
    who = np.concatenate([generator.choice(ANNOTATORS, VOTES, replace=False) for _ in range(len(y))])
    chance = skill[who] * np.where(hard[item], 0.6, 1.0)
    random = generator.integers(K, size=len(item))
    wrong = np.where(systematic[who] & (generator.random(len(item)) < 0.7), favourite[who, y[item]], random)
    vote = np.where(generator.random(len(item)) < chance, y[item], wrong)
    return Crowd(*map(torch.from_numpy, (item, who, vote)), K, len(y), n_annotators=ANNOTATORS)


def blurred(x: np.ndarray, sigma: float, by: int = 0) -> np.ndarray:
    images = gaussian_filter(x.reshape(-1, 8, 8), (0, sigma, sigma))
    return shift(images, (0, 0, by), order=0).reshape(len(x), 64)


def trained(x: Tensor, target: Tensor) -> Linear:
    head = Linear(64, K)
    fit_head(head, x, target, penalty=1e-3, steps=200)
    return head


def run(seed: int) -> dict[str, list[float]]:
    """By method: log loss and accuracy on clean digits, then on shifted ones."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    x, y = load_digits(return_X_y=True)
    order = generator.permutation(len(x))
    x, y = x[order] / 16, y[order]
    hard = generator.random(ITEMS) < 0.3
    train = np.where(hard[:, None], blurred(x[:ITEMS], 0.8), x[:ITEMS])
    pooled, each = soft_labels(crowd(y[:ITEMS], hard, generator))
    majority = torch.nn.functional.one_hot(each["standard"].argmax(dim=1), K).double()
    tests = (x[ITEMS:], blurred(x[ITEMS:], 0.7, by=1))
    truth = torch.from_numpy(y[ITEMS:])
    out = {}
    for name, target in {**each, AVERAGE: pooled, MAJORITY: majority}.items():
        head = trained(torch.from_numpy(train).float(), target.float())
        out[name] = []
        for test in tests:
            with torch.no_grad():
                log_probs = head(torch.from_numpy(test).float())
            loss = torch.nn.functional.nll_loss(log_probs, truth)
            out[name] += [float(loss), float((log_probs.argmax(dim=1) == truth).double().mean())]
    return out


def main() -> None:
    chosen = arguments(__doc__, seeds=10)
    runs = [run(seed) for seed in range(chosen.seeds)]
    names = [*METHODS, AVERAGE, MAJORITY]
    table = np.array([[r[name] for name in names] for r in runs])  # (seeds, methods, 4)
    eight = table[:, : len(METHODS) + 1, 2]
    rank = np.array([rankdata(row) for row in eight])
    for at, name in enumerate(names):
        cells = [shown(table[:, at, c], scale=1, digits=2) for c in range(4)]
        place = f"   rank {rank[:, at].mean():.1f}" if at < eight.shape[1] else ""
        print(f"{name:16} clean {cells[0]} {cells[1]}   shifted {cells[2]} {cells[3]}{place}")
    average, majority = names.index(AVERAGE), names.index(MAJORITY)
    gain = table[:, majority, 2] - table[:, average, 2]
    mean_rank = float(rank[:, average].mean())
    best = min(range(len(METHODS)), key=lambda m: table[:, m, 2].mean())
    came_out = mean_rank <= 2.5 and interval(gain, 1)[1] > 0
    record(
        "S131",
        ours=f"average: shifted log loss {shown(table[:, average, 2], 1, 2)}, mean rank {mean_rank:.1f} of 8",
        baseline=f"majority {shown(table[:, majority, 2], 1, 2)}; best single method, {names[best]}: "
        f"{shown(table[:, best, 2], 1, 2)} (rank {rank[:, best].mean():.1f})",
        interval=f"log loss gained on majority {shown(gain, 1, 2)}",
        came_out=came_out,
        note="" if came_out else "asked: mean rank at most 2.5 among 8, and below majority",
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
