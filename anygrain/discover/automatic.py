"""Finds classes by what fits the data, and says why."""

from __future__ import annotations

from collections.abc import Sequence

from anygrain.discover.adapted import Adapted
from anygrain.discover.best_start import STARTS, BestStart
from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.self_distillation import EPOCHS
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder


class Automatic(Discoverer):
    """Features adapted to what is told, as far as that helps, and a cosine head from the best of several starts.

    `Adapted` around `BestStart`: fixed features are whitened by told rows, a pretrained encoder that is given and can
    be trained is trained on them; where nothing is told or it is too little, rows are read as they are.

    Args:
        adapt: whether features are adapted first; without it rows are read as they are. On made-up rows whose noise
            fills hundreds of directions that hold no classes, whitening finds less.
        starts: methods from which heads may start, by name.
        epochs: of the head that is kept.

    Attributes:
        start_, information_: see `BestStart`; `adapted_`: see `Adapted`.
    """

    trains_encoder = True

    def __init__(
        self,
        *,
        adapt: bool = True,
        starts: Sequence[str] = STARTS,
        epochs: int = EPOCHS,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.adapt, self.starts, self.epochs = adapt, starts, epochs

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        head = BestStart(starts=self.starts, epochs=self.epochs)
        return Adapted(method=head)._find(task, callback) if self.adapt else head._find(task, callback)
