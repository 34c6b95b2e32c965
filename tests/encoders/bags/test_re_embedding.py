"""Re-embedding by attention inside and across regions: its parts are what they are said to be."""

import pytest
import torch
from torch.nn import functional

from anygrain.encoders.bags import ReEmbedding
from anygrain.encoders.bags.re_embedding import CrossRegionAttention, RegionAttention
from anygrain.encoders.bags.regions import Regions
from anygrain.labels import LabelError

DIM = 8


def made(kind, *args, **options):
    torch.manual_seed(0)
    model = kind(*args, **options).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


def rows(n, seed=0):
    return torch.randn(n, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("per_side", [1, 3, 8])
def test_cutting_into_regions_and_back_is_the_identity(per_side):
    """For all sizes 1..300 at once; every instance has one place, and regions are as many as they should be."""
    sizes = torch.arange(1, 301)
    values = torch.arange(int(sizes.sum()))
    regions = Regions(sizes, per_side, 1024)
    assert torch.equal(regions.flat(regions.lay(values)), values)
    assert int(regions.real.sum()) == len(values)
    assert torch.equal(regions.lay(values + 1) > 0, regions.real)
    assert int(regions.sizes.sum()) == len(regions.read)
    assert torch.equal(regions.many, sizes.double().sqrt().floor().clamp(max=per_side).square().long())


def test_a_region_is_a_square_of_the_square():
    """3 x 3 regions of 2 x 2 places in a square of 6 x 6, which 30 instances fill up to its last row."""
    (size,) = sizes = torch.tensor([30])
    regions = Regions(sizes, 3, 1024)
    square = torch.arange(36).masked_fill(torch.arange(36) >= size, 30).view(6, 6)
    expected = [square[r : r + 2, c : c + 2].flatten() for r in (0, 2, 4) for c in (0, 2, 4)]
    assert torch.equal(regions.read, torch.cat(expected))


def test_large_bags_have_more_regions():
    regions = Regions(torch.tensor([10_000]), 2, 400)
    assert regions.many.tolist() == [25]
    assert regions.sizes.tolist() == [400] * 25


def test_one_region_without_position_is_plain_attention():
    model = made(RegionAttention, DIM, 2, 3, True, 0.0)
    x, regions = rows(9), Regions(torch.tensor([9]), 1, 1024)
    with torch.no_grad():
        model.position.zero_()
    q, k, v = model.project(x).view(9, 3, 2, 4).permute(1, 2, 0, 3)
    plain = model.mix(functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))
    torch.testing.assert_close(model(x, regions), plain, rtol=1e-9, atol=1e-9)
    bare = RegionAttention(DIM, 2, 0, True, 0.0).double()
    bare.load_state_dict({n: p for n, p in model.state_dict().items() if n != "position"})
    torch.testing.assert_close(bare(x, regions), plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [7, 9, 16])
