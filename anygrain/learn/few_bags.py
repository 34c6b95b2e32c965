"""Too few bags of an answer to hold one out in every fold."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor


class FewBagsWarning(UserWarning):
    """An answer has fewer bags than there are folds: where they are held out, nothing tells of it."""


def said_of_few_bags(count: Tensor, names: Sequence[str], folds: int) -> str | None:
    """A line on the answer with the fewest bags, where these are fewer than the folds; None where they are not.

    An answer that no bag has is not named: that is said elsewhere, with what cannot be found.

    Args:
        count: bags by answer, (C,).
        names: of the answers.
        folds: parts in which bags are held out.
    """
    found = [(n, name) for n, name in zip(count.tolist(), names, strict=True) if n > 0]
    if len(found) < 2 or min(found)[0] >= folds:
        return None
    n, name = min(found)
    of = f"only {n:g} bag{'s are' if n != 1 else ' is'}"
    return (
        f"{of} {name}, fewer than the {folds} parts in which bags are held out: probabilities are calibrated poorly or "
        f"not at all; label {folds} or more such bags"
    )


def warn_of_few_bags(count: Tensor, names: Sequence[str], folds: int, stacklevel: int = 2) -> None:
    """Warn of the same; `stacklevel` as of `warnings.warn` in its place."""
    said = said_of_few_bags(count, names, folds)
    if said is not None:
        warnings.warn(said, FewBagsWarning, stacklevel=stacklevel + 1)
