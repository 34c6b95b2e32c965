"""Identities of the heads."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from anygrain.labels import LabelError
from anygrain.learn.head import HEADS, Linear, Prototype, Quadratic, class_means, fit_head, make_head


def random_head(name):
    torch.manual_seed(0)
    head = make_head(name, 5, 4).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return head


@pytest.mark.parametrize("name", HEADS)
def test_log_probs_are_normalised(name):
    log_probs = random_head(name)(torch.randn(7, 5, dtype=torch.float64))
    assert torch.allclose(log_probs.exp().sum(dim=1), torch.ones(7, dtype=torch.float64), atol=1e-12)


def test_quadratic_is_bayes_rule():
    head = random_head("quadratic")
    z = torch.randn(7, 5, dtype=torch.float64)
    covariances = torch.diag_embed(head.log_variance.exp())
    joint = torch.stack(
        [MultivariateNormal(m, c).log_prob(z) for m, c in zip(head.mean, covariances, strict=True)], dim=1
    )
    expected = (joint + head.log_prior).log_softmax(dim=1)
    assert torch.allclose(head(z), expected, atol=1e-9)


def test_prototypes_are_gaussians_of_one_variance():
    prototype, gaussian = random_head("prototype"), Quadratic(5, 4).double()
    with torch.no_grad():
        gaussian.mean.copy_(prototype.centre)
        gaussian.log_variance.fill_(-float(prototype.log_scale))
    z = torch.randn(7, 5, dtype=torch.float64)
    assert torch.allclose(prototype(z), gaussian(z), atol=1e-9)


def test_cosine_ignores_length():
    head = random_head("cosine")
    z = torch.randn(7, 5, dtype=torch.float64)
    assert torch.allclose(head(z), head(3 * z), atol=1e-12)


def test_class_means_of_hard_posteriors():
    z = torch.randn(6, 3, dtype=torch.float64)
    posterior = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 1, 1, 1]), 3).double()
    means = class_means(z, posterior)
    assert torch.allclose(means[0], (z[:3].sum(dim=0) + z.mean(dim=0)) / 4)
    assert torch.allclose(means[2], z.mean(dim=0))


def test_fitting_finds_the_stationary_point():
    torch.manual_seed(0)
    z, weight = torch.randn(40, 3, dtype=torch.float64), torch.rand(40, dtype=torch.float64)
    posterior = torch.randn(40, 4, dtype=torch.float64).softmax(dim=1)
    head = fit_head(Linear(3, 4).double(), z, posterior, weight=weight, penalty=0.1, steps=200)
    error = (head(z).exp() - posterior) * (weight / weight.sum())[:, None]
    gradient = (error.T @ z + 0.1 * head.weight).detach()
    assert float(gradient.abs().max()) < 1e-5


def test_unknown_head_is_named():
    with pytest.raises(LabelError, match='head "lineer" is not known: expected one of linear'):
        make_head("lineer", 2, 2)
    assert isinstance(make_head(Prototype, 2, 3), Prototype)