@pytest.mark.parametrize("mask", [True, False])
def test_position_is_a_convolution_of_the_logits_over_queries(n, mask):
    """Logits written down and convolved over the axis of queries, bias included; empty places as in the original."""
    model = made(RegionAttention, DIM, 2, 3, mask, 0.0)
    x, regions = rows(n), Regions(torch.tensor([n]), 1, 1024)
    laid = regions.lay(x)
    parts = model.project(laid)
    if mask:
        parts = parts * regions.real[:, None]
    q, k, v = parts.view(len(laid), 3, 2, 4).permute(1, 2, 0, 3)
    logits = (q @ k.transpose(1, 2) / 4**0.5)[None]  # (1, H, M, M)
    weight = model.position[:, None, :, None]
    logits = logits + functional.conv2d(logits, weight, torch.randn(2).double(), padding=(1, 0), groups=2)
    if mask:
        logits = logits.masked_fill(~regions.real, -torch.inf)
    expected = model.mix((logits[0].softmax(dim=2) @ v).transpose(0, 1).flatten(1))
    torch.testing.assert_close(regions.flat(model(laid, regions)), regions.flat(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize(("n", "representatives", "deep"), [(9, 1, False), (23, 3, True)])
def test_attention_across_regions_is_its_formula(n, representatives, deep, mask):
    model = made(CrossRegionAttention, DIM, 2, representatives, deep, mask, 0.0)
    regions = Regions(torch.tensor([n]), 2, 1024)
    laid = regions.lay(rows(n))
    parts = laid.split(regions.sizes.tolist())
    real = regions.real.split(regions.sizes.tolist())
    if mask:
        parts = [p[r] for p, r in zip(parts, real, strict=True) if r.any()]
    scores = [model.scores(p) for p in parts]
    summed = torch.stack([s.softmax(dim=0).T @ p for s, p in zip(scores, parts, strict=True)])  # (G, K, D)
    q, k, v = model.project(summed).unflatten(2, (3, 2, 4)).permute(2, 1, 3, 0, 4)  # (3, K, H, G, p)
    seen = functional.scaled_dot_product_attention(q, k, v).permute(2, 0, 1, 3).flatten(2)
    among = model.mix(seen)
    out = []
    for s, r in zip(scores, among, strict=True):
        low, high = s.min(dim=0).values, s.max(dim=0).values
        out.append((s.softmax(dim=1) * (s - low) / (high - low + 1e-8)) @ r)
    found = model(laid, regions)
    expected = torch.cat(out)
    torch.testing.assert_close(found[regions.real] if mask else found, expected, rtol=1e-9, atol=1e-9)
    if representatives == 1:
        assert torch.equal(model.dispatch(scores[0]), torch.ones_like(scores[0]))


def test_shuffled_regions_are_shuffled_representatives():
    model = made(CrossRegionAttention, DIM, 2, 2, False, True, 0.0)
    representatives, order = torch.randn(6, 2, DIM, dtype=torch.float64), torch.randperm(6)
    many = torch.tensor([6])
    torch.testing.assert_close(
        model.attended(representatives[order], many), model.attended(representatives, many)[order], rtol=1e-9, atol=1e-9
    )


def test_equal_scores_leave_a_region_as_it_is():
    model = made(CrossRegionAttention, DIM, 2, 1, False, True, 0.0)
    same = rows(1).expand(16, DIM)
    assert model(same, Regions(torch.tensor([16]), 2, 1024)).abs().max() == 0


@pytest.mark.parametrize("mask", [True, False])
def test_bags_are_seen_alone_and_in_one_pass(mask):
    sizes = torch.tensor([1, 30, 4, 17, 2])
    model = made(ReEmbedding, DIM, regions=2, kernel=3, representatives=2, mask=mask)
    x = rows(int(sizes.sum()))
    alone = [model(p, s[None]) for p, s in zip(x.split(sizes.tolist()), sizes, strict=True)]
    torch.testing.assert_close(model(x, sizes), torch.cat(alone), rtol=1e-9, atol=1e-9)


def test_what_the_mask_hides():
    """Full squares have no empty place; in others the original lets them take part."""
    masked, open_ = (made(ReEmbedding, DIM, regions=2, kernel=3, mask=mask) for mask in (True, False))
    for n, same in ((16, True), (13, False)):
        a, b = (model(rows(n), torch.tensor([n])) for model in (masked, open_))
        assert torch.allclose(a, b, atol=1e-9) is same


def test_places_take_the_place_of_order():
    model = made(ReEmbedding, DIM, regions=2, kernel=3)
    x, sizes, coords = rows(20), torch.tensor([12, 8]), torch.rand(20, 2)
    order = torch.cat([torch.randperm(12), 12 + torch.randperm(8)])
    torch.testing.assert_close(
        model(x[order], sizes, coords[order]), model(x, sizes, coords)[order], rtol=1e-9, atol=1e-9
    )
    assert not torch.allclose(model(x[order], sizes), model(x, sizes)[order])


def test_gradients():
    model = made(ReEmbedding, DIM, regions=2, kernel=3, representatives=2)
    assert torch.autograd.gradcheck(lambda x: model(x, torch.tensor([5, 1])), rows(6).requires_grad_(), atol=1e-6)


def test_memory_grows_with_the_instances():
    """Regions hold so many places at most, whatever the bag: no table of all pairs."""
    for n in (10_000, 100_000):
        regions = Regions(torch.tensor([n]), 8, 1024)
        assert int(regions.sizes.max()) <= 1024
        assert int(regions.sizes.square().sum()) <= 1.1 * 1024 * n
    with torch.no_grad():
        found = ReEmbedding(4, heads=1, kernel=3, most=64)(torch.randn(100_000, 4), torch.tensor([100_000]))
    assert found.isfinite().all()


def test_what_is_refused():
    with pytest.raises(LabelError, match="expected an odd number"):
        ReEmbedding(DIM, kernel=4)
    with pytest.raises(LabelError, match="3 heads do not share"):
        ReEmbedding(DIM, heads=3)
    with pytest.raises(LabelError, match="regions is 0"):
        ReEmbedding(DIM, regions=0)
