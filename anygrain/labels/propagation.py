"""Sets that overlap: messages between instances and the sets that hold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from anygrain.labels.base import IMPOSSIBLE
from anygrain.labels.sets import SetLabels
from anygrain.labels.structure import Structure

STATES = 2**16  # a component with a loop and at most this many joint states is enumerated
SWEEPS = 200  # of damped propagation where a loop is too large for that
DAMPING = 0.5
PASSES = 4  # over the trees at most: each leaves out the sets that were impossible in the one before
CHUNK = 2**22  # joint states times edges held at once


class Messages(NamedTuple):
    """What the sets say of the instances, at rest."""

    incoming: Tensor  # (N, K) sum of log P(o_s | y_i = k) over the sets of instance i
    value: Tensor  # (sets,) share of the log-likelihood, normalisers of instance evidence left out; -inf: impossible
    score: Tensor  # (sets,) log P(o_s | all other evidence)
    cavity: Tensor  # (E, K) normalised log-probabilities that each edge's set saw
    against: Tensor  # (N,) bool: the sets of an instance rule out every class
    change: float  # largest change of a belief in the last sweep
    moving: int  # instances that changed by more than .001 in it


#: sets that speak at once: kinds of their own, their numbers and their edges
Turn = list[tuple[SetLabels, Tensor, Tensor]]


class Round(NamedTuple):
    """Sets, or instances, with one neighbour left."""

    turn: Turn  # empty for instances
    edge: Tensor  # to that neighbour
    outward: Tensor  # all other edges of the sets


class Plan(NamedTuple):
    """The order in which messages are sent."""

    rounds: list[Round]  # inward
    root: Turn  # sets that all others were taken away from
    core: Turn  # sets on loops that are not enumerated, or between such loops
    core_edges: Tensor  # edges inside the core


class Sums:
    """Sums of messages (N, K) from which one can be taken back, hard zeros included."""

    def __init__(self, like: Tensor):
        self.finite, self.zeros = torch.zeros_like(like), torch.zeros_like(like)

    def add(self, at: Tensor, message: Tensor) -> None:
        zero = message == -torch.inf
        self.finite.index_add_(0, at, message.masked_fill(zero, 0.0))
        self.zeros.index_add_(0, at, zero.to(message.dtype))

    def total(self, at: Tensor | slice, own: Tensor) -> Tensor:
        """`own` evidence and all messages; `own` alone where they rule out every class."""
        total = (own + self.finite[at]).masked_fill(self.zeros[at] > 0.5, -torch.inf)
        return torch.where(torch.isneginf(total).all(dim=1, keepdim=True), own, total)

    def without(self, at: Tensor, message: Tensor, own: Tensor) -> Tensor:
        """The same, but for one message."""
        zero = message == -torch.inf
        rest = own + self.finite[at] - message.masked_fill(zero, 0.0)
        rest = rest.masked_fill(self.zeros[at] - zero.to(message.dtype) > 0.5, -torch.inf)
        return torch.where(torch.isneginf(rest).all(dim=1, keepdim=True), own, rest)

    def of(self, instances: Tensor) -> Sums:
        return self._with(self.finite[instances], self.zeros[instances])

    def copy(self) -> Sums:
        return self._with(self.finite.clone(), self.zeros.clone())

    @classmethod
    def _with(cls, finite: Tensor, zeros: Tensor) -> Sums:
        new = cls.__new__(cls)
        new.finite, new.zeros = finite, zeros
        return new


class Factors:
    """Sets of several parts, ready for inference over N instances of K classes.

    Hard "same" pairs on a cycle are first closed into one all-equal set, event counts of the same members merged, and
    those that noisy shares of the same members imply left out: each would be a loop that propagation gets wrong.
    """

    def __init__(self, parts: Sequence[SetLabels], n_instances: int, n_classes: int, device: torch.device):
        self.n_instances, self.n_classes, self.device = n_instances, n_classes, device
        self.given = Structure(n_instances, [p.sets for p in parts], device)
        #: factors, and the given set that each stands for
        self.parts: list[SetLabels] = list(parts)
        self.owner = torch.arange(self.given.n_sets, device=device)
        #: given sets that contradict others, and that others imply, whatever log_probs say
        self.broken = torch.zeros(self.given.n_sets, dtype=torch.bool, device=device)
        self.implied = torch.zeros(self.given.n_sets, dtype=torch.bool, device=device)
        if self.given.overlaps:
            self._simplify()
        self.structure = Structure(n_instances, [p.sets for p in self.parts], device)

    def _simplify(self) -> None:
        from anygrain.labels.all_equal import close_pairs
        from anygrain.labels.event_lattice import merge_events
        from anygrain.labels.implied_sets import drop_implied

        owners = [self.owner[s] for s in self.given.set_slices]
        closed = close_pairs(self.parts, owners, self.n_instances)
        self.parts, owners = closed.parts, closed.owners
        self.broken[closed.broken], self.implied[closed.implied] = True, True
        self.parts, owners, implied = drop_implied(self.parts, owners, ~self._in_small())
        self.implied[implied] = True
        self.parts, owners = merge_events(self.parts, owners, ~self._in_small())
        self.owner = torch.cat([self.owner[:0], *owners])

    def _in_small(self) -> Tensor:
        """bool per set of the parts as they are: it is of a component that will be enumerated."""
        now = Structure(self.n_instances, [p.sets for p in self.parts], self.device)
        return enumerable(now, self.n_classes)[now.nodes[self.n_instances :]]

    # -- regimes ------------------------------------------------------------------------------------------------------

    @cached_property
    def enumerated(self) -> Tensor:
        """bool per component: it has a loop and few joint states."""
        return enumerable(self.structure, self.n_classes)

    @cached_property
    def damped(self) -> Tensor:
        """bool per component: it has a loop that is too large to enumerate."""
        return self.structure.loopy & ~self.enumerated

    @property
    def exact(self) -> bool:
        return not self.structure.overlaps or not bool(self.damped.any())

    # -- inference ----------------------------------------------------------------------------------------------------

    def propagate(self, tilted: Tensor) -> Messages:
        """Messages at rest for log-probabilities (N, K) that hold all instance evidence."""
        if not self.structure.overlaps:
            return self._independent(tilted)
        messages = self._overlapping(tilted)
        if bool(self.enumerated.any()):
            messages = self._enumerate(tilted, messages)
        return messages

    def _factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        values, messages = [log_p[:0, 0]], [log_p[:0]]
        for part, edges in zip(self.parts, self.structure.edge_slices, strict=True):
            value, message = part.factor(log_p[edges])
            values.append(value)
            messages.append(message)
        return torch.cat(values), torch.cat(messages)

    def _independent(self, tilted: Tensor) -> Messages:
        s = self.structure
        value, message = self._factor(tilted[s.members])
        message = torch.where((value == -torch.inf)[s.sets][:, None], torch.zeros_like(message), message)
        incoming = torch.zeros_like(tilted).index_add_(0, s.members, message)
        against = torch.zeros(len(tilted), dtype=torch.bool, device=tilted.device)
        return Messages(incoming, value, value, tilted[s.members], against, 0.0, 0)

    def _overlapping(self, tilted: Tensor) -> Messages:
        """Inward along the trees, damped sweeps where loops are left, outward again.

        A set that turns out impossible falls silent, and the pass is made again without it.
        """
        s = self.structure
        broken = self.broken[self.owner]
        for _ in range(PASSES):
            message, score, change, moving = self._pass(tilted, broken)
            impossible = broken | (score == -torch.inf)
            if tilted.device.type == "cpu" and torch.equal(impossible, broken):
                break
            broken = impossible
        message = torch.where(broken[s.sets][:, None], torch.zeros_like(message), message)
        score = torch.where(broken, torch.full_like(score, -torch.inf), score)
        cavity, incoming = self._cavities(tilted, message)
        total = tilted + incoming
        against = torch.isneginf(total).all(dim=1)
        weight = torch.logsumexp(torch.where(against[:, None], tilted, total), dim=1)
        # Bethe value at these messages: every edge's term once, every instance's with its first set
        edge = torch.logsumexp(cavity, dim=1) - weight[s.members]
        edge = edge + torch.where(self._first(broken), weight[s.members], torch.zeros_like(edge))
        value = score.index_add(0, s.sets, edge)
        return Messages(incoming, value, score, torch.log_softmax(cavity, dim=1), against, change, moving)

    def _pass(self, tilted: Tensor, broken: Tensor) -> tuple[Tensor, Tensor, float, int]:
        """Messages (E, K) and values (sets,) while broken sets are silent; the last change, and instances moving."""
        s, plan = self.structure, self._plan
        silent = broken[s.sets][:, None]
        message = tilted.new_zeros(len(s.members), tilted.shape[1])
        cavity = tilted[s.members]
        score = tilted.new_zeros(s.n_sets)
        heard = Sums(tilted)

        def speak(turn: Turn) -> Tensor:
            """Messages of the sets of a turn, from the cavities of all their members, into `message`."""
            for part, sets, edges in turn:
                value, said = part.factor(cavity[edges])
                score[sets] = value
                quiet = silent[edges] | (value == -torch.inf)[part.sets.index][:, None]
                message[edges] = torch.where(quiet, torch.zeros_like(said), said)
            return torch.cat([edges for _, _, edges in turn])

        for turn, edge, _ in plan.rounds:
            at = s.members[edge]
            cavity[edge] = torch.log_softmax(heard.total(at, tilted[at]), dim=1)
            if turn:
                speak(turn)
                heard.add(at, message[edge])
        if plan.root:
            edges = speak(plan.root)
            heard.add(s.members[edges], message[edges])
        change, moving = 0.0, 0
        if plan.core:
            change, moving = self._damp(tilted, heard, cavity, message, speak)
        for turn, edge, outward in reversed(plan.rounds):
            if turn:
                at, said = s.members[edge], message[edge]
                cavity[edge] = torch.log_softmax(heard.without(at, said, tilted[at]), dim=1)
                speak(turn)
                message[edge] = said
                heard.add(s.members[outward], message[outward])
        return message, score, change, moving

    def _damp(
        self, tilted: Tensor, heard: Sums, cavity: Tensor, message: Tensor, speak: Callable[[Turn], Tensor]
    ) -> tuple[float, int]:
        """Damped messages on what is left of loops, until they rest."""
        s, plan = self.structure, self._plan
        edge, on_cpu = plan.core_edges, tilted.device.type == "cpu"
        inside, at = torch.unique(s.members[edge], return_inverse=True)
        start = heard.of(inside)
        own = tilted[inside]
        belief, change, moving = torch.softmax(own, dim=1), 0.0, 0
        for sweep in range(SWEEPS):
            now = start.copy()
            now.add(at, message[edge])
            latest = torch.softmax(now.total(slice(None), own), dim=1)
            if on_cpu or sweep == SWEEPS - 1:  # no exit that depends on data on other devices
                moved = (latest - belief).abs().amax(dim=1)
                change, moving = float(moved.max()), int((moved > 1e-3).sum())
                if sweep > 1 and change < torch.finfo(tilted.dtype).eps ** 0.5:
                    break
            belief = latest
            old = message[edge]
            cavity[edge] = torch.log_softmax(now.without(at, old, own[at]), dim=1)
            speak(plan.core)
            if sweep:
                message[edge] = _mix(old, message[edge])
        now = start.copy()
        now.add(at, message[edge])
        cavity[edge] = torch.log_softmax(now.without(at, message[edge], own[at]), dim=1)
        old = message[edge]
        edges = speak(plan.core)
        message[edge] = old
        heard.add(s.members[edges], message[edges])
        return change, moving

    @cached_property
    def _plan(self) -> Plan:
        """Who speaks when: sets and instances with one neighbour left are taken away, round by round.

        What is taken away speaks towards the neighbour that was left; a tree ends in one root. On a chain that takes
        half its length, on most trees few rounds; of graphs with loops the core is left.
        """
        s = self.structure
        number = torch.arange(len(s.members), device=self.device)
        alive = ~self.enumerated[s.nodes[s.members]]
        # edges left of every set and instance, and the sum of their numbers: of one edge, that edge
        set_left, set_sum = _ends(s.sets[alive], number[alive], s.n_sets)
        left, edge_sum = _ends(s.members[alive], number[alive], self.n_instances)
        root = set_left > 0
        rounds: list[Round] = []
        sets, instances = (set_left == 1).nonzero()[:, 0], torch.arange(self.n_instances, device=self.device)
        while True:
            if len(sets):
                edge = set_sum[sets]
                set_left[sets], root[sets], alive[edge] = 0, False, False
                instances = s.members[edge] if rounds else instances
                left.index_add_(0, s.members[edge], torch.full_like(edge, -1))
                edge_sum.index_add_(0, s.members[edge], -edge)
                turn = self._turn(sets)
                spoken = torch.cat([edges for _, _, edges in turn])
                rounds.append(Round(turn, edge, spoken[~torch.isin(spoken, edge)]))
            instances = instances.unique()
            instances = instances[left[instances] == 1]
            edge = edge_sum[instances]
            left[instances], alive[edge] = 0, False
            set_left.index_add_(0, s.sets[edge], torch.full_like(edge, -1))
            set_sum.index_add_(0, s.sets[edge], -edge)
            if len(edge):
                rounds.append(Round([], edge, edge[:0]))
            sets = s.sets[edge].unique()
            sets = sets[set_left[sets] == 1]
            if not len(sets):
                break
        core = set_left > 0
        at = (root & ~core).nonzero()[:, 0]
        return Plan(rounds, self._turn(at), self._turn(core.nonzero()[:, 0]), alive.nonzero()[:, 0])

    def _turn(self, sets: Tensor) -> Turn:
        """Some sets, ascending, as kinds of their own with their sets and edges."""
        turn = []
        for part, owned, edges in zip(self.parts, self.structure.set_slices, self.structure.edge_slices, strict=True):
            mine = sets[(sets >= owned.start) & (sets < owned.stop)] - owned.start
            if len(mine):
                at = part.sets.edges_of(mine)
                few = part._take(part.sets.members[at].unique(), mine)
                turn.append((few, mine + owned.start, at + edges.start))
        return turn

    def _cavities(self, tilted: Tensor, message: Tensor) -> tuple[Tensor, Tensor]:
        """What each edge's instance believes without that edge's set (E, K), unnormalised; and all messages (N, K)."""
        members = self.structure.members
        zero = message == -torch.inf
        finite = torch.where(zero, torch.zeros_like(message), message)
        total = torch.zeros_like(tilted).index_add_(0, members, finite)
        zeros = torch.zeros_like(tilted).index_add_(0, members, zero.to(tilted.dtype))
        others = torch.where(zeros[members] - zero.to(tilted.dtype) > 0.5, -torch.inf, total[members] - finite)
        cavity = tilted[members] + others
        nothing = torch.isneginf(cavity).all(dim=1, keepdim=True)
        incoming = torch.where(zeros > 0.5, torch.full_like(total, -torch.inf), total)
        return torch.where(nothing, tilted[members], cavity), incoming

    def _first(self, broken: Tensor) -> Tensor:
        """bool (E,): the first edge of its instance, sets that are possible before the others."""
        s = self.structure
        number = torch.arange(len(s.members), device=self.device) + broken[s.sets] * len(s.members)
        lowest = torch.full((self.n_instances,), 2 * len(s.members) + 1, device=self.device)
        lowest = lowest.scatter_reduce(0, s.members, number, "amin")
        return lowest[s.members] == number

    # -- small loops --------------------------------------------------------------------------------------------------

    @cached_property
    def _small(self) -> list[tuple[Tensor, Tensor]]:
        """Enumerated components by size n: their instances (C, n) and their sets, flat with the component of each."""
        s = self.structure
        chosen = self.enumerated.nonzero()[:, 0]
        size = torch.bincount(s.component, minlength=len(s.loopy))[chosen]
        order = torch.argsort(s.component, stable=True)
        starts = torch.searchsorted(s.component[order], chosen)
        groups = []
        for n in size.unique().tolist():
            mine = (size == n).nonzero()[:, 0]
            instances = order[starts[mine][:, None] + torch.arange(n, device=self.device)]
            groups.append((chosen[mine], instances))
        return groups

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        sets = torch.bincount(self.structure.nodes[self.structure.members], minlength=len(self.structure.loopy))
        for components, instances in self._small:
            states = self.n_classes ** instances.shape[1]
            most = max(1, CHUNK // (states * max(int(sets[components].max()), 1)))
            yield from zip(components.split(most), instances.split(most), strict=True)

    def _enumerate(self, tilted: Tensor, messages: Messages) -> Messages:
        """Replace the messages of components with small loops by exact ones."""
        incoming, value, score = messages.incoming.clone(), messages.value.clone(), messages.score.clone()
        against = messages.against.clone()
        set_component = self.structure.nodes[self.n_instances :]
        for components, instances in self._chunks():
            c, n = instances.shape
            states = torch.cartesian_prod(*[torch.arange(self.n_classes, device=self.device)] * n).reshape(-1, n)
            place = torch.full((int(components.max()) + 1,), -1, device=self.device)
            place[components] = torch.arange(c, device=self.device)
            inside = (set_component <= int(components.max())).nonzero()[:, 0]
            inside = inside[place[set_component[inside]] >= 0]
            tables = [tilted.new_zeros(len(states), 0)]
            for part, owned in zip(self.parts, self.structure.set_slices, strict=True):
                mine = inside[(inside >= owned.start) & (inside < owned.stop)] - owned.start
                if len(mine):
                    few = part._take(instances.reshape(-1), mine)
                    tables.append(few.log_prob_given(states[:, few.sets.members % n]).to(tilted.dtype))
            said = torch.cat(tables, dim=1)  # (S, sets inside)
            zero = said == -torch.inf
            of = place[set_component[inside]]
            finite = tilted.new_zeros(len(states), c).index_add_(1, of, torch.where(zero, 0.0, said))
            zeros = tilted.new_zeros(len(states), c).index_add_(1, of, zero.to(tilted.dtype))
            joint = torch.where(zeros > 0.5, -torch.inf, finite)  # log P(o | y)
            unary = tilted[instances]  # (c, n, K)
            own = torch.stack([unary[:, j, states[:, j]].T for j in range(n)])  # (n, S, c)
            everything = own.sum(dim=0) + joint
            whole = torch.logsumexp(everything, dim=0)
            possible = whole > -torch.inf
            for j in range(n):
                others = torch.cat([own[:j], own[j + 1 :]]).sum(dim=0) + joint
                split = [torch.logsumexp(others[states[:, j] == k], dim=0) for k in range(self.n_classes)]
                said_of = torch.stack(split, dim=1)
                incoming[instances[:, j]] = torch.where(possible[:, None], said_of, torch.zeros_like(said_of))
            against[instances.reshape(-1)] = False
            without = torch.where(
                zeros[:, of] - zero.to(tilted.dtype) > 0.5, -torch.inf, finite[:, of] - said.where(~zero, 0.0)
            )
            rest = torch.logsumexp(own.sum(dim=0)[:, of] + without, dim=0)
            score[inside] = torch.where(rest > -torch.inf, whole[of] - rest, torch.full_like(rest, -torch.inf))
            leader = torch.full((c,), len(value), device=self.device).scatter_reduce(0, of, inside, "amin")
            value[inside] = torch.where(possible[of], 0.0, -torch.inf).to(value.dtype)
            value[leader] = whole
        return messages._replace(incoming=incoming, value=value, score=score, against=against)

    # -- back to the sets that were given -----------------------------------------------------------------------------

    def values(self, messages: Messages, normaliser: Tensor, against: Tensor) -> Tensor:
        """Log-likelihood (M,) of the sets given: their share, and their members' normalisers (N,) of own evidence.

        A set that has to speak for an instance whose own evidence contradicts itself (`against`) is impossible too.
        """
        given = self.given
        value = normaliser.new_zeros(given.n_sets).index_add(0, self.owner, messages.value)
        impossible = self.broken | (value == -torch.inf)
        held = self._given_first(impossible)
        value = value.index_add(0, given.sets[held], normaliser[given.members[held]])
        impossible[given.sets[held][against[given.members[held]]]] = True
        return torch.where(impossible, torch.full_like(value, IMPOSSIBLE), value)

    def owner_of_instance(self, impossible: Tensor) -> Tensor:
        """The given set that carries each instance's gradient, shape (N,); -1 for an instance in none."""
        given = self.given
        owner = torch.full((self.n_instances,), -1, device=self.device)
        held = self._given_first(impossible[: given.n_sets])
        owner[given.members[held]] = given.sets[held]
        return owner

    def _given_first(self, impossible: Tensor) -> Tensor:
        given = self.given
        number = torch.arange(len(given.members), device=self.device) + impossible[given.sets] * len(given.members)
        lowest = torch.full((self.n_instances,), 2 * len(given.members) + 1, device=self.device)
        lowest = lowest.scatter_reduce(0, given.members, number, "amin")
        return (lowest[given.members] == number).nonzero()[:, 0]

    def set_scores(self, messages: Messages) -> Iterator[Tensor]:
        """log P(o_s | all other evidence) of the sets given, part by part.

        A set that others imply (a "same" pair inside a closed group) scores 0.
        """
        from anygrain.labels.event_lattice import EventSets

        score = messages.score.new_zeros(self.given.n_sets).index_add(0, self.owner, messages.score)
        for part, edges in zip(self.parts, self.structure.edge_slices, strict=True):
            if isinstance(part, EventSets):
                score[part.merged] = part.scores_of_merged(messages.cavity[edges])
        score = torch.where(self.broken, -torch.inf, torch.where(self.implied, torch.zeros_like(score), score))
        for owned in self.given.set_slices:
            yield score[owned]


def _ends(node: Tensor, edge: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Number of edges of each of n nodes, and the sum of their numbers."""
    count = torch.bincount(node, minlength=n)
    return count, torch.zeros_like(count).index_add_(0, node, edge)


def enumerable(structure: Structure, n_classes: int) -> Tensor:
    """bool per component: it has a loop and few joint states."""
    size = torch.bincount(structure.component, minlength=len(structure.loopy))
    return structure.loopy & (size * math.log(max(n_classes, 2)) <= math.log(STATES) + 1e-9)


def _mix(old: Tensor, new: Tensor) -> Tensor:
    """Damped messages: the mean of both as distributions, in log space."""
    both = torch.stack([torch.log_softmax(old, dim=1), torch.log_softmax(new, dim=1)])
    half = both.new_tensor([DAMPING, 1 - DAMPING]).log()[:, None, None]
    return torch.logsumexp(both + half, dim=0)
