"""The user's groups of rows outlive whatever is done to labels before and during a fit."""

import torch

from anygrain.data.groups import Grouped
from anygrain.labels import Crowd, Exact, Rules
from anygrain.learn.given_x import target_from_sources
from anygrain.learn.recipe import without_exact
from anygrain.learn.started_channels import with_started_channels


def test_groups_stay():
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(40) % 2
    crowd = Crowd.simulate(truth, 2, generator=generator, n_annotators=4)
    rules = Rules(torch.where(torch.rand(40, 3, generator=generator) < 0.5, truth[:, None], -1), 2)
    group = torch.arange(40) // 4
    labels = Grouped(crowd, rules, Exact(torch.where(torch.arange(40) < 8, truth, -1), 2), group=group)
    made = [
        labels.with_own_channels(),
        labels.with_error(0.1),
        labels.to("cpu"),
        labels.relabel(torch.tensor([1, 0]), 2),
        target_from_sources(labels),
        with_started_channels(labels),
        without_exact(labels, torch.ones(40, dtype=torch.bool)),
    ]
    for other in made:
        assert torch.equal(torch.unique(other.groups(), return_inverse=True)[1], group)
    rows = torch.arange(39, -1, -1)
    assert torch.equal(labels[rows].groups(), group)
