"""What evidence leaves open is named, and what it settles raises no alarm."""

import warnings

import pytest
import torch

from anygrain.labels import (
    Bags,
    Candidates,
    Coarse,
    Complementary,
    Exact,
    InstanceLabels,
    Interval,
    Pairs,
    Proportions,
    SetLabels,
    Soft,
    Taxonomy,
)
from anygrain.labels.aggregate import aggregate
from anygrain.labels.anyof import AnyOf
from anygrain.labels.counts import Counts
from anygrain.labels.crowd import Crowd
from anygrain.labels.identifiability import IdentifiabilityWarning, identifiability, warn_unidentified
from anygrain.labels.rules import Rules

TREE = {"pets": ["cat", "dog"], "plants": ["oak", "elm", "fir"]}
TAXONOMY = Taxonomy.from_paths([f"{parent}/{child}" for parent, children in TREE.items() for child in children])
AT = {name: at for at, name in enumerate(TAXONOMY.classes)}


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def classes_of(n, k, seed=0):
    return torch.cat([torch.arange(k), torch.randint(k, (n - k,), generator=gen(seed))])


def coarse(n=40):
    return Coarse(classes_of(n, 2), TAXONOMY)


def exact(*names, n=40):
    said = torch.full((n,), -1)
    for row, name in enumerate(names):
        said[row] = AT[name]
    return Exact(said, len(AT), class_names=TAXONOMY.classes)


def bags_of(n, size):
    return Bags.from_ids(torch.arange(n) // size)


# -- nothing to warn of -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        lambda: Exact(classes_of(50, 5), 5),
        lambda: Exact(classes_of(50, 5), 5, error=0.2),
        lambda: coarse() & exact(*AT),
        lambda: coarse() & exact("cat", "oak", "elm"),  # the last child of a node is what is left
        lambda: Complementary(classes_of(50, 4), 4),
        lambda: Candidates.simulate(classes_of(60, 4), 4, generator=gen()),
        lambda: Interval.simulate(classes_of(60, 4), 4, generator=gen(), width=1),
        lambda: Soft.simulate(classes_of(60, 4), 4, generator=gen()),
        lambda: Soft(torch.eye(3), kind="target"),
        lambda: Counts.simulate(classes_of(400, 4), 4, generator=gen(), bags=bags_of(400, 8)),
        lambda: Counts.simulate(classes_of(400, 10), 10, generator=gen(), bags=bags_of(400, 40)),
        lambda: AnyOf.simulate(classes_of(100, 2), 2, generator=gen(), target=1, bags=bags_of(100, 3)),
        lambda: Crowd.simulate(classes_of(60, 3), 3, generator=gen(), n_annotators=6),
        lambda: Rules(torch.stack([classes_of(60, 3)] * 3, dim=1), 3),
        lambda: Pairs([0, 1], [2, 3], [1, 0], 50, 5) & Exact(classes_of(50, 5), 5),
        lambda: Counts(bags_of(50, 5), torch.tensor([[2, 3]] * 10)) & Exact(classes_of(50, 2), 2),
        lambda: Exact(torch.zeros(3, dtype=torch.long), 1),
    ],
)
def test_no_false_alarm(labels):
    assert identifiability(labels()) == []


@pytest.mark.parametrize("seed", range(20))
def test_no_false_alarm_on_small_random_bags(seed):
    truth = classes_of(60, 3, seed)[torch.randperm(60, generator=gen(seed))]
    labels = Counts.simulate(truth, 3, generator=gen(seed), bags=bags_of(60, 5))
    assert identifiability(labels) == []


# -- classes that nothing tells apart ---------------------------------------------------------------------------------


def test_children_of_coarse_classes_are_named():
    (message,) = identifiability(coarse())
    group = [
        f'"{c}"' for c in TAXONOMY.classes if c in TREE["pets" if TAXONOMY.classes[0] in TREE["pets"] else "plants"]
    ]
    assert message.startswith(f"nothing tells classes {', '.join(group)} apart")
    assert "in 1 more group of classes" in message


def test_only_the_children_without_exact_labels_are_named():
    (message,) = identifiability(coarse() & exact("oak", "cat"))
    assert message.startswith("nothing tells classes ")
    assert '"elm"' in message
    assert '"fir"' in message
    assert '"oak"' not in message
    assert '"cat"' not in message
    assert "more" not in message


