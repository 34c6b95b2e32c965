"""Labels of classes that hardly occur: none of them looks wrong, whichever kinds name the class."""

import numpy as np
import torch

from anygrain.audit import suspects
from anygrain.audit.judged import JudgedPart
from anygrain.audit.rare import spare_rare
from anygrain.labels import Coarse, Crowd, Exact, Tags

F = torch.float64


def confident(n, k, at=0, sure=0.98):
    p = torch.full((n, k), (1 - sure) / (k - 1), dtype=F)
    p[:, at] = sure
    return p.log()


def test_a_class_is_spared_while_fewer_than_two_others_are_of_it():
    """A model that never saw a class finds it improbable everywhere."""
    for rare in (1, 2, 3):
        given = torch.tensor([0] * 40 + [1] * rare)
        wrong = suspects(confident(len(given), 2, sure=1 - 1e-6), given)["prob_wrong"].to_numpy()
        assert ((wrong[40:] == 0.5) if rare < 3 else (wrong[40:] > 0.5)).all()


def test_kinds_count_together_and_an_instance_once():
    votes = Crowd(torch.tensor([0, 0, 0]), torch.tensor([0, 1, 2]), torch.tensor([1, 1, 1]), 3, 42)
    exact = Exact(torch.tensor([1] + [0] * 40 + [2]), 3)
    log_p = confident(42, 3, sure=1 - 1e-6)
    found = suspects(log_p, exact & votes)["prob_wrong"].to_numpy()
    assert found[0] <= 0.5  # three votes and a label are of one instance
    more = Exact(torch.tensor([1] * 3 + [0] * 38 + [2]), 3)
    assert suspects(log_p, more & votes)["prob_wrong"].to_numpy()[1] > 0.5
    assert found[41] == 0.5


def judged(given):
    given = np.asarray(given)
    none = np.zeros(len(given))
    return JudgedPart(given, given, none, np.full(len(given), 0.9), none, None, None, 0.0)


def test_tags_and_nodes_count_by_themselves():
    table = torch.tensor([[1, 1], [1, 1], [0, 1], [0, 0], [0, 0], [0, -1]])
    tags = Tags(table)
    (found,) = spare_rare([tags], [judged(tags.labels.numpy())], np.arange(12))
    expected = [[0.5, 0.9], [0.5, 0.9], [0.9, 0.9], [0.9, 0.5], [0.9, 0.5], [0.9, 0.9]]
    assert found.wrong.reshape(6, 2).tolist() == expected
    nodes, exact = (
        Coarse(torch.tensor([0, 0, 0, 1]), torch.tensor([[1, 1, 0], [0, 0, 1]])),
        Exact(torch.tensor([1, 1, -1, 0]), 3),
    )
    both = spare_rare([nodes, exact], [judged([0, 0, 0, 1]), judged([1, 1, -1, 0])], np.tile(np.arange(4), 2))
    assert both[0].wrong.tolist() == [0.9, 0.9, 0.9, 0.5]
    assert both[1].wrong.tolist() == [0.5, 0.5, 0.9, 0.5]
