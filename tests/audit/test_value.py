"""Values of labels: Shapley values by all subsets, influence by fitting again without the row."""

from itertools import combinations
from math import comb

import pytest
import torch

from anygrain.audit import knn_shapley, label_influence
from anygrain.audit.value import held_out_value

F = torch.float64


def brute_force(features, match, validation, k):
    n = len(features)
    order = torch.cdist(validation, features).argsort(dim=1)

    def utility(rows):
        if not rows:
            return 0.0
        total = 0.0
        for v in range(len(validation)):
            near = [int(i) for i in order[v] if int(i) in rows][:k]
            total += sum(float(match[v, i]) for i in near) / k
        return total / len(validation)

    value = [0.0] * n
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            for rows in combinations(others, size):
                gain = utility({*rows, i}) - utility(set(rows))
                value[i] += gain / (n * comb(n - 1, size))
    return torch.tensor(value, dtype=F), utility(set(range(n)))


@pytest.mark.parametrize("k", [1, 2, 3, 9])
@pytest.mark.parametrize("soft", [False, True])
def test_shapley_values_are_those_of_all_subsets(k, soft):
    g = torch.Generator().manual_seed(k)
    x, z = torch.randn(6, 2, generator=g), torch.randn(3, 2, generator=g)
    y, u = torch.randint(3, (6,), generator=g), torch.randint(3, (3,), generator=g)
    match = (u[:, None] == y).double()
    if soft:
        y, u = torch.rand(6, 3, generator=g).softmax(dim=1), torch.rand(3, 3, generator=g).softmax(dim=1)
        match = u.double() @ y.double().T
    value, whole = brute_force(x, match, z, k)
    found = knn_shapley(x, y, z, u, neighbours=k)
    assert torch.allclose(found, value, atol=1e-9)
    assert float(found.sum()) == pytest.approx(whole, abs=1e-9)  # what all rows are worth together


def test_shapley_values_in_chunks_and_of_mixed_labels_agree(monkeypatch):
    g = torch.Generator().manual_seed(0)
    x, z = torch.randn(40, 3, generator=g), torch.randn(30, 3, generator=g)
    y, u = torch.randint(3, (40,), generator=g), torch.randint(3, (30,), generator=g)
    whole = knn_shapley(x, y, z, u)
    monkeypatch.setattr("anygrain.audit.value.CHUNK", 100)
    one_hot = torch.nn.functional.one_hot
    for labels, other in ((one_hot(y, 3), u), (y, one_hot(u, 3)), (one_hot(y, 3), one_hot(u, 3))):
        assert torch.allclose(knn_shapley(x, labels, z, other), whole, atol=1e-9)
    assert knn_shapley(x[:0], y[:0], z, u).shape == (0,)


def fitted_loss(x, y, z, u, keep, penalty, n):
    """Validation loss of the head fitted to some rows, the loss of each weighed as among all n."""
    one = torch.ones(len(x), 1, dtype=F)
    x = torch.cat([x, one], dim=1)
    z = torch.cat([z, torch.ones(len(z), 1, dtype=F)], dim=1)
    w = torch.zeros(x.shape[1], 3, dtype=F, requires_grad=True)
    decay = torch.full((x.shape[1], 1), penalty, dtype=F)
    decay[-1] = 1e-6
    optimiser = torch.optim.LBFGS(
        [w], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(x[keep] @ w, y[keep], reduction="sum") / n
        loss = loss + (decay * w.square()).sum() / 2
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(torch.nn.functional.cross_entropy(z @ w.detach(), u))


def test_influence_is_what_fitting_again_without_the_row_gives():
    g = torch.Generator().manual_seed(0)
    n, penalty = 100, 0.05
    centre = torch.randn(3, 4, generator=g, dtype=F)
    y, u = torch.randint(3, (n,), generator=g), torch.randint(3, (80,), generator=g)
    x = centre[y] + torch.randn(n, 4, generator=g, dtype=F)
    z = centre[u] + torch.randn(80, 4, generator=g, dtype=F)
    y[:6] = (y[:6] + 1) % 3
    found = label_influence(x, y, z, u, penalty=penalty, steps=300)
    everything = torch.ones(n, dtype=torch.bool)
    base = fitted_loss(x, y, z, u, everything, penalty, n)
    rows = [*range(8), 50, 51]
    actual = []
    for i in rows:
        keep = everything.clone()
        keep[i] = False
        actual.append(fitted_loss(x, y, z, u, keep, penalty, n) - base)
    actual = torch.tensor(actual, dtype=F)
    assert float((found[rows] - actual).abs().max()) < 0.2 * float(actual.abs().max())
    assert float(torch.corrcoef(torch.stack([found[rows], actual]))[0, 1]) > 0.99
    one_hot = torch.nn.functional.one_hot(y, 3).to(F)
    assert torch.allclose(label_influence(x, one_hot, z, u, penalty=penalty, steps=300), found, atol=1e-10)


def test_wrong_labels_are_worth_less_in_both_halves():
    g = torch.Generator().manual_seed(0)
    truth = torch.randint(3, (300,), generator=g)
    x = 3 * torch.eye(3)[truth] + torch.randn(300, 3, generator=g)
    wrong = torch.rand(300, generator=g) < 0.1
    given = torch.where(wrong, (truth + 1) % 3, truth)
    values = held_out_value(x.numpy(), torch.eye(3)[given], torch.eye(3)[truth], torch.arange(300).numpy())
    for value in values:
        assert value[wrong.numpy()].mean() < 0 < value[~wrong.numpy()].mean()
