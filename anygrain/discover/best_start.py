"""A head that learns from the best of several starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.network import Views
from anygrain.discover.self_distillation import EPOCHS, SelfDistillation, class_mass
from anygrain.discover.start import found_by, given_said, on_features
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.labels import LabelError

STARTS = ("spectral", "ward", "mixture", "ss-kmeans")
PROBE = 2  # epochs by which starts are compared
CHANCE = 0.08  # nats by which a later start must be ahead


class BestStart(Discoverer):
    r"""A cosine head from that of several starts whose classes say most of the rows.

    No method finds the best classes in all data, and labels that could judge new classes are not there. But two views
    of a row are of one class, and classes are worth what one view tells of the other,

    .. math:: I = H(\pi) - \tfrac12 \big[H(t(x), p(x')) + H(t(x'), p(x))\big],

    with the masses pi, targets t and answers p of the head that `SelfDistillation` learns from a start: a lower bound
    of the mutual information. The second term alone would favour classes of very unlike sizes, which are easy to agree
    on. Two epochs show which start is the best: the first of the list of those within .08 nats of
    the highest. The head from it is then learnt anew, at its own pace.

    With one start, it is `SelfDistillation`. A network that is to be trained learns from the chosen start alone.

    Args:
        starts: methods from which heads may start, by name.
        epochs: of the head that is kept.

    Attributes:
        start_: where the head started; `information_`: of every start, I in nats after two epochs.
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
        fixed = on_features(task)
        views, probe = Views(fixed), SelfDistillation(epochs=min(PROBE, self.epochs))
        begun: dict[str, Tensor] = {}
        information: dict[str, float] = {}
        for place, name in enumerate(self.starts):
            begun[name] = given_said(found_by(name, fixed), fixed)
            if len(self.starts) > 1:
                last = probe.distilled(fixed, begun[name], views=views)[1][-1]
                information[name] = (
                    float(torch.special.entr(class_mass(fixed, begun[name])).sum()) - last["distillation"]
                )
            if callback is not None:
                callback(place + 1, len(self.starts), {"step": f"start {name}", "information": information.get(name)})
        least = max(information.values(), default=0.0) - CHANCE
        start = next(name for name in self.starts if information.get(name, 0.0) >= least)
        head = SelfDistillation(start=start, epochs=self.epochs)
        own = views if task.encoder is None else None
        network, history = head.distilled(task, begun[start], callback, own)
        told = ", ".join(f"{name} {value:.3g}" for name, value in information.items())
        why = f"a cosine head from {start}"
        if told:
            why += f", of those whose classes say most of the rows (nats: {told})"
        facts = {"start": start, "information": information}
        return Found(task.node, network, why=why, history=history, facts=facts, again=head._find)
