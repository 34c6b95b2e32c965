"""How many of a set are of a class, as a range: the base of AtLeast, AtMost and Between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.counting import mix_error, range_counts
from anygrain.labels.error import LabelError, require, whole_numbers
from anygrain.labels.frame import read_whole_numbers
from anygrain.labels.random_bags import random_bags
from anygrain.labels.segments import Segments
from anygrain.labels.sets import Events
from anygrain.labels.target import Target, as_table, count_hits, read_target, split, spread
from anygrain.labels.target_sets import TargetSets


class CountRange(TargetSets):
    r"""Each bag says that between `low` and `high` of its n members are of the target class.

    .. math:: P(l, h \mid y) = (1 - \epsilon) \Big[ l \le \sum_{i \in m} [y_i \in t] \le h \Big]
              + \epsilon \frac{h - l + 1}{n + 1}

    With probability :math:`\epsilon` the range holds a count that was drawn evenly from 0..n. The probability is exact
    at every size (`range_counts`).

    Attributes:
        low, high: both ends, shape (M,), 0 and n where open.
        silent: bool, shape (M,): nothing was said.
    """

    low: Tensor
    high: Tensor
    silent: Tensor

    def __init__(self, bags: Bags, low: Tensor, high: Tensor, target: Target, n_classes: int, **how: Any):
        sizes, silent = bags.sizes, (low < 0) & (high < 0)
        low, high = torch.where(low < 0, 0, low), torch.where(high < 0, sizes, high)
        require(low <= high, "has a lowest count above its highest", noun="bag")
        super().__init__(bags, target, n_classes, per_set={"low": low, "high": high, "silent": silent}, **how)

    @property
    def _outcomes(self) -> Tensor:
        """1 / probability that a count drawn from 0..n is in the range, shape (M,)."""
        return (self.sets.sizes + 1).double() / (self.high - self.low + 1)

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        index = self.sets.index
        target = self.target[index]
        no, yes = split(log_p.detach(), target).unbind(dim=1)
        found = range_counts(
            yes[:, None],
            no[:, None],
            self._segments,
            torch.where(self.silent, -1, self.low)[:, None],
            self.high[:, None],
            keep_impossible=self.error > 0,
        )
        value = found.log_likelihood[:, 0]
        message = torch.cat([found.without, found.having], dim=1) + found.reference[index]
        if self.error:
            value, message = mix_error(value, message, self.error, self._outcomes, index, self.silent)
        return value, spread(message, target, self.n_classes)

    def log_prob_given(self, classes: Tensor) -> Tensor:
        count = self._hits(classes)
        right = ((count >= self.low) & (count <= self.high)).double()
        prob = (1 - self.error) * right + self.error / self._outcomes
        return torch.where(self.silent, torch.ones_like(prob), prob).log()

    def events(self) -> Events | None:
        if self.error:
            return None
        sets = (~self.silent).nonzero()[:, 0]
        return Events(sets, as_table(self.target[sets], self.n_classes), self.low[sets], self.high[sets])

    #: ends that are asked for; the other is open
    ends: tuple[str, ...] = ("low", "high")

    def asked(self) -> dict[str, Any]:
        said = ~self.silent
        return {
            "target": self._common_target(said),
            **{end: int(self._common(end, said)) for end in self.ends},
        }

    @classmethod
    def answers_of(cls, n_classes: int, **asked: Any) -> tuple[str, ...]:
        return ("no", "yes")

    @classmethod
    def answer_to(cls, log_probs: Tensor, bags: Bags, n_classes: int, **asked: Any) -> Tensor:
        """P(the count is outside of the range) and P(it is inside), (M, 2)."""
        log_p = log_probs[bags.members]
        column = read_target(asked["target"], len(bags), n_classes, log_p.device)[bags.index]
        no, yes = split(log_p, column).unbind(dim=1)
        low = bags.sizes.new_full((len(bags),), asked.get("low", 0))
        high = torch.minimum(bags.sizes, bags.sizes.new_tensor(asked["high"]) if "high" in asked else bags.sizes)
        possible = low <= high
        segments = Segments(bags.offsets)
        # both tails and the middle at once, so that small probabilities keep their digits
        lows = torch.stack([torch.zeros_like(low), torch.where(possible, low, 0), (high + 1).clamp(max=bags.sizes)], 1)
        highs = torch.stack([(low - 1).clamp(min=0), torch.where(possible, high, 0), bags.sizes], 1)
        found = range_counts(
            yes[:, None].expand(-1, 3).contiguous(), no[:, None].expand(-1, 3).contiguous(), segments, lows, highs
        ).log_likelihood.exp()
        below = torch.where(low > 0, found[:, 0], 0.0)
        above = torch.where(high < bags.sizes, found[:, 2], 0.0)
        inside = torch.where(possible, found[:, 1], 0.0)
        outside = torch.where(possible, below + above, 1.0)
        return torch.stack([outside, inside], dim=1)

    @classmethod
    def _read(cls, frame: Any, columns: str | Sequence[str]) -> Sequence[Tensor]:
        return [read_whole_numbers(frame, name) for name in ([columns] if isinstance(columns, str) else columns)]

    @classmethod
    def _simulated(
        cls,
        say: Callable[[Tensor, Tensor], Sequence[Tensor]],
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        target: Target = 0,
        bags: Bags | None = None,
        bag_size: int = 5,
        error: float = 0.0,
        **how: Any,
    ) -> Self:
        """What `say` makes of true counts and sizes (M,); with probability `error` a count is drawn evenly from 0..n.

        Args:
            say: gives what the constructor takes between bags and target.
            target, error, how: see the constructor.
            bags: random ones of `bag_size` where not given.
        """
        bags = random_bags(len(classes), bag_size, generator) if bags is None else bags
        table = read_target(target, len(bags), n_classes, bags.members.device)
        count = count_hits(classes[bags.members][None], table[bags.index], bags.index, len(bags))[0]
        wrong = torch.rand(len(bags), generator=generator) < error
        count = torch.where(wrong, drawn_evenly(bags.sizes + 1, generator), count)
        make: Any = cls
        labels: Self = make(bags, *say(count, bags.sizes), table, n_classes, error=error, **how)
        return labels


def read_thresholds(values: Tensor, bags: Bags, what: str) -> Tensor:
    """Numbers of members (M,), -1 where nothing is said.

    Raises:
        LabelError: something else than bags or whole numbers, another shape, below -1 or above the size of the bag.
    """
    Bags.require(bags)
    number = whole_numbers(values, f"{what} counts of bags").to(bags.members.device)
    if number.shape != (len(bags),):
        raise LabelError(f"{what} has shape {tuple(number.shape)}; expected ({len(bags)},), one number per bag")
    require(number >= -1, f"has a negative {what} (-1 says nothing)", noun="bag")
    bad = (number > bags.sizes).nonzero()[:, 0]
    if len(bad):
        m = int(bad[0])
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise LabelError(
            f"bag {m}{more} has {what} {int(number[m])}, but {int(bags.sizes[m])} members; "
            "expected a number of members, or -1 for nothing"
        )
    return number


def drawn_evenly(n: Tensor, generator: torch.Generator) -> Tensor:
    """A whole number of 0..n-1 for every n (M,)."""
    return (torch.rand(len(n), dtype=torch.float64, generator=generator) * n).long()
