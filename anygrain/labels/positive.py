"""Positive and unlabelled rows: some rows are known to be of one class, of the others nothing is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from anygrain.labels.all import All
from anygrain.labels.base import Labels
from anygrain.labels.error import LabelError, whole_numbers
from anygrain.labels.frame import as_strings, encode, read_column
from anygrain.labels.instance import as_classes, check_mapping
from anygrain.labels.sampling import SampledRows

Scenario = Literal["single", "case-control"]

LABELLED, UNLABELLED = 0, 1  # the groups


class Positive(SampledRows):
    r"""Some rows of one class are labelled, all others, of that class or not, are unlabelled (PU learning).

    .. math:: P(\text{labelled} \mid y = \text{target}) = c, \qquad P(\text{labelled} \mid y \ne \text{target}) = 0

    *One training set* (``scenario="single"``): N rows of the population, and a random part of the positives among them
    is labelled: :math:`c = n_L / (N \pi)`.

    *Case-control*: :math:`n_L` positives and :math:`n_U` rows of the population were drawn apart. In the pooled rows,
    whose probabilities the model learns, :math:`c = n_L / (n_L + \pi n_U)`, and the share of positives is
    :math:`(n_L + \pi n_U) / (n_L + n_U)`, more than :math:`\pi`; `log_prior_shift` leads back to the population.

    With an error e, :math:`P' = (1 - e) P + e\, n_g / N`: labelled, or not, without regard to the class. Labelled rows
    are taken to be drawn at random from the positives (selected completely at random).

    Args:
        labelled: shape (N,); True or 1: known to be of the target class, False or 0: unlabelled, -1: takes no part.
        n_classes: K; nothing tells the classes other than the target apart.
        prior: :math:`\pi`, the share of the target class in the population; None: not known, `Learner.fit` estimates
            it with an interval (`anygrain.learn.class_prior`).
        scenario: how rows were drawn, "single" or "case-control".
        target: the class of labelled rows.
        error: probability, in [0, 1), that a row is labelled, or not, without regard to its class.

    Attributes:
        c: the share of positives that are labelled; None without a prior.
        n_labelled, n_unlabelled: rows of either sort when the labels were made.

    Raises:
        LabelError: a prior outside (0, 1), or, in one training set, below the share of rows that are labelled; no
            labelled row; none unlabelled.

    Source: Elkan and Noto, Learning classifiers from only positive and unlabeled data, 2008; the scenarios: Bekker and
    Davis, Learning from positive and unlabeled data: a survey, 2020.
    """

    prior: float | None
    c: float | None

    def __init__(
        self,
        labelled: Tensor,
        n_classes: int = 2,
        *,
        prior: float | None = None,
        scenario: Scenario = "single",
        target: int = 1,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        said = as_classes(whole_numbers(labelled, "labelled"), 2, "labelled")
        if scenario not in get_args(Scenario):
            raise LabelError(f'scenario is "{scenario}"; expected "single" or "case-control"')
        if not 0 <= target < n_classes:
            raise LabelError(f"target is class {target}; expected one of 0..{n_classes - 1}")
        self.scenario: Scenario = scenario
        self.target_class = int(target)
        self.n_labelled, self.n_unlabelled = int((said == 1).sum()), int((said == 0).sum())
        if not self.n_labelled:
            raise LabelError("no row is labelled; expected some rows known to be of the target class")
        if not self.n_unlabelled:
            raise LabelError("every row is labelled; expected unlabelled rows besides, or use Exact")
        total = self.n_labelled + self.n_unlabelled
        super().__init__(
            torch.where(said >= 0, 1 - said, -1),
            None,
            n_classes,
            group_share=torch.tensor([self.n_labelled / total, self.n_unlabelled / total]),
            error=error,
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self._read_prior(prior)

    def with_prior(self, prior: float) -> Self:
        """The same labels with another class prior.

        Raises:
            LabelError: outside (0, 1), or impossible for the labelled share.
        """
        new = self._fresh()
        new._read_prior(prior)
        return new

    def with_possible_prior(self, prior: float) -> Self:
        """The same labels with a class prior, or the nearest that the labelled share allows."""
        least = 0.0
        if self.scenario == "single":
            least = self.n_labelled / (self.n_labelled + self.n_unlabelled) * 1.001
        return self.with_prior(min(max(prior, least, 1e-6), 1 - 1e-6))

    def _read_prior(self, prior: float | None) -> None:
        n, u, total = self.n_labelled, self.n_unlabelled, self.n_labelled + self.n_unlabelled
        self.prior = self.c = self._log_membership = self._pooled_prior = self._log_prior_shift = None
        if prior is None:
            return
        prior = float(prior)
        if not 0 < prior < 1:
            raise LabelError(f"the class prior is {prior:g}; expected a probability above 0 and below 1")
        if self.scenario == "single":
            if n / total > prior * (1 + 1e-9):
                raise LabelError(
                    f"{n} of {total} rows are labelled positive, a share of {n / total:.3g}, above the class prior "
                    f'{prior:g}; expected a larger prior, or scenario="case-control"'
                )
            c, pooled = min(n / (total * prior), 1.0), prior
        else:
            c, pooled = n / (n + prior * u), (n + prior * u) / total
        self.prior, self.c = prior, c
        table = torch.zeros(2, self.n_classes, dtype=torch.float64, device=self.device)
        table[LABELLED] = -torch.inf
        table[LABELLED, self.target_class] = math.log(c)
        table[UNLABELLED, self.target_class] = math.log1p(-c) if c < 1 else -torch.inf
        self._log_membership = table
        self._log_prior_shift = torch.full_like(table[0], math.log1p(-prior) - math.log1p(-pooled))
        self._log_prior_shift[self.target_class] = math.log(prior) - math.log(pooled)
        if self.n_classes == 2:
            self._pooled_prior = torch.full_like(table[0], 1 - pooled)
            self._pooled_prior[self.target_class] = pooled

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """Classes other than the target may be merged; a class that is new is no target."""
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Positive", injective=False)
        if int((mapping == mapping[self.target_class]).sum()) > 1:
            raise LabelError("Positive cannot merge its target with another class without loss")
        new = self._fresh()
        new.n_classes, new.class_names = n_classes, None
        new.target_class = int(mapping[self.target_class])
        new._read_prior(self.prior)
        return new

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: str,
        *,
        target: str,
        classes: Sequence[str],
        **how: Any,
    ) -> Self:
        """Labels from a column that holds the target's name where a row is labelled, and is empty elsewhere.

        Args:
            frame: any data frame, or a mapping of columns.
            columns: name of the column.
            target: name of the positive class.
            classes: all class names.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, a cell with any other name, a target that is no class.
        """
        names = [str(c) for c in classes]
        if target not in names:
            raise LabelError(f'the target "{target}" is not among the classes {", ".join(names[:6])}')
        said = encode(as_strings(read_column(frame, columns)), [target], f'"{columns}"')
        return cls(said == 0, len(names), target=names.index(target), class_names=names, **how)

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        share: float = 0.3,
        scenario: Scenario = "single",
        target: int = 1,
        known: bool = True,
        **how: Any,
    ) -> Positive:
        """A random `share` of the rows of the target class labelled, at least one; the class prior that came out.

        Args:
            classes: the truth, shape (N,); -1: takes no part.
            n_classes: K.
            generator: where the draws come from.
            share: c.
            scenario: how the rows were drawn; "case-control" takes the unlabelled rows for the population.
            target: the positive class.
            known: whether the labels are told the prior.
            how: further arguments of the constructor.
        """
        truth = as_classes(classes, n_classes)
        positive = truth == target
        draw = torch.where(positive, torch.rand(len(truth), generator=generator), torch.inf)
        labelled = (draw < share) | (positive & (draw == draw.min()))
        population = truth >= 0 if scenario == "single" else (truth >= 0) & ~labelled
        prior = float(positive[population].double().mean()) if known else None
        said = torch.where(truth < 0, -1, labelled.long())
        return cls(said, n_classes, prior=prior, scenario=scenario, target=target, **how)


def prior_missing(labels: Labels) -> bool:
    """Whether labels hold a `Positive` without class prior."""
    parts = labels.parts if isinstance(labels, All) else [labels]
    return any(isinstance(p, Positive) and p.prior is None for p in parts)


def with_any_prior(labels: Labels) -> Labels:
    """Labels whose `Positive` parts without class prior have one in the middle of what is possible.

    For questions that do not hang on its value: which classes are told apart, which rows contradict each other.
    """
    if not prior_missing(labels):
        return labels
    parts = labels.parts if isinstance(labels, All) else [labels]
    parts = [p.with_possible_prior(0.5) if isinstance(p, Positive) and p.prior is None else p for p in parts]
    return labels.joined(parts) if isinstance(labels, All) else parts[0]
