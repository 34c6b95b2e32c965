"""What to label next where every row has any number of tags: whole rows, or single tags of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anygrain.audit.ask.choose import as_tensor, pool_of
from anygrain.audit.ask.diverse import drawn_apart, drawn_by_gradient, k_center, spread
from anygrain.audit.ask.evidence_gain import Question, best_question, evidence_gain
from anygrain.labels import LabelError

#: what `choose_tags(by=...)` knows, and what it prefers
TAG_STRATEGIES = {
    "evidence_gain": "most expected evidence per cost, summed over the tags that are asked about",
    "badge": "unsure and unlike each other",
    "k_center": "far from everything labelled",
    "random": "anything",
}
POOL = 10  # times n questions are looked at where they are spread


@dataclass(frozen=True)
class AskedTags:
    """Rows, or tags of rows, to label, the first one first.

    Attributes:
        rows: indices of rows, (n,).
        tag: which tag is asked about, (n,); -1: all that are not known.
        question: index of the question to ask of each, (n,).
        gain: expected evidence of each answer, in nats, (n,).
        score: what was chosen by, (n,); NaN where a strategy draws and has none.
        probability: P(on) of every tag of the rows, (n, L).
        questions: what `question` points to.
        by: the strategy.
    """

    rows: Tensor
    tag: Tensor
    question: Tensor
    gain: Tensor
    score: Tensor
    probability: Tensor
    questions: tuple[Question, ...]
    by: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def cost(self) -> Tensor:
        """Of every answer, (n,)."""
        return torch.tensor([q.cost for q in self.questions], dtype=torch.double)[self.question]

    def to_pandas(self) -> Any:
        """A data frame, a row per question: row, tag, question, cost, gain, score."""
        import pandas as pd

        return pd.DataFrame(
            {
                "row": self.rows.numpy(),
                "tag": self.tag.numpy(),
                "question": [self.questions[q].name for q in self.question.tolist()],
                "cost": self.cost.numpy(),
                "gain": self.gain.numpy(),
                "score": self.score.numpy(),
            }
        )


def choose_tags(
    probability: Any,
    n: int,
    *,
    by: str = "evidence_gain",
    single: bool = False,
    questions: Sequence[Question] = (),
    unknown: Any = None,
    may_ask: Any = None,
    features: Any = None,
    seed: int = 0,
) -> AskedTags:
    r"""Rows whose tags to ask for next, or single tags of rows.

    Tags are taken to be independent given the row, so that the evidence of a row is the sum over its unknown tags,

    .. math:: I(a_i; y_i) = \sum_{l\;\mathrm{unknown}} I(a_{il}; y_{il}),

    for somebody who is right the sum of their entropies.

    Args:
        probability: P(on) of every tag of every row given all that is known, (N, L).
        n: how many questions.
        by: a key of `TAG_STRATEGIES`.
        single: whether a question is about one tag of a row and not about all its unknown ones.
        questions: what may be asked about a tag, with two answers for off and on; the truth when empty. The cost is
            that of the whole question: of a row, or of one tag where `single`.
        unknown: bool (N, L), tags that are not known yet; all by default.
        may_ask: bool (N,), rows that may be chosen; those with an unknown tag by default.
        features: (N, D). With them, "evidence_gain" spreads questions over the data; "badge" and "k_center" need them.
        seed: of all that is drawn.

    Raises:
        LabelError: an unknown strategy, what it needs is missing, a probability outside [0, 1], more than may be asked.
    """
    if by not in TAG_STRATEGIES:
        raise LabelError(f'by="{by}" is not known; expected one of {", ".join(TAG_STRATEGIES)}')
    on = as_tensor(probability).double()
    if on.dim() != 2 or not bool(((on >= 0) & (on <= 1)).all()):
        raise LabelError("probability must be P(on) of every row and tag, (N, L), from 0 to 1")
    asked_of = tuple(questions) or (Question.fine(2, names=("no", "yes")),)
    free = torch.ones_like(on, dtype=torch.bool) if unknown is None else as_tensor(unknown).bool()
    if free.shape != on.shape:
        raise LabelError(f"unknown has shape {tuple(free.shape)}; expected {tuple(on.shape)}")
    if may_ask is not None:
        free = free & as_tensor(may_ask).bool()[:, None]
    if by in ("badge", "k_center") and features is None:
        raise LabelError(f'by="{by}" needs features=...')
    seen = None if features is None else as_tensor(features).double()
    n_tags = on.shape[1]
    log_probs = torch.stack([1 - on, on], dim=2).clamp(min=1e-30).log().reshape(-1, 2)
    generator = torch.Generator().manual_seed(seed)
    if single:
        pool, _ = pool_of(free.reshape(-1), on.numel(), 1, n)
        question, score = best_question(log_probs[pool], asked_of)
        at = _single(by, score, on, seen, pool, n, generator)
        chosen, place = question[at], pool[at]
        rows, tag = place // n_tags, place % n_tags
        gains = torch.stack([evidence_gain(log_probs[place], q) for q in asked_of], dim=1)
        gain, score = gains.gather(1, chosen[:, None])[:, 0], score[at]
    else:
        pool, _ = pool_of(free.any(dim=1), len(on), 1, n)
        of_tags = torch.stack([evidence_gain(log_probs, q).reshape(on.shape) for q in asked_of], dim=2)
        of_rows = (of_tags * free[:, :, None]).sum(dim=1)
        per_cost = of_rows / torch.tensor([q.cost for q in asked_of], dtype=of_rows.dtype)
        best = per_cost.max(dim=1)
        rows = pool[_whole(by, best.values[pool], on, free, seen, pool, n, generator)]
        chosen, score = best.indices[rows], best.values[rows]
        tag, gain = torch.full_like(rows, -1), of_rows[rows].gather(1, chosen[:, None])[:, 0]
    return AskedTags(
        rows=rows,
        tag=tag,
        question=chosen,
        gain=gain,
        score=score if by == "evidence_gain" else torch.full_like(score, torch.nan),
        probability=on[rows],
        questions=asked_of,
        by=by,
    )


def _whole(
    by: str,
    score: Tensor,
    on: Tensor,
    free: Tensor,
    features: Tensor | None,
    pool: Tensor,
    n: int,
    generator: torch.Generator,
) -> Tensor:
    """Places in the pool of rows, (n,)."""
    if by == "random":
        return torch.randperm(len(pool), generator=generator)[:n]
    if features is None:
        return score.argsort(descending=True, stable=True)[:n]
    if by == "evidence_gain":
        return spread(score, features[pool], n, generator=generator)
    if by == "badge":  # gradients of the likeliest tags, those that are known have none
        residual = torch.where(free, on - on.round(), 0.0)
        return drawn_by_gradient(residual[pool], features[pool], n, generator=generator)
    told = torch.ones(len(on), dtype=torch.bool).index_fill_(0, pool, False).nonzero()[:, 0]
    order = torch.cat([pool, told])
    return k_center(features[order], n, torch.arange(len(pool), len(order)))


def _single(
    by: str, score: Tensor, on: Tensor, features: Tensor | None, pool: Tensor, n: int, generator: torch.Generator
) -> Tensor:
    """Places in the pool of tags of rows, (n,)."""
    if by == "random":
        return torch.randperm(len(pool), generator=generator)[:n]
    if by == "k_center":
        raise LabelError('by="k_center" tells rows apart and not their tags; expected single=False')
    best = score.topk(min(POOL * n, len(score)), sorted=True).indices
    if features is None:
        return best[:n]
    row, tag = pool[best] // on.shape[1], pool[best] % on.shape[1]
    h = features[row]
    # gradients e_l x h_i: other tags are at right angles, the same tag of near rows is nearly the same
    size = on[row, tag] - on[row, tag].round() if by == "badge" else score[best].clamp(min=0).sqrt()
    length = size.square() * h.square().sum(dim=1)

    def distance(i: int) -> Tensor:
        inner = size * size[i] * (h @ h[i]) * (tag == tag[i])
        return (length + length[i] - 2 * inner).clamp(min=0)

    drawn = drawn_apart(distance, int(length.argmax()), n, len(best), generator)
    return best[drawn] if by == "badge" else best[drawn.sort().values]
