"""Class proportions of bags."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.counts import Counts, count_classes, merge_columns
from anygrain.labels.error import LabelError, require
from anygrain.labels.frame import read_numbers
from anygrain.labels.instance import check_mapping
from anygrain.labels.random_bags import random_bags
from anygrain.labels.segments import Segments
from anygrain.labels.sets import Events
from anygrain.labels.shares import SharePlan, noisy_shares


class Proportions(Counts):
    r"""Each bag comes with the shares of its classes (learning from label proportions).

    Without noise a share r of n members is the count that it is nearest to, and the observation is that of `Counts`.
    With noise the shares were read from a sample of the bag, worth :math:`\nu` members:

    .. math:: P(r \mid y) = \frac{\Gamma(\nu + 1)}{\prod_k \Gamma(\nu r_k + 1)} \prod_k (c_k / n)^{\nu r_k}, \quad
              c_k = \sum_{i \in m} [y_i = k]

    Shares read with noise are exact while (n + 1)^(known classes that are not 0, less one) times n is at most 10^6;
    beyond, `exact` is False and Laplace's approximation is used.

    Args:
        bags: M bags.
        proportions: shares in [0, 1], shape (M, K); NaN where not known.
        noise: effective sample size nu of the reading, one number or (M,); None is an exact reading.
        error: probability, in [0, 1), that the counts were drawn without regard to the truth; not with noise.

    Raises:
        LabelError: shares outside [0, 1] or that do not sum to 1; without noise, shares that are those of no counts:
            the nearest whole numbers, which must sum to n, are all to be within 1/(2n).

    Source: Quadrianto and others, Estimating labels from label proportions, 2009.
    """

    proportions: Tensor
    noise: Tensor

    def __init__(
        self,
        bags: Bags,
        proportions: Tensor,
        noise: float | Tensor | None = None,
        *,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        Bags.require(bags)
        shares = torch.as_tensor(proportions)
        shares = shares if shares.is_floating_point() else shares.to(torch.get_default_dtype())
        if shares.ndim != 2 or len(shares) != len(bags):
            raise LabelError(f"proportions have the shape {tuple(shares.shape)}; expected ({len(bags)}, K)")
        unknown = shares.isnan()
        require((unknown | ((shares >= 0) & (shares <= 1))).all(dim=1), "has a share outside [0, 1]", noun="bag")
        if noise is None:
            counts = nearest_counts(shares.double(), bags.sizes)
        else:
            if error:
                raise LabelError("Proportions take either noise or error, not both")
            total = torch.where(unknown, 0.0, shares).sum(dim=1)
            fits = torch.where(unknown.any(dim=1), total < 1.01, (total - 1).abs() < 0.01)
            require(fits, "has shares that do not sum to 1 (within .01)", noun="bag")
            counts = torch.full(shares.shape, -1, device=shares.device)
        super().__init__(bags, counts, error=error, rows=rows, n_rows=n_rows, weight=weight, class_names=class_names)
        size = torch.as_tensor(math.inf if noise is None else noise, device=shares.device).to(torch.get_default_dtype())
        if size.ndim > 1 or (size.ndim == 1 and len(size) != len(bags)):
            raise LabelError(f"noise has shape {tuple(size.shape)}; expected one sample size, or ({len(bags)},)")
        if bool((size <= 0).any()) or bool(size.isnan().any()):
            raise LabelError("noise is the effective size of the sample that was read; expected more than 0")
        self.is_noisy = noise is not None
        self.proportions, self.noise = shares, size.expand(len(bags))
        self._per_set = (*self._per_set, "proportions", "noise")

    @classmethod
    def about(
        cls,
        bags: Bags,
        rates: Mapping[int, float],
        n_classes: int,
        *,
        where: Tensor | None = None,
        worth: float | Tensor | None = None,
        **how: Any,
    ) -> Proportions:
        """About so large a share of every bag is of a class: a rate that is known beforehand, not read from the bag.

        Joined with `AnyOf` it tells how many members of a present class there are, which `AnyOf` leaves open.

        Args:
            bags: M bags.
            rates: share by class; the other classes share the rest as they may.
            n_classes: K.
            where: bags of which it is said, bool (M,); all when not given.
            worth: how many members' worth of evidence the rate is, one number or (M,). The sizes of the bags when not
                given: every member is of the class with that chance, so that the shares of bags scatter around it.
            how: further arguments of the constructor.

        Raises:
            LabelError: a rate outside [0, 1], a class outside 0..K-1.
        """
        Bags.require(bags)
        odd = [k for k in rates if not 0 <= k < n_classes]
        if odd:
            raise LabelError(f"a rate is given for class {odd[0]}; expected classes of 0..{n_classes - 1}")
        shares = torch.full((len(bags), n_classes), torch.nan, dtype=torch.float64, device=bags.members.device)
        shares[:, list(rates)] = torch.tensor(list(rates.values()), dtype=torch.float64, device=shares.device)
        if where is not None:
            shares[~torch.as_tensor(where, device=shares.device).bool()] = torch.nan
        return cls(bags, shares, bags.sizes.double() if worth is None else worth, **how)

    @cached_property
    def _shares(self) -> SharePlan:
        return SharePlan(Segments(self.sets.offsets), self.proportions, self.noise)

    @property
    def factor_exact(self) -> bool:
        return self._shares.exact if self.is_noisy else super().factor_exact

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        if not self.is_noisy:
            return super().factor(log_p)
        value, relative = noisy_shares(log_p.detach(), self._shares)
        return value, relative + value.masked_fill(torch.isneginf(value), 0.0)[self.sets.index][:, None]

    def log_prob_given(self, classes: Tensor) -> Tensor:
        if not self.is_noisy:
            return super().log_prob_given(classes)
        plan = self._shares
        found = count_classes(plan.column_of[self.sets.index, classes], self.sets, self.n_classes + 3)
        found = found.gather(2, plan.columns.expand(len(classes), -1, -1)).to(plan.shares.dtype)
        weight = plan.shares * plan.size[:, None]
        share = torch.log(found / self.sets.sizes[:, None])
        constant = torch.lgamma(weight.sum(dim=1) + 1) - torch.lgamma(weight + 1).sum(dim=1)
        value = torch.where(weight > 0, weight * share, 0.0).sum(dim=2) + constant
        return torch.where(plan.silent, 0.0, value)

    @classmethod
    def answer_to(cls, log_probs: Tensor, bags: Bags, n_classes: int, **asked: Any) -> Tensor:
        r"""Expected shares :math:`\frac1n \sum_{i \in m} p_i`, (M, K)."""
        return super().answer_to(log_probs, bags, n_classes) / bags.sizes[:, None]

    def events(self) -> Events | None:
        return None if self.is_noisy else super().events()

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """Classes may be merged where all, or none, of their shares are known, and only if read without noise."""
        if not self.is_noisy:
            new = super().relabel(mapping, n_classes)
            new.proportions = torch.where(new.counts < 0, torch.nan, new.counts / new.sets.sizes[:, None])
            return new
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Proportions with noise", injective=True)
        new = self._fresh()
        new.n_classes, new.class_names = n_classes, None
        merged = merge_columns(self.proportions, mapping.to(self.device), n_classes)
        gone = torch.ones(n_classes, dtype=torch.bool, device=self.device).index_fill_(
            0, mapping.to(self.device), False
        )
        some = self.proportions.isnan().any(dim=1, keepdim=True)
        new.proportions = torch.where(gone & some, torch.nan, merged)
        new.counts = torch.full(merged.shape, -1, device=self.device)
        return new

    @classmethod
    def from_frame(
        cls, frame: Any, columns: Sequence[str], *, bags: Bags, classes: Sequence[str] | None = None, **how: Any
    ) -> Self:
        """Labels from a table of bags with one column of shares per class; empty is not known. See `Counts`."""
        shares = torch.from_numpy(read_numbers(frame, columns))
        return cls(bags, shares, class_names=list(columns) if classes is None else classes, **how)

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        bags: Bags | None = None,
        bag_size: int = 5,
        known: float = 1.0,
        error: float = 0.0,
        noise: float | None = None,
        **how: Any,
    ) -> Proportions:
        """The true shares of the given bags, or of random ones; with noise, the shares of a sample of that size."""
        bags = random_bags(len(classes), bag_size, generator) if bags is None else bags
        counts = Counts.simulate(classes, n_classes, generator=generator, bags=bags, error=error).counts
        shares = counts / bags.sizes[:, None]
        if noise is not None:
            draws = torch.multinomial(shares, round(noise), replacement=True, generator=generator)
            shares = torch.nn.functional.one_hot(draws, n_classes).sum(dim=1) / round(noise)
        kept = torch.rand(shares.shape, generator=generator) < known
        return cls(bags, torch.where(kept, shares.double(), torch.nan), noise, error=error, **how)


def nearest_counts(shares: Tensor, sizes: Tensor) -> Tensor:
    """Whole numbers (M, K) within half of shares (M, K) times sizes (M,), -1 for NaN.

    Raises:
        LabelError: a bag whose nearest whole numbers do not add up to its size, or are not the only ones within half.
    """
    unknown = shares.isnan()
    wanted = torch.where(unknown, 0.0, shares) * sizes[:, None]
    counts = wanted.round()
    halves = ((wanted - counts).abs() > 0.5 - 1e-6).any(dim=1)
    total = counts.sum(dim=1)
    fits = torch.where(unknown.any(dim=1), total <= sizes, total == sizes) & ~halves
    bad = (~fits).nonzero()[:, 0]
    if len(bad):
        m = int(bad[0])
        shown = ", ".join("?" if s != s else f"{s:.4g}" for s in shares[m, :6].tolist()) + (
            ", ..." if shares.shape[1] > 6 else ""
        )
        more = f" (and {len(bad) - 1} more bags)" if len(bad) > 1 else ""
        raise LabelError(
            f"bag {m}{more} has the shares {shown}, which are no whole counts of its {int(sizes[m])} members; "
            "give more digits, or noise= for shares read from a sample"
        )
    return torch.where(unknown, -1, counts.long())
