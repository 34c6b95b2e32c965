"""Finds classes by what fits the data, and says why."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from anygrain.discover.adapted import Adapted
from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.network import Views
from anygrain.discover.self_distillation import EPOCHS, SelfDistillation
from anygrain.discover.start import found_by, given_said, on_features
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.labels import LabelError

STARTS = ("mixture", "ss-kmeans", "spectral", "ward")
PROBE = 2  # epochs by which starts are compared


class Automatic(Discoverer):
    r"""A cosine head from that of several starts whose head has the least loss after two epochs.

    No method finds the best classes in all data, and labels that could judge new classes are not there. But the heads
    that `SelfDistillation` learns from several starts go down the same objective, and the one that is lower tends to be
    the better, as with the starts of k-means: where classes are wrong, rows that are alike cannot agree. Two epochs
    show it; the head from the chosen start is then learnt anew, at its own pace.

    With one start, it is `SelfDistillation`. A pretrained encoder that is given and can be trained is adapted to
    the told rows first, where these are enough (see `Adapted`), and the heads learn on its features; a network without
    pretrained weights is trained from the chosen start alone.

    Args:
        starts: methods from which heads may start, by name.
        epochs: of the head that is kept.

    Attributes:
        start_: where the head started; `losses_`: of every start the loss of its head after two epochs.
    """

    trains_encoder = True

    def __init__(
        self,
        *,
        starts: Sequence[str] = STARTS,
        epochs: int = EPOCHS,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.starts, self.epochs = starts, epochs

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        if self.epochs < 1:
            raise LabelError(f'epochs is {self.epochs}; expected 1 or more, or a method without a head, as "mixture"')
        if task.encoder is not None and task.encoder.has_pretrained:
            return Adapted(method=self)._find(task, callback)
        fixed = on_features(task)
        views, probe = Views(fixed), SelfDistillation(epochs=min(PROBE, self.epochs))
        begun: dict[str, Tensor] = {}
        losses: dict[str, float] = {}
        for place, name in enumerate(self.starts):
            begun[name] = given_said(found_by(name, fixed), fixed)
            if len(self.starts) > 1:
                losses[name] = probe.distilled(fixed, begun[name], views=views)[1][-1]["loss"]
            if callback is not None:
                callback(place + 1, len(self.starts), {"step": f"start {name}", "loss": losses.get(name)})
        start = min(self.starts, key=lambda name: losses.get(name, 0.0))
        head = SelfDistillation(start=start, epochs=self.epochs)
        own = views if task.encoder is None else None
        network, history = head.distilled(task, begun[start], callback, own)
        told = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
        why = f"a cosine head from {start}" + (f", by the loss after {probe.epochs} epochs ({told})" if told else "")
        facts = {"start": start, "losses": losses}
        return Found(task.node, network, why=why, history=history, facts=facts, again=head._find)
