"""What labels say of fine classes that are still to be found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.labels import All, Coarse, Exact, LabelError, Labels, Pairs
from anygrain.labels.base import IMPOSSIBLE
from anygrain.labels.instance import InstanceLabels
from anygrain.learn.reading import read_classes
from anygrain.learn.started_channels import with_started_channels

AT_ONCE = 4096  # rows whose evidence is worked on together: their tables stay in the cache of a processor
NOTHING = -80.0  # logarithm of a share that is 0: where single precision loses digits, processors take their time
SURE = 0.9  # probability from which on a row counts as told


class LogEvidence(InstanceLabels):
    """Evidence that was worked out already: a table (N, K) of log P(o_i | y_i = k), rows of 0 say nothing."""

    table: Tensor

    def __init__(self, table: Tensor, *, class_names: Sequence[str] | None = None) -> None:
        super().__init__(table.shape[1], per_instance={"table": table}, class_names=class_names)

    def log_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.table.to(dtype)


@dataclass(frozen=True)
class Evidence:
    r"""Evidence about N rows, each of one of K fine classes, of which some are known and all have a node above them.

    Three things can be said of a row: in which of C nodes (coarse classes) it lies, which of G known fine classes it is
    of, and that two rows are of one class or of two. With m(k) the node of class k,

    .. math:: \log P(o_i \mid y_i = k) = e^{node}_{i, m(k)} + e^{known}_{ik} \quad (k < G),

    and for a new class the second term is 0 where nothing is said of known classes, :math:`-\infty` where something
    is: who names the class of a row names a known one. Pairs are factors of two rows, see `anygrain.labels.Pairs`.

    Attributes:
        nodes: log evidence (N, C), or None where there is one node only.
        known: log evidence (N, G), or None where no fine class is known.
        told: bool (N,): rows of which something is said about known classes; they are of none that is new.
        pairs: (P, 2) rows and same (P,): 1 of one class, 0 of two.
        pair_error: probability that an answer about a pair was drawn without regard to the truth.
        node_of_known: (G,) the node of every known class.
        node_names, known_names: of nodes and known classes.
    """

    n_rows: int
    nodes: Tensor | None
    known: Tensor | None
    told: Tensor
    pairs: Tensor
    same: Tensor
    node_of_known: Tensor
    node_names: tuple[str, ...]
    known_names: tuple[str, ...]
    pair_error: float = 0.0

    @property
    def n_nodes(self) -> int:
        return max(len(self.node_names), 1)

    @property
    def n_known(self) -> int:
        return len(self.known_names)

    @classmethod
    def read(cls, labels: Any, n_rows: int, *, split: bool) -> Evidence:
        """Evidence from labels of any kind.

        Args:
            labels: `Labels` of instances, pairs, or several joined by `&`; a vector of classes of which some are
                missing; None; or evidence that was read already.
            split: whether the classes of the labels are nodes, although their kind does not say so. `Coarse` always
                speaks of nodes, and where it is there all other kinds speak of known fine classes; where its membership
                is not the identity it says which node they are below.

        Raises:
            LabelError: labels of other rows, or of sets of rows, which do not say what is below a class.
        """
        empty, untold = torch.zeros(0, dtype=torch.long), torch.zeros(n_rows, dtype=torch.bool)
        found = cls(n_rows, None, None, untold, empty.view(0, 2), empty, empty, (), ())
        if labels is None:
            return found
        if isinstance(labels, Evidence):
            if labels.n_rows != n_rows:
                raise LabelError(f"the evidence is about {labels.n_rows} rows, the data has {n_rows}; expected as many")
            return labels
        if not isinstance(labels, Labels):
            names, codes = read_classes(labels)
            labels = Exact(torch.from_numpy(codes), len(names), class_names=[str(name) for name in names])
        if labels.n_instances != n_rows or not bool((labels.rows.cpu() == torch.arange(n_rows)).all()):
            raise LabelError(
                f"labels speak of {labels.n_instances} instances, the data has {n_rows} rows; discover takes one "
                "instance per row, in their order"
            )
        labels = with_started_channels(labels)
        parts = labels.parts if isinstance(labels, All) else [labels]
        split = split and not any(isinstance(part, Coarse) for part in parts)
        for part in parts:
            found = found._with(part, split)
        return found._placed()

    def _with(self, part: Labels, split: bool) -> Evidence:
        if isinstance(part, Pairs):
            told = (part.answer >= 0).cpu()
            rows = part.sets.members.view(-1, 2).cpu().long()[told]
            same = part.answer.cpu().long()[told]
            error = max(self.pair_error, part.error)
            pairs, answers = torch.cat([self.pairs, rows]), torch.cat([self.same, same])
            return replace(self, pairs=pairs, same=answers, pair_error=error)
        if not isinstance(part, InstanceLabels):
            raise LabelError(
                f"discover takes labels of rows and pairs of rows; {type(part).__name__} speaks of sets: fit a Learner "
                "on it first, and give its posterior as Soft labels"
            )
        if isinstance(part, Coarse):
            return self._with_coarse(part)
        table = part.log_evidence(torch.float32).cpu()
        target = part.target(torch.float32)
        if target is not None:  # taken for what it says of the classes: rows of zeros say nothing
            target = target.cpu()
            table = table + torch.where(target.sum(dim=1, keepdim=True) > 0, target, 1.0).log()
        names = tuple(part.class_names or (str(k) for k in range(part.n_classes)))
        if split:
            return replace(self, nodes=_sum(self.nodes, table), node_names=names)
        told = part.labels.cpu() >= 0 if isinstance(part, Exact) else ~flat(table)
        return replace(self, known=_sum(self.known, table), told=self.told | told, known_names=names)

    def _with_coarse(self, part: Coarse) -> Evidence:
        c = len(part.membership)
        share = (1 - part.error) * torch.eye(c) + part.error / c
        told = (part.nodes >= 0).cpu()
        table = torch.where(told[:, None], share.log()[part.nodes.cpu().clamp(min=0)], 0.0)
        names = _node_names(part)
        found = replace(self, nodes=_sum(self.nodes, table), node_names=names)
        own = part.membership.cpu()
        if own.shape[0] == own.shape[1] and bool((own == torch.eye(c, dtype=own.dtype)).all()):
            return found
        if bool(((own > 0).sum(dim=0) != 1).any()):
            raise LabelError("discover takes coarse labels of a tree: every known class lies in one coarse class")
        known = tuple(part.class_names or (str(k) for k in range(part.n_classes)))
        return replace(found, known_names=known, node_of_known=own.argmax(dim=0))

    def under(self, coarse: Evidence) -> Evidence:
        """The same, below the nodes of other evidence about these rows; known classes lie where most of their rows do.

        Args:
            coarse: evidence that speaks of nodes; what it says of known classes and pairs is left out.
        """
        nowhere = torch.zeros(0, dtype=torch.long)
        return replace(self, nodes=coarse.nodes, node_names=coarse.node_names, node_of_known=nowhere)._placed()

    def _placed(self) -> Evidence:
        """Known classes with a node each: that of their coarse labels, or the only one."""
        if len(self.node_of_known) == self.n_known:
            return self
        if self.nodes is None:
            return replace(self, node_of_known=torch.zeros(self.n_known, dtype=torch.long))
        told = self.sure_known()
        share = torch.zeros(self.n_known, self.n_nodes)
        rows = told >= 0
        share.index_put_((told[rows], self.sure_node()[rows]), torch.ones(int(rows.sum())), accumulate=True)
        return replace(self, node_of_known=share.argmax(dim=1))

    def log_table(self, node: Tensor, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """Log evidence (N, K) of rows about fine classes, of which the first G are the known ones; None for nothing.

        Args:
            node: (K,) the node of every fine class.
        """
        k, table = len(node), None
        if self.nodes is not None:
            table = self.nodes.to(dtype)[:, node.cpu()]
        if self.known is not None:
            new = torch.where(self.told, -torch.inf, 0.0).to(dtype)[:, None].expand(-1, k - self.n_known)
            own = torch.cat([self.known.to(dtype), new], dim=1)
            table = own if table is None else table + own
        return table

    def over(self, node: Tensor) -> Labels | None:
        """The same evidence as labels of K fine classes, or None where nothing is said.

        Args:
            node: (K,) the node of every fine class; the first G are the known ones.
        """
        table = self.log_table(node)
        parts: list[Labels] = [] if table is None else [LogEvidence(table)]
        if len(self.pairs):
            i, j = self.pairs.T
            parts.append(Pairs(i, j, self.same, self.n_rows, len(node), error=self.pair_error))
        return None if not parts else parts[0] if len(parts) == 1 else All(*parts)

    def sure_known(self) -> Tensor:
        """The known class that is told of every row, (N,), -1 where none is."""
        return _sure(self.known, self.n_rows, self.told)

    def sure_node(self) -> Tensor:
        """The node that is told of every row, (N,), -1 where none is; 0 where there is one only."""
        if self.nodes is None:
            return torch.zeros(self.n_rows, dtype=torch.long)
        found = _sure(self.nodes, self.n_rows)
        known = self.sure_known()
        if self.n_known and len(self.node_of_known) == self.n_known:
            found = torch.where((found < 0) & (known >= 0), self.node_of_known[known.clamp(min=0)], found)
        return found

    def of_rows(self, rows: Tensor) -> Evidence:
        """Evidence about some rows (R,) without repeats; pairs of which both are there."""
        place = torch.full((self.n_rows,), -1, dtype=torch.long)
        place[rows] = torch.arange(len(rows))
        pairs = place[self.pairs]
        both = (pairs >= 0).all(dim=1)
        return replace(
            self,
            n_rows=len(rows),
            nodes=None if self.nodes is None else self.nodes[rows],
            known=None if self.known is None else self.known[rows],
            told=self.told[rows],
            pairs=pairs[both],
            same=self.same[both],
        )

    def below(self, node: int, rows: Tensor) -> Evidence:
        """Evidence about some rows (R,) below one node, of the known classes below it alone; there is no other node."""
        part, own = self.of_rows(rows), (self.node_of_known == node).nonzero().flatten()
        return replace(
            part,
            nodes=None,
            known=None if part.known is None or not len(own) else part.known[:, own],
            node_of_known=torch.zeros(len(own), dtype=torch.long),
            node_names=(),
            known_names=tuple(self.known_names[k] for k in own.tolist()),
        )

    def without(self, hidden: Tensor) -> Evidence:
        """The same with some known classes (H,) no longer known: nothing is said of their rows but the node."""
        kept = torch.tensor([k for k in range(self.n_known) if k not in set(hidden.tolist())], dtype=torch.long)
        assert self.known is not None
        table = self.known[:, kept].clone()
        gone = torch.isin(self.sure_known(), hidden) | torch.isneginf(table).all(dim=1)
        table[gone] = 0
        return replace(
            self,
            known=table if len(kept) else None,
            told=self.told & ~gone,
            known_names=tuple(self.known_names[k] for k in kept.tolist()),
            node_of_known=self.node_of_known[kept],
        )


def in_parts(labels: Labels | None, n_rows: int, at_once: int = AT_ONCE) -> list[tuple[slice, Labels | None]]:
    """Labels of some rows at a time, where rows are independent of each other; all at once where pairs join them."""
    if labels is not None and not isinstance(labels, LogEvidence):
        return [(slice(0, n_rows), labels)]
    rows = [slice(begin, min(begin + at_once, n_rows)) for begin in range(0, n_rows, at_once)]
    return [(part, None if labels is None else LogEvidence(labels.table[part])) for part in rows]


def belief(labels: Labels | None, log_joint: Tensor) -> tuple[float, Tensor]:
    """Log-likelihood of rows and of what is said of them, and the posterior (N, K), on the device of the rows.

    Args:
        labels: what is said of the rows; None for nothing.
        log_joint: (N, K) log p(x_i, y_i = k).
    """
    if labels is None or isinstance(labels, LogEvidence):
        told = log_joint if labels is None else log_joint + labels.table.to(log_joint)
        most = told.amax(dim=1, keepdim=True)
        against = torch.isneginf(most)
        if bool(against.any()):
            told = torch.where(against, log_joint, told)
            most = told.amax(dim=1, keepdim=True)
        share = torch.threshold_(told - most, NOTHING, -torch.inf).exp_()
        total = share.sum(dim=1, keepdim=True)
        return float((most + total.log()).sum(dtype=torch.float64)), share.div_(total)
    normaliser = log_joint.double().logsumexp(dim=1, keepdim=True)
    said, posterior = labels.infer((log_joint.double() - normaliser).cpu())
    return float(normaliser.sum()) + float(said[said > IMPOSSIBLE].sum()), posterior.to(log_joint)


def believed(log_probs: Tensor, evidence: Evidence, node: Tensor) -> Tensor:
    """Posterior (N, K) of log-probabilities (N, K), on the CPU, given what is said of the rows.

    Args:
        node: (K,) the node of every class.
    """
    posterior = torch.empty_like(log_probs)
    for rows, told in in_parts(evidence.over(node), len(log_probs)):
        posterior[rows] = belief(told, log_probs[rows])[1]
    return posterior


def flat(table: Tensor) -> Tensor:
    """Rows (N,) of log evidence (N, K) that prefer no class."""
    return table.max(dim=1).values == table.min(dim=1).values


def _sum(one: Tensor | None, other: Tensor) -> Tensor:
    if one is not None and one.shape != other.shape:
        raise LabelError(f"two parts of the labels have {one.shape[1]} and {other.shape[1]} classes; expected the same")
    return other if one is None else one + other


def _sure(table: Tensor | None, n_rows: int, told: Tensor | None = None) -> Tensor:
    if table is None or table.shape[1] == 0:
        return torch.full((n_rows,), -1, dtype=torch.long)
    parts = [part.softmax(dim=1).max(dim=1) for part in table.split(AT_ONCE)]
    sure = torch.cat([best.values for best in parts]) > SURE
    return torch.where(sure if told is None else sure & told, torch.cat([best.indices for best in parts]), -1)


def _node_names(part: Coarse) -> tuple[str, ...]:
    names: Sequence[str] = [str(c) for c in range(len(part.membership))]
    if part.taxonomy is not None:
        levels = [part.taxonomy.nodes(n) for n in range(len(part.taxonomy.level_names))]
        names = next((level for level in levels if len(level) == len(part.membership)), names)
    elif part.class_names is not None and len(part.class_names) == len(part.membership):
        names = part.class_names
    return tuple(str(np.str_(name)) for name in names)
