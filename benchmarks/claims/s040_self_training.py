"""S040: self-training from three labels per digit class, with the thresholds of the survey.

    python benchmarks/claims/s040_self_training.py

Two base learners, a random forest and logistic regression; every threshold sees the same splits. Accuracy on held-out
digits against the supervised model on the same 30 labels. Then two overlapping Gaussians, where nothing can be gained,
and the relatives: co-training, tri-training, label propagation and a transductive margin on a linear head.
"""

from collections.abc import Callable

import numpy as np
from results import arguments, interval, record, shown
from scipy.stats import wilcoxon
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from anygrain.learn import Learner
from anygrain.learn.procedure import Procedure
from anygrain.robust.co_training import CoTraining
from anygrain.robust.label_propagation import LabelPropagation
from anygrain.robust.self_training import Handling, SelfTraining, SelfTrainingClassifier
from anygrain.robust.thresholds import Adaptive, Curriculum, Fixed, MarginBound, PlugInError, Threshold, TopPerClass
from anygrain.robust.transductive_svm import TransductiveSVM
from anygrain.robust.tri_training import TriTraining

ALIGNED = Handling(align=True)
WAYS: dict[str, tuple[Threshold, Handling]] = {
    "supervised": (Fixed(2.0), Handling()),
    "fixed .95": (Fixed(0.95), Handling()),
    "curriculum as published": (Curriculum(0.2), Handling()),
    "curriculum": (Curriculum(0.2, "margin"), ALIGNED),
    "margin bound": (MarginBound(), ALIGNED),
    "top per class": (TopPerClass(20, "margin"), ALIGNED),
    "plug-in error": (PlugInError(0.1), ALIGNED),
    "adaptive": (Adaptive(0.9), ALIGNED),
}
BASES = {
    "forest": lambda seed: RandomForestClassifier(50, random_state=seed),
    "logistic": lambda seed: LogisticRegression(max_iter=300),
}
RELATIVES: dict[str, Callable[[], Procedure]] = {
    "supervised": lambda: SelfTraining(Fixed(2.0)),
    "self-training": lambda: SelfTraining(rounds=6),
    "co-training": lambda: CoTraining(rounds=6),
    "tri-training": lambda: TriTraining(rounds=6),
    "label propagation": LabelPropagation,
    "transductive margin": TransductiveSVM,
}


def digits(seed: int) -> tuple[np.ndarray, ...]:
    """Training rows, their three labels per class and -1 elsewhere, test rows and their classes."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order] / 16, y[order]
    given = np.full(len(x) - 500, -1)
    for c in range(10):
        given[np.flatnonzero(y[500:] == c)[:3]] = c
    return x[500:], given, x[:500], y[:500]


def overlapping(seed: int) -> tuple[np.ndarray, ...]:
    """Two Gaussians one standard deviation apart: no gap for a boundary to move to."""
    generator = np.random.default_rng(seed)
    y = generator.integers(2, size=1500)
    x = generator.normal(size=(1500, 2)) + y[:, None] * np.array([1.0, 0.0])
    given = np.full(1000, -1)
    for c in range(2):
        given[np.flatnonzero(y[:1000] == c)[:10]] = c
    return x[:1000], given, x[1000:], y[1000:]


def accuracy(data: tuple[np.ndarray, ...], base: str, way: str, seed: int) -> float:
    """On the test rows, after self-training of a base learner."""
    x, given, test, truth = data
    threshold, handling = WAYS[way]
    model = SelfTrainingClassifier(BASES[base](seed), threshold, rounds=6, handling=handling, seed=seed).fit(x, given)
    return float((model.predict(test) == truth).mean())


def of_relative(data: tuple[np.ndarray, ...], way: str, seed: int) -> float:
    """Accuracy on the test rows of a linear head."""
    x, given, test, truth = data
    return float(Learner(procedure=RELATIVES[way](), seed=seed).fit(x, given).score(test, truth))


def main() -> None:
    chosen = arguments(__doc__, seeds=20)
    seeds = range(chosen.seeds)
    found = {
        (base, way): np.array([accuracy(digits(seed), base, way, seed) for seed in seeds])
        for base in BASES
        for way in WAYS
    }
    gains = {key: value - found[key[0], "supervised"] for key, value in found.items()}
    for key, value in found.items():
        print(f"{key[0]:9} {key[1]:24} {shown(value)}   gain {shown(gains[key])}")
    nothing = {
        way: np.array(
            [
                accuracy(overlapping(s), "logistic", way, s) - accuracy(overlapping(s), "logistic", "supervised", s)
                for s in seeds
            ]
        )
        for way in ("curriculum", "margin bound")
    }
    for way, value in nothing.items():
        print(f"overlapping Gaussians, {way}: gain {shown(value)}")
    others = {way: np.array([of_relative(digits(s), way, s) for s in seeds]) for way in RELATIVES}
    gained_by = {way: value - others["supervised"] for way, value in others.items() if way != "supervised"}
    for way, value in gained_by.items():
        print(f"linear    {way:24} {shown(others[way])}   gain {shown(value)}")
    dynamic = [(base, way) for base in BASES for way in ("curriculum", "margin bound")]
    gained = all(gains[key].mean() >= 0.02 and wilcoxon(gains[key]).pvalue < 0.05 for key in dynamic)
    harmless = all(interval(gains[base, "fixed .95"])[2] >= 0 for base in BASES)
    none = all(interval(value)[1] <= 0 for value in nothing.values())
    record(
        "S040",
        ours="; ".join(f"{way} on {base} {shown(found[base, way])}" for base, way in dynamic),
        baseline="; ".join(f"supervised on {base} {shown(found[base, 'supervised'])}" for base in BASES),
        interval="gain: "
        + "; ".join(f"{way} on {base} {shown(gains[base, way])}" for base, way in dynamic)
        + "; fixed .95 "
        + ", ".join(f"{base} {shown(gains[base, 'fixed .95'])}" for base in BASES)
        + "; overlapping Gaussians "
        + ", ".join(f"{way} {shown(value)}" for way, value in nothing.items()),
        came_out=gained and harmless and none,
        note="with votes aligned to the class shares of the labelled rows; the curriculum as published gains "
        + " and ".join(f"{shown(gains[base, 'curriculum as published'])} on {base}" for base in BASES)
        + f"; gains on a linear head (supervised {shown(others['supervised'])}): "
        + ", ".join(f"{way} {shown(value)}" for way, value in gained_by.items()),
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
