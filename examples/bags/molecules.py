"""Which molecules smell of musk, and which of their shapes makes it so: ten-fold cross-validation over molecules."""

from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from anygrain.bags import BagData
from anygrain.data.table import read_table
from anygrain.labels import AnyOf, Exact
from anygrain.learn import Learner

FOLDER = Path(__file__).parent / "molecules"


def read() -> tuple[BagData, np.ndarray]:
    """Bags of conformations, and whether each molecule smells of musk."""
    table = read_table(FOLDER / "molecules.parquet")
    bags = BagData.from_parquet(FOLDER / "molecules.parquet", "features", id="molecule")
    return bags, (table.strings("smell") == "musk").astype(int)


def of_molecules(train: BagData, y: np.ndarray, test: BagData) -> np.ndarray:
    """A row is a molecule."""
    return Learner(seed=0).fit(train, Exact(y, 2)).predict_proba(test)[:, 1]


def of_conformations(train: BagData, y: np.ndarray, test: BagData) -> np.ndarray:
    """A row is a conformation; a molecule smells if one of them does."""
    model = Learner(seed=0).fit(train.features, AnyOf(train.bags, torch.from_numpy(y), 1, 2))
    return model.predict_proba(test.features, unit="set", bags=test.bags)[:, 1]


def main(folds: int = 10) -> dict[str, tuple[float, float, float]]:
    """Accuracy, AUC and log loss of molecules that were not seen, by how they are seen."""
    bags, y = read()
    found = {}
    for name, way in (("a row is a molecule", of_molecules), ("a row is a conformation", of_conformations)):
        said = np.zeros(len(y))
        for train, test in StratifiedKFold(folds, shuffle=True, random_state=0).split(y, y):
            said[test] = way(bags[train], y[train], bags[test])
        found[name] = (float(np.mean((said > 0.5) == y)), roc_auc_score(y, said), log_loss(y, said))
    return found


if __name__ == "__main__":
    result = main()
    print("92 molecules, each answered by a model that had not seen it: accuracy, AUC, log loss")
    for name, numbers in result.items():
        print(f"  {name:<26}" + " ".join(f"{value:.3f}" for value in numbers))
