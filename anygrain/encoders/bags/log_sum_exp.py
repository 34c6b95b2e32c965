"""A smooth maximum of a bag's instances, feature by feature."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.pooled import Pooled
from anygrain.labels import LabelError


class LogSumExp(Aggregator):
    r""":math:`z_d = \frac1r \log \frac1n \sum_i e^{r h_{id}}`: the mean for small r, the maximum for large.

    r is learnt. Attention is how far the bag moves with an instance, :math:`e^{r h_{id}} / \sum_j e^{r h_{jd}}`, on the
    mean over features. The score of an instance is that of a bag of it alone.

    Args:
        dim: features of an instance.
        sharpness: r at the start, above 0.

    Source: Pinheiro and Collobert, From Image-level to Pixel-level Labeling with Convolutional Networks, 2015.
    """

    def __init__(self, dim: int, sharpness: float = 3.0) -> None:
        super().__init__()
        if not sharpness > 0:
            raise LabelError(f"sharpness is {sharpness}; expected a number above 0")
        self.feature_dim = dim
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(sharpness)))

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Pooled:
        sharpness = self.log_sharpness.exp()
        raised = sharpness * features
        bag = (segments.logsumexp(raised, sizes) - segments.wide(sizes, features).log()) / sharpness
        return Pooled(bag, features, segments.softmax(raised, sizes).mean(dim=1))
