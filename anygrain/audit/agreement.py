"""How far annotators agree beyond chance: Krippendorff's alpha, Fleiss' kappa and Cohen's kappa."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anygrain.audit.judged import array
from anygrain.audit.suspicion import frame
from anygrain.labels import Crowd, LabelError

LEVELS = ("nominal", "ordinal", "interval")
WEIGHTS = ("none", "linear", "quadratic")
#: numbers held at a time while items are drawn again
CHUNK = 2**22


@dataclass(frozen=True)
class Agreement:
    """A coefficient of agreement.

    Attributes:
        value: 1 is perfect, 0 what chance gives; NaN where it is not defined: no item has two votes, or all votes of
            all items are the same.
        low, high: bootstrap interval over items.
        items: items with two votes or more, which alone count.
        votes: votes on these.
    """

    value: float
    low: float
    high: float
    items: int
    votes: int


def krippendorff_alpha(
    votes: Any,
    level: str = "nominal",
    *,
    values: Sequence[float] | None = None,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Agreement:
    r"""Krippendorff's alpha, with missing votes.

    .. math:: \alpha = 1 - (n - 1) \frac{\sum_{c, v} o_{cv} \delta^2_{cv}}{\sum_{c, v} n_c n_v \delta^2_{cv}}, \qquad
              o_{cv} = \sum_i \frac{n_{ic} (n_{iv} - [c = v])}{m_i - 1}

    with n_ic votes for c of the m_i on item i, n_c and n their totals over items with two or more. The difference
    delta^2 is [c != v] (nominal), the squared number of votes between the two (ordinal: from the middle of all votes
    for c to the middle of those for v), or (c - v)^2 (interval).

    Args:
        votes: `Crowd`, or a table (items, annotators): NaN, None or "" is missing, in whole numbers also -1.
        level: "nominal", "ordinal" or "interval".
        values: of the classes of a Crowd, (K,), for level "interval"; 0..K-1 when not given.
        confidence: of the interval.
        draws: of the bootstrap, which draws items.
        seed: of the draws.

    Raises:
        LabelError: another level, a table that is none, words where numbers are needed.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011.
    """
    if level not in LEVELS:
        raise LabelError(f'level is "{level}"; expected one of {", ".join(LEVELS)}')
    counts, classes = _counts(votes)
    if level == "interval":
        given = np.arange(len(classes)) if isinstance(votes, Crowd) and values is None else values
        numbers = np.asarray(classes if given is None else given)
        if numbers.dtype.kind not in "iuf" or numbers.shape != (counts.shape[1],):
            raise LabelError(f'level "interval" needs a number for each of the {counts.shape[1]} classes: give values')
        places = numbers.astype(np.float64)
    counts = counts[counts.sum(axis=1) >= 2]
    per_item = counts.sum(axis=1)
    kinds, times = _alike(counts)
    size = kinds.sum(axis=1)

    def alpha(weight: np.ndarray) -> np.ndarray:
        """Alpha (B,) where every kind of item occurs `weight` (B, U) times."""
        total = weight @ kinds
        n = total.sum(axis=1)
        pairs = weight / np.maximum(size - 1, 1)
        if level == "nominal":
            met = pairs @ (size**2 - (kinds**2).sum(axis=1))
            expected = n**2 - (total**2).sum(axis=1)
        else:
            at = places[None] if level == "interval" else total.cumsum(axis=1) - total / 2
            at = at - (total * at).sum(axis=1, keepdims=True) / np.maximum(n, 1)[:, None]
            # sum of squared differences of all pairs, from the first two moments
            moment, square = at @ kinds.T, (at**2) @ kinds.T
            met = (pairs * 2 * (size * square - moment**2)).sum(axis=1)
            expected = 2 * (n * (total * at**2).sum(axis=1) - (total * at).sum(axis=1) ** 2)
        return _ratio(met * (n - 1), expected)

    value, low, high = _interval(alpha, times, confidence, draws, seed)
    return Agreement(value, low, high, len(counts), int(per_item.sum()))


def fleiss_kappa(votes: Any, *, confidence: float = 0.95, draws: int = 1000, seed: int = 0) -> Agreement:
    r"""Fleiss' kappa; items may have different numbers of votes.

    .. math:: \kappa = \frac{\bar P - P_e}{1 - P_e}, \qquad
              \bar P = \frac1N \sum_i \frac{\sum_c n_{ic} (n_{ic} - 1)}{m_i (m_i - 1)}, \qquad
              P_e = \sum_c \Big( \frac{n_c}{n} \Big)^2

    over items with two votes or more.

    Args:
        votes, confidence, draws, seed: as `krippendorff_alpha`.

    Source: Fleiss, Measuring nominal scale agreement among many raters, 1971.
    """
    counts, _ = _counts(votes)
    counts = counts[counts.sum(axis=1) >= 2]
    kinds, times = _alike(counts)
    size = kinds.sum(axis=1)
    agree = (kinds * (kinds - 1)).sum(axis=1) / np.maximum(size * (size - 1), 1)

    def kappa(weight: np.ndarray) -> np.ndarray:
        total = weight @ kinds
        chance = ((total / np.maximum(total.sum(axis=1, keepdims=True), 1)) ** 2).sum(axis=1)
        found = weight @ agree / np.maximum(weight.sum(axis=1), 1)
        return _ratio(1 - found, 1 - chance)

    value, low, high = _interval(kappa, times, confidence, draws, seed)
    return Agreement(value, low, high, len(counts), int(counts.sum()))


def cohen_kappa(
    votes: Any, weights: str = "none", *, confidence: float = 0.95, draws: int = 1000, seed: int = 0
) -> Any:
    r"""Cohen's kappa of every two annotators who voted on an item in common.

    .. math:: \kappa = 1 - \frac{\sum_{cv} w_{cv} n_{cv}}{\frac1n \sum_{cv} w_{cv} n_{c \cdot} n_{\cdot v}}

    with w = [c != v], |c - v| (linear) or (c - v)^2 (quadratic), and n_cv the items that the one calls c and the other
    v. Where an annotator voted on an item twice, each pair of votes counts.

    Args:
        votes, confidence, draws, seed: as `krippendorff_alpha`.
        weights: "none", "linear" or "quadratic", of ordered classes.

    Returns:
        A frame with a row per pair: `first`, `second` (names, or numbers), `items` in common, `kappa`, `low`, `high`.
        NaN where both gave one class alone.

    Raises:
        LabelError: other weights, a table that is none.

    Source: Cohen, A coefficient of agreement for nominal scales, 1960; Weighted kappa, 1968.
    """
    return frame(cohen_columns(votes, weights, confidence=confidence, draws=draws, seed=seed))


def cohen_columns(
    votes: Any, weights: str = "none", *, confidence: float = 0.95, draws: int = 1000, seed: int = 0
) -> dict[str, np.ndarray]:
    """The columns of `cohen_kappa`, (pairs,) each.

    Cost: memory for one number per pair of votes on one item, the sum of m_i^2 / 2 for items with m_i votes, which with
    few votes on each is far below N W^2 / 2; and a multinomial draw of K^2 cells for each pair of annotators and draw.
    """
    if weights not in WEIGHTS:
        raise LabelError(f'weights is "{weights}"; expected one of {", ".join(WEIGHTS)}')
    item, who, vote, names, classes = _long(votes)
    k = len(classes)
    order = np.argsort(item, kind="stable")
    item, who, vote = item[order], who[order], vote[order]
    # every vote with the later ones on its item
    after = np.searchsorted(item, item, side="right") - np.arange(len(item)) - 1
    one = np.repeat(np.arange(len(item)), after)
    two = one + 1 + np.arange(len(one)) - np.repeat(after.cumsum() - after, after)
    apart = who[one] != who[two]
    one, two = one[apart], two[apart]
    swap = who[one] > who[two]
    one, two = np.where(swap, two, one), np.where(swap, one, two)
    pair, place = np.unique(who[one] * len(names) + who[two], return_inverse=True)
    order = np.argsort(place, kind="stable")
    cell = (place * k * k + vote[one] * k + vote[two])[order]
    ends = np.searchsorted(place[order], np.arange(len(pair) + 1))
    apart_by = np.abs(np.arange(k)[:, None] - np.arange(k)[None])
    cost = {"none": (apart_by > 0) * 1.0, "linear": apart_by * 1.0, "quadratic": apart_by**2.0}[weights]

    def kappa(counts: np.ndarray) -> np.ndarray:
        square = counts.reshape(*counts.shape[:-1], k, k).astype(np.float64)
        n = square.sum(axis=(-2, -1))
        chance = np.einsum("...c,cv,...v->...", square.sum(axis=-1), cost, square.sum(axis=-2)) / np.maximum(n, 1)
        return _ratio((square * cost).sum(axis=(-2, -1)), chance)

    rng = np.random.default_rng(seed)
    n = np.diff(ends)
    value, low, high = np.full((3, len(pair)), np.nan)
    # tables of all pairs, or all draws of one, may not fit: K^2 numbers each
    step = max(CHUNK // max(draws * k * k, 1), 1)
    at_once = max(CHUNK // max(step * k * k, 1), 1)
    for start in range(0, len(pair), step):
        stop = min(start + step, len(pair))
        part = slice(start, stop)
        inside = cell[ends[start] : ends[stop]] - start * k * k
        table = np.bincount(inside, minlength=(stop - start) * k * k).reshape(-1, k * k)
        value[part] = kappa(table)
        drawn = [
            kappa(rng.multinomial(n[part], table / n[part, None], size=(min(at_once, draws - first), stop - start)))
            for first in range(0, draws, at_once)
        ]
        low[part], high[part] = _ends(np.concatenate(drawn), confidence)
    return {
        "first": names[pair // max(len(names), 1)],
        "second": names[pair % max(len(names), 1)],
        "items": n,
        "kappa": value,
        "low": low,
        "high": high,
    }


# -- votes ------------------------------------------------------------------------------------------------------------


def _long(votes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Item, annotator and class of every vote, (R,); what annotators (W,) and classes (K,) are called."""
    if isinstance(votes, Crowd):
        item, who, vote = (array(t) for t in (votes.items, votes.annotators, votes.votes))
        k = votes.n_classes if votes._columns is None else len(votes._columns)
        named = np.arange(votes.n_annotators) if votes.annotator_names is None else np.array(votes.annotator_names)
        names = np.append(named.astype(object), "(unknown)") if (who < 0).any() else named
        who = np.where(who < 0, votes.n_annotators, who)
        said = vote >= 0
        return item[said], who[said], vote[said], names, np.arange(k)
    table = np.asarray(votes.to_numpy() if hasattr(votes, "to_numpy") else votes)
    if table.ndim != 2:
        raise LabelError(f"votes have shape {table.shape}; expected a table (items, annotators), or a Crowd")
    if table.dtype.kind in "iu":
        said = table != -1
    elif table.dtype.kind == "f":
        said = ~np.isnan(table)
    else:
        table = table.astype(object)
        said = ~((table == None) | (table == "") | (table != table))  # noqa: E711  (elementwise)
    item, who = said.nonzero()
    given = table[item, who]
    if given.dtype == object:
        whole = len(given) > 0 and all(isinstance(v, int | float | np.number) for v in given.tolist())
        given = given.astype(np.float64) if whole else given.astype(str)
    classes, vote = np.unique(given, return_inverse=True)
    columns = getattr(votes, "columns", None)
    names = np.arange(table.shape[1]) if columns is None else np.array([str(c) for c in columns], dtype=object)
    return item, who, vote, names, classes


