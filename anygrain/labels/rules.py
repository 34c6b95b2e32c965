"""Labelling rules: functions of the data that vote for a class or abstain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.channels.channel import Channel, Records
from anygrain.labels.channels.labelling_function import LabellingFunction
from anygrain.labels.channels.rule_forest import RuleForest
from anygrain.labels.error import LabelError
from anygrain.labels.frame import as_strings, class_list, encode, read_column
from anygrain.labels.instance import InstanceLabels, as_classes, check_mapping

if TYPE_CHECKING:
    from anygrain.labels.taxonomy import Taxonomy


class Votes(NamedTuple):
    """The votes cast of N rows by R rules: one entry per vote, all (V,); every other rule abstained."""

    rows: Tensor
    rules: Tensor
    votes: Tensor
    n_rows: int
    n_rules: int


class Rules(InstanceLabels):
    r"""Each row comes with the outcome of R labelling functions: a class, or abstention.

    .. math:: P(o_i \mid y_i = k) = \prod_r P(o_{ir} \mid y_i = k, r), \qquad o_{ir} \in \{-, 0, \dots, K - 1\}

    Silence is evidence too: a rule that mostly fires on one class speaks against it where it does not fire. Only votes
    cast are stored, and only they are records. The tables of the rules live in a `LabellingFunction` channel, which
    shrinks them towards the pooled rule, learns how much from the data, and trusts dependent rules less.

    *Rules see x.* With `given_x` (the default) a Learner does not multiply this evidence with its own p(y | x), which
    would count x twice: `aggregate` turns the rules into a posterior first, and that is the target to train on. Set it
    to False only for sources that do not see the features.

    Args:
        votes: classes, shape (N, R), -1 abstains. A sparse matrix (anything with `tocoo`, or a sparse tensor) stores
            class + 1, since what it does not store abstains.
        n_classes: K.
        given_x: whether the rules are functions of what the classifier sees.
        dependencies: how rules that depend on each other given the class are read: "discount", their votes and silence
            count less; "learn", a forest of dependent pairs is learnt (`RuleForest`), so that copies say nothing more;
            pairs of rules (P, 2) without a cycle, a forest of these; "none", all are taken to be independent.
        channel: a `LabellingFunction` fitted before; a new one when not given.
        rule_names: for messages and reports.

    Raises:
        LabelError: votes that are not (N, R), a class outside -1..K-1, a channel made for other numbers.
    """

    rules: Tensor
    votes: Tensor

    def __init__(
        self,
        votes: Any,
        n_classes: int,
        *,
        given_x: bool = True,
        dependencies: str | Sequence[Sequence[int]] | Tensor = "discount",
        channel: LabellingFunction | None = None,
        rule_names: Sequence[str] | None = None,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        cast = votes if isinstance(votes, Votes) else _votes_cast(votes, n_classes)
        self.n_rules, self.given_x = cast.n_rules, bool(given_x)
        if rule_names is not None and len(rule_names) != self.n_rules:
            raise LabelError(f"{len(rule_names)} rule names for {self.n_rules} rules")
        super().__init__(
            n_classes,
            per_record={"rules": cast.rules, "votes": cast.votes},
            record_instances=cast.rows,
            n_instances=cast.n_rows,
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.rule_names = None if rule_names is None else tuple(str(r) for r in rule_names)
        if channel is not None and not (isinstance(dependencies, str) and dependencies == "discount"):
            raise LabelError("dependencies were given, and a channel that has its own; leave one of them out")
        self.channel = channel or rule_channel(dependencies, self.n_rules, n_classes).to(self.device)
        if (self.channel.n_sources, self.channel.n_classes) != (self.n_rules, n_classes):
            made = f"{self.channel.n_sources} rules and {self.channel.n_classes} classes"
            raise LabelError(f"the channel was made for {made}, the votes have {self.n_rules} and {n_classes}")
        self._columns: Tensor | None = None
        if channel is None and isinstance(self.channel, RuleForest):
            self.channel.start(self.channel_records, self.n_instances)

    # -- what it says -------------------------------------------------------------------------------------------------

    @property
    def channels(self) -> tuple[Channel, ...]:
        return (self.channel,)

    @property
    def channel_records(self) -> Records:
        """The votes cast as the channel reads them; what it sorts is kept with them."""
        kept: Records | None = self.__dict__.get("_channel_records")
        if kept is None or kept.items is not self.record_instances:
            assert self.record_instances is not None
            kept = Records(self.record_instances, self.rules, self.votes)
            self.__dict__["_channel_records"] = kept
        return kept

    def log_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        table = self.channel.log_evidence(self.channel_records, self.n_instances, dtype)
        if self._columns is None:
            return table
        # classes that the rules do not know: ruled out by a vote, neither helped nor hurt by silence
        assert self.record_instances is not None
        voted = torch.bincount(self.record_instances, minlength=self.n_instances) > 0
        even = torch.logsumexp(table, dim=1) - torch.log(table.new_tensor(float(table.shape[1])))
        new = torch.where(voted, -torch.inf, even)[:, None].repeat(1, self.n_classes)
        new[:, self._columns] = table
        return new

    def record_log_prob(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """log P(vote | y = k) of every vote cast, shape (V, K)."""
        table = self.channel.log_prob(self.channel_records).to(dtype)
        if self._columns is None:
            return table
        new = torch.full((len(table), self.n_classes), -torch.inf, dtype=dtype, device=table.device)
        new[:, self._columns] = table
        return new

    def unrecorded_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """What the silence of the other rules says, shape (N, K)."""
        assert self.record_instances is not None
        table = self.channel.log_evidence(self.channel_records, self.n_instances, dtype)
        said = self.channel.log_prob(self.channel_records).to(dtype)
        silence = table.index_add(0, self.record_instances, said, alpha=-1)
        if self._columns is None:
            return silence
        even = torch.logsumexp(silence, dim=1) - torch.log(silence.new_tensor(float(silence.shape[1])))
        new = even[:, None].repeat(1, self.n_classes)
        new[:, self._columns] = silence
        return new

    def spoken(self) -> Tensor:
        """bool (N,): rows that rules speak of: those with a vote; all of them where only silence speaks for a class."""
        assert self.record_instances is not None
        if len(self.votes.unique()) < self.channel.n_classes:
            return torch.ones(self.n_instances, dtype=torch.bool, device=self.device)
        return torch.bincount(self.record_instances, minlength=self.n_instances) > 0

    def of_rules(self, rules: Tensor) -> Rules:
        """The votes of some rules, (R',) in increasing order, read by a new channel of the same kind."""
        place = torch.full((self.n_rules,), -1, device=self.device)
        place[rules] = torch.arange(len(rules), device=self.device)
        at = place[self.rules]
        assert self.record_instances is not None
        kept = at >= 0
        cast = Votes(self.record_instances[kept], at[kept], self.votes[kept], self.n_instances, len(rules))
        new = Rules(
            cast,
            self.channel.n_classes,
            given_x=self.given_x,
            dependencies=self._dependencies(place),
            rule_names=None if self.rule_names is None else [self.rule_names[int(r)] for r in rules],
            rows=self.rows,
            n_rows=self.n_rows,
            weight=self.weight,
        )
        return new if self._columns is None else new.relabel(self._columns, self.n_classes)

    def _dependencies(self, place: Tensor) -> str | Tensor:
        """How rules with new numbers, (R,), -1 for those left out, depend on each other."""
        if not isinstance(self.channel, RuleForest):
            return "discount" if self.channel.discount else "none"
        if self.channel.learns_pairs:
            return "learn"
        pairs = place[self.channel.pairs]
        return pairs[(pairs >= 0).all(dim=1)]

    def update(self, posterior: Tensor, log_probs: Tensor | None = None) -> None:
        if self._columns is not None:
            posterior = posterior[:, self._columns]
        if self.weight is not None:
            posterior = posterior * self.weight.to(posterior)[:, None]
        self.channel.fit(self.channel.statistics(self.channel_records, posterior))

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Rules", injective=True).to(self.device)
        new = self._fresh()
        new._columns = mapping if self._columns is None else mapping[self._columns]
        new.n_classes, new.class_names = n_classes, None
        return new

    # -- how it is made -----------------------------------------------------------------------------------------------

    @classmethod
    def from_coordinates(
        cls, rows: Tensor, rules: Tensor, votes: Tensor, n_rows: int, n_rules: int, n_classes: int, **how: Any
    ) -> Self:
        """Rules from the votes cast alone, one entry per vote, all (V,); what is not listed abstained.

        Raises:
            LabelError: a row, rule or class outside its range, or a rule that votes twice on one row.
        """
        return cls(_checked_votes(rows, rules, votes, n_rows, n_rules, n_classes), n_classes, **how)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: Sequence[str],
        *,
        taxonomy: Taxonomy | None = None,
        classes: Sequence[str] | None = None,
        abstain: Sequence[str] = ("-1",),
        **how: Any,
    ) -> Self:
        """Votes from one column per rule.

        Args:
            frame: any data frame, or a mapping of columns.
            columns: names of the columns; they name the rules.
            taxonomy, classes: the class list; without either, the values that occur in any of the columns.
            abstain: values that mean abstention; empty, None and NaN always do.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, or a value outside the class list.
        """
        columns = [columns] if isinstance(columns, str) else list(columns)
        if not columns:
            raise LabelError("Rules needs at least one column of votes")
        values = [_without(as_strings(read_column(frame, c)), abstain) for c in columns]
        names = class_list(values, taxonomy=taxonomy, classes=classes)
        table = torch.stack([encode(v, names, f'"{c}"') for c, v in zip(columns, values, strict=True)], dim=1)
        return cls(table, len(names), class_names=names, rule_names=columns, **how)

    @classmethod
    def from_long(
        cls,
        frame: Any,
        *,
        row: str = "row",
        rule: str = "rule",
        label: str = "label",
        items: Sequence[Any] | None = None,
        taxonomy: Taxonomy | None = None,
        classes: Sequence[str] | None = None,
        abstain: Sequence[str] = ("-1",),
        **how: Any,
    ) -> Self:
        """Votes from a long table, one row per outcome; rows and rules that do not meet in it abstained.

        Args:
            frame: any data frame, or a mapping of columns.
            row, rule, label: names of its columns.
            items: ids of all data rows in their order; without it, those that occur, sorted.
            taxonomy, classes: the class list; without either, the labels that occur.
            abstain: labels that mean abstention; empty, None and NaN always do.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, a row id that is not among `items`, a rule that votes twice on one row, a label
                outside the class list.
        """
        ids, rules = as_strings(read_column(frame, row)), as_strings(read_column(frame, rule))
        labels = _without(as_strings(read_column(frame, label)), abstain)
        empty = np.flatnonzero(rules == "")
        if len(empty):
            raise LabelError(f'"{rule}" is empty in {len(empty)} rows, first row {empty[0]}; every vote needs a rule')
        known = class_list([ids]) if items is None else as_strings(np.asarray(items)).tolist()
        names, rule_names = class_list([labels], taxonomy=taxonomy, classes=classes), class_list([rules])
        at, votes = encode(ids, known, f'"{row}"'), encode(labels, names, f'"{label}"')
        cast = votes >= 0
        if bool((at[cast] < 0).any()):
            first = int((cast & (at < 0)).nonzero()[0])
            raise LabelError(f'"{row}" is empty in row {first}; every vote needs the id of its data row')
        found = _checked_votes(
            at[cast], encode(rules, rule_names, f'"{rule}"')[cast], votes[cast], len(known), len(rule_names), len(names)
        )
        return cls(found, len(names), class_names=names, rule_names=rule_names, **how)

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        n_rules: int = 10,
        coverage: tuple[float, float] = (0.1, 0.6),
        accuracy: tuple[float, float] = (0.45, 0.9),
        table: Tensor | None = None,
        **how: Any,
    ) -> Rules:
        """Outcomes of random independent rules, every second of which votes for two classes only.

        Args:
            classes: the truth, shape (N,).
            n_classes: K.
            generator: where the draws come from.
            n_rules: R.
            coverage, accuracy: ranges from which each rule draws its own.
            table: P(outcome | class), shape (R, K, K + 1), abstention last, in place of the three above.
            how: further arguments of the constructor.
        """
        classes = as_classes(classes, n_classes)
        if table is None:
            low_high = torch.tensor([coverage, accuracy], dtype=torch.float64)
            drawn = low_high[:, :1] + low_high.diff(dim=1) * torch.rand(2, n_rules, generator=generator).double()
            even = (1 - drawn[1]) / max(n_classes - 1, 1)
            votes = even[:, None, None].repeat(1, n_classes, n_classes)
            votes = torch.diagonal_scatter(votes, drawn[1][:, None].expand(-1, n_classes), dim1=1, dim2=2)
            order = torch.rand(n_rules, n_classes, generator=generator).argsort(dim=1).argsort(dim=1)
            narrow = (torch.arange(n_rules) % 2 == 1)[:, None] & (order >= 2)
            votes = votes.masked_fill(narrow[:, None, :], 0.0) * drawn[0][:, None, None]
            table = torch.cat([votes, 1 - votes.sum(dim=2, keepdim=True)], dim=2)
        table = torch.as_tensor(table).double()
        reach = table.cumsum(dim=2).transpose(0, 1)[classes]
        draw = torch.rand(len(classes), table.shape[0], 1, generator=generator, dtype=torch.float64)
        outcome = (draw > reach).sum(dim=2).clamp(max=n_classes)
        return cls(torch.where(outcome == n_classes, -1, outcome), n_classes, **how)


