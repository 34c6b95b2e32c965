"""What there is to find: rows, what is said of them, and how many classes there may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from anygrain.discover.evidence import Evidence
from anygrain.encoders.choose import encoder_for
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.table import Table
from anygrain.encoders.trainable import Inputs, TrainableEncoder
from anygrain.labels import LabelError
from anygrain.learn.loop import FeatureRows
from anygrain.learn.reading import n_rows_of

SAME_LENGTH = 1e-3  # relative difference up to which two rows are of one length
AT_ONCE = 65536  # rows that are looked at together
TOLD_ROWS, NODE_ROWS = 30, 200  # of a known class and of a node, that a sample holds at least if they are there
MOST = 400  # classes that are looked for where nothing is said of their number

#: how many classes: a total, the lowest and highest total, the number in every coarse class, or nothing
Number = int | tuple[int, int] | Mapping[Any, int] | None


@dataclass(frozen=True)
class Task:
    """Rows in which classes are to be found.

    Attributes:
        features: (N, D) of every row, on the device of the work; fixed.
        rows: the rows as a network reads them: ``{"features"}``, or the arrays of `encoder`.
        encoder: a network that is to be trained with the classes; None where features are fixed.
        evidence: what is said of the rows.
        least, most: total number of classes, the known ones included.
        per_node: (C,) number of classes under every node, the known ones included; None where it is to be found.
        seed: where all that is random comes from.
    """

    features: Tensor
    rows: Inputs
    encoder: TrainableEncoder | None
    evidence: Evidence
    least: int
    most: int
    per_node: Tensor | None
    seed: int

    @property
    def n_rows(self) -> int:
        return len(self.features)

    @property
    def n_known(self) -> int:
        return self.evidence.n_known

    @property
    def node(self) -> Tensor:
        """The node of every class, (K,), where their number is known: the known classes first, then the new by node."""
        assert self.per_node is not None
        known = self.evidence.node_of_known
        new = self.per_node - torch.bincount(known, minlength=len(self.per_node))
        return torch.cat([known, torch.arange(len(new)).repeat_interleave(new)])

    def with_number(self, per_node: Tensor) -> Task:
        """The same task with the number of classes under every node (C,), the known ones included."""
        total = int(per_node.sum())
        return replace(self, per_node=per_node.long(), least=total, most=total)

    def of_rows(self, rows: Tensor) -> Task:
        """Some of the rows, (R,) without repeats."""
        return replace(
            self,
            features=self.features[rows.to(self.features.device)],
            rows=Chosen(self.rows, rows.cpu()),
            evidence=self.evidence.of_rows(rows.cpu()),
        )

    def sample(self, most: int) -> Task:
        """At most so many rows, drawn at random, and some more, so that something stays of all that is said.

        There are 30 told rows of every known class and 200 of every node, if it has them, and the rows of some pairs.
        """
        if self.n_rows <= most:
            return self
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(self.n_rows, generator=generator)
        kept = torch.arange(self.n_rows) < most
        kept |= _first(self.evidence.sure_known()[order], TOLD_ROWS)
        kept |= _first(self.evidence.sure_node()[order], NODE_ROWS) if self.evidence.n_nodes > 1 else kept
        pairs = self.evidence.pairs
        linked = pairs[torch.randperm(len(pairs), generator=generator)[: most // 4]]
        return self.of_rows(torch.cat([order[kept], linked.flatten()]).unique())

    def below(self, node: int, rows: Tensor) -> Task:
        """Some rows (R,) below one node, with the known classes and the number of classes that are there."""
        part = replace(self.of_rows(rows), evidence=self.evidence.below(node, rows))
        if self.per_node is not None:
            return part.with_number(self.per_node[node : node + 1])
        taken = torch.bincount(self.evidence.node_of_known, minlength=self.evidence.n_nodes)
        floor = taken.clamp(min=1 if len(taken) > 1 else 0)
        others = int(floor.sum() - floor[node])
        least = max(int(floor[node]), 1, self.least if len(taken) == 1 else 1)
        return replace(part, least=least, most=max(least, min(self.most - others, len(rows))))

    def split_by_node(self, most_rows: int) -> list[Task]:
        """A task below every node, of at most so many rows, drawn at random; known rows go first."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(self.n_rows, generator=generator)
        order = order[(self.evidence.sure_known()[order] < 0).long().argsort(stable=True)]
        where = self.evidence.sure_node()[order]
        return [self.below(c, order[where == c][:most_rows].sort().values) for c in range(self.evidence.n_nodes)]


def _first(value: Tensor, number: int) -> Tensor:
    """Whether a row (N,) is one of the first so many of its value; False where that is below 0."""
    order = value.argsort(stable=True)
    size = torch.bincount(value + 1)
    place = torch.empty_like(value)
    place[order] = torch.arange(len(value)) - (size.cumsum(0) - size)[value[order] + 1]
    return (place < number) & (value >= 0)


