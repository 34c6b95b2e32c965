"""Softmax attention among the members of every group, groups of all sizes together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from anygrain.labels.segments import Segments


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, sizes: Tensor) -> Tensor:
    r""":math:`o_i = \sum_j \mathrm{softmax}_j(q_i^\top k_j / \sqrt p)\, v_j`, j in the group of i.

    All (E, H, p), groups one after another, `sizes` (G,) of them, 0 for a group without members. Groups of similar size
    are laid side by side, at most half of it padding, which is masked. Costs the sum of squared sizes.
    """
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    out = torch.zeros_like(value)
    groups = Segments(offsets)
    for block in groups.blocks:
        asked, asking, given = (block.lay(part, 0.0).transpose(1, 2) for part in (query, key, value))
        mask = None if block.filled is None else block.filled[:, None, None, :]
        seen = functional.scaled_dot_product_attention(asked, asking, given, attn_mask=mask).transpose(1, 2)
        if block.index is None:
            return seen.reshape(value.shape)
        index = block.index.flatten() if block.filled is None else block.index[block.filled]
        out = out.index_copy(0, index, seen.flatten(0, 1) if block.filled is None else seen[block.filled])
    return out
