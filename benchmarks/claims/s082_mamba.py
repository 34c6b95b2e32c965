"""State-space models of bags in order (S082), on sequences of digits.

    python benchmarks/claims/s082_mamba.py

Bags of 110 to 150 digits (scikit-learn, linear discriminants learnt from other images) in order. Every bag holds
eight nines; in positive bags they are four pairs whose second follows within ten positions, in negative ones all are
more than ten apart. Width 32, 64 channels, 8 states. Mean pooling, attention pooling, a plain state-space model, and
the re-ordered one with steps of 5. Time per bag is CPU seconds of a pass with gradient, at 200 to 3,200 instances,
beside softmax attention of all pairs; the exponent is the slope of its logarithm.
"""

import time

import numpy as np
import torch
from results import arguments, interval, record, shown
from s060_re_embedding import auc, filled, pools

from anygrain.data.bag_data import BagData
from anygrain.encoders.bags import BagEncoder, Mamba
from anygrain.encoders.bags.softmax_attention import softmax_attention

PAIRS = 4
BAGS, TESTED, EPOCHS = 2000, 300, 5
SMALL = {"state": 8, "layers": 1}
MODELS = {
    "mean": ("mean", {}),
    "attention": ("attention", {}),
    "plain": ("mamba", {**SMALL, "second": "none"}),
    "re-ordered": ("mamba", {**SMALL, "rate": 5}),
}
SIZES = (200, 400, 800, 1600, 3200)


def sequences(number: int, nines: np.ndarray, others: np.ndarray, rng) -> tuple[BagData, np.ndarray]:
    truth, bags = np.arange(number) % 2, []
    for y in truth:
        n = int(rng.integers(110, 151))
        if y:
            within = rng.integers(1, 11, size=PAIRS)
            starts = apart(n - int(within.sum()), PAIRS, 1, rng) + np.concatenate([[0], within.cumsum()[:-1]])
            places = np.concatenate([starts, starts + within])
        else:
            places = apart(n, 2 * PAIRS, 11, rng)
        bags.append(filled([places], n, nines, others, rng)[0])
    return BagData.from_arrays(bags), truth


def apart(n: int, number: int, least: int, rng) -> np.ndarray:
    """Places in 0..n - 1, in order, at least so far apart."""
    return np.sort(rng.choice(n - (number - 1) * (least - 1), number, replace=False)) + np.arange(number) * (least - 1)


def seconds(run, repeats: int = 3) -> list[float]:
    """CPU seconds of a pass with gradient at every size, the least of some."""
    took = []
    for n in SIZES:
        x = torch.randn(n, 32, requires_grad=True)
        least = np.inf
        for _ in range(repeats):
            start = time.process_time()
            run(x, torch.tensor([n])).sum().backward()
            least = min(least, time.process_time() - start)
        took.append(least)
    return took


def main() -> None:
    chosen = arguments(__doc__, seeds=3)
    found: dict[str, list[float]] = {name: [] for name in MODELS}
    for seed in range(chosen.seeds):
        nines, others = pools(seed)
        rng = np.random.default_rng(seed)
        train, test = sequences(BAGS, nines[0], others[0], rng), sequences(TESTED, nines[1], others[1], rng)
        for name, (aggregator, options) in MODELS.items():
            encoder = BagEncoder(aggregator, hidden=32, dropout=0.0, **options)
            found[name].append(auc(encoder, train, test, seed, EPOCHS))
        print(seed, {name: round(values[-1], 3) for name, values in found.items()}, flush=True)
    torch.manual_seed(0)
    model = Mamba(32, state=8)
    ours = seconds(lambda x, sizes: model(x, sizes).bag)
    pairs = seconds(lambda x, sizes: softmax_attention(x[:, None], x[:, None], x[:, None], sizes))
    exponent, other = (np.polyfit(np.log(SIZES[2:]), np.log(took[2:]), 1)[0] for took in (ours, pairs))
    score = {name: np.array(values) for name, values in found.items()}
    second = score["re-ordered"] - score["plain"]
    low, gain = (
        score["plain"].mean() - score["attention"].mean(),
        score["re-ordered"].mean() - score["attention"].mean(),
    )
    record(
        "S082",
        ours=f"AUC, %: plain {shown(score['plain'])}, re-ordered {shown(score['re-ordered'])}; "
        f"time of n instances like n^{exponent:.2f}, {1e3 * ours[-1]:.0f} ms at 3,200",
        baseline=f"attention {shown(score['attention'])}, mean {shown(score['mean'])}; attention of all pairs like "
        f"n^{other:.2f}",
        interval=f"re-ordered over plain {shown(second)}, over attention "
        f"{shown(score['re-ordered'] - score['attention'])}",
        came_out=bool(
            min(low, gain) > 0.15 and score["attention"].mean() < 0.6 and interval(second)[2] >= 0 and exponent < 1.2
        ),
        note="asked: both 15 points above attention, attention below 60, re-ordered no worse than plain within the "
        "interval, an exponent below 1.2",
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
