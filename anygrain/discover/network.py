"""What methods with gradients share: a network with a cosine head, views of rows, what is said of a batch, one loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from anygrain.discover.discoverer import Callback
from anygrain.discover.evidence import flat
from anygrain.discover.found import ClassModel
from anygrain.discover.neighbours import neighbours
from anygrain.discover.task import Task
from anygrain.encoders.trainable import Arrays, TrainableEncoder, seeded, to_device

NEIGHBOURS = 10
LOGIT_TEMPERATURE = 0.1
CLIP = 5.0  # largest norm of a gradient

#: the loss of a batch of rows (B,) at a moment, and facts about it for the history
BatchLoss = Callable[[Tensor, "Moment"], tuple[Tensor, dict[str, Tensor]]]


class Residual(nn.Module):
    r"""A layer that changes nothing at the start, :math:`x + W_2\, \mathrm{relu}(W_1 x + b_1)` with :math:`W_2 = 0`.

    Args:
        dim: of the rows that go in, and come out.
        hidden: width in between.
        seed: of W1.
    """

    def __init__(self, dim: int, hidden: int, seed: int = 0) -> None:
        super().__init__()
        with seeded(seed):
            self.first, self.second = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = x + self.second(self.first(x).relu())
        return changed


class CosineHead(nn.Module):
    r"""Logits by the angle to a direction per class, :math:`\langle z, w_k \rangle / (|z| |w_k| \tau) + b_k`.

    Args:
        direction: (K, E), of any length.
        temperature: tau.

    Attributes:
        offset: b (K,), 0 unless it is set after training.
    """

    offset: Tensor

    def __init__(self, direction: Tensor, temperature: float = LOGIT_TEMPERATURE) -> None:
        super().__init__()
        self.direction = nn.Parameter(normalize(direction.clone(), dim=1))
        self.register_buffer("offset", torch.zeros(len(direction)))
        self.temperature = temperature

    def forward(self, embedded: Tensor) -> Tensor:
        return normalize(embedded, dim=-1) @ normalize(self.direction, dim=1).T / self.temperature + self.offset


class ClassNetwork(ClassModel):
    """Rows through an optional encoder, a body and a head: the model of K classes of a method with gradients.

    Args:
        head: logits (B, K) of embedded rows (B, E).
        body: embedded rows (B, E) of features (B, D); the identity where not given.
        encoder: trained with the rest; None where rows are features.
    """

    def __init__(self, head: nn.Module, body: nn.Module | None = None, encoder: TrainableEncoder | None = None) -> None:
        super().__init__()
        self.encoder, self.body, self.head = encoder, nn.Identity() if body is None else body, head

    def features(self, arrays: Arrays) -> Tensor:
        """Features (B, D) of rows, with gradient where an encoder is trained."""
        return arrays["features"] if self.encoder is None else self.encoder.encode(arrays)

    def embed(self, arrays: Arrays) -> Tensor:
        embedded: Tensor = normalize(self.body(self.features(arrays)), dim=1)
        return embedded

    def logits(self, arrays: Arrays) -> Tensor:
        """Logits (B, K) of rows."""
        found: Tensor = self.head(self.embed(arrays))
        return found

    def forward(self, arrays: Arrays) -> Tensor:
        return self.logits(arrays).log_softmax(dim=1)


class Views:
    r"""Two views of rows whose class is the same: as they are or little changed, and changed much.

    An encoder that is trained has changes of its own (`Augmentation`). Of fixed features the first view is the row, the
    second, by `kind`,

    - "mix": :math:`\lambda x_i + (1 - \lambda) x_j`, j one of the ten nearest neighbours,
      :math:`\lambda \sim U(\tfrac12, 1)`;
    - "neighbour": one of the ten nearest neighbours itself;
    - "jitter": :math:`x_i + s\, \epsilon`, noise of a share s of the standard deviation of every dimension.

    Args:
        task: the rows.
        kind: of the second view of fixed features.
        near: how many neighbours there are to mix with.
        strength: s.
    """

    def __init__(
        self,
        task: Task,
        kind: Literal["mix", "neighbour", "jitter"] = "mix",
        near: int = NEIGHBOURS,
        strength: float = 0.5,
    ) -> None:
        self.task, self.kind, self.strength = task, kind, strength
        self.augmentation = None if task.encoder is None else task.encoder.augmentation()
        self.device = task.features.device
        fixed = task.encoder is None and task.n_rows > 1
        self.near = neighbours(task.features, near, seed=task.seed).cpu() if fixed and kind != "jitter" else None
        self.spread = task.features.std(dim=0, correction=0)

    def __call__(self, rows: Tensor, generator: torch.Generator) -> tuple[Arrays, Arrays]:
        """Two views of rows (B,), on the device of the work."""
        arrays = self.task.rows[rows]
        if self.task.encoder is not None:
            if self.augmentation is None:
                return to_device(arrays, self.device), to_device(arrays, self.device)
            weak, strong = self.augmentation.weak(arrays, generator), self.augmentation.strong(arrays, generator)
            return to_device(weak, self.device), to_device(strong, self.device)
        x = arrays["features"].to(self.device)
        return {"features": x}, {"features": self._changed(x, rows, generator)}

    def _changed(self, x: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
        if self.near is None:
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            return x + self.strength * self.spread * noise
        chosen = torch.randint(self.near.shape[1], (len(rows),), generator=generator)
        other = self.task.features[self.near[rows, chosen].to(self.device)]
        if self.kind == "neighbour":
            return other
        share = (0.5 + torch.rand(len(rows), 1, generator=generator, dtype=x.dtype) / 2).to(x.device)
        return share * x + (1 - share) * other


class Said:
    r"""What is said of the rows of a batch about K classes, for losses and targets.

    Args:
        task: the rows.
        node: (K,) the node of every class; the first G are the known ones.
    """

    def __init__(self, task: Task, node: Tensor) -> None:
        evidence, device = task.evidence, task.features.device
        self.task, self.node, self.n_known = task, node.to(device), evidence.n_known
        self.nodes = None if evidence.nodes is None else evidence.nodes.to(device)
        self.known = None if evidence.known is None else evidence.known.to(device)
        self.class_told = evidence.told.to(device)
        self.told = self.class_told.clone()
        if self.nodes is not None:
            self.told |= ~flat(self.nodes)

    def table(self, rows: Tensor) -> Tensor:
        """Log evidence (B, K) of rows (B,); 0 where nothing is said."""
        rows = rows.to(self.node.device)
        table = torch.zeros(len(rows), len(self.node), device=self.node.device)
        if self.nodes is not None:
            table = table + self.nodes[rows][:, self.node]
        if self.known is not None:
            new = torch.where(self.class_told[rows], -torch.inf, 0.0)[:, None].expand(-1, len(self.node) - self.n_known)
            table = table + torch.cat([self.known[rows], new], dim=1)
        return table

    def posterior(self, log_probs: Tensor, rows: Tensor) -> Tensor:
        """Probabilities (B, K) of the classes of rows, given what is said of each by itself."""
        return (log_probs + self.table(rows)).softmax(dim=1)

    def loss(self, log_probs: Tensor, rows: Tensor) -> Tensor:
        r"""Mean of :math:`-\log \sum_k p_{ik} P(o_i \mid k)` over the rows (B,) of which something is said, or 0.

        Of a row whose class is told it is the cross-entropy, of one whose coarse class is told the same for that.
        """
        told = self.told[rows.to(self.node.device)]
        if not bool(told.any()):
            return log_probs.sum() * 0
        return -torch.logsumexp(log_probs[told] + self.table(rows.to(told.device)[told]), dim=1).mean()

    def pair_loss(self, network: ClassModel, size: int, generator: torch.Generator) -> Tensor:
        r"""Mean of :math:`-\log P(\mathrm{answer} \mid p_i, p_j)` over at most `size` pairs, drawn; 0 without pairs.

        The probability of one class is :math:`\sum_k p_{ik} p_{jk}`.
        """
        pairs = self.task.evidence.pairs
        if not len(pairs):
            return torch.zeros((), device=self.node.device)
        drawn = torch.randperm(len(pairs), generator=generator)[:size]
        both = pairs[drawn].T.flatten()
        log_probs: Tensor = network(to_device(self.task.rows[both], self.node.device))
        first, second = log_probs.exp().chunk(2)
        one = (first * second).sum(dim=1).clamp(1e-6, 1 - 1e-6)
        same = self.task.evidence.same[drawn].to(one.device) == 1
        return -torch.where(same, one, 1 - one).log().mean()


@dataclass(frozen=True)
class Moment:
    """Where in a training a batch stands.

    Attributes:
        epoch: from 0.
        share: of all steps that are done, in [0, 1).
        generator: of all that is random, on the CPU.
    """

    epoch: int
    share: float
    generator: torch.Generator


@dataclass(frozen=True)
class Pace:
    """How a network is trained.

    Attributes:
        epochs: times that every row is seen.
        batch_size: rows at once.
        rate: highest learning rate, of body and head; down to 0 along a cosine.
        encoder_rate: of the encoder; its own default where None.
        weight_decay: of matrices, decoupled.
        most_batches: of an epoch; of more rows it goes through some, drawn anew.
    """

    epochs: int = 10
    batch_size: int = 256
    rate: float = 1e-3
    encoder_rate: float | None = None
    weight_decay: float = 0.0
    most_batches: int | None = None


def train(
    network: ClassNetwork,
    loss: BatchLoss,
    n_rows: int,
    pace: Pace,
    *,
    seed: int,
    callback: Callback | None = None,
    at_epoch: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Bring down a loss over batches of rows by Adam; deterministic in the seed. One dict per epoch comes back.

    Args:
        network: is changed, and left in evaluation mode.
        loss: of rows (B,) at a `Moment`.
        n_rows: N; every epoch goes through all, in random order, in batches of nearly one size, or see `Pace`.
        callback: called after every epoch.
        at_epoch: called before every epoch with its number, for what a method does to its classes in between. It may
            change parameters in place; a parameter that is replaced is no longer trained.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = max(1, -(-n_rows // pace.batch_size))
    seen = n_rows
    if pace.most_batches is not None and batches > pace.most_batches:
        batches = pace.most_batches
        seen = batches * pace.batch_size
    total, history = pace.epochs * batches, []
    optimiser = torch.optim.AdamW(_groups(network, pace))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _height(step, total))
    with seeded(seed):
        for epoch in range(pace.epochs):
            if at_epoch is not None:
                at_epoch(epoch)
            network.train()
            sums: dict[str, Tensor] = {}
            for place, rows in enumerate(torch.randperm(n_rows, generator=generator)[:seen].tensor_split(batches)):
                moment = Moment(epoch, (epoch * batches + place) / total, generator)
                value, facts = loss(rows, moment)
                optimiser.zero_grad(set_to_none=True)
                value.backward()
                nn.utils.clip_grad_norm_(network.parameters(), CLIP)
                optimiser.step()
                schedule.step()
                for name, fact in ({"loss": value} | facts).items():
                    sums[name] = sums.get(name, torch.zeros(())) + fact.detach().cpu() / batches
            history.append({"step": f"epoch {epoch + 1}"} | {name: float(mean) for name, mean in sums.items()})
            if callback is not None:
                callback(epoch + 1, pace.epochs, history[-1])
    network.eval()
    return history


def teach(
    network: ClassNetwork, views: Views, wanted: Tensor, pace: Pace, *, seed: int, callback: Callback | None = None
) -> list[dict[str, Any]]:
    """Bring what a network says of both views of rows to probabilities (N, K), by cross-entropy; see `train`."""
    wanted = wanted.to(views.device)

    def loss(rows: Tensor, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
        seen = [network(view) for view in views(rows, moment.generator)]
        return -(wanted[rows.to(wanted.device)] * (seen[0] + seen[1])).sum(dim=1).mean() / 2, {}

    return train(network, loss, len(wanted), pace, seed=seed, callback=callback)


def _groups(network: ClassNetwork, pace: Pace) -> list[dict[str, Any]]:
    own = set()
    groups: list[dict[str, Any]] = []
    if network.encoder is not None:
        rate = network.encoder.training_defaults.learning_rate if pace.encoder_rate is None else pace.encoder_rate
        groups += [group | {"weight_decay": pace.weight_decay} for group in network.encoder.learning_rates(rate)]
        own = {id(p) for p in network.encoder.parameters()}
    rest = [p for p in network.parameters() if id(p) not in own and p.requires_grad]
    matrices, vectors = [p for p in rest if p.ndim > 1], [p for p in rest if p.ndim <= 1]
    groups.append({"params": matrices, "lr": pace.rate, "weight_decay": pace.weight_decay})
    if vectors:
        groups.append({"params": vectors, "lr": pace.rate, "weight_decay": 0.0})
    return groups


def _height(step: int, total: int) -> float:
    """Share of the highest rate: up over the first twentieth of the steps, down along a cosine."""
    warm = max(1, total // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * min(1.0, (step - warm) / max(1, total - warm))))))
