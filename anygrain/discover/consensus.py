"""Classes on which several methods agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.evidence import believed
from anygrain.discover.found import ClassModel, Found
from anygrain.discover.start import Start, class_sums, found_by, log_probs_of
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Arrays
from anygrain.labels import LabelError

MEMBERS = ("spectral", "ward", "mixture")


class Consensus(Discoverer):
    r"""The mean of what several methods say of the rows, once the classes that they found are matched.

    .. math:: q_{ik} = \frac1M \sum_m p^m_{i \sigma_m(k)}, \qquad
              \sigma_m = \arg\max_\sigma \sum_k \frac{|A_k \cap B_{\sigma(k)}|}{|A_k \cup B_{\sigma(k)}|}

    with A the classes of the methods before m, B those of m, counted by probabilities: :math:`|A_k \cap B_l| = \sum_i
    q_{ik} p^m_{il}`. Known classes are themselves, new ones are matched inside their coarse class. No method finds the
    best classes in all data, and no label can judge new classes; but methods err in different rows, and a row about
    which they differ is left open. A head that learns from here ends better than from most of them.

    Args:
        members: methods by name, or the methods; the first is what others are matched to.

    Attributes:
        agreement_: for every member, the share of rows whose class it is that the mean says.

    Source: Strehl and Ghosh, Cluster ensembles, 2002; matching as in Dudoit and Fridlyand, Bagging to improve the
    accuracy of a clustering procedure, 2003.
    """

    learns_from = None

    def __init__(
        self,
        *,
        members: Sequence[Start] = MEMBERS,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.members = members

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        if not self.members:
            raise LabelError("members are none; expected methods, by name, that are to agree")

        def by_each() -> Iterator[Found]:
            for place, member in enumerate(self.members):
                yield found_by(member, task)
                if callback is not None:
                    callback(place + 1, len(self.members), {"step": f"classes by {named(member)}"})

        log_probs, model, labels = mean_of(by_each(), task)
        same = labels == believed(log_probs, task.evidence, task.node).argmax(dim=1)
        shares = dict(zip(map(named, self.members), same.double().mean(dim=1).tolist(), strict=True))
        told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        why = f"classes on which methods agree (of the rows: {told})"
        return Found(task.node, model, log_probs, why=why, facts={"agreement": shares})


def mean_of(found: Iterable[Found], task: Task) -> tuple[Tensor, MeanOf, Tensor]:
    """Log-probabilities (N, K) of the rows and a model by the mean of what was found in a task, see `Consensus`.

    Returns:
        Beside them, the class of every row by each of what was found, as the mean numbers them, (M, N).
    """
    models, matches, labels = list[ClassModel](), list[Tensor](), list[Tensor]()
    total = torch.zeros(task.n_rows, len(task.node))

    def by_all() -> Tensor:
        return believed(total.clamp(min=1e-12).log(), task.evidence, task.node)

    for one in found:
        said = log_probs_of(one, task)
        own = believed(said, task.evidence, task.node)
        match = matched(by_all(), own, task) if models else torch.arange(len(task.node))
        total += said.exp()[:, match]
        models.append(one.model)
        matches.append(match)
        labels.append(own[:, match].argmax(dim=1))
    log_probs = total.div_(len(models)).clamp_(min=1e-12).log_()
    return log_probs, MeanOf(models, matches).to(task.features.device), torch.stack(labels)


def matched(first: Tensor, second: Tensor, task: Task) -> Tensor:
    """For every class (K,) of the first probabilities (N, K), the class of the second that is most like it.

    One to one, known classes with themselves, others with others of their coarse class.
    """
    from scipy.optimize import linear_sum_assignment

    both = class_sums(second, first).double()
    size = first.sum(dim=0).double()[:, None] + second.sum(dim=0).double() - both
    like, match = both / size.clamp(min=1e-12), torch.arange(len(both))
    for c in task.node[task.n_known :].unique():
        own = task.n_known + (task.node[task.n_known :] == c).nonzero().flatten()
        row, column = linear_sum_assignment(like[own][:, own].numpy(), maximize=True)
        match[own[row]] = own[column]
    return match


def named(member: Start) -> str:
    """What a member is called."""
    return member if isinstance(member, str) else type(member).__name__


class MeanOf(ClassModel):
    """The mean of the probabilities that several models give, (B, K).

    Args:
        models: of as many classes each.
        matches: for every model, its class (K,) for every class of the mean.
    """

    def __init__(self, models: Sequence[ClassModel], matches: Sequence[Tensor]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.register_buffer("matches", torch.stack(list(matches)))

    matches: Tensor

    def forward(self, arrays: Arrays) -> Tensor:
        pairs = zip(self.models, self.matches, strict=True)
        return torch.stack([model(arrays)[:, match] for model, match in pairs]).logsumexp(dim=0).log_softmax(dim=1)
