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
