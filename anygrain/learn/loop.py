"""The loop of gradient steps, for a head alone or an encoder and its head, towards posteriors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from anygrain.encoders.trainable import (
    Arrays,
    Augmentation,
    Inputs,
    TrainableEncoder,
    in_batches,
    parts_of,
    seeded,
    to_device,
)
from anygrain.labels import LabelError, Labels
from anygrain.labels.base import Batch
from anygrain.labels.observations import Observations
from anygrain.learn.fabric import Fabric, load_precision_state, precision_state
from anygrain.learn.head import Head
from anygrain.learn.loss import AdaptiveLoss, Loss
from anygrain.learn.real_head import RealHead
from anygrain.learn.step import RealStep, Step, View
from anygrain.learn.tag_recipe import TagHead
from anygrain.learn.term import Term
from anygrain.learn.weighting import Weighting

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

MAX_NORM = 1.0  # of the gradient, where an encoder is trained
WARM_UP = 0.05  # share of the steps
SURE = 0.95  # least belief about a row without evidence that is passed on to its strong view


def objective(step: Step, loss: Loss, terms: Sequence[Term], weighting: Weighting | None, weight: Tensor) -> Tensor:
    r""":math:`\frac{\sum_i w_i\, \mathrm{loss}(\log p_i, q_i)}{\sum_i w_i} + \sum_t \mathrm{term}_t`, a scalar.

    Args:
        weight: (B,), the user's weights of the instances.
    """
    value = loss(step.log_probs, step.posterior)
    if weighting is not None:
        weight = weight * weighting(step).detach()
    total = (weight * value).sum() / weight.sum().clamp(min=1e-12)
    for term in terms:
        total = total + term(step)
    return total


class Network(nn.Module):
    """All that is trained as one module, so that a fabric can wrap it.

    Args:
        head: features to log-probabilities of classes or tags, or to a mean and a variance.
        encoder: arrays to features; None where the arrays are the features.
        terms: their parameters are trained as well.
    """

    def __init__(
        self, head: Head | RealHead | TagHead, encoder: TrainableEncoder | None = None, terms: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.head, self.encoder, self.terms = head, encoder, nn.ModuleList(terms)

    def forward(self, arrays: Arrays) -> tuple[Any, Tensor]:
        """What the head gives and features (B, D) of some rows.

        Of classes log-probabilities (B, K), of tags (B, L, 2); of a number its mean and variance, both (B,).
        """
        features = arrays["features"] if self.encoder is None else self.encoder.encode(arrays)
        return self.head.log_probs(features) if isinstance(self.head, TagHead) else self.head(features), features

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Parameters and their learning rates."""
        own: dict[str, Any] = {"params": [*self.head.parameters(), *self.terms.parameters()], "lr": rate}
        joined: list[dict[str, Any]] = []
        for group in [own] if self.encoder is None else [own, *self.encoder.learning_rates(rate)]:
            settings = {name: value for name, value in group.items() if name != "params"}
            alike = next((g for g in joined if {k: v for k, v in g.items() if k != "params"} == settings), None)
            if alike is None:
                joined.append({"params": list(group["params"]), **settings})
            else:  # every group takes its time in every step
                alike["params"] += group["params"]
        return joined


class Targets(Protocol):
    """Where the posteriors come from that a batch is trained towards."""

    def of(self, batch: Batch, log_probs: Tensor) -> Tensor:
        """Posterior (B, K) of the instances of a batch, given log-probabilities (B, K) without gradient."""


class FixedTargets:
    """Posteriors (N, K) that were found already."""

    def __init__(self, posterior: Tensor) -> None:
        self.posterior = posterior

    def of(self, batch: Batch, log_probs: Tensor) -> Tensor:
        return self.posterior[batch.instances]


