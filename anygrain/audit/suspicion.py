"""Which labels look wrong, from anybody's probabilities."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np

from anygrain.audit.judging import Judgement, as_labels, judge_labels


def suspects(log_probs: Any, labels: Any) -> Any:
    r"""How probably every record is wrong, what is likely true, and what believing the record costs.

    A record that names a class v of an instance with log-probabilities p(x) is wrong with

    .. math:: P(\text{wrong}) = 1 - \frac{q_v(x)\, T_{vv}}{\sum_k q_k(x)\, T_{kv}}, \qquad
              q(x) = \mathrm{softmax}(a \log p(x) + b)

    where the sharpness a, b and the transition matrix T are estimated from all records (`learn_noise`). So p may come
    from a model that was cross-fitted on the labels themselves, errors included, or from one that never saw them. Votes
    have a channel per source in place of T (`judge_votes`); nodes of one taxonomy level are named like classes; records
    of several classes, of sets and of numbers are made by their kind's likelihood or, with an estimated probability,
    by error (`judge_narrowed`, `judge_sets`, `judge_numbers`). Each kind is judged with what the others say.

    Args:
        log_probs: log-probabilities of the classes from a model that did not see the row's own labels, (N, K), NumPy or
            torch, a row per instance, or per data row; None: labels speak for themselves (votes, several kinds). For
            labels of a number (mean, variance), both (N,).
        labels: `Labels` of any kind, `RealLabels`, or a vector (N,) of class indices (-1 is missing) or K values.

    Returns:
        A frame of R rows, a pandas `DataFrame` where pandas is installed, else a pyarrow `Table`: `record` 0..R-1, in
        the order of `labels.record_scores`; `given` and `proposed`, what the record says and what is likely true (class
        indices; names where the labels have them; words for sets); `prob_wrong`, 0 for a missing record; `nats_lost`:
        log-predictive, by everything but the record, of the best alternative less that of what the record says, 0 where
        nothing is better (of a number: half the squared distance in standard deviations).

    Raises:
        LabelError: tables that do not fit the labels, rows that do not sum to 1, NaN, no classes.
    """
    shape: tuple[int, ...] = tuple(getattr(log_probs, "shape", ()))
    read = as_labels(labels, shape[1] if len(shape) == 2 else None)
    return frame(columns_of(judge_labels(log_probs, read)))


def columns_of(found: Judgement) -> dict[str, np.ndarray]:
    """The columns of the frame of suspects, (R,) each."""
    return {
        "record": np.arange(len(found.part)),
        "given": found.joined("given"),
        "proposed": found.joined("proposed"),
        "prob_wrong": found.joined("wrong"),
        "nats_lost": found.joined("nats"),
    }


def frame(columns: Mapping[str, Any]) -> Any:
    """Columns as a pandas `DataFrame` where pandas is installed, else as a pyarrow `Table`."""
    if importlib.util.find_spec("pandas") is not None:
        import pandas

        return pandas.DataFrame(dict(columns))
    import pyarrow

    return pyarrow.table(dict(columns))
