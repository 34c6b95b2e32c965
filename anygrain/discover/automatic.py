"""Finds classes by what fits the data, and says why."""

from __future__ import annotations

from collections.abc import Sequence

from anygrain.discover.adapted import Adapted
from anygrain.discover.consensus import MEMBERS, Consensus
from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.self_distillation import EPOCHS, SelfDistillation
from anygrain.discover.start import Start
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.labels import LabelError


class Automatic(Discoverer):
    """Features adapted to what is told and found, and a cosine head from what several methods agree on.

    `Adapted` around `SelfDistillation` from a `Consensus`: fixed features are read as they are and whitened, and what
    is found is averaged; a pretrained encoder that is given and can be trained is trained on told rows, where these are
    enough.

    Args:
        adapt: whether features are adapted; without it rows are read as they are alone, in a third of the time.
        members: methods that are to agree, by name; of one alone, the head starts there.
        epochs: of the head.

    Attributes:
        agreement_: see `Consensus`; `adapted_`: see `Adapted`.
    """

    trains_encoder = True

    def __init__(
        self,
        *,
        adapt: bool = True,
        members: Sequence[Start] = MEMBERS,
        epochs: int = EPOCHS,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.adapt, self.members, self.epochs = adapt, members, epochs

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        if self.epochs < 1:
            raise LabelError(f'epochs is {self.epochs}; expected 1 or more, or a method without a head, as "consensus"')
        head = SelfDistillation(start=Consensus(members=self.members), epochs=self.epochs)
        return Adapted(method=head)._find(task, callback) if self.adapt else head._find(task, callback)
