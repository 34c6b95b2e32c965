"""What set labels would say of a bag, against all assignments of classes to its members."""

import itertools
from collections import Counter

import pytest
import torch

from anygrain.labels import (
    Aggregate,
    AnyOf,
    AtLeast,
    AtMost,
    Automaton,
    Bags,
    Between,
    Counts,
    LabelError,
    Majority,
    Pairs,
    Proportions,
    SetLabel,
    Tables,
)

K = 3
BAGS = Bags(torch.tensor([4, 0, 2, 1, 6, 5, 3]), torch.tensor([0, 3, 4, 7]), 8)
#: a state moves on by the number of the class
CYCLE = (torch.arange(3)[:, None] + torch.arange(K)) % 3
COARSE = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
SILENT = torch.full((3,), -1)


def log_probs(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(1.5 * torch.randn(8, K, dtype=torch.float64, generator=generator), dim=1)


def top(values):
    """Chance of each value to be the most frequent one, ties broken evenly."""
    count = Counter(values)
    best = [value for value in count if count[value] == max(count.values())]
    return {value: 1 / len(best) for value in best}


def one(value):
    return {int(value): 1.0}


def cycle(classes):
    state = 0
    for k in classes:
        state = int(CYCLE[state, k])
    return state


#: labels over BAGS, and the chances of the columns given the classes of the members of a bag
KINDS = {
    "any of": (AnyOf(BAGS, torch.tensor([1, 0, -1]), [0, 2], K, error=0.1), lambda c: one(any(k != 1 for k in c))),
    "at least": (AtLeast(BAGS, torch.tensor([2, -1, 2]), 1, K), lambda c: one(c.count(1) >= 2)),
    "at most": (AtMost(BAGS, torch.tensor([0, 0, 0]), [0, 1], K), lambda c: one(c.count(2) == len(c))),
    "between": (
        Between(BAGS, torch.tensor([1, -1, 1]), torch.tensor([2, -1, 2]), 2, K),
        lambda c: one(1 <= c.count(2) <= 2),
    ),
    "counts": (Counts(BAGS, torch.full((3, K), -1)), lambda c: Counter(c)),
    "proportions": (
        Proportions(BAGS, torch.full((3, K), torch.nan)),
        lambda c: {k: n / len(c) for k, n in Counter(c).items()},
    ),
    "majority": (Majority(BAGS, SILENT, K), top),
    "coarse majority": (SetLabel(BAGS, SILENT, K, taxonomy=COARSE), lambda c: top([int(k == 2) for k in c])),
    "distinct": (SetLabel(BAGS, SILENT, K, "distinct"), lambda c: one(len(set(c)))),
    "highest": (SetLabel(BAGS, SILENT, K, "highest"), lambda c: one(max(c))),
    "label of an automaton": (SetLabel(BAGS, SILENT, K, Tables(CYCLE)), lambda c: one(cycle(c))),
    "automaton": (
        Automaton(BAGS, SILENT, CYCLE, 0, K, final={1, 2}),
        lambda c: one(cycle(c) > 0),
    ),
}


def by_enumeration(log_p, bags, chances, columns):
    found = torch.zeros(len(bags), columns, dtype=torch.float64)
    for m in range(len(bags)):
        members = bags.members[bags.offsets[m] : bags.offsets[m + 1]].tolist()
        for classes in itertools.product(range(K), repeat=len(members)):
            p = torch.stack([log_p[i, k] for i, k in zip(members, classes, strict=True)]).sum().exp()
            for column, chance in chances(classes).items():
                found[m, column] += p * chance
    return found


@pytest.mark.parametrize("name", KINDS)
def test_equals_enumeration(name):
    labels, chances = KINDS[name]
    for seed in range(3):
        log_p = log_probs(seed)
        found = labels.answers(log_p)
        torch.testing.assert_close(found, by_enumeration(log_p, BAGS, chances, found.shape[1]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", KINDS)
def test_other_bags_are_asked_the_same(name):
    labels, chances = KINDS[name]
    other = Bags(torch.tensor([1, 2, 0, 3]), torch.tensor([0, 1, 4]), 4)
    log_p = log_probs(5)[:4]
    found = labels.answers(log_p, other)
    torch.testing.assert_close(found, by_enumeration(log_p, other, chances, found.shape[1]), atol=1e-9, rtol=0)
    names = labels.answers_of(K, **labels.asked())
    assert found.shape[1] == (K if names is None else len(names))


def test_a_small_chance_keeps_its_digits():
    rare = torch.tensor([[1 - 1e-12, 1e-12]], dtype=torch.float64).log().expand(5, -1)
    bags = Bags.from_ids(torch.zeros(5))
    assert float(AnyOf(bags, torch.tensor([1]), 1, 2).answers(rare)[0, 1]) == pytest.approx(5e-12, rel=1e-6)
    assert float(AtLeast(bags, torch.tensor([2]), 1, 2).answers(rare)[0, 1]) == pytest.approx(1e-23, rel=1e-6)
    assert float(AtMost(bags, torch.tensor([1]), 0, 2).answers(rare)[0, 1]) == pytest.approx(5e-48, rel=1e-6)


def test_a_bag_too_small_for_the_question():
    small = Bags.from_ids(torch.zeros(1))
    labels = AtLeast(BAGS, torch.tensor([3, -1, 3]), 1, K)
    assert labels.answers(log_probs(0)[:1], small).tolist() == [[1.0, 0.0]]


def test_what_was_answered():
    assert KINDS["any of"][0].answered().tolist() == [1, 0, -1]
    assert Majority(BAGS, torch.tensor([2, -1, 0]), K).answered().tolist() == [2, -1, 0]
    assert Counts(BAGS, torch.full((3, K), -1)).answered().tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (AnyOf(BAGS, torch.tensor([1, 0, 1]), torch.tensor([0, 1, 1]), K), "AnyOf differ in their target"),
        (AtLeast(BAGS, torch.tensor([1, 1, 2]), 0, K), "AtLeast differ in their low"),
        (Pairs([0], [1], [1], 8, K), "Pairs asks nothing"),
        (Aggregate(BAGS, torch.full((3,), torch.nan), torch.arange(3.0)), "Aggregate asks nothing"),
    ],
)
def test_bags_without_a_common_question(labels, message):
    with pytest.raises(LabelError, match=message):
        labels.answers(log_probs(0))
