"""The default method."""

import numpy as np
import pytest
import torch

from anygrain.discover import Consensus, Discover, SelfDistillation
from anygrain.discover.adapted import Adapted
from anygrain.discover.automatic import Automatic
from anygrain.labels import Coarse, Exact, LabelError
from tests.discover.test_consensus import partly


def test_it_is_a_head_from_a_consensus_in_adapted_features():
    x, y, told = partly()
    members = ["ward", "ss-kmeans"]
    model = Automatic(members=members, epochs=4, bootstrap=0).fit(x.numpy(), Exact(told, 6), 8)
    head = SelfDistillation(start=Consensus(members=members), epochs=4)
    parts = Adapted(method=head, bootstrap=0).fit(x.numpy(), Exact(told, 6), 8)
    assert np.array_equal(model.log_probs_, parts.log_probs_)
    assert model.why_.startswith("in features as they are and whitened by told rows and whitened by the surer half of")
    assert list(model.agreement_) == members
    assert model.adapted_ == int((told >= 0).sum())
    assert len(model.history_) == 12  # epochs of three heads
    assert (model.labels_[y < 6] == y[y < 6].numpy()).mean() > 0.95


def test_discover_divides_coarse_classes_by_default():
    x, y, _ = partly()
    model = Discover(seed=0, bootstrap=0).fit(x.numpy(), Coarse(y // 4, torch.eye(2)), {0: 4, 1: 4})
    assert isinstance(model.method_, Automatic)
    assert np.array_equal(model.node_[model.labels_], (y // 4).numpy())


def test_features_may_stay_as_they_are():
    x, _, told = partly()
    how = {"members": ["ward", "ss-kmeans"], "epochs": 2, "bootstrap": 0}
    raw = Automatic(adapt=False, **how).fit(x.numpy(), Exact(told, 6), 8)
    head = SelfDistillation(start=Consensus(members=how["members"]), epochs=2, bootstrap=0).fit(
        x.numpy(), Exact(told, 6), 8
    )
    assert np.array_equal(raw.log_probs_, head.log_probs_)
    assert not hasattr(raw, "adapted_")
    assert not np.array_equal(raw.log_probs_, Automatic(**how).fit(x.numpy(), Exact(told, 6), 8).log_probs_)
    with pytest.raises(LabelError, match="rounds is 0; expected 1 or more"):
        Adapted(method="ward", rounds=0).fit(x.numpy(), Exact(told, 6), 8)


def test_a_head_is_learnt():
    x, _, told = partly()
    with pytest.raises(LabelError, match="epochs is 0"):
        Automatic(epochs=0).fit(x.numpy(), Exact(told, 6), 8)


@pytest.mark.parametrize("adapt", [False, True])
def test_of_many_rows_it_learns_from_some_and_reads_the_others(monkeypatch, adapt):
    x, y, told = partly(n=900)
    monkeypatch.setattr(Automatic, "learns_from", 300)
    monkeypatch.setattr("anygrain.discover.discoverer.PER_CLASS", 1)
    model = Automatic(adapt=adapt, members=["ward", "ss-kmeans"], epochs=4, bootstrap=0)
    model.fit(x.numpy(), Exact(told, 6), 8)
    assert model.log_probs_.shape == (900, 8)
    assert (model.labels_[y < 6] == y[y < 6].numpy()).mean() > 0.95
    free = (told < 0).numpy()
    assert np.array_equal(model.labels_[free], model.predict(x.numpy())[free])
