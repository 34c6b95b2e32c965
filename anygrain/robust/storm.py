r"""STORM: a weight for every sample's loss, learnt while training, so that wrong labels lose influence.

A small network, the rescaler, turns statistics of a sample's loss over passes with dropout into a weight in [0, 1]. It
learns from the effect of a weighted step on a second batch of the same noisy rows, whose loss it weighs as well; no
clean rows are needed.

.. math:: \theta'(\omega) = \theta - \mathrm{Adam}\Big(\nabla_\theta \frac1B\sum_i w_\omega(F_i)\, \ell_i(\theta)\Big),
          \qquad \min_\omega \frac1{B'}\sum_j w_\omega(F'_j)\, \ell_j(\theta'(\omega))

The trivial minimum w = 0 is kept away by the normalisation over the batch before the softmax.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from anygrain.encoders.trainable import seeded
from anygrain.labels import LabelError, Labels
from anygrain.learn.head import Head
from anygrain.learn.loss import Loss
from anygrain.learn.procedure import Procedure
from anygrain.robust.fresh import Course, EpochTargets, fresh_head

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

Parameters = dict[str, Tensor]
#: mean and deviation of loss and of top probability, divergence, overlap: own, mean and deviation of group; agreement
FEATURES = 19


def normal_divergence(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    r""":math:`KL(N(m, s) \| N(\mu, \sigma)) = \ln\frac{\sigma}{s} + \frac{s^2 + (m - \mu)^2}{2\sigma^2} - \frac12`.

    0 where a deviation is 0.
    """
    fine = (std > 0) & (other_std > 0)
    s, t = torch.where(fine, std, 1.0), torch.where(fine, other_std, 1.0)
    found = (t / s).log() + (s.square() + (mean - other_mean).square()) / (2 * t.square()) - 0.5
    return torch.where(fine, found, 0.0)


def normal_overlap(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    r"""Area below both normal densities, :math:`\int \min(f, g)`, in [0, 1].

    The densities cross where a quadratic is 0; the lower one is the narrower outside of the two crossings and the wider
    between them. Where a deviation is 0, the overlap is 1 for equal means and deviations and 0 else.
    """
    fine = (std > 0) & (other_std > 0)
    s, t = torch.where(fine, std, 1.0), torch.where(fine, other_std, 1.0)
    swap = s > t
    narrow, wide = torch.where(swap, t, s), torch.where(swap, s, t)
    at, far = torch.where(swap, other_mean, mean), torch.where(swap, mean, other_mean)
    gap = (far - at) / narrow  # in units of the narrow one, centred on it: densities N(0, 1) and N(gap, ratio)
    ratio = wide / narrow
    same = ratio < 1 + 1e-6

    below = torch.special.ndtr
    equal = 2 * below(-gap.abs() / 2)
    a = torch.where(same, 1.0, ratio.square() - 1)
    root = (gap.square() * ratio.square() + a * 2 * ratio.square() * ratio.log().clamp(min=0)).sqrt()
    low, high = (-gap - root) / a, (-gap + root) / a
    inside = below((high - gap) / ratio) - below((low - gap) / ratio)
    found = torch.where(same, equal, below(low) + 1 - below(high) + inside).clamp(0, 1)
    alike = (std == other_std) & (mean == other_mean)
    return torch.where(fine, found, alike.to(mean))


def group_mean_and_std(values: Tensor, group: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Of values (B, C) in groups (B,): means and deviations (n_groups, C); 0 of an empty group."""
    count = torch.bincount(group, minlength=n_groups).clamp(min=1)[:, None].to(values)
    mean = values.new_zeros(n_groups, values.shape[1]).index_add(0, group, values) / count
    square = values.new_zeros(n_groups, values.shape[1]).index_add(0, group, (values - mean[group]).square()) / count
    return mean, square.sqrt()


