"""Tags: known entries against enumeration, sets of a row's tags, reading, selecting."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import All, AnyOf, Counts, Exact, LabelError, Pairs, Tags, check


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def log_probs_of(seed, n):
    return torch.log_softmax(2 * torch.randn(n, 2, dtype=torch.float64, generator=gen(seed)), dim=1)


def tags_of(seed, n=2, length=3, error=0.0):
    return Tags(torch.randint(-1, 2, (n, length), generator=gen(seed)), error=error)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), error=st.sampled_from([0.0, 0.2]), n=st.integers(1, 4), length=st.integers(1, 3))
def test_tags_equal_enumeration(seed, error, n, length):
    labels = tags_of(seed, n, length, error)
    found = check(labels, log_probs_of(seed, n * length))
    assert found.ok, str(found)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), error=st.sampled_from([0.0, 0.2]))
def test_tags_and_sets_of_a_rows_tags_equal_enumeration(seed, error):
    tags = tags_of(seed, error=error)
    how = {"rows": tags.rows, "n_rows": tags.n_rows}
    bags = tags.bags_of_rows()
    truth = torch.where(tags.labels < 0, 1, tags.labels)
    any_on = AnyOf.simulate(truth, 2, generator=gen(1), bags=bags, target=[1], **how)
    found = check(tags & any_on, log_probs_of(seed, 6))
    assert found.ok, str(found)
    counted = Counts.simulate(truth, 2, generator=gen(1), bags=bags, **how)
    found = check(tags & counted, log_probs_of(seed, 6))
    assert found.ok, str(found)


def test_this_row_has_two_tags_of_three():
    tags = Tags([[1, -1, -1], [-1, -1, -1]])
    two = Counts(tags.bags_of_rows(), [[1, 2], [1, 2]], rows=tags.rows, n_rows=2)
    log_probs = log_probs_of(0, 6)
    p = log_probs.exp()[:, 1]
    on = [a for a in itertools.product((0, 1), repeat=3) if sum(a) == 2]
    for row, known in ((0, [a for a in on if a[0] == 1]), (1, on)):
        weight = torch.stack(
            [torch.stack([p[3 * row + t] if a[t] else 1 - p[3 * row + t] for t in range(3)]).prod() for a in known]
        )
        want = (torch.tensor(known, dtype=torch.float64) * weight[:, None]).sum(0) / weight.sum()
        got = tags.table((tags & two).posterior(log_probs)[:, 1])[row]
        torch.testing.assert_close(got, want)


def test_every_instance_knows_its_row_and_tag():
    tags = Tags(torch.tensor([[1, 0, -1], [-1, 1, 0], [0, 0, 1]]), tag_names="abc")
    assert (tags.n_instances, tags.n_rows, len(tags), tags.n_tags) == (9, 3, 3, 3)
    assert tags.rows.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    part = tags[[2, 0]]
    assert part.labels.tolist() == [0, 0, 1, 1, 0, -1]
    assert part.tag.tolist() == [0, 1, 2, 0, 1, 2]
    assert part.table(part.labels, -1).tolist() == [[0, 0, 1], [1, 0, -1]]
    assert tags.groups().tolist() == [0, 1, 2]
    assert (tags & Pairs([0], [3], [1], 9, 2, rows=tags.rows)).groups().tolist() == [0, 0, 1]
    for batch in tags.batches(4, gen()):
        few = tags.select(batch)
        assert torch.equal(few.tag, tags.tag[batch.instances])
        assert torch.equal(few.labels, tags.labels[batch.instances])


def test_tags_are_exact_labels_of_their_instances():
    table = torch.randint(-1, 2, (4, 3), generator=gen(0))
    tags, exact = Tags(table, error=0.1), Exact(table.reshape(-1), 2, error=0.1)
    log_probs = log_probs_of(0, 12)
    torch.testing.assert_close(tags.posterior(log_probs), exact.posterior(log_probs))
    torch.testing.assert_close(tags.record_scores(log_probs), exact.record_scores(log_probs))
    turned = tags.relabel(torch.tensor([1, 0]), 2)
    torch.testing.assert_close(turned.posterior(log_probs.flip(1)).flip(1), tags.posterior(log_probs))
    assert turned.tag.tolist() == tags.tag.tolist()


def test_weights_of_entries_and_joined_kinds():
    weight = torch.arange(6.0).reshape(2, 3)
    tags = Tags(torch.ones(2, 3, dtype=torch.long), weight=weight)
    assert tags.instance_weight().tolist() == [0, 1, 2, 3, 4, 5]
    assert All(tags, Exact(torch.full((6,), -1), 2, rows=tags.rows)).n_instances == 6


def test_simulated_tags_are_known_and_wrong_as_often_as_asked():
    truth = (torch.rand(2000, 5, generator=gen(0)) < 0.2).long()
    tags = Tags.simulate(truth, generator=gen(1), share=0.5, error=0.4)
    known = tags.labels >= 0
    assert float(known.double().mean()) == pytest.approx(0.5, abs=0.02)
    right = (tags.labels == truth.reshape(-1))[known].double().mean()
    assert float(right) == pytest.approx(0.8, abs=0.02)


def test_frames_of_tags():
    frame = {"genre": ["rock|pop", "", "pop ", None], "a": [1, 0, None, 1], "b": ["true", "", "0", "false"]}
    tags = Tags.from_frame(frame, "genre")
    assert tags.tag_names == ("pop", "rock")
    assert tags.table(tags.labels, -1).tolist() == [[1, 1], [-1, -1], [1, 0], [-1, -1]]
    some = Tags.from_frame(frame, "genre", classes=["rock", "jazz", "pop"], complete=False)
    assert some.table(some.labels, -1).tolist() == [[1, -1, 1], [-1, -1, -1], [-1, -1, 1], [-1, -1, -1]]
    columns = Tags.from_frame(frame, ["a", "b"])
    assert columns.tag_names == ("a", "b")
    assert columns.table(columns.labels, -1).tolist() == [[1, 1], [0, -1], [-1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tags(torch.tensor([1, 0])), "expected a table"),
        (lambda: Tags(torch.tensor([[1, 2]])), "2 in row 0"),
        (lambda: Tags(torch.tensor([[1, 0]]), tag_names="abc"), "3 tag names for 2 tags"),
        (lambda: Tags(torch.tensor([[1, 0]]), weight=torch.ones(2)), r"expected \(1, 2\)"),
        (lambda: Tags(torch.tensor([[1, 0]]), rows=torch.tensor([0, 1])), "a data row per line"),
        (lambda: Tags.simulate(torch.zeros(2, 2), 3, generator=gen()), "on or off"),
        (lambda: Tags.from_frame({"a": ["x|y"]}, "a", classes=["x"]), '"y"'),
        (lambda: Tags.from_frame({"a": [1], "b": [7]}, ["a", "b"]), 'first "7" in row 0 of "b"'),
    ],
)
def test_bad_tags_are_named(make, message):
    with pytest.raises(LabelError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
