"""Features that are adapted to what is said before classes are looked for in them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from anygrain.discover.class_number import class_number
from anygrain.discover.discoverer import AT_ONCE, Callback, Discoverer
from anygrain.discover.exemplars import class_means
from anygrain.discover.found import ClassModel, Found
from anygrain.discover.methods import method
from anygrain.discover.network import ClassNetwork, CosineHead, Moment, Pace, Views, train
from anygrain.discover.start import Start, given_said, on_features
from anygrain.discover.task import Chosen, Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Arrays, TrainableEncoder, in_batches
from anygrain.labels import LabelError

FEWEST = 5  # known classes, and
PER_CLASS = 3  # told rows of each on average, from which an encoder is adapted
MOST_BATCHES = 20  # of an epoch
SURE = 0.5  # of the rows of every class that teach the encoder in later rounds


class Adapted(Discoverer):
    r"""An encoder is trained on the told rows of known classes; then another method finds all classes in its features.

    With two views :math:`x, x'` of a told row and a cosine head over the G known classes,

    .. math:: L = -\tfrac12 \big[\log p(y \mid x) + \log p(y \mid x')\big], \qquad
              p(k \mid x) \propto e^{\langle z(x), w_k \rangle / .1},

    w at first the mean directions of the classes. What tells known classes apart tends to tell new ones apart too, and
    what does not, is lost: all methods then do better, also on new classes. In the second round the encoder learns from
    the surer half of the rows of every class that the method finds, new ones too, as if they were told. After it
    features are fixed, and the method takes as long as on fixed ones. Coarse classes adapt nothing: what tells finer
    ones apart would be lost.

    Nothing is adapted, and `why_` says so, where features are fixed from the start, the encoder has no pretrained
    weights (told rows alone would not teach it enough), fewer than five classes are known, or fewer than three rows of
    each are told. Then the method goes on with the task as it is.

    Args:
        method: by name, or one, that finds the classes.
        epochs: times that every told row is seen, in two views; of many rows, some of them: an epoch has 20 batches at
            most.
        rounds: how often the encoder is trained; 1 is on told rows alone.
        encoder_rate: highest learning rate of the encoder; its own default where None.
        rate: of the head.
        batch_size: told rows at once.

    Facts: those of the method; `adapted_`, how many told rows the encoder was adapted to, 0 where it was not.
    """

    trains_encoder = True
    finds_number = True
    learns_from = None

    def __init__(
        self,
        *,
        method: Start = "self-distillation",
        epochs: int = 10,
        rounds: int = 2,
        encoder_rate: float | None = None,
        rate: float = 1e-3,
        batch_size: int = 64,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.method, self.epochs, self.rounds = method, epochs, rounds
        self.encoder_rate, self.rate, self.batch_size = encoder_rate, rate, batch_size

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        one = method(self.method)(seed=task.seed) if isinstance(self.method, str) else self.method
        reason, told = why_not(task), int(task.evidence.told.sum())
        again = ", then to the surer half of what was found" if self.rounds > 1 else ""
        encoder, history = task.encoder, list[dict[str, Any]]()
        if not reason:
            encoder, history = self.adapted(task, callback)
            for _ in range(1, self.rounds):
                counted, _ = numbered(one, read_by(encoder, task))
                history += self.taught(
                    encoder, counted, *surest(found_in_features(one, counted, None), counted), callback
                )
        if encoder is None:
            found = found_in_features(one, task, callback)
        elif encoder.has_pretrained:
            found = read_through(encoder, one, task, callback)
        elif one.trains_encoder:
            counted, interval = numbered(one, task)
            found = one._find(one._some(counted), callback)
            found = replace(found, interval=found.interval or interval)
        else:
            raise LabelError(f"{reason}, and {type(one).__name__} trains none; expected a method with gradients")
        return replace(
            found,
            why=f"{reason or f'the encoder was adapted to {told} told rows{again}'}; {found.why}",
            history=history + found.history,
            facts=found.facts | {"adapted": 0 if reason else told},
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
    order = sure.argsort(descending=True, stable=True)
    order = order[label[order].argsort(stable=True)]
    size = torch.bincount(label, minlength=share.shape[1])
    place = torch.arange(len(label)) - (size.cumsum(0) - size)[label[order]]
    rows = order[place < (SURE * size[label[order]]).ceil()].sort().values
    return rows, torch.where(torch.nn.functional.one_hot(label[rows], share.shape[1]).bool(), 0.0, -torch.inf)


def why_not(task: Task) -> str:
    """Why the encoder of a task is not adapted to what is said; empty where it is."""
    told = int(task.evidence.told.sum())
    if task.encoder is None:
        return "features are fixed"
    if not task.encoder.has_pretrained:
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
