"""One label for a whole set, by a rule: its majority, its variety, its highest class, or an automaton."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.automata import Machine, Tables
from anygrain.labels.automaton import chances, drawn_labels, merged_moves, read_labels
from anygrain.labels.bags import Bags
from anygrain.labels.counting import mix_error
from anygrain.labels.counts import count_classes
from anygrain.labels.distinct import DistinctPlan
from anygrain.labels.error import LabelError, require
from anygrain.labels.frame import as_strings, encode, read_column, read_whole_numbers
from anygrain.labels.highest import highest_class
from anygrain.labels.instance import check_error, check_mapping
from anygrain.labels.majority import chance_to_win
from anygrain.labels.plurality import PluralityPlan
from anygrain.labels.random_bags import random_bags
from anygrain.labels.segments import Segments
from anygrain.labels.sets import SetLabels
from anygrain.labels.taxonomy import Taxonomy

RULES = ("majority", "distinct", "highest")


class SetLabel(SetLabels):
    r"""Each bag has one label, made of the classes of its instances by a rule.

    | `rule` | the label is | P(o given y) |
    |---|---|---|
    | `"majority"` | the most frequent coarse class, ties broken evenly | :math:`[c_o = \max_j c_j] / \#\text{ties}` |
    | `"distinct"` | the number of different classes that occur | :math:`[\#\{y_i\} = o]` |
    | `"highest"` | the highest class that occurs | :math:`[\max_i y_i = o]` |
    | `Tables(transition, initial, final)` | what an automaton makes of the members in their order | see `Automaton` |

    .. math:: P'(o \mid y) = (1 - \epsilon) P(o \mid y) + \epsilon / |O|

    |O| is the number of coarse classes, of numbers from 1 to the smaller of K and the size of the bag, of classes, or
    of the automaton's labels. `"highest"` and automata are exact at every size, `"distinct"` up to 12 classes (K 2^K
    steps for a member), and `"majority"` as `Majority` is, counting coarse classes; else `exact` is False and moments
    are matched (`PluralityPlan.find`, `DistinctPlan.find`).

    Args:
        bags: M bags.
        label: shape (M,), whole numbers; -1 where nothing is said.
        n_classes: K.
        rule: one of the above.
        taxonomy: for the majority, a `Taxonomy` (see `level`) or a membership matrix (C, K) with entries in [0, 1]:
            the chance that an instance of class k counts for coarse class c. Without it every class is its own.
        level: of the taxonomy; None is the level right above the classes.
        error: probability, in [0, 1), that the label was drawn without regard to the truth.

    Raises:
        LabelError: a label that the rule cannot make, a rule that is not known, a taxonomy for another rule than the
            majority.
    """

    label: Tensor

    def __init__(
        self,
        bags: Bags,
        label: Tensor,
        n_classes: int,
        rule: str | Tables = "majority",
        *,
        taxonomy: Taxonomy | Tensor | None = None,
        level: str | int | None = None,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        Bags.require(bags)
        device = bags.members.device
        if isinstance(rule, str) and rule not in RULES:
            raise LabelError(f'rule is "{rule}"; expected {", ".join(RULES)}, or the Tables of an automaton')
        if taxonomy is not None and rule != "majority":
            raise LabelError("a taxonomy says which coarse class is the majority; other rules take none")
        self.rule = rule if isinstance(rule, str) else "automaton"
        self.membership: Tensor | None = None
        self.transition = self.initial = self.final = torch.empty(0, device=device)
        if taxonomy is not None:
            self.membership, names = _membership(taxonomy, level, n_classes)
            self.membership = self.membership.to(device)
            class_names = names if class_names is None else class_names
        if not isinstance(rule, str):
            tables = Tables.checked(*rule, n_classes)
            self.transition, self.initial, self.final = (torch.as_tensor(t, device=device) for t in tables)
        self.n_classes = n_classes
        label = read_labels(label, bags, self._n_labels)
        if self.rule == "distinct":
            most = bags.sizes.clamp(max=n_classes)
            fits = (label != 0) & (label <= most)
            require(
                fits, "has a number of different classes that is 0, or above its members or all classes", noun="bag"
            )
        super().__init__(
            n_classes,
            bags,
            per_set={"label": label},
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.error = check_error(error)

    @property
    def _n_labels(self) -> int:
        """Labels are below this number."""
        if self.rule == "automaton":
            return len(self.final)
        if self.membership is not None:
            return len(self.membership)
        return self.n_classes + (self.rule == "distinct")

    @cached_property
    def _segments(self) -> Segments:
        return Segments(self.sets.offsets)

    @cached_property
    def _plurality(self) -> PluralityPlan:
        table = self.membership
        spare = table is not None and bool((table.sum(dim=0) < 1 - 1e-9).any())
        return PluralityPlan(self._segments, self.n_classes if table is None else len(table), spare)

    @cached_property
    def _distinct(self) -> DistinctPlan:
        return DistinctPlan(self._segments, self.n_classes)

    @cached_property
    def _machine(self) -> Machine:
        return Machine.of(self.transition)

    @property
    def factor_exact(self) -> bool:
        if self.rule == "majority":
            return self._plurality.exact
        return self.rule != "distinct" or self._distinct.exact

    @property
    def _outcomes(self) -> Tensor:
        """Number of labels that a bag could have been given, shape (M,), float64."""
        if self.rule == "distinct":
            return self.sets.sizes.clamp(max=self.n_classes).double()
        return torch.full_like(self.sets.sizes, self._n_labels, dtype=torch.float64)

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        silent, index = self.label < 0, self.sets.index
        label = self.label.clamp(min=0)
        log_p = log_p.detach()
        if self.rule == "highest":
            value, message = highest_class(log_p, self._segments, label)
        elif self.rule == "distinct":
            value, message = self._distinct.find(log_p, label.clamp(min=1))
        elif self.rule == "automaton":
            value, message = self._machine.read(log_p, self._segments, self.initial.log(), self.final.log()[label])
        else:
            value, message = self._majority(log_p, label)
        if self.error:
            return mix_error(value, message, self.error, self._outcomes, index, silent)
        return value.masked_fill(silent, 0.0), message.masked_fill(silent[index][:, None], 0.0)

    def _majority(self, log_p: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        if self.membership is None:
            return self._plurality.find(log_p, label)
        table = self._columns.to(log_p.dtype).log()  # (C, K)
        coarse = torch.logsumexp(log_p[:, None] + table, dim=2)
        value, said = self._plurality.find(coarse, label)
        return value, torch.logsumexp(said[..., None] + table, dim=1)

    @property
    def _columns(self) -> Tensor:
        """Membership, and where there is need of it a row of what counts for no coarse class, shape (C or C + 1, K)."""
        assert self.membership is not None
        none = (1 - self.membership.sum(dim=0, keepdim=True)).clamp(min=0)
        return torch.cat([self.membership, none]) if self._plurality.spare else self.membership

    def log_prob_given(self, classes: Tensor) -> Tensor:
        fractional = self.membership is not None and not bool(((self.membership == 0) | (self.membership == 1)).all())
        if self.rule == "automaton" or fractional:
            return super().log_prob_given(classes)
        counts = count_classes(classes, self.sets, self.n_classes)
        label = self.label.clamp(min=0)
        if self.rule == "majority":
            if self.membership is not None:
                counts = (counts.double() @ self.membership.T).round()
            right = chance_to_win(counts, label)
        elif self.rule == "distinct":
            right = ((counts > 0).sum(dim=2) == label).double()
        else:
            order = torch.arange(1, self.n_classes + 1, device=self.device)
            right = (((counts > 0) * order).amax(dim=2) - 1 == label).double()
        prob = (1 - self.error) * right + self.error / self._outcomes
        if self.rule == "distinct":  # as many as there can be
            prob = prob.masked_fill((self.label == 0) | (self.label > self._outcomes), 0.0)
        return torch.where(self.label < 0, torch.ones_like(prob), prob).log()

    def asked(self) -> dict[str, Any]:
        asked: dict[str, Any] = {"rule": self.rule}
        if self.membership is not None:
            asked["membership"] = self.membership.tolist()
        if self.rule == "automaton":
            asked.update({name: getattr(self, name).tolist() for name in ("transition", "initial", "final")})
        return asked

    @classmethod
    def answers_of(cls, n_classes: int, **asked: Any) -> tuple[str, ...] | None:
        if asked["rule"] == "distinct":
            return tuple(str(number) for number in range(n_classes + 1))
        other = asked.get("membership", asked.get("final"))
        return None if other is None else tuple(str(label) for label in range(len(other)))

    @classmethod
    def answer_to(cls, log_probs: Tensor, bags: Bags, n_classes: int, **asked: Any) -> Tensor:
        """P(the rule makes label a), (M, A); of "distinct" A is K + 1, of none to all classes."""
        rule: Any = asked["rule"]
        if rule == "automaton":
            rule = Tables(*(torch.tensor(asked[name]) for name in ("transition", "initial", "final")))
        table = torch.tensor(asked["membership"], dtype=torch.float64) if "membership" in asked else None
        labels = cls(bags, bags.sizes.new_full((len(bags),), -1), n_classes, rule, taxonomy=table)
        if rule != "distinct":
            return chances(labels, "label", labels._n_labels, log_probs)
        found = chances(labels, "label", n_classes + 1, log_probs)
        number = torch.arange(n_classes + 1, device=found.device)
        possible = (number > 0) & (number <= bags.sizes[:, None])
        found = torch.where(possible, found, 0.0)
        return found / found.sum(dim=1, keepdim=True)

    def answered(self) -> Tensor:
        return self.label

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """By rule: classes of one coarse class, or that move an automaton alike, may be merged; the highest class needs
        a map that keeps the order and merges no class that is the highest of a bag; the number of classes and the
        majority of classes need one of their own for each."""
        name = f"SetLabel({self.rule})"
        merges = self.membership is not None or self.rule in ("automaton", "highest")
        mapping = check_mapping(mapping, self.n_classes, n_classes, name, injective=not merges).to(self.device)
        new = self._fresh()
        if self.membership is not None:
            new.membership = self.membership.new_zeros(len(self.membership), n_classes)
            new.membership[:, mapping] = self.membership
            if not torch.equal(new.membership[:, mapping], self.membership):
                raise LabelError(f"{name} merges classes only where they lie under the same coarse class")
        elif self.rule == "automaton":
            new.transition = merged_moves(self.transition, mapping, n_classes)
        elif self.rule == "highest":
            if bool((mapping.diff() < 0).any()):
                raise LabelError(f"{name} needs a class map that keeps the order")
            said = self.label[self.label >= 0].unique()
            merged = said[torch.bincount(mapping, minlength=n_classes)[mapping[said]] > 1]
            if len(merged):
                raise LabelError(f"{name} has bags whose highest class is {int(merged[0])}; keep it a class of its own")
            new.label = torch.where(self.label < 0, -1, mapping[self.label.clamp(min=0)])
        elif self.rule == "majority":
            new.label = torch.where(self.label < 0, -1, mapping[self.label.clamp(min=0)])
        new.n_classes, new.class_names = n_classes, None
        return new

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: str,
        *,
        bags: Bags,
        classes: Sequence[str] | None = None,
        rule: str | Tables = "majority",
        taxonomy: Taxonomy | None = None,
        level: str | int | None = None,
        **how: Any,
    ) -> Self:
        """Labels from a column of a table of bags: names of (coarse) classes, or whole numbers; empty says nothing.

        Args:
            frame: any data frame, or a mapping of columns, with one row per bag.
            columns: name of the column.
            bags: the bags, in the order of the rows.
            classes: names of all classes, from low to high for the highest one; those of the taxonomy when not given.
            rule, taxonomy, level: see the constructor.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, an unknown name, an entry that is no whole number, no class list.
        """
        names = classes if classes is not None else None if taxonomy is None else taxonomy.classes
        if names is None:
            raise LabelError("SetLabel.from_frame needs classes= or taxonomy=: the labels do not name the classes")
        if rule == "distinct" or not isinstance(rule, str):
            label = read_whole_numbers(frame, columns)
        else:
            known = names if taxonomy is None else taxonomy.nodes(_level(taxonomy, level))
            label = encode(as_strings(read_column(frame, columns)), known, f'"{columns}"')
        return cls(bags, label, len(names), rule, taxonomy=taxonomy, level=level, class_names=names, **how)

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        rule: str | Tables = "majority",
        bags: Bags | None = None,
        bag_size: int = 5,
        **how: Any,
    ) -> SetLabel:
        """The labels that the rule gives to the given bags, or to random ones, but for the given error."""
        bags = random_bags(len(classes), bag_size, generator) if bags is None else bags
        labels = cls(bags, torch.full((len(bags),), -1), n_classes, rule, **how)
        labels.label = drawn_labels(labels, "label", labels._n_labels, classes, generator)
        return labels


def _level(taxonomy: Taxonomy, level: str | int | None) -> str | int:
    return min(1, len(taxonomy.level_names) - 1) if level is None else level


def _membership(
    taxonomy: Taxonomy | Tensor, level: str | int | None, n_classes: int
) -> tuple[Tensor, Sequence[str] | None]:
    """Membership (C, K) of every class in coarse classes, and the class names of a taxonomy."""
    if isinstance(taxonomy, Taxonomy):
        matrix, names = taxonomy.membership(_level(taxonomy, level)), taxonomy.classes
    else:
        matrix, names = torch.as_tensor(taxonomy).to(torch.float64), None
    if matrix.ndim != 2 or matrix.shape[1] != n_classes:
        raise LabelError(f"membership has shape {tuple(matrix.shape)}; expected (C, {n_classes}), coarse by classes")
    if bool(((matrix < 0) | (matrix > 1)).any()) or bool((matrix.sum(dim=0) > 1 + 1e-5).any()):
        raise LabelError("the membership of a class in coarse classes must be shares of 0 to 1 that sum to at most 1")
    return matrix, names
