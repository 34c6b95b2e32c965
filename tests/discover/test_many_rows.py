"""Many rows: a sample stands for them where a method says so, and rows are worked on in parts that change nothing."""

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

import anygrain.discover.components as components_file
import anygrain.discover.evidence as evidence_file
import anygrain.discover.exemplars as exemplars_file
import anygrain.discover.gaussians as gaussians_file
import anygrain.discover.semi_supervised_k_means as k_means_file
from anygrain.discover.components import components, projected
from anygrain.discover.constrained_k_means import ConstrainedKMeans
from anygrain.discover.constrained_mixture import ConstrainedMixture
from anygrain.discover.discoverer import Discoverer
from anygrain.discover.evidence import LogEvidence, belief, believed
from anygrain.discover.exemplars import exemplars
from anygrain.discover.found import Found
from anygrain.discover.semi_supervised_k_means import Centres, SemiSupervisedKMeans
from anygrain.discover.task import NODE_ROWS, TOLD_ROWS, read_task
from anygrain.encoders import Table
from anygrain.labels import Coarse, Exact, Pairs
from anygrain.metrics import hungarian_accuracy

N, K = 3000, 6
Y = np.random.default_rng(1).choice(K, N, p=[0.3, 0.3, 0.2, 0.1, 0.08, 0.02])
X = (9 * np.eye(K)[Y] + np.random.default_rng(0).normal(size=(N, K))).astype(np.float32)
TOLD = np.where((Y < 4) & (np.arange(N) % 5 == 0), Y, -1)


def task_of(labels, n_classes=K):
    return read_task(X, labels, n_classes, encoder=None, train=False, seed=0, device=torch.device("cpu"))[0]


def test_a_sample_keeps_something_of_all_that_is_said():
    node = (Y == 5).astype(int)
    i, j = torch.arange(0, 1000, 2), torch.arange(1, 1000, 2)
    pairs = Pairs(i, j, torch.from_numpy(Y[i] == Y[j]).long(), N, 2)
    known = np.where(Y == 3, 1, np.where(TOLD == 0, 0, -1))
    labels = Coarse(torch.from_numpy(node), torch.eye(2)) & Exact(torch.from_numpy(known), 2)
    task = task_of(labels & pairs, {0: 5, 1: 1})
    few = task.sample(100)
    told, where = few.evidence.sure_known(), few.evidence.sure_node()
    assert (torch.bincount(told[told >= 0], minlength=2) >= TOLD_ROWS).all()
    assert int((where == 1).sum()) == min(NODE_ROWS, int(node.sum()))
    assert int((where == 0).sum()) >= NODE_ROWS
    assert len(few.evidence.pairs) >= 25
    assert few.n_rows < 100 + 2 * TOLD_ROWS + 2 * NODE_ROWS + 50
    assert few.n_known == 2
    assert torch.equal(few.rows[torch.arange(few.n_rows)]["features"], few.features)
    assert task.sample(N) is task


def test_a_sample_of_what_is_said_of_nothing_is_of_its_size_and_random():
    shares = np.bincount(Y[task_of(None).sample(1000).rows.chosen], minlength=K) / 1000
    np.testing.assert_allclose(shares, np.bincount(Y) / N, atol=0.04)


class FromSome(Discoverer):
    """Means of the told rows among those it is shown."""

    learns_from = 200

    def _find(self, task, callback=None):
        self.__dict__.setdefault("seen", task.n_rows)  # refits see fewer
        told = task.evidence.sure_known()
        own = one_hot(told[told >= 0], K).float()
        centre = (own.T @ task.features[told >= 0]) / own.sum(dim=0)[:, None]
        return Found(task.node, Centres(centre, torch.tensor(1.0)))


def test_a_method_that_learns_from_some_rows_reads_all(monkeypatch):
    monkeypatch.setattr("anygrain.discover.discoverer.PER_CLASS", 20)
    told = np.where(np.arange(N) % 3 == 0, Y, -1)
    found = FromSome(bootstrap=2).fit(X, Exact(torch.from_numpy(told), K), K)
    assert 200 <= found.seen < 200 + K * TOLD_ROWS
    assert found.log_probs_.shape == (N, K)
    assert (found.labels_ == Y).mean() > 0.99
    assert (found.labels_ == told)[told >= 0].all()
    assert (found.stability_ > 0.9).all()