@dataclass(frozen=True)
class Pace:
    """How long and how fast.

    Attributes:
        epochs: passes over the observations.
        batch_size: instances at once; a set more than twice as large is trained in parts of this size, and smaller ones
            where rows are large, see `parts_of`.
        learning_rate: of Adam, or the highest where `decay` is set.
        penalty: factor of head.penalty() / 2 in the objective.
        weight_decay: of AdamW.
        decay: whether the rate rises over the first twentieth and then falls along a cosine.
        accumulate: batches per step of the optimiser.
        per_row: instances that every data row has, where it has several.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    penalty: float = 0.0
    weight_decay: float = 0.0
    decay: bool = False
    accumulate: int = 1
    per_row: int = 1

    @property
    def at_once(self) -> int:
        """Data rows that go through the network together where no gradient is asked for."""
        return max(1, 4 * self.batch_size // self.per_row)

    def factor(self, progress: float) -> float:
        """Of the learning rate, after a share of all steps."""
        if not self.decay:
            return 1.0
        return min(1.0, (progress + 1e-3) / WARM_UP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


class Loop(ABC):
    r"""Adam on an objective, in batches that keep sets whole, in an order that is drawn from the seed and the epoch.

    A set larger than two batches takes two passes: one without gradient finds what its members are trained towards,
    then its parts are trained and their gradients added, which is the gradient of the whole. On several processes every
    one takes each world-size-th batch of the same order; the fabric averages gradients.

    Args:
        learner: for the hooks of terms and weighting.
        network: what is trained.
        rows: inputs of the data rows.
        labels: observations of n instances, from which batches are made.
        pace: how long and how fast.
        hooked: terms, weightings, and losses that learn of the data.
        seed: of order, dropout and augmentation.
        fabric: device, precision, processes.
        instances: what an instance of these labels is called in steps, (n,); its own number where not given.
        row_of: data row of every instance by that name, (N,); that of the labels where not given.
        weight: of every instance by that name, (N,); that of the labels where not given.
        tag_of: which tag of its row an instance is, by that name, (N,); None where rows have no tags.
    """

    def __init__(
        self,
        learner: Learner,
        network: Network,
        rows: Inputs,
        labels: Observations,
        pace: Pace,
        *,
        hooked: Sequence[Term | Weighting | AdaptiveLoss] = (),
        seed: int,
        fabric: Fabric,
        instances: Tensor | None = None,
        row_of: Tensor | None = None,
        weight: Tensor | None = None,
        tag_of: Tensor | None = None,
    ) -> None:
        self.tag_of = None if tag_of is None else tag_of.cpu()
        self.network, self.rows, self.order, self.pace = network, rows, labels, pace
        self.seed, self.fabric, self.hooked = seed, fabric, hooked
        device = fabric.device
        self.name_of = torch.arange(labels.n_instances) if instances is None else instances.cpu()
        self.row_of = (labels.rows if row_of is None else row_of).cpu()
        self.weight = (labels.instance_weight() if weight is None else weight).float().to(device)
        for part in hooked:
            part.on_fit_start(learner)
        optimizer = torch.optim.AdamW(
            network.to(device).groups(pace.learning_rate),
            lr=pace.learning_rate,
            weight_decay=pace.weight_decay,
            # on a CPU a tenth of the time of the loop over parameters; clipping cannot follow it to scaled gradients
            fused=device.type in ("cpu", "cuda") and not precision_state(fabric),
        )
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.module, self.optimizer = fabric.setup(network, optimizer)
        #: called after every step of the optimiser
        self.after_move: Callable[[], None] = lambda: None
        #: what the network said of every instance when its batch came in the last epoch, where it is kept
        self.said: tuple[Tensor, ...] | None = None

    @abstractmethod
    def whole(self, batch: Batch) -> Tensor:
        """What the instances of a set that is larger than a batch are trained towards, (B, ...)."""

    @abstractmethod
    def objective(
        self, batch: Batch, known: Tensor | None, silent: Tensor, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Step | RealStep | None]:
        """The objective of a batch, with gradient, and the step for hooks.

        Args:
            known: what `whole` found for these instances, where they are part of a larger set.
            silent: names of instances without evidence that come along, (S,).
        """

    def silent_of(self, number: int, generator: torch.Generator) -> list[Tensor]:
        """Names of instances without evidence for each of `number` batches of this process."""
        return [torch.zeros(0, dtype=torch.long)] * number

    def least_batches(self) -> int:
        """How many batches of this process an epoch has at least; where there are fewer, they come again."""
        return 1

    def epoch(self, number: int) -> float:
        """One pass; the mean objective of this process."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**62)
        for part in self.hooked:
            part.on_epoch_start(number)
        batches = self._batches(generator)
        silent = self.silent_of(len(batches), generator)
        own = int(torch.randint(2**62, (1,), generator=generator)) + self.fabric.global_rank
        draws = torch.Generator().manual_seed(own)
        self.network.train()
        total, seen = 0.0, 0
        with seeded(int(torch.randint(2**62, (1,), generator=draws))):
            for at, batch in enumerate(batches):
                factor = self.pace.factor((number + at / len(batches)) / max(self.pace.epochs, 1))
                for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                    group["lr"] = rate * factor
                last = (at + 1) % self.pace.accumulate == 0 or at + 1 == len(batches)
                group = min(self.pace.accumulate, len(batches) - at // self.pace.accumulate * self.pace.accumulate)
                value, step = self._step(batch, silent[at], number, draws, group=group, moves=last)
                total, seen = total + value * len(batch.instances), seen + len(batch.instances)
                if last and step is not None:
                    for part in self.hooked:
                        part.after_step(step)
                step = None  # its inputs must not stand beside those of the next batch
        return total / max(seen, 1)

    def _batches(self, generator: torch.Generator) -> list[Batch]:
        rank, world, size = self.fabric.global_rank, self.fabric.world_size, self.pace.batch_size
        least = self.least_batches()
        batches = list(self.order.batches(size, generator, rank, world))
        while len(batches) < least:  # few observations beside many rows without: they come several times
            batches += list(self.order.batches(size, generator, rank, world))
        return batches

    def _step(
        self, batch: Batch, silent: Tensor, epoch: int, generator: torch.Generator, *, group: int, moves: bool
    ) -> tuple[float, Step | RealStep | None]:
        """Gradients of one of `group` batches, added to those that are there; `moves`: the parameters follow."""
        parts = self._parts(batch)
        value = 0.0
        step: Step | RealStep | None = None
        if len(parts) < 2:
            with self.fabric.no_backward_sync(self.module, enabled=not moves):
                objective, step = self.objective(batch, None, silent, epoch, generator)
                self.fabric.backward(objective / group)
            value = float(objective.detach())
        else:
            known, weight = self.whole(batch), self.weight_of(batch)
            for at, part in enumerate(parts):
                chosen = Batch(batch.instances[part], batch.observations, batch.weight[part])
                share = float(weight[part].sum() / weight.sum().clamp(min=1e-12))
                with self.fabric.no_backward_sync(self.module, enabled=not (moves and at + 1 == len(parts))):
                    rest = silent if at == 0 else silent[:0]
                    objective, step = self.objective(chosen, known[part], rest, epoch, generator)
                    self.fabric.backward(objective * share / group)
                value += float(objective.detach()) * share
        if moves:
            if self.network.encoder is not None:
                self.fabric.clip_gradients(self.module, self.optimizer, max_norm=MAX_NORM)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.after_move()
        return value, step

    def _parts(self, batch: Batch) -> list[Tensor]:
        """Which instances of a batch, by their place in it, go through the network together."""
        n, size = len(batch.instances), self.pace.batch_size
        size = size if n > 2 * size else max(n, 1)
        own = self.row_of[self.name_of[batch.instances.cpu()]]
        sizes = [len(part) for part in parts_of(self.rows, own, size)]
        return list(torch.arange(n).split(sizes))

    def weight_of(self, batch: Batch) -> Tensor:
        """Of the instances of a batch, (B,)."""
        return batch.weight.to(self.weight) * self.weight[self.name_of[batch.instances.cpu()].to(self.weight.device)]

    def found(self, instances: Tensor) -> tuple[Tensor, ...]:
        """What the head gives for instances of the labels, in parts, without gradient or augmentation."""
        rows, place = self.row_of[self.name_of[instances.cpu()]].unique(return_inverse=True)

        def outputs(arrays: Arrays) -> Tensor:
            given = self.network(arrays)[0]
            return torch.stack(given, dim=1) if isinstance(given, tuple) else given

        table = in_batches(outputs, self.rows, self.pace.at_once, self.network, rows)
        table = self.of_instances(table, place, self.name_of[instances.cpu()]).to(self.order.device)
        return tuple(table.unbind(dim=1)) if isinstance(self.network.head, RealHead) else (table,)

    def of_instances(self, outputs: Tensor, place: Tensor, names: Tensor) -> Tensor:
        """What the head gives for instances, (B, ...), from what it gives for rows and the place of each one's row."""
        if self.tag_of is None:
            return outputs[place]
        return outputs[place, self.tag_of[names.cpu()].to(place.device)]

    # -- going on after an interruption -------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Parameters and the state of the optimiser and of the precision, as tensors."""
        out = {f"network.{key}": value.detach().clone() for key, value in self.network.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            out.update({f"optimizer.{index}.{key}": torch.as_tensor(v).clone() for key, v in values.items()})
        for i, table in enumerate(self.said or ()):
            out[f"said.{i}"] = table.clone()
        out.update({f"precision.{key}": value.clone() for key, value in precision_state(self.fabric).items()})
        return out

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self.network.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("network.")})
        whole = self.optimizer.state_dict()
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                whole["state"].setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict(whole)
        load_precision_state(self.fabric, {k[10:]: v for k, v in tensors.items() if k.startswith("precision.")})
        if self.said is not None:
            self.said = tuple(tensors[f"said.{i}"].to(table) for i, table in enumerate(self.said))


