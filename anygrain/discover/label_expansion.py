"""Classes whose labels get finer over time, learnt in one pass with a small memory."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from anygrain.discover.discoverer import AT_ONCE, Callback, Discoverer
from anygrain.discover.evidence import Evidence, flat
from anygrain.discover.found import ClassModel, Found
from anygrain.discover.perceptron import body_of, perceptron
from anygrain.discover.placed import class_names
from anygrain.discover.start import Start, found_by, given_said, on_features
from anygrain.discover.task import Task, check_finite, fixed_features, read_task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Arrays, InMemory, Inputs, TrainableEncoder, in_batches, seeded, to_device
from anygrain.labels import LabelError
from anygrain.learn.fabric import device_of
from anygrain.learn.loop import FeatureRows
from anygrain.learn.reading import n_rows_of

NEVER = -1e4
PACE = 0.1  # of the importance of rows
REPORTS = 20  # entries of the history


class LabelExpansion(Discoverer):
    r"""Hierarchical label expansion: every row is seen once, in its order, and may be named coarsely or finely.

    A network has a head for coarse and one for fine classes, which grow as classes come. A row trains the head of its
    label and, where that is fine, the other too; of a class c below a coarse class a

    .. math:: p(c \mid x) = p(a \mid x)\, \frac{e^{z_c}}{\sum_{c' \in a} e^{z_{c'}}}

    over the classes seen so far. Old rows come back through a memory of fixed size. It is divided among classes, the
    largest gives way, by the importance of its rows: how much the loss fell when they were trained on. There a row that
    is named only coarsely counts as of the fine class with the highest output, once two are known. A new row is
    trained on directly while its class is rare in the memory, later through the memory alone.

    `fit` streams all rows; `partial_fit` goes on with more, whose labels may name classes for the first time.
    Where `fit` is to find classes beyond those told, `start` names all rows before the stream begins. Rows of which
    nothing is said, and pairs, train nothing. The time is linear in the rows, a millisecond or two for each step on
    fixed features. An encoder that can be trained is trained with the heads, on its weak changes of rows; the memory
    holds rows as it reads them, and is read whole each time that rows arrive.

    Args:
        start: a method by name, or one, which names rows where there are classes to find; in `fit` alone.
        memory: K, rows that are kept.
        pseudo: whether rows named coarsely count as of a fine class in the memory.
        familiar: rows in memory from which on a class is no longer trained directly; 0: all through the memory;
            infinity: all directly, which is experience replay.
        updates: steps per row.
        arriving: rows that come together; memory and importance are looked after once for them.
        hidden: width of the two layers, after an encoder of the one layer.
        rate: learning rate of Adam; of an encoder its own default.
        batch_size: rows of a step, new ones and those of the memory.

    Facts: `stream_`, with what goes on: network, optimiser and memory.

    Source: Lee et al., Online Continual Learning on Hierarchical Label Expansion, 2023; Koh et al., Online Continual
    Learning on Class Incremental Blurry Task Configuration with Anytime Inference, 2022. The rate stays as it is.
    """

    trains_encoder = True
    learns_from = None

    def __init__(
        self,
        *,
        start: Start = "mixture",
        memory: int = 500,
        pseudo: bool = True,
        familiar: float = 10,
        updates: float = 1.0,
        arriving: int = 8,
        hidden: int = 128,
        rate: float = 3e-3,
        batch_size: int = 16,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.start, self.memory, self.pseudo, self.familiar, self.updates = start, memory, pseudo, familiar, updates
        self.arriving, self.hidden, self.rate, self.batch_size = arriving, hidden, rate, batch_size

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        fine = task.evidence.sure_known()
        if len(task.node) > int(whole(task).sum()) + task.n_known:
            fixed = on_features(task)
            label = given_said(found_by(self.start, fixed), fixed).argmax(dim=1)
            fine = torch.where(fine < 0, label, fine)
        stream = Stream(task.features, self, task.seed, task.encoder)
        return self._streamed(stream, task, fine, callback)

    def _streamed(self, stream: Stream, task: Task, fine: Tensor, callback: Callback | None) -> Found:
        """Found in a task after its rows, of fine classes (N,) among those of the task, went through a stream."""
        node, is_whole = task.node, whole(task)
        place = torch.cumsum(~is_whole, dim=0) - 1  # among the classes of the fine head
        names = class_names(task, node)
        stream.expand(task.evidence.n_nodes, node[~is_whole])
        stream.names = tuple(name for name, one in zip(names, is_whole.tolist(), strict=True) if not one)
        stream.node_names = task.evidence.node_names
        stream.network.order = torch.where(is_whole, int((~is_whole).sum()) + node, place).to(stream.network.order)
        there = fine >= 0
        kept = there & ~is_whole[fine.clamp(min=0)]
        above = torch.where(there, node[fine.clamp(min=0)], task.evidence.sure_node())
        fine = torch.where(kept, place[fine.clamp(min=0)], -1)
        rows = ((fine >= 0) | (above >= 0) & bool(task.evidence.node_names)).nonzero().flatten()
        history = stream.run(task.rows, rows, above[rows], fine[rows], callback)
        why = f"{stream.steps} steps, {len(stream.memory.node)} rows in memory"
        return Found(node, stream.network, why=why, history=history, facts={"stream": stream})

    def partial_fit(self, data: Any, labels: Any = None, *, callback: Callback | None = None) -> Self:
        """Go on with more rows, or begin with some; there are the classes that labels have named so far.

        A coarse class of which no finer one is known is a class itself. `labels_` and all that is said of rows speaks
        of the rows of this call.

        Args:
            data: N rows.
            labels: what is said of them: coarse and fine classes, known by their names; `Coarse` whose membership is
                not the identity names the finer classes to come.

        Raises:
            LabelError: labels that name no class, coarse classes after rows without, or a new class without the coarse
                class above it.
        """
        if not hasattr(self, "stream_"):
            device = device_of(self.device)
            encoder = self._own_encoder()
            task, self.encoder_ = read_task(
                data, labels, None, encoder=encoder, train=True, seed=self.seed, device=device
            )
            if not task.evidence.node_names and not task.n_known:
                raise LabelError("the labels of the first rows name no class; expected coarse or fine classes")
            task = only_named(task)
            found = self._find(task, callback)
        else:
            task = self._more(data, labels)
            found = self._streamed(self.stream_, task, task.evidence.sure_known(), callback)
        self._keep(task, found, None, bootstrap=0)
        return self

    def _more(self, data: Any, labels: Any) -> Task:
        n = n_rows_of(data)
        check_finite(data)
        evidence = joined_names(Evidence.read(labels, n, split=False), self.stream_)
        features = fixed_features(self.encoder_, data).to(device_of(self.device))
        check_finite(features)
        encoder = self.stream_.network.encoder
        rows: Inputs = FeatureRows(features) if encoder is None else encoder.inputs(data)
        return only_named(Task(features, rows, encoder, evidence, 1, n, None, self.seed))


def whole(task: Task) -> Tensor:
    """Which classes (K,) are all of a coarse class, and have no name of their own."""
    node, new = task.node, torch.arange(len(task.node)) >= task.n_known
    many = torch.bincount(node, minlength=task.evidence.n_nodes)
    return new & (many[node] == 1) & bool(task.evidence.node_names)


def only_named(task: Task) -> Task:
    """The task with the named classes alone, and coarse ones without any as they are."""
    taken = torch.bincount(task.evidence.node_of_known, minlength=task.evidence.n_nodes)
    return task.with_number(taken.clamp(min=1 if task.evidence.node_names else 0))


def joined_names(evidence: Evidence, stream: Stream) -> Evidence:
    """Evidence over all classes that a stream knows, in their order, and then those that are named first here."""
    known = tuple(dict.fromkeys([*stream.names, *evidence.known_names]))
    if evidence.node_names and not stream.node_names:
        raise LabelError("coarse classes came after rows without them; expected coarse classes from the first call on")
    nodes = tuple(dict.fromkeys([*stream.node_names, *evidence.node_names]))
    own_nodes = torch.tensor([nodes.index(name) for name in evidence.node_names], dtype=torch.long)
    above = torch.zeros(len(known), dtype=torch.long)
    above[: len(stream.names)] = stream.network.node_of.cpu()
    for k, name in enumerate(evidence.known_names):
        place = known.index(name)
        if place >= len(stream.names) and nodes:
            if not evidence.node_names:
                raise LabelError(
                    f'class "{name}" is new and nothing says which coarse class it is in; expected coarse labels too'
                )
            above[place] = own_nodes[evidence.node_of_known[k]]
    own = torch.tensor([known.index(name) for name in evidence.known_names], dtype=torch.long)
    return replace(
        evidence,
        nodes=_spread(evidence.nodes, own_nodes, evidence.n_rows, len(nodes)) if nodes else None,
        known=_spread(evidence.known, own, evidence.n_rows, len(known)) if known else None,
        node_of_known=above,
        node_names=nodes,
        known_names=known,
    )


def _spread(table: Tensor | None, columns: Tensor, n_rows: int, number: int) -> Tensor:
    """Log evidence over more classes: those it does not speak of are out where it says something."""
    if table is None:
        return torch.zeros(n_rows, number)
    wide = torch.where(flat(table) & (table.shape[1] > 1), 0.0, -torch.inf)[:, None].repeat(1, number)
    wide[:, columns] = table
    return wide


class ExpandingNetwork(ClassModel):
    """A perceptron with a head of coarse and one of fine classes.

    Args:
        features: (N, D) whose middle and scale are learnt.
        hidden: width.
        seed: of the layers.
        encoder: trained with the rest; None where rows are features.
    """

    node_of: Tensor
    seen: Tensor
    node_seen: Tensor
    order: Tensor

    def __init__(self, features: Tensor, hidden: int, seed: int, encoder: TrainableEncoder | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        layers = (
            body_of(features, [hidden] * 2, seed)
            if encoder is None
            else perceptron([encoder.feature_dim, hidden], seed)
        )
        self.body = nn.Sequential(layers, nn.ReLU())
        self.node_head, self.fine_head = _no_outputs(hidden), _no_outputs(hidden)
        self.register_buffer("node_of", torch.zeros(0, dtype=torch.long))
        self.register_buffer("seen", torch.zeros(0, dtype=torch.bool))
        self.register_buffer("node_seen", torch.zeros(0, dtype=torch.bool))
        self.register_buffer("order", torch.zeros(0, dtype=torch.long))

    def embed(self, arrays: Arrays) -> Tensor:
        embedded: Tensor = self.body(arrays["features"] if self.encoder is None else self.encoder.encode(arrays))
        return embedded

    def outputs(self, arrays: Arrays) -> tuple[Tensor, Tensor]:
        """Outputs (B, C) and (B, K) of both heads for rows; classes that were not seen have next to no chance."""
        embedded = self.embed(arrays)
        node = self.node_head(embedded).masked_fill(~self.node_seen, NEVER)
        return node, self.fine_head(embedded).masked_fill(~self.seen, NEVER)

    def forward(self, arrays: Arrays) -> Tensor:
        node, fine = self.outputs(arrays)
        log_node = node.log_softmax(dim=1)
        where = self.node_of.expand(len(fine), -1)
        highest = torch.full_like(node, NEVER).scatter_reduce(1, where, fine, "amax")
        within = (fine - highest.gather(1, where)).exp()
        log_sum = torch.zeros_like(node).scatter_add(1, where, within).clamp(min=1e-30).log() + highest
        log_fine = log_node.gather(1, where) + fine - log_sum.gather(1, where)
        return torch.cat([log_fine, log_node], dim=1)[:, self.order].log_softmax(dim=1)


class Memory:
    """Rows that a stream keeps, with what is said of them, their importance, and the loss they last had.

    Args:
        device: of what is said; rows stay where they are read.
    """

    def __init__(self, device: torch.device) -> None:
        self.arrays: Arrays = {}
        self.node = torch.zeros(0, dtype=torch.long, device=device)
        self.fine, self.bucket = self.node.clone(), self.node.clone()
        self.importance, self.loss = torch.zeros(0, device=device), torch.zeros(0, device=device)

    def __len__(self) -> int:
        return len(self.node)

    def __getitem__(self, rows: Tensor) -> Arrays:
        return InMemory(**self.arrays)[rows]

    def add(self, arrays: Arrays, node: Tensor, fine: Tensor, bucket: Tensor, most: int) -> None:
        """Take rows in, and keep the `most` with which classes come out most alike, the most important of each."""
        importance = starting_importance(bucket, self.bucket, self.importance)
        self.arrays, self.node = one_after_another(self.arrays, arrays), torch.cat([self.node, node])
        self.fine, self.bucket = torch.cat([self.fine, fine]), torch.cat([self.bucket, bucket])
        self.importance = torch.cat([self.importance, importance])
        self.loss = torch.cat([self.loss, torch.full_like(importance, torch.nan)])
        kept = kept_rows(self.bucket, self.importance, most)
        self.arrays = self[kept]
        for name in ("node", "fine", "bucket", "importance", "loss"):
            setattr(self, name, getattr(self, name)[kept])


class Stream:
    """What goes on from row to row: a network that grows, its optimiser, and the memory.

    Args:
        features: (N, D) of the first rows.
        settings: of memory, steps and widths.
        seed: of all that is random.
        encoder: a copy of which is trained; None where rows are features.
    """

    def __init__(
        self, features: Tensor, settings: LabelExpansion, seed: int, encoder: TrainableEncoder | None = None
    ) -> None:
        encoder = copy.deepcopy(encoder)
        self.network = ExpandingNetwork(features, settings.hidden, seed, encoder).to(features.device)
        own = {id(p) for p in ([] if encoder is None else encoder.parameters())}
        groups: list[dict[str, Any]] = [{"params": [p for p in self.network.parameters() if id(p) not in own]}]
        if encoder is not None:
            groups += encoder.learning_rates(encoder.training_defaults.learning_rate)
        self.optimiser = torch.optim.Adam(groups, lr=settings.rate)
        self.augmentation = None if encoder is None else encoder.augmentation()
        self.device = features.device
        self.memory = Memory(features.device)
        self.generator = torch.Generator().manual_seed(seed)
        self.seed = seed
        self.names: tuple[str, ...] = ()
        self.node_names: tuple[str, ...] = ()
        self.steps = 0
        self.most, self.pseudo, self.familiar = settings.memory, settings.pseudo, settings.familiar
        self.updates, self.arriving, self.batch_size = settings.updates, settings.arriving, settings.batch_size

    def expand(self, n_nodes: int, node_of: Tensor) -> None:
        """Grow to C coarse classes and the fine classes (K,) below them, of which the old ones are the first."""
        network, before = self.network, len(self.network.seen)
        grow(network, "node_head", n_nodes, self.optimiser)
        grow(network, "fine_head", len(node_of), self.optimiser)
        network.node_of = node_of.to(network.node_of)
        network.seen = nn.functional.pad(network.seen, (0, len(node_of) - len(network.seen)))
        network.node_seen = nn.functional.pad(network.node_seen, (0, n_nodes - len(network.node_seen)))
        coarse = self.memory.bucket >= before
        self.memory.bucket[coarse] += len(node_of) - before

    def run(
        self, rows: Inputs, chosen: Tensor, node: Tensor, fine: Tensor, callback: Callback | None = None
    ) -> list[dict[str, Any]]:
        """Chosen rows (R,) once, in order, of coarse and fine classes (R,), -1 where not said. A history comes back."""
        node, fine, network = node.to(self.device), fine.to(self.device), self.network
        parts = torch.arange(len(chosen)).split(self.arriving)
        every, history, spent = max(1, len(parts) // REPORTS), [], 0.0
        network.train()
        for done, part in enumerate(parts, 1):
            here = part.to(self.device)
            with seeded(self.seed + self.steps):
                spent += self._arrive(rows[chosen[part]], node[here], fine[here]) / every
            if done % every == 0 or done == len(parts):
                history.append({"step": f"row {int(part[-1]) + 1}", "loss": spent, "memory": len(self.memory)})
                spent = 0.0
                if callback is not None:
                    callback(done, len(parts), history[-1])
        network.eval()
        return history

    def _arrive(self, arrays: Arrays, node: Tensor, fine: Tensor) -> float:
        """Rows (b,) come: into the memory, and some steps. The mean loss of the steps comes back."""
        network, memory = self.network, self.memory
        network.seen[fine[fine >= 0]] = True
        network.node_seen[node[node >= 0]] = True
        bucket = self.buckets(self._answers(arrays)[1], node, fine)
        there = torch.bincount(memory.bucket, minlength=int(bucket.max()) + 1)[bucket]
        direct = (there < self.familiar).nonzero().flatten()
        memory.add(arrays, node, fine, bucket, self.most)
        steps, used, spent = max(1, round(self.updates * len(node))), [], 0.0
        for step in range(steps):
            own = direct[step::steps]
            drawn = torch.randint(len(memory), (max(self.batch_size - len(own), 0),), generator=self.generator)
            drawn = drawn.to(self.device)
            used.append(drawn)
            batch = one_after_another(InMemory(**arrays)[own], memory[drawn])
            said = (torch.cat([new[own], old[drawn]]) for new, old in ((node, memory.node), (fine, memory.fine)))
            if self.augmentation is not None:
                batch = self.augmentation.weak(batch, self.generator)
            value = row_losses(*network.outputs(to_device(batch, self.device)), *said).mean()
            self.optimiser.zero_grad(set_to_none=True)
            value.backward()
            self.optimiser.step()
            spent += float(value.detach()) / steps
        self.steps += steps
        self._look_after(torch.cat(used).unique())
        return spent

    def _answers(self, arrays: Arrays) -> tuple[Tensor, Tensor]:
        """Outputs (B, C) and (B, K) of both heads for rows, without gradient or dropout."""
        network = self.network

        def both(part: Arrays) -> Tensor:
            return torch.cat(network.outputs(part), dim=1)

        found = in_batches(both, InMemory(**arrays), AT_ONCE, network).to(self.device)
        nodes, classes = len(network.node_seen), len(network.seen)
        return found[:, :nodes], found[:, nodes : nodes + classes]

    def buckets(self, outputs: Tensor, node: Tensor, fine: Tensor) -> Tensor:
        """The class (b,) as which rows count in memory: fine, or guessed to be, else K and the coarse class.

        Args:
            outputs: (b, K) of the fine head.
            node, fine: (b,), -1 where not said.
        """
        k, network = len(self.network.seen), self.network
        coarse = torch.where(fine >= 0, fine, k + node.clamp(min=0))
        if not self.pseudo or k == 0:
            return coarse
        guess, sure = guessed(outputs, node.clamp(min=0), network.node_of, network.seen)
        return torch.where((fine < 0) & sure, guess, coarse)

    def _look_after(self, used: Tensor) -> None:
        """Losses, importance and classes of the rows in memory after some steps with the rows used."""
        memory = self.memory
        answers = self._answers(memory.arrays)
        loss = row_losses(*answers, memory.node, memory.fine)
        before = ~memory.loss.isnan()
        if bool(before.any()):
            fell = (memory.loss[before] - loss[before]).mean()
            memory.importance[used] = next_importance(memory.importance[used], fell)
        memory.loss = loss
        memory.bucket = self.buckets(answers[1], memory.node, memory.fine)


def one_after_another(first: Arrays, second: Arrays) -> Arrays:
    """Rows of both; arrays that differ in size, as texts in length, are filled up with zeros at the end."""
    if not first:
        return second
    return {name: torch.cat(_of_one_size(array, second[name])) for name, array in first.items()}


def _of_one_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.shape[1:] == second.shape[1:]:
        return first, second
    most = [max(pair) for pair in zip(first.shape[1:], second.shape[1:], strict=True)]

    def filled(array: Tensor) -> Tensor:
        ends = [(0, long - own) for long, own in zip(most, array.shape[1:], strict=True)]
        return nn.functional.pad(array, [n for end in reversed(ends) for n in end])

    return filled(first), filled(second)


def row_losses(node_out: Tensor, fine_out: Tensor, node: Tensor, fine: Tensor) -> Tensor:
    """Cross-entropies (B,) of coarse and fine outputs (B, C), (B, K), summed; of classes of -1 there is none."""
    value = node_out.new_zeros(len(node_out))
    for out, said in ((node_out, node), (fine_out, fine)):
        if out.shape[1]:
            value = value + nn.functional.cross_entropy(out, said, ignore_index=-1, reduction="none")
    return value


def guessed(outputs: Tensor, node: Tensor, node_of: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """The seen class with the highest output below the coarse class of each row, (B,), and where two are known there.

    Args:
        outputs: (B, K).
        node: (B,) coarse classes.
        node_of: (K,) the coarse class of every fine one.
        seen: (K,).
    """
    below = (node_of == node[:, None]) & seen
    return outputs.masked_fill(~below, -torch.inf).argmax(dim=1), below.sum(dim=1) >= 2


def starting_importance(bucket: Tensor, there: Tensor, importance: Tensor) -> Tensor:
    """Importance (b,) of rows that come: the mean of their class in memory, or of all of it, 0 where it is empty."""
    n = int(torch.cat([bucket, there]).max()) + 1
    count = torch.bincount(there, minlength=n)
    total = torch.zeros(n, device=bucket.device).index_add(0, there, importance)
    mean = importance.mean() if len(importance) else importance.new_zeros(())
    return torch.where(count > 0, total / count.clamp(min=1), mean)[bucket]


def next_importance(importance: Tensor, fell: Tensor) -> Tensor:
    r"""Importance (b,) of rows after steps with them, :math:`I_i + .1 (\Delta - \bar I / b)`.

    Args:
        fell: Delta, by how much the mean loss of the memory fell.
    """
    return importance + PACE * (fell - importance.mean() / len(importance))


def kept_rows(bucket: Tensor, importance: Tensor, most: int) -> Tensor:
    """Ids of at most `most` rows: one by one the largest class gives up its least important row.

    Args:
        bucket: (m,) classes.
        importance: (m,).
    """
    if len(bucket) <= most:
        return torch.arange(len(bucket), device=bucket.device)
    order = importance.argsort(descending=True, stable=True)
    order = order[bucket[order].argsort(stable=True)]
    count = torch.bincount(bucket)
    rank = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[bucket[order]]
    return order[rank.argsort(stable=True)[:most]].sort().values


def grow(network: nn.Module, name: str, number: int, optimiser: torch.optim.Adam) -> None:
    """Give a linear layer more outputs: old rows of weights and of the state of the optimiser stay, new ones are 0."""
    layer = getattr(network, name)
    more = number - layer.out_features
    for part in ("weight", "bias"):
        old = getattr(layer, part)
        new = nn.Parameter(_longer(old.data, more))
        setattr(layer, part, new)
        group = optimiser.param_groups[0]["params"]
        group[next(place for place, one in enumerate(group) if one is old)] = new
        state = optimiser.state.pop(old, {})
        if state:
            optimiser.state[new] = {key: _longer(value, more) if value.dim() else value for key, value in state.items()}
    layer.out_features = number


def _no_outputs(width: int) -> nn.Linear:
    layer = nn.Linear(width, 1)
    layer.weight, layer.bias = nn.Parameter(torch.zeros(0, width)), nn.Parameter(torch.zeros(0))
    layer.out_features = 0
    return layer


def _longer(rows: Tensor, more: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros(more, *rows.shape[1:])])
