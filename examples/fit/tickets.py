"""Fine classes of short texts from coarse labels, annotators who disagree, and 60 exact labels.

    python examples/fit/tickets.py

1 200 queries to an assistant. A department (one of 8) is known for all of them, votes of three annotators for one of
24 products for 702, the product itself for 60. Which product is a query about? Scored on 480 other queries.
"""

from __future__ import annotations

import csv
import time
from importlib.resources import as_file, files

import numpy as np
from sklearn.linear_model import LogisticRegression

from anygrain.labels import Coarse, Crowd, Exact, Taxonomy, aggregate
from anygrain.learn import Learner
from anygrain.metrics import wilson_interval

WORKERS = ["worker_1", "worker_2", "worker_3"]


def read(name: str) -> dict[str, np.ndarray]:
    """The columns of one of the shipped tables."""
    with (files("anygrain.demo") / "tickets" / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {column: np.array([row[column] for row in rows], dtype=object) for column in rows[0]}


def main() -> dict[str, float]:
    """Print and return the accuracy on queries that carry no label, for more and more evidence."""
    frame, new = read("tickets.csv"), read("new.csv")
    with as_file(files("anygrain.demo") / "tickets" / "taxonomy.csv") as path:
        taxonomy = Taxonomy.from_csv(path)
    exact = Exact.from_frame(frame, "product", taxonomy=taxonomy)
    coarse = Coarse.from_frame(frame, "department", taxonomy=taxonomy)
    crowd = Crowd.from_frame(frame, WORKERS, taxonomy=taxonomy)

    found = {}

    def score(name: str, predicted: np.ndarray, started: float) -> None:
        right = int((predicted == new["product"]).sum())
        low, high = wilson_interval(right, len(predicted))
        found[name] = right / len(predicted)
        seconds = time.perf_counter() - started
        print(f"  {name:34} {found[name]:.3f} [{low:.3f}, {high:.3f}] {seconds:6.1f} s", flush=True)

    print(f"accuracy on {len(new['text'])} new queries, {len(taxonomy.classes)} products")
    started = time.perf_counter()
    learner = Learner(seed=0).fit(frame["text"], exact & coarse & crowd)
    score("exact, department and votes", learner.predict(new["text"]), started)

    # the same features for the others: without the rows that carry no label of the kind
    features, new_features = learner.transform(frame["text"]), learner.transform(new["text"])
    started = time.perf_counter()
    known = frame["product"] != ""
    alone = LogisticRegression(C=100, max_iter=1000).fit(features[known], frame["product"][known].astype(str))
    score("exact rows alone", alone.predict(new_features), started)

    started = time.perf_counter()
    voted = np.any([frame[w] != "" for w in WORKERS], axis=0)
    answer = np.array(taxonomy.classes)[aggregate(crowd).posterior.argmax(dim=1).numpy()]
    alone = LogisticRegression(C=100, max_iter=1000).fit(features[voted], answer[voted])
    score("votes alone, the likeliest as true", alone.predict(new_features), started)
    return found


if __name__ == "__main__":
    main()
