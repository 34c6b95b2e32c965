"""Label noise: one transition matrix from the true class to the label given."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels.channels.channel import Channel, Records
from anygrain.labels.error import LabelError


class Transition(Channel):
    r"""Every label went through the same transition matrix T, rows are the truth.

    .. math:: P(v \mid y = k) = T_{kv}, \qquad T_k \sim \mathrm{Dirichlet}(1 + s\, D_k), \qquad
              \hat T_{kv} = \frac{n_{kv} + s\, D_{kv}}{n_k + s}

    with D of diagonal .7 and even elsewhere. A matrix that is given is never changed.

    Args:
        n_classes: K.
        transition: T, shape (K, K), when it is known.
        strength: s, how many labels per class the prior is worth.
        diagonal: of D.

    Attributes:
        log_table: log P(label | class), shape (K + 1, K): label (the last row is a missing one), class.
        counts: expected labels of the last update, shape (K, K): truth, label.

    Raises:
        LabelError: a matrix that is not (K, K), or whose rows are no distribution.

    Source: Patrini et al., Making deep neural networks robust to label noise, 2017, for T; EM as Dawid and Skene, 1979.
    """

    log_table: Tensor
    counts: Tensor
    mean: Tensor

    def __init__(
        self, n_classes: int, *, transition: Tensor | None = None, strength: float = 10.0, diagonal: float = 0.7
    ):
        super().__init__()
        k = self.n_classes = int(n_classes)
        self.known, self.strength = transition is not None, float(strength)
        right = diagonal if k > 1 else 1.0
        mean = torch.full((k, k), (1 - right) / max(k - 1, 1), dtype=torch.float64).fill_diagonal_(right)
        self.register_buffer("mean", mean)
        self.register_buffer("counts", torch.zeros_like(mean))
        self.register_buffer("log_table", torch.zeros(k + 1, k, dtype=torch.float64))
        self._store(mean if transition is None else check_transition(transition, k))

    @property
    def transition(self) -> Tensor:
        """T, shape (K, K), rows are the truth."""
        return self.log_table[:-1].exp().T

    def log_prob(self, records: Records) -> Tensor:
        missing = self.n_classes
        return self.log_table[torch.where(records.values < 0, missing, records.values)]

    def statistics(self, records: Records, posterior: Tensor) -> dict[str, Tensor]:
        """`counts` (K, K): expected labels, truth by label."""
        given = records.values >= 0
        found = posterior.new_zeros(self.n_classes, self.n_classes)
        found.index_add_(0, records.values[given], posterior[records.items[given]])
        return {"counts": found.T.double()}

    def update(self, statistics: dict[str, Tensor]) -> None:
        if self.known:
            return
        self.counts = statistics["counts"].double()
        own = self.counts + self.strength * self.mean
        self._store(own / own.sum(dim=1, keepdim=True))

    def log_prior(self) -> Tensor:
        if self.known:
            return self.log_table.new_zeros(())
        return self.strength * (self.mean * self.log_table[:-1].T).sum()

    def _store(self, transition: Tensor) -> None:
        table = transition.T.log()
        self.log_table = torch.cat([table, table.new_zeros(1, self.n_classes)])


def check_transition(transition: Tensor, n_classes: int) -> Tensor:
    """A transition matrix as float64.

    Raises:
        LabelError: not (K, K), a negative or infinite entry, or a row that does not sum to 1, by number.
    """
    matrix = torch.as_tensor(transition).double()
    if matrix.shape != (n_classes, n_classes):
        expected = f"({n_classes}, {n_classes}): a row per true class"
        raise LabelError(f"the transition matrix has shape {tuple(matrix.shape)}; expected {expected}")
    bad = (~torch.isfinite(matrix) | (matrix < 0)).any(dim=1).nonzero()[:, 0]
    if len(bad):
        raise LabelError(f"row {int(bad[0])} of the transition matrix holds a negative or infinite probability")
    total = matrix.sum(dim=1)
    off = ((total - 1).abs() > 1e-4).nonzero()[:, 0]
    if len(off):
        row = int(off[0])
        hint = "; its columns do: transpose it, rows are the true class"
        turned = hint if bool(((matrix.sum(dim=0) - 1).abs() < 1e-4).all()) else ""
        raise LabelError(f"row {row} of the transition matrix sums to {float(total[row]):.4g}; expected 1{turned}")
    return matrix / total[:, None]
