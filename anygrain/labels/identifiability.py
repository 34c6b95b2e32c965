"""Where the evidence cannot settle the answer: the warning, and the checks of classes and of votes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.labels.structure import connected_components

if TYPE_CHECKING:
    from anygrain.labels.base import Labels
    from anygrain.labels.instance import InstanceLabels
    from anygrain.labels.pairs_unlabeled import DrawnRows
    from anygrain.labels.sets import SetLabels

CHUNK = 2**22  # entries of an evidence table held at once
GRAIN = 2.0**20  # steps per unit in which evidence of two classes is compared


class IdentifiabilityWarning(UserWarning):
    """The evidence fits several answers equally well; the message names the classes or sources concerned."""


def warn_unidentified(labels: Labels, stacklevel: int = 2) -> list[str]:
    """Warn (`IdentifiabilityWarning`) of all that `identifiability` finds; returns the messages.

    Args:
        labels: any labels.
        stacklevel: as of `warnings.warn` in its place: 2 names the line that called the function that calls this one.
    """
    messages = identifiability(labels)
    for message in messages:
        warnings.warn(message, IdentifiabilityWarning, stacklevel=stacklevel + 1)
    return messages


def identifiability(labels: Labels) -> list[str]:
    r"""What the labels leave open, one sentence each; empty where they settle the answer.

    Two classes are *not told apart* when P(o | y) stays the same as y_i moves from one to the other: equal columns of
    log evidence, equal membership, the same events. They *only permute* when it stays the same as the two trade places
    everywhere, though single instances cannot move (pairs, equal counts). Each class gets one integer, a random linear
    hash of all that is said of it; equal integers are equal statements (but with probability 2**-60).

    Also named: classes that no observation favours, shares that are nearly the same in every bag, one or two
    annotators or rules alone, annotators that share no item.

    Args:
        labels: any labels; nothing is fitted, and log_probs play no part.
    """
    parts: Sequence[Labels] = getattr(labels, "parts", [labels])
    said = _Said(labels.n_classes, labels.device)
    for part in parts:
        said.read(part)
        if said.settled:
            break
    return said.sentences(labels.class_names) + _of_sources(parts, labels.class_names)


class _Said:
    """What is said of each class, as one integer; parts are read one after another.

    Attributes:
        names: hash of statements that give a class its name, (K,).
        shares: hash of statements that only fix how many instances are of a class, (K,).
        favoured: bool (K,), some observation makes the class likelier than it was.
        clusters: bool (K,), members of the class are told from those of others, whatever it is called.
    """

    def __init__(self, n_classes: int, device: torch.device):
        self.n_classes, self.device = n_classes, device
        self.names = torch.zeros(n_classes, dtype=torch.long, device=device)
        self.shares = torch.zeros_like(self.names)
        self.favoured = torch.zeros(n_classes, dtype=torch.bool, device=device)
        self.clusters = torch.zeros_like(self.favoured)
        self.generator = torch.Generator().manual_seed(0)

    @property
    def settled(self) -> bool:
        return bool(self.favoured.all()) and len(self.names.unique()) == self.n_classes

    def words(self, n: int) -> Tensor:
        """Odd random 64-bit numbers (n,)."""
        drawn = torch.randint(-(2**63), 2**63 - 1, (n,), generator=self.generator)
        return (drawn | 1).to(self.device)

    def read(self, part: Labels) -> None:
        from anygrain.labels.anyof import AnyOf
        from anygrain.labels.counts import Counts
        from anygrain.labels.instance import InstanceLabels
        from anygrain.labels.pairs import Pairs
        from anygrain.labels.pairs_unlabeled import DrawnRows
        from anygrain.labels.proportions import Proportions
        from anygrain.labels.sets import SetLabels

        named = _named_outright(part)
        if named is not None:
            self.favoured[named] = True
            self.names[named] += self.words(len(named))
        elif isinstance(part, DrawnRows):
            self._read_prior(part)
        elif isinstance(part, InstanceLabels):
            self._read_instances(part)
        elif isinstance(part, Pairs):
            if bool((part.same >= 0).any()):
                self.clusters[:] = True
        elif isinstance(part, AnyOf):
            self._read_any_of(part.present, part.target)
        elif isinstance(part, Proportions) and part.is_noisy:
            self._read_counts(part.proportions.double() * part.sets.sizes[:, None], part.sets.sizes)
        elif isinstance(part, Counts):
            counts = part.counts.double()
            self._read_counts(torch.where(counts < 0, torch.nan, counts), part.sets.sizes)
        elif isinstance(part, SetLabels):
            self._read_sets(part)
        else:  # a kind of which nothing is known but its likelihood: give it the benefit of the doubt
            self.names += self.words(self.n_classes)
            self.favoured[:] = True

    # -- instance kinds -----------------------------------------------------------------------------------------------

    def _read_prior(self, part: DrawnRows) -> None:
        """Rows that were drawn with a known class prior: classes of different prior are told apart by it."""
        self.favoured |= part.population > 0
        self.names += self._hash(part.population[None])

    def _read_instances(self, part: InstanceLabels) -> None:
        for few in _chunks(part, self.n_classes):
            table = few.log_evidence(torch.float64)
            target = few.target(torch.float64)
            if target is not None:
                table = torch.where((target.sum(dim=1) > 0)[:, None], target.log(), table)
            self._read_table(table)
            if self.settled:
                return

    def _read_table(self, table: Tensor) -> None:
        """Log evidence (n, K)."""
        mean = torch.logsumexp(table, dim=1, keepdim=True) - math.log(self.n_classes)
        self.favoured |= (table > mean + 1e-6).any(dim=0)
        self.names += self._hash(table)

    def _hash(self, table: Tensor) -> Tensor:
        code = (table.clamp(-1e6, 1e6) * GRAIN).round().nan_to_num(-1.0).long()
        return (code * self.words(len(table))[:, None]).sum(dim=0)

    # -- set kinds ----------------------------------------------------------------------------------------------------

    def _read_any_of(self, present: Tensor, target: Tensor) -> None:
        said = present >= 0
        present, target = present[said], target[said]
        if not len(present):
            return
        if target.ndim == 1:
            used, inverse = target.unique(return_inverse=True)
            table = torch.nn.functional.one_hot(used, self.n_classes).bool()
        else:
            table, inverse = torch.unique(target, dim=0, return_inverse=True)
        any_held, none_held = (
            torch.zeros(len(table), dtype=torch.bool, device=self.device).index_fill_(0, inverse[present == a], True)
            for a in (1, 0)
        )
        self.favoured |= (table & any_held[:, None]).any(dim=0) | (~table & none_held[:, None]).any(dim=0)
        hashed = (table.long() * self.words(len(table))[:, None]).sum(dim=0)
        if len(table) == 1 and not bool(none_held.any()):  # every bag holds the same: an event of constant share
            self.shares += hashed
        else:
            self.names += hashed

    def _read_counts(self, counts: Tensor, sizes: Tensor) -> None:
        """Counts (M, K), NaN where not known, of bags of these sizes (M,)."""
        known = ~counts.isnan()
        speaks = known.any(dim=1)
        counts, known, sizes = counts[speaks], known[speaks], sizes[speaks].double()[:, None]
        rest = sizes - counts.nansum(dim=1, keepdim=True) > 1e-6
        self.favoured |= ((counts > 0) | (~known & rest)).any(dim=0)
        self.clusters |= known.any(dim=0)
        pure = ((counts >= sizes - 1e-6) & known).any(dim=1)
        if bool(pure.all()) or not _nearly_constant(counts, sizes, known):
            self.names += self._hash(counts)
            return
        self.names += self._hash(counts[pure])
        self.shares += self._hash(counts[~pure])

    def _read_sets(self, part: SetLabels) -> None:
        """Any other kind of set: events where it has them, else what it says of classes that are equally likely."""
        events = part.events()
        if events is not None:
            moves = (events.low > 0) | (events.high < part.sets.sizes[events.sets])
            target, low = events.target[moves], events.low[moves]
            self.clusters |= target.any(dim=0)
            self.favoured |= (target & (low > 0)[:, None]).any(dim=0)
            self.favoured |= (~target & (events.high[moves] < part.sets.sizes[events.sets[moves]])[:, None]).any(dim=0)
            self.names += (target.long() * self.words(len(target))[:, None]).sum(dim=0)
            return
        k, edges = self.n_classes, len(part.sets.members)
        if edges == 0:
            return
        self.clusters[:] = True
        if k > 64 or edges * k > CHUNK:
            self.names += self.words(k)
            self.favoured[:] = True
            return
        even = torch.full((edges, k), -math.log(k), dtype=torch.float64, device=self.device)
        before = self.names.clone()
        self._read_table(part.factor(even)[1])
        # classes that look the same there must also be free to trade places at other log_probs
        uneven = torch.log_softmax(torch.randn(edges, k, dtype=torch.float64, generator=self.generator), dim=1)
        uneven = uneven.to(self.device)
        value = part.factor(uneven)[0]
        said = self.names - before
        for c in range(k):
            leader = int((said == said[c]).nonzero()[0, 0])
            swapped = torch.arange(k, device=self.device)
            swapped[c], swapped[leader] = leader, c
            if not torch.allclose(part.factor(uneven[:, swapped])[0], value, rtol=1e-9, atol=1e-9):
                self.names[c] += self.words(1)[0]

    # -- what is left open --------------------------------------------------------------------------------------------

    def sentences(self, class_names: Sequence[str] | None) -> list[str]:
        if self.n_classes == 1:
            return []
        found, silent = [], (~self.favoured).nonzero()[:, 0]
        everyone = torch.arange(self.n_classes, device=self.device)
        if len(silent) == self.n_classes:
            if bool(self.clusters.all()):
                who = _named(everyone, class_names, "classes")
                return [f"{who} only permute: the labels say which instances go together, never what they are"]
            return ["the labels say nothing about any class"]
        if len(silent):
            found.append(f"no observation favours {_named(silent, class_names, _class(silent))}: nothing can find it")
        open_ = self.favoured.nonzero()[:, 0]
        group = torch.unique(self.names[open_], return_inverse=True)[1]
        both = torch.unique(torch.stack([group, self.shares[open_]], dim=1), dim=0, return_inverse=True)[1]
        size, finer = torch.bincount(group), torch.bincount(both)
        split = (size[group] > 1) & (finer[both] < size[group])
        if bool(split.any()):
            who = _named(open_[split], class_names, "classes")
            found.append(
                f"the shares of {who} are nearly the same in every bag, and nothing else tells them apart: "
                "the bags say how many instances are of each, hardly which"
            )
        alike = finer[both] > 1
        bound = torch.ones_like(finer, dtype=torch.bool)
        bound[both[~self.clusters[open_]]] = False
        for permute in (False, True):
            mine = (alike & (bound[both] == permute)).nonzero()[:, 0]
            if not len(mine):
                continue
            first = open_[both == both[mine[0]]]
            others = len(both[mine].unique()) - 1
            also = f" (and so in {others} more group{'s' * (others > 1)} of classes)" if others else ""
            who = _named(first, class_names, "classes")
            if permute:
                found.append(f"{who} only permute: nothing says which of them is which{also}")
            else:
                found.append(f"nothing tells {who} apart{also}: a few exact labels of each would")
        return found


def _named_outright(part: Labels) -> Tensor | None:
    """Classes that observations give by name, each in a way of its own; None for kinds that speak otherwise."""
    from anygrain.labels.crowd import Crowd
    from anygrain.labels.exact import Exact
    from anygrain.labels.rules import Rules

    if isinstance(part, Exact):
        said = part.labels
    elif isinstance(part, Crowd | Rules):
        said = part.votes
    else:
        return None
    found: Tensor = said[said >= 0].unique()
    columns: Tensor | None = getattr(part, "_columns", None)
    return found if columns is None else columns[found]


def _chunks(part: InstanceLabels, n_classes: int) -> list[InstanceLabels]:
    """Instances in runs whose tables fit in memory; of instances with equal integers all over only the first."""
    instances = torch.arange(part.n_instances, device=part.device)
    columns = [getattr(part, name) for name in part._per_instance]
    if part.record_instances is None and columns and all(c.ndim == 1 and not c.is_floating_point() for c in columns):
        key = columns[0].long()
        for column in columns[1:]:
            key = torch.unique(torch.stack([key, column.long()], dim=1), dim=0, return_inverse=True)[1]
        distinct, place = torch.unique(key, return_inverse=True)
        first = torch.full((len(distinct),), part.n_instances, device=part.device)
        instances = first.scatter_reduce(0, place, instances, "amin")
    none = instances[:0]
    runs = instances.split(max(1, CHUNK // n_classes)) if len(instances) else ()
    return [part._take(few, none) for few in runs]


def _nearly_constant(counts: Tensor, sizes: Tensor, known: Tensor) -> bool:
    """Whether shares differ between bags far less than drawing members at random would make them, or hardly at all.

    Args:
        counts: shape (M, K); only the known ones count.
        sizes: shape (M, 1).
    """
    given = counts.nan_to_num(0.0)
    bags = known.sum(dim=0)
    mean = given.sum(dim=0) / (known * sizes).sum(dim=0).clamp(min=1)
    apart = (given - mean * sizes) * known
    variation = float((apart.abs() / sizes).sum(dim=1).mean() / 2)
    chance = float(((1 - mean) * (bags - 1).clamp(min=0))[mean > 0].sum())
    spread = float((apart**2 / (mean * sizes).clamp(min=1e-12)).sum())
    return variation <= 0.01 or spread <= 0.1 * chance


def _class(indices: Tensor) -> str:
    return "class" if len(indices) == 1 else "classes"


def _of_sources(parts: Sequence[Labels], class_names: Sequence[str] | None) -> list[str]:
    """Annotators and rules whose error rates their votes alone cannot settle."""
    from anygrain.labels.crowd import Crowd
    from anygrain.labels.rules import Rules

    found = []
    for part in parts:
        alone = all(other is part or _named_outright(other) is None for other in parts)
        if isinstance(part, Crowd):
            history = getattr(part.channel, "history", None)
            anchored = not alone or (history is not None and bool((history > 0).any()))
            if not anchored:
                found += source_messages(
                    part.items, part.annotators, part.votes, part.n_annotators, part.annotator_names
                )
        elif isinstance(part, Rules) and alone and part.record_instances is not None:
            names = part.rule_names
            found += source_messages(part.record_instances, part.rules, part.votes, part.n_rules, names, noun="rule")
    return found


def _named(indices: Tensor, names: Sequence[str] | None, noun: str) -> str:
    shown = [str(i) if names is None else f'"{names[i]}"' for i in indices[:3].tolist()]
    more = f" and {len(indices) - 3} more" if len(indices) > 3 else ""
    return f"{noun} {', '.join(shown)}{more}"


def source_messages(
    items: Tensor,
    sources: Tensor,
    votes: Tensor,
    n_sources: int,
    names: Sequence[str] | None = None,
    *,
    noun: str = "annotator",
) -> list[str]:
    """Sources whose votes alone leave their error rates open: fewer than three, or groups that share no item.

    Args:
        items, sources, votes: one entry per vote, all (R,); -1 is missing.
        n_sources: number of sources, those without a vote included.
        names: of the sources.
        noun: what a source is called.
    """
    given = (votes >= 0) & (sources >= 0)
    items, sources = items[given], sources[given]
    active = (torch.bincount(sources, minlength=n_sources) > 0).nonzero()[:, 0]
    if not len(active):
        return []
    if len(active) <= 2:
        who = _named(active, names, noun)
        count = f"only 1 {noun} votes" if len(active) == 1 else f"only 2 {noun}s vote"
        return [
            f"{count} ({who}), so that accuracies rest on the prior; a third {noun}, gold items or a history would "
            "settle them"
        ]
    component = connected_components(n_sources + int(items.max()) + 1, sources, items + n_sources)
    groups = component[active].unique()
    if len(groups) == 1:
        return []
    size = torch.bincount(component[active], minlength=int(component.max()) + 1)
    apart = active[component[active] != int(size.argmax())]
    who = _named(apart, names, noun)
    return [
        f"{who} share no item with the others ({len(groups)} groups): accuracies of different groups are compared "
        "through the prior only"
    ]


def warn_of_permutation(confusion: Tensor, class_names: Sequence[str] | None = None) -> list[str]:
    """Warn of classes that the estimated pooled channel mostly calls by another name; returns the messages.

    A likelihood of votes does not change when classes trade places; only the prior, that annotators are right more
    often than not, names them. Where the fit goes against it the names may be exchanged.

    Args:
        confusion: pooled P(vote | class), shape (K, K), rows are the truth.
    """
    said = confusion.argmax(dim=1)
    odd = (said != torch.arange(len(said), device=said.device)).nonzero()[:, 0]
    if not len(odd):
        return []
    message = (
        f"annotators mostly give {_named(odd, class_names, 'class')} another name: classes may have traded places; "
        "gold items would settle it"
    )
    warnings.warn(message, IdentifiabilityWarning, stacklevel=3)
    return [message]
