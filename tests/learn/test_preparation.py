"""What happens to labels before a Learner fits them: a common error, targets from rules, channels of its own."""

import numpy as np
import torch

from anygrain.labels import All, Coarse, Crowd, Exact, Rules, aggregate
from anygrain.learn import Learner
from anygrain.learn.common_error import common_error
from anygrain.learn.given_x import SourceTarget, target_from_sources

PARENT = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])


def labels_with_conflicts(share: float, n: int = 4000) -> All:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(4, (n,), generator=generator)
    wrong = torch.rand(n, generator=generator) < share
    said = torch.where(wrong, torch.randint(4, (n,), generator=generator), truth)
    return Exact(said, 4) & Coarse(truth // 2, PARENT)


def test_labels_that_agree_share_no_error():
    assert common_error(labels_with_conflicts(0.0)) == 0.0
    assert common_error(Exact(torch.tensor([0, 1]), 2)) == 0.0


def test_the_common_error_grows_with_the_conflicts():
    found = [common_error(labels_with_conflicts(share)) for share in (0.01, 0.05, 0.2)]
    assert found == sorted(found)
    # an error in either kind makes a conflict half of the time: the sum of both is about the share of wrong labels
    assert 0.2 < found[1] / 0.05 < 1.0
    softened = labels_with_conflicts(0.05).with_error(found[1])
    assert not softened.contradictions(torch.full((4000, 4), 0.25).log()).any()


def test_rules_become_the_target_of_their_rows():
    generator = torch.Generator().manual_seed(1)
    truth = torch.randint(3, (300,), generator=generator)
    votes = torch.where(torch.rand(300, 5, generator=generator) < 0.5, truth[:, None], -1)
    votes[:20] = -1
    exact = Exact(torch.where(torch.arange(300) % 10 == 0, truth, -1), 3)
    found = target_from_sources(Rules(votes, 3) & exact)
    assert [type(p) for p in found.parts] == [SourceTarget, Exact]
    q = aggregate(Rules(votes, 3) & exact).posterior.float()
    uniform = torch.full((300, 3), 1 / 3).log()
    free = (exact.labels < 0) & (votes >= 0).any(dim=1)
    silent = (exact.labels < 0) & (votes < 0).all(dim=1)
    torch.testing.assert_close(found.posterior(uniform)[silent], uniform[silent].exp())
    torch.testing.assert_close(found.posterior(uniform)[free], q[free], atol=1e-5, rtol=0)
    assert target_from_sources(exact) is exact


def test_copies_of_channels_leave_the_users_as_they_are():
    crowd = Crowd.simulate(torch.arange(60) % 3, 3, generator=torch.Generator().manual_seed(0), n_annotators=5)
    labels = crowd & Exact(torch.full((60,), -1), 3)
    before = {k: v.clone() for k, v in crowd.channels[0].state_dict().items()}
    own = labels.with_own_channels()
    own.update(torch.softmax(torch.randn(60, 3), 1))
    assert all(torch.equal(before[k], v) for k, v in crowd.channels[0].state_dict().items())
    assert any(not torch.equal(before[k], v) for k, v in own.channels[0].state_dict().items())


def test_a_second_fit_of_the_same_labels_gives_the_same_model():
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(120) % 3
    crowd = Crowd.simulate(truth, 3, generator=generator, n_annotators=6)
    features = torch.nn.functional.one_hot(truth, 3) + 0.3 * torch.randn(120, 3, generator=generator)
    first = Learner(seed=0).fit(features.numpy(), crowd).predict_proba(features.numpy())
    second = Learner(seed=0).fit(features.numpy(), crowd).predict_proba(features.numpy())
    np.testing.assert_array_equal(first, second)
    fresh = Crowd.simulate(truth, 3, generator=torch.Generator().manual_seed(0), n_annotators=6)
    for key, value in crowd.channels[0].state_dict().items():
        torch.testing.assert_close(value, fresh.channels[0].state_dict()[key], equal_nan=True)
