"""Classes that are there come back, classes that are not do not."""

import numpy as np
import pytest
import torch

from anygrain.discover import ConstrainedMixture, SemiSupervisedKMeans
from anygrain.discover.exemplars import class_means, exemplars, nearest_known
from anygrain.discover.stability import half_of, jaccard


def test_two_far_blobs_come_back_and_halves_of_one_do_not():
    rng = np.random.default_rng(0)
    far = np.concatenate([rng.normal(size=(150, 4)), rng.normal(size=(150, 4)) + 20]).astype(np.float32)
    assert SemiSupervisedKMeans(bootstrap=5).fit(far, None, 2).stability_ == pytest.approx([1, 1])
    cut = SemiSupervisedKMeans(bootstrap=10).fit(rng.normal(size=(300, 8)).astype(np.float32), None, 4)
    assert (cut.stability_ < 0.6).all()
    assert (
        SemiSupervisedKMeans(bootstrap=10).fit(far, None, 3).stability_.max() < 0.85
    )  # either blob may be the one cut


def test_no_bootstrap_no_number():
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    assert np.isnan(ConstrainedMixture(bootstrap=0).fit(x, None, 2).stability_).all()


def test_jaccard_is_that_of_the_best_partner():
    first, second = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([1, 1, 0, 0, 0, 2])
    got = jaccard(first, second, 3, 3)
    assert got[:2].tolist() == pytest.approx([2 / 3, 2 / 4])
    assert torch.isnan(got[2])


def test_a_half_holds_half_of_every_class():
    classes = torch.tensor([0] * 10 + [1] * 3 + [2])
    rows = half_of(classes, 0.5, torch.Generator().manual_seed(0))
    assert torch.bincount(classes[rows]).tolist() == [5, 2, 1]
    assert (rows.diff() > 0).all()


def test_exemplars_are_the_rows_nearest_to_the_mean():
    x, y = torch.tensor([[0.0], [1.0], [5.0], [10.0], [10.5]]), torch.tensor([0, 0, 0, 1, 1])
    assert [rows.tolist() for rows in exemplars(x, y, 3, most=2)] == [[1, 0], [3, 4], []]
    means, size = class_means(x, y, 3)
    assert means[:, 0].tolist() == [2.0, 10.25, 0.0]
    assert size.tolist() == [3, 2, 0]
    assert nearest_known(x, y, 2, 1).tolist() == [0, 0]
    assert nearest_known(x, y, 2, 0).tolist() == [-1, -1]