class Window:
    """Statistics of the samples of the last batches, beside which those of a batch are seen; anew every epoch.

    Args:
        batches: how many, with the one at hand.
    """

    def __init__(self, batches: int = 1) -> None:
        self.own: deque[Tensor] = deque(maxlen=batches - 1)
        self.group: deque[Tensor] = deque(maxlen=batches - 1)

    def clear(self) -> None:
        self.own.clear()
        self.group.clear()

    def with_past(self, own: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """Statistics (B', 4) and groups (B',) of a batch, first, and of those before it, which it then joins."""
        found = torch.cat([own, *self.own]), torch.cat([group, *self.group])
        self.own.append(own)
        self.group.append(group)
        return found


def sample_features(
    losses: Tensor,
    tops: Tensor,
    agree: Tensor,
    classes: Tensor,
    n_classes: int,
    *,
    by_class: bool,
    category: str,
    window: Window | None = None,
) -> Tensor:
    """Features (B, 19) of samples, without gradient.

    Args:
        losses, tops: loss and highest probability in every pass, (G, B).
        agree: bool (B,), whether most passes give the sample's class.
        classes: (B,) of the samples.
        by_class: whether groups are those of a class, or of all.
        category: "all", or "own": samples that agree and those that do not are groups of their own.
        window: of batches that groups are made of; the batch alone where not given.
    """
    own = torch.stack([losses.mean(dim=0), losses.std(dim=0), tops.mean(dim=0), tops.std(dim=0)], dim=1)
    group = classes if by_class else torch.zeros_like(classes)
    if category == "own":
        group = 2 * group + agree.to(group)
    number, n = 2 * n_classes, len(own)
    every, whose = (own, group) if window is None else window.with_past(own.detach(), group)
    mean, std = group_mean_and_std(every, whose, number)
    bulk = mean[whose, 0], mean[whose, 1]
    fit = torch.stack([kind(every[:, 0], every[:, 1], *bulk) for kind in (normal_divergence, normal_overlap)], dim=1)
    fit_mean, fit_std = group_mean_and_std(fit, whose, number)
    triples = [own, mean[group], std[group], fit[:n], fit_mean[group], fit_std[group]]
    return torch.cat([*triples, agree.to(own)[:, None]], dim=1).detach()


class Rescaler(nn.Module):
    """Features (B, 19) to weights (B,) in [0, 1]: Linear, BatchNorm, ReLU, Linear, BatchNorm, Softmax.

    Neither normalisation learns anything, and both always use the batch at hand: that keeps weights apart.
    """

    def __init__(self, width: int = FEATURES) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, 2)
        self.norms = nn.ModuleList(nn.BatchNorm1d(n, affine=False, track_running_stats=False) for n in (width, 2))

    def forward(self, features: Tensor) -> Tensor:
        if len(features) < 2:
            raise LabelError("STORM weighs samples against their batch; expected a batch of 2 samples or more")
        inner = self.norms[0](self.first(features)).relu()
        found: Tensor = self.norms[1](self.second(inner)).softmax(dim=1)[:, 1]
        return found


