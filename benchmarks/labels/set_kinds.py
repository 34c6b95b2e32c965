"""Kinds of label for whole sets: the error of the named approximations, and speed beside a plain recursion per bag.

Run from the root of the project: ``python -m benchmarks.labels.set_kinds``. Errors are measured on sets that are too
large for the exact way by default, but not for the exact way at all.
"""

import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from anygrain.labels import class_sums, distinct, plurality
from anygrain.labels.automata import Machine
from anygrain.labels.class_sums import Reading, SumPlan
from anygrain.labels.counting import range_counts
from anygrain.labels.distinct import DistinctPlan
from anygrain.labels.plurality import PluralityPlan
from anygrain.labels.segments import Segments
from benchmarks.peers.results import write_section

Found = tuple[Tensor, Tensor]


def sets_of(m: int, n: int, k: int, strength: float, seed: int) -> tuple[Segments, Tensor, Tensor]:
    """M sets of n members: log-probabilities (E, K) of a classifier of the given strength, in nats, and the truth."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.softmax(0.5 * torch.randn(m, k, generator=generator), dim=1)
    truth = torch.multinomial(shares, n, replacement=True, generator=generator).reshape(-1)
    logits = torch.randn(m * n, k, dtype=torch.float64, generator=generator)
    log_p = torch.log_softmax(logits + strength * torch.nn.functional.one_hot(truth, k), dim=1)
    return Segments(n * torch.arange(m + 1)), log_p, truth.view(m, n)


def winners(truth: Tensor, k: int) -> Tensor:
    counts = torch.nn.functional.one_hot(truth, k).sum(dim=1)
    return (counts + 0.1 * torch.rand(counts.shape, generator=torch.Generator().manual_seed(0))).argmax(dim=1)


# -- errors -----------------------------------------------------------------------------------------------------------


def both_majorities(n: int, k: int, strength: float, seed: int) -> tuple[Tensor, Found, Found]:
    segments, log_p, truth = sets_of(10, n, k, strength, seed)
    winner = winners(truth, k)
    near = PluralityPlan(segments, k)
    assert not near.exact
    with mock.patch.object(plurality, "LIMIT", 10**8):
        exact = PluralityPlan(segments, k).find(log_p, winner)
    return log_p, exact, near.find(log_p, winner)


def both_distinct(n: int, k: int, strength: float, seed: int) -> tuple[Tensor, Found, Found]:
    segments, log_p, truth = sets_of(10, n, k, strength, seed)
    number = torch.nn.functional.one_hot(truth, k).amax(dim=1).sum(dim=1)
    near = DistinctPlan(segments, k)
    assert not near.exact
    with mock.patch.object(distinct, "SUBSETS", k):
        exact = DistinctPlan(segments, k).find(log_p, number)
    return log_p, exact, near.find(log_p, number)


def both_sums(n: int, k: int, strength: float, seed: int) -> tuple[Tensor, Found, Found]:
    segments, log_p, truth = sets_of(10, n, k, strength, seed)
    reading = Reading(truth.sum(dim=1).double(), torch.zeros(10), torch.full((10,), 0.49))
    values = torch.arange(k, dtype=torch.float64)
    with mock.patch.object(class_sums, "LIMIT", 0):
        near = SumPlan(segments, values)
    assert not near.exact
    with mock.patch.object(class_sums, "LIMIT", 10**9):
        exact = SumPlan(segments, values).find(log_p, reading)
    return log_p, exact, near.find(log_p, reading)


def off_grid(n: int, k: int, strength: float, seed: int) -> tuple[Tensor, Found, Found]:
    """Values off a grid, moved to 512 steps, against 16 384 steps."""
    segments, log_p, truth = sets_of(10, n, k, strength, seed)
    value = torch.rand(k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    value = (value - value.min()) / (value.max() - value.min())
    total = value[truth].sum(dim=1)
    found = []
    for steps in (16_384, 512):
        scale = float(steps)
        reading = Reading(total * scale, torch.full((10,), 0.05 * scale), torch.zeros(10))
        with mock.patch.object(class_sums, "LIMIT", 10**9):
            of_sets, said = SumPlan(segments, (value * scale).round()).find(log_p, reading)
        density = torch.log(torch.tensor(scale))
        found.append((of_sets + density, said + density))
    return log_p, found[0], found[1]


ERRORS: list[tuple[str, int, int, Callable[[int, int, float, int], tuple[Tensor, Found, Found]]]] = [
    ("Majority, 11 members of 10 classes", 11, 10, both_majorities),
    ("Majority, 30 members of 5 classes", 30, 5, both_majorities),
    ("Majority, 50 members of 4 classes", 50, 4, both_majorities),
    ("Majority, 150 members of 3 classes", 150, 3, both_majorities),
    ("distinct classes, 5 members of 13", 5, 13, both_distinct),
    ("distinct classes, 20 members of 13", 20, 13, both_distinct),
    ("Aggregate, sum of 10 members of 10 classes, normal", 10, 10, both_sums),
    ("Aggregate, sum of 100 members of 10 classes, normal", 100, 10, both_sums),
    ("Aggregate, sum of 400 members of 10 classes, normal", 400, 10, both_sums),
    ("Aggregate, 10 members of 5 classes off a grid, noise .05", 10, 5, off_grid),
]


def errors() -> str:
    rows = [
        "| set | classifier | posterior moved by | mean total variation | worst | error of log P: mean | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, n, k, both in ERRORS:
        for strength in (0.0, 2.0, 4.0):
            moved, apart, miss = [], [], []
            for seed in range(2):
                log_p, exact, near = both(n, k, strength, seed)
                q, r = torch.softmax(log_p + exact[1], dim=1), torch.softmax(log_p + near[1], dim=1)
                moved.append((q - log_p.exp()).abs().sum(dim=1) / 2)
                apart.append((q - r).abs().sum(dim=1) / 2)
                miss.append((exact[0] - near[0]).abs())
            by, tv, error = torch.cat(moved), torch.cat(apart), torch.cat(miss)
            word = {0.0: "uninformed", 2.0: "informed", 4.0: "sharp"}[strength]
            rows.append(
                f"| {name} | {word} | {float(by.mean()):.3f} | {float(tv.mean()):.4f} | {float(tv.max()):.3f} | "
                f"{float(error.mean()):.3f} | {float(error.max()):.3f} |"
            )
            print(rows[-1], flush=True)
    return "\n".join(rows)


# -- speed ------------------------------------------------------------------------------------------------------------


def plain_range(log_p: Tensor, n: int, low: int) -> None:
    """P(at least `low`) of each bag and its gradient: the recursion over members, bag by bag, as one would write it."""
    for bag in log_p.split(n):
        p = bag.exp().requires_grad_(True)
        law = torch.zeros(low + 1, dtype=p.dtype)
        law[0] = 1.0
        for yes in p[:, 1]:
            up = torch.cat([law.new_zeros(1), law[:-1]])
            stay = torch.cat([law[:-1] * (1 - yes), law[-1:]])
            law = stay + up * yes
        torch.autograd.grad(law[-1].log(), p)


def plain_majority(log_p: Tensor, n: int) -> None:
    """P(the first of two classes wins), the same way."""
    plain_range(log_p, n, n // 2 + 1)


def plain_automaton(log_p: Tensor, n: int, table: Tensor) -> None:
    """Forward pass over a transition table and its gradient, bag by bag."""
    for bag in log_p.split(n):
        p = bag.exp().requires_grad_(True)
        state = torch.zeros(len(table), dtype=p.dtype)
        state[0] = 1.0
        total = torch.zeros((), dtype=p.dtype)
        for row in p:
            state = torch.einsum("s,k,skt->t", state, row, table)
            total = total + state.sum().log()
            state = state / state.sum()
        torch.autograd.grad(total + state[1].log(), p)


def seconds(run: Callable[[], object], times: int) -> float:
    spent = []
    for _ in range(times):
        begun = time.process_time()
        run()
        spent.append(time.process_time() - begun)
    return min(spent)


def speed() -> str:
    rows = [
        "| kernel | members of a bag | bags | ours | recursion per bag | ratio |",
        "|---|---|---|---|---|---|",
    ]
    table = torch.softmax(torch.randn(4, 2, 4, generator=torch.Generator().manual_seed(0)).double(), dim=2)
    machine = Machine.of(table)
    for n, bags, plain_bags in ((100, 200, 20), (1_000, 20, 4), (10_000, 4, 1)):
        segments, log_p, _ = sets_of(bags, n, 2, 1.0, 0)
        low = torch.full((bags, 1), n // 2)
        high = torch.full((bags, 1), n)
        zero = torch.zeros(bags, dtype=torch.long)
        ours = {
            "Between": lambda s=segments, p=log_p, a=low, b=high: range_counts(p[:, 1:], p[:, :1], s, a, b),
            "Majority, 2 classes": lambda s=segments, p=log_p, w=zero: PluralityPlan(s, 2).find(p, w),
            "Automaton, 4 states": lambda s=segments, p=log_p, m=bags: machine.read(
                p, s, torch.eye(4).double()[0].log(), torch.eye(4).double()[1].log().expand(m, -1)
            ),
        }
        few = log_p[: plain_bags * n]
        plain = {
            "Between": lambda p=few, n=n: plain_range(p, n, n // 2),
            "Majority, 2 classes": lambda p=few, n=n: plain_majority(p, n),
            "Automaton, 4 states": lambda p=few, n=n: plain_automaton(p, n, table),
        }
        for name in ours:
            mine = seconds(ours[name], 3) / bags
            theirs = seconds(plain[name], 1) / plain_bags
            rows.append(
                f"| {name} | {n:,} | {bags} | {1e3 * mine:.2f} ms | {1e3 * theirs:.1f} ms | {theirs / mine:.0f} |"
            )
            print(rows[-1], flush=True)
    return "\n".join(rows)


def main() -> None:
    text = (
        "## Labels of whole sets: approximations\n\nTwenty sets a row, float64, against the exact way with its limit "
    )
    text += "lifted. The third column is the mean total variation between posterior and classifier: what there is to "
    text += "get right. Errors of log P in nats.\n\n" + errors()
    text += (
        "\n\n### Speed\n\nLikelihood and posterior of one bag, float64, process time: ours on all bags at once beside "
    )
    text += "the recursion over members with automatic differentiation, bag by bag.\n\n" + speed()
    write_section("set_kinds", text, path=Path(__file__).with_name("RESULTS.md"))


if __name__ == "__main__":
    main()
