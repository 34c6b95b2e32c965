"""S067: subclass-balancing contrast on digits with sizes skewed 20:1.

    python benchmarks/claims/s067_subclass_balancing.py

Class sizes fall from 120 to 6 in random order; views are shifted by up to a pixel and noisy; the outer layer is fitted
to the frozen hidden layer with equal class weights. Balanced accuracy on 50 rows per class. Last, digits merged into
three classes of 6, 3 and 1: do subclasses find the digits, compared with k-means on pixels?
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import recall_score
from torch import Tensor

from anygrain.learn import Learner
from anygrain.robust.subclass_balancing import SubclassContrast


def shifted(features: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures of 8 x 8 moved by up to a pixel each way, with a little noise."""
    wide = torch.nn.functional.pad(features.reshape(-1, 8, 8), (1, 1, 1, 1))
    down, right = torch.randint(3, (2, len(features), 1), generator=generator) + torch.arange(8)
    moved = wide[torch.arange(len(features))[:, None, None], down[:, :, None], right[:, None, :]]
    return moved.reshape(len(features), -1) + 0.1 * torch.randn(features.shape, generator=generator)


def data(seed: int) -> tuple[np.ndarray, ...]:
    """Training rows and classes, test rows and classes, the three rarest classes."""
    x, y = load_digits(return_X_y=True)
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(x))
    x, y = x[shuffled] / 16, y[shuffled]
    order = generator.permutation(10)
    test = np.concatenate([np.flatnonzero(y == c)[:50] for c in range(10)])
    rest = np.setdiff1d(np.arange(len(x)), test)
    train = np.concatenate([rest[y[rest] == c][: round(120 * 20 ** (-i / 9))] for i, c in enumerate(order)])
    return x[train], y[train], x[test], y[test], order[7:]


def purity(found: np.ndarray, digits: np.ndarray) -> float:
    """Share of rows whose digit is the most frequent one of their subclass."""
    return sum(np.bincount(digits[found == s]).max() for s in np.unique(found)) / len(digits)


def main() -> None:
    chosen = arguments(__doc__, seeds=5)
    found: dict[str, list[tuple[float, float]]] = {}
    pure: dict[str, list[float]] = {}
    for seed in range(chosen.seeds):
        x, y, test, truth, rare = data(seed)
        ways = {
            "subclasses": SubclassContrast(shifted),
            "supervised contrast": SubclassContrast(shifted, least=None, beta=0.0),
            "cross-entropy": None,
        }
        for way, procedure in ways.items():
            model = Learner(head="mlp", procedure=procedure, seed=seed).fit(x, y)
            recall = recall_score(truth, model.predict(test), average=None)
            found.setdefault(way, []).append((float(recall.mean()), float(recall[rare].mean())))
        x, y = load_digits(return_X_y=True)
        rows = np.random.default_rng(seed).permutation(len(x))[:700]
        x, y = x[rows] / 16, y[rows]
        coarse = np.searchsorted([6, 9], y, side="right")  # 6, 3 digits and 1
        procedure = SubclassContrast(shifted, epochs=40)
        Learner(head="mlp", procedure=procedure, seed=seed).fit(x, coarse)
        subclass = procedure.subclass_.numpy()
        number = len(np.unique(subclass))
        pure.setdefault("subclasses", []).append(purity(subclass, y))
        by_pixels = np.empty(len(x), dtype=int)
        for c in range(3):
            inside = coarse == c
            k = len(np.unique(subclass[inside]))
            by_pixels[inside] = 100 * c + KMeans(k, n_init=5, random_state=seed).fit_predict(x[inside])
        pure.setdefault("k-means on pixels", []).append(purity(by_pixels, y))
        print(f"seed {seed}: {number} subclasses", flush=True)
    table = {way: np.array(values) for way, values in found.items()}
    for way, values in table.items():
        print(f"{way:20} balanced {shown(values[:, 0])}   three rarest classes {shown(values[:, 1])}")
    gain = table["subclasses"] - table["supervised contrast"]
    record(
        "S067",
        ours=f"balanced {shown(table['subclasses'][:, 0])}, three rarest {shown(table['subclasses'][:, 1])}; purity of "
        f"subclasses {shown(pure['subclasses'])}",
        baseline="; ".join(
            f"{way} {shown(table[way][:, 0])}, three rarest {shown(table[way][:, 1])}"
            for way in ("supervised contrast", "cross-entropy")
        )
        + f"; purity of k-means on pixels {shown(pure['k-means on pixels'])}",
        interval=f"gain over supervised contrast {shown(gain[:, 0])}, on the three rarest {shown(gain[:, 1])}; over "
        f"cross-entropy {shown(table['subclasses'][:, 0] - table['cross-entropy'][:, 0])}",
        came_out=interval(gain[:, 0])[0] >= 1 and interval(gain[:, 1])[0] > interval(gain[:, 0])[0],
        note="a perceptron on pixels in place of a small convolutional network",
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