def rule_channel(
    dependencies: str | Sequence[Sequence[int]] | Tensor, n_rules: int, n_classes: int
) -> LabellingFunction:
    """The channel that reads dependent rules as asked.

    Raises:
        LabelError: an unknown word, or pairs that a `RuleForest` refuses.
    """
    if not isinstance(dependencies, str):
        return RuleForest(n_rules, n_classes, dependencies)
    if dependencies == "learn":
        return RuleForest(n_rules, n_classes)
    if dependencies not in ("discount", "none"):
        raise LabelError(f'dependencies is "{dependencies}"; expected discount, learn, none, or pairs of rules')
    return LabellingFunction(n_rules, n_classes, discount=dependencies == "discount")


def _votes_cast(votes: Any, n_classes: int) -> Votes:
    """The votes cast of a dense (-1 abstains) or sparse (class + 1) matrix."""
    if hasattr(votes, "tocoo"):
        stored = votes.tocoo()
        shape, values = stored.shape, torch.as_tensor(np.asarray(stored.data))
        rows, rules = (torch.as_tensor(np.asarray(index)).long() for index in (stored.row, stored.col))
    elif isinstance(votes, Tensor) and votes.layout != torch.strided:
        stored = votes.to_sparse_coo().coalesce()
        shape, values = stored.shape, stored.values()
        rows, rules = stored.indices()
    else:
        dense = torch.as_tensor(votes)
        if dense.ndim != 2:
            raise LabelError(f"votes have shape {tuple(dense.shape)}; expected (N, R): a row per instance")
        dense = as_classes(dense, n_classes, "vote", ndim=2)
        rows, rules = (dense >= 0).nonzero(as_tuple=True)
        return Votes(rows, rules, dense[rows, rules], len(dense), dense.shape[1])
    if values.is_floating_point() and bool((values != values.round()).any()):
        raise LabelError("stored votes must be whole numbers: class + 1, as what is not stored abstains")
    cast = values != 0
    return _checked_votes(rows[cast], rules[cast], values[cast].long() - 1, shape[0], shape[1], n_classes)


