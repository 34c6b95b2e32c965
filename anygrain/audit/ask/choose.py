"""What to label next: rows, and what to ask of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.audit.ask.distillation import distillation_queries
from anygrain.audit.ask.diverse import badge, k_center, spread
from anygrain.audit.ask.evidence_gain import Question, best_question, evidence_gain
from anygrain.audit.ask.novel import novel_queries
from anygrain.audit.ask.uncertainty import bald, entropy, least_confidence, margin
from anygrain.labels import LabelError

#: what `choose(by=...)` knows, and what it prefers
STRATEGIES = {
    "evidence_gain": "most expected evidence per cost, over rows and questions",
    "margin": "the two likeliest classes nearly tie",
    "entropy": "many classes are possible",
    "least_confidence": "the likeliest class is unlikely",
    "bald": "an ensemble is sure but disagrees",
    "badge": "unsure and unlike each other",
    "k_center": "far from everything labelled",
    "novel": "probably of a class nobody has labelled",
    "distillation": "informative, yet probably answered correctly by a fallible teacher",
    "random": "anything",
}
_SCORES = {"margin": margin, "entropy": entropy, "least_confidence": least_confidence}
_DRAWN = ("badge", "k_center", "novel", "distillation", "random")


@dataclass(frozen=True)
class Asked:
    """Rows to label, the first one first.

    Attributes:
        rows: indices of rows, (n,).
        question: index of the question to ask of each, (n,).
        gain: expected evidence of each answer, in nats, (n,).
        score: what the rows were chosen by, (n,); NaN where a strategy draws and has none.
        proposed: the answer that the model takes to be right, (n,), an index into the question's answers.
        probability: that it is, (n,).
        questions: what `question` points to.
        by: the strategy.
    """

    rows: Tensor
    question: Tensor
    gain: Tensor
    score: Tensor
    proposed: Tensor
    probability: Tensor
    questions: tuple[Question, ...]
    by: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def cost(self) -> Tensor:
        """Of every answer, (n,)."""
        return torch.tensor([q.cost for q in self.questions], dtype=torch.double)[self.question]

    def answer_names(self) -> list[str]:
        """Name of the proposed answer to each, its index where answers have no names."""
        out = []
        for q, a in zip(self.question.tolist(), self.proposed.tolist(), strict=True):
            names = self.questions[q].answers
            out.append(str(a) if names is None else names[a])
        return out

    def to_pandas(self) -> Any:
        """A data frame, a row per question: row, question, cost, gain, score, proposed, probability."""
        import pandas as pd

        return pd.DataFrame(
            {
                "row": self.rows.numpy(),
                "question": [self.questions[q].name for q in self.question.tolist()],
                "cost": self.cost.numpy(),
                "gain": self.gain.numpy(),
                "score": self.score.numpy(),
                "proposed": self.answer_names(),
                "probability": self.probability.numpy(),
            }
        )


def choose(
    log_probs: Any,
    n: int,
    *,
    by: str = "evidence_gain",
    questions: Sequence[Question] = (),
    may_ask: Any = None,
    features: Any = None,
    models: Any = None,
    novel: Any = None,
    round: int = 0,
    teacher_error: float | None = None,
    seed: int = 0,
) -> Asked:
    """Rows to label next, and what to ask of each.

    Args:
        log_probs: of every row given all that is known of it, (N, K): `learner.posterior(...)` where labels exist, so
            that a second vote on an old row competes with a first one on a new row.
        n: how many rows.
        by: a key of `STRATEGIES`.
        questions: what may be asked; the fine class when empty. Of each row the one with most expected evidence per
            cost is asked, whatever the strategy.
        may_ask: bool (N,), rows that may be chosen, or (N, Q), what may be asked of each, such as votes of people who
            have not voted on it; all by default.
        features: (N, D). With them, rows of high score are spread over the data, so that a batch holds no near copies;
            "badge" and "k_center" need them. The latter takes rows that may not be asked for as labelled.
        models: log-probabilities (T, N, K) of an ensemble, such as `head_ensemble`; "bald" needs them, and with them
            "evidence_gain" is what an answer tells of the model, not of the row.
        novel: bool (K,), classes nobody has labelled; for "novel".
        round: of labelling, from 0; for "novel".
        teacher_error: how often the teacher is wrong; for "distillation".
        seed: of all that is drawn.

    Raises:
        LabelError: an unknown strategy, what it needs is missing, or more rows than may be asked.
    """
    if by not in STRATEGIES:
        raise LabelError(f'by="{by}" is not known; expected one of {", ".join(STRATEGIES)}')
    known = as_tensor(log_probs)
    if known.dim() != 2:
        raise LabelError(f"log_probs has shape {tuple(known.shape)}; expected (N, K)")
    asked_of = questions or (Question.fine(known.shape[1]),)
    pool, which = pool_of(may_ask, len(known), len(asked_of), n)
    needs = {"bald": ("models", models), "badge": ("features", features), "k_center": ("features", features)}
    needs |= {"novel": ("novel", novel), "distillation": ("teacher_error", teacher_error)}
    if by in needs and needs[by][1] is None:
        raise LabelError(f'by="{by}" needs {needs[by][0]}=...')
    generator = torch.Generator().manual_seed(seed)
    seen = None if features is None else as_tensor(features)
    of_models = None if models is None else as_tensor(models)[:, pool]
    here = known[pool]
    about = here if of_models is None or by != "evidence_gain" else of_models
    question, gain_per_cost = best_question(about, asked_of, None if which is None else which[pool])
    if by in _DRAWN:
        score = torch.full((len(pool),), torch.nan, dtype=known.dtype)
        at = _drawn(by, known, here, pool, seen, n, novel, round, teacher_error, generator)
    else:
        if by == "evidence_gain":
            score = gain_per_cost
        elif by == "bald":
            assert of_models is not None
            score = bald(of_models)
        else:
            score = _SCORES[by](here)
        if seen is None:
            at = score.argsort(descending=True, stable=True)[:n]
        else:
            at = spread(score, seen[pool], n, generator=generator)
    gain = torch.stack([evidence_gain(about[..., at, :], q) for q in asked_of], dim=1)
    chosen = question[at]
    proposed, probability = _expected(here[at], asked_of, chosen)
    return Asked(
        rows=pool[at],
        question=chosen,
        gain=gain.gather(1, chosen[:, None])[:, 0],
        score=score[at],
        proposed=proposed,
        probability=probability,
        questions=tuple(asked_of),
        by=by,
    )


def _drawn(
    by: str,
    known: Tensor,
    here: Tensor,
    pool: Tensor,
    features: Tensor | None,
    n: int,
    novel: Any,
    round: int,
    teacher_error: float | None,
    generator: torch.Generator,
) -> Tensor:
    """Places in the pool, (n,), by a strategy that draws sets of rows."""
    if by == "random":
        return torch.randperm(len(pool), generator=generator)[:n]
    if by == "novel":
        return novel_queries(here, as_tensor(novel).bool(), n, round=round)
    if by == "distillation":
        assert teacher_error is not None
        return distillation_queries(here, n, teacher_error=teacher_error, generator=generator)
    assert features is not None
    if by == "badge":
        return badge(here, features[pool], n, generator=generator)
    taken = torch.ones(len(known), dtype=torch.bool)
    taken[pool] = False
    place = torch.full((len(known),), -1)
    place[pool] = torch.arange(len(pool))
    return place[k_center(features, n, taken.nonzero()[:, 0])]


def _expected(log_probs: Tensor, questions: Sequence[Question], chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The answer to the chosen question of every row that is most probably right, (n,), and that probability, (n,).

    The right answer to a vote is the true class, however often people miss it.
    """
    answer = torch.zeros(len(log_probs), dtype=torch.long)
    probability = torch.zeros(len(log_probs), dtype=log_probs.dtype)
    for q, question in enumerate(questions):
        rows = (chosen == q).nonzero()[:, 0]
        right = torch.nn.functional.one_hot(question.right, question.answer.shape[1]).to(log_probs)
        best = (log_probs[rows].exp() @ right).max(dim=1)
        answer[rows], probability[rows] = best.indices, best.values.clamp(max=1)
    return answer, probability


def pool_of(may_ask: Any, n_rows: int, n_questions: int, n: int) -> tuple[Tensor, Tensor | None]:
    """Rows that may be chosen, indices, and what may be asked of every row, bool (N, Q), where that differs.

    Raises:
        LabelError: another shape than (N,) or (N, Q), or fewer rows than n.
    """
    free = torch.ones(n_rows, dtype=torch.bool) if may_ask is None else as_tensor(may_ask).bool()
    if free.shape not in ((n_rows,), (n_rows, n_questions)):
        raise LabelError(f"may_ask has shape {tuple(free.shape)}; expected ({n_rows},) or ({n_rows}, {n_questions})")
    which = None if free.dim() == 1 else free
    pool = (free if which is None else which.any(dim=1)).nonzero()[:, 0]
    if not 0 < n <= len(pool):
        raise LabelError(f"{n} rows were asked for, and {len(pool)} may be asked about")
    return pool, which


def as_tensor(value: Any) -> Tensor:
    """Anybody's array on the CPU; half precision is widened."""
    found = value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value))
    return found.float() if found.dtype == torch.float16 else found
