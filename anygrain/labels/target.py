"""The target of a set: the class, or classes, whose members it speaks of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from anygrain.labels.error import LabelError, require

Target = int | Iterable[int] | Tensor


def read_target(target: Target, bags: int, n_classes: int, device: torch.device) -> Tensor:
    """A class per bag (M,), or, where a bag has several, bool (M, K).

    Args:
        target: a class; a list, tuple or set of classes, any of which will do; a tensor (M,) of one class per bag; a
            bool tensor (K,) or (M, K) of classes.

    Raises:
        LabelError: a class outside 0..K-1, a table that does not fit the bags.
    """
    if isinstance(target, int):
        table = torch.full((bags,), target, device=device)
    elif isinstance(target, list | tuple | set | frozenset | range):
        chosen = torch.tensor(sorted(int(t) for t in target), device=device)
        if len(chosen) == 1:
            return read_target(int(chosen[0]), bags, n_classes, device)
        if len(chosen) == 0 or int(chosen[0]) < 0 or int(chosen[-1]) >= n_classes:
            raise LabelError(f"target is {chosen.tolist()}; expected classes of 0..{n_classes - 1}")
        table = torch.zeros(n_classes, dtype=torch.bool, device=device).index_fill_(0, chosen, True)
    else:
        table = torch.as_tensor(target).to(device)
    if table.dtype == torch.bool:
        if table.shape not in ((n_classes,), (bags, n_classes)):
            raise LabelError(
                f"a bool target has shape {tuple(table.shape)}; expected ({n_classes},) or ({bags}, {n_classes})"
            )
        return table.expand(bags, n_classes)
    if table.ndim == 0:
        table = table.expand(bags)
    if table.shape != (bags,):
        raise LabelError(
            f"target has shape {tuple(table.shape)}; expected a class, a list of classes, or one class per bag"
        )
    require((table >= 0) & (table < n_classes), f"has a target outside 0..{n_classes - 1}", noun="bag")
    return table.long()


def named_target(target: str | Sequence[str], classes: Sequence[str]) -> list[int]:
    """A class name, or several, as class numbers.

    Raises:
        LabelError: a name that is not among the classes.
    """
    names = [target] if isinstance(target, str) else list(target)
    unknown = [n for n in names if n not in classes]
    if unknown:
        raise LabelError(f'target "{unknown[0]}" is not among the classes {", ".join(map(str, classes))}')
    return [list(classes).index(n) for n in names]


def as_table(target: Tensor, n_classes: int) -> Tensor:
    """Targets (M,) or (M, K) as bool (M, K)."""
    return target if target.ndim == 2 else torch.nn.functional.one_hot(target, n_classes).bool()


def split(log_p: Tensor, target: Tensor) -> Tensor:
    """log-probabilities (E, 2) of "another class" and "a target", for log_p (E, K) and targets (E, ...)."""
    if target.ndim == 1:
        column = target[:, None]
        yes = log_p.gather(1, column)[:, 0]
        if log_p.shape[1] == 2:
            no = log_p.gather(1, 1 - column)[:, 0]
        else:
            no = torch.logsumexp(log_p.scatter(1, column, -torch.inf), dim=1)
    else:
        yes = torch.logsumexp(log_p.masked_fill(~target, -torch.inf), dim=1)
        no = torch.logsumexp(log_p.masked_fill(target, -torch.inf), dim=1)
    return torch.stack([no, yes], dim=1)


def spread(message: Tensor, target: Tensor, n_classes: int) -> Tensor:
    """Messages (E, 2) about "another class" and "a target" as messages about K classes (E, K)."""
    if target.ndim == 1:
        return message[:, :1].expand(-1, n_classes).scatter(1, target[:, None], message[:, 1:])
    return torch.where(target, message[:, 1:], message[:, :1])


def count_hits(classes: Tensor, target: Tensor, index: Tensor, bags: int) -> Tensor:
    """Number of members of a target class (S, M), for S assignments of classes (S, E) and targets (E, ...)."""
    hit = classes == target if target.ndim == 1 else target[torch.arange(len(target), device=target.device), classes]
    counts = torch.zeros(len(classes), bags, dtype=torch.long, device=classes.device)
    return counts.index_add_(1, index, hit.long())


def merge_target(target: Tensor, mapping: Tensor, old: int, n_classes: int) -> Tensor:
    """Targets (M, ...) over new classes, for a class map (K,) that may merge.

    Raises:
        LabelError: a new class that would hold targets and others.
    """
    table = as_table(target, old)
    inside = table.new_zeros(len(table), n_classes, dtype=torch.long).index_add(1, mapping, table.long())
    total = torch.bincount(mapping, minlength=n_classes)
    require(
        ((inside == 0) | (inside == total)).all(dim=1), "would have its target merged with other classes", noun="bag"
    )
    return mapping[target] if target.ndim == 1 else inside > 0
