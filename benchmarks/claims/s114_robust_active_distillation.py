"""S114: which rows to send to a teacher that is wrong about two rows in five.

    python benchmarks/claims/s114_robust_active_distillation.py

Digits with pixel noise; the teacher is a random forest on 60 labelled rows, the student logistic regression on the same
60 rows and on 200 of the teacher's answers, asked for in four rounds. Accuracy of the student on other digits, and the
share of wrong answers among those asked for.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_predict

from anygrain.audit.ask import choose

LABELLED, POOL, ROUNDS, PER_ROUND = 60, 1200, 4, 50
WAYS = ("robust", "random", "margin")


def student(x: np.ndarray, target: np.ndarray) -> LogisticRegression:
    """Logistic regression on soft targets (n, 10): every row once per class, weighted by its share."""
    n, k = target.shape
    rows, weight = np.repeat(np.arange(n), k), target.ravel()
    kept = weight > 1e-6
    model = LogisticRegression(max_iter=300)
    return model.fit(x[rows[kept]], np.tile(np.arange(k), n)[kept], sample_weight=weight[kept])


def run(way: str, seed: int) -> tuple[float, float]:
    """Accuracy of the student, and the share of wrong answers."""
    generator = np.random.default_rng(seed)
    x, y = load_digits(return_X_y=True)
    x = x / 16 + generator.normal(scale=0.25, size=x.shape)
    order = generator.permutation(len(x))
    known, pool, test = order[:LABELLED], order[LABELLED : LABELLED + POOL], order[LABELLED + POOL :]
    forest = RandomForestClassifier(200, random_state=seed)
    unseen = cross_val_predict(forest, x[known], y[known], cv=KFold(10))  # the labelled rows tell how often it errs
    error = float((unseen != y[known]).mean())
    teacher = forest.fit(x[known], y[known])
    answers = np.zeros((len(x), 10))
    answers[:, teacher.classes_] = teacher.predict_proba(x)
    asked = np.zeros(len(pool), dtype=bool)
    truth = np.eye(10)[y]
    for round in range(ROUNDS):
        rows = np.concatenate([known, pool[asked]])
        model = student(x[rows], np.concatenate([truth[known], answers[pool[asked]]]))
        log_probs = torch.full((len(pool), 10), -30.0, dtype=torch.double)
        log_probs[:, model.classes_] = torch.from_numpy(model.predict_log_proba(x[pool]))
        by = {"robust": "distillation"}.get(way, way)
        found = choose(log_probs, PER_ROUND, by=by, may_ask=~asked, teacher_error=error, seed=100 * seed + round)
        asked[found.rows.numpy()] = True
    assert asked.sum() == ROUNDS * PER_ROUND
    rows = np.concatenate([known, pool[asked]])
    model = student(x[rows], np.concatenate([truth[known], answers[pool[asked]]]))
    wrong = answers[pool[asked]].argmax(axis=1) != y[pool[asked]]
    return float(model.score(x[test], y[test])), float(wrong.mean())


def main() -> None:
    chosen = arguments(__doc__, seeds=24)
    found = {way: np.array([run(way, seed) for seed in range(chosen.seeds)]) for way in WAYS}
    for way, values in found.items():
        print(f"{way:8} accuracy {shown(values[:, 0])}   wrong answers {shown(values[:, 1])}")
    robust, random, margin = (found[way] for way in WAYS)
    to_random, to_margin = robust[:, 0] - random[:, 0], robust[:, 0] - margin[:, 0]
    share = float(robust[:, 1].mean() / random[:, 1].mean())
    came_out = interval(to_random)[0] >= 0.5 and interval(to_margin)[0] >= 2 and share <= 0.8
    record(
        "S114",
        ours=f"student {shown(robust[:, 0])} %, wrong answers {shown(robust[:, 1])} %",
        baseline=f"random {shown(random[:, 0])} % (wrong {shown(random[:, 1])} %), margin {shown(margin[:, 0])} % "
        f"(wrong {shown(margin[:, 1])} %)",
        interval=f"against random {shown(to_random)}, against margin {shown(to_margin)}",
        came_out=came_out,
        note="" if came_out else "asked: random + .5, margin + 2, at most .8 of the wrong answers of random rows",
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
