"""A smooth function of few numbers at its least, within bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def least_point(
    value: Callable[[Tensor], Tensor], start: Tensor, bounds: Sequence[tuple[float, float]], steps: int = 100
) -> Tensor:
    """Where a function (n,) -> () is least, (n,) in double precision, from a start within bounds, by L-BFGS-B.

    Without bounds a line search may leave for where an exponential overflows, and does not come back.
    """
    from scipy.optimize import minimize

    def with_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        free = torch.tensor(x, dtype=torch.float64, device=start.device, requires_grad=True)
        with torch.enable_grad():
            found = value(free)
            (gradient,) = torch.autograd.grad(found, free)
        return float(found.detach()), gradient.cpu().numpy()

    first = start.detach().double().cpu().numpy()
    found = minimize(with_gradient, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps})
    return torch.from_numpy(np.asarray(found.x)).to(start.device)
