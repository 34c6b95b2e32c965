r"""The selective scan of a state-space model, in plain torch or by the compiled kernel.

.. math:: x_t = e^{\Delta_t A} \odot x_{t-1} + (\Delta_t u_t) \otimes B_t, \qquad y_t = x_t C_t + D \odot u_t

with x of C channels times s states, from x = 0 at the first instance of every bag. Bags stand one after another: the
decay of a first instance is 0, so that one scan serves all of them without padding.

Source: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from anygrain.encoders.bags.segments import first_of
from anygrain.labels.segments import Segments

AT_ONCE = 1 << 23  # states that are held together on a GPU: 32 megabytes of float32
CACHED = 1 << 17  # and on a CPU, where they stay near it


def selective_scan(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, sizes: Tensor) -> Tensor:
    """Outputs y (E, C) of instances in order, bag after bag.

    On a GPU with `mamba_ssm` installed by its kernel, else by `chunked_scan`, whose time is linear in E and whose
    memory beside inputs and outputs is bounded.

    Args:
        u: (E, C).
        delta: (E, C), above 0.
        a: (C, s), below 0.
        b, c: (E, s).
        d: (C,).
        sizes: (B,), instances of every bag.
    """
    kernel = compiled_kernel() if u.is_cuda else None
    if kernel is not None:
        return scan_by(kernel, u, delta, a, b, c, d, sizes)
    return chunked_scan(u, delta, a, b, c, sizes) + d * u


def compiled_kernel() -> Callable[..., Any] | None:
    """`selective_scan_fn` of mamba_ssm, or None where it is not installed."""
    if importlib.util.find_spec("mamba_ssm") is None:
        return None
    kernel: Callable[..., Any] = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    return kernel


def scan_by(
    kernel: Callable[..., Any], u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, sizes: Tensor
) -> Tensor:
    """By a kernel of (B, C, L) sequences: bags of similar size are laid side by side, what fills them up comes last."""
    out = torch.zeros_like(u)
    for block in Segments(torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])).blocks:
        laid = [block.lay(part, 0.0).transpose(1, 2).contiguous() for part in (u, delta, b, c)]
        found = kernel(laid[0], laid[1], a, laid[2], laid[3], D=d).transpose(1, 2)
        if block.index is None:
            whole: Tensor = found.reshape(u.shape)
            return whole
        index = block.index.flatten() if block.filled is None else block.index[block.filled]
        out = out.index_copy(0, index, found.flatten(0, 1) if block.filled is None else found[block.filled])
    return out


def chunked_scan(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, sizes: Tensor) -> Tensor:
    """The scan without D, chunk by chunk; arguments as in `selective_scan`."""
    starts = torch.zeros(len(u), dtype=torch.bool, device=u.device)
    starts[first_of(sizes)] = True
    out: Tensor = ChunkedScan.apply(u, delta, a, b, c, starts)  # type: ignore[no-untyped-call]
    return out


class ChunkedScan(torch.autograd.Function):
    """States are written down for one chunk at a time, in the gradient as well; between chunks (s, C) is kept."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, starts: Tensor) -> Tensor:
        rate, parts = a.T.contiguous(), chunks(len(u), a)
        kept = rate.new_zeros(len(parts), *rate.shape)
        room = Room(rate, parts[0].stop)
        out = torch.empty_like(u)
        for at, part in enumerate(parts):
            decay = room.decays(delta[part], rate, starts[part])
            found = scan(decay, room.outer(b[part], delta[part] * u[part]), kept[at])
            out[part] = torch.bmm(c[part][:, None], found)[:, 0]
            if at + 1 < len(parts):
                kept[at + 1] = found[-1]
        ctx.save_for_backward(u, delta, a, b, c, starts, kept)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = gradients
        u, delta, a, b, c, starts, kept = ctx.saved_tensors
        rate, parts = a.T.contiguous(), chunks(len(u), a)
        room, other = Room(rate, parts[0].stop), Room(rate, parts[0].stop)
        grad_u, grad_delta, grad_b, grad_c = (torch.empty_like(part) for part in (u, delta, b, c))
        grad_rate, after = torch.zeros_like(rate), torch.zeros_like(rate)
        for at in range(len(parts) - 1, -1, -1):
            part, before = parts[at], kept[at]
            step, moved = delta[part], delta[part] * u[part]
            decay = room.decays(step, rate, starts[part])
            found = scan(decay, room.outer(b[part], moved), before)
            grad_c[part] = torch.bmm(found, grad[part][:, :, None])[:, :, 0]
            # of the states, from the last to the first: what they give, and what they leave to the next
            given = other.outer(c[part], grad[part])
            given[-1] += after
            back = scan_back(decay, given)
            torch.mul(decay[0], back[0], out=after)
            pushed = torch.bmm(b[part][:, None], back)[:, 0]
            grad_u[part] = pushed * step
            grad_b[part] = torch.bmm(back, moved[:, :, None])[:, :, 0]
            through = decay.mul_(back)  # of the exponents delta a
            through[1:].mul_(found[:-1])
            through[0].mul_(before)
            grad_rate += torch.mul(through, step[:, None], out=back).sum(dim=0)
            grad_delta[part] = through.mul_(rate).sum(dim=1).addcmul_(pushed, u[part])
        return grad_u, grad_delta, grad_rate.T, grad_b, grad_c, None


