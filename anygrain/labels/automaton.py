"""A label that a finite automaton makes of the classes of a set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.automata import Machine, Tables
from anygrain.labels.bags import Bags
from anygrain.labels.counting import mix_error
from anygrain.labels.error import LabelError, require, whole_numbers
from anygrain.labels.frame import read_whole_numbers
from anygrain.labels.instance import check_error, check_mapping
from anygrain.labels.random_bags import random_bags
from anygrain.labels.segments import Segments
from anygrain.labels.sets import SetLabels


class Automaton(SetLabels):
    r"""Each bag says what a finite automaton makes of its classes, read in the order of its members.

    .. math:: P(o \mid y) = (1 - \epsilon) \sum_{s_0 .. s_n} P(s_0) \prod_{t=1}^{n} T(s_{t-1}, y_t, s_t)\,
              P(o \mid s_n) + \epsilon / A

    exactly: any regular function of the classes, such as "the first a comes before the first b", "classes alternate"
    or "never more than two in a row". Time is proportional to the members times the arcs of the automaton.

    Args:
        bags: M bags; the order of their members is that in which they are read.
        accept: shape (M,); the label that was seen, 0..A-1; -1 where nothing is said.
        transition: next states (S, K), whole numbers, or probabilities (S, K, S).
        initial: the first state, or probabilities (S,).
        n_classes: K.
        final: probabilities P(label | final state), shape (A, S); a list of A sets of states, each of which makes one
            label; one set of states: label 1 where it is reached, else 0; None: the label is the final state itself.
        error: probability, in [0, 1), that the label was drawn evenly from all A.

    Raises:
        LabelError: transitions or an initial distribution that do not sum to 1, a state outside 0..S-1, a label
            outside 0..A-1, tables that do not fit the bags or each other.

    Source: Rabiner, A tutorial on hidden Markov models, 1989; product tree: Sarkka and Garcia-Fernandez, Temporal
    parallelization of Bayesian smoothers, 2021.
    """

    accept: Tensor

    def __init__(
        self,
        bags: Bags,
        accept: Tensor,
        transition: Tensor,
        initial: int | Tensor,
        n_classes: int,
        *,
        final: Tensor | Sequence[Iterable[int]] | set[int] | None = None,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        Bags.require(bags)
        tables = Tables.checked(transition, initial, final, n_classes)
        self.transition, self.initial, self.final = (torch.as_tensor(t, device=bags.members.device) for t in tables)
        accept = read_labels(accept, bags, len(self.final))
        super().__init__(
            n_classes,
            bags,
            per_set={"accept": accept},
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.error = check_error(error)

    @cached_property
    def _machine(self) -> Machine:
        return Machine.of(self.transition)

    @cached_property
    def _segments(self) -> Segments:
        return Segments(self.sets.offsets)

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        silent = self.accept < 0
        final = self.final.log()[self.accept.clamp(min=0)].masked_fill(silent[:, None], 0.0)
        value, message = self._machine.read(log_p.detach(), self._segments, self.initial.log(), final)
        index = self.sets.index
        if self.error:
            return mix_error(value, message, self.error, len(self.final), index, silent)
        return value.masked_fill(silent, 0.0), message.masked_fill(silent[index][:, None], 0.0)

    def asked(self) -> dict[str, Any]:
        return {name: getattr(self, name).tolist() for name in ("transition", "initial", "final")}

    @classmethod
    def answers_of(cls, n_classes: int, **asked: Any) -> tuple[str, ...]:
        return tuple(str(label) for label in range(len(asked["final"])))

    @classmethod
    def answer_to(cls, log_probs: Tensor, bags: Bags, n_classes: int, **asked: Any) -> Tensor:
        """P(the automaton makes label a), (M, A)."""
        transition, initial, final = (torch.tensor(asked[name]) for name in ("transition", "initial", "final"))
        labels = cls(bags, bags.sizes.new_full((len(bags),), -1), transition, initial, n_classes, final=final)
        return chances(labels, "accept", len(final), log_probs)

    def answered(self) -> Tensor:
        return self.accept

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """Classes may be merged where they move the automaton alike; a new class has no way on: it does not occur."""
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Automaton", injective=False).to(self.device)
        new = self._fresh()
        new.transition = merged_moves(self.transition, mapping, n_classes)
        new.n_classes, new.class_names = n_classes, None
        return new

    @classmethod
    def from_frame(
        cls, frame: Any, columns: str, *, bags: Bags, transition: Tensor, classes: Sequence[str], **how: Any
    ) -> Self:
        """Labels from a column of whole numbers 0..A-1 of a table of bags; empty says nothing.

        Args:
            frame: any data frame, or a mapping of columns, with one row per bag.
            columns: name of the column.
            bags: the bags, in the order of the rows.
            transition: of the automaton; its classes in the order of `classes`.
            classes: names of all classes.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, or an entry that is no whole number.
        """
        accept = read_whole_numbers(frame, columns)
        initial = how.pop("initial", 0)
        return cls(bags, accept, transition, initial, len(classes), class_names=classes, **how)

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        transition: Tensor | None = None,
        initial: int | Tensor = 0,
        bags: Bags | None = None,
        bag_size: int = 5,
        **how: Any,
    ) -> Automaton:
        """What the automaton makes of the given bags, or of random ones; by default, the class of the last member."""
        bags = random_bags(len(classes), bag_size, generator) if bags is None else bags
        if transition is None:
            transition = torch.arange(n_classes).expand(n_classes, -1)
        labels = cls(bags, torch.zeros(len(bags)), transition, initial, n_classes, **how)
        labels.accept = drawn_labels(labels, "accept", len(labels.final), classes, generator)
        return labels


def read_labels(labels: Tensor, bags: Bags, n_labels: int) -> Tensor:
    """Labels of bags (M,) of 0..A-1, -1 where nothing is said.

    Raises:
        LabelError: no whole numbers, another shape, or a label outside, naming the bags.
    """
    given = whole_numbers(labels, "labels of bags").to(bags.members.device)
    if given.shape != (len(bags),):
        raise LabelError(f"labels of bags have shape {tuple(given.shape)}; expected ({len(bags)},), one label per bag")
    fault = f"has a label outside 0..{n_labels - 1} (-1 says nothing)"
    require((given >= -1) & (given < n_labels), fault, noun="bag")
    return given


def chances(labels: SetLabels, name: str, n_labels: int, log_probs: Tensor) -> Tensor:
    """P(label a | log_probs (N, K)) of every bag, (M, A), where table `name` of the labels holds the label.

    Approximate kinds do not quite sum to 1, so the rows are normalised.
    """
    log_p, found = log_probs[labels.sets.members], []
    for label in range(n_labels):
        asked = labels._fresh()
        setattr(asked, name, torch.full((len(labels.sets),), label, device=labels.device))
        found.append(asked.factor(log_p)[0])
    return torch.stack(found, dim=1).softmax(dim=1)


def drawn_labels(labels: SetLabels, name: str, n_labels: int, classes: Tensor, generator: torch.Generator) -> Tensor:
    """A label of 0..A-1 for every bag (M,), drawn from P(label | classes); -1 where none is possible."""
    truth = classes[labels.sets.members][None]
    chances = []
    for label in range(n_labels):
        asked = labels._fresh()
        setattr(asked, name, torch.full((len(labels.sets),), label, device=labels.device))
        chances.append(asked.log_prob_given(truth)[0].exp())
    table = torch.stack(chances, dim=1)
    none = table.sum(dim=1) <= 0
    drawn = torch.multinomial(torch.where(none[:, None], 1.0, table), 1, generator=generator)[:, 0]
    return torch.where(none, -1, drawn)


def merged_moves(transition: Tensor, mapping: Tensor, n_classes: int) -> Tensor:
    """Transitions (S, K, ...) over new classes; a class that none is sent to has no way on.

    Raises:
        LabelError: merged classes that move the automaton differently.
    """
    size = (len(transition), n_classes, *transition.shape[2:])
    new = transition.new_full(size, -1 if transition.ndim == 2 else 0)
    new[:, mapping] = transition
    if not torch.equal(new[:, mapping], transition):
        differs = (new[:, mapping] != transition).transpose(0, 1).flatten(1).any(dim=1)
        k = int(differs.nonzero()[0])
        raise LabelError(
            f"class {k} would be merged into class {int(mapping[k])} with one that moves the automaton elsewhere"
        )
    return new
