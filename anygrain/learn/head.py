"""Heads: from features to the log-probabilities of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from anygrain.labels import LabelError


class Head(nn.Module):
    """Features (B, D) to log-probabilities (B, K).

    A head gives ``logits`` and ``penalty``; ``forward`` normalises. A new head registers its class under a name in
    ``HEADS`` or is passed to the Learner as it is.
    """

    def __init__(self, feature_dim: int, n_classes: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.n_classes = n_classes

    @property
    def device(self) -> torch.device:
        return next(chain(self.parameters(), self.buffers())).device

    def logits(self, features: Tensor) -> Tensor:
        """Unnormalised scores (B, K)."""
        raise NotImplementedError

    def penalty(self) -> Tensor:
        """Squared size of what should stay small, a scalar."""
        raise NotImplementedError

    def start(self, features: Tensor, posterior: Tensor) -> None:
        """Set the parameters near a good place for (N, D) features and (N, K) posteriors. Nothing by default."""

    def learn(self, features: Tensor, posterior: Tensor, weight: Tensor | None = None) -> bool:
        """Fit without a gradient to (N, D), (N, K) and weights (N,); False where a head has a gradient instead."""
        return False

    def forward(self, features: Tensor) -> Tensor:
        return self.logits(features).log_softmax(dim=-1)


class Linear(Head):
    r""":math:`\log p_k(z) = w_k^\top z + b_k - \log\sum_l \exp(w_l^\top z + b_l)`, from zero weights."""

    def __init__(self, feature_dim: int, n_classes: int) -> None:
        super().__init__(feature_dim, n_classes)
        self.weight = nn.Parameter(torch.zeros(n_classes, feature_dim))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def logits(self, features: Tensor) -> Tensor:
        return nn.functional.linear(features, self.weight, self.bias)

    def penalty(self) -> Tensor:
        return self.weight.square().sum()


def class_means(features: Tensor, posterior: Tensor) -> Tensor:
    """Means (K, D) of (N, D) features weighted by (N, K) posteriors; the overall mean where a class has no mass."""
    mass = posterior.sum(dim=0)[:, None]
    overall = features.mean(dim=0)
    return (posterior.T @ features + overall) / (mass + 1)


class Cosine(Head):
    r""":math:`\log p_k(z) \propto s \cos(z, c_k)` with a learnt scale s > 0.

    Source: Gidaris and Komodakis, Dynamic Few-Shot Visual Learning without Forgetting, 2018.
    """

    def __init__(self, feature_dim: int, n_classes: int) -> None:
        super().__init__(feature_dim, n_classes)
        self.centre = nn.Parameter(torch.eye(n_classes, feature_dim) + 1e-3)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def logits(self, features: Tensor) -> Tensor:
        unit = nn.functional.normalize(features, dim=-1)
        return self.log_scale.exp() * unit @ nn.functional.normalize(self.centre, dim=-1).T

    def penalty(self) -> Tensor:
        return self.log_scale.exp().square() * 0.1

    def start(self, features: Tensor, posterior: Tensor) -> None:
        with torch.no_grad():
            self.centre.copy_(class_means(features, posterior))


class Prototype(Head):
    r""":math:`\log p_k(z) \propto -s\,|z - c_k|^2 / 2`: a mixture of equal round Gaussians.

    Source: Snell, Swersky and Zemel, Prototypical Networks for Few-shot Learning, 2017.
    """

    def __init__(self, feature_dim: int, n_classes: int) -> None:
        super().__init__(feature_dim, n_classes)
        self.centre = nn.Parameter(torch.zeros(n_classes, feature_dim))
        self.log_scale = nn.Parameter(torch.tensor(0.0))

    def logits(self, features: Tensor) -> Tensor:
        square = (
            features.square().sum(dim=-1, keepdim=True)
            - 2 * features @ self.centre.T
            + self.centre.square().sum(dim=-1)
        )
        return -0.5 * self.log_scale.exp() * square

    def penalty(self) -> Tensor:
        return self.log_scale.exp().square() * (self.centre - self.centre.mean(dim=0)).square().sum()

    def start(self, features: Tensor, posterior: Tensor) -> None:
        with torch.no_grad():
            self.centre.copy_(class_means(features, posterior))


class Quadratic(Head):
    r""":math:`\log p_k(z) \propto \log\pi_k - \frac12\sum_d [(z_d - \mu_{kd})^2 / v_{kd} + \log v_{kd}]`.

    One diagonal Gaussian per class: quadratic boundaries.
    """

    def __init__(self, feature_dim: int, n_classes: int) -> None:
        super().__init__(feature_dim, n_classes)
        self.mean = nn.Parameter(torch.zeros(n_classes, feature_dim))
        self.log_variance = nn.Parameter(torch.zeros(n_classes, feature_dim))
        self.log_prior = nn.Parameter(torch.zeros(n_classes))

    def logits(self, features: Tensor) -> Tensor:
        precision = torch.exp(-self.log_variance)
        square = features.square() @ precision.T - 2 * features @ (precision * self.mean).T
        constant = (precision * self.mean.square() + self.log_variance).sum(dim=-1)
        return self.log_prior - 0.5 * (square + constant)

    def penalty(self) -> Tensor:
        pooled = self.log_variance - self.log_variance.mean(dim=0)
        return (self.mean - self.mean.mean(dim=0)).square().sum() + pooled.square().sum()

    def start(self, features: Tensor, posterior: Tensor) -> None:
        with torch.no_grad():
            mean = class_means(features, posterior)
            spread = class_means(features.square(), posterior) - mean.square()
            within = (posterior.sum(dim=0) @ spread / posterior.sum()).clamp(min=1e-6)
            self.mean.copy_(mean)
            self.log_variance.copy_(within.log().expand_as(self.log_variance))


class Perceptron(Head):
    r""":math:`\log p_k(z) \propto w_k^\top h(z) + b_k, \quad h(z) = \max(0, V z + a)`: one hidden layer.

    Hidden units are dropped at random in gradient steps, so that several passes tell how sure the network is; a full
    batch fit (`fit_head`) and predictions use all of them. First weights are drawn from a fixed seed.

    Attributes:
        width: hidden units.
        dropout: share of hidden units that is dropped.
    """

    width = 128
    dropout = 0.2

    def __init__(self, feature_dim: int, n_classes: int) -> None:
        super().__init__(feature_dim, n_classes)
        self.inner_weight = nn.Parameter(torch.empty(self.width, feature_dim))
        self.inner_bias = nn.Parameter(torch.zeros(self.width))
        self.weight = nn.Parameter(torch.empty(n_classes, self.width))
        self.bias = nn.Parameter(torch.zeros(n_classes))
        self.draw(torch.Generator().manual_seed(0))
        self.eval()

    def draw(self, generator: torch.Generator) -> None:
        """Start anew from weights of a generator."""
        with torch.no_grad():
            for weight in (self.inner_weight, self.weight):
                drawn = torch.randn(weight.shape, generator=generator) * (2 / weight.shape[1]) ** 0.5
                weight.copy_(drawn)
            self.inner_bias.zero_()
            self.bias.zero_()

    def hidden(self, features: Tensor) -> Tensor:
        """Activations (B, width)."""
        found = nn.functional.linear(features, self.inner_weight, self.inner_bias).relu()
        return nn.functional.dropout(found, self.dropout, training=self.training)

    def logits(self, features: Tensor) -> Tensor:
        return nn.functional.linear(self.hidden(features), self.weight, self.bias)

    def penalty(self) -> Tensor:
        return self.inner_weight.square().sum() + self.weight.square().sum()


class SmallPerceptron(Perceptron):
    """A `Perceptron` of 16 hidden units, for labels that say little of a row."""

    width = 16


class Committee(Perceptron):
    """Three small perceptrons side by side as one: its logits are weighted means of theirs, see `joined`."""

    width = 3 * SmallPerceptron.width

    def joined(self, members: Sequence[SmallPerceptron], weights: Sequence[float]) -> Committee:
        """Take over three fitted networks, with the weight of each."""
        with torch.no_grad():
            self.inner_weight.copy_(torch.cat([one.inner_weight for one in members]))
            self.inner_bias.copy_(torch.cat([one.inner_bias for one in members]))
            pairs = list(zip(members, weights, strict=True))
            self.weight.copy_(torch.cat([w * one.weight for one, w in pairs], dim=1))
            self.bias.copy_(torch.stack([w * one.bias for one, w in pairs]).sum(dim=0))
        return self


HEADS: dict[str, type[Head]] = {
    "linear": Linear,
    "cosine": Cosine,
    "prototype": Prototype,
    "quadratic": Quadratic,
    "mlp": Perceptron,
    "small-mlp": SmallPerceptron,
    "committee": Committee,
}


def make_head(head: str | type[Head], feature_dim: int, n_classes: int) -> Head:
    """Build a head by its name in ``HEADS`` or from its class."""
    if isinstance(head, str):
        if head not in HEADS:
            raise LabelError(f'head "{head}" is not known: expected one of {", ".join(HEADS)}, or a Head class')
        head = HEADS[head]
    return head(feature_dim, n_classes)


def fit_head(
    head: Head,
    features: Tensor,
    posterior: Tensor,
    *,
    weight: Tensor | None = None,
    penalty: float = 0.01,
    steps: int = 8,
) -> Head:
    r"""Minimise, by full-batch L-BFGS from where the head stands, or as the head itself does it (`Head.learn`),

    .. math:: \frac{1}{\sum_i w_i}\sum_i w_i \Big(-\sum_k q_{ik}\log p_{ik}\Big) + \frac{\lambda}{2} |W|^2

    Args:
        features: (N, D).  posterior: (N, K), the targets q.  weight: (N,), ones when not given.
        penalty: the lambda of the formula.
        steps: L-BFGS iterations.
    """
    if head.learn(features, posterior, weight):
        return head
    share = posterior if weight is None else posterior * weight[:, None]
    share = share / (float(len(features)) if weight is None else weight.sum().clamp(min=1e-12))
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = -(share * head(features)).sum() + 0.5 * penalty * head.penalty()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return head
