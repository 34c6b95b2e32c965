"""Labels that come from how rows were sampled: from which group of rows an instance was drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.error import LabelError, check_error, numbers, require
from anygrain.labels.frame import as_strings, encode, read_column
from anygrain.labels.instance import InstanceLabels, as_classes, check_mapping


class SampledRows(InstanceLabels):
    r"""Rows pooled from groups, each group drawn from classes in its own shares.

    Rows of group g, :math:`n_g` of N, are drawn from :math:`p_g(x) = \sum_y \theta_g(y)\, p(x \mid y)`. A model learns
    the probabilities of the *pooled* rows, whose class prior is
    :math:`\tilde\pi(y) = \sum_g n_g \theta_g(y) / N`. In the pool the group is an observation like any other:

    .. math:: P(g \mid y) = \frac{n_g\, \theta_g(y)}{N\, \tilde\pi(y)}

    With an error e it is :math:`(1 - e) P(g \mid y) + e\, n_g / N`: a row in its group without regard to its class.
    The numbers belong to the labels, so that a selection of rows keeps them.

    Args:
        group: group of every instance, shape (N,); -1: none, which says nothing.
        log_membership: log P(g | y), shape (G, K); None where it is not known yet.
        group_share: n_g / N, shape (G,).
        log_prior_shift: log pi(y) - log pooled prior, shape (K,), see `Labels.log_prior_shift`.
        pooled_prior: class prior of the pooled rows, shape (K,), or None where it is not known.
        error: probability, in [0, 1), that a row stands in its group without regard to its class.
    """

    group: Tensor

    def __init__(
        self,
        group: Tensor,
        log_membership: Tensor | None,
        n_classes: int,
        *,
        group_share: Tensor,
        log_prior_shift: Tensor | None = None,
        pooled_prior: Tensor | None = None,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        super().__init__(
            n_classes, per_instance={"group": group}, rows=rows, n_rows=n_rows, weight=weight, class_names=class_names
        )
        self.error = check_error(error)
        self._log_membership = None if log_membership is None else log_membership.to(self.device)
        self._group_share = group_share.to(self.device, torch.float64)
        self._log_prior_shift = log_prior_shift
        self._pooled_prior = pooled_prior

    @property
    def log_prior_shift(self) -> Tensor:
        if self._log_prior_shift is None:
            return super().log_prior_shift
        return self._log_prior_shift

    @property
    def pooled_prior(self) -> Tensor | None:
        return self._pooled_prior

    def log_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        table = self._log_membership
        if table is None:
            raise LabelError(
                f"{type(self).__name__} has no class prior yet; give prior=..., or fit a Learner, which estimates it"
            )
        if self.error:
            prob = (1 - self.error) * table.exp() + self.error * self._group_share[:, None]
            table = prob.log()
        nothing = torch.zeros_like(table[:1])  # the last row, that of group -1
        return torch.cat([table, nothing]).to(dtype)[self.group]

    def resampled(self, times: Tensor) -> tuple[Self, Tensor]:
        r"""The same rows, those of group g :math:`t_g` times as frequent in the pool as they are.

        .. math:: n'_g = t_g n_g, \qquad \log \tilde\pi'(y) - \log \tilde\pi(y)

        Args:
            times: t, shape (G,), positive.

        Returns:
            Labels with the numbers of the new pool, and what is to be added to log-probabilities of the old pool to
            speak of the new one, shape (K,).

        Raises:
            LabelError: the class prior is not known.
        """
        table, pooled = self._log_membership, self._pooled_prior
        if table is None or pooled is None:
            raise LabelError(f"{type(self).__name__} has no class prior yet: what another pool would hold is not known")
        theta = table.exp() * pooled.to(table) / self._group_share[:, None]
        share = self._group_share * times.to(self._group_share)
        share = share / share.sum()
        held = share @ theta
        new = self._fresh()
        new._log_membership = (share[:, None] * theta / held.clamp(min=1e-300)).log()
        new._group_share, new._pooled_prior = share, held
        shift = log_ratio(held, pooled.to(held))
        new._log_prior_shift = self.log_prior_shift.to(held) - shift
        return new, shift

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """Classes that are new stand in no group."""
        mapping = check_mapping(mapping, self.n_classes, n_classes, type(self).__name__, injective=True)
        new = self._fresh()
        new.n_classes, new.class_names = n_classes, None
        new._log_membership = _moved(self._log_membership, mapping, n_classes, -torch.inf)
        new._log_prior_shift = _moved(self._log_prior_shift, mapping, n_classes, 0.0)
        new._pooled_prior = _moved(self._pooled_prior, mapping, n_classes, 0.0)
        return new


class Sampled(SampledRows):
    r"""Unlabelled rows from several groups whose class shares are known.

    .. math:: P(g \mid y) = \frac{n_g\, \theta_g(y)}{\sum_h n_h\, \theta_h(y)}

    The model's probabilities are those of the pooled rows, with prior
    :math:`\tilde\pi(y) = \sum_g n_g \theta_g(y) / N`. A group of one class is exact labels. Unlike `Proportions` the
    shares are those that rows were drawn with, not those of the very rows at hand.

    Args:
        group: group of every instance, shape (N,), 0..G-1; -1: none, which says nothing.
        shares: :math:`\theta`, shape (G, K), rows that sum to 1.
        prior: class prior of the population to speak of, shape (K,); only `log_prior_shift` uses it.
        error: probability, in [0, 1), that a row stands in its group without regard to its class.

    Raises:
        LabelError: shares that are negative or do not sum to 1, groups that all have the same shares, a group without
            rows, a prior outside (0, 1).

    Source: Lu and others, Binary classification from multiple unlabeled datasets via surrogate set classification,
    2021.
    """

    def __init__(
        self,
        group: Tensor,
        shares: Tensor,
        *,
        prior: Tensor | Sequence[float] | None = None,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        theta = check_shares(shares)
        group = as_classes(group, len(theta), "group")
        size = torch.bincount(group[group >= 0], minlength=len(theta)).double()
        require(size > 0, "has no row", noun="group")
        if len(theta) > 1 and float((theta - theta[0]).abs().max()) < 1e-9:
            raise LabelError(f"all {len(theta)} groups have the same class shares, which tells no classes apart")
        theta = theta.to(size.device)
        share = size / size.sum()
        pooled = share @ theta
        shift = None if prior is None else log_ratio(check_prior(prior, theta.shape[1]).to(pooled), pooled)
        super().__init__(
            group,
            ((share[:, None] * theta).log() - pooled.log()).nan_to_num(nan=-torch.inf, neginf=-torch.inf),
            theta.shape[1],
            group_share=share,
            log_prior_shift=shift,
            pooled_prior=pooled,
            error=error,
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: str,
        *,
        shares: Mapping[str, Mapping[str, float]],
        classes: Sequence[str] | None = None,
        **how: Any,
    ) -> Self:
        """Labels from a column of group names; empty cells say nothing.

        Args:
            frame: any data frame, or a mapping of columns.
            columns: name of the column of groups.
            shares: class shares of every group by name, such as ``{"A": {"cat": .8, "dog": .2}, "B": ...}``.
            classes: the class list; those that the shares name, sorted, when not given.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, a group or a class that is not listed.
        """
        names = tuple(classes) if classes is not None else tuple(sorted({c for row in shares.values() for c in row}))
        odd = [c for row in shares.values() for c in row if c not in names]
        if odd:
            raise LabelError(f'the shares name "{odd[0]}", which is not among the classes {", ".join(names[:6])}')
        group = encode(as_strings(read_column(frame, columns)), list(shares), f'"{columns}"')
        table = torch.tensor([[float(row.get(c, 0.0)) for c in names] for row in shares.values()], dtype=torch.float64)
        return cls(group, table, class_names=names, **how)

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        shares: Tensor | None = None,
        n_groups: int = 2,
        **how: Any,
    ) -> Sampled:
        """Groups dealt to rows of these classes such that group g has the class shares asked for.

        Args:
            classes: the truth, shape (N,); -1: in no group.
            n_classes: K.
            generator: where the draws come from.
            shares: target shares, shape (G, K), of groups of about equal size; the shares that came out are stated.
            n_groups: G, of shares drawn at random where none are given.
            how: further arguments of the constructor.
        """
        truth = as_classes(classes, n_classes)
        if shares is None:
            drawn = torch.rand(n_groups, n_classes, generator=generator, dtype=torch.float64) + 0.05
            shares = drawn / drawn.sum(dim=1, keepdim=True)
        theta = check_shares(shares)
        reach = (theta / theta.sum(dim=0).clamp(min=1e-30)).cumsum(dim=0).T[truth.clamp(min=0)]
        draw = torch.rand(len(truth), 1, generator=generator, dtype=torch.float64)
        group = torch.where(truth < 0, -1, (draw > reach).sum(dim=1).clamp(max=len(theta) - 1))
        inside = group >= 0
        count = torch.zeros(len(theta), n_classes, dtype=torch.float64)
        count.index_put_((group[inside], truth[inside]), torch.ones(int(inside.sum()), dtype=torch.float64), True)
        return Sampled(group, count / count.sum(dim=1, keepdim=True).clamp(min=1), **how)


def check_prior(prior: Any, n_classes: int) -> Tensor:
    """A class prior (K,) in float64, positive and of sum 1; for two classes the probability of class 1 will do.

    Raises:
        LabelError: otherwise.
    """
    given = numbers(prior, "class priors").double()
    if given.ndim == 0 and n_classes == 2:
        given = torch.stack([1 - given, given])
    if given.shape != (n_classes,):
        raise LabelError(f"the class prior has shape {tuple(given.shape)}; expected ({n_classes},), one per class")
    if not bool(((given > 0) & (given < 1)).all()) and n_classes > 1:
        raise LabelError(f"the class prior holds {_first_outside(given):g}; expected probabilities above 0 and below 1")
    if abs(float(given.sum()) - 1) > 1e-3:
        raise LabelError(f"the class prior sums to {float(given.sum()):g}; expected 1")
    return given / given.sum()


def check_shares(shares: Any) -> Tensor:
    """Class shares (G, K) in float64, rows of sum 1.

    Raises:
        LabelError: another shape, a share outside 0..1, a row that sums to something else.
    """
    theta = numbers(shares, "class shares").double()
    if theta.ndim != 2 or 0 in theta.shape:
        raise LabelError(f"class shares have shape {tuple(theta.shape)}; expected (G, K), a row per group")
    require(((theta >= 0) & (theta <= 1)).all(dim=1), "has a class share outside 0..1", noun="group")
    require((theta.sum(dim=1) - 1).abs() < 1e-3, "has class shares that do not sum to 1", noun="group")
    return theta / theta.sum(dim=1, keepdim=True)


def log_ratio(prior: Tensor, pooled: Tensor) -> Tensor:
    """log prior - log pooled, shape (K,); 0 for classes that the pool does not hold."""
    return torch.where(pooled > 0, prior.log() - pooled.clamp(min=1e-300).log(), torch.zeros_like(pooled))


def _first_outside(prior: Tensor) -> float:
    outside = ~((prior > 0) & (prior < 1))  # NaN is outside too
    return float(prior[outside][0]) if bool(outside.any()) else math.nan


def _moved(table: Tensor | None, mapping: Tensor, n_classes: int, fill: float) -> Tensor | None:
    if table is None:
        return None
    new = torch.full((*table.shape[:-1], n_classes), fill, dtype=table.dtype, device=table.device)
    new[..., mapping.to(table.device)] = table
    return new
