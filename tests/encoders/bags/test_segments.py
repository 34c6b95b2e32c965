"""Reductions over ragged bags are those over each bag alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.convolution import convolved
from anygrain.encoders.bags.order import inverse, row_by_row, strided
from anygrain.encoders.bags.softmax_attention import softmax_attention
from anygrain.encoders.bags.tiles import Tiles

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=6).map(torch.tensor)
REDUCTIONS = {
    segments.total: lambda v: v.sum(dim=0),
    segments.mean: lambda v: v.mean(dim=0),
    segments.maximum: lambda v: v.max(dim=0).values,
    segments.minimum: lambda v: v.min(dim=0).values,
    segments.deviation: lambda v: v.std(dim=0, correction=0),
    segments.logsumexp: lambda v: v.logsumexp(dim=0),
}


def values(sizes, *shape, seed=0):
    return torch.randn(int(sizes.sum()), *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(SIZES)
@settings(max_examples=30, deadline=None)
def test_every_reduction_is_that_of_each_bag(sizes):
    v = values(sizes, 3)
    parts = v.split(sizes.tolist())
    for ours, one in REDUCTIONS.items():
        torch.testing.assert_close(ours(v, sizes), torch.stack([one(p) for p in parts]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        segments.softmax(v, sizes), torch.cat([p.softmax(dim=0) for p in parts]), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("ours", [*REDUCTIONS, segments.softmax], ids=lambda f: f.__name__)
def test_gradients(ours):
    sizes = torch.tensor([1, 4, 2])
    v = values(sizes, 2).requires_grad_()
    if ours is segments.deviation:  # at 0, of the bag of one, there is no slope to compare with
        sizes = torch.tensor([5, 2])
    assert torch.autograd.gradcheck(lambda x: ours(x, sizes), v)


def test_far_numbers_and_bags_of_one():
    sizes = torch.tensor([2, 1])
    v = torch.tensor([[1e4], [-1e4], [-3e4]], requires_grad=True)
    assert segments.logsumexp(v, sizes).tolist() == [[1e4], [-3e4]]
    assert segments.softmax(v, sizes).tolist() == [[1.0], [0.0], [1.0]]
    segments.deviation(v[2:], torch.tensor([1])).sum().backward()
    assert v.grad.abs().sum() == 0


def test_sums_of_narrow_types_do_not_stand_still():
    """Adding 1 to 256 is 256 in bfloat16."""
    sizes, ones = torch.tensor([5000]), torch.ones(5000, 1, dtype=torch.bfloat16)
    assert segments.total(ones, sizes).item() == 5000
    assert segments.softmax(ones, sizes).sum().item() == pytest.approx(1, abs=1e-4)
    assert segments.logsumexp(ones, sizes).item() == pytest.approx(1 + math.log(5000), abs=1e-4)
    assert Tiles(sizes).outer(ones[:, None], ones[:, None]).item() == 5000


@given(SIZES)
@settings(max_examples=30, deadline=None)
def test_tiles_sum_outer_products_bag_by_bag(sizes):
    left, right = values(sizes, 2, 3), values(sizes, 2, 4, seed=1)
    tiles = Tiles(sizes)
    assert torch.equal(tiles.flat(tiles.lay(left)), left)
    parts = zip(left.split(sizes.tolist()), right.split(sizes.tolist()), strict=True)
    whole = torch.stack([torch.einsum("ehp,ehq->hpq", a, b) for a, b in parts])
    torch.testing.assert_close(tiles.outer(left, right), whole, rtol=1e-12, atol=1e-12)
    applied = torch.einsum("ehp,ehpq->ehq", left, whole[segments.bag_of(sizes)])
    torch.testing.assert_close(tiles.apply(left, whole), applied, rtol=1e-12, atol=1e-12)
    assert len(tiles.bag) * tiles.places <= 2 * int(sizes.sum())  # fewer empty places than instances


@given(SIZES)
@settings(max_examples=30, deadline=None)
def test_softmax_attention_is_that_of_every_group(sizes):
    query, key, value = (values(sizes, 2, 4, seed=s) for s in range(3))
    alone = [
        torch.nn.functional.scaled_dot_product_attention(*(p.transpose(0, 1) for p in parts)).transpose(0, 1)
        for parts in zip(*(v.split(sizes.tolist()) for v in (query, key, value)), strict=True)
    ]
    torch.testing.assert_close(softmax_attention(query, key, value, sizes), torch.cat(alone), rtol=1e-9, atol=1e-9)


def test_groups_without_members_are_passed_over():
    sizes = torch.tensor([0, 2, 0, 3])
    v = values(sizes, 1, 2)
    assert torch.equal(softmax_attention(v, v, v, sizes), softmax_attention(v, v, v, torch.tensor([2, 3])))


@pytest.mark.parametrize("rate", range(1, 13))
def test_reading_in_steps_and_back_is_the_identity(rate):
    """For all sizes 1..200; and it is the transposed table of the zero-filled bag."""
    sizes = torch.arange(1, 201)
    v = torch.arange(int(sizes.sum()))
    read, filled, stands = strided(sizes, rate)
    laid = torch.cat([v, v.new_full((1,), -1)])[read]
    assert torch.equal(laid[stands], v)
    for bag, part in zip(v.split(sizes.tolist()), laid.split(filled.tolist()), strict=True):
        table = torch.nn.functional.pad(bag, (0, len(part) - len(bag)), value=-1)
        assert torch.equal(part, table.view(-1, rate).T.flatten())


def test_row_by_row_goes_down_and_right_and_back():
    sizes = torch.tensor([4, 3])
    coords = torch.tensor([[1.0, 1], [0, 1], [1, 0], [0, 0], [5, 9], [7, 2], [6, 2]])
    order = row_by_row(coords, sizes)
    assert order.tolist() == [3, 2, 1, 0, 6, 5, 4]
    assert torch.equal(order[inverse(order)], torch.arange(7))


@pytest.mark.parametrize(("width", "ahead"), [(4, 0), (3, 1), (5, 2), (1, 0)])
def test_a_convolution_sees_its_own_bag_alone(width, ahead):
    sizes = torch.tensor([1, 7, 2])
    v, weight = values(sizes, 3).requires_grad_(), torch.randn(3, width, dtype=torch.float64)
    alone = [
        torch.nn.functional.conv1d(
            torch.nn.functional.pad(part.T[None], (width - 1 - ahead, ahead)), weight[:, None], groups=3
        )[0].T
        for part in v.split(sizes.tolist())
    ]
    torch.testing.assert_close(convolved(v, weight, sizes, ahead), torch.cat(alone), rtol=1e-12, atol=1e-12)
