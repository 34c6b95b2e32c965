"""How good predicted tags are: by tag, over all entries, and how rows rank their tags. Unknown entries are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anygrain.metrics.calibration import event_calibration_error
from anygrain.metrics.rows import Floats, Indices, as_array


class TagScores(NamedTuple):
    """Scores of every tag, shape (L,); NaN where its known entries are all on, or all off, or there are none.

    `brier`, `log_loss` and `calibration_error` need one known entry only.
    """

    on: Indices
    known: Indices
    average_precision: Floats
    auc: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    brier: Floats
    log_loss: Floats
    calibration_error: Floats


def tag_scores(probs: Any, truth: Any, *, threshold: float | Any = 0.5, bins: int = 15) -> TagScores:
    """How good the probabilities of every tag are, on the rows where it is known.

    Args:
        probs: P(on), shape (N, L).
        truth: 1, 0, or -1 where it is not known, shape (N, L).
        threshold: probability from which a tag is predicted, one or (L,).
        bins: of equal width, of the calibration error.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    p, t = known_tags(probs, truth)
    known, on = t >= 0, t == 1
    n_on, n_known = on.sum(axis=0), known.sum(axis=0)
    both = (n_on > 0) & (n_on < n_known)

    def by_tag(score: Callable[..., float], which: NDArray[np.bool_]) -> Floats:
        out: Floats = np.full(p.shape[1], np.nan)
        for tag in which.nonzero()[0].tolist():
            rows = known[:, tag]
            out[tag] = score(on[rows, tag], p[rows, tag])
        return out

    hit, extra, missed = (counts.sum(axis=0).astype(np.float64) for counts in tag_counts(p, t, threshold=threshold))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(both, np.where(hit > 0, hit / (hit + extra), 0.0), np.nan)
        recall = np.where(both, hit / (hit + missed), np.nan)
        brier = (np.square(p - on) * known).sum(axis=0) / n_known
        log_loss = (_losses(p, on) * known).sum(axis=0) / n_known
    return TagScores(
        n_on,
        n_known,
        by_tag(average_precision_score, both),
        by_tag(roc_auc_score, both),
        precision,
        recall,
        np.where(both, f1_of(hit, extra, missed), np.nan),
        brier,
        log_loss,
        by_tag(lambda truth, of: event_calibration_error(of, truth, bins=bins), n_known > 0),
    )


def tag_counts(
    probs: Any, truth: Any, *, threshold: float | Any = 0.5
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a tag is predicted rightly, predicted wrongly, and missed: bool (N, L) each. Arguments as `tag_scores`."""
    p, t = known_tags(probs, truth)
    predicted = p > np.asarray(threshold)
    return predicted & (t == 1), predicted & (t == 0), ~predicted & (t == 1)


def f1_of(hit: Any, extra: Any, missed: Any) -> Any:
    r""":math:`2 h / (2 h + e + m)` of numbers of right, wrong and missed predictions; 0 where nothing is on or said."""
    total = 2 * np.asarray(hit, dtype=np.float64) + extra + missed
    return np.divide(2 * np.asarray(hit, dtype=np.float64), total, out=np.zeros_like(total), where=total > 0)


def micro_f1(probs: Any, truth: Any, *, threshold: float | Any = 0.5) -> float:
    """F1 of all known entries together. Arguments as `tag_scores`."""
    return float(f1_of(*(counts.sum() for counts in tag_counts(probs, truth, threshold=threshold))))


def macro_tag_f1(probs: Any, truth: Any, *, threshold: float | Any = 0.5) -> float:
    """Mean F1 of the tags that have known entries of both sorts. Arguments as `tag_scores`."""
    return _mean(tag_scores(probs, truth, threshold=threshold).f1)


def mean_average_precision(probs: Any, truth: Any) -> float:
    """Mean average precision of the tags that have known entries of both sorts. Arguments as `tag_scores`."""
    return _mean(tag_scores(probs, truth).average_precision)


def tag_log_losses(probs: Any, truth: Any) -> Floats:
    r"""Log loss of every entry, :math:`-\log p(t_{il})`, in nats, shape (N, L); NaN where it is not known."""
    p, t = known_tags(probs, truth)
    return np.where(t < 0, np.nan, _losses(p, t == 1))


def ranking_losses(probs: Any, truth: Any) -> Floats:
    r"""Share of the pairs of an on and an off tag of a row that are ranked wrongly or tied, shape (N,).

    .. math:: \frac{1}{|P_i| |N_i|} \sum_{l \in P_i, m \in N_i} [p_{il} \le p_{im}]

    NaN where nothing is known, and 0 where all that is known is on, or off, as in scikit-learn, which has the same for
    rows of which everything is known (`label_ranking_loss`).

    Args:
        probs: P(on), shape (N, L).
        truth: 1, 0, or -1 where it is not known, shape (N, L).
    """
    p, t = known_tags(probs, truth)
    # from the largest probability down, off before on where equal, what is not known last
    order = np.lexsort((t == 1, -p, t < 0), axis=1)
    sorted_truth = np.take_along_axis(t, order, axis=1)
    before = np.cumsum(sorted_truth == 0, axis=1)
    wrong = (before * (sorted_truth == 1)).sum(axis=1)
    on, off = (t == 1).sum(axis=1), (t == 0).sum(axis=1)
    share = np.divide(wrong, on * off, out=np.zeros(len(p)), where=on * off > 0)
    return np.where(on + off > 0, share, np.nan)


def tag_coverages(probs: Any, truth: Any) -> Floats:
    """How far down the ranking of its tags one must go to meet all that a row has, shape (N,); arguments as above.

    Unknown entries are left out of the ranking. NaN where nothing is known, 0 where no tag is on; of rows of which
    everything is known their mean is scikit-learn's `coverage_error`.
    """
    p, t = known_tags(probs, truth)
    least = np.where(t == 1, p, np.inf).min(axis=1, keepdims=True)
    depth = ((p >= least) & (t >= 0)).sum(axis=1).astype(np.float64)
    return np.where((t >= 0).any(axis=1), depth, np.nan)


def ranking_loss(probs: Any, truth: Any) -> float:
    """Mean of `ranking_losses` over the rows of which something is known."""
    return _mean(ranking_losses(probs, truth))


def tag_coverage(probs: Any, truth: Any) -> float:
    """Mean of `tag_coverages` over the rows of which something is known."""
    return _mean(tag_coverages(probs, truth))


def known_tags(probs: Any, truth: Any) -> tuple[Floats, Indices]:
    """Probabilities and truth (N, L), checked.

    Raises:
        ValueError: other shapes, probabilities outside [0, 1], an entry other than 1, 0 and -1, nothing known.
    """
    p, t = as_array(probs).astype(np.float64), as_array(truth)
    if p.ndim != 2 or p.shape != t.shape:
        raise ValueError(f"Probabilities and truth have shapes {p.shape} and {t.shape}. Expected one shape (N, L)")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("The probabilities hold NaN or leave [0, 1]. Expected P(on) of every row and tag")
    if not np.isin(t, (-1, 0, 1)).all():
        odd = t[~np.isin(t, (-1, 0, 1))][0]
        raise ValueError(f"The truth holds {odd}. Expected 1 (on), 0 (off) or -1 (not known)")
    if not (t >= 0).any():
        raise ValueError("No entry is known. Expected at least one that is 1 or 0")
    return p, t.astype(np.int64)


def _losses(p: Floats, on: NDArray[np.bool_]) -> Floats:
    of_truth: Floats = np.where(on, p, 1 - p)
    return -np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1.0))


def _mean(values: Floats) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")
