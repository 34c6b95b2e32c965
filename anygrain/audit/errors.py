"""How often records are wrong whose kind names no class: a mixture of what is true and what could have been said."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.robust.label_noise import LEAST_NOISE

#: share of wrong records beforehand, and what that weighs: so many records, and a share of all
BEFOREHAND, WEIGHT, SHARE = 0.03, 2.0, 0.05
ROUNDS = 200


def error_share(log_true: Tensor, log_chance: Tensor) -> tuple[Tensor, float]:
    r"""P(record was made without regard to the truth), shape (R,), and the share e of such records, by EM.

    .. math:: w_r = \frac{e u_r}{e u_r + (1 - e) P_r}, \qquad e = \frac{\sum_r w_r + s e_0}{R + s}

    Args:
        log_true: log P of each record by everything else, shape (R,).
        log_chance: log u, of what could have been said, shape (R,).
    """
    if not len(log_true):
        return log_true.exp(), BEFOREHAND
    ratio = (log_true - log_chance).double().clamp(-600, 600).exp()
    strength = WEIGHT + SHARE * len(ratio)
    e = torch.tensor(BEFOREHAND, dtype=torch.float64, device=ratio.device)
    for _ in range(ROUNDS):
        wrong = e / (e + (1 - e) * ratio)
        last, e = e, (wrong.sum() + strength * BEFOREHAND) / (len(ratio) + strength)
        e = e.clamp(min=LEAST_NOISE)
        if bool((e - last).abs() < 1e-7):
            break
    return e / (e + (1 - e) * ratio), float(e)