def _counts(votes: Any) -> tuple[np.ndarray, np.ndarray]:
    """Votes of every item for every class, (N, K), and the classes."""
    item, _, vote, _, classes = _long(votes)
    n, k = int(item.max(initial=-1)) + 1, len(classes)
    table = np.bincount(item * k + vote, minlength=n * k).reshape(n, k)
    return table.astype(np.float64), classes


def _alike(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of counts (U, K), and how often each occurs: drawing items is drawing these."""
    if not len(counts):
        return counts, np.zeros(0, dtype=np.int64)
    kinds, times = np.unique(counts, axis=0, return_counts=True)
    return kinds, times


# -- intervals --------------------------------------------------------------------------------------------------------


def _ratio(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """1 - found / expected, NaN where nothing is expected."""
    known = expected > 1e-12
    return np.where(known, 1 - found / np.where(known, expected, 1.0), np.nan)


def _interval(
    coefficient: Any, times: np.ndarray, confidence: float, draws: int, seed: int
) -> tuple[float, float, float]:
    """The coefficient, and the ends of its bootstrap interval, from how often each kind of item occurs, (U,)."""
    n = int(times.sum())
    if not n:
        return float("nan"), float("nan"), float("nan")
    value = float(coefficient(times[None].astype(np.float64))[0])
    rng = np.random.default_rng(seed)
    step = max(CHUNK // len(times), 1)
    found = [
        coefficient(rng.multinomial(n, times / n, size=min(step, draws - start)).astype(np.float64))
        for start in range(0, draws, step)
    ]
    low, high = _ends(np.concatenate(found)[:, None], confidence)
    return value, float(low[0]), float(high[0])


def _ends(drawn: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends (P,) of the intervals of draws (B, P); draws without a value do not count."""
    if not 0 < confidence < 1:
        raise LabelError(f"confidence is {confidence}; expected a number between 0 and 1")
    known = ~np.isnan(drawn).all(axis=0)
    ends = np.full((2, drawn.shape[1]), np.nan)
    if known.any():
        ends[:, known] = np.nanquantile(drawn[:, known], [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return ends[0], ends[1]
