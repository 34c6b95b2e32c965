"""Larger loops of overlapping sets: the error of damped belief propagation against enumeration.

Run from the root of the project: ``python -m benchmarks.labels.loops``. Components with at most 2**16 joint states are
enumerated by the library itself, so every case here has more than that, and at most 2**20.
"""

from pathlib import Path

import torch

from anygrain.labels import AnyOf, Bags, Counts, Labels, Pairs, check
from benchmarks.peers.results import write_section

SEEDS = 10


def sharp(n: int, k: int, truth: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Log-probabilities of a classifier that is right with about the given strength, in nats."""
    logits = torch.randn(n, k, dtype=torch.float64, generator=generator)
    return torch.log_softmax(logits + strength * torch.nn.functional.one_hot(truth, k), dim=1)


def pairs(n: int, k: int, m: int, error: float, truth: torch.Tensor, generator: torch.Generator) -> Labels:
    """Random pairs; every component is a tangle."""
    return Pairs.simulate(truth, k, generator=generator, n_pairs=m, error=error)


def bags(n: int, k: int, m: int, kind: type, truth: torch.Tensor, generator: torch.Generator) -> Labels:
    """Overlapping bags of 5."""
    members = torch.cat([torch.randperm(n, generator=generator)[:5] for _ in range(m)])
    sets = Bags(members, 5 * torch.arange(m + 1), n)
    inside = torch.nn.functional.one_hot(truth[members], k).reshape(m, 5, k).sum(1)
    if kind is AnyOf:
        return AnyOf(sets, inside[:, 0] > 0, 0, k)
    return Counts(sets, inside)


CASES = [
    ("pairs without error, 10 x 4", 10, 4, lambda t, g: pairs(10, 4, 14, 0.0, t, g)),
    ("pairs, error .1, 10 x 4", 10, 4, lambda t, g: pairs(10, 4, 14, 0.1, t, g)),
    ("pairs, error .3, 18 x 2", 18, 2, lambda t, g: pairs(18, 2, 27, 0.3, t, g)),
    ("any-of, 8 bags of 5, 18 x 2", 18, 2, lambda t, g: bags(18, 2, 8, AnyOf, t, g)),
    ("counts, 4 bags of 5, 18 x 2", 18, 2, lambda t, g: bags(18, 2, 4, Counts, t, g)),
    ("counts, 4 bags of 5, 12 x 3", 12, 3, lambda t, g: bags(12, 3, 4, Counts, t, g)),
]


def main() -> None:
    rows = [
        "| sets | classifier | exact | mean total variation | worst total variation | error of log P per component |",
        "|---|---|---|---|---|---|",
    ]
    for name, n, k, make in CASES:
        for strength in (0.0, 2.0):
            mean, worst, value, exact = [], [], [], 0
            for seed in range(SEEDS):
                generator = torch.Generator().manual_seed(seed)
                truth = torch.randint(k, (n,), generator=generator)
                labels = make(truth, generator)
                log_probs = sharp(n, k, truth, generator, strength)
                found = check(labels, log_probs)
                mean.append(found.variation[0])
                worst.append(found.variation[1])
                value.append(found.log_likelihood)
                exact += labels.exact
            word = "uninformed" if strength == 0 else "informed"
            rows.append(
                f"| {name} | {word} | {exact} of {SEEDS} | {sum(mean) / SEEDS:.4f} | {max(worst):.3f} | "
                f"{max(value):.3f} |"
            )
            print(rows[-1], flush=True)
    text = "## Loops too large to enumerate\n\nDamped belief propagation against brute force, float64, "
    text += f"{SEEDS} draws a row; log P relative to max(1, |log P|), the worst.\n\n" + "\n".join(rows)
    write_section("loops", text, path=Path(__file__).with_name("RESULTS.md"))


if __name__ == "__main__":
    main()
