"""What an answer is expected to tell, for what it costs: which row, at which granularity, by whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from anygrain.audit.ask.uncertainty import entropy
from anygrain.labels import LabelError, Taxonomy
from anygrain.labels.channels.channel import Channel, Records

BLOCK = 1 << 22  # numbers of the table rows x answers that are held at once


@dataclass(frozen=True)
class Question:
    """Something that can be asked of a row.

    Attributes:
        name: shown to the people who answer, such as "fine class", "department", "a vote of anna".
        answer: P(answer a | class k), shape (K, A).
        cost: of one answer, in any unit.
        answers: names of the A answers, if they have any.
        right: the answer that is right for every class, (K,); the likeliest one by default.
    """

    name: str
    answer: Tensor
    cost: float = 1.0
    answers: tuple[str, ...] | None = None
    right: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    def __post_init__(self) -> None:
        if not len(self.right):
            object.__setattr__(self, "right", self.answer.argmax(dim=1))
        if not self.cost > 0:
            raise LabelError(f'the question "{self.name}" costs {self.cost}; expected a number above 0')
        sums = self.answer.sum(dim=1)
        if bool((self.answer < 0).any()) or not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            raise LabelError(f'the answers to "{self.name}" must be probabilities that sum to 1 for every class')

    @classmethod
    def fine(cls, n_classes: int, cost: float = 1.0, *, names: Sequence[str] | None = None) -> Question:
        """The true class, by somebody who is always right."""
        answers = None if names is None else tuple(names)
        return cls("fine class", torch.eye(n_classes, dtype=torch.float64), cost, answers)

    @classmethod
    def coarse(cls, taxonomy: Taxonomy, level: str | int, cost: float) -> Question:
        """The node of the true class at a level of a taxonomy."""
        table = taxonomy.membership(level).to(torch.float64).T
        name = level if isinstance(level, str) else taxonomy.level_names[level]
        return cls(name, table / table.sum(dim=1, keepdim=True), cost, tuple(taxonomy.nodes(level)))

    @classmethod
    def vote(
        cls,
        channel: Channel,
        annotator: int,
        n_classes: int,
        cost: float = 1.0,
        *,
        name: str = "",
        names: tuple[str, ...] | None = None,
    ) -> Question:
        """A vote of an annotator, as reliable as the channel has found; -1 is somebody unknown."""
        values = torch.arange(n_classes)
        records = Records(values, torch.full_like(values, annotator), values)
        answer = channel.log_prob(records).detach().double().exp().T
        title = name or (f"a vote of annotator {annotator}" if annotator >= 0 else "a vote of anybody")
        return cls(title, answer / answer.sum(dim=1, keepdim=True), cost, names, right=values)


def evidence_gain(log_probs: Tensor, question: Question) -> Tensor:
    r"""Expected log-likelihood that an answer adds, in nats, (N,): the mutual information of answer and truth.

    .. math:: I(a; y) = H\Big(\sum_k p_k c_{k\cdot}\Big) - \sum_k p_k H(c_{k\cdot})

    For the fine class it is the entropy of p; for a noisy or coarse answer it is less. With log-probabilities of T
    models it is what the answer tells of the *model*, :math:`I(a; \theta)`: the entropy of the mean answer less the
    mean entropy of the answer, which for the fine class is `bald`.

    Args:
        log_probs: (N, K), of the rows given all that is known of them (so a row with votes has less to gain); or
            (T, N, K), of T models.
        question: with answers (K, A).

    Raises:
        LabelError: a question about another number of classes.

    Source: Lindley, On a Measure of the Information Provided by an Experiment, 1956.
    """
    if question.answer.shape[0] != log_probs.shape[-1]:
        raise LabelError(
            f'the question "{question.name}" is about {question.answer.shape[0]} classes, the model has '
            f"{log_probs.shape[-1]}"
        )
    answer = question.answer.to(log_probs)
    own = -torch.special.xlogy(answer, answer).sum(dim=1)
    of_models = log_probs.dim() == 3
    rows = max(1, BLOCK // (answer.shape[1] * (len(log_probs) if of_models else 1)))
    gains = []
    for block in log_probs.split(rows, dim=-2):
        probs = block.exp()
        said = (probs @ answer).clamp(min=1e-30).log()
        if of_models:
            mean = said.exp().mean(dim=0).log()
            gains.append(entropy(mean) - entropy(said).mean(dim=0))
        else:
            gains.append(entropy(said) - probs @ own)
    return torch.cat(gains).clamp(min=0)


def best_question(
    log_probs: Tensor, questions: Sequence[Question], may_ask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """For every row the question with most expected evidence per cost: its index (N,) and that gain per cost (N,).

    Args:
        log_probs: (N, K), or (T, N, K) of T models.
        questions: Q of them.
        may_ask: bool (N, Q), such as whose votes a row does not have yet; all by default. A row that may be asked
            nothing has a gain of minus infinity.

    Raises:
        LabelError: no question.
    """
    if not questions:
        raise LabelError("questions is empty; expected at least one, such as Question.fine(n_classes)")
    gain = torch.stack([evidence_gain(log_probs, q) / q.cost for q in questions], dim=1)
    best = (gain if may_ask is None else gain.masked_fill(~may_ask, -torch.inf)).max(dim=1)
    return best.indices, best.values