def test_many_classes_are_cut_to_three():
    labels = Coarse(torch.tensor([0, 0, -1]), torch.ones(1, 9)) & Candidates(torch.arange(9).repeat(3, 1) != 8)
    (nobody, message) = identifiability(labels)
    assert nobody == "no observation favours class 8: nothing can find it"
    assert "classes 0, 1, 2 and 5 more apart" in message


def test_a_class_without_any_evidence_is_named():
    (message,) = identifiability(Exact(torch.tensor([0, 1, 1, 3, -1]), 4, class_names=["a", "b", "c", "d"]))
    assert message == 'no observation favours class "c": nothing can find it'
    (message,) = identifiability(Counts(Bags.from_ids([0, 0, 0, 1, 1, 1]), torch.tensor([[3, 0, 0], [0, 3, 0]])))
    assert "favours class 2" in message
    (message,) = identifiability(AnyOf(bags_of(4, 2), [0, 0], 1, 2))
    assert "favours class 1" in message
    (message,) = identifiability(AnyOf(bags_of(4, 2), [1, 1], 1, 2))
    assert "favours class 0" in message
    assert identifiability(Exact(torch.tensor([-1, -1]), 3)) == ["the labels say nothing about any class"]


def test_a_class_that_only_the_votes_lack_is_not_named():
    votes = Crowd([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2], [0, 0, 1, 1, 1, 0], 3, n_items=4)
    assert "favours class 2" in identifiability(votes)[0]
    assert identifiability(votes & Exact(torch.tensor([-1, -1, -1, 2]), 3)) == []


def test_classes_outside_the_target_of_any_of():
    (message,) = identifiability(AnyOf(bags_of(8, 2), [1, 0, 1, 0], 0, 3))
    assert message.startswith("nothing tells classes 1, 2 apart")
    assert identifiability(AnyOf(bags_of(8, 2), [1, 0, 1, 0], 0, 3) & Exact(torch.tensor([1] + [-1] * 7), 3)) == []


def test_a_channel_with_equal_rows():
    class Blurred(InstanceLabels):
        """Classes 1 and 2 are reported alike."""

        def __init__(self, said):
            super().__init__(3, per_instance={"said": said})

        def log_evidence(self, dtype=torch.float32):
            table = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.4, 0.4], [0.2, 0.4, 0.4]], dtype=dtype)
            return table[:, self.said].T.log()

    (message,) = identifiability(Blurred(torch.tensor([0, 1, 2, 0])))
    assert message.startswith("nothing tells classes 1, 2 apart")


# -- constant shares --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "counts",
    [
        [[2, 6]] * 10,
        [[2, 6]],
        [[250, 750], [252, 748], [249, 751]],
        [[2, 7], [3, 7], [2, 7], [3, 7]],  # as near to .25 and .75 as whole numbers get
    ],
)
def test_constant_shares_are_named(counts):
    counts = torch.tensor(counts)
    bags = Bags.from_ids(torch.arange(len(counts)).repeat_interleave(counts.sum(1)))
    (message,) = identifiability(Counts(bags, counts, class_names=["yes", "no"]))
    assert message.startswith('the shares of classes "yes", "no" are nearly the same in every bag')


@pytest.mark.parametrize("noise", [None, 50.0])
def test_shares_are_read_as_counts_are(noise):
    varied = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3], [0.1, 0.8, 0.1]])
    assert identifiability(Proportions(bags_of(30, 10), varied, noise)) == []
    (message,) = identifiability(Proportions(bags_of(30, 10), varied[:1].expand(3, 3), noise))
    assert message.startswith("the shares of classes 0, 1, 2 are nearly the same")


def test_constant_shares_beside_labels_that_name_only_some():
    counts = Counts(bags_of(50, 10), torch.tensor([[2, 3, 5]] * 5))
    (message,) = identifiability(counts & Candidates(torch.tensor([[True, False, False]] + [[True] * 3] * 49)))
    assert message.startswith("the shares of classes 1, 2 are")


# -- classes that only permute ----------------------------------------------------------------------------------------


def test_pairs_alone_do_not_name():
    (message,) = identifiability(Pairs([0, 1], [1, 2], [1, 0], 4, 3, class_names=["a", "b", "c"]))
    assert message.startswith('classes "a", "b", "c" only permute')
    assert identifiability(Pairs([0], [1], [-1], 4, 3)) == ["the labels say nothing about any class"]


def test_children_told_apart_by_pairs_only_permute():
    (message,) = identifiability(coarse() & Pairs([0], [1], [0], 40, len(AT), class_names=TAXONOMY.classes))
    assert "only permute" in message
    assert "1 more group" in message


