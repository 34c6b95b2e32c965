"""Pairs that were drawn as pairs, similar or dissimilar, beside unlabelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.all import All
from anygrain.labels.base import Labels
from anygrain.labels.error import LabelError, check_error, numbers, require, whole_numbers
from anygrain.labels.pairs import Pairs
from anygrain.labels.sampling import SampledRows, check_prior, log_ratio

UNLABELLED, SIMILAR, DISSIMILAR = 0, 1, 2  # the groups


class PairsUnlabeled(All):
    r"""Similar pairs, dissimilar pairs, or both, each drawn as such, and unlabelled rows (SU, DU, SDU learning).

    Rows are drawn in three ways: :math:`n_U` rows from the population, with class prior :math:`\pi`; :math:`n_S` pairs
    from pairs of the population that are of one class, a share :math:`S = \sum_y \pi_y^2` of all; :math:`n_D` pairs
    from those that are not. A row of a similar pair is of class y with probability :math:`\pi_y^2 / S`, one of a
    dissimilar pair with :math:`\pi_y (1 - \pi_y) / (1 - S)`, so that the pooled rows, whose probabilities
    :math:`\tilde p` the model learns, have the class prior

    .. math:: \tilde\pi_y = \frac{1}{N} \Big( n_U \pi_y + 2 n_S \frac{\pi_y^2}{S}
              + 2 n_D \frac{\pi_y (1 - \pi_y)}{1 - S} \Big).

    With :math:`r = \pi / \tilde\pi` and the density of pooled rows as unit, the likelihoods are

    .. math:: \frac{p_S(x, x')}{\tilde p(x) \tilde p(x')} = \frac{1}{S} \sum_y r_y^2\, \tilde p(y|x)\, \tilde p(y|x'),
              \quad \frac{p_D(x, x')}{\tilde p(x) \tilde p(x')} = \frac{1}{1 - S}
              \sum_{y \ne y'} r_y r_{y'}\, \tilde p(y|x)\, \tilde p(y'|x'),
              \quad \frac{p_U(x)}{\tilde p(x)} = \sum_y r_y\, \tilde p(y|x).

    So this is an `All` of evidence :math:`r_y` about every row, with the constants, and of `Pairs`. Being densities
    relative to the pool, log-likelihoods may be above 0. Where random pairs of the population were all answered,
    :math:`\tilde\pi = \pi`, and `Pairs` says the same.

    Pairs of one class alone never name classes: two classes of different prior are told apart by it, of equal prior
    by other evidence only.

    Args:
        pairs: the rows of each pair, shape (P, 2); no row stands in two pairs. Rows in no pair are unlabelled.
        same: shape (P,); True or 1: similar, False or 0: dissimilar.
        n_instances: N.
        prior: class prior of the population, shape (K,); for two classes the probability of class 1 will do.
        n_classes: K; that of the prior when not given.
        error: probability, in [0, 1), that the answer of a pair was drawn without regard to the truth.

    Raises:
        LabelError: a row outside 0..N-1 or in two pairs, a prior outside (0, 1), no pair at all.

    Source: Bao and others, Classification from pairwise similarity and unlabeled data, 2018; Shimada and others,
    Classification from pairwise similarities/dissimilarities and unlabeled data via empirical risk minimization, 2021.
    """

    def __init__(
        self,
        pairs: Tensor,
        same: Tensor,
        n_instances: int,
        prior: Tensor | Sequence[float] | float,
        *,
        n_classes: int | None = None,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        pairs = whole_numbers(pairs, "rows of pairs")
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise LabelError(f"pairs have shape {tuple(pairs.shape)}; expected (P, 2), two rows each")
        if not len(pairs):
            raise LabelError("there is no pair; expected one or more beside the unlabelled rows")
        same = whole_numbers(same, "answers of pairs")
        k = n_classes or max(numbers(prior, "class priors").numel(), 2)
        population = check_prior(prior, k).to(pairs.device)
        error = check_error(error)
        answered = Pairs(
            pairs[:, 0],
            pairs[:, 1],
            same,
            n_instances,
            k,
            error=error,
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        require(same >= 0, "has no answer; expected 1 (similar) or 0 (dissimilar)", noun="pair")
        times = torch.bincount(pairs.reshape(-1), minlength=n_instances)
        require(
            times < 2, "stands in two pairs; pairs drawn as pairs share no row (answers about one sample are Pairs)"
        )
        role = torch.full((n_instances,), UNLABELLED, device=pairs.device)
        role[pairs[same == 1].reshape(-1)] = SIMILAR
        role[pairs[same == 0].reshape(-1)] = DISSIMILAR
        size = torch.bincount(role, minlength=3).double()
        agree = population.square()
        alike = (1 - error) * agree.sum() + error / 2  # the share of pairs that are answered "same"
        theta = torch.stack(
            [
                population,
                ((1 - error) * agree + error / 2 * population) / alike,
                ((1 - error) * (population - agree) + error / 2 * population) / (1 - alike),
            ]
        )
        pooled = size @ theta / size.sum()
        ratio = log_ratio(population, pooled)
        constant = -0.5 * torch.stack([torch.zeros_like(alike), alike.log(), (1 - alike).log()])
        drawn = DrawnRows(
            role,
            ratio + constant[:, None],
            k,
            group_share=size / size.sum(),
            log_prior_shift=ratio,
            pooled_prior=pooled,
            rows=rows,
            n_rows=n_rows,
            class_names=class_names,
        )
        super().__init__(drawn, answered)

    def joined(self, parts: Sequence[Labels]) -> Self:
        new = self._fresh()
        All.__init__(new, *parts)
        return new

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        n_pairs: int | None = None,
        **how: Any,
    ) -> PairsUnlabeled:
        """`n_pairs` (default N // 4) pairs of rows that share none, answered; the rest unlabelled.

        Args:
            classes: the truth, shape (N,); its shares are the prior, which is why every class must occur.
            n_classes: K.
            generator: where the draws come from.
            n_pairs: P, at most N // 2.
            how: further arguments of the constructor.
        """
        n = len(classes)
        m = max(n // 4, 1) if n_pairs is None else n_pairs
        pairs = torch.randperm(n, generator=generator)[: 2 * m].reshape(m, 2)
        prior = how.pop("prior", None)
        if prior is None:
            prior = torch.bincount(classes, minlength=n_classes).double() / n
        error = how.get("error", 0.0)
        answer = classes[pairs[:, 0]] == classes[pairs[:, 1]]
        wrong = torch.rand(m, generator=generator) < error
        answer = torch.where(wrong, torch.rand(m, generator=generator) < 0.5, answer)
        return cls(pairs, answer, n, prior, n_classes=n_classes, **how)


class DrawnRows(SampledRows):
    """How a row was drawn, alone or in a pair; the error of the answers is that of the pairs."""

    @property
    def population(self) -> Tensor:
        """Class prior of the population, shape (K,)."""
        assert self.pooled_prior is not None
        return self.pooled_prior * self.log_prior_shift.exp()

    def with_error(self, error: float) -> Self:
        return self
