"""Names where numbers belong, ids where bags belong, and splits by scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold, train_test_split

from anygrain.labels import AnyOf, Bags, Coarse, Counts, Exact, LabelError, Proportions


def test_names_are_refused_with_the_way_to_read_them():
    with pytest.raises(LabelError, match='not names such as "cat"; names are read by from_frame'):
        Exact(["cat", "dog"], 2)
    with pytest.raises(LabelError, match="names are read by from_frame"):
        Exact(np.array(["cat", None], dtype=object), 2)
    with pytest.raises(LabelError, match=r"numpy\.unique"):
        Bags.from_ids(["north", "south", "north"])
    _, ids = np.unique(["north", "south", "north"], return_inverse=True)
    assert Bags.from_ids(ids).sizes.tolist() == [2, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda bags: Proportions(bags, torch.tensor([[0.5, 0.5]])),
        lambda bags: Counts(bags, torch.tensor([[1, 1]])),
        lambda bags: AnyOf(bags, torch.tensor([1]), 1, 2),
    ],
)
def test_ids_are_no_bags(make):
    assert make(Bags.from_ids(torch.tensor([0, 0]))).n_instances == 2
    for ids in (torch.tensor([0, 0]), [0, 0], np.array([0, 0])):
        with pytest.raises(LabelError, match=r"expected Bags, such as Bags\.from_ids"):
            make(ids)


def test_scikit_learn_splits_labels_like_a_vector():
    classes = torch.arange(12) % 4
    labels = Exact(classes, 4) & Coarse(classes // 2, torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]))
    assert labels.shape == (12,)
    rows = np.arange(12)
    first, second, left, right = train_test_split(rows, labels, test_size=4, random_state=0)
    for ids, part in ((first, left), (second, right)):
        assert len(part) == len(ids)
        assert torch.equal(part.log_evidence(), labels.log_evidence()[torch.from_numpy(ids)])
    for train, test in KFold(3).split(rows, labels):
        assert torch.equal(labels[test].log_evidence(), labels.log_evidence()[torch.from_numpy(test)])
        assert len(labels[train]) == 8
