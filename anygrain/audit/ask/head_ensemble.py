"""Several heads in place of one: how far the labels at hand leave the model open."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from anygrain.labels import LabelError, Labels
from anygrain.learn import Learner
from anygrain.learn.end_to_end import doubts
from anygrain.learn.head import fit_head


def head_ensemble(
    learner: Learner, X: Any, labels: Labels, asked: Any, members: int = 8, *, steps: int = 20, seed: int = 0
) -> Tensor:
    r"""Log-probabilities of rows by heads fitted to reweighted training rows, (T, N, K) (the Bayesian bootstrap).

    Every member starts from the fitted head and is fitted to the learner's posteriors with weights :math:`w_i \sim
    \mathrm{Exp}(1)` on the rows that labels tell something of; features stay as they are. Where the members differ,
    the labels do not settle what the model should say.

    Args:
        learner: fitted to classes.
        X: the rows that it was fitted to.
        labels: theirs.
        asked: the rows to speak of.
        members: T.
        steps: L-BFGS steps of a member.
        seed: of the weights.

    Raises:
        LabelError: a model of numbers or tags, lengths that differ, fewer than two members.

    Source: Rubin, The Bayesian Bootstrap, 1981.
    """
    if learner.space_ != "classes":
        raise LabelError(f"an ensemble of heads needs a model of classes; this one is of {learner.space_}")
    if members < 2:
        raise LabelError(f"members is {members}; expected 2 or more")
    device = next(learner.head_.parameters()).device
    known = torch.from_numpy(learner.transform(X))
    if len(known) != len(labels):
        raise LabelError(f"X has {len(known)} rows, the labels are of {len(labels)}")
    told = (doubts(labels) < 1).nonzero()[:, 0]
    features = known[labels.rows[told]].to(device)
    posterior = torch.as_tensor(learner.posterior(X, labels))[told].to(features)
    rows = torch.from_numpy(learner.transform(asked)).to(device)
    generator = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(members):
        weight = torch.empty(len(features)).exponential_(generator=generator).to(device)
        head = copy.deepcopy(learner.head_)
        fit_head(head, features, posterior, weight=weight, penalty=learner.penalty, steps=steps)
        with torch.no_grad():
            out.append((learner.temperature_ * head.logits(rows)).log_softmax(dim=1).cpu())
    return torch.stack(out)
