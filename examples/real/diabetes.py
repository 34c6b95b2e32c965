"""How far a disease will have got in a year, learnt from ranges and 15 numbers.

    python examples/real/diabetes.py           # compare
    python examples/real/diabetes.py --write   # write the tables that diabetes.toml reads

The diabetes table of scikit-learn: 10 measurements of 442 patients, and the progression of the disease a year later.
Of 342 patients 15 have the number itself; the others are known to lie in a range, as a form with four boxes would say.
The ranges and the choice of patients are drawn here. Scored on the 100 other patients.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_diabetes

from anygrain.labels import Censored, Value
from anygrain.learn import Learner
from anygrain.metrics import mean_interval

SEEN, EXACT = 342, 15
CUTS = (-np.inf, 90.0, 140.0, 210.0, np.inf)


def tables(seed: int = 0) -> dict[str, np.ndarray]:
    """Measurements (442, 10), progression (442,), and what is known of it, NaN where nothing; 342 patients first."""
    features, progression = load_diabetes(return_X_y=True, scaled=False)
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(progression))
    features, progression = features[order], progression[order]
    value, low, high = (np.full(len(progression), np.nan) for _ in range(3))
    value[:EXACT] = progression[:EXACT]
    ranged = slice(EXACT, SEEN)
    box = np.searchsorted(CUTS, progression[ranged], side="right")
    low[ranged], high[ranged] = np.array(CUTS)[box - 1], np.array(CUTS)[box]
    return {"features": features, "progression": progression, "value": value, "low": low, "high": high}


def main() -> dict[str, float]:
    """Print and return the error (root mean square) on patients of whom nothing was known."""
    t = tables()
    x, truth = t["features"][:SEEN], t["progression"]
    x_new, new = t["features"][SEEN:], truth[SEEN:]
    value = Value(torch.from_numpy(t["value"][:SEEN]))
    ranges = Censored(torch.from_numpy(t["low"][:SEEN]), torch.from_numpy(t["high"][:SEEN]))
    found = {}
    print(f"error on {len(new)} new patients (root mean square, 95 %), and what 90 % intervals hold")
    for name, labels in {
        "values and ranges": value & ranges,
        "ranges alone": ranges,
        "15 values alone": value,
        "every number known (what can be reached)": Value(torch.from_numpy(truth[:SEEN])),
    }.items():
        learner = Learner(head="gaussian", seed=0).fit(x, labels)
        square = np.square(new - learner.predict(x_new))
        low, high = np.sqrt(mean_interval(square))
        ends = learner.predict_interval(x_new, coverage=0.9)
        held = np.mean((ends[:, 0] <= new) & (new <= ends[:, 1]))
        found[name] = float(np.sqrt(square.mean()))
        print(f"  {name:<42} {found[name]:5.1f} [{low:.1f}, {high:.1f}]   {100 * held:.0f} %")
    return found


def write(folder: Path) -> None:
    """The tables that diabetes.toml reads."""
    t = tables()
    names = load_diabetes().feature_names
    folder.mkdir(parents=True, exist_ok=True)

    def cell(number: float) -> str:
        return "" if not np.isfinite(number) else f"{number:g}"

    with (folder / "patients.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["patient", *names, "progression", "at_least", "at_most"])
        for at in range(SEEN):
            known = [cell(t[name][at]) for name in ("value", "low", "high")]
            out.writerow([f"p{at}", *(cell(v) for v in t["features"][at]), *known])
    with (folder / "new.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["patient", *names, "progression"])
        for at in range(SEEN, len(t["progression"])):
            out.writerow([f"p{at}", *(cell(v) for v in t["features"][at]), cell(t["progression"][at])])


if __name__ == "__main__":
    if "--write" in sys.argv:
        write(Path(__file__).with_name("diabetes"))
    else:
        main()
