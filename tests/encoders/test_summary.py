"""Bags as summaries of their columns."""

import numpy as np
import pytest
import torch

from anygrain.data.bag_data import BagData
from anygrain.encoders import encoder_for
from anygrain.encoders.summary import Summary, summaries
from anygrain.labels import LabelError


def bags(d=3):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, d)).astype(np.float32) for n in (4, 1, 7, 2)]


def test_summaries_bag_by_bag():
    arrays = bags()
    expected = np.array(
        [np.concatenate([a.mean(0), a.max(0), a.min(0), a.std(0), [np.log(len(a))]]) for a in arrays], dtype=float
    )
    np.testing.assert_allclose(summaries(BagData.from_arrays(arrays)).numpy(), expected, atol=1e-6)


def test_instances_come_in_any_chunks(monkeypatch):
    data = BagData.from_arrays(bags())
    whole = summaries(data)
    monkeypatch.setattr(BagData, "instances", lambda self: (self.read(torch.tensor([m])) for m in range(len(self))))
    torch.testing.assert_close(summaries(data), whole)


def test_is_the_encoder_of_bags_and_standardises():
    data = BagData.from_arrays(bags() + bags())
    encoder = encoder_for(data)
    assert isinstance(encoder, Summary)
    found = encoder.learn(data)(data)
    assert found.shape == (8, 13)
    np.testing.assert_allclose(found.mean(dim=0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(dim=0, correction=0), 1, atol=1e-4)


def test_bad_input():
    encoder = Summary().learn(BagData.from_arrays(bags()))
    with pytest.raises(LabelError, match="instances of 2 features, the model was fitted to 3"):
        encoder(BagData.from_arrays(bags(2)))
    with pytest.raises(LabelError, match="expected BagData"):
        encoder(np.zeros((4, 3)))
