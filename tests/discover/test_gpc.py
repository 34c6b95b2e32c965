"""Marginal likelihoods, splits and merges, and the losses of GPC, against enumeration and by hand."""

import math

import pytest
import torch
from scipy.stats import multivariate_t

from anygrain.discover.evidence import Evidence
from anygrain.discover.gaussian_classes import Densities
from anygrain.discover.gpc import GPC, cluster_prior, concentration, contrast, told_contrast
from anygrain.discover.normal_inverse_wishart import Moments, NormalInverseWishart
from anygrain.discover.split_merge import Clusters, SplitMerge
from anygrain.labels import Coarse, Exact

G = torch.Generator().manual_seed(0)
D = 3
PRIOR = NormalInverseWishart(
    torch.tensor([0.1, -0.2, 0.3]).double(),
    torch.tensor(0.7).double(),
    torch.tensor(5.5).double(),
    torch.tensor([[1.0, 0.2, 0.0], [0.2, 2.0, 0.1], [0.0, 0.1, 0.5]]).double(),
)


def rows(n: int) -> torch.Tensor:
    return torch.randn(n, D, generator=G, dtype=torch.float64)


def one(x: torch.Tensor) -> Moments:
    found = Moments.of(x, torch.zeros(len(x), dtype=torch.long), 1)
    return found[torch.tensor([0])]


def test_moments_of_unions() -> None:
    x = rows(30)
    label = torch.randint(3, (30,), generator=G)
    moments = Moments.of(x, label, 3)
    both = moments[torch.tensor([0])].with_others(moments[torch.tensor([2])])
    together = x[label != 1]
    assert torch.allclose(both.mean[0], together.mean(dim=0), atol=1e-12)
    assert torch.allclose(both.scatter[0], torch.cov(together.T, correction=0) * len(together), atol=1e-10)
    for k in range(3):
        own = x[label == k]
        assert torch.allclose(moments.scatter[k], (own - own.mean(0)).T @ (own - own.mean(0)), atol=1e-10)


def test_a_set_is_as_probable_as_its_rows_one_by_one() -> None:
    x = rows(12)
    whole = float(PRIOR.log_marginal(one(x))[0])
    prior, total = PRIOR, 0.0
    for row in x:
        seen = Moments(torch.tensor(1.0).double(), row, torch.zeros(D, D).double())
        total += float(prior.log_marginal(seen))
        prior = prior.after(seen)
    assert whole == pytest.approx(total, abs=1e-9)


def test_a_single_row_is_student() -> None:
    x = rows(1)
    free = float(PRIOR.nu) - D + 1
    shape = PRIOR.psi * (float(PRIOR.kappa) + 1) / (float(PRIOR.kappa) * free)
    expected = multivariate_t.logpdf(x[0].numpy(), PRIOR.mean.numpy(), shape.numpy(), df=free)
    assert float(PRIOR.log_marginal(one(x))[0]) == pytest.approx(float(expected), abs=1e-9)


def test_densities_are_ratios_of_marginals() -> None:
    x, new = rows(20), rows(4)
    label = torch.arange(20) % 2
    moments = Moments.of(x, label, 2)
    found = Densities(PRIOR, moments, torch.float64)(new)
    for k in range(2):
        for i in range(4):
            more = one(torch.cat([x[label == k], new[i : i + 1]]))
            ratio = PRIOR.log_marginal(more)[0] - PRIOR.log_marginal(moments)[k]
            assert float(found[i, k]) == pytest.approx(float(ratio), abs=1e-9)


def search(x: torch.Tensor, told: torch.Tensor | None = None, n_known: int = 0, **settings: object) -> SplitMerge:
    labels = None if told is None else Exact(told, n_known)
    evidence = Evidence.read(labels, len(x), split=False)
    spread = 4 * (x - x.mean(dim=0)).square().mean()
    prior = NormalInverseWishart(
        x.mean(dim=0),
        torch.tensor(1e-2).double(),
        torch.tensor(D + 1.0).double(),
        0.05 * spread * torch.eye(D).double(),
    )
    return SplitMerge(x, evidence, prior, settings.pop("bounds", (1, 20)), **settings)  # type: ignore[arg-type]


def blobs(*sizes: int) -> tuple[torch.Tensor, torch.Tensor]:
    label = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    centre = 8 * torch.eye(D, dtype=torch.float64)[torch.arange(len(sizes)) % D]
    centre = centre * torch.where(torch.arange(len(sizes)) < D, 1.0, -1.0)[:, None]
    return rows(len(label)) * 0.5 + centre[label], label


def clusters(of: SplitMerge, label: torch.Tensor) -> Clusters:
    k = int(label.max()) + 1
    return Clusters(torch.zeros(k, dtype=torch.long), label, Moments.of(of.x, label, k))


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_splitting_is_the_inverse_of_merging_and_the_gain_of_the_score(share: float) -> None:
    x, label = blobs(20, 15)
    of = search(x, share=share)
    apart, whole = clusters(of, label), clusters(of, label * 0)
    first, second = apart.moments[torch.tensor([0])], apart.moments[torch.tensor([1])]
    gain = float(of.log_split(first.with_others(second), first, second)[0])
    assert gain == pytest.approx(of.score(apart) - of.score(whole), abs=1e-8)
    if share == 1:
        log_h = of.prior.log_marginal
        by_hand = math.lgamma(20) + math.lgamma(15) - math.lgamma(35)
        by_hand += float(log_h(first)[0] + log_h(second)[0] - log_h(whole.moments)[0])
        assert gain == pytest.approx(by_hand, abs=1e-8)


