"""The loop on a fabric: one device in plain torch, several processes with Lightning."""

import numpy as np
import pytest
import torch

from anygrain.learn import Learner, Term
from anygrain.learn.fabric import OneDevice

GENERATOR = np.random.default_rng(0)
X = np.concatenate([GENERATOR.normal(c, 1.0, (40, 3)) for c in range(3)])
Y = np.repeat(np.arange(3), 40)


class Nothing(Term):
    """Makes the learner run its loop."""

    def forward(self, step):
        return step.log_probs.sum() * 0


class Counting(OneDevice):
    """A fabric that counts, as rank `global_rank` of `world_size`."""

    def __init__(self, global_rank=0, world_size=1):
        super().__init__()
        self.global_rank, self.world_size, self.steps, self.wrapped = global_rank, world_size, 0, None

    def setup(self, module, *optimizers):
        self.wrapped = module
        return (module, *optimizers)

    def backward(self, tensor):
        self.steps += 1
        tensor.backward()


def fit(fabric=None):
    return Learner(terms=[Nothing()], epochs=3, batch_size=16, rounds=1, fabric=fabric).fit(X, Y)


def test_a_fabric_of_one_changes_nothing():
    np.testing.assert_array_equal(fit().predict_proba(X), fit(Counting()).predict_proba(X))


def test_processes_share_the_batches_and_do_equally_many():
    fabrics = [Counting(rank, 3) for rank in range(3)]
    for fabric in fabrics:
        fit(fabric)
    assert [f.steps for f in fabrics] == [9, 9, 9]  # 8 batches an epoch, one done twice
    assert sum(p.numel() for p in fabrics[0].wrapped.parameters()) == 3 * 3 + 3


def test_lightning_on_two_processes():
    lightning = pytest.importorskip("lightning")
    fabric = lightning.Fabric(accelerator="cpu", devices=2, strategy="ddp_fork")
    fabric.launch(_on_each)


def _on_each(fabric):
    learner = Learner(terms=[Nothing()], epochs=3, batch_size=16, rounds=1, fabric=fabric).fit(X, Y)
    mine = torch.from_numpy(learner.predict_proba(X))
    both = fabric.all_gather(mine)
    torch.testing.assert_close(both[0], both[1])
    assert (learner.predict(X) == Y).mean() > 0.7
