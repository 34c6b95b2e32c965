"""Which of 480 labels are wrong? One in ten was changed here, half of them to a neighbour in the same department.

    python examples/audit/tickets.py           # compare
    python examples/audit/tickets.py --write   # write the table that tickets.toml reads

Queries to an assistant and their products, 24 of them. Which labels are changed, and to what, is drawn here; who made
the audit does not know.
"""

from __future__ import annotations

import csv
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from anygrain.audit import audit
from anygrain.learn import Learner

CHANGED = 48


def read(name: str) -> dict[str, np.ndarray]:
    """The columns of one of the shipped tables."""
    with (files("anygrain.demo") / "tickets" / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {column: np.array([row[column] for row in rows], dtype=object) for column in rows[0]}


def tables(seed: int = 0) -> dict[str, np.ndarray]:
    """Row ids, texts, true products, and products as labelled, (480,) each."""
    table, taxonomy = read("new.csv"), read("taxonomy.csv")
    department = dict(zip(taxonomy["product"], taxonomy["department"], strict=True))
    products = np.array(sorted(department), dtype=object)
    draw = np.random.default_rng(seed)
    truth, given = table["product"], table["product"].copy()
    for at, row in enumerate(draw.choice(len(truth), CHANGED, replace=False).tolist()):
        near = at % 2 == 0  # a neighbour in the department, or any product
        others = [p for p in products if p != truth[row] and (not near or department[p] == department[truth[row]])]
        given[row] = draw.choice(others)
    return {"id": table["id"], "text": table["text"], "truth": truth, "product": given}


def main() -> dict[str, float]:
    """Print and return what was found."""
    table = tables()
    wrong = table["product"] != table["truth"]
    learner = Learner(seed=0).fit(table["text"], table["product"])
    found = audit(learner, table["text"])
    flagged = found.looks_wrong
    best = np.asarray(found.class_names, dtype=object)[found.posterior.argmax(axis=1)]
    given = np.searchsorted(np.asarray(found.class_names, dtype=object), table["product"])
    plain = 1 - np.exp(found.log_probs)[np.arange(len(given)), given]
    numbers = {
        "labels that are wrong": float(wrong.sum()),
        "expected to be wrong": float(found.prob_wrong.sum()),
        "named as wrong": float(flagged.sum()),
        "of these, wrong": float((flagged & wrong).sum()),
        "wrong ones with the right product proposed": float((flagged & wrong & (best == table["truth"])).sum()),
        "average precision": average_precision_score(wrong, found.prob_wrong),
        "average precision of 1 - p(label)": average_precision_score(wrong, plain),
    }
    for name, value in numbers.items():
        print(f"  {name:44} {value:6.3f}" if name.startswith("average") else f"  {name:44} {value:6.1f}")
    return numbers


def write(folder: Path) -> None:
    """The table that tickets.toml reads, without the truth."""
    table = tables()
    with (folder / "queries.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["id", "text", "product"])
        out.writerows(zip(table["id"], table["text"], table["product"], strict=True))


if __name__ == "__main__":
    if "--write" in sys.argv:
        write(Path(__file__).with_suffix(""))
    else:
        main()