def _checked_votes(rows: Any, rules: Any, votes: Any, n_rows: int, n_rules: int, n_classes: int) -> Votes:
    rows, rules, votes = (torch.as_tensor(t) for t in (rows, rules, votes))
    if not len(rows) == len(rules) == len(votes):
        raise LabelError(f"{len(rows)} rows, {len(rules)} rules, {len(votes)} votes; expected one of each per vote")
    for values, size, what in ((rows, n_rows, "row"), (rules, n_rules, "rule"), (votes, n_classes, "class")):
        if values.is_floating_point():
            raise LabelError(f"{what} indices must be whole numbers, not {values.dtype}")
        bad = ((values < 0) | (values >= size)).nonzero()[:, 0]
        if len(bad):
            raise LabelError(f"{what} {int(values[bad[0]])} in vote {int(bad[0])} is outside 0..{size - 1}")
    rows, rules, votes = rows.long(), rules.long(), votes.long()
    order = torch.argsort(rows * max(n_rules, 1) + rules)
    twice = ((rows[order].diff() == 0) & (rules[order].diff() == 0)).nonzero()[:, 0]
    if len(twice):
        at = order[twice[0]]
        raise LabelError(f"rule {int(rules[at])} votes twice on row {int(rows[at])}; a rule has one outcome per row")
    return Votes(rows[order], rules[order], votes[order], n_rows, n_rules)


def _without(values: np.ndarray, abstain: Sequence[str]) -> np.ndarray:
    return np.where(np.isin(values, [str(a) for a in abstain]), "", values)
