"""Gaussians by EM: densities written out, likelihood that never falls, and labels that hold."""

import numpy as np
import pytest
import torch

from anygrain.discover import ConstrainedMixture, GaussianMixture
from anygrain.discover.components import components
from anygrain.discover.evidence import Evidence
from anygrain.discover.gaussians import fit, joint, start
from anygrain.labels import Coarse, Exact, Pairs


def rows(seed=0, n=200, d=3, k=3):
    rng = np.random.default_rng(seed)
    y = rng.integers(k, size=n)
    spread = np.diag([3.0, 1.0, 0.3][:d])
    return torch.from_numpy(4 * rng.normal(size=(k, d))[y] + rng.normal(size=(n, d)) @ spread), torch.from_numpy(y)


@pytest.mark.parametrize("shape", ["tied", "diagonal", "spherical"])
def test_the_model_is_the_mixture_written_out(shape):
    z, y = rows()
    mixture = start(z, y, torch.zeros(3, 3, dtype=z.dtype), shape)
    cov = [mixture.tied if shape == "tied" else torch.diag(mixture.variance[k]) for k in range(3)]
    parts = [
        torch.distributions.MultivariateNormal(mixture.centre[k], cov[k]).log_prob(z) + mixture.share[k].log()
        for k in range(3)
    ]
    expected = torch.stack(parts, dim=1)
    map_, centre, precision, logdet = mixture.whitened()
    got = joint(z @ map_, centre, precision, mixture.share.log()) + logdet
    np.testing.assert_allclose(got, expected, rtol=1e-8)
    model = mixture.model(torch.zeros(3, dtype=z.dtype), torch.eye(3, dtype=z.dtype))
    np.testing.assert_allclose(model({"features": z}), expected.log_softmax(dim=1), atol=1e-8)


@pytest.mark.parametrize("shape", ["tied", "diagonal", "spherical"])
def test_moments_of_the_start(shape):
    z, y = rows()
    mixture = start(z, y, torch.zeros(3, 3, dtype=z.dtype), shape)
    size = torch.bincount(y)
    for k in range(3):
        np.testing.assert_allclose(mixture.centre[k], z[y == k].mean(dim=0))
    np.testing.assert_allclose(mixture.share, (size + 1) / (len(z) + 3))
    within = sum((z[y == k] - mixture.centre[k]).T @ (z[y == k] - mixture.centre[k]) for k in range(3)) / len(z)
    if shape == "tied":
        np.testing.assert_allclose(mixture.tied, within + 1e-3 * within.diagonal().mean() * torch.eye(3))
    if shape == "spherical":
        assert (mixture.variance == mixture.variance[:, :1]).all()
    counts = {"tied": 6, "diagonal": 9, "spherical": 3}
    assert mixture.n_parameters() == 9 + 2 + counts[shape]


@pytest.mark.parametrize("shape", ["tied", "diagonal", "spherical"])
@pytest.mark.parametrize("said", ["nothing", "classes", "pairs"])
def test_the_likelihood_never_falls(shape, said, monkeypatch):
    import anygrain.discover.gaussians as file

    z, y = rows(n=60)
    told = torch.where(torch.arange(60) % 4 == 0, y, -1)
    labels = {"nothing": None, "classes": Exact(told, 3), "pairs": None}[said]
    if said == "pairs":
        i, j = torch.arange(0, 60, 2), torch.arange(1, 60, 2)
        labels = Pairs(i, j, (y[i] == y[j]).long(), 60, 3)
    evidence = Evidence.read(labels, 60, split=False)
    monkeypatch.setattr(file, "FLOOR", 0.0)  # the floors and priors are not of the likelihood
    monkeypatch.setattr(file, "PRIOR", 1e-9)
    node = torch.zeros(3, dtype=torch.long)
    centre = z[:3].clone()
    label = torch.cdist(z, centre).argmin(dim=1)
    values = []
    for steps in range(1, 8):
        values.append(fit(z, evidence, node, start(z, label, centre, shape), steps).value)
    assert (np.diff(values) > -2e-3).all()  # shares are pulled a little to the uniform
    assert values[-1] > values[0]


def test_one_shape_is_learnt_from_all_classes():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 4
    x = np.stack([10 * rng.normal(size=400), y + 0.12 * rng.normal(size=400)], axis=1).astype(np.float32)  # layers
    told = np.where((y < 2) & (np.arange(400) % 5 < 2), y, -1)
    found = ConstrainedMixture(bootstrap=0, starts=10).fit(x, Exact(torch.from_numpy(told), 2), 4)
    assert (found.labels_[y < 2] == y[y < 2]).mean() > 0.95


def test_bic_chooses_shape_and_number():
    rng = np.random.default_rng(0)
    y = np.arange(600) % 5
    ball = (12 * np.eye(5)[y] + rng.normal(size=(600, 5))).astype(np.float32)
    found = GaussianMixture(bootstrap=0).fit(ball, None, (2, 12))
    assert found.n_classes_ == 5
    assert found.covariance_ == "spherical"
    assert found.n_classes_interval_[0] <= 5 <= found.n_classes_interval_[1]
    node = Coarse(torch.from_numpy(y // 3), torch.eye(2))
    below = GaussianMixture(bootstrap=0).fit(ball, node)
    assert np.bincount(below.node_).tolist() == [3, 2]


@pytest.mark.parametrize("wide", [6, 2100])
def test_components_are_those_of_the_library(wide):
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 5)) * [9, 7, 5, 3, 2] @ np.linalg.qr(rng.normal(size=(wide, 5)))[0].T + 3
    mean, basis = components(torch.from_numpy(x), 3)
    library = PCA(3).fit(x)
    np.testing.assert_allclose(np.abs(library.components_ @ basis.numpy()), np.eye(3), atol=1e-6)
    np.testing.assert_allclose(mean, library.mean_)
    assert components(torch.from_numpy(x), 64)[1].shape[1] == 5  # no directions without spread


def test_rows_that_are_nearly_a_class_each_far_from_the_middle_have_a_covariance():
    generator = torch.Generator().manual_seed(0)
    near = torch.randn(6, 12, generator=generator) * 1e-4 + 3.0
    far = torch.randn(40, 12, generator=generator) - 1.0
    x, side = torch.cat([near, far]), torch.tensor([0] * 6 + [1] * 40)
    found = GaussianMixture(bootstrap=0).fit(x.numpy(), Coarse(side, torch.eye(2)))
    assert np.isfinite(found.log_probs_).all()
    assert np.array_equal(found.node_[found.labels_], side.numpy())
