"""Annotators who know or guess (MACE)."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels.channels.dirichlet import learn_strength
from anygrain.labels.channels.tabular import TabularChannel


class Spammer(TabularChannel):
    r"""Each source w knows the class with one probability, and else draws a vote from a habit of its own.

    .. math:: P(v \mid y = k) = a_w [v = k] + (1 - a_w) \xi_{wv}, \qquad
              a_w \sim \mathrm{Beta}(1 + s m, 1 + s (1 - m)), \quad \xi_w \sim \mathrm{Dirichlet}(1 + t\, h)

    Which votes were guesses is unseen: `update` takes its expectation at the current parameters, then maximises. The
    pooled m, h and the strengths s, t are learnt by the marginal likelihood of all sources.

    Args:
        n_sources: S.
        n_classes: K.
        history: counts of earlier votes whose truth is known, shape (S, K, K), rows are the truth.
        strength: votes that the pooled parameters are worth at the start.

    Source: Hovy, Berg-Kirkpatrick, Vaswani and Hovy, Learning whom to trust with MACE, 2013.
    """

    knows: Tensor
    habit: Tensor
    mean: Tensor
    strength: Tensor
    mean_habit: Tensor
    strength_habit: Tensor

    def __init__(self, n_sources: int, n_classes: int, *, history: Tensor | None = None, strength: float = 4.0):
        super().__init__(n_sources, n_classes, history=history)
        even = torch.full((n_classes,), 1 / n_classes, dtype=torch.float64)
        self.register_buffer("mean", torch.tensor([0.5, 0.5], dtype=torch.float64))
        self.register_buffer("strength", torch.tensor(float(strength), dtype=torch.float64))
        self.register_buffer("mean_habit", even)
        self.register_buffer("strength_habit", torch.tensor(float(strength), dtype=torch.float64))
        self.register_buffer("knows", torch.full((n_sources,), 0.5, dtype=torch.float64))
        self.register_buffer("habit", even.repeat(n_sources, 1))
        self._store(*self.estimate(self.counts))

    def _split(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Expected known and guessed votes (S, 2), and guesses by vote (S, K)."""
        right = torch.diagonal(counts, dim1=1, dim2=2)
        known = self.knows[:, None]
        guess = (1 - known) * self.habit
        sure = right * known / (known + guess).clamp(min=1e-300)
        guesses = counts.sum(dim=1) - sure
        return torch.stack([sure.sum(dim=1), guesses.sum(dim=1)], dim=1), guesses

    def estimate(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        outcomes, guesses = self._split(counts)
        seen = outcomes + self.strength * self.mean
        habits = guesses + self.strength_habit * self.mean_habit
        self.knows = seen[:, 0] / seen.sum(dim=1)
        self.habit = habits / habits.sum(dim=1, keepdim=True)
        knows = torch.cat([self.knows, self.mean[:1]])[:, None, None]
        habit = torch.cat([self.habit, self.mean_habit[None]])[:, None, :]
        both = knows * torch.eye(self.n_classes, dtype=habit.dtype, device=habit.device) + (1 - knows) * habit
        return both[-1], both[:-1]

    def learn(self, counts: Tensor) -> None:
        outcomes, guesses = self._split(counts)
        self.strength, draws = learn_strength(outcomes, self.mean, self.strength)
        mean = draws.sum(dim=0) + 1.0
        self.strength_habit, habits = learn_strength(guesses, self.mean_habit, self.strength_habit)
        habit = habits.sum(dim=0) + 2 / self.n_classes
        self.mean, self.mean_habit = mean / mean.sum(), habit / habit.sum()

    def accuracy_variance(self, weight: Tensor) -> Tensor:
        right = self.accuracy(weight)
        return right * (1 - right) / (self.counts.sum(dim=(1, 2)) + self.strength + 1)

    def log_prior(self) -> Tensor:
        knows = torch.stack([self.knows, 1 - self.knows], dim=1).clamp(min=1e-300).log()
        habit = self.habit.clamp(min=1e-300).log()
        penalty = self.strength * (self.mean * knows).sum() + self.strength_habit * (self.mean_habit * habit).sum()
        return penalty + (self.history * self.confusion.clamp(min=1e-300).log()).sum()