class Hard(torch.autograd.Function):
    """1 where a weight reaches a threshold, else 0; the gradient passes where it is in [-1, 1]."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, threshold: float) -> Tensor:
        return (weight >= threshold).to(weight)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[0].clamp(-1, 1), None


@dataclass
class AdamState:
    """Moments of Adam, as plain tensors."""

    first: Parameters
    second: Parameters
    steps: int = 0

    @classmethod
    def of(cls, parameters: Parameters) -> AdamState:
        zeros = {name: torch.zeros_like(value) for name, value in parameters.items()}
        return cls(zeros, dict(zeros))


def adam_step(
    parameters: Parameters, gradients: Parameters, state: AdamState, rate: float
) -> tuple[Parameters, AdamState]:
    """A step of Adam that can be differentiated; the same as `torch.optim.Adam` takes."""
    steps, moved = state.steps + 1, {}
    new = AdamState({}, {}, steps)
    for name, value in parameters.items():
        gradient = gradients[name]
        first = 0.9 * state.first[name] + 0.1 * gradient
        second = 0.999 * state.second[name] + 0.001 * gradient.square()
        new.first[name], new.second[name] = first, second
        # the root has no gradient at 0, where neither the second moment has one
        scale = torch.where(second > 0, second, 1.0).sqrt() * (second > 0) / math.sqrt(1 - 0.999**steps) + 1e-8
        moved[name] = value - rate / (1 - 0.9**steps) * first / scale
    return moved, new


def sgd_step(
    parameters: Parameters, gradients: Parameters, state: AdamState, rate: float
) -> tuple[Parameters, AdamState]:
    """A plain step down the gradient that can be differentiated."""
    return {name: value - rate * gradients[name] for name, value in parameters.items()}, state


STEPS = {"adam": adam_step, "sgd": sgd_step}


class Storm(Procedure):
    """Trains the head with a learnt weight per sample.

    The head must have dropout (`Learner(head="mlp")`): how much a sample's loss varies is part of what tells. Composes
    with every loss and every kind of label: samples are told apart by the likeliest class of their posterior, which
    labels in doubt get anew once an epoch. Not with terms or a weighting of one's own; weights are not decayed. On
    clean labels it costs something: `floor` bounds how much a sample can lose.

    Args:
        passes: with dropout, beside the one that is learnt from.
        by_class: a rescaler for every class, and groups of samples by class; else one for all.
        category: "all", or "own": samples whose label the network agrees with are compared with one another only.
        floor: weights are raised to this.
        relative: weights are divided by the largest of the batch.
        threshold: weights become 0 or 1 at it; None leaves them as they are.
        window: batches whose samples a sample is compared with, its own and those before it in the epoch.
        inner_steps: weighted steps of the head for every step of the rescaler, all of which it learns from.
        warm_up: epochs without weights before.
        step: "adam" or "sgd", of the head.
        meta_rate: learning rate of the rescaler.
        rescaler: features (B, 19) to weights (B,), in place of `Rescaler`; without parameters it is left as it is.
        epochs, batch_size, learning_rate: used where the learner has none of its own.

    Attributes:
        weights_: (N,) of the last epoch; below 1/2 marks a label as probably wrong. NaN where nothing is told.

    Source: Learning from Noisy Labels via Self-Taught On-the-Fly Meta Loss Rescaling, 2025.
    """

    def __init__(
        self,
        *,
        passes: int = 2,
        by_class: bool = False,
        category: Literal["all", "own"] = "all",
        floor: float = 0.0,
        relative: bool = False,
        threshold: float | None = None,
        window: int = 1,
        inner_steps: int = 1,
        warm_up: int = 0,
        step: Literal["adam", "sgd"] = "adam",
        meta_rate: float = 0.01,
        rescaler: nn.Module | None = None,
        epochs: int = 25,
        batch_size: int = 32,
        learning_rate: float = 0.003,
    ) -> None:
        if not 0 <= floor < 1:
            raise LabelError(f"floor is {floor}; expected a weight of 0 up to, not including, 1")
        if category not in ("all", "own") or step not in STEPS:
            raise LabelError(f'category is "{category}" and step "{step}"; expected all or own, and adam or sgd')
        if passes < 1:
            raise LabelError(f"passes is {passes}; expected 1 or more, since deviations need two passes")
        if window < 1 or inner_steps < 1:
            raise LabelError(f"window is {window} and inner_steps {inner_steps}; expected 1 or more of both")
        self.window, self.inner_steps = window, inner_steps
        self.passes, self.by_class, self.category = passes, by_class, category
        self.floor, self.relative, self.threshold, self.warm_up = floor, relative, threshold, warm_up
        self.step, self.meta_rate, self.rescaler = step, meta_rate, rescaler
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate

    def look(
        self,
        head: Head,
        parameters: Parameters,
        features: Tensor,
        target: Tensor,
        loss: Loss,
        window: Window | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses (B,) with gradient, features (B, 19) and classes (B,) of samples under some parameters."""
        n = len(features)
        log_probs = functional_call(head, parameters, (features,))
        value = loss(log_probs, target)
        with torch.no_grad():
            fixed = {name: p.detach() for name, p in parameters.items()}
            more = functional_call(head, fixed, (features.repeat(self.passes, 1),))
            again = loss(more, target.repeat(self.passes, 1)).reshape(self.passes, n)
            passes = torch.cat([log_probs.detach()[None], more.reshape(self.passes, n, -1)])
            classes = target.argmax(dim=1)
            guess = passes.argmax(dim=2)
            votes = (guess == classes).sum(dim=0)
            most = 2 * votes > len(passes)
            agree = torch.where(2 * votes == len(passes), guess[0] == classes, most)
            losses = torch.cat([value.detach()[None], again])
            found = sample_features(
                losses,
                passes.amax(dim=2).exp(),
                agree,
                classes,
                target.shape[1],
                by_class=self.by_class,
                category=self.category,
                window=window,
            )
        return value, found, classes

    def weigh(self, rescalers: nn.ModuleList, features: Tensor, classes: Tensor) -> Tensor:
        """Weights (B,); of a class with a single sample in the batch 1/2."""
        if len(rescalers) == 1:
            weight: Tensor = rescalers[0](features)
        else:
            weight = features.new_full((len(features),), 0.5)
            for c in classes.unique().tolist():
                rows = (classes == c).nonzero()[:, 0]
                if len(rows) > 1:
                    weight = weight.index_put((rows,), rescalers[c](features[rows]))
        if self.relative:
            weight = weight / weight.max().detach().clamp(min=1e-6)
        if self.threshold is not None:
            weight = Hard.apply(weight, self.threshold)  # type: ignore[no-untyped-call]
        return weight.clamp(min=self.floor) if self.floor else weight

    def meta_loss(
        self,
        head: Head,
        parameters: Parameters,
        state: AdamState,
        rescalers: nn.ModuleList,
        batches: Sequence[tuple[Tensor, Tensor, Tensor]],
        other: tuple[Tensor, Tensor, Tensor],
        loss: Loss,
        rate: float,
        windows: tuple[Window, Window] | None = None,
    ) -> tuple[Tensor, Parameters, AdamState, list[Tensor]]:
        """The rescaled loss of a second batch after weighted steps on others, with gradient to the rescaler.

        Args:
            batches, other: features (B, D), targets (B, K) and weights (B,) that labels were given, of mean 1 over all.
                A step is taken on each of `batches`.
            windows: of these and of the second ones.

        Returns:
            It, the parameters after the steps, the optimiser's state, and the weights of each of the batches.
        """
        inner, outer = (None, None) if windows is None else windows
        weights = []
        for batch in batches:
            value, found, classes = self.look(head, parameters, *batch[:2], loss, inner)
            weight = self.weigh(rescalers, found, classes)
            objective = (weight * batch[2] * value).mean()
            names, tensors = list(parameters), list(parameters.values())
            gradients = torch.autograd.grad(objective, tensors, create_graph=weight.requires_grad)
            parameters, state = STEPS[self.step](parameters, dict(zip(names, gradients, strict=True)), state, rate)
            weights.append(weight.detach())
        after, found, classes = self.look(head, parameters, *other[:2], loss, outer)
        meta = (self.weigh(rescalers, found, classes) * other[2] * after).mean()
        return meta, parameters, state, weights

    def check(self, learner: Learner, labels: Labels) -> None:
        if Course.of(self, learner).batch_size < 2:
            raise LabelError("batch_size is 1; STORM weighs samples against their batch: expected 2 or more")

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        self.check(learner, labels)
        course = Course.of(self, learner)
        loss, epochs = course.loss, course.epochs
        seed, k = int(learner.seed), labels.n_classes
        head = fresh_head(learner, features.shape[1], k, seed=seed, like=features)
        targets = EpochTargets(labels, features)
        share = labels.instance_weight().to(features)
        share = share / share[targets.rows].mean().clamp(min=1e-12)
        generator = torch.Generator().manual_seed(seed)
        found = features.new_full((len(features),), torch.nan)
        history: list[dict[str, Any]] = []
        with seeded(seed):
            number = k if self.by_class and self.rescaler is None else 1
            rescalers = nn.ModuleList(Rescaler() if self.rescaler is None else self.rescaler for _ in range(number)).to(
                features
            )
            learnt = [p for p in rescalers.parameters() if p.requires_grad]
            stepper = torch.optim.Adam(learnt, lr=self.meta_rate) if learnt else None
            parameters = {name: p.detach().clone().requires_grad_() for name, p in head.named_parameters()}
            state = AdamState.of(parameters)
            windows = Window(self.window), Window(self.window)
            for epoch in range(epochs):
                target = targets.of_epoch([_with(head, parameters)])
                head.train()
                total, weights = 0.0, []
                for window in windows:
                    window.clear()
                parts = targets.batches(course, generator)
                together = 1 if epoch < self.warm_up else self.inner_steps
                for group in (parts[at : at + together] for at in range(0, len(parts), together)):
                    batches = [(features[rows], target[rows], share[rows]) for rows in group]
                    if epoch < self.warm_up:
                        (batch,) = batches
                        value = (batch[2] * loss(functional_call(head, parameters, batch[:1]), batch[1])).mean()
                        gradients = torch.autograd.grad(value, list(parameters.values()))
                        moved, state = STEPS[self.step](
                            parameters, dict(zip(parameters, gradients, strict=True)), state, course.learning_rate
                        )
                        weight = [features.new_ones(len(group[0]))]
                    else:
                        many = max(len(group[0]), 2)
                        drawn = targets.rows[torch.randint(len(targets.rows), (many,), generator=generator)]
                        other = features[drawn], target[drawn], share[drawn]
                        value, moved, state, weight = self.meta_loss(
                            head, parameters, state, rescalers, batches, other, loss, course.learning_rate, windows
                        )
                        if stepper is not None:
                            slopes = torch.autograd.grad(value, learnt, allow_unused=True)  # of absent classes none
                            for p, gradient in zip(learnt, slopes, strict=True):
                                p.grad = gradient
                            stepper.step()
                    parameters = {name: p.detach().requires_grad_() for name, p in moved.items()}
                    state = AdamState(
                        {name: p.detach() for name, p in state.first.items()},
                        {name: p.detach() for name, p in state.second.items()},
                        state.steps,
                    )
                    found[torch.cat(list(group))] = torch.cat(weight)
                    weights += weight
                    total += float(value.detach()) * sum(len(rows) for rows in group)
                mean = torch.cat(weights)
                history.append(
                    {
                        "step": f"epoch {epoch + 1}",
                        "track": "storm",
                        "round": epoch + 1,
                        "objective": total / len(targets.rows),
                        "mean_weight": float(mean.mean()),
                        "flagged": float((mean < 0.5).float().mean()),
                    }
                )
        self.weights_ = found.cpu()
        learner.head_, learner.history_ = _with(head, parameters).eval(), history


def _with(head: Head, parameters: Parameters) -> Head:
    """The head with these parameters."""
    with torch.no_grad():
        for name, p in head.named_parameters():
            p.copy_(parameters[name])
    return head
