"""What procedures share: new heads, what they refuse, which rows are told of, full-batch fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anygrain.labels import LabelError, Labels
from anygrain.learn.end_to_end import doubts
from anygrain.learn.head import HEADS, Head, Perceptron, make_head
from anygrain.learn.loss import Loss, cross_entropy

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


def takes_only(procedure: object, learner: Learner, *slots: str) -> None:
    """Raises LabelError where a learner has a loss, terms or a weighting that a procedure does not compose with."""
    for slot in ("loss", "terms", "weighting"):
        value = getattr(learner, slot)
        if slot not in slots and value is not None and not (slot == "terms" and len(value) == 0):
            name = type(procedure).__name__
            taken = f"it takes {' and '.join(slots)} only" if slots else "it has an objective of its own"
            raise LabelError(f"{name} does not compose with {slot}=: {taken}; leave out one of the two")


def needs_hidden_layer(procedure: object, learner: Learner) -> None:
    """Raises LabelError where the head of a learner has no hidden layer to train."""
    head = HEADS.get(learner.head) if isinstance(learner.head, str) else learner.head
    if not isinstance(head, type) or not issubclass(head, Perceptron):
        name = type(procedure).__name__
        raise LabelError(f'{name} trains a hidden layer; expected Learner(head="mlp", procedure={name}(...))')


@dataclass(frozen=True)
class Course:
    """What gradient steps minimise, how long and how fast: as the learner says, else as its procedure does."""

    loss: Loss
    epochs: int
    batch_size: int
    learning_rate: float

    @classmethod
    def of(cls, procedure: Any, learner: Learner) -> Course:
        """From attributes `epochs`, `batch_size` and `learning_rate` of a procedure.

        Raises:
            LabelError: slots of the learner beside the loss that are filled.
        """
        takes_only(procedure, learner, "loss")
        own = {name: getattr(learner, name) for name in ("epochs", "batch_size", "learning_rate")}
        chosen = {name: getattr(procedure, name) if value is None else value for name, value in own.items()}
        return cls(loss=cross_entropy if learner.loss is None else learner.loss, **chosen)

    def at(self, stepper: torch.optim.Optimizer, factor: float) -> None:
        """Steps of `factor` times the learning rate."""
        for group in stepper.param_groups:
            group["lr"] = factor * self.learning_rate

    def cosine(self, epoch: int) -> float:
        """From 1 in the first epoch to nearly 0 in the last."""
        return 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))

    def batches(self, rows: Tensor, generator: torch.Generator) -> Sequence[Tensor]:
        """Rows (R,) in random order."""
        order = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
        parts: Sequence[Tensor] = order.split(self.batch_size)
        return parts


def fresh_head(
    learner: Learner, width: int, n_classes: int, seed: int | None = None, like: Tensor | None = None
) -> Head:
    """An unfitted head of the learner's kind.

    Args:
        width: of the features.
        seed: where given, weights (matrices) are drawn from it, so that two heads start apart.
        like: features, whose type and device the head gets.
    """
    head = make_head(learner.head, width, n_classes)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        if isinstance(head, Perceptron):
            head.draw(generator)
        else:
            with torch.no_grad():
                for weights in head.parameters():
                    if weights.ndim == 2:
                        drawn = torch.randn(weights.shape, generator=generator) * weights.shape[1] ** -0.5
                        weights.add_(drawn.to(weights))
    return head if like is None else head.to(like)


def alone(labels: Labels, dtype: torch.dtype) -> Tensor:
    """What the evidence says without features, (N, K): the posterior under equal classes."""
    n, k = labels.n_instances, labels.n_classes
    return labels.posterior(torch.full((n, k), -math.log(k), device=labels.device, dtype=dtype))


def fit_with(
    head: Head, features: Tensor, target: Tensor, weight: Tensor, loss: Loss, *, penalty: float, steps: int
) -> Head:
    r"""`fit_head` with any loss: :math:`\sum_i w_i\, \mathrm{loss}(\log p_i, q_i) / \sum_i w_i + \lambda |W|^2 / 2`."""
    share = weight / weight.sum().clamp(min=1e-12)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = share @ loss(head(features), target) + 0.5 * penalty * head.penalty()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return head


class EpochTargets:
    """Posteriors that gradient steps on fixed features are taken towards, found once an epoch.

    Labels that leave nothing open have them for good; others get an E-step over all rows with the mean
    log-probabilities of the heads as they stand. Since it is over all rows, batches may cut sets.

    Args:
        labels: of N instances.
        features: (N, D).

    Attributes:
        rows: instances of which something is said, (R,).
        target: (N, K) of the last epoch.

    Raises:
        LabelError: nothing is told of any row.
    """

    def __init__(self, labels: Labels, features: Tensor) -> None:
        self.labels, self.features = labels, features
        self.target = alone(labels, features.dtype)
        self.rows = (doubts(labels) < 1).nonzero()[:, 0].to(features.device)
        if not len(self.rows):
            raise LabelError("no row has any evidence: there is nothing to learn from")
        self.open = bool((self.target[self.rows].amax(dim=1) < 0.999).any())
        self.epochs = 0

    def of_epoch(self, heads: Sequence[Head]) -> Tensor:
        """Targets (N, K) of an epoch; heads that have not learnt yet are not asked."""
        if self.open and self.epochs:
            with torch.no_grad():
                said = torch.stack([head.eval()(self.features) for head in heads]).mean(dim=0).log_softmax(dim=1)
            self.target = self.labels.posterior(said)
        self.epochs += 1
        return self.target

    def batches(self, course: Course, generator: torch.Generator) -> Sequence[Tensor]:
        """Rows in random order, in batches of 2 or more where there are 2."""
        parts = list(course.batches(self.rows, generator))
        if len(parts) > 1 and len(parts[-1]) < 2:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts
