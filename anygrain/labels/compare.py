"""Comparisons: which of two instances is of the higher class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.error import LabelError, require, whole_numbers
from anygrain.labels.frame import as_strings, class_list, encode, read_column, require_order
from anygrain.labels.instance import check_mapping
from anygrain.labels.pair_sets import PairSets, drawn_answers, drawn_pairs

#: what the first may be to the second, or which of the two was picked; a code is a place in this list
RELATIONS = (">", ">=", "=", "<=", "<", "left", "right")
#: the same seen from the second
TURNED = (4, 3, 2, 1, 0, 6, 5)
SPELLINGS = {"==": "=", "first": "left", "second": "right", "tie": "="}


class Compare(PairSets):
    r"""Each observation compares the classes of two instances; classes are ordered 0..K-1, low to high.

    .. math:: P(y_i \ge y_j) = \sum_{k \ge l} p_i(k) p_j(l), \qquad P(y_i \ge y_j \mid y_i = k) = \sum_{l \le k} p_j(l),

    and so on for >, =, <= and <. Whoever had to pick one of the two, "left" or "right", picks the higher one, and of
    equal ones either by chance, :math:`P(\text{left}) = P(y_i > y_j) + P(y_i = y_j) / 2`; with two classes this is the
    pair comparison of positives. (Pairs that were turned until ">=" held are picks as well: as answers to a question
    that is never denied they would be explained by a model that calls everything equal.) With an error,
    :math:`P' = (1 - \epsilon) P + \epsilon / 2`: the answer is then drawn between it and its opposite.

    Args:
        pairs: instance ids, shape (M, 2).
        relation: what the first of each pair is to the second, shape (M,): ">", ">=", "=", "<=", "<", or which one was
            picked, "left" or "right" (or "first", "second"); or their places 0..6 in this list; "" or -1 is missing.
        n_classes: K.
        n_instances: N; the largest instance + 1 when not given.
        error: probability, in [0, 1), that the answer was drawn without regard to the truth.

    Raises:
        LabelError: pairs that are not (M, 2), an instance outside 0..N-1, a pair of an instance with itself, another
            relation.

    Source: ordinal comparisons: Bradley and Terry, 1952, here of discrete classes; binary pair comparison: Feng and
    others, Pointwise binary classification with pairwise confidence comparisons, 2021.
    """

    relation: Tensor

    def __init__(
        self,
        pairs: Tensor,
        relation: Any,
        n_classes: int,
        n_instances: int | None = None,
        *,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        pairs = whole_numbers(pairs, "instances of pairs")
        if pairs.numel() == 0:
            pairs = pairs.reshape(-1, 2)
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise LabelError(f"pairs have shape {tuple(pairs.shape)}; expected (M, 2), two instance ids a row")
        if n_instances is None:
            n_instances = int(pairs.max()) + 1 if len(pairs) else 0
        super().__init__(
            pairs[:, 0],
            pairs[:, 1],
            as_relations(relation).to(pairs.device),
            "relation",
            n_instances,
            n_classes,
            error=error,
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )

    def message(self, pair: Tensor) -> Tensor:
        other = pair.flip(1)
        up_to = torch.logcumsumexp(other, dim=2).clamp(max=0)
        from_on = torch.logcumsumexp(other.flip(2), dim=2).flip(2).clamp(max=0)
        none = torch.full_like(other[:, :, :1], -torch.inf)
        below, above = torch.cat([none, up_to[:, :, :-1]], dim=2), torch.cat([from_on[:, :, 1:], none], dim=2)
        code = self.relation.clamp(min=0).long()
        code = torch.stack([code, code.new_tensor(TURNED)[code]], dim=1)[None, :, :, None]  # seen from either side
        left, right = torch.logaddexp(below, up_to) - math.log(2), torch.logaddexp(from_on, above) - math.log(2)
        tables = torch.stack([below, up_to, other, from_on, above, left, right])
        return tables.gather(0, code.expand(1, *other.shape))[0]

    def holds(self, first: Tensor, second: Tensor) -> Tensor:
        said = torch.stack([first > second, first >= second, first == second, first <= second, first < second]).double()
        said = torch.cat([said, said[[0, 4]] + 0.5 * said[2]])
        return said.gather(0, self.relation.clamp(min=0).long().expand(1, *first.shape))[0]

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """Only maps that keep the order of classes."""
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Compare", injective=True)
        if not bool((mapping.diff() > 0).all()):
            raise LabelError("Compare needs a class map that keeps the order")
        new = self._fresh()
        new.n_classes, new.class_names = n_classes, None
        return new

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: Sequence[str],
        *,
        classes: Sequence[str] | None = None,
        items: Sequence[Any] | None = None,
        **how: Any,
    ) -> Self:
        """Comparisons from a table of pairs.

        Args:
            frame: any data frame, or a mapping of columns; a row is a pair.
            columns: the columns of the first id, the second id and the relation; an empty relation is missing.
            classes: the class list, from low to high: a table of pairs does not tell it.
            items: ids of all instances in the order of the data rows; without it, those that occur, sorted.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, an id that is not among `items`, another relation, no order of the classes.
        """
        if len(columns) != 3:
            raise LabelError(f"Compare reads three columns, two ids and the relation; {len(columns)} were given")
        require_order((), said=classes is not None)
        sides = [as_strings(read_column(frame, c)) for c in columns[:2]]
        known = class_list(sides) if items is None else as_strings(np.asarray(items)).tolist()
        i, j = (encode(v, known, f'"{c}"') for v, c in zip(sides, columns, strict=False))
        names = class_list([], classes=classes)
        relation = as_strings(read_column(frame, columns[2]))
        return cls(torch.stack([i, j], dim=1), relation.tolist(), len(names), len(known), class_names=names, **how)

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        n_pairs: int | None = None,
        relation: str = ">=",
        error: float = 0.0,
        **how: Any,
    ) -> Compare:
        """`n_pairs` (default N) pairs drawn at random, asked whether `relation` holds: it, or its opposite.

        Raises:
            LabelError: the relation =, which has no opposite.
        """
        asked = int(as_relations([relation])[0])
        opposite = {0: 3, 1: 4, 3: 0, 4: 1, 5: 6, 6: 5}
        if asked not in opposite:
            raise LabelError(f'relation is "{relation}"; expected >, >=, <=, <, left or right, which have an opposite')
        i, j = drawn_pairs(len(classes), n_pairs, generator)
        first, second = classes[i], classes[j]
        coin = torch.rand(len(i), generator=generator) < 0.5
        left = torch.where(first == second, coin, first > second)
        holding = [first > second, first >= second, first == second, first <= second, first < second, left, ~left]
        truth = holding[asked]
        said = torch.where(drawn_answers(truth, error, generator), asked, opposite[asked])
        return cls(torch.stack([i, j], dim=1), said, n_classes, len(classes), error=error, **how)


def as_relations(relation: Any) -> Tensor:
    """Relations as codes, int8 (M,): places in `RELATIONS`, -1 is missing.

    Raises:
        LabelError: another relation, with the first pairs that have one.
    """
    expected = f"expected one of {', '.join(RELATIONS)}, or 0..6 (empty or -1 is missing)"
    if not isinstance(relation, Tensor) and np.asarray(relation).dtype.kind in "OUS":
        places = {"": -1, **{name: at for at, name in enumerate(RELATIONS)}}
        places |= {name: places[meant] for name, meant in SPELLINGS.items()}
        names = as_strings(np.asarray(relation)).tolist()
        odd = next((at for at, name in enumerate(names) if name.lower() not in places), None)
        if odd is not None:
            raise LabelError(f'the relation of pair {odd} is "{names[odd]}"; {expected}')
        return torch.tensor([places[name.lower()] for name in names], dtype=torch.int8)
    codes = whole_numbers(relation, "relations of pairs")
    require((codes >= -1) & (codes < len(RELATIONS)), f"has another relation; {expected}", noun="pair")
    return codes.to(torch.int8)
