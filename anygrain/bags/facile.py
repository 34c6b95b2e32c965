"""Instance features from labels of sets, for fine classes of which few instances are told (FACILE)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from anygrain.bags.candidate_contrast import weakly_supervised_contrast
from anygrain.data.bag_data import BagData
from anygrain.encoders.bags import BagEncoder
from anygrain.encoders.bags.instance_encoder import InstanceEncoder
from anygrain.encoders.trainable import seeded
from anygrain.labels import LabelError
from anygrain.learn import Learner, Term
from anygrain.learn.step import Step


class SetContrast(Term):
    r"""Supervised contrast of sets: those of one label attract, by projections r of their features.

    .. math:: L = -\frac1B \sum_i \frac1{|P(i)|} \sum_{p \in P(i)}
              \log \frac{e^{r_i \cdot r_p / \tau}}{\sum_{a \ne i} e^{r_i \cdot r_a / \tau}}

    P(i) are the other sets of a batch whose likeliest label is that of i; a batch needs two of a label to say anything.

    Args:
        weight: of the term.
        temperature: :math:`\tau`.
        width: of the projections.

    Source: Khosla et al., Supervised Contrastive Learning, 2020.
    """

    def __init__(self, weight: float = 1.0, temperature: float = 0.07, width: int = 64) -> None:
        super().__init__()
        if not temperature > 0:
            raise LabelError(f"temperature is {temperature:g}; expected a number above 0")
        self.weight, self.temperature, self.width = weight, temperature, width

    def on_fit_start(self, learner: Learner) -> None:
        with seeded(int(learner.seed)):
            size = learner.encoder_.feature_dim
            self.projection = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, self.width))

    def forward(self, step: Step) -> Tensor:
        unit = nn.functional.normalize(self.projection(step.features), dim=1)
        classes = step.posterior.argmax(dim=1)
        return self.weight * weakly_supervised_contrast(unit, unit, classes, classes, self.temperature)


def pretrain_on_sets(
    data: BagData,
    labels: Any,
    aggregator: str = "attention",
    *,
    contrast: float = 0.0,
    hidden: int = 128,
    seed: int = 0,
    **learner: Any,
) -> InstanceEncoder:
    """An encoder of instances, trained through an aggregator by labels that sets have.

    The second stage is a `Learner` of the few instances whose fine class is told, with any kind of label:
    ``Learner(encoder=pretrain_on_sets(data, Exact(w)), head="prototype").fit(X, y)``.

    Args:
        data: sets of instances.
        labels: a label per set, any kind (`Exact`, `Noisy`, `Crowd`, ...).
        aggregator: how a set is read: "attention", "deep_sets", "set_transformer", ...
        contrast: weight of `SetContrast` beside the likelihood of the labels; 0 is without.
        hidden: features of an instance.
        seed: of the training.
        learner: other arguments of the `Learner` of the first stage: `epochs`, `learning_rate`, ...

    Source: Enhancing Instance-Level Image Classification with Set-Level Labels (FACILE), 2024.
    """
    terms = [*learner.pop("terms", ()), *([SetContrast(contrast)] if contrast else [])]
    model = Learner(encoder=BagEncoder(aggregator, hidden=hidden), terms=terms, seed=seed, **learner)
    return InstanceEncoder.of(model.fit(data, labels).encoder_)