class Room:
    """Where the decays and states of a chunk are written, (T, s, C): the same place for all chunks.

    Args:
        rate: (s, C).
        length: T, of the longest chunk.
    """

    def __init__(self, rate: Tensor, length: int) -> None:
        self.decay, self.state = rate.new_empty(2, length, *rate.shape).unbind()

    def decays(self, delta: Tensor, rate: Tensor, starts: Tensor) -> Tensor:
        """Of steps (T, C) and rates (s, C), 0 where a bag starts."""
        endless = delta.masked_fill(starts[:, None], math.inf)
        return torch.mul(endless[:, None], rate, out=self.decay[: len(delta)]).exp_()

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        """Of (T, s) and (T, C)."""
        return torch.mul(left[:, :, None], right[:, None], out=self.state[: len(left)])


def chunks(n: int, a: Tensor) -> list[slice]:
    """Parts of n instances whose states, as many as `a` (C, s) each, are held together."""
    length = max(16, (AT_ONCE if a.is_cuda else CACHED) // a.numel())
    return [slice(at, min(at + length, n)) for at in range(0, n, length)]


def scan(decay: Tensor, given: Tensor, before: Tensor) -> Tensor:
    r""":math:`x_t = d_t x_{t-1} + g_t` (T, s, C) of decays and inputs, from `before` (s, C); may be in `given`.

    On a CPU step by step, which keeps the processor busy from a few hundred states on; on a GPU by `linear_scan`.
    """
    if given.is_cuda:
        return linear_scan(decay, given, before)
    for d, g in zip(decay.unbind(), given.unbind(), strict=True):
        before = g.addcmul_(d, before)
    return given


def scan_back(decay: Tensor, given: Tensor) -> Tensor:
    r""":math:`x_t = d_{t+1} x_{t+1} + g_t` (T, s, C), from the last to the first; may be in `given`."""
    if given.is_cuda:
        kept = torch.cat([decay[1:], decay[:1]]).flip(0)
        return linear_scan(kept, given.flip(0), torch.zeros_like(given[0]), first_decays=False).flip(0)
    steps, states = decay.unbind(), given.unbind()
    for t in range(len(steps) - 1, 0, -1):
        states[t - 1].addcmul_(steps[t], states[t])
    return given


def linear_scan(decay: Tensor, given: Tensor, before: Tensor, first_decays: bool = True) -> Tensor:
    r""":math:`x_t = d_t x_{t-1} + g_t` (T, ...) of decays and inputs (T, ...), from `before` (...).

    About :math:`\sqrt T` stretches are scanned side by side, then each gets what the ones before it leave, through the
    products of its decays. No product is divided by, so that none that underflows does harm.

    Args:
        first_decays: False: the first decay is not looked at, and nothing comes before.
    """
    steps = len(decay)
    length = max(1, round(steps**0.5))
    many = -(-steps // length)
    if not first_decays:
        decay = torch.cat([torch.zeros_like(decay[:1]), decay[1:]])
    if many * length > steps:  # what fills up comes last and is cut off
        filled = decay.new_zeros(many * length - steps, *decay.shape[1:])
        decay, given = torch.cat([decay, filled]), torch.cat([given, filled])
    shape = (many, length, *decay.shape[1:])
    decay, found = decay.view(shape), given.reshape(shape).clone()
    product = decay.clone()
    for t in range(1, length):
        found[:, t].addcmul_(decay[:, t], found[:, t - 1])
        product[:, t] *= product[:, t - 1]
    for m in range(many):
        found[m].addcmul_(product[m], before)
        before = found[m, -1]
    return found.flatten(0, 1)[:steps]
