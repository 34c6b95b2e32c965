"""Votes of annotators and rules: several records of one instance, from sources that err in ways of their own."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from anygrain.audit.judged import JudgedPart, array
from anygrain.labels import Crowd, Difficulty, IdentifiabilityWarning, Rules, aggregate
from anygrain.labels.channels.tabular import TabularChannel
from anygrain.robust.label_noise import FLOOR, Sharpness

ROUNDS = 20
HARD_ROUNDS = 5
CHUNK = 2**21


def judge_votes(
    part: Crowd | Rules, log_probs: Tensor | None, beside: Tensor | None = None
) -> tuple[JudgedPart, Tensor]:
    r"""Judge votes, and say what is believed of the instances given all of them, (N, K).

    .. math:: P(v_r \text{ is wrong}) = 1 - P(y_{i_r} = v_r \mid x, \text{all votes})

    With log-probabilities, the sources' channels are learnt by EM, from where the votes alone put them, and the
    sharpness of the log-probabilities from what the votes say without them: a model that learnt from the same votes
    shares their errors, and is not to confirm itself. Without, the votes alone decide (`aggregate`). Rules that see x
    (`given_x`) say what the model learnt to say: their product with it would count x twice, and nothing tells how much
    of it is new, so what is believed is the mean of that product and of what the rules say alone.

    Args:
        part: its channel stays as it is.
        log_probs: (N, K), normalised, or None.
        beside: log evidence of other labels, (N, K), which is as sure as it says; needs log-probabilities.
    """
    own = part.with_own_channels()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        alone = aggregate(own)
    posterior = (
        alone.posterior.double()
        if log_probs is None
        else _with_features(own, log_probs, alone.posterior.double(), 0.0 if beside is None else beside.double())
    )
    if log_probs is not None and part.given_x:
        rest = alone.posterior.double().clamp(min=1e-300).log() + (0.0 if beside is None else beside.double())
        posterior = (posterior + rest.softmax(dim=1)) / 2
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


def _with_features(own: Crowd | Rules, log_probs: Tensor, alone: Tensor, beside: Tensor | float) -> Tensor:
    """P(class | x, all labels), (N, K), from what votes say alone; fits the channel of the votes in place."""
    log_probs = log_probs.double().clamp(min=FLOOR)
    sharp = Sharpness.of(1, log_probs.shape[1], log_probs)
    log_shares = alone.clamp(min=1e-12).mean(dim=0).log()

    def believed(evidence: Tensor, prior: Tensor) -> Tensor:
        found = (prior + evidence + beside).softmax(dim=1)
        return torch.where(
            found.isnan(), (prior + beside).softmax(dim=1), found
        )  # votes that rule every class out say nothing

    posterior = believed(own.log_evidence(torch.float64), log_probs)
    for _ in range(ROUNDS):
        own.update(posterior)
        evidence = own.log_evidence(torch.float64)
        said = believed(evidence, log_shares.expand_as(evidence))
        sharp = sharp.learnt(log_probs, sharp.log_q(log_probs), said)
        posterior = believed(evidence, sharp.logits(log_probs))
    if not isinstance(own, Crowd) or not isinstance(own.channel, TabularChannel):
        return posterior
    channel = own.channel  # items that are hard for everybody: their votes say less together than one by one
    hard = own.with_channel(Difficulty(channel.n_sources, channel.n_classes, votes=channel, votes_are_settled=True))
    logits = sharp.logits(log_probs)
    for _ in range(HARD_ROUNDS):
        hard.update(posterior)
        posterior = believed(hard.log_evidence(torch.float64), logits)
    return posterior
