"""Votes of annotators and rules: several records of one instance, from sources that err in ways of their own."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from anygrain.audit.judged import JudgedPart, array
from anygrain.audit.noise import FLOOR, Sharpness
from anygrain.labels import Crowd, Difficulty, IdentifiabilityWarning, Rules, aggregate
from anygrain.labels.channels.tabular import TabularChannel

ROUNDS = 20
CHUNK = 2**21


def judge_votes(part: Crowd | Rules, log_probs: Tensor | None) -> tuple[JudgedPart, Tensor]:
    r"""Judge votes, and say what is believed of the instances given all of them, (N, K).

    .. math:: P(v_r \text{ is wrong}) = 1 - P(y_{i_r} = v_r \mid x, \text{all votes})

    With log-probabilities, their sharpness and the sources' channels are learnt together by EM, from where the votes
    alone put the channels. Without, the votes alone decide (`aggregate`).

    Args:
        part: its channel stays as it is.
        log_probs: (N, K), normalised, or None.
    """
    own = part.with_own_channels()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        alone = aggregate(own)
    posterior = alone.posterior.double() if log_probs is None else _with_features(own, log_probs)
    votes = own.votes if own._columns is None else torch.where(own.votes < 0, -1, own._columns[own.votes.clamp(min=0)])
    at = own.record_instances
    assert at is not None
    told = votes >= 0
    named = votes.clamp(min=0)
    right = posterior[at, named]
    best_probability, best = posterior.max(dim=1)
    wrong = posterior.sum(dim=1)[at] - right
    nats = torch.zeros_like(right)
    table = own.record_log_prob(posterior.dtype)
    logs = posterior.clamp(min=1e-300).log()
    for rows in told.nonzero()[:, 0].split(max(CHUNK // posterior.shape[1], 1)):
        others = logs[at[rows]] - table[rows]  # everything else that is known of the instance
        nats[rows] = others.amax(dim=1) - others.gather(1, named[rows][:, None])[:, 0]
    wrong = torch.where(told, wrong, 0.0)
    found = JudgedPart(
        given=array(votes),
        proposed=array(best[at]),
        probability=array(best_probability[at]),
        wrong=array(wrong),
        nats=array(torch.where(told, nats, 0.0).clamp(min=0)),
        names=part.class_names,
        transition=None,
        error=float(wrong[told].mean()) if bool(told.any()) else 0.0,
    )
    return found, posterior


def _with_features(own: Crowd | Rules, log_probs: Tensor) -> Tensor:
    """P(class | x, votes), (N, K); fits the channel of the votes in place."""
    log_probs = log_probs.double().clamp(min=FLOOR)
    sharp = Sharpness.of(1, log_probs.shape[1], log_probs)

    def e_step(labels: Crowd | Rules) -> Tensor:
        joint = sharp.logits(log_probs) + labels.log_evidence(torch.float64)
        posterior = joint.softmax(dim=1)
        return torch.where(posterior.isnan(), log_probs.exp(), posterior)

    posterior = e_step(own)
    for _ in range(ROUNDS):
        sharp = sharp.learnt(log_probs, sharp.log_q(log_probs), posterior)
        own.update(posterior)
        posterior = e_step(own)
    if not isinstance(own, Crowd) or not isinstance(own.channel, TabularChannel):
        return posterior
    channel = own.channel  # items that are hard for everybody: their votes say less together than one by one
    hard = own.with_channel(Difficulty(channel.n_sources, channel.n_classes, votes=channel, votes_are_settled=True))
    posterior = e_step(hard)
    for _ in range(5):
        hard.update(posterior)
        posterior = e_step(hard)
    return posterior
