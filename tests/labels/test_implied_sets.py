"""Sets that others imply are left out, and nothing changes by that."""

import pytest
import torch

from anygrain.labels import AnyOf, AtLeast, Bags, Proportions
from anygrain.labels.implied_sets import drop_implied, member_keys

N = 17  # more joint states than are enumerated


def bags():
    return Bags.from_ids(torch.tensor([0] * N + [1] * 3 + [2] * N))


def log_probs(k=2):
    return torch.randn(2 * N + 3, k, generator=torch.Generator().manual_seed(0)).double().log_softmax(dim=1)


def test_any_of_and_a_rate_are_exact():
    said = torch.tensor([1, -1, 0])
    labels = AnyOf(bags(), said, 1, 2) & Proportions.about(bags(), {1: 0.1}, 2, where=said == 1)
    assert labels.exact
    log_p = log_probs()
    value, posterior = labels.infer(log_p)
    classes = torch.cartesian_prod(*[torch.arange(2)] * N)
    one = Bags.from_ids(torch.zeros(N, dtype=torch.long))
    rate = Proportions.about(one, {1: 0.1}, 2)
    told = torch.cat([rate.log_prob_given(part)[:, 0] for part in classes.split(2**15)])
    told = told.masked_fill(classes.sum(dim=1) == 0, -torch.inf)
    weight = log_p[:N][torch.arange(N), classes].sum(dim=1) + told
    torch.testing.assert_close(value[:3].sum() + value[3:].sum(), weight.logsumexp(0) + log_p[-N:, 0].sum())
    torch.testing.assert_close(posterior[:N, 1], weight.softmax(dim=0) @ classes.double())
    torch.testing.assert_close(posterior[N : N + 3], log_p[N : N + 3].exp())
    assert float(posterior[-N:, 1].max()) == 0
    assert labels.record_scores(log_p)[0] == pytest.approx(0, abs=1e-12)


def test_only_what_is_implied_is_left_out():
    everything = bags()
    shares = torch.tensor([[0.5, 0.3, 0.2], [torch.nan] * 3, [0.0, 1.0, 0.0]])
    noisy = Proportions(everything, shares, 20.0)
    yes = torch.ones(3, dtype=torch.long)
    parts = [noisy, AnyOf(everything, yes, 2, 3), AtLeast(everything, 2 * yes, 1, 3), AnyOf(everything, 1 - yes, 0, 3)]
    owners = list(torch.arange(12).view(4, 3))
    left, kept, gone = drop_implied(parts, owners, torch.ones(12, dtype=torch.bool))
    # the second bag's shares are not known; two of a class are more than one; none of a class is more than any
    assert sorted(gone.tolist()) == [1, 3]
    assert [len(part.sets) for part in left] == [2, 2, 3, 3]
    assert torch.cat(kept).tolist() == [0, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert drop_implied(parts, owners, torch.zeros(12, dtype=torch.bool))[2].tolist() == []
    assert drop_implied(parts[1:], owners[1:], torch.ones(9, dtype=torch.bool))[2].tolist() == []


def test_the_same_members_in_another_order_have_the_same_key():
    one, other = (
        Bags(torch.tensor([0, 1, 2, 3, 1]), torch.tensor([0, 3, 5])),
        Bags(torch.tensor([2, 0, 1]), torch.tensor([0, 3]), 4),
    )
    key = member_keys([one, other], 4)
    assert torch.equal(key[0], key[2])
    assert not torch.equal(key[0], key[1])
