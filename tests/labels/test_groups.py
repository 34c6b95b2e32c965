"""Annotators of a few types."""

import math

import pytest
import torch

from anygrain.audit.annotators import judge_annotators
from anygrain.labels import Crowd, aggregate
from anygrain.labels.channels import Groups

EXPERT = torch.full((3, 3), 0.05).fill_diagonal_(0.9).double()
GUESSES = torch.full((3, 3), 1 / 3).double()
TURNED = EXPERT[[1, 0, 2]]  # takes class 0 for 1 and 1 for 0


def votes_of(types: torch.Tensor, per_item: int = 5, n: int = 600, seed: int = 0) -> tuple[torch.Tensor, Crowd]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(3, (n,), generator=generator)
    matrices = torch.stack([EXPERT, GUESSES, TURNED])[types]
    how = {"n_annotators": len(types), "votes_per_item": per_item, "confusion": matrices}
    return truth, Crowd.simulate(truth, 3, generator=generator, channel="groups", **how)


def test_types_are_found_and_their_number():
    types = torch.arange(120) % 4 % 3  # half are experts
    truth, votes = votes_of(types)
    found = aggregate(votes, pool=False)
    channel = found.channels[0]
    live = (channel.group_share > 0).nonzero()[:, 0]
    assert len(live) == 3
    # the type of an annotator is that of the others like them
    same = channel.group[:, None] == channel.group
    assert float((same == (types[:, None] == types)).double().mean()) > 0.95
    for t, matrix in enumerate((EXPERT, GUESSES, TURNED)):
        group = int(channel.group[types == t].mode().values)
        assert float((channel.group_confusion[group] - matrix).abs().max()) < 0.08
    known = judge_annotators(found.labels)
    assert known.group_confusion.shape == (3, 3, 3)
    assert float((known.group == 0).mean()) == pytest.approx(0.5, abs=0.05)  # numbered from the most common on
    assert "group" in known.columns()
    plain = aggregate(votes, channel="confusion")
    assert float((found.posterior.argmax(1) == truth).double().mean()) >= float(
        (plain.posterior.argmax(1) == truth).double().mean()
    )


def test_one_type_of_great_strength_is_one_matrix_and_of_small_strength_each_their_own():
    generator = torch.Generator().manual_seed(1)
    counts = 20 * torch.rand(5, 3, 3, generator=generator, dtype=torch.float64)
    channel = Groups(5, 3, n_groups=1)
    channel.prior_is_settled = True
    channel.group_confusion = EXPERT[None]
    channel.strength = torch.tensor(1e9, dtype=torch.float64)
    channel.update({"counts": counts})
    torch.testing.assert_close(channel.confusion, EXPERT.expand(5, 3, 3), atol=1e-6, rtol=0)
    channel.strength = torch.tensor(1e-9, dtype=torch.float64)
    channel.update({"counts": counts})
    torch.testing.assert_close(channel.confusion, counts / counts.sum(dim=2, keepdim=True), atol=1e-6, rtol=0)


def test_the_type_of_an_annotator_is_bayes_rule_over_sequences_of_votes():
    channel = Groups(1, 2, n_groups=2)
    share = torch.tensor([0.7, 0.3], dtype=torch.float64)
    matrices = torch.tensor([[[0.8, 0.2], [0.3, 0.7]], [[0.5, 0.5], [0.9, 0.1]]], dtype=torch.float64)
    strength = torch.tensor(3.0, dtype=torch.float64)
    counts = torch.tensor([[[2.0, 1.0], [0.0, 3.0]]], dtype=torch.float64)
    got = channel._log_member(counts, share, matrices, strength)[0]
    for g in range(2):
        total = math.log(float(share[g]))
        for k, votes in enumerate(([0, 0, 1], [1, 1, 1])):  # Polya's urn, one vote after another
            seen = [0.0, 0.0]
            for v in votes:
                total += math.log((3 * float(matrices[g, k, v]) + seen[v]) / (3 + sum(seen)))
                seen[v] += 1
        assert float(got[g]) == pytest.approx(total, rel=1e-9)


def test_as_many_types_as_were_asked_for():
    truth, votes = votes_of(torch.arange(60) % 4 % 3)
    fitted = aggregate(votes.with_channel(Groups(60, 3, n_groups=2)), pool=False)
    assert int((fitted.channels[0].group_share > 0).sum()) == 2
    kept = {name: value.clone() for name, value in fitted.channels[0].state_dict().items()}
    again = Groups(60, 3, n_groups=2)
    again.load_state_dict(kept)
    torch.testing.assert_close(again.confusion, fitted.channels[0].confusion)
    assert float((fitted.posterior.argmax(1) == truth).double().mean()) > 0.8
