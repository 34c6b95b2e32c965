"""Messages that ask several things at once, of which three tags of eight were looked at.

    python examples/tags/messages.py           # compare
    python examples/tags/messages.py --write   # write the tables that messages.toml reads

Each message joins one to three queries to an assistant, of different departments; the departments are its tags. Of each
of 400 messages somebody was asked about three departments, drawn at random; of the others nothing is known. Queries and
departments are real; which ones meet in a message, and what was asked, is drawn here. Scored on 200 other messages.
"""

from __future__ import annotations

import csv
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from anygrain.labels import Tags
from anygrain.learn import Learner
from anygrain.metrics import mean_average_precision

SEEN, NEW, ASKED, RESAMPLES = 400, 200, 3, 100


def read(name: str) -> dict[str, np.ndarray]:
    """The columns of one of the shipped tables."""
    with (files("anygrain.demo") / "tickets" / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {column: np.array([row[column] for row in rows], dtype=object) for column in rows[0]}


def joined(
    text: np.ndarray, department: np.ndarray, names: list[str], n: int, draw: np.random.Generator
) -> tuple[list[str], np.ndarray]:
    """n messages, and which departments they are for, bool (n, L)."""
    queries = {name: text[department == name] for name in names}
    truth = np.zeros((n, len(names)), dtype=bool)
    out = []
    for at in range(n):
        chosen = draw.choice(len(names), draw.integers(1, 4), replace=False)
        truth[at, chosen] = True
        out.append(". ".join(str(draw.choice(queries[names[tag]])) for tag in chosen))
    return out, truth


def tables(seed: int = 0) -> tuple[list[str], list[str], np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Departments (L,), messages, their tags, and those that were asked for, bool; new messages, and their tags."""
    old, new, taxonomy = read("tickets.csv"), read("new.csv"), read("taxonomy.csv")
    of_product = dict(zip(taxonomy["product"], taxonomy["department"], strict=True))
    names = sorted(set(of_product.values()))
    draw = np.random.default_rng(seed)
    texts, truth = joined(old["text"], old["department"], names, SEEN, draw)
    asked = np.argsort(draw.random(truth.shape), axis=1) < ASKED
    of_new = np.array([of_product[product] for product in new["product"]], dtype=object)
    return names, texts, truth, asked, *joined(new["text"], of_new, names, NEW, draw)


def main() -> dict[str, float]:
    """Print and return the mean average precision on messages of which nothing was known."""
    names, texts, truth, asked, new, of_new = tables()
    known = np.where(asked, truth, -1)
    found = {}
    rows = np.random.default_rng(0).integers(0, NEW, (RESAMPLES, NEW))
    print(f"mean average precision on {NEW} new messages, {len(names)} tags")
    for name, table in {
        f"{ASKED} tags of each message": known,
        "the same, all others taken to be absent": np.where(asked, truth, 0),
        "every tag known (what can be reached)": truth.astype(int),
    }.items():
        labels = Tags(torch.from_numpy(table), tag_names=names)
        probs = Learner(seed=0).fit(texts, labels).predict_proba(new)
        found[name] = mean_average_precision(probs, of_new)
        drawn = [mean_average_precision(probs[some], of_new[some]) for some in rows]
        low, high = np.quantile(drawn, [0.025, 0.975])
        print(f"  {name:<42} {found[name]:.3f} [{low:.3f}, {high:.3f}]", flush=True)
    return found


def write(folder: Path) -> None:
    """The tables that messages.toml reads."""
    names, texts, truth, asked, new, of_new = tables()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "messages.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["id", "text", *(f"is_{name}" for name in names)])
        for at, text in enumerate(texts):
            out.writerow([f"m{at}", text, *(int(t) if a else "" for t, a in zip(truth[at], asked[at], strict=True))])
    with (folder / "new.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["id", "text", "departments"])
        for at, text in enumerate(new):
            here = [name for name, on in zip(names, of_new[at], strict=True) if on]
            out.writerow([f"n{at}", text, "|".join(here)])


if __name__ == "__main__":
    if "--write" in sys.argv:
        write(Path(__file__).with_name("messages"))
    else:
        main()
