"""Seeded synthetic evidence for the side-by-side measurements; numpy only."""

import numpy as np


def labelling_functions(
    n: int = 100_000, rules: int = 20, n_classes: int = 5, seed: int = 0, *, copying: float = 0.0
) -> dict[str, np.ndarray]:
    """Votes of labelling functions, -1 abstains.

    Rule j has coverage U(.1, .6) and accuracy U(.45, .9); wrong votes go to the other classes by weights of its own,
    Dirichlet(1) for each true class. Every second rule knows two classes only and abstains where its vote would be
    another.

    Args:
        n: rows.
        rules: R.
        n_classes: K.
        seed: of the one generator behind all draws.
        copying: probability with which a rule of the second half gives, on a row, the outcome of its partner in the
            first half: rules that depend on each other, as rules written from the same keywords do.

    Returns:
        votes (n, R), truth (n,), prior (K,) and table (R, K, K + 1), the probabilities of all outcomes without
        copying, abstention last.
    """
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.full(n_classes, 5.0))
    coverage, accuracy = rng.uniform(0.1, 0.6, rules), rng.uniform(0.45, 0.9, rules)
    table = np.zeros((rules, n_classes, n_classes + 1))
    for j in range(rules):
        known = np.ones(n_classes, dtype=bool)
        if j % 2:
            known[rng.permutation(n_classes)[2:]] = False
        for c in range(n_classes):
            wrong = rng.dirichlet(np.ones(n_classes - 1)) * (1 - accuracy[j])
            table[j, c, :n_classes] = np.insert(wrong, c, accuracy[j]) * known * coverage[j]
    table[:, :, n_classes] = 1 - table.sum(axis=2)
    truth = rng.choice(n_classes, size=n, p=prior)
    votes = np.empty((n, rules), dtype=np.int64)
    for j in range(rules):
        reach = table[j].cumsum(axis=1)[truth]
        votes[:, j] = (rng.random(n)[:, None] > reach[:, :n_classes]).sum(axis=1)
    votes[votes == n_classes] = -1
    half = rules // 2
    copied = rng.random((n, rules - half)) < copying
    votes[:, half:] = np.where(copied, votes[:, np.arange(rules - half) % max(half, 1)], votes[:, half:])
    return {"votes": votes, "truth": truth, "prior": prior, "table": table}


#: what annotators take a hard item for: the next class, any other, one of its own, the most common, or nothing at all
HARD = ("next", "any", "own", "common", "lost")


def crowd(
    items: int,
    annotators: int,
    votes_per_item: int,
    n_classes: int = 10,
    seed: int = 0,
    *,
    hard: float = 0.15,
    errs: str = "next",
) -> dict[str, np.ndarray]:
    """Votes of honest, biased and careless annotators on items of which some are hard for everybody.

    Two thirds of the annotators have confusion matrices with a Beta(4, 4) diagonal and the rest of each row by
    Dirichlet(.3); a fifth give in to a favourite class in 2 votes of 5; the others answer at random. A few annotators
    give most votes (the r-th is drawn by 1 / sqrt(r)), each at most one per item. On a hard item every annotator
    mistakes what there is to see with probability one half, so the votes on it depend on each other.

    Args:
        items, annotators, votes_per_item: N, W and the votes on each item.
        n_classes: K.
        seed: of the one generator behind all draws.
        hard: share of hard items.
        errs: one of `HARD`. "next" and "own": the same wrong class for all annotators; "any": drawn by vote;
            "common": the most common class; "lost": the vote is drawn evenly.

    Returns:
        item, annotator and vote (R,), truth (N,), confusion (W, K, K), rows are the truth, and prior (K,).
    """
    rng = np.random.default_rng(seed)
    k = n_classes
    prior = rng.dirichlet(np.full(k, 5.0))
    truth = rng.choice(k, size=items, p=prior)
    right = rng.beta(4, 4, size=(annotators, k))
    confusion = rng.dirichlet(np.full(k - 1, 0.3), size=(annotators, k)) * (1 - right)[:, :, None]
    spread = np.zeros((annotators, k, k))
    spread[:, ~np.eye(k, dtype=bool)] = confusion.reshape(annotators, -1)
    spread[:, np.arange(k), np.arange(k)] = right
    habit = rng.choice(3, size=annotators, p=[0.65, 0.2, 0.15])
    favourite = np.eye(k)[rng.integers(k, size=annotators)]
    biased = 0.6 * spread + 0.4 * favourite[:, None, :]
    confusion = np.where((habit == 1)[:, None, None], biased, spread)
    confusion[habit == 2] = 1 / k

    taste = -0.5 * np.log(np.arange(1, annotators + 1))
    annotator = np.empty((items, votes_per_item), dtype=np.int64)
    for start in range(0, items, 5_000):
        keys = taste + rng.gumbel(size=(min(5_000, items - start), annotators))
        annotator[start : start + 5_000] = np.argpartition(keys, -votes_per_item, axis=1)[:, -votes_per_item:]
    annotator = annotator.ravel()
    item = np.repeat(np.arange(items), votes_per_item)

    mistaken = (rng.random(items) < hard)[item] & (rng.random(len(item)) < 0.5)
    other = {
        "next": lambda: (truth + 1)[item] % k,
        "any": lambda: (truth[item] + rng.integers(1, k, size=len(item))) % k,
        "own": lambda: ((truth + rng.integers(1, k, size=items)) % k)[item],
        "common": lambda: np.full(len(item), prior.argmax()),
        "lost": lambda: truth[item],
    }[errs]()
    looks = np.where(mistaken, other, truth[item])
    reach = confusion.cumsum(axis=2)
    vote = (rng.random(len(item))[:, None] > reach[annotator, looks, :-1]).sum(axis=1)
    if errs == "lost":
        vote = np.where(mistaken, rng.integers(k, size=len(item)), vote)
    return {"item": item, "annotator": annotator, "vote": vote, "truth": truth, "confusion": confusion, "prior": prior}
