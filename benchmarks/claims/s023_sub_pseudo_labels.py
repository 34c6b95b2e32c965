"""S023: pretraining on pairs of weak label and teacher's guess, on digits.

    python benchmarks/claims/s023_sub_pseudo_labels.py

10 clean rows per class; the other training rows carry a weak label that is right with probability .5 and else a class
of a fixed table. Every way pretrains the same hidden layer and is read out by a linear probe on the clean rows.
"""

import numpy as np
import torch
from results import arguments, record, shown
from sklearn.datasets import load_digits

from anygrain.labels import Exact, Noisy
from anygrain.learn import Learner
from anygrain.robust.sub_pseudo_labels import SubPseudoLabels

CONFUSED = np.array([6, 7, 3, 8, 9, 3, 0, 1, 5, 4])  # what a digit is mistaken for
WAYS = {"grid": ("grid", 0), "agreement": ("agreement", 0), "density": ("density", 20)}


def data(seed: int) -> tuple[np.ndarray, ...]:
    """Training rows, clean and weak labels of them (-1: none), test rows and their classes."""
    x, y = load_digits(return_X_y=True)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(x))
    x, y = x[order] / 16, y[order]
    n = len(x) - 500
    clean = np.full(n, -1)
    for c in range(10):
        clean[np.flatnonzero(y[:n] == c)[:10]] = c
    weak = np.where(generator.random(n) < 0.5, y[:n], CONFUSED[y[:n]])
    return x[:n], clean, np.where(clean >= 0, -1, weak), x[n:], y[n:]


def main() -> None:
    chosen = arguments(__doc__, seeds=10)
    found: dict[str, list[float]] = {}
    for seed in range(chosen.seeds):
        x, clean, weak, test, truth = data(seed)
        exact = Exact(torch.tensor(clean), 10)
        teacher = Learner(head="mlp", seed=seed).fit(x[clean >= 0], clean[clean >= 0])
        probs = torch.tensor(teacher.predict_proba(x))
        guess = np.where(weak >= 0, probs.argmax(dim=1).numpy(), -1)
        found.setdefault("clean rows alone", []).append(float(teacher.score(test, truth)))
        ways: dict[str, tuple[SubPseudoLabels, np.ndarray]] = {
            way: (SubPseudoLabels(how, pairs, teacher=probs), weak) for way, (how, pairs) in WAYS.items()
        }
        for way, labels in {
            "weak labels": weak,
            "teacher's guesses": guess,
            "rows where both agree": np.where(weak == guess, weak, -1),
        }.items():  # a teacher that always agrees makes the labels themselves the classes to pretrain on
            ways[way] = SubPseudoLabels("grid", teacher=torch.eye(10)[torch.tensor(labels)]), labels
        for way, (procedure, labels) in ways.items():
            model = Learner(head="mlp", procedure=procedure, seed=seed)
            model.fit(x, exact & Noisy(torch.tensor(labels), 10))
            found.setdefault(way, []).append(float(model.score(test, truth)))
    for way, values in found.items():
        print(f"{way:24} {shown(values)}")
    best = max(WAYS, key=lambda way: np.mean(found[way]))
    others = ("weak labels", "teacher's guesses", "rows where both agree")
    gains = {way: np.array(found[best]) - found[way] for way in others}
    error = {way: gain.std(ddof=1) / np.sqrt(len(gain)) for way, gain in gains.items()}
    record(
        "S023",
        ours="; ".join(f"{way} {shown(found[way])}" for way in WAYS),
        baseline="; ".join(f"{way} {shown(found[way])}" for way in (*others, "clean rows alone")),
        interval=f"gain of {best} over " + "; ".join(f"{way} {shown(gain)}" for way, gain in gains.items()),
        came_out=all(gain.mean() >= error[way] for way, gain in gains.items()),
        note=f"best of three reductions, {best}; one standard error is "
        + ", ".join(f"{100 * e:.1f}" for e in error.values()),
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
