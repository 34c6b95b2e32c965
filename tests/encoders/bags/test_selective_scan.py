"""The selective scan: chunks against the recursion, closed forms, and what a compiled kernel is given."""

import sys
import types

import pytest
import torch

from anygrain.encoders.bags import Mamba, selective_scan
from anygrain.encoders.bags.mamba import Branch, StateSpace
from anygrain.encoders.bags.selective_scan import chunked_scan, compiled_kernel, linear_scan, scan_back, scan_by
from anygrain.labels import LabelError

SIZES = torch.tensor([1, 40, 3, 23])
C, S = 3, 2


def parts(dtype=torch.float64, sizes=SIZES, seed=0):
    """u, delta, a, b, c, d."""
    g, n = torch.Generator().manual_seed(seed), int(sizes.sum())

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    return draw(n, C), draw(n, C).exp(), -draw(C, S).exp(), draw(n, S), draw(n, S), draw(C)


def recursion(u, delta, a, b, c, d, sizes):
    out, at = [], 0
    for n in sizes.tolist():
        x = torch.zeros_like(a)
        for t in range(at, at + n):
            x = torch.exp(delta[t][:, None] * a) * x + (delta[t] * u[t])[:, None] * b[t]
            out.append(x @ c[t] + d * u[t])
        at += n
    return torch.stack(out)


@pytest.fixture(params=[16, 64, 10_000])
def chunk(request, monkeypatch):
    monkeypatch.setattr(sys.modules["anygrain.encoders.bags.selective_scan"], "CACHED", request.param * C * S)


@pytest.mark.usefixtures("chunk")
def test_chunks_are_the_recursion_and_so_are_their_gradients():
    given = [p.requires_grad_() for p in parts()]
    ours, theirs = selective_scan.selective_scan(*given, SIZES), recursion(*given, SIZES)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    weight = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad((ours * weight).sum(), given),
        torch.autograd.grad((theirs * weight).sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def test_float32_keeps_to_the_recursion():
    narrow = selective_scan.selective_scan(*parts(torch.float32), SIZES)
    torch.testing.assert_close(narrow.double(), recursion(*parts(), SIZES), rtol=1e-5, atol=1e-6)


def test_decays_that_underflow_do_no_harm():
    u, delta, a, b, c, _ = parts()
    out = chunked_scan(u, delta * 1e4, a, b, c, SIZES)
    own = (delta * 1e4 * u) * (b * c).sum(dim=1, keepdim=True)  # all that was before is forgotten
    torch.testing.assert_close(out, own, rtol=1e-9, atol=1e-9)


def test_a_bag_of_one_has_a_closed_form():
    one = torch.tensor([1])
    u, delta, a, b, c, d = parts(sizes=one)
    expected = delta * u * (b * c).sum() + d * u
    torch.testing.assert_close(selective_scan.selective_scan(u, delta, a, b, c, d, one), expected)


@pytest.mark.parametrize("steps", [1, 2, 17])
def test_a_scan_back_is_a_scan_of_what_was_turned_round(steps):
    decay, given = torch.rand(steps, S, C), torch.randn(steps, S, C)
    turned = torch.cat([decay[1:], decay[:1]]).flip(0)
    wanted = linear_scan(turned, given.flip(0), torch.zeros(S, C), first_decays=False).flip(0)
    torch.testing.assert_close(scan_back(decay, given.clone()), wanted)


@pytest.mark.parametrize("steps", [1, 2, 3, 16, 17, 100])
def test_a_linear_scan_is_its_recursion(steps):
    decay, given, x = torch.rand(steps, 2), torch.randn(steps, 2), torch.randn(2)
    found, rows = linear_scan(decay, given, x), []
    for t in range(steps):
        x = decay[t] * x + given[t]
        rows.append(x)
    torch.testing.assert_close(found, torch.stack(rows))


def test_a_kernel_is_given_bags_side_by_side():
    """A stand-in with the signature of mamba_ssm's kernel, (B, C, L) sequences, gives what plain torch gives."""
    shapes = []

    def kernel(u, delta, a, b, c, D=None):
        shapes.append(tuple(u.shape))
        n, _, length = u.shape
        flat = [p.transpose(1, 2).flatten(0, 1) for p in (u, delta, b, c)]
        sizes = torch.full((n,), length)
        return recursion(flat[0], flat[1], a, flat[2], flat[3], D, sizes).view(n, length, -1).transpose(1, 2)

    for sizes in (SIZES, torch.tensor([9, 9])):
        given = parts(sizes=sizes)
        torch.testing.assert_close(scan_by(kernel, *given, sizes), recursion(*given, sizes), rtol=1e-9, atol=1e-9)
    assert all(n * length <= 2 * 67 for n, _, length in shapes)  # no bag is filled up to the largest


def test_the_compiled_kernel_is_found_where_it_is_installed(monkeypatch):
    assert compiled_kernel() is None or "mamba_ssm" in sys.modules
    package = types.ModuleType("mamba_ssm")
    package.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec("mamba_ssm", None)
    ops, interface = types.ModuleType("mamba_ssm.ops"), types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = sum
    for name, module in (("", package), (".ops", ops), (".ops.selective_scan_interface", interface)):
        monkeypatch.setitem(sys.modules, f"mamba_ssm{name}", module)
    assert compiled_kernel() is sum


def test_steps_of_time_start_between_a_thousandth_and_a_tenth():
    branch = Branch(64, 4, 2, 4)
    steps = torch.nn.functional.softplus(branch.time.bias)
    assert (steps > 0.99e-3).all()
    assert (steps < 0.101).all()
    assert torch.exp(branch.log_a)[0].tolist() == pytest.approx([1, 2, 3, 4])


def test_two_equal_branches_that_read_alike_are_twice_one():
    """Steps of one, parameters shared: before the projection the sum is twice the single branch."""
    torch.manual_seed(0)
    both = StateSpace(8, 4, 2, 4, "reordered", 1).double()
    both.branches[1].load_state_dict(both.branches[0].state_dict())
    one = StateSpace(8, 4, 2, 4, "none", 1).double()
    one.load_state_dict({k: v for k, v in both.state_dict().items() if not k.startswith("branches.1")})
    x = torch.randn(int(SIZES.sum()), 8, dtype=torch.float64)
    torch.testing.assert_close(both(x, SIZES), 2 * one(x, SIZES), rtol=1e-9, atol=1e-9)


def test_what_is_refused():
    with pytest.raises(LabelError, match='expected "reordered", "flipped" or "none"'):
        Mamba(8, second="backwards")
    with pytest.raises(LabelError, match="rate is 0"):
        Mamba(8, rate=0)
