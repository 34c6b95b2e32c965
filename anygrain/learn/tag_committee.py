"""A head of L tags for labels of few sets: three small networks that share hidden units among tags."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.learn.head import Committee


class TagCommittee(Committee):
    """A `Committee` whose outputs are the log odds of L tags."""

    def __init__(self, feature_dim: int, n_tags: int) -> None:
        super().__init__(feature_dim, n_tags)
        self.n_tags = n_tags

    def forward(self, features: Tensor) -> Tensor:
        """Log odds (B, L)."""
        return self.logits(features)

    def log_probs(self, features: Tensor) -> Tensor:
        """Log-probabilities (B, L, 2) of off and on."""
        odds = self(features)
        return torch.nn.functional.logsigmoid(torch.stack([-odds, odds], dim=-1))
