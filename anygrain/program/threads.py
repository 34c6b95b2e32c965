"""How many threads a piece of work is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

SMALL = 1e8  # multiplications per pass below which threads cost more than they bring


@contextmanager
def threads_for(multiplications: float) -> Iterator[None]:
    """One thread for small work, all of them for large work."""
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if multiplications >= SMALL:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)
