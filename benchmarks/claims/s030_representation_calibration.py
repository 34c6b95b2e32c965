"""S030: RCAL on long-tailed digits with 30 % flipped labels.

    python benchmarks/claims/s030_representation_calibration.py

Class sizes fall from 120 to 6, labels flip to classes by their size; features are 16 principal components. Balanced
accuracy on 50 clean rows per class; logistic regression, plain and with class weights, reads out the same features.
"""

import numpy as np
from results import arguments, interval, record, shown
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score

from anygrain.learn import Learner
from anygrain.robust.representation_calibration import RepresentationCalibration


def data(seed: int) -> tuple[np.ndarray, ...]:
    """Training rows and their labels, test rows and their classes, the three rarest classes."""
    x, y = load_digits(return_X_y=True)
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(x))
    x, y = x[shuffled] / 16, y[shuffled]
    order = generator.permutation(10)
    test = np.concatenate([np.flatnonzero(y == c)[:50] for c in range(10)])
    rest = np.setdiff1d(np.arange(len(x)), test)
    sizes = {c: round(120 * 20 ** (-i / 9)) for i, c in enumerate(order)}
    train = np.concatenate([rest[y[rest] == c][: sizes[c]] for c in order])
    given = y[train].copy()
    share = np.bincount(given, minlength=10) / len(given)
    flipped = generator.random(len(given)) < 0.3
    given[flipped] = generator.choice(10, flipped.sum(), p=share)
    seen = PCA(16, random_state=0).fit(x[train])
    return seen.transform(x[train]), given, seen.transform(x[test]), y[test], order[7:]


def main() -> None:
    chosen = arguments(__doc__, seeds=20)
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(chosen.seeds):
        x, given, test, truth, rare = data(seed)
        models = {
            "logistic regression": LogisticRegression(max_iter=500),
            "class weights": LogisticRegression(max_iter=500, class_weight="balanced"),
            "calibrated": Learner(procedure=RepresentationCalibration(), seed=seed),
            "without outlier filter": Learner(procedure=RepresentationCalibration(0.0), seed=seed),
            "nothing borrowed": Learner(procedure=RepresentationCalibration(share=0.0), seed=seed),
        }
        for way, model in models.items():
            recall = recall_score(truth, model.fit(x, given).predict(test), average=None)
            found.setdefault(way, []).append((float(recall.mean()), float(recall[rare].mean())))
    table = {way: np.array(values) for way, values in found.items()}
    for way, values in table.items():
        print(f"{way:24} balanced {shown(values[:, 0])}   three rarest classes {shown(values[:, 1])}")
    ours = table["calibrated"]
    gain = ours - table["logistic regression"]
    beside = ours[:, 0] - table["class weights"][:, 0]
    filtered = ours[:, 0] - table["without outlier filter"][:, 0]
    record(
        "S030",
        ours=f"balanced {shown(ours[:, 0])}, three rarest {shown(ours[:, 1])}",
        baseline="; ".join(
            f"{way} {shown(table[way][:, 0])}, three rarest {shown(table[way][:, 1])}"
            for way in ("logistic regression", "class weights")
        ),
        interval=f"gain over plain {shown(gain[:, 0])}, on the three rarest {shown(gain[:, 1])}; over class weights "
        f"{shown(beside)}; of the outlier filter {shown(filtered)}",
        came_out=interval(gain[:, 0])[0] >= 5 and interval(gain[:, 1])[1] > 0 and interval(beside)[2] >= 0,
        note="" if interval(filtered)[1] > 0 else "the outlier filter itself gains nothing on these features",
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
