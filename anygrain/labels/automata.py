"""Finite automata that read the classes of a set member by member: forward and backward sums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anygrain.labels.error import LabelError, numbers, whole_numbers
from anygrain.labels.segments import Segments

CHUNK = 2**23  # states times members, or arcs times members, held at once
SCAN_STATES = 16  # a product tree of transition tables takes S^3 per member: for few states only,
SCAN_LENGTH = 64  # for sets that are long,
SCAN_WIDTH = 2**12  # and where few of them stand side by side (sets times S^3, at least 64) for a loop over positions


class Tables(NamedTuple):
    """What a finite automaton of S states does.

    Attributes:
        transition: next states (S, K), whole numbers, or probabilities (S, K, S): of being in the last state after a
            member of the class was read in the first.
        initial: a state, or probabilities (S,).
        final: probabilities P(label | final state), shape (A, S); a list of A sets of states, each of which makes one
            label; one set of states, which makes label 1 and the others label 0; None: the label is the final state.
    """

    transition: Tensor
    initial: int | Tensor = 0
    final: Tensor | Sequence[Iterable[int]] | set[int] | None = None

    @classmethod
    def checked(cls, transition: Any, initial: Any, final: Any, n_classes: int) -> Tables:
        """Tables as tensors: transition (S, K) int64 (-1: no way on) or (S, K, S), initial (S,), final (A, S).

        Raises:
            LabelError: tables of shapes that do not belong together, a state outside 0..S-1, rows that do not sum to
                1, negative probabilities.
        """
        table = numbers(transition, "transitions")
        states = len(table)
        if table.ndim == 2 and not table.is_floating_point():
            table = whole_numbers(table, "next states")
            fits = table.shape == (states, n_classes)
        else:
            fits = table.shape == (states, n_classes, states)
        if not fits or states == 0:
            raise LabelError(
                f"transition has shape {tuple(table.shape)}; expected (states, {n_classes}) next states, or "
                f"(states, {n_classes}, states) probabilities"
            )
        if table.ndim == 2:
            bad = ((table < 0) | (table >= states)).nonzero()
            if len(bad):
                s, k = bad[0].tolist()
                raise LabelError(
                    f"transition leads from state {s} by class {k} to state {int(table[s, k])}; expected one of "
                    f"0..{states - 1}"
                )
        else:
            table = table.double()
            _rows_sum_to_one(table, "transition from state {} by class {}")
        device = table.device
        start = torch.as_tensor(initial, device=device)
        if start.ndim == 0:
            if start.is_floating_point() or not 0 <= int(start) < states:
                raise LabelError(f"the initial state is {start.item():g}; expected one of 0..{states - 1}")
            start = torch.nn.functional.one_hot(start.long(), states).double()
        if start.shape != (states,):
            raise LabelError(f"initial has shape {tuple(start.shape)}; expected a state, or ({states},) probabilities")
        start = start.double()
        _rows_sum_to_one(start, "the initial distribution")
        return cls(table, start, _final_table(final, states, device))


def _rows_sum_to_one(table: Tensor, where: str) -> None:
    total = table.sum(dim=-1)
    bad = ((total - 1).abs() > 1e-5) | (table < 0).any(dim=-1) | total.isnan()
    if bool(bad.any()):
        at = bad.nonzero()[0].tolist()
        row = table[tuple(at)]
        wrong = "hold a negative number" if bool((row < 0).any()) else f"sum to {float(row.sum()):.6g}"
        raise LabelError(f"the probabilities of {where.format(*at)} {wrong}; expected a distribution that sums to 1")


def _final_table(final: Any, states: int, device: torch.device) -> Tensor:
    """P(label | final state), shape (A, S)."""
    if final is None:
        return torch.eye(states, dtype=torch.float64, device=device)
    if isinstance(final, set | frozenset | range):
        final = [[s for s in range(states) if s not in final], final]
    if isinstance(final, Tensor) or (len(final) and isinstance(next(iter(final)), Tensor)):
        table = torch.as_tensor(final, device=device).double()
        if table.ndim != 2 or table.shape[1] != states:
            raise LabelError(f"final has shape {tuple(table.shape)}; expected (labels, {states}) probabilities")
        over = table.sum(dim=0) > 1 + 1e-5
        if bool((table < 0).any()) or bool(over.any()):
            at = int(over.nonzero()[0]) if bool(over.any()) else int((table < 0).nonzero()[0, 1])
            raise LabelError(
                f"the labels of final state {at} have probabilities {[round(p, 4) for p in table[:, at].tolist()]}; "
                "expected numbers of 0 or more that sum to at most 1"
            )
        return table
    table = torch.zeros(len(final), states, dtype=torch.float64, device=device)
    for label, held in enumerate(final):
        for state in held:
            if not 0 <= int(state) < states:
                raise LabelError(f"label {label} is made by final state {state}; expected states of 0..{states - 1}")
            table[label, int(state)] = 1.0
    twice = (table.sum(dim=0) > 1).nonzero()
    if len(twice):
        raise LabelError(
            f"final state {int(twice[0])} makes several labels; expected sets that have no state in common"
        )
    return table


class _Grouped:
    """Sums of exponentials over arcs that share a key, as a padded table of arcs."""

    def __init__(self, key: Tensor, n: int):
        order = torch.argsort(key, stable=True)
        count = torch.bincount(key, minlength=n)
        place = torch.arange(int(count.max()) if len(key) else 1, device=key.device)
        at = (count.cumsum(0) - count)[:, None] + place
        padded = torch.cat([order, order.new_full((1,), len(key))])
        self.index = padded[torch.where(place < count[:, None], at, len(key))]  # (n, width), A where there is none

    def logsumexp(self, x: Tensor) -> Tensor:
        """(B, A) by key: (B, n)."""
        wide = torch.nn.functional.pad(x, (0, 1), value=-torch.inf)
        return torch.logsumexp(wide[:, self.index], dim=2)


class Machine:
    """An automaton as its arcs: from a state, by a class, to a state, with a probability above 0.

    Args:
        source, symbol, to: (A,) states, classes, states.
        log_weight: (A,).
        n_states, n_classes: S, K.
    """

    def __init__(self, source: Tensor, symbol: Tensor, to: Tensor, log_weight: Tensor, n_states: int, n_classes: int):
        self.source, self.symbol, self.to, self.log_weight = source, symbol, to, log_weight
        self.n_states, self.n_classes = n_states, n_classes
        self._by_source = _Grouped(source, n_states)
        self._by_target = _Grouped(to, n_states)
        self._by_class = _Grouped(symbol, n_classes)

    @classmethod
    def of(cls, transition: Tensor) -> Machine:
        """From a table (S, K) of next states, -1 where there is no way on, or (S, K, S) of probabilities."""
        states, classes = transition.shape[:2]
        if transition.ndim == 2:
            source, symbol = (transition >= 0).nonzero(as_tuple=True)
            to = transition[source, symbol]
            weight = torch.zeros(len(to), dtype=torch.float64, device=to.device)
        else:
            source, symbol, to = (transition > 0).nonzero(as_tuple=True)
            weight = transition[source, symbol, to].double().log()
        return cls(source, symbol, to, weight, states, classes)

    def read(self, log_p: Tensor, segments: Segments, start: Tensor, final: Tensor) -> tuple[Tensor, Tensor]:
        r"""Sums over all ways through the automaton.

        .. math:: F_{t+1}(s') = \sum_{s, k} F_t(s) p_t(k) T(s, k, s'), \quad
                  B_t(s) = \sum_{k, s'} p_t(k) T(s, k, s') B_{t+1}(s'), \quad
                  P(o \mid y_t = k) = \sum_{s, s'} F_t(s) T(s, k, s') B_{t+1}(s')

        in log space, so that no probability is too small. A loop over positions takes all sets at once; a few long
        sets of few states take a product tree instead, whose depth is the logarithm of their length.

        Args:
            log_p: (E, K), members in the order in which they are read; -inf is welcome.
            segments: of the members, M sets.
            start: (S,) log-probabilities.
            final: (M, S) log P(o | final state).

        Returns:
            log P(o) (M,) and log P(o | y_t = k) (E, K).
        """
        dtype = log_p.dtype
        precise = torch.float32 if log_p.device.type == "mps" else torch.float64
        log_p, start, final = log_p.to(precise), start.to(precise), final.to(precise)
        value = start.new_empty(len(segments))
        message = torch.empty_like(log_p)
        sizes = segments.sizes
        order = torch.argsort(sizes, descending=True, stable=True)
        n_long = int((sizes >= SCAN_LENGTH).sum())
        few = self.n_states <= SCAN_STATES and n_long * max(self.n_states**3, 64) <= SCAN_WIDTH
        jobs = [(sets, True) for sets in order[:n_long].split(1)] if few and n_long else []
        rest = order[n_long if few else 0 :]
        run = (sizes[rest] * self.n_states).cumsum(0) // CHUNK
        jobs += [(rest[run == r], False) for r in run.unique().tolist()]
        for sets, scan in jobs:
            edges, inside = _gathered(segments, sets)
            ahead, after, of_sets = (self._tree if scan else self._loop)(log_p[edges], inside, start, final[sets])
            value[sets] = of_sets
            message[edges] = self._messages(ahead, after)
        return value.to(dtype), message.to(dtype)

    def _messages(self, ahead: Tensor, after: Tensor) -> Tensor:
        """log P(o | y_t = k) (E, K) from what lies before (E, S) and behind (E, S) every member."""
        out = []
        step = max(1, CHUNK // max(len(self.source), 1))
        for a, b in zip(ahead.split(step), after.split(step), strict=True):
            out.append(self._by_class.logsumexp(a[:, self.source] + b[:, self.to] + self.log_weight))
        return torch.cat(out) if out else ahead.new_zeros(0, self.n_classes)

    def _loop(self, log_p: Tensor, sizes: Tensor, start: Tensor, final: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Position by position over sets (B,) of falling size, whose members stand one after another."""
        begin = sizes.cumsum(0) - sizes
        longest = int(sizes[0]) if len(sizes) else 0
        lasting = (len(sizes) - torch.bincount(sizes, minlength=longest + 1).cumsum(0)).tolist()  # sets longer than t
        weight = self.log_weight.to(log_p.dtype)
        ahead, after = log_p.new_empty(len(log_p), self.n_states), log_p.new_empty(len(log_p), self.n_states)
        back = final.clone()
        for t in reversed(range(longest)):
            live = slice(0, lasting[t])
            edge = begin[live] + t
            after[edge] = back[live]
            back[live] = self._by_source.logsumexp(back[live][:, self.to] + log_p[edge][:, self.symbol] + weight)
        value = torch.logsumexp(start + back, dim=1)
        front = start.expand(len(sizes), -1).clone()
        for t in range(longest):
            live = slice(0, lasting[t])
            edge = begin[live] + t
            ahead[edge] = front[live]
            front[live] = self._by_target.logsumexp(front[live][:, self.source] + log_p[edge][:, self.symbol] + weight)
        return ahead, after, value

    def _tree(self, log_p: Tensor, sizes: Tensor, start: Tensor, final: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One set by halves: products of transition tables upward, what lies outside of each half downward."""
        n, states = len(log_p), self.n_states
        pairs = _Grouped(self.source * states + self.to, states * states)
        level = pairs.logsumexp(log_p[:, self.symbol] + self.log_weight).view(n, states, states)
        same = torch.eye(states, dtype=log_p.dtype, device=log_p.device).log()
        levels = [level]
        while len(level) > 1:
            if len(level) % 2:
                level = torch.cat([level, same[None]])
                levels[-1] = level
            left, right = level[0::2], level[1::2]
            product = left[:, :, :1] + right[:, :1]
            for s in range(1, states):
                product = torch.logaddexp(product, left[:, :, s, None] + right[:, s, None])
            level = product
            levels.append(level)
        ahead, after = start[None], final
        value = torch.logsumexp(torch.logsumexp(start[:, None] + level[0], dim=0) + final[0], dim=0)[None]
        for below in reversed(levels[:-1]):
            left, right = below[0::2], below[1::2]
            ahead, after = ahead[: len(left)], after[: len(left)]  # without what was added to make pairs
            before = torch.stack([ahead, torch.logsumexp(ahead[:, :, None] + left, dim=1)], dim=1)
            behind = torch.stack([torch.logsumexp(right + after[:, None], dim=2), after], dim=1)
            ahead, after = before.flatten(0, 1), behind.flatten(0, 1)
        return ahead[:n], after[:n], value


def _gathered(segments: Segments, sets: Tensor) -> tuple[Tensor, Tensor]:
    """Flat rows of the given sets, one set after another, and their sizes."""
    sizes = segments.sizes[sets]
    starts = segments.offsets[:-1][sets] - (sizes.cumsum(0) - sizes)
    rows = torch.repeat_interleave(starts, sizes) + torch.arange(int(sizes.sum()), device=sizes.device)
    return rows, sizes