@pytest.mark.parametrize(
    ("of", "module", "name"),
    [
        (ConstrainedMixture, gaussians_file, "FINISHED_ROWS"),
        (SemiSupervisedKMeans, k_means_file, "TRIED_ROWS"),
        (ConstrainedKMeans, "anygrain.discover.constrained_k_means", "TRIED_ROWS"),
    ],
)
def test_starts_are_tried_on_some_rows_and_the_best_goes_on_with_all(of, module, name, monkeypatch):
    labels = Exact(torch.from_numpy(TOLD), 4)
    whole = of(bootstrap=0).fit(X, labels, K)
    if isinstance(module, str):
        monkeypatch.setattr(f"{module}.{name}", 500)
    else:
        monkeypatch.setattr(module, name, 500)
    some = of(bootstrap=0).fit(X, labels, K)
    assert hungarian_accuracy(some.labels_, Y).all > 0.99
    assert (some.labels_ == whole.labels_).mean() > 0.99
    # what was fitted to all rows lies nearer to them than what was fitted to some would
    means = np.stack([X[whole.labels_ == k].mean(axis=0) for k in range(K)])
    np.testing.assert_allclose(means, [X[some.labels_ == k].mean(axis=0) for k in range(K)], atol=0.05)


def test_beliefs_are_those_written_out_however_far_apart_classes_are():
    log_joint = torch.tensor([[0.0, -70.0, -90.0, -1000.0], [-500.0, -501.0, -torch.inf, -600.0]])
    table = torch.tensor([[0.0, 0, 0, 0], [-torch.inf, 0, 0, 0]])
    value, posterior = belief(LogEvidence(table), log_joint)
    exact = (log_joint + table).double()
    np.testing.assert_allclose(posterior, exact.softmax(dim=1), atol=1e-7)
    assert value == pytest.approx(float(exact.logsumexp(dim=1).sum()))
    assert posterior[1, 0] == posterior[1, 2] == 0
    assert posterior[0, 1] > 0  # small, not nothing
    tiny = torch.finfo(torch.float32).tiny
    assert ((posterior == 0) | (posterior >= tiny)).all()  # numbers that processors are slow with do not come up
    torch.testing.assert_close(log_joint[0], torch.tensor([0.0, -70.0, -90.0, -1000.0]))  # what is given stays


def test_parts_change_nothing(monkeypatch):
    task = task_of(Exact(torch.from_numpy(TOLD), 4))
    log_probs = torch.randn(N, K, generator=torch.Generator().manual_seed(0)).log_softmax(dim=1)
    label = torch.from_numpy(Y)
    mean, basis = components(task.features, 3)

    def all_of_it():
        return (
            believed(log_probs, task.evidence, task.node),
            task.evidence.sure_known(),
            projected(task.features, mean, basis),
            Table().learn(X)(X),
        ), [rows.tolist() for rows in exemplars(task.features, label, K)]

    whole, shown = all_of_it()
    for module in (evidence_file, components_file, exemplars_file):
        monkeypatch.setattr(module, "AT_ONCE", 37)
    monkeypatch.setattr("anygrain.encoders.table.AT_ONCE", 37)
    parts, shown_again = all_of_it()
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)
    assert shown == shown_again
    torch.testing.assert_close(whole[2], (task.features - mean) @ basis)
    own = task.evidence.over(task.node).posterior(log_probs.double())
    torch.testing.assert_close(whole[0], own.float())


def test_every_refit_is_told_of():
    told = []
    SemiSupervisedKMeans(starts=1, bootstrap=3).fit(X[:300], None, 3, callback=lambda *step: told.append(step))
    steps = [(done, total) for done, total, facts in told if facts["step"].startswith("stability")]
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [facts["step"] for _, _, facts in told][-2:] == ["stability 3 of 3"] * 2
