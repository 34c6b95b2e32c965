"""The instance branch of CLAM, trained beside the bags."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from anygrain.encoders.bags import CLAM, BagEncoder
from anygrain.labels import LabelError
from anygrain.learn.step import Step
from anygrain.learn.term import Term


class InstanceClustering(Term):
    r"""The mean loss of the instance branch of the bags of a batch, times a weight; see `CLAM`.

    For `Learner(encoder=BagEncoder("clam", classes=K), terms=[InstanceClustering()])`. What is known of the class of a
    bag is its posterior. The layer below attention is shared, so that the branch shapes what attention sees.

    Args:
        weight: of the loss; the original has 0.3 beside 0.7 of the bags.

    Raises:
        LabelError: an encoder other than `BagEncoder("clam")`, a weight below 0.

    Source: Lu, Williamson, Chen, Chen, Barbieri and Mahmood, Data-efficient and Weakly Supervised Computational
    Pathology on Whole-slide Images, 2021.
    """

    def __init__(self, weight: float = 0.43) -> None:
        super().__init__()
        if not weight >= 0:
            raise LabelError(f"weight is {weight}; expected 0 or more")
        self.weight = weight

    def on_fit_start(self, learner: Any) -> None:
        encoder = learner.encoder_
        if not isinstance(encoder, BagEncoder) or not isinstance(encoder.aggregator, CLAM):
            raise LabelError('InstanceClustering needs encoder=BagEncoder("clam"), which has an instance branch')

    def forward(self, step: Step) -> Tensor:
        assert step.view is not None
        encoder: BagEncoder = step.view.network.encoder  # type: ignore[attr-defined]
        branch = encoder.aggregator
        assert isinstance(branch, CLAM)
        arrays = step.view.arrays
        posterior = step.posterior.new_zeros(len(arrays["sizes"]), step.posterior.shape[1])
        posterior = posterior.index_copy(0, step.view.place, step.posterior)
        return self.weight * branch.instance_loss(encoder.seen(arrays), arrays["sizes"], posterior).mean()
