"""S137: which rows to ask about when half of the classes have never been labelled.

    python benchmarks/claims/s137_active_gcd.py

Digits: a fifth of the rows of classes 0 to 4 carry labels, 5 to 9 none. A small network with a cosine classifier of ten
outputs is trained by self-distillation between two noisy views, use of all outputs, contrast between views and within
labelled classes, and cross-entropy on the labelled rows; then four rounds of ten questions. In every round of training,
each pass over all rows is followed by one over the rows that were asked about alone, whose names are translated to
outputs by the slow copy of the network. All strategies go on from the same network. As published, half of the rows of a
batch are labelled; beside it new and random queries where rows are drawn alike. New-class accuracy on other digits,
after the best naming of outputs, averaged over the rounds. Seeds 100 to 107 served for development.
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

OLD, K, ROUNDS, PER_ROUND, ROWS = 5, 10, 4, 10, 1200
FIRST, LATER, BATCH, ASKED_BATCH, RATE = 40, 15, 128, 8, 3e-3
SHARP, SOFT, WARM, TEMPERATURE = 0.04, 0.07, 30, 0.1
EVEN, LABELLED = 2.0, 0.35  # weights of using all outputs, and of labels
APART, TOGETHER = 1.0, 0.07  # temperatures of contrast between views, and within classes
KEEP = 0.9  # of the slow copy, per step
WAYS = ("novel", "random", "margin", "novel, fast names")


class Network(nn.Module):
    """Cosines (B, K) with unit weights, and unit projections for contrast."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
        self.projection = nn.Sequential(
            nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 64)
        )
        self.weight = nn.Parameter(torch.randn(K, 64))

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.body(x)
        cosine = functional.normalize(feature, dim=1) @ functional.normalize(self.weight, dim=1).T
        return cosine, functional.normalize(self.projection(feature), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x)[0]


def view(x: Tensor, generator: torch.Generator) -> Tensor:
    noise = 0.1 * torch.randn(x.shape, generator=generator)
    return (x + noise) * (torch.rand(x.shape, generator=generator) > 0.1)