class ClassLoop(Loop):
    r"""Towards posteriors of classes.

    With a strong augmentation every row is seen twice: the posterior of the weak view is the target of both, and rows
    without any evidence take part with the strong view, once their weak view is believed with `SURE`:

    .. math:: \mathrm{loss}(\log p(x^w), q) + c\, \mathrm{loss}(\log p(x^s), q), \qquad q = q(\log p(x^w), o), \quad
              c = \Big(1 - \frac{\bar H(q)}{H(\bar q)}\Big) \exp\big(-\overline{KL}(q \,\|\, p(x^s))\big)

    The first factor of c is how far beliefs tell the rows of the batch apart: what is still in doubt, or the same of
    all rows, must not hold the network where it is. The second is how well strong views are recognised at all: one that
    destroys the class is left aside. Both are of the whole batch; a factor for every row would prefer the class that is
    believed more.

    Args:
        targets: what every batch is trained towards.
        loss, terms, weighting: of the objective.
        augmentation: None for none.
        silent: instances without evidence, by name, (S,), that take part through their strong view.
        teaches: whether instances with evidence have a strong view as well.
        shift: (K,), added to log-probabilities in training: log class prior of the rows as they come, minus that of the
            rows that the network speaks of.

    Source of the strong view: Sohn et al., FixMatch, 2020; Chen et al., A General Framework for Learning from Weak
    Supervision, 2024.
    """

    order: Labels

    def __init__(
        self,
        learner: Learner,
        network: Network,
        rows: Inputs,
        labels: Labels,
        targets: Targets,
        pace: Pace,
        *,
        loss: Loss,
        terms: Sequence[Term],
        weighting: Weighting | None,
        augmentation: Augmentation | None = None,
        silent: Tensor | None = None,
        teaches: bool = False,
        shift: Tensor | None = None,
        **more: Any,
    ) -> None:
        hooked: list[Term | Weighting | AdaptiveLoss] = [*terms, *([weighting] if weighting is not None else [])]
        if isinstance(loss, AdaptiveLoss):
            hooked.append(loss)
        super().__init__(learner, network, rows, labels, pace, hooked=hooked, **more)
        self.targets, self.loss, self.terms, self.weighting = targets, loss, terms, weighting
        self.augmentation, self.teaches = augmentation, teaches
        self.shift = None if shift is None else shift.to(self.fabric.device)
        self.silent = torch.zeros(0, dtype=torch.long) if silent is None else silent.cpu()

    def keep_what_is_said(self) -> None:
        """From now on `said` holds log-probabilities (N, K) of all instances, as they were when their batch came."""
        n, k = self.order.n_instances, self.order.n_classes
        self.said = (torch.full((n, k), -math.log(k), device=self.order.device),)

    def least_batches(self) -> int:
        return math.ceil(len(self.silent) / (self.fabric.world_size * self.pace.batch_size))

    def silent_of(self, number: int, generator: torch.Generator) -> list[Tensor]:
        order = self.silent[torch.randperm(len(self.silent), generator=generator)]
        return list(order[self.fabric.global_rank :: self.fabric.world_size].tensor_split(number))

    def whole(self, batch: Batch) -> Tensor:
        if isinstance(self.targets, FixedTargets):  # whatever the network says
            return self.targets.posterior[batch.instances]
        return self.targets.of(batch, self.found(batch.instances)[0])

    def of_instances(self, outputs: Tensor, place: Tensor, names: Tensor) -> Tensor:
        found = super().of_instances(outputs, place, names)
        return found if self.shift is None else (found + self.shift.to(found)).log_softmax(dim=-1)

    def objective(
        self, batch: Batch, known: Tensor | None, silent: Tensor, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Step | None]:
        device, n = self.fabric.device, len(batch.instances)
        strong = self.augmentation is not None and (self.teaches or len(silent) > 0)
        names = torch.cat([self.name_of[batch.instances.cpu()], silent])
        rows, place = self.row_of[names].unique(return_inverse=True)
        arrays = self.rows[rows]
        views = [arrays]
        if self.augmentation is not None:
            views = [self.augmentation.weak(arrays, generator)]
            if strong:
                views.append(self.augmentation.strong(arrays, generator))
        outputs, features = self.module(to_device(side_by_side(views), device))
        place, names = place.to(device), names.to(device)
        log_probs = self.of_instances(outputs, place, names)
        believed = log_probs.detach()
        if self.said is not None:
            self.said[0][batch.instances] = believed[:n].to(self.said[0])
        if known is None:
            known = self.targets.of(batch, believed[:n].to(self.order.device))
        posterior = torch.cat([known.to(believed), believed[n:].exp()])
        observed = self.weight_of(batch)
        weight = torch.cat([observed, observed.new_zeros(len(silent))])
        view = View(to_device(arrays, device), place, self.module, self.network.head, self.of_instances)
        step = Step(log_probs, features[place], posterior, names, epoch, view, self.shift)
        value = objective(step, self.loss, self.terms, self.weighting, weight)
        if strong:
            seen = self.of_instances(outputs, place + len(rows), names)
            other = self.loss(seen, posterior)
            if self.teaches:
                share = observed / observed.sum().clamp(min=1e-12)
                trust = apartness(posterior[:n], share) * recognised(seen[:n].detach(), posterior[:n], share)
                value = value + trust * (share @ other[:n])
            if len(silent):
                counts = self.weight[names[n:]] * (posterior[n:].max(dim=1).values >= SURE)
                share = counts / counts.sum().clamp(min=1e-12)
                value = value + recognised(seen[n:].detach(), posterior[n:], share) * (counts * other[n:]).mean()
        if self.pace.penalty and isinstance(self.network.head, Head | TagHead):
            value = value + 0.5 * self.pace.penalty * self.network.head.penalty()
        return value, step


