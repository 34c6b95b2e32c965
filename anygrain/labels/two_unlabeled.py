"""Two unlabelled sets of rows with different, known class priors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.error import LabelError, numbers, require
from anygrain.labels.frame import as_strings, encode, read_column
from anygrain.labels.sampling import Sampled


class TwoUnlabeled(Sampled):
    r"""Rows of two unlabelled sets, of which the shares of the positive class are known (UU learning).

    .. math:: P(g \mid y) = \frac{n_g\, \theta_g(y)}{n_0\, \theta_0(y) + n_1\, \theta_1(y)}, \qquad
              \theta_g = (1 - \pi_g, \pi_g)

    The model's probabilities are those of the pooled rows, with prior :math:`(n_0 \pi_0 + n_1 \pi_1) / N`.

    Args:
        group: set of every instance, shape (N,), 0 or 1; -1: neither, which says nothing.
        priors: share of class 1 in either set, shape (2,), in [0, 1]; 0 and 1 are exact labels.
        prior: share of class 1 in the population to speak of; only `log_prior_shift` uses it.
        error: probability, in [0, 1), that a row stands in its set without regard to its class.

    Raises:
        LabelError: equal priors, which identify nothing; a prior outside [0, 1]; a set without rows.

    Source: Lu and others, On the minimal supervision for training any binary classifier from only unlabeled data, 2019.
    """

    def __init__(
        self,
        group: Tensor,
        priors: Tensor | Sequence[float],
        *,
        prior: float | None = None,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        given = numbers(priors, "class priors").double()
        if given.shape != (2,):
            raise LabelError(f"priors have shape {tuple(given.shape)}; expected 2, the share of class 1 in either set")
        require((given >= 0) & (given <= 1), "has a class prior outside 0..1", noun="set")
        if float((given[0] - given[1]).abs()) < 1e-9:
            raise LabelError(
                f"both sets have class prior {float(given[0]):g}, which identifies nothing; expected two that differ"
            )
        super().__init__(
            group,
            torch.stack([1 - given, given], dim=1),
            prior=prior,  # type: ignore[arg-type]
            error=error,
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )

    @classmethod
    def from_frame(  # type: ignore[override]
        cls, frame: Any, columns: str, *, priors: Mapping[str, float], classes: Sequence[str], **how: Any
    ) -> Self:
        """Labels from a column of set names; empty cells say nothing.

        Args:
            frame: any data frame, or a mapping of columns.
            columns: name of the column of sets.
            priors: share of the second class in each of the two sets by name, such as ``{"north": .2, "south": .7}``.
            classes: the two class names.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, a set that is not listed.
        """
        group = encode(as_strings(read_column(frame, columns)), list(priors), f'"{columns}"')
        return cls(group, list(priors.values()), class_names=classes, **how)

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int = 2,
        *,
        generator: torch.Generator,
        priors: tuple[float, float] = (0.2, 0.7),
        **how: Any,
    ) -> TwoUnlabeled:
        """Rows of these classes dealt to two sets of about these priors; the shares that came out are stated."""
        if n_classes != 2:
            raise LabelError(f"TwoUnlabeled is about 2 classes, not {n_classes}; Sampled takes more")
        wanted = torch.tensor([[1 - p, p] for p in priors], dtype=torch.float64)
        dealt = Sampled.simulate(classes, 2, generator=generator, shares=wanted).group
        found = [float((classes[dealt == g] == 1).double().mean()) for g in (0, 1)]
        return cls(dealt, found, **how)
