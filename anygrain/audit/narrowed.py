"""Records that narrow the class of an instance down, to several classes or by degrees."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from anygrain.audit.errors import error_share
from anygrain.audit.judged import JudgedPart, array
from anygrain.audit.named import node_names
from anygrain.labels import Candidates, Coarse, Complementary, InstanceLabels, Interval, Sampled
from anygrain.labels.pairs_unlabeled import DrawnRows

#: a class is among those that a record names where it makes the record half as probable as the class that does most
HALF = math.log(2.0)


def judge_narrowed(part: InstanceLabels, log_probs: Tensor) -> JudgedPart:
    r"""Judge records of the kind "one of these classes" by log-probabilities (N, K) by everything else.

    A record is made by its kind's likelihood or, with probability e, by error from what could have been said:

    .. math:: P(y = k \mid x, o) \propto p_k \big( (1 - e) P(o \mid k) + e\, u_o \big), \qquad
              u_o = \sum_k \bar p_k P(o \mid k)

    and is wrong where the class is none of those that it names. Labels that say how rows were sampled are never wrong.
    """
    table = part.record_log_prob(log_probs.dtype)
    told = (table != 0).any(dim=1)
    log_mean = log_probs.double().exp().mean(dim=0).log().to(table)
    named = table > table.amax(dim=1, keepdim=True) - HALF
    log_true = torch.logsumexp(log_probs + table, dim=1)
    log_chance = torch.logsumexp(log_mean + table, dim=1)
    _, e = error_share(log_true[told], log_chance[told])
    mixed = torch.logaddexp(table + math.log1p(-e), (log_chance + math.log(e))[:, None].expand_as(table))
    posterior = (log_probs + mixed).softmax(dim=1).double()
    wrong = torch.where(told, (posterior * ~named).sum(dim=1), 0.0)
    if isinstance(part, Sampled | DrawnRows):
        wrong = torch.zeros_like(wrong)
    inside = torch.logsumexp(log_probs.masked_fill(~named, -torch.inf), dim=1)
    outside = torch.logsumexp(log_probs.masked_fill(named, -torch.inf), dim=1)
    nats = torch.where(told, outside - inside.clamp(min=-700), 0.0).clamp(min=0)
    probability, best = posterior.max(dim=1)
    names = part.class_names
    words = np.array([str(k) for k in range(part.n_classes)] if names is None else list(names), dtype=object)
    return JudgedPart(
        given=_said(part, array(named), array(told), words),
        proposed=words[array(best)],
        probability=array(probability),
        wrong=array(wrong),
        nats=array(nats.clamp(max=700)),
        names=None,
        transition=None,
        error=float(wrong[told].mean()) if bool(told.any()) else 0.0,
    )


def _said(part: InstanceLabels, named: np.ndarray, told: np.ndarray, words: np.ndarray) -> np.ndarray:
    """What every record says, in words: the node, or the classes that it names with "|" between, or "not" the rest."""
    out = np.full(len(named), "", dtype=object)
    if isinstance(part, Coarse):
        nodes, names = array(part.nodes), node_names(part)
        known = np.array([str(c) for c in range(len(part.membership))] if names is None else list(names), dtype=object)
        out[told] = known[nodes[told]]
        return out
    negative = isinstance(part, Complementary)
    patterns, which = np.unique(named != negative, axis=0, return_inverse=True)
    most = 6 if isinstance(part, Candidates | Complementary | Interval) else 3
    texts = np.array([_listed(words[row], most) for row in patterns], dtype=object)
    text = texts[which.reshape(-1)]
    out[told] = [f"not {t}" for t in text[told]] if negative else text[told]
    return out


def _listed(names: np.ndarray, most: int) -> str:
    shown = "|".join(str(n) for n in names[:most])
    return shown + (f"|... ({len(names) - most} more)" if len(names) > most else "")