def test_equal_counts_only_permute():
    counts = torch.tensor([[2, 2, 0], [1, 1, 2], [0, 0, 4], [2, 2, 0]])
    (message,) = identifiability(Counts(bags_of(16, 4), counts))
    assert message.startswith("classes 0, 1 only permute")


def test_unknown_counts_leave_the_rest_open():
    counts = torch.tensor([[3, -1, -1], [1, -1, -1], [0, -1, -1], [2, -1, -1]])
    (message,) = identifiability(Counts(bags_of(16, 4), counts))
    assert message.startswith("nothing tells classes 1, 2 apart")


class AllDifferent(SetLabels):
    """A set kind as a user writes it: members of each pair differ, and the first is not of class `barred`."""

    def __init__(self, bags, k, barred=None):
        super().__init__(k, bags)
        self.barred = barred

    def log_factor(self, log_p):
        pair = log_p.reshape(-1, 2, self.n_classes).exp()
        first = pair[:, 0]
        if self.barred is not None:
            first = first * (torch.arange(self.n_classes) != self.barred)
        return (first[:, :, None] * pair[:, 1, None, :] * (1 - torch.eye(self.n_classes))).sum((1, 2)).log()


def test_symmetry_of_a_kind_of_ones_own_is_found():
    assert "classes 0, 1, 2 only permute" in identifiability(AllDifferent(bags_of(8, 2), 3))[0]
    (message,) = identifiability(AllDifferent(bags_of(8, 2), 3, barred=1))
    assert "classes 0, 2 only permute" in message


# -- sources ----------------------------------------------------------------------------------------------------------


def test_one_or_two_annotators_and_groups_of_them():
    items, truth = torch.arange(6), torch.tensor([0, 1, 0, 1, 0, 1])
    two = Crowd(items.repeat(2), torch.tensor([0] * 6 + [1] * 6), truth.repeat(2), 2, annotator_names=["ann", "bob"])
    (message,) = identifiability(two)
    assert 'only 2 annotators vote (annotator "ann", "bob")' in message
    one = Crowd(items, torch.zeros(6, dtype=torch.long), truth, 2)
    assert "only 1 annotator votes" in identifiability(one)[0]
    assert identifiability(two & Exact(truth, 2)) == []
    history = torch.ones(2, 2, 2)
    assert (
        identifiability(Crowd(items.repeat(2), torch.tensor([0] * 6 + [1] * 6), truth.repeat(2), 2, history=history))
        == []
    )
    apart = Crowd([0, 0, 0, 1, 1], [0, 1, 2, 3, 4], [0, 1, 0, 1, 0], 2)
    (message,) = identifiability(apart)
    assert message.startswith("annotator 3, 4 share no item with the others (2 groups)")


def test_two_rules():
    votes = torch.tensor([[0, -1, -1], [1, 1, -1], [0, 1, -1]])
    assert "only 2 rules vote (rule 0, 1)" in identifiability(Rules(votes, 2))[0]


# -- how it is said ---------------------------------------------------------------------------------------------------


def test_warnings_name_the_line_that_called():
    def fit(labels):
        return warn_unidentified(labels)

    with pytest.warns(IdentifiabilityWarning, match="only permute") as caught:
        messages = fit(Pairs([0], [1], [0], 2, 2))
    assert len(messages) == 1
    assert caught[0].filename == __file__


def test_aggregate_warns():
    with pytest.warns(IdentifiabilityWarning, match="nothing tells") as caught:
        aggregate(coarse())
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error", IdentifiabilityWarning)
        aggregate(Crowd.simulate(classes_of(60, 3), 3, generator=gen(), n_annotators=6))


def test_relabelled_votes_are_read_in_the_new_classes():
    votes = Crowd.simulate(classes_of(60, 2), 2, generator=gen(), n_annotators=5).relabel(torch.tensor([2, 0]), 3)
    (message,) = identifiability(votes)
    assert "favours class 1" in message


def test_large_tables_cost_what_they_must():
    many = Exact(torch.arange(200_000) % 100_000, 100_000)  # a table would hold 2 * 10**10 numbers
    assert identifiability(many) == []
    coarse_labels = Coarse(torch.arange(200_000) % 50, torch.eye(50).repeat_interleave(20, dim=1))
    assert "and so in 49 more groups" in identifiability(coarse_labels)[0]
