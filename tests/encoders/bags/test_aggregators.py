"""Every aggregator is its textbook formula on each bag alone."""

import math

import pytest
import torch
from torch.nn import functional

from anygrain.encoders.bags import AGGREGATORS, CLAM, Attention, NoisyOr, TransMIL
from anygrain.encoders.bags.clam import extremes
from anygrain.encoders.bags.linear_attention import linear_attention
from anygrain.encoders.bags.named import aggregator_named
from anygrain.encoders.bags.noisy_or import log_softplus, noisy_or
from anygrain.encoders.bags.tiles import Tiles
from anygrain.labels import LabelError

DIM = 8
SIZES = torch.tensor([1, 5, 2, 13, 1])
OPTIONS = {
    "mean": [{}],
    "max": [{}],
    "log_sum_exp": [{}],
    "noisy_or": [{}, {"attributes": 3}],
    "attention": [{}, {"gated": True}, {"heads": 3}],
    "dsmil": [{}, {"streams": 2}],
    "clam": [{}, {"branches": 2}],
    "transformer": [{}],
    "trans_mil": [{}],
    "mamba": [{"rate": 3, "layers": 1, "state": 4}, {"second": "flipped", "layers": 1}, {"second": "none"}],
    "set_transformer": [{}, {"seeds": 2, "points": 3}],
    "deep_sets": [{"hidden": 6}],
}
CASES = [(name, options) for name, cases in OPTIONS.items() for options in cases]
EVERY = pytest.mark.parametrize(("name", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "")


def made(name, options):
    """An aggregator in float64 with parameters that are all away from their start."""
    torch.manual_seed(0)
    model = aggregator_named(name, DIM, options).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def bags(sizes=SIZES, seed=0):
    return torch.randn(int(sizes.sum()), DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def block(model, h):
    """A pre-norm block of linear attention, written out."""
    q, k, v = model.project(model.norm(h)).view(len(h), 3, model.heads, -1).permute(1, 2, 0, 3)
    kernel = (functional.elu(q) + 1) @ (functional.elu(k) + 1).transpose(1, 2)
    seen = (kernel / kernel.sum(dim=2, keepdim=True)) @ v
    h = h + model.mix(seen.transpose(0, 1).flatten(1))
    return h if model.mlp is None else h + model.mlp(h)


def attention(model, h):
    shown = torch.tanh(h @ model.value.weight.T + model.value.bias)
    if model.gate is not None:
        shown = shown * torch.sigmoid(h @ model.gate.weight.T + model.gate.bias)
    return ((shown @ model.weight.weight.T).softmax(dim=0).T @ h).flatten()


def dsmil(model, h):
    s = model.score(h)
    q = model.query(h)
    a = (q @ q[s.argmax(dim=0)].T / q.shape[1] ** 0.5).softmax(dim=0)
    return torch.cat([(a.T @ h).flatten(), s.max(dim=0).values])


def mab(model, x, y):
    q, k, v = (
        part.view(len(part), model.heads, -1).transpose(0, 1) for part in (model.query(x), model.key(y), model.value(y))
    )
    seen = ((q @ k.transpose(1, 2) / q.shape[2] ** 0.5).softmax(dim=2) @ v).transpose(0, 1).flatten(1)
    h = model.first(x + model.mix(seen))
    return model.second(h + torch.relu(model.feed(h)))


def set_transformer(model, h):
    for layer in model.layers:
        h = mab(layer.spread, h, mab(layer.gather, layer.points, h))
    seeds = mab(model.pool, model.seeds, h)
    return mab(model.among, seeds, seeds).flatten()


def transformer(model, h):
    for one in model.blocks:
        h = block(one, h)
    return attention(model.pool, model.norm(h))


def trans_mil(model, h):
    n, side = len(h), math.ceil(len(h) ** 0.5)
    h = torch.cat([model.token[None], h, h[: side**2 - n]])
    h = block(model.first, h)
    image = h[1:].T.reshape(1, DIM, side, side)
    position = model.position
    seen = sum(
        functional.conv2d(image, c.weight, padding=c.kernel_size[0] // 2, groups=DIM)
        for c in (position.large, position.middle, position.small)
    )
    image = image + seen + position.shift[:, None, None]
    h = torch.cat([h[:1], image.flatten(2)[0].T])
    return model.norm(block(model.second, h))[0]


def branch(model, u, g):
    """A state-space branch, written as the recursion."""
    n, c = u.shape
    seen = torch.stack(
        [
            model.shift + sum(model.kernel[:, -1 - j] * u[t - j] for j in range(model.kernel.shape[1]) if t >= j)
            for t in range(n)
        ]
    )
    u = functional.silu(seen)
    delta, b, read = model.read(u).split([model.rank, model.state, model.state], dim=1)
    step, a = functional.softplus(model.time(delta)), -torch.exp(model.log_a)
    x, out = torch.zeros(c, model.state, dtype=u.dtype), []
    for t in range(n):
        x = torch.exp(step[t][:, None] * a) * x + (step[t] * u[t])[:, None] * b[t]
        out.append(x @ read[t] + model.d * u[t])
    return torch.stack(out) * functional.silu(g)


def mamba(model, h):
    for norm, one in zip(model.norms, model.blocks, strict=True):
        both = norm(h) @ one.enter.weight.T
        u, g = both.chunk(2, dim=1)
        y = branch(one.branches[0], u, g)
        if one.second == "flipped":
            y = y + branch(one.branches[1], u.flip(0), g.flip(0)).flip(0)
        if one.second == "reordered":
            r, n = one.rate, len(h)
            filled = functional.pad(both, (0, 0, 0, -n % r))
            turned = filled.view(-1, r, both.shape[1]).transpose(0, 1).flatten(0, 1)
            again = branch(one.branches[1], *turned.chunk(2, dim=1))
            y = y + again.view(r, -1, y.shape[1]).transpose(0, 1).flatten(0, 1)[:n]
        h = h + one.leave(y)
    return attention(model.pool, model.norm(h))


TEXTBOOK = {
    "mean": lambda m, h: h.mean(dim=0),
    "max": lambda m, h: h.max(dim=0).values,
    "log_sum_exp": lambda m, h: (m.log_sharpness.exp() * h).exp().mean(dim=0).log() / m.log_sharpness.exp(),
    "noisy_or": lambda m, h: torch.logit(1 - (1 - torch.sigmoid(m.project(h))).prod(dim=0)),
    "attention": attention,
    "dsmil": dsmil,
    "clam": attention,
    "transformer": transformer,
    "trans_mil": trans_mil,
    "mamba": mamba,
    "set_transformer": set_transformer,
    "deep_sets": lambda m, h: m.all(
        torch.cat([m.each(h).mean(dim=0), torch.tensor([math.log(len(h))], dtype=h.dtype)])[None]
    )[0],
}


def test_every_aggregator_is_looked_at():
    assert set(TEXTBOOK) == set(OPTIONS) == set(AGGREGATORS)


@EVERY
def test_ragged_bags_are_the_textbook_formula_of_each(name, options):
    model, h = made(name, options), bags()
    pooled = model(h, SIZES)
    expected = torch.stack([TEXTBOOK[name](model, part) for part in h.split(SIZES.tolist())])
    torch.testing.assert_close(pooled.bag, expected, rtol=1e-9, atol=1e-9)
    assert pooled.bag.shape == (len(SIZES), model.feature_dim)
    assert pooled.instances.shape == (len(h), model.feature_dim)


@EVERY
def test_attention_is_a_share_and_no_bag_sees_another(name, options):
    model, h = made(name, options), bags()
    pooled = model(h, SIZES)
    one = model(h[6:8], SIZES[2:3])
    torch.testing.assert_close(one.instances, pooled.instances[6:8], rtol=1e-9, atol=1e-9)
    if pooled.attention is not None:
        torch.testing.assert_close(one.attention, pooled.attention[6:8], rtol=1e-9, atol=1e-9)
        assert (pooled.attention >= 0).all()
        total = torch.stack([a.sum() for a in pooled.attention.split(SIZES.tolist())])
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=1e-12)


@EVERY
def test_a_bag_of_one_is_its_instance(name, options):
    if name == "trans_mil":
        pytest.skip("its bag is a token of its own")
    pooled = made(name, options)(bags()[:3], torch.ones(3, dtype=torch.long))
    torch.testing.assert_close(pooled.bag, pooled.instances, rtol=1e-9, atol=1e-9)


@EVERY
def test_order_matters_only_where_it_is_said(name, options):
    model, h = made(name, options), bags()
    generator = torch.Generator().manual_seed(1)
    order = torch.cat(
        [p[torch.randperm(len(p), generator=generator)] for p in torch.arange(len(h)).split(SIZES.tolist())]
    )
    before, after = model(h, SIZES), model(h[order], SIZES)
    same = torch.allclose(after.bag, before.bag, rtol=1e-9, atol=1e-9)
    assert same is not model.ordered
    if same:
        torch.testing.assert_close(after.instances, before.instances[order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["trans_mil", "mamba"])
def test_places_take_the_place_of_order(name):
    model, h = made(name, {}), bags()
    coords = torch.rand(len(h), 2, generator=torch.Generator().manual_seed(2))
    order = torch.cat([p.flip(0) for p in torch.arange(len(h)).split(SIZES.tolist())])
    before, after = model(h, SIZES, coords), model(h[order], SIZES, coords[order])
    torch.testing.assert_close(after.bag, before.bag, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after.instances, before.instances[order], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after.attention, before.attention[order], rtol=1e-9, atol=1e-9)


@EVERY
def test_gradients(name, options):
    model, sizes = made(name, options), torch.tensor([1, 3])
    h = bags(sizes).requires_grad_()

    def both(x):
        pooled = model(x, sizes)
        return pooled.bag, pooled.instances

    assert torch.autograd.gradcheck(both, h, atol=1e-6)
    loss = sum(part.square().sum() for part in both(h))
    loss.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert all(n.startswith("membership") for n in idle)  # CLAM's instance branch has a loss of its own


@pytest.mark.parametrize("name", ["mean", "attention"])
def test_the_score_of_a_bag_is_the_mean_of_its_instances(name):
    model, h = made(name, {}), bags()
    head = torch.randn(DIM, dtype=torch.float64)
    pooled = model(h, SIZES)
    parts = ((pooled.instances @ head) * pooled.attention).split(SIZES.tolist())
    torch.testing.assert_close(pooled.bag @ head, torch.stack([p.sum() for p in parts]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_bag_of_a_hundred_thousand_beside_a_bag_of_one(name):
    """A table of all pairs would take 40 gigabytes; a padded one would double what is there."""
    sizes, options = torch.tensor([100_000, 1]), {"layers": 1, "state": 2, "expand": 1} if name == "mamba" else {}
    torch.manual_seed(0)
    with torch.no_grad():
        pooled = aggregator_named(name, 4, options).eval()(torch.randn(100_001, 4), sizes)
    assert pooled.bag.isfinite().all()
    assert pooled.attention is None or pooled.attention[:-1].sum() == pytest.approx(1, abs=1e-3)


def test_noisy_or_keeps_its_digits_far_out():
    sizes = torch.tensor([3, 3, 2, 1])
    log_odds = torch.tensor([-40.0, -41, -42, 30, 31, -50, -200, -201, 3.0])[:, None].double().requires_grad_()
    ours = noisy_or(log_odds, sizes)
    unlikely = torch.tensor([-40.0, -41, -42]).double().logsumexp(0)  # of small chances the sum
    likely = math.log1p(math.exp(30)) + math.log1p(math.exp(31)) + math.log1p(math.exp(-50))
    rare = torch.tensor([-200.0, -201]).double().logsumexp(0)
    torch.testing.assert_close(ours[:, 0], torch.tensor([unlikely, likely, rare, 3.0]).double(), rtol=1e-12, atol=0)
    (grad,) = torch.autograd.grad(ours.sum(), log_odds)
    shares = torch.tensor([-40.0, -41, -42]).double().softmax(0)
    torch.testing.assert_close(grad[:3, 0], shares, rtol=1e-9, atol=0)
    assert grad.isfinite().all()
    assert log_softplus(torch.tensor([-300.0, 0, 300])).tolist() == pytest.approx(
        [-300, math.log(math.log(2)), math.log(300)]
    )
    narrow = noisy_or(log_odds.detach().float(), sizes)
    torch.testing.assert_close(narrow.double(), ours.detach(), rtol=1e-6, atol=1e-6)


def test_noisy_or_starts_undecided():
    model = NoisyOr(DIM)
    torch.nn.init.zeros_(model.project.weight)
    sizes = torch.full((4,), 50)
    model.learn(sizes)
    assert model(torch.randn(200, DIM), sizes).bag.sigmoid().tolist() == [[pytest.approx(0.63, abs=0.02)] * DIM] * 4


def test_linear_attention_is_the_normalised_kernel():
    sizes = torch.tensor([70, 3])
    q, k, v = (torch.randn(73, 2, 4, dtype=torch.float64) for _ in range(3))
    rows = []
    for a, b, c in zip(*(x.split(sizes.tolist()) for x in (q, k, v)), strict=True):
        kernel = torch.einsum("ihp,jhp->hij", functional.elu(a) + 1, functional.elu(b) + 1)
        rows.append(torch.einsum("hij,jhq->ihq", kernel / kernel.sum(dim=2, keepdim=True), c))
    torch.testing.assert_close(linear_attention(q, k, v, Tiles(sizes)), torch.cat(rows), rtol=1e-9, atol=1e-9)


def test_clam_clusters_what_is_attended():
    sizes = torch.tensor([1, 6])
    top, bottom = extremes(torch.tensor([0.0, 5, 1, 4, 2, 0, 3]), sizes, 2)
    assert top.tolist() == [True, True, False, True, False, False, False]
    assert bottom.tolist() == [True, False, True, False, False, True, False]
    model = CLAM(DIM, clustered=2).double()
    h = bags(torch.tensor([6]))
    posterior = torch.tensor([[0.25, 0.75]]).double()
    order = model.scores(h)[:, 0].argsort()
    chance = torch.sigmoid(model.instance_scores(h))
    member, other = -chance.log(), -(1 - chance).log()
    low, high = order[:2], order[4:]
    of_class = [(member[high, k].mean() + other[low, k].mean()) / 2 + other[high, 1 - k].mean() for k in range(2)]
    expected = 0.25 * of_class[0] + 0.75 * of_class[1]
    found = model.instance_loss(h, torch.tensor([6]), posterior)
    torch.testing.assert_close(found, expected[None], rtol=1e-9, atol=1e-9)
    model.exclusive = False
    inside = sum(w * (member[high, k].mean() + other[low, k].mean()) / 2 for k, w in enumerate((0.25, 0.75)))
    torch.testing.assert_close(model.instance_loss(h, torch.tensor([6]), posterior), inside[None], rtol=1e-9, atol=1e-9)
    with pytest.raises(LabelError, match="has 2 classes, the bags 3"):
        model.instance_loss(h, torch.tensor([6]), torch.ones(1, 3) / 3)


def test_the_square_is_filled_with_the_first_instances():
    model = TransMIL(DIM).double().eval()
    h = bags(torch.tensor([5]))
    whole = torch.cat([h, h[:4]])
    five, nine = model(h, torch.tensor([5])), model(whole, torch.tensor([9]))
    torch.testing.assert_close(five.bag, nine.bag, rtol=1e-9, atol=1e-9)


def test_what_is_asked_for_must_be_there():
    with pytest.raises(LabelError, match='Did you mean "attention"'):
        aggregator_named("atention", DIM, {})
    with pytest.raises(LabelError, match='"mean" has no option "gated"; it has none'):
        aggregator_named("mean", DIM, {"gated": True})
    with pytest.raises(LabelError, match="3 heads do not share 8 features"):
        aggregator_named("transformer", DIM, {"heads": 3})
    with pytest.raises(LabelError, match="expected 1, or one for each class"):
        CLAM(DIM, classes=3, branches=2)


def test_attention_of_several_heads_is_several():
    model, h = Attention(DIM, heads=2).double(), bags()
    scores = model.scores(h)
    parts = [
        (a.softmax(dim=0).T @ p).flatten()
        for a, p in zip(scores.split(SIZES.tolist()), h.split(SIZES.tolist()), strict=True)
    ]
    torch.testing.assert_close(model(h, SIZES).bag, torch.stack(parts), rtol=1e-9, atol=1e-9)