def side_by_side(views: Sequence[Arrays]) -> Arrays:
    """Views of the same rows as one batch, one after another.

    Raises:
        LabelError: arrays of one name in several types, which joining would change: pixels 0..255 beside fractions.
    """
    for name in views[0]:
        types = [str(view[name].dtype).removeprefix("torch.") for view in views]
        if len(set(types)) > 1:
            raise LabelError(f'"{name}" is {types[0]} in the weak view and {types[1]} in the strong one; keep its type')
    return views[0] if len(views) == 1 else {name: torch.cat([view[name] for view in views]) for name in views[0]}


def entropy(posterior: Tensor) -> Tensor:
    """Of probabilities over the last axis, in nats."""
    return -(posterior * posterior.clamp(min=1e-30).log()).sum(dim=-1)


def apartness(posterior: Tensor, share: Tensor) -> Tensor:
    r""":math:`1 - \sum_i s_i H(q_i) / H(\sum_i s_i q_i)` of posteriors (B, K) and shares (B,).

    1 where each is sure of its class and they differ, 0 where all say the same.
    """
    whole = entropy(share @ posterior)
    return (1 - share @ entropy(posterior) / whole.clamp(min=1e-6)).clamp(min=0) * (whole > 1e-6)


def recognised(log_probs: Tensor, posterior: Tensor, share: Tensor) -> Tensor:
    r""":math:`\exp(-\sum_i s_i KL(q_i \| p_i))` of log-probabilities and posteriors (B, K) and shares (B,)."""
    cross = -(posterior * log_probs.clamp(min=-1e4)).sum(dim=-1)
    return torch.exp(-(share @ (cross - entropy(posterior))).clamp(min=0))


class FeatureRows:
    """Features (N, D) that were computed already, as inputs."""

    def __init__(self, features: Tensor) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: Tensor) -> Arrays:
        return {"features": self.features[rows.to(self.features.device)]}
