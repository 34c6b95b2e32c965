"""Features that are adapted to what is said before classes are looked for in them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from anygrain.discover.class_number import class_number
from anygrain.discover.consensus import MeanOf, mean_of
from anygrain.discover.discoverer import AT_ONCE, Callback, Discoverer
from anygrain.discover.exemplars import class_means
from anygrain.discover.found import ClassModel, Found
from anygrain.discover.methods import method
from anygrain.discover.network import ClassNetwork, CosineHead, Moment, Pace, Views, train
from anygrain.discover.start import Start, given_said, on_features
from anygrain.discover.task import Chosen, Task
from anygrain.discover.whitening import Whitened, Whitening, whitened, whitening
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Arrays, TrainableEncoder, in_batches
from anygrain.labels import LabelError

FEWEST = 5  # known classes, and
PER_CLASS = 3  # told rows of each on average, from which an encoder is adapted
MOST_BATCHES = 20  # of an epoch
ROUNDING = 1e-5  # beyond equal log-probabilities
SURE = 0.5  # of the rows of every class that teach the encoder in later rounds


class Adapted(Discoverer):
    r"""Features are adapted to what is told, then to what is found; another method finds all classes in them.

    Fixed features are whitened (see `whitening`): directions in which rows of one class differ count less. Whether that
    helps differs from set to set, and methods err in other rows where features are others: what the method finds in
    features as they are, whitened by told rows and whitened by what was found last is matched and averaged (see
    `Consensus`, and `offset_of_new`). An encoder with pretrained weights is trained: with two views :math:`x, x'` of a
    told row and a cosine head over the G known classes,

    .. math:: L = -\tfrac12 \big[\log p(y \mid x) + \log p(y \mid x')\big], \qquad
              p(k \mid x) \propto e^{\langle z(x), w_k \rangle / .1},

    w at first the mean directions of the classes. What tells known classes apart tends to tell new ones apart too, and
    what does not, is lost: all methods then do better, also on new classes. In the second round the surer half of the
    rows of every class that the method finds, new ones too, count as told. Features are whitened by them in both rounds
    where nothing was told; an encoder is not trained then: what tells finer classes apart would be lost.

    An encoder is not trained so, and `why_` says so, where it has no pretrained weights (told rows alone would not
    teach it enough; the method trains it), fewer than five classes are known, or fewer than three rows of each are told
    (its features are whitened then).

    Args:
        method: by name, or one, that finds the classes.
        rounds: how often features are adapted, first to what is told, if anything is, then to what was found; the
            method runs as often, and fixed features are read once more as they are.
        epochs: times that an encoder sees every told row, in two views; of many rows, some of them: an epoch has 20
            batches at most.
        encoder_rate: highest learning rate of the encoder; its own default where None.
        rate: of the head.
        batch_size: told rows at once.

    Facts: those of the method, in the features that were adapted last, as is `stability_`; `adapted_`, how many told
    rows features were adapted to.
    """

    trains_encoder = True
    finds_number = True
    learns_from = None

    def __init__(
        self,
        *,
        method: Start = "self-distillation",
        rounds: int = 2,
        epochs: int = 10,
        encoder_rate: float | None = None,
        rate: float = 1e-3,
        batch_size: int = 64,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.method, self.rounds, self.epochs = method, rounds, epochs
        self.encoder_rate, self.rate, self.batch_size = encoder_rate, rate, batch_size

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        if self.rounds < 1:
            raise LabelError(f"rounds is {self.rounds}; expected 1 or more, or the method by itself")
        one = method(self.method)(seed=task.seed) if isinstance(self.method, str) else self.method
        if task.encoder is None:
            return self._in_whitened(one, task, callback)
        if task.encoder.has_pretrained:
            return self._in_trained(one, task, callback)
        reason = why_not(task)
        if not one.trains_encoder:
            raise LabelError(f"{reason}, and {type(one).__name__} trains none; expected a method with gradients")
        counted, interval = numbered(one, task)
        found = one._find(one._some(counted), callback)
        return replace(
            found,
            interval=found.interval or interval,
            why=f"{reason}; {found.why}",
            facts=found.facts | {"adapted": 0},
        )

    def _in_whitened(self, one: Discoverer, task: Task, callback: Callback | None = None) -> Found:
        """The mean of what a method finds in fixed features as they are and whitened, by what is told and was found."""
        counted, interval = numbered(one, task)
        part = one._some(counted)
        label = part.evidence.sure_known()
        told = int((label >= 0).sum())
        seen, found = part, one._find(part, callback)
        read, ways = [found], ["as they are"]
        for number in range(self.rounds):
            white = None if number else whitening(part, label)
            by = "told rows" if told else "pairs of one class"
            if white is None:
                rows, said = surest(found, seen)
                label = torch.full((part.n_rows,), -1).index_put((rows,), said.argmax(dim=1))
                white, by = whitening(part, label), "the surer half of what was found"
            if white is None:  # rows of a class are all the same
                break
            if callback is not None:
                callback(number, self.rounds, {"step": f"whitened features, round {number + 1} of {self.rounds}"})
            seen = whitened(part, white)
            found = one._find(seen, callback)
            read.append(read_white(found, white, one._find))
            ways.append(f"whitened by {by}")
        alike = [place for place, each in enumerate(read) if torch.equal(each.node, found.node)]
        seen = part.with_number(torch.bincount(found.node, minlength=part.evidence.n_nodes))
        log_probs, mean, labels = mean_of([read[place] for place in alike], seen)
        offset = offset_of_new(log_probs, labels, seen)
        return replace(
            read[-1],
            model=MeanOfReadings(mean, offset).to(part.features.device),
            log_probs=log_probs.add_(offset).log_softmax(dim=1) if part.n_rows == task.n_rows else None,
            interval=over_all(read) or interval,
            why=f"in features {joined([ways[place] for place in alike])}: {found.why}",
            history=[moment for each in read for moment in each.history],
            facts=found.facts | {"adapted": told},
        )

    def _in_trained(self, one: Discoverer, task: Task, callback: Callback | None = None) -> Found:
        """What a method finds in the features of an encoder that is trained on told rows, then on what was found.

        Where too little is told for that, the features that it has are whitened.
        """
        reason, told = why_not(task), int(task.evidence.told.sum())
        again = ", then to the surer half of what was found" if self.rounds > 1 else ""
        encoder, history = task.encoder, list[dict[str, Any]]()
        assert encoder is not None
        if reason:
            encoder = encoder.to(task.features.device)
        else:
            encoder, history = self.adapted(task, callback)
            for _ in range(1, self.rounds):
                counted, _ = numbered(one, read_by(encoder, task))
                history += self.taught(
                    encoder, counted, *surest(found_in_features(one, counted, None), counted), callback
                )
        found = read_through(encoder, self if reason else one, task, callback)
        return replace(
            found,
            why=f"{reason or f'the encoder was adapted to {told} told rows{again}'}; {found.why}",
            history=history + found.history,
            facts={"adapted": told} | found.facts,
        )

    def adapted(self, task: Task, callback: Callback | None = None) -> tuple[TrainableEncoder, list[dict[str, Any]]]:
        """A copy of the encoder of a task, trained on its told rows, and the history of that."""
        assert task.encoder is not None
        encoder = copy.deepcopy(task.encoder)
        told = task.evidence.told.nonzero().flatten()
        assert task.evidence.known is not None
        return encoder, self.taught(encoder, task, told, task.evidence.known[told], callback)

    def taught(
        self, encoder: TrainableEncoder, task: Task, rows: Tensor, said: Tensor, callback: Callback | None = None
    ) -> list[dict[str, Any]]:
        """Trains an encoder on some rows (R,), of which log evidence (R, G) is given; the history of that."""
        views, device = Views(task), task.features.device
        network = ClassNetwork(CosineHead(torch.zeros(said.shape[1], encoder.feature_dim)), None, encoder).to(device)
        sure = (said > -torch.inf).sum(dim=1) == 1
        embedded = in_batches(network.embed, Chosen(task.rows, rows[sure]), AT_ONCE, network)
        assert isinstance(network.head, CosineHead)
        with torch.no_grad():
            mean, _ = class_means(embedded, said[sure].argmax(dim=1), said.shape[1])
            network.head.direction.copy_(normalize(mean, dim=1))
        said = said.to(device)

        def loss(chosen: Tensor, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
            seen = [network(view) for view in views(rows[chosen], moment.generator)]
            values = [-torch.logsumexp(one + said[chosen.to(device)], dim=1).mean() for one in seen]
            return torch.stack(values).mean(), {}

        pace = Pace(self.epochs, self.batch_size, self.rate, self.encoder_rate, most_batches=MOST_BATCHES)
        return train(network, loss, len(rows), pace, seed=task.seed, callback=callback)


def surest(found: Found, task: Task) -> tuple[Tensor, Tensor]:
    """The surer half of the rows of every class, told or found, (R,), and log evidence (R, K) that they are of it."""
    share = given_said(found, on_features(task))
    sure, label = share.max(dim=1)
    sure = sure + (task.evidence.sure_known() >= 0)  # told rows go first: others are as sure by rounding alone
    order = sure.argsort(descending=True, stable=True)
    order = order[label[order].argsort(stable=True)]
    size = torch.bincount(label, minlength=share.shape[1])
    place = torch.arange(len(label)) - (size.cumsum(0) - size)[label[order]]
    rows = order[place < (SURE * size[label[order]]).ceil()].sort().values
    return rows, torch.where(torch.nn.functional.one_hot(label[rows], share.shape[1]).bool(), 0.0, -torch.inf)


def why_not(task: Task) -> str:
    """Why the encoder of a task is not adapted to what is said; empty where it is."""
    told = int(task.evidence.told.sum())
    if task.encoder is None or not task.encoder.has_pretrained:
        return "the encoder has no pretrained weights that could be adapted"
    if task.n_known < FEWEST:
        return f"{task.n_known} known classes are too few to adapt the encoder to"
    if told < PER_CLASS * task.n_known:
        return f"{told} told rows of {task.n_known} known classes are too few to adapt the encoder to"
    return ""


def numbered(one: Discoverer, task: Task) -> tuple[Task, tuple[int, int] | None]:
    """The task with the number of classes that a method needs, and the interval of that where it was looked for."""
    if task.per_node is not None or one.finds_number:
        return task, None
    per_node, interval = class_number(task)
    return task.with_number(per_node), interval


def found_in_features(one: Discoverer, task: Task, callback: Callback | None) -> Found:
    """What a method finds in the features of a task as they are."""
    fixed, interval = numbered(one, on_features(task))
    found = one._find(one._some(fixed), callback)
    return replace(found, interval=found.interval or interval)


def read_through(encoder: TrainableEncoder, one: Discoverer, task: Task, callback: Callback | None = None) -> Found:
    """What a method finds in the features of an encoder, with a model that reads rows as the encoder does."""
    found = found_in_features(one, read_by(encoder, task), callback)
    again = found.again or one._find

    def look_again(part: Task) -> Found:
        refound = again(on_features(read_by(encoder, part)))
        return replace(refound, model=Encoded(encoder, refound.model))

    return replace(found, model=Encoded(encoder, found.model), again=look_again)


def read_white(found: Found, white: Whitening, find: Callable[[Task], Found]) -> Found:
    """What was found in whitened features, with a model that reads features as they were.

    Args:
        find: looks for classes again in other rows that were whitened.
    """

    def look_again(part: Task) -> Found:
        refound = find(whitened(part, white))
        return replace(refound, model=Whitened(white, refound.model))

    return replace(found, model=Whitened(white, found.model), again=look_again)


class MeanOfReadings(ClassModel):
    """The mean over readings of the same features, which sees rows as the last does.

    Args:
        mean: over all.
        offset: added to its log-probabilities, (K,).
    """

    offset: Tensor

    def __init__(self, mean: MeanOf, offset: Tensor) -> None:
        super().__init__()
        self.mean = mean
        self.register_buffer("offset", offset)

    def embed(self, arrays: Arrays) -> Tensor:
        last = self.mean.models[-1]
        assert isinstance(last, ClassModel)
        return last.embed(arrays)

    def forward(self, arrays: Arrays) -> Tensor:
        found: Tensor = (self.mean(arrays) + self.offset).log_softmax(dim=1)
        return found


def over_all(read: list[Found]) -> tuple[int, int] | None:
    """From the lowest to the highest number of classes that readings find plausible; None where they look for none."""
    ends = [end for one in read if one.interval is not None for end in (*one.interval, len(one.node))]
    return (min(ends), max(ends)) if ends else None


def joined(ways: list[str]) -> str:
    """How features were read, with "so again" for what is said already."""
    return " and ".join("so again" if place and way == ways[place - 1] else way for place, way in enumerate(ways))


def offset_of_new(log_probs: Tensor, labels: Tensor, task: Task) -> Tensor:
    """What to add to the log-probabilities (N, K) of a mean, (K,): b of new classes, 0 or more, and 0 of known ones.

    A known class is itself in all that is averaged, a new one is matched, so that a mean answers new classes less often
    than its parts. With b as many of the rows that are not told to be of a known class are of new ones as by the parts
    on average.

    Args:
        labels: (M, N) class of every row by the parts.
    """
    known, free = task.n_known, task.evidence.sure_known() < 0
    offset = torch.zeros(log_probs.shape[1])
    wanted = round(float((labels[:, free] >= known).double().sum()) / len(labels))
    if known in (0, len(offset)) or wanted == 0:
        return offset
    behind = log_probs[free, :known].amax(dim=1) - log_probs[free, known:].amax(dim=1)
    offset[known:] = (behind.kthvalue(wanted).values + ROUNDING).clamp(min=0)
    return offset


def read_by(encoder: TrainableEncoder, task: Task) -> Task:
    """The same task with the features of an encoder as it is now, rows of length one."""
    features = in_batches(encoder.encode, task.rows, AT_ONCE, encoder)
    return replace(task, features=normalize(features, dim=1).to(task.features.device))


class Encoded(ClassModel):
    """A model of features, of length one, that reads rows through an encoder.

    Args:
        encoder: that gave the features.
        model: of the features.
    """

    def __init__(self, encoder: TrainableEncoder, model: ClassModel) -> None:
        super().__init__()
        self.encoder, self.model = encoder, model

    def features(self, arrays: Arrays) -> Arrays:
        """Features of rows, as the model reads them."""
        return {"features": normalize(self.encoder.encode(arrays), dim=1)}

    def embed(self, arrays: Arrays) -> Tensor:
        return self.model.embed(self.features(arrays))

    def forward(self, arrays: Arrays) -> Tensor:
        found: Tensor = self.model(self.features(arrays))
        return found
