"""S137: which rows to ask about when half of the classes have never been labelled.

    python benchmarks/claims/s137_active_gcd.py

Digits: a fifth of the rows of classes 0 to 4 carry labels, 5 to 9 none. A small network with a cosine classifier of ten
outputs is trained by self-distillation between two noisy views, use of all outputs, and cross-entropy on the labelled
rows; then four rounds of ten questions. New-class accuracy on other digits, after the best naming of outputs.
"""

import copy

import numpy as np
import torch
from results import arguments, interval, record, shown
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from anygrain.audit.ask import choose, label_map, novelty

OLD, K, ROUNDS, PER_ROUND = 5, 10, 4, 10
FIRST, LATER, BATCH = 40, 15, 128
SHARP, SOFT, TEMPERATURE = 0.04, 0.07, 0.1
EVEN, LABELLED = 2.0, 0.35  # weights of using all outputs, and of labels
KEEP = 0.9  # of the slow copy, per step
WAYS = ("novel", "random", "margin", "novel, fast names")


class Network(nn.Module):
    """Unit features and cosines with unit weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
        self.weight = nn.Parameter(torch.randn(K, 64))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(self.body(x), dim=1) @ functional.normalize(self.weight, dim=1).T


def view(x: Tensor, generator: torch.Generator) -> Tensor:
    noise = 0.1 * torch.randn(x.shape, generator=generator)
    return (x + noise) * (torch.rand(x.shape, generator=generator) > 0.1)


def epoch(
    network: Network,
    slow: Network,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    named: Tensor,
    sharp: float,
    g: torch.Generator,
) -> None:
    """One pass over all rows; `named` (N,) is the output that a labelled row belongs to, -1 elsewhere."""
    told = (named >= 0).nonzero()[:, 0]
    for rows in torch.randperm(len(x), generator=g).split(BATCH):
        pick = told[torch.randint(len(told), (BATCH // 2,), generator=g)]
        one, two = (network(view(x[rows], g)) for _ in range(2))
        loss = torch.zeros(())
        for mine, other in ((one, two), (two, one)):
            target = (other.detach() / sharp).softmax(dim=1)
            loss = loss - (target * (mine / TEMPERATURE).log_softmax(dim=1)).sum(dim=1).mean() / 2
        use = (torch.cat([one, two]) / TEMPERATURE).softmax(dim=1).mean(dim=0)
        loss = loss + EVEN * (use * use.clamp(min=1e-8).log()).sum()
        told_loss = functional.cross_entropy(network(view(x[pick], g)) / TEMPERATURE, named[pick])
        total = (1 - LABELLED) * loss + LABELLED * told_loss
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(slow.parameters(), network.parameters(), strict=True):
                kept.mul_(KEEP).add_(new, alpha=1 - KEEP)


def new_accuracy(predicted: np.ndarray, y: np.ndarray) -> float:
    """Of rows of new classes, under the assignment of outputs to classes with most rows right."""
    agree = np.zeros((K, K))
    np.add.at(agree, (predicted, y), 1)
    rows, columns = linear_sum_assignment(-agree)
    name = columns[rows.argsort()]
    new = y >= OLD
    return float((name[predicted[new]] == y[new]).mean())


def run(way: str, seed: int) -> tuple[float, float]:
    """Mean new-class accuracy over the rounds, and the share of new classes met in the first round."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    pixels, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    pixels, y = pixels[order] / 16, torch.from_numpy(y[order])
    x, test = torch.tensor(pixels[:1200]).float(), torch.tensor(pixels[1200:]).float()
    truth, y_test = y[:1200], y[1200:].numpy()
    known = (truth < OLD) & (torch.rand(1200, generator=g) < 0.2)
    network = Network()
    slow = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    names = torch.arange(K)
    accuracies, coverage = [], 0.0
    fast = way.endswith("fast names")
    for round in range(ROUNDS + 1):
        for step in range(FIRST if round == 0 else LATER):
            sharp = SOFT + (SHARP - SOFT) * min(step / FIRST, 1.0) if round == 0 else SHARP
            with torch.no_grad():
                said = (network if fast else slow)(x[known]).argmax(dim=1)
            if round:  # before the first question every labelled class keeps its own index
                names = label_map(said, truth[known], K, names)
            epoch(network, slow, optimizer, x, torch.where(known, names[truth], -1), sharp, g)
        with torch.no_grad():
            accuracies.append(new_accuracy(slow(test).argmax(dim=1).numpy(), y_test))
            log_probs = (slow(x) / TEMPERATURE).log_softmax(dim=1)
        if round == ROUNDS:
            break
        old_outputs = torch.zeros(K, dtype=torch.bool).index_fill_(0, names[:OLD], True)
        by = way.partition(",")[0]
        asked = choose(
            log_probs, PER_ROUND, by=by, may_ask=~known, novel=~old_outputs, round=round, seed=10 * seed + round
        )
        if round == 0:
            coverage = novelty(truth[asked.rows], torch.arange(K) >= OLD)["coverage"]
        known[asked.rows] = True
    return float(np.mean(accuracies[1:])), coverage


def main() -> None:
    chosen = arguments(__doc__, seeds=10)
    found = {way: np.array([run(way, seed) for seed in range(chosen.seeds)]) for way in WAYS}
    for way, values in found.items():
        print(f"{way:18} new-class accuracy {shown(values[:, 0])}   coverage of round 1 {shown(values[:, 1])}")
    novel, random, margin, fast = (found[way] for way in WAYS)
    gain = novel[:, 0] - random[:, 0]
    came_out = interval(gain)[0] >= 3 and float(novel[:, 1].mean()) >= 0.9
    record(
        "S137",
        ours=f"new-class accuracy {shown(novel[:, 0])} %, coverage of round 1 {shown(novel[:, 1])} %",
        baseline=f"random {shown(random[:, 0])} %, margin {shown(margin[:, 0])} %, names by the fast copy "
        f"{shown(fast[:, 0])} %",
        interval=f"against random {shown(gain)}, against margin {shown(novel[:, 0] - margin[:, 0])}",
        came_out=came_out,
        note="" if came_out else "asked: random + 3 and coverage of .9",
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
