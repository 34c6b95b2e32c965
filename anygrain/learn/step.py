"""One step of training, as losses, terms, weightings and procedures see it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A batch of B instances on its way through the head.

    Attributes:
        log_probs: (B, K), with gradient.
        features: (B, D).
        posterior: (B, K), what the evidence says given a head that did not see these rows; detached.
        instances: (B,) ids.
        epoch: number of the pass over the data, from 0.
    """

    log_probs: Tensor
    features: Tensor
    posterior: Tensor
    instances: Tensor
    epoch: int
