"""How often a source gives a label without regard to the truth, and which of its labels are likely to be such."""

from __future__ import annotations

import numpy as np

BEFOREHAND, WEIGHT = 0.05, 2.0  # how careless a source is taken to be beforehand, and what that weighs, in labels
ROUNDS = 200


def careless_share(
    ratio: np.ndarray, source: np.ndarray, counts: np.ndarray, rounds: int = ROUNDS
) -> tuple[np.ndarray, np.ndarray]:
    r"""P(label was given without regard to the truth), shape (R,), and the share e of every source, shape (S,), by EM.

    .. math:: P(\text{careless}) = e / ((1 - e) \rho + e)

    Args:
        ratio: rho, how much likelier what a label says is by everything else than for a row drawn anyhow, shape (R,).
        source: who gave each label, numbers from 0 on, shape (R,).
        counts: bool (R,), labels that e is estimated from.
        rounds: of EM.
    """
    error = np.full(int(source.max(initial=-1)) + 1, BEFOREHAND)
    many = np.bincount(source, counts, len(error))
    careless = np.zeros(len(ratio))
    for _ in range(rounds):
        e = error[source]
        careless = e / ((1 - e) * ratio + e)
        error = (np.bincount(source, careless * counts, len(error)) + WEIGHT * BEFOREHAND) / (many + WEIGHT)
    e = error[source]
    return np.asarray(e / ((1 - e) * ratio + e)), error


def wrong_share(right: np.ndarray, chance: np.ndarray, source: np.ndarray, counts: np.ndarray) -> np.ndarray:
    r"""P(label is wrong | everything, the label itself too), shape (R,).

    A source gives a label without regard to the truth with probability e of its own, estimated by EM from all of its
    labels; p is the probability that a label is right by everything else, c the chance of that for a row drawn anyhow:

    .. math:: P(\text{wrong}) = e (1 - p) / ((1 - e) p / c + e)

    So a source that never errs is not doubted because a weak model finds it improbable, and wrong labels of careful and
    of careless sources are found alike where everything else tells.

    Args:
        right: p, shape (R,).
        chance: c, shape (R,).
        source: who gave each label, numbers from 0 on, shape (R,).
        counts: bool (R,), labels that e is estimated from.
    """
    careless, _ = careless_share(right / chance.clip(1e-12), source, counts)
    return np.asarray(careless * (1 - right))
