"""Which products hide in eight departments, and which new ones beside those that are known?

    python examples/discover/tickets.py           # compare
    python examples/discover/tickets.py --write   # write the table that tickets.toml reads

480 queries to an assistant about 24 products. The search is told the department of every query, or the product of ten
queries of each of 12 products; the true products serve to see how well it did.
"""

from __future__ import annotations

import csv
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from anygrain.discover import Discover, Revision
from anygrain.labels import Coarse, Exact
from anygrain.metrics.clustering import hungarian_accuracy

KNOWN, TOLD = 12, 10  # products that are known, and queries of each whose product is told


def read(name: str) -> dict[str, np.ndarray]:
    """The columns of one of the shipped tables."""
    with (files("anygrain.demo") / "tickets" / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {column: np.array([row[column] for row in rows], dtype=object) for column in rows[0]}


def tables(seed: int = 0) -> dict[str, np.ndarray]:
    """Row ids, texts, departments, products as far as they are known, and true products, (480,) each."""
    table, taxonomy = read("new.csv"), read("taxonomy.csv")
    department = dict(zip(taxonomy["product"], taxonomy["department"], strict=True))
    draw = np.random.default_rng(seed)
    known = draw.choice(np.array(sorted(department), dtype=object), KNOWN, replace=False)
    told = np.full(len(table["product"]), "", dtype=object)
    for product in sorted(known):
        rows = draw.choice(np.flatnonzero(table["product"] == product), TOLD, replace=False)
        told[rows] = product
    departments = np.array([department[product] for product in table["product"]], dtype=object)
    return {
        "id": table["id"],
        "text": table["text"],
        "department": departments,
        "told": told,
        "product": table["product"],
    }


def main() -> dict[str, float]:
    """Print and return what was found."""
    table = tables()
    texts, truth = table["text"].tolist(), table["product"]
    codes = np.unique(truth.astype(str), return_inverse=True)[1]
    places, department = np.unique(table["department"].astype(str), return_inverse=True)
    coarse = Coarse(torch.from_numpy(department), torch.eye(len(places)), class_names=places.tolist())
    three = dict.fromkeys(places.tolist(), 3)
    below = Discover("mixture", seed=0).fit(texts, coarse, three)
    numbers = {"department only, all": hungarian_accuracy(below.labels_, codes).all}

    # a person looks at the classes: those that are nearly pure get a name, all others stay open
    revision = Revision.of(below, texts)
    for k in range(below.n_classes_):
        products, count = np.unique(truth[below.labels_ == k].astype(str), return_counts=True)
        if count.max(initial=0) >= 0.9 * count.sum():
            name = str(products[count.argmax()])
            if name not in [line.name for line in revision.lines]:
                revision = revision.accept(k, name)
    again = Discover("mixture", seed=0).fit(texts, revision.evidence(coarse), revision.n_classes)
    numbers["classes accepted"] = float(len(revision.kept))
    numbers["the same after these were accepted"] = hungarian_accuracy(again.labels_, codes).all

    names = sorted({name for name in table["told"].tolist() if name})
    y = [names.index(name) if name else -1 for name in table["told"].tolist()]
    labels = Exact(torch.tensor(y), len(names), class_names=names)
    beside = Discover("mixture", seed=0).fit(texts, labels, 24)
    rest = table["told"] == ""
    known = np.unique(codes[~rest])
    found = hungarian_accuracy(beside.labels_[rest], codes[rest], known)
    numbers |= {f"12 known, {name}": getattr(found, name) for name in ("all", "old", "new")}
    for name, value in numbers.items():
        print(f"  {name:<38}{value:.3f}" if value <= 1 else f"  {name:<38}{value:.0f}")
    return numbers


def write(folder: Path) -> None:
    """Write the table for the program."""
    table = tables()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "queries.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(table)
        rows.writerows(zip(*table.values(), strict=True))


if __name__ == "__main__":
    write(Path(__file__).with_name("tickets")) if "--write" in sys.argv else main()
