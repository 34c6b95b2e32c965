"""Sets that others of the same members imply: as factors of their own they would be loops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.proportions import Proportions
from anygrain.labels.sets import SetLabels


def member_keys(bags: Sequence[Bags], n_instances: int) -> Tensor:
    """Two random sums per set (M, 2) over several `Bags`: equal for equal members, else but for 2**-100 different."""
    device = bags[0].members.device
    words = torch.randint(2**52, (n_instances, 2), generator=torch.Generator().manual_seed(0)).to(device)
    return torch.cat([words.new_zeros(len(b), 2).index_add_(0, b.index, words[b.members]) for b in bags])


def drop_implied(
    parts: Sequence[SetLabels], owners: Sequence[Tensor], allowed: Tensor
) -> tuple[list[SetLabels], list[Tensor], Tensor]:
    r"""Leave out what noisy shares of the same members say as well, and sets that say nothing.

    A share :math:`r_k > 0` that was read with noise has the likelihood :math:`(c_k / n)^{\nu r_k}`, which is 0 for
    :math:`c_k = 0`: it says that there is at least one of k, and so do `AnyOf` of k and `AtLeast` of 1.

    Args:
        parts: set kinds over the same instances.
        owners: the given set of every set, part by part.
        allowed: bool, one per set over all parts; others stay as they are.

    Returns:
        What is left of the parts and of the owners, and the given sets that were left out.
    """
    noisy = [part for part in parts if isinstance(part, Proportions) and part.is_noisy]
    none = torch.empty(0, dtype=torch.long, device=parts[0].device)
    if not noisy:
        return list(parts), list(owners), none
    n_instances = parts[0].n_instances
    key = member_keys([part.sets for part in (*noisy, *parts)], n_instances)
    _, group = torch.unique(key, dim=0, return_inverse=True)
    held = torch.cat([(part.proportions > 0).double() for part in noisy])
    # by members, the classes of which there is at least one
    sure = held.new_zeros(len(key), held.shape[1]).index_add_(0, group[: len(held)], held) > 0
    everyone = torch.arange(n_instances, device=key.device)
    new_parts: list[SetLabels] = []
    new_owners: list[Tensor] = []
    gone = [none]
    at, start = len(held), 0
    for part, mine in zip(parts, owners, strict=True):
        events = part.events()
        m = len(part.sets)
        if isinstance(part, Proportions) and part.is_noisy:
            told = (~part.proportions.isnan()).any(dim=1)
        elif events is None:
            told = torch.ones(m, dtype=torch.bool, device=key.device)
        else:
            size = part.sets.sizes[events.sets]
            any_sure = (sure[group[at + events.sets]] & events.target).any(dim=1)
            more = (events.high < size) | (events.low > any_sure.long())
            told = torch.zeros(m, dtype=torch.bool, device=key.device)
            told[events.sets[more]] = True
        told |= ~allowed[start : start + m]
        kept = told.nonzero()[:, 0]
        new_parts.append(part if len(kept) == m else part._take(everyone, kept))
        new_owners.append(mine[kept])
        gone.append(mine[~told])
        at, start = at + m, start + m
    return new_parts, new_owners, torch.cat(gone)
