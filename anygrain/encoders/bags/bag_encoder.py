"""Bags of instances as rows, read by a network that is trained with the head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.bag_noise import BagNoise
from anygrain.encoders.bags.dropout import Dropout
from anygrain.encoders.bags.named import aggregator_named, check_options
from anygrain.encoders.bags.pooled import Pooled
from anygrain.encoders.bags.re_embedding import ReEmbedding
from anygrain.encoders.bags.recycle import Recycle, without
from anygrain.encoders.bags.standardised_linear import standardised_linear
from anygrain.encoders.trainable import Arrays, Augmentation, TrainableEncoder, Training, in_batches, seeded
from anygrain.labels import LabelError

if TYPE_CHECKING:
    from anygrain.data.bag_data import BagData

AT_ONCE = 1 << 22  # numbers of instances that go through the network together: 16 megabytes
LARGEST_BATCH = 16  # bags
BATCH = 1 << 24  # numbers of their instances, on the average, from which on batches hold fewer
KEPT = 8  # tensors of hidden features that a gradient keeps
READ = 1 << 22  # numbers that are read at once to learn means from
CACHED = 1 << 18  # and looked at together


class BagRows:
    """Bags, read when asked for, and what each costs.

    Args:
        data: the bags.
        width: numbers that an instance comes to on its way; its features where not given.

    Attributes:
        costs: (M,), share of a bag in what may go through the network at once.
    """

    def __init__(self, data: BagData, width: float | None = None) -> None:
        self.data = data
        self.costs = data.sizes.double() * (data.feature_dim if width is None else width) / AT_ONCE

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: Tensor) -> Arrays:
        return self.data.read(rows)


class BagEncoder(TrainableEncoder):
    r"""A bag to its features: a layer for every instance, attention among instances if wanted, and an aggregator.

    .. math:: z = \mathrm{aggregate}(\{h_i\}), \qquad h_i = \mathrm{gelu}(W \tilde x_i + b), \qquad
        \tilde x = (x - \mu) / \sigma

    with means and deviations of all instances, learnt without labels, a pass over bags that need not fit into memory. A
    linear head on z reads `Pooled.instances` as well: that is how a model of bags answers for instances.

    A batch has at most 16 bags, fewer where they are large: with 64 megabytes of instances it is trained in parts whose
    gradients are added. Bags are never cut, so that memory is bounded by the largest of them; layers of a large one are
    computed again for their gradient (`sparing`).

    Args:
        aggregator: "mean", "max", "log_sum_exp", "noisy_or", "attention", "dsmil", "clam", "transformer", "trans_mil",
            "mamba", "set_transformer" or "deep_sets".
        hidden: features of h.
        dropout: share of h that is dropped in training.
        reembedding: settings of a `ReEmbedding` in front of the aggregator, {} for its own; None for none.
        recycle: tokens that stand for masked instances (`Recycle`), where a training masks some; 0 drops them.
        recycle_all: whether tokens of all instances stand beside them when the model answers: attention that was
            trained with tokens misses them otherwise, where most instances were masked.
        feature_count: features of an instance; learnt.
        bag_size: mean instances of a bag; learnt.
        options: of the aggregator.

    Raises:
        LabelError: an aggregator or an option of it that is not known; bags of another number of features.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        aggregator: str = "attention",
        hidden: int = 128,
        dropout: float = 0.25,
        reembedding: Mapping[str, Any] | None = None,
        recycle: int = 0,
        recycle_all: bool = False,
        feature_count: int | None = None,
        bag_size: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__()
        check_options(aggregator, options)
        if hidden < 1 or recycle < 0:
            raise LabelError(f"hidden is {hidden}, recycle {recycle}; expected 1 or more, and 0 or more")
        self.aggregator_name, self.hidden, self.dropout, self.options = aggregator, hidden, dropout, options
        self.reembedding_options = None if reembedding is None else dict(reembedding)
        self.recycle_tokens, self.recycle_all = recycle, recycle_all
        self.feature_count, self.bag_size = feature_count, bag_size
        self.feature_dim = aggregator_named(aggregator, hidden, options).feature_dim

    def config(self) -> dict[str, Any]:
        return {
            "aggregator": self.aggregator_name,
            "hidden": self.hidden,
            "dropout": self.dropout,
            "reembedding": self.reembedding_options,
            "recycle": self.recycle_tokens,
            "recycle_all": self.recycle_all,
            "feature_count": self.feature_count,
            "bag_size": self.bag_size,
            **self.options,
        }

    @property
    def training_defaults(self) -> Training:  # type: ignore[override]
        """Batches of 16 bags, or of so many as hold 64 megabytes on the average."""
        cost = self.bag_size * (self.feature_count or 1) / BATCH
        size = max(1, min(LARGEST_BATCH, int(1 / max(cost, 1e-9))))
        return Training(learning_rate=1e-3, batch_size=size, steps=1500, weight_decay=0.05)

    def learn(self, data: Any, seed: int = 0) -> BagEncoder:
        bags = require_bags(data)
        self.feature_count, self.bag_size = bags.feature_dim, float(bags.sizes.double().mean())
        with seeded(seed):
            self.build()
            self.aggregator.learn(bags.sizes)
        mean, deviation = moments(bags)
        constant = deviation <= 1e-6 * mean.abs()  # float32 knows no less
        self.mean = mean.float()
        self.scale = torch.where(constant, 0, 1 / torch.where(constant, 1, deviation)).float()
        return self

    def build(self) -> None:
        count = self.feature_count
        if count is None:
            raise LabelError("the encoder has seen no bags yet: call learn(data)")
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.enter = nn.Linear(count, self.hidden)
        self.drop = Dropout(self.dropout)
        again = self.reembedding_options
        self.reembedding = None if again is None else ReEmbedding(self.hidden, **again)
        self.recycle = Recycle(self.hidden, self.recycle_tokens) if self.recycle_tokens else None
        self.aggregator: Aggregator = aggregator_named(self.aggregator_name, self.hidden, self.options)

    def inputs(self, data: Any) -> BagRows:
        bags = require_bags(data)
        if bags.feature_dim != self.feature_count:
            raise LabelError(
                f"the bags have {bags.feature_dim} features; expected the {self.feature_count} that the model has seen"
            )
        return BagRows(bags, (bags.feature_dim + KEPT * self.hidden) / 2)

    def augmentation(self) -> Augmentation:
        return BagNoise()

    def learning_rates(self, rate: float) -> list[dict[str, Any]]:
        """Weights, and without decay what is no matrix: shifts, norms, the decays of state-space models."""
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        bare = {name for name, p in named if p.ndim < 2 or name.endswith("log_a")}
        return [
            {"params": [p for name, p in named if name not in bare], "lr": rate},
            {"params": [p for name, p in named if name in bare], "lr": rate, "weight_decay": 0.0},
        ]

    def seen(self, arrays: Arrays) -> Tensor:
        """h (E, hidden) of "features" (E, d), "sizes" (B,) and, where there are places, "coords" (E, 2)."""
        entered = standardised_linear(arrays["features"], self.mean, self.scale, self.enter.weight, self.enter.bias)
        hidden: Tensor = self.drop(nn.functional.gelu(entered))
        return hidden if self.reembedding is None else self.reembedding(hidden, arrays["sizes"], arrays.get("coords"))

    def pool(self, arrays: Arrays) -> Pooled:
        """Bags, instances and attention of a batch, with gradient.

        Instances that are "masked", bool (E,), are left out, or stand in the bag as tokens.
        """
        hidden, sizes, coords = self.seen(arrays), arrays["sizes"], arrays.get("coords")
        if "masked" in arrays:
            hidden, sizes, coords = (self.recycle or without)(hidden, sizes, coords, arrays["masked"])
        elif self.recycle is not None and self.recycle_all and not self.training:
            return self.recycle.beside(hidden, sizes, coords, self.aggregator)
        found: Pooled = self.aggregator(hidden, sizes, coords)
        return found

    def encode(self, arrays: Arrays) -> Tensor:
        """Features (B, D) of a batch."""
        return self.pool(arrays).bag

    def instances(self, data: Any) -> Tensor:
        """Instances (N, D) of all bags in the space of bags, in their order, on the CPU."""
        rows = self.inputs(data)
        return in_batches(lambda arrays: self.pool(arrays).instances, rows, LARGEST_BATCH, self)

    def attention(self, data: Any) -> Tensor:
        """Attention (N,) of the instances of all bags, in their order, on the CPU.

        Raises:
            LabelError: an aggregator that has none.
        """

        def of(arrays: Arrays) -> Tensor:
            found = self.pool(arrays).attention
            if found is None:
                raise LabelError(f'the aggregator "{self.aggregator_name}" has no attention')
            return found

        return in_batches(of, self.inputs(data), LARGEST_BATCH, self)


def moments(bags: BagData) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (d,) of all instances, in double precision, in one pass.

    Sums are those of differences from the mean of the first few instances: sums of squares of far-away numbers would
    lose their digits.
    """
    step = max(1, CACHED // bags.feature_dim)
    around: Tensor | None = None
    total, square = torch.zeros(2, bags.feature_dim, dtype=torch.float64)
    for part in bags.instances(max(1, READ // bags.feature_dim)):
        for features in part["features"].split(step):
            around = features.mean(dim=0) if around is None else around
            moved = features - around
            total += moved.sum(dim=0)
            square += moved.square_().sum(dim=0)
    assert around is not None
    apart = total / bags.n_instances
    return around + apart, (square / bags.n_instances - apart.square()).clamp(min=0).sqrt()


def require_bags(data: Any) -> BagData:
    """Raises LabelError where something else than `BagData` was given."""
    from anygrain.data.bag_data import BagData

    if not isinstance(data, BagData):
        raise LabelError(
            f"X is {type(data).__name__}; expected bags, such as BagData.from_arrays(list of (n, d) arrays)"
        )
    return data
