"""How many instances of every class there are, as far as a fit can tell before its last loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.encoders.trainable import TrainableEncoder

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


def class_counts(learner: Learner) -> Tensor:
    r"""Soft class counts (K,) of the instances of a fit.

    On fixed features those of the recipe's posteriors. With an encoder that is yet to be trained those of the evidence
    alone, of instances of which it says something.
    """
    labels = learner.labels_
    weight = labels.instance_weight().double().cpu()
    if not isinstance(learner.encoder_, TrainableEncoder):
        return weight @ torch.as_tensor(learner.posterior_).double()
    uniform = torch.full((labels.n_instances, labels.n_classes), -math.log(labels.n_classes), device=labels.device)
    posterior = labels.posterior(uniform).double().cpu()
    told = posterior.max(dim=1).values > 1.001 / labels.n_classes
    return (weight * told) @ posterior
