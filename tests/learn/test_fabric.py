"""The loop on a fabric: one device in plain torch, several processes with Lightning."""

import numpy as np
import pytest
import torch

from anygrain.learn import Learner, RecipeState, Term
from anygrain.learn.fabric import OneDevice, load_precision_state, precision_state
from anygrain.learn.loop import Loop
from tests.learn.test_end_to_end import Small

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
    # 8 batches an epoch, one done twice, and 6 for each of the three folds that find the temperature
    assert [f.steps for f in fabrics] == [9 + 3 * 6] * 3
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


def half(growth=3):
    """A fabric of 16 bits on the CPU whose scale of gradients grows every few steps."""
    lightning = pytest.importorskip("lightning.fabric")
    from lightning.fabric.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6, growth_interval=growth)
    made = lightning.Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler=scaler))
    made.launch()
    return made, scaler


def test_the_scale_of_gradients_is_kept_with_the_rest():
    one, scaler = half()
    kept = {}

    class Stopped(Exception):
        pass

    def callback(done, total, facts):
        kept["tensors"], kept["history"] = dict(state.tensors()), list(state.history)
        kept["scale"] = scaler.get_scale(), scaler._get_growth_tracker()
        if done == 2:
            raise Stopped

    def learner(fabric):
        return Learner(encoder=Small(), epochs=5, batch_size=16, fabric=fabric)

    state = RecipeState()
    x = np.concatenate([X, X[:, :1]], axis=1)  # of four columns
    with pytest.raises(Stopped):
        learner(one).fit(x, Y, callback=callback, state=state)
    assert kept["scale"][0] > 2.0**6  # it has moved
    other, again = half()
    seen = []
    pace = Loop.epoch

    def watched(self, number):
        seen.append((again.get_scale(), again._get_growth_tracker()))
        return pace(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "epoch", watched)
        resumed = learner(other).fit(x, Y, state=RecipeState.from_tensors(kept["tensors"], kept["history"]))
    assert seen[0] == kept["scale"]
    whole, end = half()
    np.testing.assert_array_equal(learner(whole).fit(x, Y).predict_proba(x), resumed.predict_proba(x))
    assert (end.get_scale(), end._get_growth_tracker()) == (again.get_scale(), again._get_growth_tracker())


def test_another_precision_keeps_its_own_state():
    one, scaler = half()
    kept = {key: value.clone() for key, value in precision_state(one).items()}
    assert set(kept) >= {"scale", "growth_interval"}
    assert precision_state(OneDevice()) == {}
    load_precision_state(OneDevice(), kept)
    load_precision_state(one, {})
    load_precision_state(one, {**kept, "scale": torch.tensor(8.0)})
    assert scaler.state_dict()["scale"] == 8.0


@pytest.mark.parametrize("scale", [1e-3, 10.0])
def test_gradients_are_clipped_as_torch_clips_them(scale):
    own, other = (torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 2)) for _ in range(2))
    other.load_state_dict(own.state_dict())
    for module in (own, other):
        (module(torch.ones(3, 5)).square().sum() * scale).backward()
    norm = OneDevice().clip_gradients(own, torch.optim.AdamW(own.parameters()), max_norm=1.0)
    assert float(norm) == pytest.approx(float(torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)))
    for mine, theirs in zip(own.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    own.zero_grad()
    assert float(OneDevice().clip_gradients(own, torch.optim.AdamW(own.parameters()), max_norm=1.0)) == 0


def test_the_average_of_the_weights_is_torchs(monkeypatch):
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    from anygrain.learn.end_to_end import EndToEnd

    found = []
    watch, follow = EndToEnd.watch, EndToEnd._follow

    def watched(self, loop):
        watch(self, loop)
        found.append((self, AveragedModel(loop.network, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / self.horizon))))

    def followed(self):
        follow(self)
        found[0][1].update_parameters(self.loop.network)

    monkeypatch.setattr(EndToEnd, "watch", watched)
    monkeypatch.setattr(EndToEnd, "_follow", followed)
    Learner(encoder=Small(dim=3), epochs=3, batch_size=10, cross_fit=False, seed=0).fit(X, Y)
    (training, wanted) = found[0]
    assert int(wanted.n_averaged) > 10
    for mine, theirs in zip(training.network.parameters(), wanted.module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
