"""What to label next where the truth is a number: rows, and whom to ask for a rating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anygrain.audit.ask.choose import as_tensor, pool_of
from anygrain.audit.ask.diverse import drawn_by_gradient, k_center, spread
from anygrain.labels import LabelError
from anygrain.labels.real.rating_channel import RatingChannel

#: what `choose_numbers(by=...)` knows, and what it prefers
NUMBER_STRATEGIES = {
    "variance": "most expected reduction of the row's own variance per cost",
    "model_variance": "most expected reduction of the variance of all rows' predictions per cost",
    "badge": "uncertain and unlike each other",
    "k_center": "far from everything labelled",
    "random": "anything",
}
BLOCK = 1 << 22  # numbers of the table rows x features that are held at once


@dataclass(frozen=True)
class NumberQuestion:
    r"""A reading of the number of a row: :math:`a = y + e, \; e \sim N(0, s^2)`.

    Attributes:
        name: shown to the people who answer, such as "the number", "a rating of anna".
        noise: s, in the number's unit; 0 is somebody who is right.
        cost: of one answer, in any unit.
    """

    name: str = "the number"
    noise: float = 0.0
    cost: float = 1.0

    def __post_init__(self) -> None:
        if not self.cost > 0:
            raise LabelError(f'the question "{self.name}" costs {self.cost}; expected a number above 0')
        if not 0 <= self.noise < float("inf"):
            raise LabelError(f'answers to "{self.name}" have a noise of {self.noise}; expected a number from 0 on')

    @classmethod
    def rating(cls, channel: RatingChannel, annotator: int, cost: float = 1.0, *, name: str = "") -> NumberQuestion:
        """A rating of an annotator, as noisy as the channel has found; -1 is somebody unknown.

        A bias that is known costs nothing; who uses little of the scale is read with as much more noise.
        """
        slope, _, variance = channel.reading(torch.tensor([annotator]))
        title = name or (f"a rating of annotator {annotator}" if annotator >= 0 else "a rating of anybody")
        return cls(title, float((variance / slope.square()).sqrt()), cost)


@dataclass(frozen=True)
class AskedNumbers:
    """Rows to label, the first one first.

    Attributes:
        rows: indices of rows, (n,).
        question: index of the question to ask of each, (n,).
        gain: by how much each answer is expected to reduce the variance of its row, (n,).
        score: what the rows were chosen by, (n,); NaN where a strategy draws and has none.
        mean, sd: what the model takes the number to be, (n,) each.
        questions: what `question` points to.
        by: the strategy.
    """

    rows: Tensor
    question: Tensor
    gain: Tensor
    score: Tensor
    mean: Tensor
    sd: Tensor
    questions: tuple[NumberQuestion, ...]
    by: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def cost(self) -> Tensor:
        """Of every answer, (n,)."""
        return torch.tensor([q.cost for q in self.questions], dtype=torch.double)[self.question]

    def to_pandas(self) -> Any:
        """A data frame, a row per question: row, question, cost, gain, score, mean, sd."""
        import pandas as pd

        return pd.DataFrame(
            {
                "row": self.rows.numpy(),
                "question": [self.questions[q].name for q in self.question.tolist()],
                "cost": self.cost.numpy(),
                "gain": self.gain.numpy(),
                "score": self.score.numpy(),
                "mean": self.mean.numpy(),
                "sd": self.sd.numpy(),
            }
        )


def variance_reduction(variance: Tensor, question: NumberQuestion) -> Tensor:
    r"""By how much an answer is expected to reduce the variance v of its row, (N,).

    .. math:: v - \Big(\frac1v + \frac{1}{s^2}\Big)^{-1} = \frac{v^2}{v + s^2}

    It does not depend on what is answered. A second rating of a row whose first was noisy may bring more than the first
    one of a row that the model is sure of.

    Args:
        variance: of every row given all that is known of it, (N,).
        question: with its noise s.
    """
    return variance.square() / (variance + question.noise**2).clamp(min=1e-300)


def model_variance_reduction(
    variance: Tensor,
    features: Tensor,
    n: int,
    *,
    noise: Tensor | None = None,
    cost: Tensor | None = None,
    pool: Tensor | None = None,
    known: Tensor | None = None,
    penalty: float = 0.01,
) -> tuple[Tensor, Tensor]:
    r"""Rows by how much their answers reduce the variance of what a linear model says of all rows, greedily.

    .. math:: g_j = \frac{1}{c_j} \frac{\sum_i (h_i^\top \Sigma h_j)^2}{v_j + s_j^2 + h_j^\top \Sigma h_j}, \qquad
              \Sigma^{-1} = \lambda I + \sum_{l\;\mathrm{known}} \frac{h_l h_l^\top}{v_l + s_l^2}

    which is exact for a linear model with noise v: the reduction does not depend on the answers, so every choice counts
    for the next, and a batch holds no near copies.

    Args:
        variance: v, (N,).
        features: h, (N, D); a constant is added.
        n: rows to choose.
        noise: s, standard deviation of the answers, (N,); 0 when not given.
        cost: c, (N,); 1 when not given.
        pool: rows that may be chosen, (m,) indices; all when not given.
        known: rows that are labelled already, (l,) indices.
        penalty: lambda, in units of one over the mean variance.

    Returns:
        Rows in the order chosen and their g, (n,) each.

    Source: Cohn, Ghahramani and Jordan, Active Learning with Statistical Models, 1996.
    """
    h = torch.cat([features, features.new_ones(len(features), 1)], dim=1).double()
    v = variance.double().clamp(min=1e-12)
    read = v if noise is None else v + noise.double().square()
    price = torch.ones_like(v) if cost is None else cost.double()
    precision = penalty / float(v.mean()) * torch.eye(h.shape[1], dtype=torch.double)
    if known is not None and len(known):
        precision = precision + (h[known] / read[known, None]).T @ h[known]
    seen = torch.linalg.solve(precision, h.T).T  # rows of features times Sigma
    own = (seen * h).sum(dim=1)
    free = torch.zeros(len(h), dtype=torch.bool)
    free[torch.arange(len(h)) if pool is None else pool] = True
    # sum_i (h_i Sigma h_j)^2 = h_j Sigma H'H Sigma h_j
    total = torch.cat([(block @ (h.T @ h) * block).sum(dim=1) for block in seen.split(max(1, BLOCK // h.shape[1]))])
    rows, gains = [], []
    for _ in range(n):
        gain = (total / (read + own) / price).masked_fill(~free, -torch.inf)
        j = int(gain.argmax())
        rows.append(j)
        gains.append(float(gain[j]))
        free[j] = False
        # Sigma loses Sigma h h' Sigma / (read + own): so do all that is made of it
        ahead, scale = seen[j].clone(), float(read[j] + own[j])
        cross = h @ ahead  # h_i Sigma h_j
        with_all = seen @ (h.T @ cross)  # h_i Sigma sum_l h_l (h_l Sigma h_j)
        total = total - 2 * cross * with_all / scale + cross.square() * float(cross @ cross) / scale**2
        own = own - cross.square() / scale
        seen = seen - torch.outer(cross, ahead) / scale
    return torch.tensor(rows), torch.tensor(gains, dtype=torch.double)


def choose_numbers(
    mean: Any,
    variance: Any,
    n: int,
    *,
    by: str = "variance",
    questions: Sequence[NumberQuestion] = (),
    may_ask: Any = None,
    features: Any = None,
    known: Any = None,
    seed: int = 0,
) -> AskedNumbers:
    """Rows whose number to ask for next, and whom to ask.

    Args:
        mean, variance: of every row given all that is known of it, (N,) each: `learner.posterior(...)` where there are
            ratings, so that a second rating of an old row competes with a first one of a new row.
        n: how many rows.
        by: a key of `NUMBER_STRATEGIES`.
        questions: what may be asked; the number itself when empty. Of each row the one with most expected reduction of
            variance per cost is asked, whatever the strategy.
        may_ask: bool (N,), rows that may be chosen, or (N, Q), what may be asked of each; all by default.
        features: (N, D). With them, "variance" spreads rows over the data; "model_variance", "badge" and "k_center"
            need them.
        known: rows that are labelled already, bool (N,); those that may not be asked for when not given.
        seed: of all that is drawn.

    Raises:
        LabelError: an unknown strategy, what it needs is missing, a negative variance, more rows than may be asked.
    """
    if by not in NUMBER_STRATEGIES:
        raise LabelError(f'by="{by}" is not known; expected one of {", ".join(NUMBER_STRATEGIES)}')
    centre, v = as_tensor(mean).double(), as_tensor(variance).double()
    if centre.dim() != 1 or centre.shape != v.shape:
        raise LabelError(
            f"mean and variance have shapes {tuple(centre.shape)} and {tuple(v.shape)}; expected (N,) twice"
        )
    if bool((v < 0).any()) or not bool(v.isfinite().all()):
        raise LabelError("a variance is negative, infinite or NaN; expected numbers from 0 on")
    asked_of = tuple(questions) or (NumberQuestion(),)
    pool, which = pool_of(may_ask, len(v), len(asked_of), n)
    if by in ("model_variance", "badge", "k_center") and features is None:
        raise LabelError(f'by="{by}" needs features=...')
    generator = torch.Generator().manual_seed(seed)
    gain = torch.stack([variance_reduction(v, q) for q in asked_of], dim=1)
    cost = torch.tensor([q.cost for q in asked_of], dtype=torch.double)
    noise = torch.tensor([q.noise for q in asked_of], dtype=torch.double)
    per_cost = gain / cost
    best = (per_cost if which is None else per_cost.masked_fill(~which, -torch.inf)).max(dim=1)
    question, score = best.indices, best.values
    seen = None if features is None else as_tensor(features).double()
    told = torch.ones(len(v), dtype=torch.bool).index_fill_(0, pool, False)
    if known is not None:
        told = as_tensor(known).bool()
    if by == "random":
        rows = pool[torch.randperm(len(pool), generator=generator)[:n]]
    elif by == "variance":
        worth = score[pool]
        at = worth.argsort(descending=True, stable=True)[:n]
        rows = pool[at if seen is None else spread(worth, seen[pool], n, generator=generator)]
    else:
        assert seen is not None
        if by == "badge":
            rows = pool[drawn_by_gradient(v[pool].sqrt()[:, None], seen[pool], n, generator=generator)]
        elif by == "k_center":
            place = torch.cat([pool, told.nonzero()[:, 0]])
            old = torch.arange(len(pool), len(place))
            rows = place[k_center(seen[place], n, old)]
        else:
            rows, found = model_variance_reduction(
                v, seen, n, noise=noise[question], cost=cost[question], pool=pool, known=told.nonzero()[:, 0]
            )
            score = score.index_put((rows,), found)
    chosen = question[rows]
    return AskedNumbers(
        rows=rows,
        question=chosen,
        gain=gain[rows].gather(1, chosen[:, None])[:, 0],
        score=score[rows] if by in ("variance", "model_variance") else torch.full((len(rows),), torch.nan),
        mean=centre[rows],
        sd=v[rows].sqrt(),
        questions=asked_of,
        by=by,
    )
