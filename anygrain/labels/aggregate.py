"""Posteriors and channels from labels alone, without features: expectation maximisation."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from anygrain.labels.all import All
from anygrain.labels.base import Labels
from anygrain.labels.channels import CHANNELS, channel_name
from anygrain.labels.channels.channel import Channel
from anygrain.labels.channels.confusion import Confusion
from anygrain.labels.channels.difficulty import Difficulty
from anygrain.labels.channels.tabular import TabularChannel
from anygrain.labels.crowd import Crowd
from anygrain.labels.error import LabelError
from anygrain.labels.exact import Exact
from anygrain.labels.identifiability import warn_of_permutation, warn_unidentified
from anygrain.labels.real.aggregate import RealAggregated, aggregate_values
from anygrain.labels.real.base import RealLabels

#: items from which the rivals of the classes are learnt
_ENOUGH = 20_000


@dataclass(frozen=True)
class Aggregated:
    """What labels say by themselves.

    Attributes:
        posterior: P(class | all labels), detached, shape (items, K).
        channels: the fitted channels of the labels.
        prior: class shares, shape (K,).
        log_likelihood: path of the penalised log-likelihood under the learnt penalty, one entry per iteration; it
            never falls.
        labels: the labels with these channels; `labels.log_evidence()` uses them.
        converged: whether the path had settled.
        held_out: mean log-likelihood of held-out items by channel name, where channels were compared; the chosen one
            is `channel_name`.
        pool: weight of each model of annotators in the posterior, where several were averaged.
        seen: items that channels and prior were fitted to.
    """

    posterior: Tensor
    channels: tuple[Channel, ...]
    prior: Tensor
    log_likelihood: Tensor
    labels: Labels
    converged: bool
    channel_name: str | None = None
    held_out: dict[str, float] | None = None
    pool: dict[str, float] | None = None
    seen: int = 0

    def update(self, votes: Crowd, *, iterations: int = 5) -> Aggregated:
        r"""What more votes, on other items, say together with all that were seen: without these at hand.

        .. math:: n_{wkv} \leftarrow n_{wkv} + \sum_{r \text{ new}} q_{i_r k} [w_r = w, v_r = v]

        Expected counts of the new votes are added to those of the channel, by EM over the new items alone, and the
        class shares likewise. What was believed of earlier items stays, so a stream differs from a fit to all votes at
        once by how much these beliefs would still have changed; that is little once the annotators are known. Memory
        is that of the new votes and of the channel, annotators x classes^2.

        Args:
            votes: of the same annotators, numbered as before, on N' new items.
            iterations: of EM.

        Returns:
            the posterior of the new items, (N', K), and channels, prior and labels as they are now; these stay as they
            are. Hard items are not allowed for as `aggregate` does with `pool`.

        Raises:
            LabelError: labels other than votes alone, a channel without tables, other classes or annotators.
        """
        old = self.labels
        if not isinstance(old, Crowd) or not isinstance(old.channel, TabularChannel):
            raise LabelError(
                "only votes alone, read by a channel with tables, can be updated; aggregate all labels anew"
            )
        if not isinstance(votes, Crowd) or old._columns is not None or votes._columns is not None:
            raise LabelError("an update takes a Crowd of the same classes as before")
        sizes, before = (votes.n_annotators, votes.n_classes), (old.n_annotators, old.n_classes)
        if sizes != before:
            raise LabelError(
                f"the new votes have {sizes[0]} annotators and {sizes[1]} classes, those before {before[0]} and "
                f"{before[1]}; number annotators as before (n_annotators={before[0]})"
            )
        new = votes.with_channel(copy.deepcopy(old.channel))
        channel = new.channel
        assert isinstance(channel, TabularChannel)
        counts, shares = channel.counts - channel.history, self.prior
        path = []
        for _ in range(iterations):
            value, posterior = _e_step(new, shares.log().to(self.posterior.dtype))
            path.append(value.sum(dtype=torch.float64))
            if new.weight is not None:
                posterior = posterior * new.weight.to(posterior)[:, None]
            channel.fit({"counts": counts + channel.statistics(new.channel_records, posterior)["counts"]})
            total = self.prior * (self.seen + len(self.prior)) + posterior.sum(dim=0, dtype=torch.float64)
            shares = total / total.sum()
        value, posterior = _e_step(new, shares.log().to(self.posterior.dtype))
        path.append(value.sum(dtype=torch.float64))
        seen = self.seen + new.n_instances
        return Aggregated(
            posterior, (channel,), shares, torch.stack(path), new, True, channel_name=self.channel_name, seen=seen
        )


@overload
def aggregate(labels: RealLabels, *, iterations: int = ..., tolerance: float = ...) -> RealAggregated: ...


@overload
def aggregate(
    labels: Labels,
    *,
    channel: str | Sequence[str] | None = None,
    prior: Tensor | None = None,
    iterations: int = 50,
    tolerance: float = 1e-5,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    pool: bool = True,
) -> Aggregated: ...


def aggregate(
    labels: Labels | RealLabels,
    *,
    channel: str | Sequence[str] | None = None,
    prior: Tensor | None = None,
    iterations: int = 50,
    tolerance: float = 1e-5,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    pool: bool = True,
) -> Aggregated | RealAggregated:
    r"""Fit the channels of labels and the class prior by EM, without features.

    .. math:: \max_{\theta, \pi} \sum_i w_i \log \sum_k \pi_k P(o_i \mid y_i = k, \theta) + \log p(\theta) +
              \sum_k (1 + h N \tilde\pi_k) \log \pi_k

    with h the `share_hold` of the channels, 0 but for rules that depend on each other, and :math:`\tilde\pi` the shares
    of `Exact` labels beside them, even ones where there are none. Channels start as they are: new ones at their prior,
    so the first posterior is a weighted majority. In a first phase each step also learns the penalty (pooled
    parameters, strength of shrinkage) by marginal likelihood; then the penalty stands and the objective never falls.
    Channels are fitted in place.

    *Votes.* Models of annotators that take the votes on an item as independent are far too sure of items that are hard
    for everybody, and which of them is right most often differs from crowd to crowd without a trace in the likelihood.
    So with `pool` the posterior is

    .. math:: q = \sum_m a_m q_m, \qquad a_m \propto \exp(\text{log-likelihood per item of model } m)

    over the labels' own channel (when it has confusion matrices) and one-coin annotators; a model is preferred as one
    item would have it, not as all of them. Each :math:`q_m` keeps its fitted annotators and allows for hard items as
    the channel `Difficulty` does. `channels`, `prior` and `log_likelihood` are those of the labels' own channel.

    Labels of a number come to a mean and a variance per instance instead, see `RealAggregated`.

    Args:
        labels: any labels; parts without channels (gold, coarse, counts) take part as evidence.
        channel: for Crowd parts, the channel to use in place of theirs, by itself; "auto" or several names: the
            simplest whose log-likelihood of held-out items is within one standard error of the best.
        prior: class shares (K,), when they are known; else estimated.
        iterations: at most, in the second phase.
        tolerance: stop once the objective rises by less than this per item.
        dtype: of the posterior; float64 for up to 200,000 entries, else float32.
        seed: of the folds of items.
        pool: the average described above, for labels with votes, without other channels, when no `channel` is asked
            for; False: the labels' own channels as they are.

    Warns:
        IdentifiabilityWarning: where the labels leave the answer open, and where classes seem to have traded places.

    Raises:
        LabelError: a channel to choose for labels without votes, an unknown one, or a prior that is not shares.
    """
    if isinstance(labels, RealLabels):
        if channel is not None or prior is not None:
            raise LabelError("channel= and prior= are for labels of classes; these speak of a number")
        return aggregate_values(labels, iterations=iterations, tolerance=tolerance)
    warn_unidentified(labels)
    fitted = _aggregate(labels, channel, prior, iterations, tolerance, dtype, seed, pool)
    for part in _parts(fitted.labels):
        if isinstance(part, Crowd) and isinstance(part.channel, TabularChannel) and part._columns is None:
            warn_of_permutation(part.channel.pooled, labels.class_names)
    return fitted


def _aggregate(
    labels: Labels,
    channel: str | Sequence[str] | None,
    prior: Tensor | None,
    iterations: int,
    tolerance: float,
    dtype: torch.dtype | None,
    seed: int,
    pool: bool,
) -> Aggregated:
    if channel is not None:
        names = list(CHANNELS) if channel == "auto" else [channel] if isinstance(channel, str) else list(channel)
        names = [channel_name(n) for n in names]
        if not names:
            raise LabelError(f"no channel to choose from; there are {', '.join(CHANNELS)}")
        if not any(isinstance(p, Crowd) for p in _parts(labels)):
            raise LabelError("there are no votes whose channel could be chosen")
        held_out: dict[str, float] | None = None
        chosen = names[0]
        if len(names) > 1:
            chosen, held_out = choose_channel(labels, names, prior=prior, dtype=dtype, seed=seed)
        fitted = _fit(_with_channel(labels, chosen), prior, iterations, tolerance, dtype)
        return fitted.result(channel_name=chosen, held_out=held_out)
    if pool:
        return _pool(labels, prior, iterations, tolerance, dtype)
    return _fit(labels, prior, iterations, tolerance, dtype).result()


def choose_channel(
    labels: Labels,
    names: Sequence[str],
    *,
    prior: Tensor | None = None,
    folds: int = 3,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> tuple[str, dict[str, float]]:
    """The simplest channel (first of `names`) within one standard error of the best on held-out items.

    Items are held out whole, so the channel is judged on votes of items that it was not fitted to.

    Returns:
        its name, and the mean log-likelihood of a held-out item by channel.
    """
    groups = labels.groups()
    generator = torch.Generator().manual_seed(seed)
    fold = torch.randint(folds, (int(groups.max()) + 1,), generator=generator).to(groups.device)[groups]
    scores = []
    for name in names:
        score = torch.zeros(0, dtype=torch.float64)
        for held in range(folds):
            train = _with_channel(labels[fold != held], name)
            fit = _fit(train, prior, 10, 1e-3, dtype)
            test = _with_channels_of(labels[fold == held], fit.labels)
            score = torch.cat([score, _e_step(test, fit.prior.log().to(fit.posterior.dtype))[0].double().cpu()])
        scores.append(score)
    table = torch.stack(scores)
    mean = table.mean(dim=1)
    best = int(mean.argmax())
    gap = table[best] - table
    error = gap.std(dim=1) / max(table.shape[1], 1) ** 0.5
    within = gap.mean(dim=1) <= error
    within[best] = True
    return names[int(within.int().argmax())], dict(zip(names, mean.tolist(), strict=True))


class _Fit(NamedTuple):
    posterior: Tensor
    channels: tuple[Channel, ...]
    prior: Tensor
    path: Tensor
    labels: Labels
    converged: bool
    #: sum of the log-likelihood of the observations
    value: float

    def result(self, **also: Any) -> Aggregated:
        return Aggregated(*self[:6], seen=self.labels.n_instances, **also)


def _fit(
    labels: Labels,
    prior: Tensor | None,
    iterations: int,
    tolerance: float,
    dtype: torch.dtype | None,
    *,
    start: Tensor | None = None,
    learning: int = 8,
) -> _Fit:
    """EM from the channels as they are; `start` are the class shares to begin with, where they are not known.

    The first `learning` iterations also learn the penalty.
    """
    dtype = dtype or (torch.float64 if labels.n_instances * labels.n_classes <= 200_000 else torch.float32)
    k = labels.n_classes
    known = prior is not None
    shares = prior if prior is not None else start if start is not None else torch.full((k,), 1 / k)
    shares = torch.as_tensor(shares).double().to(labels.device)
    if shares.shape != (k,) or bool((shares < 0).any()) or not bool(shares.sum() > 0):
        raise LabelError(
            f"prior has shape {tuple(shares.shape)}; expected ({k},), a share of at least 0 for each class"
        )
    shares = shares / shares.sum()
    channels = tuple(dict.fromkeys(labels.channels))
    weight = None if labels.weight is None else labels.weight.double()
    instance_weight = None if labels.weight is None else labels.instance_weight().to(dtype)

    even = _shares_given(labels)
    rows = float(labels.n_instances if instance_weight is None else instance_weight.sum())

    def hold() -> Tensor:
        """Pseudo-rows of every class (K,): one each, and those that dependent sources are worth."""
        return 1 + sum(c.share_hold for c in channels) * rows * even

    def m_step(posterior: Tensor) -> None:
        nonlocal shares
        labels.update(posterior)
        if not known:
            weighted = posterior if instance_weight is None else posterior * instance_weight[:, None]
            total = weighted.sum(dim=0, dtype=torch.float64) + hold()
            shares = total / total.sum()

    def total_of(value: Tensor) -> Tensor:
        return value.sum(dtype=torch.float64) if weight is None else (value.double() * weight).sum()

    def penalised(value: Tensor) -> Tensor:
        penalty = sum((c.log_prior().double() for c in channels), torch.zeros((), dtype=torch.float64))
        total = total_of(value)
        return total + penalty.to(total) + (0 if known else hold() @ shares.log())

    was_settled = [c.prior_is_settled for c in channels]
    value, posterior = _e_step(labels, shares.log().to(dtype))
    gold = _gold(labels)
    if learning and gold is not None:  # what is known for certain comes first, so that it names the classes
        labels.update(posterior * gold[:, None])
        value, posterior = _e_step(labels, shares.log().to(dtype))
    try:
        for _ in range(learning if channels else 0):
            m_step(posterior)
            value, posterior = _e_step(labels, shares.log().to(dtype))
        for c in channels:
            c.prior_is_settled = True
        path = [penalised(value)]
        converged = False
        for _ in range(iterations):
            m_step(posterior)
            value, posterior = _e_step(labels, shares.log().to(dtype))
            path.append(penalised(value))
            if path[-1] - path[-2] < tolerance * labels.n_instances:
                converged = True
                break
    finally:
        for c, was in zip(channels, was_settled, strict=True):
            c.prior_is_settled = was
    if path[-1] < path[-2] if len(path) > 1 else False:  # by rounding, once nothing moves any more
        path.pop()
    return _Fit(posterior, channels, shares, torch.stack(path), labels, converged, float(total_of(value)))


def _pool(
    labels: Labels, prior: Tensor | None, iterations: int, tolerance: float, dtype: torch.dtype | None
) -> Aggregated:
    """The labels' own fit, its posterior averaged with that of one-coin annotators, hard items allowed for."""
    own = _fit(labels, prior, iterations, tolerance, dtype)
    crowds = [p for p in _parts(labels) if isinstance(p, Crowd)]
    of_crowds = {id(p.channel) for p in crowds}
    # other channels, of rules or noise, would have to be fitted anew with each model of the annotators
    others = any(id(c) not in of_crowds for c in labels.channels)
    if not crowds or others or not all(isinstance(p.channel, TabularChannel | Difficulty) for p in crowds):
        return own.result()
    fits = [own]
    if all(isinstance(p.channel, Confusion | Difficulty) for p in crowds):
        fits.append(_fit(_with_channel(labels, "one_coin"), prior, iterations, tolerance, dtype))
    voted = torch.zeros(labels.n_instances, dtype=torch.bool, device=labels.device)
    for p in crowds:
        voted[p.items[p.votes >= 0]] = True
    level = torch.tensor([f.value for f in fits], dtype=torch.float64) / max(int(voted.sum()), 1)
    share = torch.softmax(level, dim=0)
    share = torch.where(share < 0.01, 0.0, share)
    share = share / share.sum()
    posterior = torch.zeros_like(own.posterior)
    for fit, weight in zip(fits, share.tolist(), strict=True):
        if weight:
            hard = _with_hard_items(fit.labels)
            few = hard[:: max(hard.n_rows // _ENOUGH, 1)] if isinstance(hard, Crowd) else hard
            rivals = _fit(few, prior, 5, tolerance, dtype, start=fit.prior, learning=0)
            log_prior = rivals.prior.log().to(posterior.dtype)
            posterior += weight * (rivals.posterior if few is hard else _e_step(hard, log_prior)[1])
    names = [type(crowds[0].channel).__name__, "OneCoin"]
    pool = dict(zip(names, share.tolist(), strict=False))
    return dataclasses.replace(own.result(pool=pool), posterior=posterior)


def _shares_given(labels: Labels) -> Tensor:
    """Class shares (K,) of `Exact` labels, with one row more for every class; even without any."""
    count = torch.ones(labels.n_classes, dtype=torch.float64, device=labels.device)
    for part in _parts(labels):
        if isinstance(part, Exact):
            count += torch.bincount(part.labels[part.labels >= 0], minlength=labels.n_classes)
    return count / count.sum()


def _gold(labels: Labels) -> Tensor | None:
    """bool, shape (N,): items whose class is given outright beside votes; None where there are none."""
    parts = _parts(labels)
    given = [p.labels >= 0 for p in parts if isinstance(p, Exact)]
    if not given or not any(isinstance(p, Crowd) for p in parts):
        return None
    gold = torch.stack(given).any(dim=0)
    return gold if bool(gold.any()) else None


def _with_hard_items(labels: Labels) -> Labels:
    """The same labels, where the votes on an item depend on each other; the channels of the votes stay as they are."""

    def hard(part: Labels) -> Labels:
        if not isinstance(part, Crowd) or not isinstance(part.channel, TabularChannel):
            return part
        channel = part.channel
        return part.with_channel(
            Difficulty(channel.n_sources, channel.n_classes, votes=channel, votes_are_settled=True)
        )

    parts = [hard(p) for p in _parts(labels)]
    return All(*parts) if isinstance(labels, All) else parts[0]


def _e_step(labels: Labels, log_prior: Tensor) -> tuple[Tensor, Tensor]:
    """Log-likelihood (M,) and posterior (N, K) where every instance has the class prior."""
    if not isinstance(labels, Crowd):
        return labels.infer(log_prior.expand(labels.n_instances, -1).contiguous())
    table = labels.log_evidence(log_prior.dtype).add_(log_prior)
    value = torch.logsumexp(table, dim=1)
    return value, table.sub_(value[:, None]).exp_()


def _parts(labels: Labels) -> Sequence[Labels]:
    return labels.parts if isinstance(labels, All) else [labels]


def _with_channel(labels: Labels, name: str) -> Labels:
    parts = [p.with_channel(name) if isinstance(p, Crowd) else p for p in _parts(labels)]
    return All(*parts) if isinstance(labels, All) else parts[0]


def _with_channels_of(labels: Labels, fitted: Labels) -> Labels:
    """Labels whose votes are read by the channels of others."""
    parts = [
        p.with_channel(f.channel) if isinstance(p, Crowd) and isinstance(f, Crowd) else p
        for p, f in zip(_parts(labels), _parts(fitted), strict=True)
    ]
    return All(*parts) if isinstance(labels, All) else parts[0]