def contrast(z: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Mean -log of the share that every other row of the same class has, of unit rows (M, E)."""
    itself = torch.eye(len(z), dtype=torch.bool)
    same = (y[:, None] == y) & ~itself
    log_share = (z @ z.T / temperature).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    return -(log_share.masked_fill(~same, 0).sum(dim=1) / same.sum(dim=1)).mean()


class Training:
    """A network, its slow copy, and which rows are labelled.

    Args:
        x, truth: rows (N, 64) and their classes.
        labelled: bool (N,), at first.
        half: whether half of the rows of a batch are labelled; otherwise all are drawn alike.
    """

    def __init__(self, x: Tensor, truth: Tensor, labelled: Tensor, half: bool, seed: int) -> None:
        torch.manual_seed(seed)
        share = labelled.sum() / (~labelled).sum() if half else 1.0
        self.weight = torch.where(labelled, 1.0, share)
        self.network, self.x, self.truth, self.labelled = Network(), x, truth, labelled
        self.slow = copy.deepcopy(self.network)
        self.asked = torch.zeros_like(labelled)
        self.names = torch.arange(K)
        self.generator = torch.Generator().manual_seed(seed)

    def copy(self) -> "Training":
        state = self.generator.get_state()
        found = copy.copy(self)
        found.network, found.slow = copy.deepcopy(self.network), copy.deepcopy(self.slow)
        found.asked, found.generator = self.asked.clone(), torch.Generator()
        found.generator.set_state(state)
        return found

    def go_on(self, epochs: int, warm: int, fast: bool) -> None:
        """Train with a rate that falls along a cosine; targets become sharp over `warm` epochs."""
        optimizer = torch.optim.Adam(self.network.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=RATE / 1000)
        for epoch in range(epochs):
            sharp = SOFT + (SHARP - SOFT) * (min(epoch / warm, 1.0) if warm else 1.0)
            for _ in range(len(self.x) // BATCH):
                rows = torch.multinomial(self.weight, BATCH, replacement=True, generator=self.generator)
                self.step(optimizer, self.base(rows, sharp))
            told = self.asked.nonzero()[:, 0]
            if len(told):
                self.translate(self.network if fast else self.slow)
                for rows in told[torch.randperm(len(told), generator=self.generator)].split(ASKED_BATCH):
                    self.step(optimizer, self.of_labels(rows, *self.views(rows)))
            schedule.step()

    def translate(self, network: Network) -> None:
        """Which output every class has, by what a network says of all rows with labels."""
        rows = self.labelled | self.asked
        with torch.no_grad():
            self.names = label_map(network(self.x[rows]).argmax(dim=1), self.truth[rows], K, self.names)

    def views(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        found = [self.network.both(view(self.x[rows], self.generator)) for _ in range(2)]
        return torch.cat([out for out, _ in found]), torch.cat([z for _, z in found])

    def base(self, rows: Tensor, sharp: float) -> Tensor:
        out, z = self.views(rows)
        target = (torch.cat(out.detach().chunk(2)[::-1]) / sharp).softmax(dim=1)  # what is said of the other view
        distilled = -(target * (out / TEMPERATURE).log_softmax(dim=1)).sum(dim=1).mean()
        use = (out / TEMPERATURE).softmax(dim=1).mean(dim=0)
        even = (use * use.clamp(min=1e-8).log()).sum()
        pair = torch.arange(len(rows)).repeat(2)
        alone = distilled + EVEN * even + contrast(z, pair, APART)
        told = self.labelled[rows]
        both = told.repeat(2)
        return (1 - LABELLED) * alone + self.of_labels(rows[told], out[both], z[both])

    def of_labels(self, rows: Tensor, out: Tensor, z: Tensor) -> Tensor:
        y = self.truth[rows].repeat(2)
        named = functional.cross_entropy(out / TEMPERATURE, self.names[y])
        return LABELLED * (named + contrast(z, y, TOGETHER))

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(self.slow.parameters(), self.network.parameters(), strict=True):
                kept.mul_(KEEP).add_(new, alpha=1 - KEEP)


def new_accuracy(predicted: np.ndarray, y: np.ndarray) -> float:
    """Of rows of new classes, under the assignment of outputs to classes with most rows right."""
    agree = np.zeros((K, K))
    np.add.at(agree, (predicted, y), 1)
    rows, columns = linear_sum_assignment(-agree)
    name = columns[rows.argsort()]
    new = y >= OLD
    return float((name[predicted[new]] == y[new]).mean())


def rounds(training: Training, way: str, x: Tensor, y: np.ndarray, seed: int) -> tuple[float, float]:
    """Mean new-class accuracy on (x, y) over the rounds, and the share of new classes met in the first one."""
    accuracies, coverage = [], 0.0
    new = torch.arange(K) >= OLD  # outputs and classes alike: the first outputs are those of the old classes
    for round in range(ROUNDS):
        with torch.no_grad():
            log_probs = (training.slow(training.x) / TEMPERATURE).log_softmax(dim=1)
        free = ~(training.labelled | training.asked)
        by = way.partition(",")[0]
        rows = choose(log_probs, PER_ROUND, by=by, may_ask=free, novel=new, round=round, seed=10 * seed + round).rows
        if round == 0:
            coverage = novelty(training.truth[rows], new)["coverage"]
        training.asked[rows] = True
        training.go_on(LATER, 0, way.endswith("fast names"))
        with torch.no_grad():
            accuracies.append(new_accuracy(training.slow(x).argmax(dim=1).numpy(), y))
    return float(np.mean(accuracies)), coverage


def run(seed: int, ways: tuple[str, ...], half: bool) -> dict[str, tuple[float, float]]:
    pixels, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    x, truth = torch.tensor(pixels[order] / 16).float(), torch.from_numpy(y[order])
    labelled = torch.rand(ROWS, generator=torch.Generator().manual_seed(seed)) < 0.2
    first = Training(x[:ROWS], truth[:ROWS], labelled & (truth[:ROWS] < OLD), half, seed)
    first.go_on(FIRST, WARM, fast=False)
    return {way: rounds(first.copy(), way, x[ROWS:], truth[ROWS:].numpy(), seed) for way in ways}


def measured(seeds: int, ways: tuple[str, ...], half: bool) -> dict[str, np.ndarray]:
    runs = [run(seed, ways, half) for seed in range(seeds)]
    return {way: np.array([one[way] for one in runs]) for way in ways}


def main() -> None:
    chosen = arguments(__doc__, seeds=10)
    found = measured(chosen.seeds, WAYS, half=True)
    alike = measured(chosen.seeds, WAYS[:2], half=False)
    for way, values in found.items():
        print(f"{way:18} new-class accuracy {shown(values[:, 0])}   coverage of round 1 {shown(values[:, 1])}")
    novel, random, margin, fast = (found[way] for way in WAYS)
    mean, low, _ = interval(novel[:, 0] - random[:, 0])
    came_out = mean >= 3 and low > 0 and float(novel[:, 1].mean()) >= 0.9
    record(
        "S137",
        ours=f"new-class accuracy {shown(novel[:, 0])} %, coverage of round 1 {shown(novel[:, 1])} %",
        baseline=f"random {shown(random[:, 0])} %, margin {shown(margin[:, 0])} %, names by the fast copy "
        f"{shown(fast[:, 0])} %",
        interval=f"against random {shown(novel[:, 0] - random[:, 0])}, against margin "
        f"{shown(novel[:, 0] - margin[:, 0])}, against names by the fast copy {shown(novel[:, 0] - fast[:, 0])}; "
        f"where rows are drawn alike, {shown(alike['novel'][:, 0])} against random {shown(alike['random'][:, 0])}, "
        f"{shown(alike['novel'][:, 0] - alike['random'][:, 0])} more",
        came_out=came_out,
        note="" if came_out else "asked: random + 3 and coverage of .9",
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
