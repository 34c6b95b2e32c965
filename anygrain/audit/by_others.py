"""What is believed of an item by everything but one annotator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.audit.judged import array
from anygrain.audit.judging import as_log_probs
from anygrain.labels import Crowd

#: numbers held at a time
CHUNK = 2**22
ROUNDS = 30


def beliefs_by_others(labels: Crowd, log_probs: Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    r"""Votes (n,) and P(class | x, all but the votes of the annotator on the item), (n, K), chunk by chunk.

    .. math:: q_{-w}(k) \propto p_k(x_i) \prod_{r : i_r = i, w_r \ne w} P(v_r \mid k, w_r)

    Args:
        labels: with a fitted channel.
        log_probs: log p(x), what is known without the votes, (N, K).
    """
    labels = labels.to("cpu")
    source = labels.annotators
    item, votes = labels.items, labels.votes
    said = (votes >= 0).nonzero()[:, 0]
    _, place = torch.unique(item[said] * (labels.n_annotators + 1) + source[said], return_inverse=True)
    order = torch.argsort(place, stable=True)
    said, place = said[order], place[order]
    table = labels.record_log_prob(torch.float64)
    total = log_probs.double().cpu() + labels.log_evidence(torch.float64)
    step = max(CHUNK // max(labels.n_classes, 1), 1)
    start = 0
    while start < len(said):
        stop = min(start + step, len(said))
        while stop < len(said) and place[stop] == place[stop - 1]:  # all votes of a source on an item together
            stop += 1
        at, of = said[start:stop], place[start:stop] - place[start]
        own = table.new_zeros(int(of[-1]) + 1, labels.n_classes).index_add_(0, of, table[at])[of]
        left = torch.where(torch.isfinite(own), total[item[at]] - own, -torch.inf)
        yield array(at), array(left.softmax(dim=1))
        start = stop


def known_without(labels: Crowd, log_probs: Any) -> Tensor:
    """What is known of the items without their votes, log-probabilities (N, K), shares of the classes if nothing.

    Args:
        log_probs: (N, K), or None: the shares at which the votes are likeliest, with one item added to every class.

    Raises:
        LabelError: another shape, or rows that do not sum to 1.
    """
    if log_probs is not None:
        return as_log_probs(log_probs, labels).double()
    n, k = labels.n_instances, labels.n_classes
    evidence = labels.to("cpu").log_evidence(torch.float64)
    share = torch.full((k,), 1 / k, dtype=torch.float64)
    for _ in range(ROUNDS):
        share = ((evidence + share.log()).softmax(dim=1).nan_to_num(1 / k).sum(dim=0) + 1) / (n + k)
    return share.log().expand(n, k)
