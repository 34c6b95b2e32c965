"""Where the evidence cannot settle the answer: the warning, and the checks of votes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from anygrain.labels.structure import connected_components


class IdentifiabilityWarning(UserWarning):
    """The evidence fits several answers equally well; the message names the classes or sources concerned."""


def _named(indices: Tensor, names: Sequence[str] | None, noun: str) -> str:
    shown = [str(i) if names is None else f'"{names[i]}"' for i in indices[:3].tolist()]
    more = f" and {len(indices) - 3} more" if len(indices) > 3 else ""
    return f"{noun} {', '.join(shown)}{more}"


def warn_of_votes(
    items: Tensor,
    annotators: Tensor,
    votes: Tensor,
    n_classes: int,
    *,
    n_annotators: int,
    class_names: Sequence[str] | None = None,
    annotator_names: Sequence[str] | None = None,
    anchored: bool = False,
) -> list[str]:
    """Warn where votes alone cannot tell classes or annotators apart; returns the messages.

    Two conditionally independent sources leave their error rates open (three are needed); groups of annotators that
    share no item cannot be compared; a class that nobody votes for cannot be found.

    Args:
        items, annotators, votes: one entry per vote, all (R,); -1 is missing.
        n_classes: K.
        n_annotators: number of annotators, those without a vote included.
        class_names, annotator_names: for the message.
        anchored: gold items or an annotator's history fix the scale, so numbers of annotators do not matter.
    """
    messages = []
    given = (votes >= 0) & (annotators >= 0)
    items, annotators, votes = items[given], annotators[given], votes[given]
    silent = (torch.bincount(votes, minlength=n_classes) == 0).nonzero()[:, 0]
    if len(silent):
        messages.append(f"nobody votes for {_named(silent, class_names, 'class')}: it cannot be found from the votes")
    active = (torch.bincount(annotators, minlength=n_annotators) > 0).nonzero()[:, 0]
    if not anchored and 0 < len(active) <= 2:
        who = _named(active, annotator_names, "annotator")
        messages.append(
            f"only {len(active)} annotator{'s vote' if len(active) == 2 else ' votes'} ({who}): their accuracies rest "
            "on the prior; a third annotator, gold items or a history would settle them"
        )
    if not anchored and len(active) > 2:
        n_items = int(items.max()) + 1
        component = connected_components(n_annotators + n_items, annotators, items + n_annotators)
        groups = component[active].unique()
        if len(groups) > 1:
            size = torch.bincount(component[active], minlength=int(component.max()) + 1)
            apart = active[component[active] != int(size.argmax())]
            who = _named(apart, annotator_names, "annotator")
            messages.append(
                f"{who} share no item with the others ({len(groups)} groups): accuracies of different groups are "
                "compared through the prior only"
            )
    for message in messages:
        warnings.warn(message, IdentifiabilityWarning, stacklevel=3)
    return messages


def warn_of_permutation(confusion: Tensor, class_names: Sequence[str] | None = None) -> list[str]:
    """Warn of classes that the estimated pooled channel mostly calls by another name; returns the messages.

    A likelihood of votes does not change when classes trade places; only the prior, that annotators are right more
    often than not, names them. Where the fit goes against it the names may be exchanged.

    Args:
        confusion: pooled P(vote | class), shape (K, K), rows are the truth.
    """
    said = confusion.argmax(dim=1)
    odd = (said != torch.arange(len(said), device=said.device)).nonzero()[:, 0]
    if not len(odd):
        return []
    message = (
        f"annotators mostly give {_named(odd, class_names, 'class')} another name: classes may have traded places; "
        "gold items would settle it"
    )
    warnings.warn(message, IdentifiabilityWarning, stacklevel=3)
    return [message]
