"""Subclass-balancing contrast: big classes are split into parts of the tail's size, so that a contrast is balanced."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from anygrain.encoders.trainable import Augmentation, TrainableEncoder, seeded
from anygrain.labels import LabelError, Labels
from anygrain.learn.head import Linear, Perceptron
from anygrain.learn.procedure import Procedure
from anygrain.learn.step import Step
from anygrain.learn.term import Term
from anygrain.robust.fresh import Course, alone, fit_with, fresh_head, needs_hidden_layer, takes_only

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

#: changes features (B, D) so that their class stays
Change = Callable[[Tensor, torch.Generator], Tensor]
BASE = 0.07  # temperature that the first part of the loss is scaled by


def numbers_of_subclasses(size: Tensor, least: int = 10) -> Tensor:
    r""":math:`m_c = \max(1, \lfloor n_c / \max(n_{\min}, \delta) \rfloor)` of class sizes (K,); 1 of an empty class."""
    smallest = int(size[size > 0].min()) if bool((size > 0).any()) else least
    return (size // max(smallest, least)).clamp(min=1)


def stable_assignment(likeness: Tensor, capacity: int) -> Tensor:
    """Cluster (n,) of every row by likeness (n, m), at most `capacity` in each; -1 where all that is left is full.

    The same as going through all pairs from the most alike to the least and joining what is still free. Found in
    rounds: rows ask for the best cluster that has not refused them, clusters keep the best that ask.
    """
    n, m = likeness.shape
    open_ = likeness.clone()
    number = torch.arange(n, device=likeness.device)
    while True:
        best, wanted = open_.max(dim=1)
        asks = best > -torch.inf
        order = torch.argsort(best, descending=True, stable=True)
        order = order[asks[order]]
        order = order[torch.argsort(wanted[order], stable=True)]
        count = torch.bincount(wanted[order], minlength=m)
        rank = number[: len(order)] - (count.cumsum(0) - count)[wanted[order]]
        refused = order[rank >= capacity]
        if not len(refused):
            return torch.where(asks, wanted, -1)
        open_[refused, wanted[refused]] = -torch.inf


def balanced_clusters(unit: Tensor, m: int, generator: torch.Generator, rounds: int = 30) -> Tensor:
    """Cluster (n,) of unit rows (n, D) in m clusters whose sizes differ by 1 at most, by k-means on the cosine.

    Starts from k-means++. Rows go to clusters by `stable_assignment` of the n // m rows that each holds, and what is
    left one to each.
    """
    n = len(unit)
    if not 1 <= m <= n:
        raise LabelError(f"{m} clusters of {n} rows; expected 1 or more, and no more than rows")
    centres = unit[int(torch.randint(n, (1,), generator=generator))][None]
    while len(centres) < m:
        far = (1 - unit @ centres.T).amin(dim=1).clamp(min=0)
        weight = far if float(far.sum()) > 0 else torch.ones_like(far)
        drawn = torch.multinomial(weight.double().cpu(), 1, generator=generator)
        centres = torch.cat([centres, unit[drawn.to(unit.device)]])
    found = torch.full((n,), -1, device=unit.device)
    for _ in range(rounds):
        likeness = unit @ centres.T
        new = stable_assignment(likeness, n // m)
        left = (new < 0).nonzero()[:, 0]
        new[left] = stable_assignment(likeness[left], 1)
        if torch.equal(new, found):
            break
        found = new
        centres = nn.functional.normalize(unit.new_zeros(m, unit.shape[1]).index_add(0, found, unit), dim=1)
    return found


def subclasses(unit: Tensor, classes: Tensor, n_classes: int, *, least: int, seed: int) -> tuple[Tensor, Tensor]:
    """Subclass (N,) of unit features (N, D), ids of different classes differ, -1 where the class is; and m (K,)."""
    size = torch.bincount(classes[classes >= 0], minlength=n_classes)
    number = numbers_of_subclasses(size, least)
    first = number.cumsum(0) - number
    found = torch.where(classes >= 0, first[classes.clamp(min=0)], -1)
    generator = torch.Generator().manual_seed(seed)
    for c in (number > 1).nonzero()[:, 0].tolist():
        rows = (classes == c).nonzero()[:, 0]
        found[rows] = first[c] + balanced_clusters(unit[rows], int(number[c]), generator)
    return found, number


def class_temperatures(unit: Tensor, classes: Tensor, number: Tensor, base: float = 0.1) -> Tensor:
    r"""Temperature (K,) of the contrast between subclasses of a class: lower where the class is dense.

    .. math:: \tau_c = \tau \phi_c / \bar\phi, \quad \phi_c = \frac{\overline{|z - \bar z_c|}}{\log(n_c + 10)}

    with :math:`\phi` clipped to its 20th and 80th percentile over classes; :math:`\tau` of a class of one subclass.
    """
    k = len(number)
    known = classes >= 0
    z, c = unit[known], classes[known]
    count = torch.bincount(c, minlength=k).to(z)
    mean = z.new_zeros(k, z.shape[1]).index_add(0, c, z) / count.clamp(min=1)[:, None]
    distance = z.new_zeros(k).index_add(0, c, (z - mean[c]).norm(dim=1)) / count.clamp(min=1)
    density = distance / (count + 10).log()
    there = density[count > 0]
    low, high = torch.quantile(there, there.new_tensor([0.2, 0.8]))
    density = density.clamp(low, high)
    found = base * density / density[count > 0].mean().clamp(min=1e-12)
    return torch.where((number > 1) & (found > 0), found, base)


def subclass_balancing_loss(
    unit: Tensor,
    subclass: Tensor,
    classes: Tensor,
    instance: Tensor,
    *,
    temperature: float = 0.1,
    between: Tensor | None = None,
    weight: float = 0.25,
) -> Tensor:
    r"""Contrast of views: those of a subclass attract, and, less, those of its class among all outside the subclass.

    .. math:: L = \mathrm{mean}_i \Big[ -\frac{\tau}{\tau_0 |P_s|} \sum_{p \in P_s(i)}
              \log \frac{e^{u_i u_p / \tau}}{\sum_{a \in A(i)} e^{u_i u_a / \tau}}
              - \frac{\beta}{|P_c|} \sum_{p \in P_c(i)}
              \log \frac{e^{u_i u_p / \tau_c}}{\sum_{a \in D(i)} e^{u_i u_a / \tau_c}} \Big]

    A: all other views. :math:`P_s`: those of the same subclass. D: A without the subclass but with the other views of
    the same instance. :math:`P_c`: those of the same class in D. A part without positives is 0.

    Args:
        unit: (V, D) unit features of views.
        subclass, classes, instance: (V,).
        temperature: :math:`\tau`.
        between: :math:`\tau_c`, (K,) by class; `temperature` where not given.
        weight: :math:`\beta`.

    Source: Subclass-balancing Contrastive Learning for Long-tailed Recognition, 2023.
    """
    likeness = unit @ unit.T
    other = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    same = (subclass[:, None] == subclass) & other
    twin = (instance[:, None] == instance) & other
    kin = classes[:, None] == classes

    def contrast(positive: Tensor, among: Tensor, scale: Tensor) -> Tensor:
        logits = (likeness / scale[:, None]).masked_fill(~among, -torch.inf)
        log_share = logits - logits.logsumexp(dim=1, keepdim=True)
        number = positive.sum(dim=1)
        total = torch.where(positive, log_share, 0.0).sum(dim=1)
        return torch.where(number > 0, -total / number.clamp(min=1), 0.0)

    flat = unit.new_full((len(unit),), temperature)
    first = temperature / BASE * contrast(same, other, flat)
    if weight == 0:
        return first.mean()
    rest = (other & ~same) | twin
    slope = flat if between is None else between.to(unit)[classes]
    has_any = rest.any(dim=1)
    second = contrast(kin & rest, rest | ~has_any[:, None], slope)
    return (first + weight * second).mean()


class Projection(nn.Module):
    """Features (B, D) to unit vectors (B, width), by one hidden layer of D units."""

    def __init__(self, feature_dim: int, width: int = 128) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(feature_dim, feature_dim), nn.Linear(feature_dim, width)

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.normalize(self.outer(self.inner(features).relu()), dim=1)


class _Subclasses:
    """Subclasses as they stand: one per class through the warm-up, then clusters, anew every `every` epochs."""

    def __init__(self, n_classes: int, warm_up: int, every: int, least: int, seed: int) -> None:
        self.n_classes, self.warm_up, self.every, self.least, self.seed = n_classes, warm_up, every, least, seed
        self.of: Tensor | None = None
        self.between: Tensor | None = None

    def due(self, epoch: int) -> bool:
        return epoch >= self.warm_up and (epoch - self.warm_up) % self.every == 0

    def refresh(self, unit: Tensor, classes: Tensor, epoch: int, temperature: float) -> tuple[Tensor, Tensor]:
        """New subclasses (N,), and the temperature within every class (K,)."""
        found, number = subclasses(unit, classes, self.n_classes, least=self.least, seed=self.seed + epoch)
        self.of, self.between = found, class_temperatures(unit, classes, number, temperature)
        return found, self.between

    def loss(
        self, unit: Tensor, classes: Tensor, rows: Tensor, instance: Tensor, temperature: float, weight: float
    ) -> Tensor:
        """Of views (V,) of instances `rows`; through the warm-up the supervised contrast."""
        found = classes if self.of is None else self.of[rows]
        beta = 0.0 if self.of is None else weight
        return subclass_balancing_loss(
            unit, found, classes, instance, temperature=temperature, between=self.between, weight=beta
        )


class SubclassBalancing(Term):
    r"""The subclass-balancing contrast, added to the loss of a trained encoder.

    Every row is seen in a second, changed view. Its class is the likeliest one of its posterior; rows in doubt (below
    `sure`) are left out. Clusters are found from the projections as they were last seen, so no extra pass is needed.
    On fixed features nothing could move: use `SubclassContrast` there.

    Args:
        weight: of the term.
        beta: of the contrast between subclasses of a class.
        temperature: of both.
        least: :math:`\delta`, the smallest subclass.
        warm_up, every: epochs before the first clustering, and between two.
        width: of the projection.
        sure: least probability of a row's class.
        augmentation: of the second view; that of the encoder where not given.
    """

    def __init__(
        self,
        weight: float = 1.0,
        *,
        beta: float = 0.25,
        temperature: float = 0.1,
        least: int = 10,
        warm_up: int = 10,
        every: int = 10,
        width: int = 128,
        sure: float = 0.5,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        _check(temperature, least, every)
        self.weight, self.beta, self.temperature, self.least = weight, beta, temperature, least
        self.warm_up, self.every, self.width, self.sure = warm_up, every, width, sure
        self.augmentation = augmentation

    def on_fit_start(self, learner: Learner) -> None:
        encoder = learner.encoder_
        if not isinstance(encoder, TrainableEncoder):
            raise LabelError(
                "SubclassBalancing moves an encoder, and fixed features do not move; use procedure=SubclassContrast()"
            )
        seed, labels = int(learner.seed), learner.labels_
        with seeded(seed):
            self.projection = Projection(encoder.feature_dim, self.width)
        self.change = encoder.augmentation() if self.augmentation is None else self.augmentation
        self.parts = _Subclasses(labels.n_classes, self.warm_up, self.every, self.least, seed)
        n, device = labels.n_instances, labels.device
        # a training that goes on after a kill goes on with these
        self.register_buffer("seen", torch.zeros(n, self.width, device=device, dtype=torch.float16))
        self.register_buffer("classes", torch.full((n,), -1, device=device))
        self.register_buffer("subclass", torch.full((n,), -1, device=device))
        self.register_buffer("between", torch.zeros(labels.n_classes, device=device))

    def on_epoch_start(self, epoch: int) -> None:
        classes = self.get_buffer("classes")
        if self.parts.due(epoch) and bool((classes >= 0).any()):
            found, between = self.parts.refresh(self.get_buffer("seen").float(), classes, epoch, self.temperature)
            self.get_buffer("subclass").copy_(found)
            self.get_buffer("between").copy_(between)
        elif bool((self.get_buffer("subclass") >= 0).any()):
            self.parts.of, self.parts.between = self.get_buffer("subclass"), self.get_buffer("between")

    def forward(self, step: Step) -> Tensor:
        top, classes = step.posterior.max(dim=1)
        keep = top >= self.sure
        if self.parts.of is not None:
            keep &= self.parts.of[step.instances] >= 0
        if int(keep.sum()) < 2 or step.view is None:
            return step.features.sum() * 0
        # the loop seeds torch's generator by epoch
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, (1,))))
        arrays = step.view.arrays if self.change is None else self.change.strong(step.view.arrays, generator)
        again = step.view.network(arrays)[1][step.view.place]
        unit = torch.cat([self.projection(step.features[keep]), self.projection(again[keep])])
        rows, of_class = step.instances[keep], classes[keep]
        self.get_buffer("seen")[rows] = unit[: len(rows)].detach().to(self.get_buffer("seen"))
        self.get_buffer("classes")[rows] = of_class
        twice = torch.arange(len(rows), device=rows.device).repeat(2)
        value = self.parts.loss(unit, of_class.repeat(2), rows.repeat(2), twice, self.temperature, self.beta)
        return self.weight * value


def noisy(share: float) -> Change:
    """Adds normal noise of `share` times the root mean square of the batch."""

    def change(features: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(features.shape, generator=generator).to(features)
        return features + share * features.square().mean().sqrt() * noise

    return change


class SubclassContrast(Procedure):
    r"""Trains the hidden layer of a perceptron by the subclass-balancing contrast, then the classes with equal weight.

    For fixed features and `head="mlp"`. Two changed views of every row of a batch are contrasted; every `every` epochs
    classes are clustered by the projections of all rows, unchanged. Then the outer layer is fitted to the hidden units,
    classes weighted alike. The class of a row is the likeliest one of what its evidence alone says, its target in the
    last fit that posterior; rows in doubt (below `sure`) are left out of the contrast. Composes with every loss, which
    is that of the last fit; not with terms or a weighting.

    Args:
        change: of views; noise and dropout where not given.
        beta, temperature, least, warm_up, every, width, sure: as in `SubclassBalancing`. ``least=None`` never splits a
            class, which with ``beta=0`` is the supervised contrast.
        epochs, batch_size, learning_rate: of the contrast, where the learner has none of its own.

    Attributes:
        subclass_: (N,) of the last clustering, -1 of rows that took no part.

    Source: Subclass-balancing Contrastive Learning for Long-tailed Recognition, 2023.
    """

    def __init__(
        self,
        change: Change | None = None,
        *,
        beta: float = 0.25,
        temperature: float = 0.1,
        least: int | None = 10,
        warm_up: int = 10,
        every: int = 10,
        width: int = 128,
        sure: float = 0.5,
        epochs: int = 60,
        batch_size: int = 256,
        learning_rate: float = 0.003,
    ) -> None:
        _check(temperature, least, every)
        self.change = noisy(0.3) if change is None else change
        self.beta, self.temperature, self.least = beta, temperature, least
        self.warm_up, self.every, self.width, self.sure = warm_up, every, width, sure
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate

    def check(self, learner: Learner, labels: Labels) -> None:
        takes_only(self, learner, "loss")
        needs_hidden_layer(self, learner)

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        self.check(learner, labels)
        course = Course.of(self, learner)
        loss, epochs = course.loss, course.epochs
        seed, k = int(learner.seed), labels.n_classes
        head = fresh_head(learner, features.shape[1], k, seed=seed, like=features)
        assert isinstance(head, Perceptron)
        target = alone(labels, features.dtype)
        told = target.amax(dim=1) > (1 + 1e-6) / k
        classes = torch.where(target.amax(dim=1) >= max(self.sure, (1 + 1e-6) / k), target.argmax(dim=1), -1)
        rows = (classes >= 0).nonzero()[:, 0]
        if len(rows) < 2:
            raise LabelError("no two rows have a class to contrast; expected labels that tell more than this")
        generator = torch.Generator().manual_seed(seed)
        parts = _Subclasses(k, self.warm_up, self.every, len(features) if self.least is None else self.least, seed)
        history: list[dict[str, Any]] = []
        with seeded(seed):
            projection = Projection(head.width, self.width).to(features)
            trained = [head.inner_weight, head.inner_bias, *projection.parameters()]
            stepper = torch.optim.Adam(trained, lr=course.learning_rate)
            for epoch in range(epochs):
                if self.least is not None and parts.due(epoch):
                    with torch.no_grad():
                        parts.refresh(projection(head.eval().hidden(features)), classes, epoch, self.temperature)
                elif parts.due(epoch) and parts.of is None and self.beta:
                    parts.of = classes
                head.train()
                course.at(stepper, course.cosine(epoch))
                total = 0.0
                for batch in course.batches(rows, generator):
                    views = torch.cat([self.change(features[batch], generator) for _ in range(2)])
                    unit = projection(head.hidden(views))
                    twice = torch.arange(len(batch), device=batch.device).repeat(2)
                    value = parts.loss(
                        unit, classes[batch].repeat(2), batch.repeat(2), twice, self.temperature, self.beta
                    )
                    stepper.zero_grad()
                    value.backward()
                    stepper.step()
                    total += float(value.detach()) * len(batch)
                history.append(
                    {
                        "step": f"epoch {epoch + 1}",
                        "track": "subclass contrast",
                        "round": epoch + 1,
                        "objective": total / len(rows),
                    }
                )
        self.subclass_ = (classes if parts.of is None else parts.of).cpu()
        fit_outer(head.eval(), features[told], target[told], labels.instance_weight().to(features)[told], loss, learner)
        learner.head_, learner.history_ = head, history


def fit_outer(
    head: Perceptron,
    features: Tensor,
    target: Tensor,
    weight: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    learner: Learner,
) -> None:
    """Fit the outer layer to hidden units (classes with equal weight), as a linear head on units of mean square 1."""
    with torch.no_grad():
        hidden = head.hidden(features)
        scale = hidden.square().mean().sqrt().clamp(min=1e-12)
    mass = (target * weight[:, None]).sum(dim=0)
    balance = weight * (target / mass.clamp(min=1e-12)).sum(dim=1)
    outer = Linear(head.width, head.n_classes).to(features)
    fit_with(outer, hidden / scale, target, balance, loss, penalty=learner.penalty, steps=60)
    with torch.no_grad():
        head.weight.copy_(outer.weight / scale)
        head.bias.copy_(outer.bias)


def _check(temperature: float, least: int | None, every: int) -> None:
    if not temperature > 0 or (least is not None and least < 1) or every < 1:
        raise LabelError(
            f"temperature is {temperature}, least {least} and every {every}; expected numbers above 0, 1 or more twice"
        )
