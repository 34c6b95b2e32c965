"""A class for every patient, learnt from one pair of numbers per clinic.

    python examples/fit/proportions_table.py           # compare
    python examples/fit/proportions_table.py --write   # write the tables that proportions_table.toml reads

The breast cancer table of scikit-learn: 30 measurements of cell nuclei, 569 patients. 400 of them are spread over 16
clinics (drawn here, with a share of malignant tumours between 5 and 95 percent), and of each clinic only the shares are
known. No patient's diagnosis is shown. Scored on the diagnoses of the 169 other patients.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from anygrain.labels import Bags, Proportions
from anygrain.learn import Learner
from anygrain.metrics import wilson_interval

CLASSES = ["malignant", "benign"]
CLINICS, SEEN = 16, 400


def patients(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measurements (569, 30), diagnoses (569,) and clinics (569,), -1 for patients of none."""
    features, diagnosis = load_breast_cancer(return_X_y=True)
    draw = np.random.default_rng(seed)
    share = np.linspace(0.05, 0.95, CLINICS)
    weight = np.where(diagnosis[:, None] == 0, share, 1 - share)
    at = weight.cumsum(axis=1) / weight.sum(axis=1, keepdims=True)
    clinic = (at < draw.random((len(diagnosis), 1))).sum(axis=1)
    clinic[draw.permutation(len(diagnosis))[SEEN:]] = -1
    return features, diagnosis, clinic


def shares(diagnosis: np.ndarray, clinic: np.ndarray) -> np.ndarray:
    """What the clinics tell: the share of each class, shape (16, 2)."""
    count = np.stack([np.bincount(clinic[(clinic >= 0) & (diagnosis == k)], minlength=CLINICS) for k in (0, 1)], axis=1)
    return count / count.sum(axis=1, keepdims=True)


def main() -> dict[str, float]:
    """Print and return the accuracy on patients that no clinic counted."""
    features, diagnosis, clinic = patients()
    told = shares(diagnosis, clinic)
    seen = clinic >= 0
    x, x_new, truth = features[seen], features[~seen], diagnosis[~seen]
    found = {}

    def score(name: str, predicted: np.ndarray) -> None:
        right = int((predicted == truth).sum())
        low, high = wilson_interval(right, len(truth))
        found[name] = right / len(truth)
        print(f"  {name:50} {found[name]:.3f} [{low:.3f}, {high:.3f}]", flush=True)

    print(f"accuracy on {len(truth)} patients; known: the shares of {CLINICS} clinics with {len(x)} patients")
    score("proportions", Learner(seed=0).fit(x, Proportions(Bags.from_ids(clinic[seen]), told)).predict(x_new))

    # the usual way out: every patient stands for the share of the clinic
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    weight = told[clinic[seen]].T.ravel()
    linear.fit(np.concatenate([x, x]), np.repeat([0, 1], len(x)), logisticregression__sample_weight=weight)
    score("each patient given the shares of the clinic", linear.predict(x_new))
    score(
        "each patient given the clinic's larger class", linear.fit(x, told.argmax(axis=1)[clinic[seen]]).predict(x_new)
    )
    score("every diagnosis known (what can be reached)", Learner(seed=0).fit(x, diagnosis[seen]).predict(x_new))
    return found


def write(folder: Path) -> None:
    """The same as tables: patients.csv (measurements, clinic) and clinics.csv (shares)."""
    features, diagnosis, clinic = patients()
    names = [name.replace(" ", "_") for name in load_breast_cancer().feature_names]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "patients.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["patient", "clinic", *names])
        for at in np.flatnonzero(clinic >= 0):
            out.writerow([f"p{at:03d}", f"clinic {clinic[at] + 1}", *(f"{v:.6g}" for v in features[at])])
    with (folder / "clinics.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["clinic", *CLASSES])
        for at, row in enumerate(shares(diagnosis, clinic)):
            out.writerow([f"clinic {at + 1}", *(f"{v:.6f}" for v in row)])


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        write(Path(__file__).parent / "proportions_table")
    else:
        main()
