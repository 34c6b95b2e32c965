"""The noise of labels that name a class, told from the doubt of the model that predicts them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: share of wrong labels that any set is taken to have at least: none is known to be clean
LEAST_NOISE = 0.01
#: labels that the common share of errors is worth for a class, beside a tenth of its own, where errors are seen for
#: certain; more where they are not, up to the second number
SHRINK, MOST_SHRINK = 100.0, 1000.0
#: errors that the common shares of where they go are worth: for each class that they may go to, and at most
SHRINK_WHERE, MOST_WHERE = 4.0, 40.0
#: smallest log-probability: a model that rules the truth out is not believed that far
FLOOR = math.log(1e-12)
#: entries of the table of log-probabilities that sharpness is learnt from
FIT_ENTRIES = 2**18
#: tables up to this size are used whole
WHOLE = 2**21
CHUNK = 2**17
ROUNDS = 25
#: steps to probabilities of the labels as they are, where the rounds start, so that a temperature changes nothing
STARTING = 4
#: weight of certainty in the objective: among explanations that are as likely, the one with the surest classes
CERTAINTY = 0.005
#: change of the mean log-likelihood below which the rounds end
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Sharpness:
    r"""What turns the log-probabilities of a model into those of the true class.

    .. math:: q(x) = \mathrm{softmax}(a \log p(x) + b)

    A model that learnt from noisy labels predicts noisy labels: it is flatter than the truth, by a > 1.

    Attributes:
        a: a scalar.
        b: shape (G, K), a row per group.
    """

    a: Tensor
    b: Tensor

    @classmethod
    def of(cls, groups: int, n_classes: int, like: Tensor) -> Sharpness:
        """a = 1 and b = 0."""
        return cls(like.new_ones(()), like.new_zeros(groups, n_classes))

    def logits(self, log_probs: Tensor, group: Tensor | None = None) -> Tensor:
        """a log p + b, shape (N, K)."""
        return torch.addcmul(self.b if group is None else self.b[group], log_probs, self.a)

    def log_q(self, log_probs: Tensor, group: Tensor | None = None) -> Tensor:
        """log q, shape (N, K)."""
        return self.logits(log_probs, group).log_softmax(dim=1)

    def learnt(self, log_probs: Tensor, log_q: Tensor, posterior: Tensor, group: Tensor | None = None) -> Sharpness:
        r"""After a step of Newton in a and in b, from log q (N, K), towards the maximum of

        .. math:: \sum_i \sum_k r_{ik} \log q_{ik} - c \sum_i H(q_i) - b^2 / 2

        for posteriors r (N, K), with H the entropy and c = `CERTAINTY`.
        """
        q = log_q.exp()
        entropy = (q * log_q).sum(dim=1, keepdim=True)
        slope = torch.addcmul(posterior, q, (log_q - entropy).mul_(CERTAINTY).sub_(1))
        weighed, flat = q * log_probs, log_probs.reshape(-1)
        bend = weighed.reshape(-1).dot(flat) - weighed.sum(dim=1).square().sum()
        step = slope.reshape(-1).dot(flat) / (bend + 1)
        a = torch.maximum(torch.minimum(self.a + step, 1.5 * self.a), self.a / 1.5).clamp(0.05, 20.0)
        curve = torch.addcmul(q, q, q, value=-1)
        if group is None:
            slope, curve = slope.sum(dim=0, keepdim=True), curve.sum(dim=0, keepdim=True)
        else:
            slope = torch.zeros_like(self.b).index_add_(0, group, slope)
            curve = torch.zeros_like(self.b).index_add_(0, group, curve)
        # where q is sure of nearly all rows the curve says nothing of how far to go
        return Sharpness(a, self.b + ((slope - self.b) / (curve + 1)).clamp(-1.0, 1.0))


@dataclass(frozen=True)
class Noise:
    r"""How wrong labels come about: the truth is seen through a transition matrix.

    .. math:: P(v \mid x) = \sum_k q_k(x) T_{kv}, \qquad
              P(y = k \mid x, v) = \frac{q_k(x) T_{kv}}{\sum_l q_l(x) T_{lv}}

    Attributes:
        sharpness: from p(x) to q(x).
        transition: T, shape (G, K, K), a matrix per group, rows are the truth.
        prior: share of every class among the true ones, shape (G, K).
        log_likelihood: mean log P(v | x) of the labels that the sharpness was learnt from.
    """

    sharpness: Sharpness
    transition: Tensor
    prior: Tensor
    log_likelihood: float


def learn_noise(log_probs: Tensor, given: Tensor, group: Tensor | None = None, groups: int = 1) -> Noise:
    r"""Estimate sharpness and transition together, by expectation maximisation on the likelihood of the labels.

    .. math:: \max_{a, b, T} \sum_i \log \sum_k q_{ik} T_{k v_i} - c \sum_i H(q_i) + \log p(T, b), \qquad
              q_i = \mathrm{softmax}(a \log p(x_i) + b)

    Cross-fitted probabilities predict the labels as they are, errors included, so p alone explains them and shows no
    noise at all. But however sure the model gets, labels with class-dependent noise stay wrong at the same rate: the
    likelihood is higher with a sharper q and a T that says so, than with a p that never saturates. Where doubt of the
    model explains the labels, a stays near 1 and T near the identity. A p that is exactly the probability of the noisy
    labels leaves both explanations open: then the small weight c of certainty H(q) decides, and noise is told too low.

    Errors of a class are shrunk towards those of all classes, and where they go towards the shares of the labels.
    EM starts where q fits the labels as they are, from the confident joint (Northcutt, Jiang and Chuang, Confident
    Learning, 2021): each label counts for the likeliest class among those with a probability above their mean over the
    labels of that class.

    Where p does not favour the labels at all, by :math:`\sum_i \log p_{v_i}(x_i) \le \sum_i \sum_k s_k \log p_k(x_i)`
    with s the shares of the labels, it says nothing of them (least of all that all are wrong): a is 0, q the shares.

    Args:
        log_probs: log p(x), shape (N, K), normalised.
        given: v, shape (N,), -1 is missing.
        group: of every row, 0..G-1, shape (N,): groups have matrices of their own, shrunk towards the common one.
        groups: G.
    """
    k = log_probs.shape[1]
    known = (given >= 0).nonzero()[:, 0]
    some = known
    most = max(FIT_ENTRIES // k, 2000)
    if len(known) * k > WHOLE and len(known) > most:
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:most]
        some = known[order.to(known.device).sort().values]
    shares = torch.bincount(given[known], minlength=k).to(log_probs) + 1
    shares = shares / shares.sum()
    few, label = _floored(log_probs[some]), given[some]
    of = None if group is None else group[some]
    sharp = Sharpness.of(groups, k, few)
    if len(some) and not _tells(few, label, of, groups):
        return _of_shares(label, of, groups, k, sharp)
    for _ in range(STARTING if len(some) else 0):
        sharp = sharp.learnt(few, sharp.log_q(few, of), torch.nn.functional.one_hot(label, k).to(few), of)
    transition = transition_of(confident_counts(sharp.log_q(few, of), label, of, groups), shares)
    value, missing = 0.0, 0.0
    stages = [(ROUNDS, True)] if len(some) == len(known) else [(ROUNDS // 3, True), (ROUNDS // 5, False)]
    for rounds, free in stages:
        last = float("-inf")
        for _ in range(rounds if len(some) else 0):
            log_q = sharp.log_q(few, of)
            found, posterior = _posterior(log_q, transition, label, of)
            value = float(found.mean())
            if abs(value - last) < TOLERANCE:
                break
            last = value
            if free:
                missing = missing_information(posterior, label)
                transition = transition_of(_counts(posterior, label, of, groups), shares, missing)
            sharp = sharp.learnt(few, log_q, posterior, of)
        if free and len(some) < len(known):  # errors of rare kinds need all labels
            counts = torch.zeros_like(transition)
            step = max(CHUNK // k, 1)
            whole = len(known) == len(given)
            for start in range(0, len(known), step):
                rows = slice(start, start + step) if whole else known[start : start + step]
                part = None if group is None else group[rows]
                posterior = _posterior(sharp.log_q(_floored(log_probs[rows]), part), transition, given[rows], part)[1]
                counts += _counts(posterior, given[rows], part, groups)
            transition = transition_of(counts, shares, missing)
    prior = torch.zeros(groups, k, dtype=torch.float64, device=log_probs.device)
    q = sharp.logits(few, of).softmax(dim=1).double()
    prior.index_add_(0, torch.zeros_like(label) if of is None else of, q)
    prior = (prior + 1e-9) / (prior + 1e-9).sum(dim=1, keepdim=True)
    return Noise(sharp, transition, prior, value)


def _shares(given: Tensor, group: Tensor | None, groups: int, k: int, like: Tensor) -> Tensor:
    """Share of every class among given labels (n,), with one more of each, shape (G, K)."""
    place = given if group is None else group * k + given
    count = torch.bincount(place, minlength=groups * k).reshape(groups, k).to(like) + 1
    return count / count.sum(dim=1, keepdim=True)


def _tells(log_probs: Tensor, given: Tensor, group: Tensor | None, groups: int) -> bool:
    """Whether log-probabilities (n, K) favour the labels (n,) over labels that are drawn like them."""
    k = log_probs.shape[1]
    shares = _shares(given, group, groups, k, log_probs)
    own = log_probs.gather(1, given[:, None]).sum()
    drawn = (log_probs * (shares if group is None else shares[group])).sum()
    return bool(own > drawn)


def _of_shares(given: Tensor, group: Tensor | None, groups: int, k: int, sharp: Sharpness) -> Noise:
    """The noise of labels (n,) of which nothing else speaks."""
    shares = _shares(given, group, groups, k, sharp.b)
    counts = _counts(torch.nn.functional.one_hot(given, k).to(sharp.b), given, group, groups)
    overall = _shares(given, None, 1, k, sharp.b)[0]
    own = (shares if group is None else shares[group]).expand(len(given), k).gather(1, given[:, None])
    flat = Sharpness(torch.zeros_like(sharp.a), shares.log())
    return Noise(flat, transition_of(counts, overall), shares.double(), float(own.log().mean()))


@dataclass(frozen=True)
class Judged:
    """What is believed of every label, (N,) each.

    Attributes:
        right: P(the class given is true | x, label), 1 where no label is given.
        wrong: 1 - right, with all its digits.
        best: the likeliest true class given x and label, and its probability in `best_probability`.
        nats: log q of the likeliest class by x alone, less log q of the class given; 0 where no label is given.
    """

    right: Tensor
    wrong: Tensor
    best: Tensor
    best_probability: Tensor
    nats: Tensor


def judge(noise: Noise, log_probs: Tensor, given: Tensor, group: Tensor | None = None) -> Judged:
    """Judge labels (N,) under a model of their noise, for log-probabilities (N, K), in chunks."""
    n, k = log_probs.shape
    log_t = noise.transition.log().to(noise.sharpness.b)
    log_t = torch.cat([log_t, log_t.new_zeros(len(log_t), k, 1)], dim=2).transpose(1, 2).contiguous()  # (G, label, y)
    out = [log_probs.new_empty(n) for _ in range(4)]
    best = torch.empty(n, dtype=torch.long, device=log_probs.device)
    for rows in torch.arange(n, device=log_probs.device).split(max(CHUNK // k, 1)):
        at = slice(int(rows[0]), int(rows[-1]) + 1)
        label = given[at]
        here = None if group is None else group[at]
        z = noise.sharpness.logits(_floored(log_probs[at]), here)
        named = label.clamp(min=0)[:, None]
        out[0][at] = z.amax(dim=1) - z.gather(1, named)[:, 0]
        seen = torch.where(label < 0, k, label)
        z = z + (log_t[0][seen] if here is None else log_t[here, seen])
        top, which = z.max(dim=1, keepdim=True)
        z = z.sub_(top).exp_()
        total = z.sum(dim=1)
        own = z.gather(1, named)[:, 0]
        out[1][at] = own / total
        out[2][at] = z.scatter_(1, named, 0.0).sum(dim=1) / total
        out[3][at] = 1 / total
        best[at] = which[:, 0]
    nats, right, wrong, sure = out
    missing = given < 0
    return Judged(
        right.masked_fill(missing, 1.0), wrong.masked_fill(missing, 0.0), best, sure, nats.masked_fill(missing, 0.0)
    )


def confident_counts(log_probs: Tensor, given: Tensor, group: Tensor | None, groups: int) -> Tensor:
    """The confident joint, shape (G, K, K): the class that is confidently predicted, the label."""
    k = log_probs.shape[1]
    p = log_probs.exp()
    own = p.gather(1, given[:, None])[:, 0]
    place = given if group is None else group * k + given
    count = torch.bincount(place, minlength=groups * k).to(p)
    mean = torch.zeros_like(count).index_add_(0, place, own) / count.clamp(min=1)
    threshold = torch.where(count > 0, mean, torch.ones_like(mean)).reshape(groups, k)
    threshold = threshold[0] if group is None else threshold[group]
    top, best = torch.where(p >= threshold * (1 - 1e-6), p, -1.0).max(dim=1)
    sure = top >= 0
    seen = torch.nn.functional.one_hot(best, k).to(p) * sure[:, None]
    return _counts(seen, given, group, groups)


def missing_information(posterior: Tensor, given: Tensor) -> float:
    r"""Share of the information on errors that is missing, as it is not seen which labels are wrong, 0 to .9.

    .. math:: \gamma = \frac{\sum_i w_i (1 - w_i)}{n\, \bar w (1 - \bar w)}

    with w_i the probability that label i (n,) is wrong, by posteriors (n, K): the share of the variance that is left
    (Louis, Finding the observed information matrix when using the EM algorithm, 1982).
    """
    right = posterior.gather(1, given[:, None])[:, 0].double()
    mean = right.mean()
    return float(((right * (1 - right)).mean() / (mean * (1 - mean)).clamp(min=1e-12)).clamp(0.0, 0.9))


def transition_of(counts: Tensor, shares: Tensor, missing: float = 0.0) -> Tensor:
    r"""Transition matrices (G, K, K) from expected counts (G, K, K) of truth and label.

    .. math:: T_{kv} = (1 - \epsilon_k) [k = v] + \epsilon_k W_{kv}, \quad
              \epsilon_k = \frac{n_k^{\neq} + s_k \epsilon}{n_k + s_k}, \quad
              W_{kv} = \frac{n_{kv} + c\, w_{kv}}{n_k^{\neq} + c}

    with n the counts, epsilon the share of errors over all classes, w the shares of the labels. With several groups
    epsilon and w are those of all groups together, class by class. The strength s grows with the missing information,
    as `SHRINK` / (1 - gamma)^2: what a class seems to have of its own may then be doubt of the model about that class.
    """
    k = counts.shape[-1]
    other = ~torch.eye(k, dtype=torch.bool, device=counts.device)
    even = shares.double() * other
    even = even / even.sum(dim=1, keepdim=True).clamp(min=1e-300)
    total = counts.sum(dim=0).double()
    wrong = (total * other).sum()
    rate = ((wrong + 0.5) / (total.sum() + 1)).clamp(min=LEAST_NOISE)
    shrink = min(SHRINK / (1 - missing) ** 2, MOST_SHRINK)
    common = _shrunk(total, rate.expand(k), even, other, shrink)
    if len(counts) == 1:
        return common[None]
    rates = 1 - common.diagonal()
    where = common * other
    where = where / where.sum(dim=1, keepdim=True).clamp(min=1e-300)
    return _shrunk(counts.double(), rates, where, other, shrink)


def _shrunk(counts: Tensor, rate: Tensor, where: Tensor, other: Tensor, shrink: float) -> Tensor:
    """Matrices (..., K, K) of counts, errors shrunk towards rates (K,) and the shares where they go (K, K)."""
    if counts.shape[-1] == 1:
        return torch.ones_like(counts)
    wrong = counts * other
    made, all_of = wrong.sum(dim=-1), counts.sum(dim=-1)
    strength = shrink + all_of / 10
    error = (made + strength * rate) / (all_of + strength)
    even = min(SHRINK_WHERE * (counts.shape[-1] - 1), MOST_WHERE)
    to = (wrong + even * where) / (made + even)[..., None]
    return error[..., None] * to + torch.diag_embed(1 - error)


def _counts(posterior: Tensor, given: Tensor, group: Tensor | None, groups: int) -> Tensor:
    """Expected counts (G, K, K) of truth and label."""
    k = posterior.shape[1]
    place = given if group is None else group * k + given
    found = posterior.new_zeros(groups * k, k).index_add_(0, place, posterior)
    return found.reshape(groups, k, k).transpose(1, 2).double()


def _posterior(log_q: Tensor, transition: Tensor, given: Tensor, group: Tensor | None) -> tuple[Tensor, Tensor]:
    """log P(label | x) (n,) and P(truth | x, label) (n, K), where a label is given."""
    seen = transition.to(log_q).transpose(1, 2)
    joint = log_q.exp().mul_(seen[0][given] if group is None else seen[group, given])
    total = joint.sum(dim=1, keepdim=True)
    return total[:, 0].log(), joint / total


def _floored(log_probs: Tensor) -> Tensor:
    return log_probs.clamp(min=FLOOR)
