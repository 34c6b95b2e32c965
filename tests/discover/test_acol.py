"""Activity regularisation: limits, brute force, gradient; coarse classes are summed over their outputs."""

import pytest
import torch

from anygrain.discover.acol import ACOL, EPS, affinity_and_balance
from anygrain.labels import Coarse, Exact

G = torch.Generator().manual_seed(0)


def by_loops(z: torch.Tensor, outputs: list[int]) -> tuple[float, float]:
    """Alpha and beta over some outputs."""
    b = z.clamp(min=0)[:, outputs]
    n = len(outputs)
    products = [[float(b[:, i] @ b[:, j]) for j in range(n)] for i in range(n)]
    v = [products[i][i] for i in range(n)]
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    alpha = sum(products[i][j] for i, j in pairs) / ((n - 1) * sum(v) + EPS)
    beta = sum(v[i] * v[j] for i, j in pairs) / ((n - 1) * sum(one**2 for one in v) + EPS)
    return alpha, beta


def test_by_double_loops() -> None:
    z = torch.randn(15, 6, generator=G, dtype=torch.float64)
    alpha, beta = affinity_and_balance(z, torch.zeros(6, dtype=torch.long))
    assert (float(alpha), float(beta)) == pytest.approx(by_loops(z, list(range(6))), abs=1e-9)
    node = torch.tensor([0, 1, 0, 1, 1, 2])  # the third coarse class has one output
    alpha, beta = affinity_and_balance(z, node)
    first, second = by_loops(z, [0, 2]), by_loops(z, [1, 3, 4])
    assert float(alpha) == pytest.approx((first[0] + second[0]) / 2, abs=1e-9)
    assert float(beta) == pytest.approx((first[1] + second[1]) / 2, abs=1e-9)


def test_rows_of_another_coarse_class_do_not_count() -> None:
    z = torch.randn(12, 4, generator=G, dtype=torch.float64)
    node, where = torch.tensor([0, 0, 1, 1]), torch.arange(12) % 3 - 1
    alpha, _ = affinity_and_balance(z, node, where)
    first, second = by_loops(z[where != 1], [0, 1]), by_loops(z[where != 0], [2, 3])
    assert float(alpha) == pytest.approx((first[0] + second[0]) / 2, abs=1e-9)


def test_limits() -> None:
    node = torch.zeros(4, dtype=torch.long)
    alone = 5 * torch.eye(4).repeat(6, 1).double()
    alpha, beta = affinity_and_balance(alone, node)
    assert (float(alpha), float(beta)) == pytest.approx((0, 1), abs=1e-9)
    alpha, beta = affinity_and_balance(torch.ones(9, 4).double(), node)
    assert (float(alpha), float(beta)) == pytest.approx((1, 1), abs=1e-9)
    alpha, beta = affinity_and_balance(torch.randn(5, 2, generator=G), torch.tensor([0, 1]))  # no siblings
    assert (float(alpha), float(beta)) == (0, 1)
    alpha, beta = affinity_and_balance(-torch.ones(5, 4), node)
    assert (float(alpha), float(beta)) == (0, 0)  # nothing is active: only epsilon keeps them finite


@pytest.mark.parametrize("node", [[0, 0, 0, 0], [0, 1, 0, 1]])
def test_gradient(node: list[int]) -> None:
    z = torch.randn(6, 4, generator=G, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: torch.stack(affinity_and_balance(x, torch.tensor(node))), z)


@pytest.mark.parametrize(("per_parent", "start"), [(True, "mixture"), (True, None), (False, "mixture")])
def test_fine_classes_lie_below_their_coarse_one(per_parent: bool, start: str | None) -> None:
    label = torch.arange(4).repeat_interleave(60)
    x = torch.randn(240, 8, generator=G) * 0.3 + 3 * torch.eye(8)[label]
    found = ACOL(per_parent=per_parent, start=start, hidden=32, epochs=60, batch_size=120, bootstrap=0).fit(
        x, Coarse(label // 2, torch.eye(2)), {0: 2, 1: 2}
    )
    assert (found.node_[found.labels_] == (label // 2).numpy()).all()
    assert (found.node_[found.predict(x.numpy())] == (label // 2).numpy()).mean() > 0.95
    if start is not None:
        table = torch.zeros(4, 4)
        table.index_put_((label, torch.from_numpy(found.labels_)), torch.ones(240), accumulate=True)
        assert float(table.max(dim=1).values.sum()) > 230


def test_one_output_per_class_and_no_regulariser_is_a_plain_classifier() -> None:
    label = torch.arange(3).repeat_interleave(40)
    x = torch.randn(120, 5, generator=G) + 2 * torch.eye(5)[label]
    settings = {"start": None, "hidden": 16, "epochs": 3, "bootstrap": 0}
    pooled = ACOL(affinity=0, balance=0, size=0, **settings).fit(x, Coarse(label, torch.eye(3)), {0: 1, 1: 1, 2: 1})
    plain = ACOL(affinity=0, balance=0, size=0, **settings).fit(x, Exact(label, 3), 3)
    assert (pooled.predict_log_proba(x.numpy()) == plain.predict_log_proba(x.numpy())).all()
