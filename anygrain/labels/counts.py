"""Class counts of bags: how many instances of each class a bag holds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.counting import mix_error
from anygrain.labels.error import LabelError, require
from anygrain.labels.frame import read_numbers
from anygrain.labels.instance import check_error, check_mapping
from anygrain.labels.lattice import CountPlan, joint_counts
from anygrain.labels.random_bags import random_bags
from anygrain.labels.segments import Segments
from anygrain.labels.sets import Events, SetLabels


class Counts(SetLabels):
    r"""Each bag says how many of its instances are of each class, jointly, for the classes whose count is known.

    .. math:: P(n \mid y) = (1 - \epsilon) \prod_{k \text{ known}} \Big[ \sum_{i \in m} [y_i = k] = n_k \Big]
              + \epsilon / |O|

    with |O| the number of possible counts of the known classes. One known class, or two classes, are exact at every
    size, several as long as the product of (n_k + 1) over all but the largest count times the members is at most
    10^6; beyond, `exact` is False and the I-projection is used.

    Args:
        bags: M bags.
        counts: whole numbers, shape (M, K); -1 where not known. A row of -1 is no evidence.
        error: probability, in [0, 1), that the counts were drawn without regard to the truth.

    Raises:
        LabelError: known counts above the size of the bag, a full row that does not sum to it, a wrong shape.

    Source: Shukla, Zeng, Ahmed and Van den Broeck, A unified approach to count-based weakly supervised learning, 2023.
    """

    counts: Tensor

    def __init__(
        self,
        bags: Bags,
        counts: Tensor,
        *,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        Bags.require(bags)
        given = torch.as_tensor(counts)
        if given.ndim != 2 or len(given) != len(bags):
            raise LabelError(f"counts have the shape {tuple(given.shape)}; expected ({len(bags)}, K), one row per bag")
        counts = given.long()
        require((counts == given).all(dim=1), "has a count that is no whole number", noun="bag")
        require((counts >= -1).all(dim=1), "has a negative count (-1 is not known)", noun="bag")
        known = counts.clamp(min=0).sum(dim=1)
        sizes = bags.sizes.to(counts.device)
        require(known <= sizes, "has known counts above its number of members", noun="bag")
        full = (counts >= 0).all(dim=1)
        require(~full | (known == sizes), "has counts that do not sum to its number of members", noun="bag")
        super().__init__(
            counts.shape[1],
            bags,
            per_set={"counts": counts},
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.error = check_error(error)

    @cached_property
    def _plan(self) -> CountPlan:
        return CountPlan(Segments(self.sets.offsets), self.counts)

    @property
    def factor_exact(self) -> bool:
        return self._plan.exact

    @property
    def _silent(self) -> Tensor:
        """bool (M,): bags of which nothing is known."""
        return (self.counts < 0).all(dim=1)

    @property
    def n_outcomes(self) -> Tensor:
        """Number of possible counts of each bag's known classes, shape (M,), float64."""
        free = (self.counts >= 0).sum(dim=1).clamp(max=self.n_classes - 1).double()
        n = self.sets.sizes.double()
        return torch.exp(torch.lgamma(n + free + 1) - torch.lgamma(free + 1) - torch.lgamma(n + 1))

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        index = self.sets.index
        value, relative, reference = joint_counts(
            log_p.detach(), self._plan.segments, self.counts, self._plan, keep_impossible=self.error > 0
        )
        message = relative + reference[index][:, None]
        if self.error:
            return mix_error(value, message, self.error, self.n_outcomes, index, self._silent)
        return value, message

    def log_prob_given(self, classes: Tensor) -> Tensor:
        found = count_classes(classes, self.sets, self.n_classes)
        right = ((found == self.counts) | (self.counts < 0)).all(dim=2).double()
        prob = (1 - self.error) * right + self.error / self.n_outcomes
        return torch.where(self._silent, torch.ones_like(prob), prob).log()

    def asked(self) -> dict[str, Any]:
        return {}

    @classmethod
    def answer_to(cls, log_probs: Tensor, bags: Bags, n_classes: int, **asked: Any) -> Tensor:
        r"""Expected counts :math:`\sum_{i \in m} p_i`, (M, K)."""
        log_p = log_probs[bags.members]
        return log_p.new_zeros(len(bags), n_classes).index_add(0, bags.index, log_p.exp())

    def events(self) -> Events | None:
        if self.error:
            return None
        said = self.counts >= 0
        # the largest count of a full row follows from the others
        full = said.all(dim=1)
        said = said.scatter(1, self.counts.argmax(dim=1, keepdim=True), ~full[:, None] | (self.n_classes == 1))
        said &= self.counts >= 0
        sets, target = said.nonzero(as_tuple=True)
        number = self.counts[sets, target]
        return Events(sets, torch.nn.functional.one_hot(target, self.n_classes).bool(), number, number)

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """Classes may be merged where all, or none, of their counts are known: counts add up."""
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Counts", injective=False).to(self.device)
        merged = merge_columns(self.counts.clamp(min=0), mapping, n_classes)
        known = merge_columns((self.counts >= 0).long(), mapping, n_classes)
        total = torch.bincount(mapping, minlength=n_classes)
        require(
            ((known == 0) | (known == total)).all(dim=1), "would merge a known count with an unknown one", noun="bag"
        )
        full = (self.counts >= 0).all(dim=1, keepdim=True)
        new = self._fresh()
        new.n_classes, new.class_names = n_classes, None
        new.counts = torch.where((known > 0) | full, merged, -1)
        return new

    @classmethod
    def from_frame(
        cls, frame: Any, columns: Sequence[str], *, bags: Bags, classes: Sequence[str] | None = None, **how: Any
    ) -> Self:
        """Labels from a table of bags with one column per class; empty is not known.

        Args:
            frame: any data frame, or a mapping of columns, with one row per bag.
            columns: names of the columns, one per class.
            bags: the bags, in the order of the rows.
            classes: names of the classes; those of the columns when not given.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, or an entry that is no number.
        """
        table = read_numbers(frame, columns)
        counts = torch.from_numpy(np.where(np.isnan(table), -1.0, table))
        return cls(bags, counts, class_names=list(columns) if classes is None else classes, **how)

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
        **how: Any,
    ) -> Counts:
        """The true counts of the given bags, or of random ones of `bag_size`; each is kept with probability `known`.

        With an error the counts of a bag are drawn evenly from all that are possible.
        """
        bags = random_bags(len(classes), bag_size, generator) if bags is None else bags
        counts = count_classes(classes[bags.members][None], bags, n_classes)[0]
        wrong = torch.rand(len(bags), generator=generator) < error
        # bars among stars: K - 1 places of n + K - 1, without replacement, are an even draw of counts
        sizes = bags.sizes
        for m in wrong.nonzero()[:, 0].tolist():
            n = int(sizes[m])
            bars = torch.randperm(n + n_classes - 1, generator=generator)[: n_classes - 1].sort().values
            edges = torch.cat([bars.new_full((1,), -1), bars, bars.new_full((1,), n + n_classes - 1)])
            counts[m] = edges.diff() - 1
        kept = torch.rand(counts.shape, generator=generator) < known
        return cls(bags, torch.where(kept, counts, -1), error=error, **how)


def count_classes(classes: Tensor, bags: Bags, n_classes: int) -> Tensor:
    """Class counts (S, M, K) of every bag, for S assignments of classes (S, E) to the members."""
    at = bags.index * n_classes + classes
    counts = torch.zeros(len(classes), len(bags) * n_classes, dtype=torch.long, device=classes.device)
    return counts.scatter_add_(1, at, torch.ones_like(at)).view(len(classes), len(bags), n_classes)


def merge_columns(table: Tensor, mapping: Tensor, n_classes: int) -> Tensor:
    """Columns (M, K) summed into those that `mapping` (K,) sends them to, shape (M, n_classes)."""
    return table.new_zeros(len(table), n_classes).index_add_(1, mapping, table)