def test_two_blobs_are_split_and_one_in_two_is_merged() -> None:
    x, label = blobs(40, 40)
    of = search(x)
    found, moves = of.moved(clusters(of, label * 0), G)
    assert moves == 1
    assert found.number == 2
    assert bool((found.label == label).all()) or bool((found.label == 1 - label).all())
    x, label = blobs(60)
    of = search(x)
    found, moves = of.moved(clusters(of, torch.arange(60) % 2), G)
    assert moves == 1
    assert found.number == 1


def test_known_classes_shed_what_they_swallowed_but_no_told_row() -> None:
    x, label = blobs(40, 40, 40)
    told = torch.where((label < 2) & (torch.arange(120) % 2 == 0), label, -1)
    start = torch.where(label == 2, 0, label)  # class 2 is swallowed by the known class 0
    of = search(x, told, 2)
    found, _ = of.found(clusters(of, start), 10, 5, G)
    assert found.number == 3
    assert bool((found.label == label).all())
    published = search(x, told, 2, known_too=False)
    kept, moves = published.moved(clusters(published, start), G)
    assert moves == 0
    assert bool((kept.label == start).all())  # with a labelled row: neither split nor merged


def test_numbers_that_are_given_are_kept() -> None:
    x, label = blobs(30, 30, 30, 30)
    for number, start in ((2, label), (6, label), (4, label * 0)):
        of = search(x, bounds=(number, number), per_node=torch.tensor([number]))
        found, _ = of.found(clusters(of, start), 20, 5, G)
        assert found.number == number
    of = search(x, bounds=(5, 6))
    assert 5 <= of.found(clusters(of, label), 20, 5, G)[0].number <= 6


def test_the_learned_prior_is_the_most_probable_on_its_grid() -> None:
    from anygrain.discover.task import read_task

    x, label = blobs(20, 20, 20, 20)
    task, _ = read_task(
        x.float(), Exact(label, 4), (4, 8), encoder=None, train=False, seed=0, device=torch.device("cpu")
    )
    prior = cluster_prior(x, task, learned=True)
    seen = Moments.of(x, label, 4)
    other = cluster_prior(x, task, learned=False)
    assert float(prior.log_marginal(seen).sum()) > float(other.log_marginal(seen).sum())
    assert float(other.kappa) == 1e-4
    assert float(other.nu) == D + 1


def test_contrasts_by_double_loops() -> None:
    f = torch.nn.functional.normalize(rows(10), dim=1)
    label = torch.tensor([0, 0, 1, 1, 1, 2, 0, 2, 1, 3])
    tau = 0.3
    expected = 0.0
    for i in range(10):
        others = [math.exp(float(f[i] @ f[j]) / tau) for j in range(10) if j != i]
        positive = [j for j in range(10) if j != i and label[j] == label[i]]
        for j in positive:
            expected -= math.log(math.exp(float(f[i] @ f[j]) / tau) / sum(others)) / len(positive) / 10
    assert float(told_contrast(f, label, tau)) == pytest.approx(expected, abs=1e-9)
    views = torch.arange(5).repeat(2)
    assert float(contrast(f[:5], f[5:], tau)) == pytest.approx(float(told_contrast(f, views, tau)), abs=1e-9)


def test_concentration() -> None:
    f = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.9, 1], [-1, 0]])
    label = torch.tensor([0, 0, 1, 1, 2])
    prototype = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    phi = concentration(f, prototype, label, 0.2)
    assert float(phi.mean()) == pytest.approx(0.2, abs=1e-6)
    raw = torch.tensor([0.05, 0.45, 0.45]) / math.log(12)  # the single row has the largest
    cut = raw.clamp(float(raw.quantile(0.1)), float(raw.quantile(0.9)))
    assert torch.allclose(phi, 0.2 * cut / cut.mean(), atol=1e-6)


@pytest.mark.parametrize("turns", [0, 1])
def test_classes_are_found_with_their_number(turns: int) -> None:
    x, label = blobs(40, 40, 40, 40, 40)
    told = torch.where((label < 3) & (torch.arange(200) % 4 == 0), label, -1)
    number = 5 if turns else (3, 12)
    found = GPC(turns=turns, epochs=2, bootstrap=0).fit(x.float(), Exact(told, 3), number)
    assert found.n_classes_ == 5
    assert bool((torch.from_numpy(found.labels_)[label < 3] == label[label < 3]).all())
    assert (found.predict(x.float().numpy()) == found.labels_).mean() > 0.95


def test_classes_stay_below_their_coarse_class() -> None:
    x, label = blobs(30, 30, 30, 30)
    coarse = label // 2
    found = GPC(turns=0, bootstrap=0).fit(x.float(), Coarse(coarse, torch.eye(2)), {0: 2, 1: 2})
    assert found.n_classes_ == 4
    assert found.node_.tolist() == [0, 0, 1, 1]
    assert (found.node_[found.labels_] == coarse.numpy()).all()
    unknown = GPC(turns=0, bootstrap=0).fit(x.float(), Coarse(coarse, torch.eye(2)), (2, 8))
    assert (unknown.node_[unknown.labels_] == coarse.numpy()).all()


def test_nearest_means_and_chance_as_published() -> None:
    x, _ = blobs(30, 30, 30)
    first, second = (
        GPC(turns=0, assign="nearest", prior="published", worth=math.inf, known_too=False, chance=0.1, bootstrap=0).fit(
            x.float(), None, (2, 8)
        )
        for _ in range(2)
    )
    assert (first.labels_ == second.labels_).all()