class Chosen:
    """Some of the rows of inputs."""

    def __init__(self, inputs: Inputs, rows: Tensor) -> None:
        self.inputs, self.chosen = inputs, rows

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, rows: Tensor) -> dict[str, Tensor]:
        return self.inputs[self.chosen[rows.cpu()]]


def read_task(
    data: Any,
    labels: Any,
    n_classes: Number,
    *,
    encoder: Encoder | None,
    train: bool,
    seed: int,
    device: torch.device,
) -> tuple[Task, Encoder]:
    """A task from what a user gives, and the encoder that reads rows of such data, learnt.

    Args:
        train: whether an encoder is trained, if it is given and has parameters to train. One that would have to be
            trained, and is not, gives way to that for the data, see `reader`.

    Raises:
        LabelError: what cannot be: more classes than rows, fewer than are known, a coarse class with too few rows,
            contradictory links, rows that are all the same.
    """
    n = n_rows_of(data)
    evidence = Evidence.read(labels, n, split=isinstance(n_classes, Mapping))
    least, most, per_node = read_number(n_classes, evidence, n)
    check_links(evidence)
    check_finite(data)
    given = encoder is not None
    encoder = chosen_encoder(data) if encoder is None else encoder
    encoder.learn(data, seed=seed)
    trained = encoder if train and given and can_be_trained(encoder) else None
    fixed = reader(encoder, data, seed)
    features = fixed_features(fixed, data).to(device)
    check_finite(features)
    if n > 1 and all(bool((part == features[0]).all()) for part in features.split(AT_ONCE)):
        raise LabelError(f"all {n} rows are identical: there is nothing that tells classes apart")
    rows: Inputs = FeatureRows(features) if trained is None else trained.inputs(data)
    return Task(features, rows, trained, evidence, least, most, per_node, seed), trained or fixed


def can_be_trained(encoder: Encoder) -> TypeGuard[TrainableEncoder]:
    """Whether an encoder that was learnt has parameters to train."""
    return isinstance(encoder, TrainableEncoder) and any(p.requires_grad for p in encoder.parameters())


def reader(encoder: Encoder, data: Any, seed: int) -> Encoder:
    """What reads rows where nothing is trained: the encoder itself; for a network without pretrained weights another.

    It is the encoder for the data; the network where that is one too: then its inputs are read, as the pixels of
    pictures (see `fixed_features`).
    """
    if not isinstance(encoder, TrainableEncoder) or encoder.has_pretrained:
        return encoder
    other = chosen_encoder(data)
    return encoder if isinstance(other, TrainableEncoder) else other.learn(data, seed=seed)


def chosen_encoder(data: Any) -> Encoder:
    """The encoder for the data; rows of numbers that are all of one length are an embedding, and keep its proportions.

    Columns of an embedding may differ a lot, as principal components do; brought to one scale, noise would weigh as
    much as what tells classes apart.
    """
    numbers = isinstance(data, np.ndarray) and data.ndim == 2 and data.dtype.kind == "f" and len(data) > 0
    if numbers and of_one_length(torch.from_numpy(data)):
        return Table(alike=1 / SAME_LENGTH)
    return encoder_for(data)


def of_one_length(x: Tensor) -> bool:
    """Whether rows (N, D) all have the same length, as those of an embedding."""
    length = torch.cat([part.norm(dim=1) for part in x.split(AT_ONCE)])
    return bool(length.min() > 0 and length.max() - length.min() < SAME_LENGTH * length.max())


def check_finite(data: Any) -> None:
    """Whether all numbers of an array of rows are finite; of other data nothing is asked.

    Raises:
        LabelError: a row with one that is not; it is named.
    """
    if not isinstance(data, np.ndarray | Tensor) or len(data) == 0:
        return
    if isinstance(data, np.ndarray) and data.dtype.kind != "f":
        return
    for begin in range(0, len(data), AT_ONCE):
        part = data[begin : begin + AT_ONCE]
        rows = part.cpu().numpy() if isinstance(part, Tensor) else part
        finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
        if finite.all():
            continue
        row = begin + int(finite.argmin())
        raise LabelError(f"row {row} of the data has a number that is not finite; remove the row or fill it in")


def fixed_features(encoder: Encoder, data: Any) -> Tensor:
    """Features (N, D) of rows by an encoder as it is; of a network without pretrained weights its inputs, flattened."""
    with torch.no_grad():
        if isinstance(encoder, TrainableEncoder) and not encoder.has_pretrained:
            inputs = encoder.inputs(data)
            arrays = inputs[torch.arange(len(inputs))]
            return torch.cat([array.flatten(1).float() for array in arrays.values()], dim=1)
        features: Tensor = encoder(data).float()
        return features


