"""The highest class that occurs in a set."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels.counting import any_of
from anygrain.labels.segments import Segments


def highest_class(log_p: Tensor, segments: Segments, highest: Tensor) -> tuple[Tensor, Tensor]:
    r"""No member is of a higher class than `highest`, and at least one is of it.

    .. math:: P(\max_i y_i = h) = \prod_i P(y_i \le h) - \prod_i P(y_i \le h - 1)
              = \prod_i P(y_i \le h) \; P(\text{any } y_i = h \mid \text{all } y_i \le h)

    in the second form, which subtracts nothing.

    Args:
        log_p: (E, K).
        segments: members of M sets.
        highest: (M,) classes.

    Returns:
        log P (M,), and log P(o | y_i = k) (E, K).
    """
    index = segments.index
    h = highest[index][:, None]
    k = torch.arange(log_p.shape[1], device=log_p.device)
    below = torch.logsumexp(log_p.masked_fill(k >= h, -torch.inf), dim=1)
    at = log_p.gather(1, h)[:, 0]
    within = torch.logaddexp(below, at)
    outside = torch.isneginf(within)  # a member that must be higher
    share = within.masked_fill(outside, 0.0)
    pair = torch.stack([below.masked_fill(outside, 0.0), at], dim=1) - share[:, None]
    value, (without, having) = (found := any_of(pair, segments, torch.ones_like(highest)))[0], found[1].unbind(dim=1)
    total = share.new_zeros(len(segments)).index_add_(0, index, share)
    blocked = torch.zeros_like(total).index_add_(0, index, outside.to(total.dtype))
    rest = (total[index] - share).masked_fill(blocked[index] - outside.to(total.dtype) > 0.5, -torch.inf)
    without = without.masked_fill(torch.isneginf(value)[index], -torch.inf) + rest
    message = torch.where(k < h, without[:, None], (having + rest)[:, None]).masked_fill(k > h, -torch.inf)
    return (value + total).masked_fill(blocked > 0.5, -torch.inf), message
