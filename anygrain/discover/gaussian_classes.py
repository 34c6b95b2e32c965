"""Classes that are Gaussians in few dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from anygrain.discover.components import components
from anygrain.discover.found import ClassModel
from anygrain.discover.network import ClassNetwork
from anygrain.discover.normal_inverse_wishart import Moments, NormalInverseWishart
from anygrain.encoders.trainable import Arrays

AT_ONCE = 2**19  # numbers held at once while densities are computed: few, so that they stay in the processor's cache


class Reduction(torch.nn.Module):
    """Rows of length one, on their first principal axes.

    Args:
        features: (N, E) rows that the axes are learnt from.
        dimensions: how many axes are kept, at most.
    """

    middle: Tensor
    axes: Tensor

    def __init__(self, features: Tensor, dimensions: int) -> None:
        super().__init__()
        unit = normalize(features, dim=1)
        middle, axes = components(unit, dimensions)
        self.register_buffer("middle", middle)
        self.register_buffer("axes", axes)

    def forward(self, features: Tensor) -> Tensor:
        """Rows (N, D) of features (N, E)."""
        reduced: Tensor = (normalize(features, dim=1) - self.middle) @ self.axes
        return reduced


class Densities(torch.nn.Module):
    r"""What Gaussian classes with unknown mean and covariance say of a further row: Student densities.

    .. math:: p(x \mid X_k) = \frac{h(X_k \cup x)}{h(X_k)} = t_{\nu' - D + 1}\!\left(x;\; m',\;
              \frac{(\kappa' + 1)\, \Psi'}{\kappa' (\nu' - D + 1)}\right)

    Args:
        prior: of every class.
        seen: rows of every class so far, leading shape (K,).
        dtype: of the computation for rows.

    Source: Murphy, Machine Learning: a Probabilistic Perspective, 2012, section 4.6.
    """

    def __init__(self, prior: NormalInverseWishart, seen: Moments, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        later, d = prior.after(seen), seen.mean.shape[-1]
        free = later.nu - d + 1
        shape = later.psi * ((later.kappa + 1) / (later.kappa * free))[:, None, None]
        lower = torch.linalg.cholesky(shape)
        factor = torch.linalg.solve_triangular(lower, torch.eye(d).to(lower), upper=False)
        const = torch.lgamma((free + d) / 2) - torch.lgamma(free / 2) - d / 2 * (free * math.pi).log()
        const = const - lower.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        self.register_buffer("factor", factor.to(dtype))
        self.register_buffer("mean", later.mean.to(dtype))
        self.register_buffer("free", free.to(dtype))
        self.register_buffer("const", const.to(dtype))

    factor: Tensor
    mean: Tensor
    free: Tensor
    const: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Log densities (N, K) of rows (N, D)."""
        k, d = self.mean.shape
        turned = self.factor.reshape(k * d, d).T
        shift = (self.factor @ self.mean[..., None]).flatten()
        parts = x.split(max(1, AT_ONCE // (k * d)))
        distance = torch.cat([torch.addmm(-shift, part, turned).square_().view(-1, k, d).sum(dim=2) for part in parts])
        return self.const - (self.free + d) / 2 * (distance / self.free).log1p()


class GaussianClasses(torch.nn.Module):
    r"""Log-probabilities by shares and Student densities, :math:`p(k \mid x) \propto (N_k + 1)\, p(x \mid X_k)`.

    Args:
        densities: of rows.
        size: (K,) rows of every class.
    """

    log_share: Tensor

    def __init__(self, densities: Densities, size: Tensor) -> None:
        super().__init__()
        self.densities = densities
        self.register_buffer("log_share", (size + 1).log().log_softmax(dim=0).to(densities.mean))

    def forward(self, arrays: Arrays) -> Tensor:
        """Log-probabilities (B, K) of ``{"features": (B, D)}``."""
        density: Tensor = self.densities(arrays["features"])
        return (self.log_share + density).log_softmax(dim=1)


class ReducedClasses(ClassModel):
    """Classes in few dimensions of what a network makes of rows, or of the features themselves.

    Args:
        reduction: to few dimensions.
        classes: log-probabilities (B, K) of ``{"features": (B, D)}``, reduced rows.
        network: whose embedding is reduced; None for the features.
    """

    def __init__(self, reduction: Reduction, classes: torch.nn.Module, network: ClassNetwork | None = None) -> None:
        super().__init__()
        self.reduction, self.classes, self.network = reduction, classes, network

    def embed(self, arrays: Arrays) -> Tensor:
        features = arrays["features"] if self.network is None else self.network.embed(arrays)
        reduced: Tensor = self.reduction(features)
        return reduced

    def forward(self, arrays: Arrays) -> Tensor:
        found: Tensor = self.classes({"features": self.embed(arrays)})
        return found
