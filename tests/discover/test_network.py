"""What methods with gradients share."""

import pytest
import torch

from anygrain.discover.neighbours import neighbours
from anygrain.discover.network import ClassNetwork, CosineHead, Pace, Residual, Said, Views, train
from anygrain.discover.task import read_task
from anygrain.encoders import Transformer
from anygrain.labels import Coarse, Exact, Pairs
from anygrain.learn.graph import nearest

CPU = torch.device("cpu")


def blobs(n=60, classes=3, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    means = torch.randn(classes, dim, generator=generator) * 3
    return means[y] + torch.randn(n, dim, generator=generator), y


def task_of(x, labels, n_classes, **how):
    from anygrain.encoders.encoder import Encoder

    class AsItIs(Encoder):
        feature_dim = x.shape[1] if torch.is_tensor(x) else 0

        def forward(self, data):
            return torch.as_tensor(data).float()

    encoder = how.pop("encoder", None) or AsItIs()
    return read_task(x, labels, n_classes, encoder=encoder, train=how.pop("train", False), seed=0, device=CPU)[0]


def test_residual_layer_is_the_identity_at_the_start_but_learns():
    x, _ = blobs()
    layer = Residual(5, 7)
    assert torch.equal(layer(x), x)
    layer(x).sum().backward()
    assert layer.second.weight.grad.abs().sum() > 0
    assert layer.first.weight.grad.abs().sum() == 0  # nothing passes W2 = 0


def test_cosine_head_sees_directions_alone():
    generator = torch.Generator().manual_seed(1)
    w, z = torch.randn(4, 5, generator=generator).double(), torch.randn(6, 5, generator=generator).double()
    head = CosineHead(w, 0.1)
    by_hand = torch.tensor([[float(a @ b / a.norm() / b.norm() / 0.1) for b in w] for a in z], dtype=torch.float64)
    assert torch.allclose(head(z), by_hand, atol=1e-9)
    assert torch.allclose(CosineHead(3 * w, 0.1)(7 * z), by_hand, atol=1e-9)


def test_views_of_features_lie_between_a_row_and_one_of_its_neighbours():
    x, _ = blobs()
    task, near = task_of(x, None, 3), nearest(x, 10)[1]
    rows = torch.arange(60)
    first, second = Views(task)(rows, torch.Generator().manual_seed(0))
    assert torch.equal(first["features"], x)
    off = second["features"] - x
    along = x[near] - x[:, None]  # (N, 10, D)
    share = (off[:, None] * along).sum(2) / along.square().sum(2)
    apart = (share[..., None] * along - off[:, None]).norm(dim=2)
    assert apart.amin(dim=1).max() < 1e-4
    assert ((share >= 0) & (share <= 1))[torch.arange(60), apart.argmin(dim=1)].all()
    other = Views(task, "neighbour")(rows, torch.Generator().manual_seed(0))[1]["features"]
    assert (torch.cdist(other, x).argmin(dim=1)[:, None] == near).any(dim=1).all()
    jittered = Views(task, "jitter", strength=0.0)(rows, torch.Generator().manual_seed(0))[1]["features"]
    assert torch.equal(jittered, x)


def test_an_encoder_brings_its_own_views():
    texts = [f"a question about {what} number {n}" for n in range(10) for what in ("cards", "loans")]
    task = task_of(texts, None, 2, encoder=Transformer(dim=8, layers=1, heads=2), train=True)
    rows = torch.arange(20)
    first, second = Views(task)(rows, torch.Generator().manual_seed(0))
    again = Views(task)(rows, torch.Generator().manual_seed(0))
    assert set(first) == {"words", "letters"}
    assert all(torch.equal(second[name], again[1][name]) for name in second)
    assert not torch.equal(first["words"], second["words"])


def test_what_is_said_of_a_batch_is_what_the_evidence_says_of_all():
    x, y = blobs()
    said = torch.where(torch.arange(60) % 4 == 0, y, -1)
    said[said == 2] = -1
    coarse = Coarse(torch.where(torch.arange(60) % 2 == 0, y.clamp(max=1), -1), torch.eye(2))
    for labels, number in ((Exact(said, 2), 4), (coarse, {0: 2, 1: 3}), (coarse & Exact(said, 2), {0: 2, 1: 3})):
        task = task_of(x, labels, number)
        of, table = Said(task, task.node), task.evidence.log_table(task.node)
        rows = torch.randperm(60, generator=torch.Generator().manual_seed(3))[:20]
        assert torch.equal(of.table(rows), table[rows])
        log_probs = torch.randn(20, len(task.node), generator=torch.Generator().manual_seed(1)).double().log_softmax(1)
        whole = task.evidence.of_rows(rows).over(task.node)
        assert torch.allclose(of.posterior(log_probs, rows), whole.posterior(log_probs), atol=1e-9)
        told = (table[rows] != 0).any(dim=1)
        by_hand = [-(log_probs[i] + table[rows][i]).logsumexp(0) for i in range(20) if told[i]]
        assert float(of.loss(log_probs, rows)) == pytest.approx(float(torch.stack(by_hand).mean()), abs=1e-9)


def test_supervised_loss_of_exact_rows_is_cross_entropy_and_0_without_rows():
    x, y = blobs()
    task = task_of(x, Exact(y, 3), 3)
    log_probs = torch.randn(60, 3, generator=torch.Generator().manual_seed(1)).log_softmax(1)
    loss = Said(task, task.node).loss(log_probs, torch.arange(60))
    assert float(loss) == pytest.approx(float(torch.nn.functional.nll_loss(log_probs, y)), abs=1e-6)
    silent = task_of(x, None, 3)
    assert float(Said(silent, silent.node).loss(log_probs, torch.arange(60))) == 0


def test_pair_loss_is_the_likelihood_of_the_answers():
    x, _ = blobs()
    task = task_of(x, Pairs(torch.tensor([0, 1]), torch.tensor([3, 5]), torch.tensor([1, 0]), 60, 3), 3)
    network = ClassNetwork(CosineHead(torch.randn(3, 5, generator=torch.Generator().manual_seed(0))))
    p = network({"features": x}).exp()
    by_hand = -(torch.log(p[0] @ p[3]) + torch.log(1 - p[1] @ p[5])) / 2
    loss = Said(task, task.node).pair_loss(network, 8, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-5)


def test_training_is_deterministic_and_brings_a_loss_down():
    x, y = blobs()

    def trained(seed):
        network = ClassNetwork(CosineHead(torch.eye(3, 5)), Residual(5, 8))
        told = []
        history = train(
            network,
            lambda rows, moment: (-network({"features": x[rows]})[torch.arange(len(rows)), y[rows]].mean(), {}),
            60,
            Pace(epochs=30, batch_size=16, rate=1e-2),
            seed=seed,
            callback=lambda done, total, facts: told.append((done, total)),
        )
        return network.head.direction.detach(), history, told

    first, second, other = trained(0), trained(0), trained(1)
    assert torch.equal(first[0], second[0])
    assert first[1] == second[1]
    assert not torch.equal(first[0], other[0])
    assert first[1][-1]["loss"] < 0.1 < first[1][0]["loss"]
    assert first[2] == [(epoch + 1, 30) for epoch in range(30)]


def test_every_row_is_seen_once_an_epoch():
    seen = []
    network = ClassNetwork(CosineHead(torch.eye(2)))

    def loss(rows, moment):
        seen.append((moment.epoch, rows))
        return network.head.direction.sum(), {}

    train(network, loss, 50, Pace(epochs=2, batch_size=16), seed=0)
    for epoch in (0, 1):
        rows = torch.cat([rows for at, rows in seen if at == epoch])
        assert torch.equal(rows.sort().values, torch.arange(50))


def test_cells_find_nearly_all_neighbours_and_never_a_row_itself():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 8, generator=generator)[torch.arange(5000) % 6] * 3 + torch.randn(5000, 8, generator=generator)
    exact, fast = nearest(x, 10)[1], neighbours(x, 10, exact=1000)
    shared = (exact[:, :, None] == fast[:, None, :]).any(dim=2).float().mean()
    assert shared > 0.85
    assert not (fast == torch.arange(5000)[:, None]).any()
    assert torch.equal(neighbours(x, 10), exact)


def test_an_epoch_of_many_rows_goes_through_some_drawn_anew():
    x, y = blobs(100)
    network = ClassNetwork(CosineHead(torch.randn(3, 5)))
    seen = []

    def loss(rows, moment):
        seen.append(rows)
        return -network({"features": x[rows]})[torch.arange(len(rows)), y[rows]].mean(), {}

    history = train(network, loss, 100, Pace(epochs=2, batch_size=10, most_batches=3), seed=0)
    assert len(history) == 2
    assert [len(rows) for rows in seen] == [10] * 6
    first, second = (set(torch.cat(part).tolist()) for part in (seen[:3], seen[3:]))
    assert len(first) == len(second) == 30
    assert first != second
    seen.clear()
    train(network, loss, 100, Pace(epochs=1, batch_size=10, most_batches=30), seed=0)
    assert sorted(torch.cat(seen).tolist()) == list(range(100))
