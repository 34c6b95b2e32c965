"""Which rows to send to a teacher that is sometimes wrong: informative, yet probably answered correctly."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import csr_matrix, eye, hstack
from torch import Tensor

from anygrain.audit.ask.uncertainty import margin
from anygrain.labels import LabelError


def robust_distribution(gain: Tensor, wrong: int) -> tuple[Tensor, float]:
    r"""Chances p (N,) of asking a teacher, against an adversary who makes `wrong` answers false; and the game's value.

    .. math:: \max_p \min_{|M| \le m} \sum_{i \notin M} p_i g_i - \sum_{i \in M} p_i g_i

    Solved in closed form: with gains sorted downwards, :math:`H_t = \sum_{i \le t} 1 / g_i`, :math:`V_t = (t - 2m) /
    H_t` and t* the best t, :math:`p_i = 1 / (g_i H_{t^*})` for the t* highest gains, else 0. There :math:`p_i g_i` is
    the same for all, so the adversary gains nothing by choosing.

    Args:
        gain: what a right answer is worth, in (0, 1], (N,), such as `margin`.
        wrong: m, how many answers in this pool are false.

    Raises:
        LabelError: gains outside (0, 1], m below 0.
        UserWarning: m is half of the pool or more: every choice loses, so p is uniform.

    Source: Baykal et al., Robust Active Distillation, 2023.
    """
    if wrong < 0:
        raise LabelError(f"{wrong} wrong answers; expected 0 or more")
    if not bool(((gain > 0) & (gain <= 1)).all()):
        raise LabelError("gains must lie in (0, 1]")
    order = gain.argsort(descending=True, stable=True)
    inverse = 1 / gain[order].double()
    total = inverse.cumsum(dim=0)
    value = (torch.arange(1, len(gain) + 1, dtype=torch.double) - 2 * wrong) / total.cpu()
    best = int(value.argmax())
    if float(value[best]) <= 0:
        warnings.warn(
            f"{wrong} of {len(gain)} answers are expected to be wrong, half or more: rows are drawn at random",
            UserWarning,
            stacklevel=2,
        )
        return torch.full_like(gain, 1 / len(gain), dtype=torch.double), float(value[best])
    p = torch.zeros_like(inverse)
    p[order[: best + 1]] = inverse[: best + 1] / total[best]
    return p, float(value[best])


def robust_inclusion(gain: Tensor, wrong: int, n: int) -> Tensor:
    """Chances q (N,) that sum to n, none above 1, of being among n rows sent to the teacher: the game with p <= 1/n.

    The capped game is a linear program in N + N + 1 unknowns, the dual of the sum of the m largest; it is solved only
    where the closed form breaks the cap.

    Raises:
        LabelError: n above the number of rows.
    """
    if not 0 < n <= len(gain):
        raise LabelError(f"{n} rows were asked for, and there are {len(gain)}")
    p, value = robust_distribution(gain, wrong)
    q = n * p
    if float(q.max()) <= 1 + 1e-12 or value <= 0:
        return q.clamp(max=1)
    g = gain.double().cpu().numpy()
    size = len(g)
    # unknowns p (N,), s (N,), lam: maximise g p - 2 (m lam + sum s) with s >= g p - lam
    worth = np.concatenate([-g, np.full(size, 2.0), [2.0 * wrong]])
    scaled = csr_matrix((g, (np.arange(size), np.arange(size))), shape=(size, size))
    above = hstack([scaled, -eye(size), csr_matrix(-np.ones((size, 1)))])
    sums = csr_matrix(np.concatenate([np.ones(size), np.zeros(size + 1)])[None])
    bounds = [(0, 1 / n)] * size + [(0, None)] * (size + 1)
    found = linprog(worth, A_ub=above, b_ub=np.zeros(size), A_eq=sums, b_eq=[1.0], bounds=bounds)
    if not found.success:
        raise RuntimeError(f"the game could not be solved: {found.message}")
    return (n * torch.from_numpy(found.x[:size]).to(gain.device)).clamp(0, 1)


def systematic_sample(inclusion: Tensor, *, generator: torch.Generator) -> Tensor:
    """Rows drawn without replacement, exactly sum(inclusion) of them, row i with chance inclusion[i] (N,).

    Systematic sampling on a random order: points at u, u + 1, u + 2, ... on the line of cumulated chances.
    """
    n = round(float(inclusion.sum()))
    order = torch.randperm(len(inclusion), generator=generator)
    edges = inclusion[order.to(inclusion.device)].double().cpu().cumsum(dim=0)
    edges = edges * (n / float(edges[-1]))
    points = torch.arange(n, dtype=torch.double) + torch.rand((), generator=generator, dtype=torch.double)
    at = torch.searchsorted(edges, points, right=True).clamp(max=len(order) - 1)
    return order[at]


def expected_wrong(n_rows: int, teacher_error: float) -> int:
    """m of a pool of rows: the teacher's held-out error times their number, rounded up, and below half of the pool.

    An error of a half or more is mostly the doubt of an estimate from few rows; at a half the game has no winner.
    """
    if not 0 <= teacher_error <= 1:
        raise LabelError(f"the teacher's error is {teacher_error}; expected a rate, 0 to 1")
    return min(math.ceil(n_rows * teacher_error), (n_rows - 1) // 2)


def distillation_queries(
    log_probs: Tensor, n: int, *, teacher_error: float, keep: float = 0.0, generator: torch.Generator
) -> Tensor:
    """n rows (n,) to send to a teacher: drawn by `robust_inclusion` with the student's `margin` as gain.

    Args:
        log_probs: of the student, (N, K), calibrated.
        n: rows to draw.
        teacher_error: how often the teacher is wrong, on held-out labelled rows.
        keep: share of n that is drawn uniformly, so that no row is excluded for ever.
        generator: where randomness comes from.
    """
    gain = margin(log_probs).clamp(1e-6, 1)
    q = robust_inclusion(gain, expected_wrong(len(gain), teacher_error), n)
    return systematic_sample((1 - keep) * q + keep * n / len(q), generator=generator)
