"""S003: digits that stream by once, named coarsely at first, with a memory of 100 rows.

    python benchmarks/claims/s003_label_expansion.py

Half of the rows are named below 5 or not; then come digits below 5, then the others. Accuracy on held-out digits, fine
and coarse at the end, and fine over the time in which fine names came. Against experience replay (half of a batch new,
half from a reservoir), and without pseudo-labels, or direct training of rare classes.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from sklearn.datasets import load_digits
from torch import Tensor

from anygrain.discover import LabelExpansion
from anygrain.discover.label_expansion import ExpandingNetwork, grow, row_losses
from anygrain.labels import Coarse, Exact

MEMORY, AT_ONCE, BATCH, RATE, HIDDEN, TEST = 100, 100, 16, 3e-3, 128, 400
NODE_OF = torch.arange(10) // 5
TREE = torch.nn.functional.one_hot(NODE_OF, 2).T.float()
WAYS = {"full": {}, "no pseudo-labels": {"pseudo": False}, "memory alone": {"familiar": 0}}


class Replay:
    """Experience replay with a reservoir: rows in order, a step each, half of a batch new."""

    def __init__(self, x: Tensor, seed: int) -> None:
        self.network = ExpandingNetwork(x, HIDDEN, seed)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=RATE)
        grow(self.network, "node_head", 2, self.optimiser)
        grow(self.network, "fine_head", 10, self.optimiser)
        self.network.node_of, self.network.order = NODE_OF, torch.arange(10)
        self.network.seen, self.network.node_seen = torch.zeros(10).bool(), torch.zeros(2).bool()
        self.generator, self.came = torch.Generator().manual_seed(seed), 0
        self.kept = [x[:0], NODE_OF[:0], NODE_OF[:0]]

    def stream(self, x: Tensor, node: Tensor, fine: Tensor) -> None:
        for rows in torch.arange(len(x)).split(BATCH // 2):
            new = [x[rows], node[rows], fine[rows]]
            self.network.node_seen[new[1]] = True
            self.network.seen[new[2][new[2] >= 0]] = True
            for _ in range(len(rows)):
                drawn = torch.randint(max(len(self.kept[0]), 1), (BATCH // 2,), generator=self.generator)
                drawn = drawn[: len(self.kept[0])]
                batch = [torch.cat([a, b[drawn]]) for a, b in zip(new, self.kept, strict=True)]
                loss = row_losses(*self.network.outputs({"features": batch[0]}), *batch[1:]).mean()
                self.optimiser.zero_grad()
                loss.backward()
                self.optimiser.step()
            for row in zip(*new, strict=True):
                self.came += 1
                place = len(self.kept[0])
                if place < MEMORY:
                    self.kept = [torch.cat([a, b[None]]) for a, b in zip(self.kept, row, strict=True)]
                    continue
                place = int(torch.randint(self.came, (1,), generator=self.generator))
                if place < MEMORY:
                    for a, b in zip(self.kept, row, strict=True):
                        a[place] = b

    def predict(self, x: Tensor) -> np.ndarray:
        with torch.no_grad():
            return self.network({"features": x}).argmax(dim=1).numpy()


def stream_of(seed: int) -> tuple[list[tuple[Tensor, Tensor, bool]], Tensor, np.ndarray]:
    """Parts of the stream as rows, digits, and whether these are named; rows and digits of the test."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    rows, digits = torch.from_numpy(x[order] / 16).float(), torch.from_numpy(y[order])
    test, rest = slice(0, TEST), torch.arange(TEST, len(digits))
    half = len(rest) // 2
    coarse, fine = rest[:half], rest[half:]
    tasks = [(coarse, False), (fine[digits[fine] < 5], True), (fine[digits[fine] >= 5], True)]
    parts = [(rows[part], digits[part], named) for ids, named in tasks for part in ids.split(AT_ONCE)]
    return parts, rows[test], digits[test].numpy()


def run(way: str, seed: int) -> tuple[float, float, float]:
    """Fine and coarse accuracy at the end, and mean fine accuracy over the time in which digits were named."""
    parts, test, truth = stream_of(seed)
    over_time = []
    model = Replay(parts[0][0], seed) if way == "replay" else None
    if model is None:
        settings = {"memory": MEMORY, "rate": RATE, "batch_size": BATCH, "hidden": HIDDEN, **WAYS[way]}
        model = LabelExpansion(seed=seed, bootstrap=0, **settings)
    for x, y, named in parts:
        if isinstance(model, Replay):
            model.stream(x, NODE_OF[y], y if named else torch.full_like(y, -1))
        else:
            model.partial_fit(x, Exact(y, 10) if named else Coarse(NODE_OF[y], TREE))
        found = model.predict(test)
        if named:
            over_time.append(float((found == truth).mean()))
    return over_time[-1], float((found // 5 == truth // 5).mean()), float(np.mean(over_time))


def main() -> None:
    chosen = arguments(__doc__, seeds=5)
    found = {way: np.array([run(way, seed) for seed in range(chosen.seeds)]) for way in [*WAYS, "replay"]}
    for way, values in found.items():
        print(f"{way:18} fine {shown(values[:, 0])}  coarse {shown(values[:, 1])}  over time {shown(values[:, 2])}")
    full, replay = found["full"], found["replay"]
    gain = full - replay
    better = []
    for way in list(WAYS)[1:]:
        less = found[way][:, :2] - full[:, :2]
        error = less.std(axis=0, ddof=1) / np.sqrt(len(less)) if len(less) > 1 else np.full(2, np.inf)
        better.append(bool((less.mean(axis=0) > error).any()))
    came_out = bool((gain[:, :2].mean(axis=0) > 0).all()) and not any(better)
    record(
        "S003",
        ours=f"fine {shown(full[:, 0])}, coarse {shown(full[:, 1])}, fine over time {shown(full[:, 2])}",
        baseline="; ".join(
            f"{way}: {shown(found[way][:, 0])}, {shown(found[way][:, 1])}, {shown(found[way][:, 2])}"
            for way in [*list(WAYS)[1:], "replay"]
        ),
        interval=f"against replay: fine {shown(gain[:, 0])}, coarse {shown(gain[:, 1])}; over time "
        f"{interval(gain[:, 2])[0]:.1f}",
        came_out=came_out,
        note="" if came_out else "asked: above replay in both, and no part whose absence helps",
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
