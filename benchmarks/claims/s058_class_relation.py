"""S058: new digits beside known ones, with and without what a teacher says of the known ones.

    python benchmarks/claims/s058_class_relation.py

Digits 0 to 4 labelled, 5 to 9 not; 1,200 rows. New-class accuracy of the rows without labels under the best matching
(task-aware, known classes left out), and of known classes on the other 597 rows.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from anygrain.discover import ClassRelationDistillation
from anygrain.discover.task import fixed_features
from anygrain.labels import Exact
from anygrain.metrics import hungarian_accuracy

KNOWN, RELATION = 5, 0.1


def main() -> None:
    chosen = arguments(__doc__, seeds=5)
    pixels, y = load_digits(return_X_y=True)
    x = torch.tensor(pixels / 16).float()
    new_of: dict[str, list[float]] = {}
    known_of: dict[str, list[float]] = {}
    for seed in range(chosen.seeds):
        order = np.random.default_rng(seed).permutation(len(x))
        train, test = order[:1200], order[1200:]
        fresh = y[train] >= KNOWN
        labels = Exact(torch.tensor(np.where(fresh, -1, y[train])), KNOWN)
        for way, relation in (("relation", RELATION), ("none", 0.0)):
            model = ClassRelationDistillation(relation=relation, only_new=True, seed=seed, bootstrap=0)
            model.fit(x[train], labels, 10)
            old = y[test] < KNOWN
            said = model.log_probs_[fresh][:, KNOWN:].argmax(axis=1)
            new_of.setdefault(way, []).append(hungarian_accuracy(said, y[train][fresh] - KNOWN).all)
            known_of.setdefault(way, []).append(float((model.predict(x[test][old]) == y[test][old]).mean()))
        with torch.no_grad():
            seen = model.teacher_.embed({"features": fixed_features(model.encoder_, x[train][fresh])}).numpy()
        cluster = KMeans(10 - KNOWN, n_init=10, random_state=seed).fit_predict(seen)
        new_of.setdefault("k-means", []).append(hungarian_accuracy(cluster, y[train][fresh] - KNOWN).all)
        print(f"seed {seed}", flush=True)
    new = {way: np.array(values) for way, values in new_of.items()}
    known = {way: np.array(values) for way, values in known_of.items()}
    gain, over, lost = (
        new["relation"] - new["none"],
        new["relation"] - new["k-means"],
        known["relation"] - known["none"],
    )
    record(
        "S058",
        ours=f"new {shown(new['relation'])}, known {shown(known['relation'])}",
        baseline=f"without the relation new {shown(new['none'])}, known {shown(known['none'])}; k-means on the "
        f"teacher's features {shown(new['k-means'])}",
        interval=f"over none {shown(gain)}, over k-means {shown(over)}; known {shown(lost)}",
        came_out=interval(gain)[0] >= 1 and interval(over)[0] >= 5 and interval(lost)[0] >= -1,
        note="mixes with near rows in place of shifted pictures",
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
