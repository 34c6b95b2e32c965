"""Build the tickets that `anygrain demo` ships from CLINC150 (real texts and intents, simulated votes).

    python examples/tickets/build.py path/to/clinc150.parquet

The table needs the columns split, text, fine and coarse. It writes ``anygrain/demo/tickets``:

- ``tickets.csv``: 50 training queries of each of 24 intents. ``department`` is the true domain of every row,
  ``product`` the true intent of 60 rows, and ``worker_1`` to ``worker_3`` are votes drawn by `Crowd.simulate` on 702
  rows: right with probability .91, .58 and .88; half of the wrong votes stay in the right department.
- ``taxonomy.csv``: product -> department.
- ``new.csv``: 20 test queries of each intent with the true ``product``, to see how good the model is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from anygrain.data.table import read_table, write_table
from anygrain.labels import Crowd

INTENTS = {
    "auto": ("jump_start", "oil_change_how", "tire_pressure"),
    "banking": ("freeze_account", "report_fraud", "transfer"),
    "credit_cards": ("card_declined", "new_card", "report_lost_card"),
    "home": ("order_status", "shopping_list", "todo_list"),
    "kitchen": ("calories", "meal_suggestion", "recipe"),
    "travel": ("book_flight", "exchange_rate", "lost_luggage"),
    "utility": ("alarm", "timer", "weather"),
    "work": ("direct_deposit", "payday", "pto_request"),
}
ACCURACY = (0.91, 0.58, 0.88)
ROWS, EXACT, VOTED, VOTES = 50, 60, 702, 1371
TARGET = Path(__file__).parents[2] / "anygrain" / "demo" / "tickets"


def confusion(intents: list[str], parents: list[str]) -> torch.Tensor:
    """P(vote | intent) of each worker, shape (3, 24, 24)."""
    k = len(intents)
    same = torch.tensor([[a == b for b in parents] for a in parents], dtype=torch.float64)
    same -= torch.eye(k, dtype=torch.float64)
    others = 1 - torch.eye(k, dtype=torch.float64) - same
    wrong = 0.5 * same / same.sum(1, keepdim=True) + 0.5 * others / others.sum(1, keepdim=True)
    return torch.stack([a * torch.eye(k, dtype=torch.float64) + (1 - a) * wrong for a in ACCURACY])


def main(source: str) -> None:
    table = read_table(source)
    split, text, fine = (table.strings(c) for c in ("split", "text", "fine"))
    parent_of = {intent: department for department, intents in INTENTS.items() for intent in intents}
    intents = sorted(parent_of)
    random = np.random.default_rng(150)

    def draw(part: str, per_intent: int) -> np.ndarray:
        rows = [
            random.choice(np.flatnonzero((split == part) & (fine == i)), per_intent, replace=False) for i in intents
        ]
        return random.permutation(np.concatenate(rows))

    train, new = draw("train", ROWS), draw("test", 20)
    classes = torch.tensor([intents.index(f) for f in fine[train]])
    n = len(train)

    generator = torch.Generator().manual_seed(150)
    voted = np.sort(random.choice(n, VOTED, replace=False))
    crowd = Crowd.simulate(
        classes[voted],
        len(intents),
        generator=generator,
        n_annotators=len(ACCURACY),
        votes_per_item=len(ACCURACY),
        confusion=confusion(intents, [parent_of[i] for i in intents]),
    )
    order = random.permutation(len(crowd.votes))
    _, first = np.unique(crowd.items.numpy()[order], return_index=True)  # every voted row keeps one vote
    rest = random.permutation(np.setdiff1d(order, order[first]))[: VOTES - VOTED]
    keep = np.concatenate([order[first], rest])
    workers = np.full((n, len(ACCURACY)), "", dtype=object)
    for vote in keep:
        row = voted[int(crowd.items[vote])]
        workers[row, int(crowd.annotators[vote])] = intents[int(crowd.votes[vote])]

    exact = np.concatenate([random.choice(np.flatnonzero(fine[train] == i), 2, replace=False) for i in intents])
    more = random.choice(np.setdiff1d(np.arange(n), exact), EXACT - len(exact), replace=False)
    product = np.full(n, "", dtype=object)
    for row in np.concatenate([exact, more]):
        product[row] = fine[train[row]]

    TARGET.mkdir(parents=True, exist_ok=True)
    write_table(
        {
            "id": [str(1001 + i) for i in range(n)],
            "text": text[train].tolist(),
            "department": [parent_of[f] for f in fine[train]],
            **{f"worker_{w + 1}": [v or None for v in workers[:, w]] for w in range(len(ACCURACY))},
            "product": [v or None for v in product],
        },
        TARGET / "tickets.csv",
    )
    write_table(
        {
            "id": [str(5001 + i) for i in range(len(new))],
            "text": text[new].tolist(),
            "product": fine[new].tolist(),
        },
        TARGET / "new.csv",
    )
    write_table({"product": intents, "department": [parent_of[i] for i in intents]}, TARGET / "taxonomy.csv")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