def read_number(n_classes: Number, evidence: Evidence, n_rows: int) -> tuple[int, int, Tensor | None]:
    """Lowest and highest total, and the number under every node (C,) where it follows.

    Raises:
        LabelError: more classes than rows; a range that excludes the known classes; nodes that are not there.
    """
    nodes = evidence.n_nodes
    taken = torch.bincount(evidence.node_of_known, minlength=nodes)
    floor = int(taken.clamp(min=1 if nodes > 1 else 0).sum())
    held = torch.bincount(evidence.sure_node().clamp(min=0), minlength=nodes)
    if isinstance(n_classes, Mapping):
        per_node = _by_node(n_classes, evidence)
        for c in (per_node < taken).nonzero().flatten().tolist():
            raise LabelError(
                f'coarse class "{evidence.node_names[c]}" has {int(taken[c])} known classes and n_classes asks for '
                f"{int(per_node[c])}; expected at least the known ones"
            )
        for c in (per_node > held).nonzero().flatten().tolist():
            rows = f"{int(held[c])} row{'' if held[c] == 1 else 's'}"
            raise LabelError(
                f'coarse class "{evidence.node_names[c]}" has {rows}, too few for {int(per_node[c])} classes; '
                "ask for fewer, or leave it whole with 1"
            )
        total = int(per_node.sum())
        return total, total, per_node
    if n_classes is None:
        least = max(floor, 2)
        most = max(least, min(n_rows // 2, max(3 * floor, 30, min(n_rows // 10, MOST))))
    elif isinstance(n_classes, int | np.integer):
        least = most = int(n_classes)
    else:
        least, most = (int(n) for n in n_classes)
        if least > most:
            raise LabelError(f"n_classes is ({least}, {most}); expected the lower number first")
    if least > n_rows:
        raise LabelError(f"n_classes asks for {least} classes, the data has {n_rows} rows; expected at most as many")
    if most < floor:
        raise LabelError(
            f"n_classes is at most {most}, but {floor} classes are known already; it counts these too, so expected "
            f"{floor} or more"
        )
    least, most = max(least, floor), min(most, n_rows)
    if least == most and nodes == 1:
        return least, most, torch.tensor([least])
    return least, most, None


def _by_node(n_classes: Mapping[Any, int], evidence: Evidence) -> Tensor:
    names = evidence.node_names or ("",)
    found = torch.zeros(len(names), dtype=torch.long)
    for key, number in n_classes.items():
        whole = isinstance(key, int | np.integer) and not isinstance(key, bool)
        place = int(key) if whole else names.index(str(key)) if str(key) in names else -1
        if not 0 <= place < len(names):
            expected = f"0 to {len(names) - 1}" if whole else ", ".join(f'"{name}"' for name in names[:5])
            raise LabelError(
                f"n_classes names the coarse class {key!r}, which the labels do not have; they have {expected}"
            )
        if int(number) < 1:
            raise LabelError(f"n_classes asks for {number} classes in coarse class {key!r}; expected 1 or more")
        found[place] = int(number)
    for place in (found == 0).nonzero().flatten().tolist():
        raise LabelError(
            f'n_classes does not say how many classes are in coarse class "{names[place]}"; expected a number for each'
        )
    return found


def check_links(evidence: Evidence) -> None:
    """Whether rows that are linked can be of one class; links that may be wrong always can.

    Raises:
        LabelError: two rows that must be of one class, by a chain of links, and of two by another; or rows that are
            linked and of two known classes. The rows are named.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(evidence.pairs) or evidence.pair_error:
        return
    must, cannot = evidence.pairs[evidence.same == 1].numpy(), evidence.pairs[evidence.same == 0].numpy()
    links = coo_matrix((np.ones(len(must)), (must[:, 0], must[:, 1])), shape=(evidence.n_rows,) * 2)
    group = connected_components(links, directed=False)[1]
    for i, j in cannot[group[cannot[:, 0]] == group[cannot[:, 1]]][:1]:
        raise LabelError(
            f"rows {i} and {j} are of two classes by a cannot-link pair, and of one by must-link pairs; remove one"
        )
    for told, what in ((evidence.sure_known(), evidence.known_names), (evidence.sure_node(), evidence.node_names)):
        rows = (told >= 0).nonzero().flatten().numpy()
        order = rows[np.argsort(group[rows], kind="stable")]
        differ = (group[order[:-1]] == group[order[1:]]) & (told[order[:-1]] != told[order[1:]]).numpy()
        for i, j in zip(order[:-1][differ][:1], order[1:][differ][:1], strict=True):
            raise LabelError(
                f"rows {i} and {j} are of one class by must-link pairs, but labelled "
                f'"{what[int(told[i])]}" and "{what[int(told[j])]}"; remove a pair or a label'
            )
