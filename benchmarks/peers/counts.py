"""Class counts and "at least one": likelihood, posterior and gradient in one pass, beside two other projects.

    python benchmarks/peers/counts.py --glws PATH --countloss PATH

PATH are checkouts of github.com/Hhhhhhao/General-Framework-Weak-Supervision and github.com/UCLA-StarAI/CountLoss;
without one its columns are skipped. All run in float32 on one thread, from given log-probabilities (`log_softmax` left
out); times are processor time. The gradient of log P in the log-probabilities is the posterior, which our kernels
return; the others differentiate by autograd. Exact values come from a recursion in long double. Ours are all problems
in one call; CountLoss is shown as its users call it, once per class, and with all problems put together by hand
(through its `ret_entire_tensor_k`: the shorter `prob_x_equals_k_final` of the same file starts from a wrong table).
"""

import argparse
import gc
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.counting import any_of, event_counts, log1mexp
from anygrain.labels.segments import Segments

sys.path.insert(0, str(Path(__file__).parent))
from results import write_section

BAGS, CLASSES = 16, 10
#: work, ratio to reach against the trellis, and against CountLoss
COUNT_ROWS = {8: (100, 8), 32: (500, 8), 128: (2000, 8)}
ANY_ROWS = {128: 200, 1000: 1000}


def timed(work: Callable[[], Tensor], seconds: float = 2.0, most: int = 200) -> tuple[float, float, Tensor]:
    """Least and median milliseconds of processor time, and the result; work that takes long runs once."""
    gc.collect()
    began = time.process_time()
    result = work()
    first = time.process_time() - began
    if first > seconds:
        return first * 1e3, first * 1e3, result
    taken = []
    while len(taken) < most and sum(taken) < seconds:
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken) * 1e3, float(np.median(taken)) * 1e3, result


def exact_count(p: np.ndarray, count: int) -> np.ndarray:
    """P(y_i = 1 | count) for every member, by a scaled forward-backward recursion in long double."""
    n, p = len(p), p.astype(np.longdouble)
    forward = np.zeros((n + 1, count + 1), dtype=np.longdouble)
    forward[0, 0] = 1
    for i in range(n):
        forward[i + 1] = forward[i] * (1 - p[i])
        forward[i + 1, 1:] += forward[i, :-1] * p[i]
        forward[i + 1] /= forward[i + 1].max()
    backward = np.zeros(count + 1, dtype=np.longdouble)
    backward[count] = 1
    posterior = np.empty(n)
    for i in reversed(range(n)):
        one = (forward[i, :-1] * backward[1:]).sum() * p[i]
        zero = (forward[i] * backward).sum() * (1 - p[i])
        posterior[i] = float(one / (one + zero))
        before = backward * (1 - p[i])
        before[:-1] += backward[1:] * p[i]
        backward = before / before.max()
    return posterior


def count_work(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """log p (bags, n, K), counts (bags, K) of drawn classes, and the exact posteriors of one class against the rest."""
    generator = torch.Generator().manual_seed(seed)
    log_p = torch.log_softmax(torch.randn(BAGS, n, CLASSES, generator=generator), dim=2)
    classes = torch.randint(0, CLASSES, (BAGS, n), generator=generator)
    counts = torch.nn.functional.one_hot(classes, CLASSES).sum(dim=1)
    p = log_p.double().exp().numpy()
    exact = np.stack(
        [[exact_count(p[m, :, k], int(counts[m, k])) for k in range(CLASSES)] for m in range(BAGS)]
    )  # (bags, K, n)
    return log_p, counts, torch.from_numpy(exact).transpose(1, 2)


def our_counts(log_p: Tensor, counts: Tensor) -> Callable[[], Tensor]:
    n = log_p.shape[1]
    flat = log_p.reshape(-1, CLASSES)
    segments = Segments(torch.arange(BAGS + 1) * n)

    def work() -> Tensor:
        found = event_counts(flat, log1mexp(-flat), segments, counts)
        return torch.exp(flat + found.having).view(BAGS, n, CLASSES)

    return work


def trellis_counts(nfa: object, log_p: Tensor, counts: Tensor) -> Callable[[], Tensor]:
    def work() -> Tensor:
        out = torch.empty_like(log_p)
        for m in range(BAGS):
            for k in range(CLASSES):
                column = log_p[m, :, k]
                pair = torch.stack([log1mexp(-column), column], dim=1).requires_grad_()
                target, likelihood = nfa.create_proportion_graph(pair, counts[m, k])
                likelihood.log().backward()
                out[m, :, k] = target[:, 1]
        return out

    return work


def countloss_counts(law: Callable[..., Tensor], log_p: Tensor, counts: Tensor, at_once: bool) -> Callable[[], Tensor]:
    n = log_p.shape[1]
    columns = log_p.permute(2, 0, 1)  # (K, bags, n)
    wanted = counts.T
    if at_once:
        columns, wanted = columns.reshape(1, -1, n), wanted.reshape(1, -1)

    def work() -> Tensor:
        out = []
        for column, number in zip(columns, wanted, strict=True):
            column = column.clone().requires_grad_()
            law(column, int(number.max()))[torch.arange(len(number)), n, number].sum().backward()
            p = column.detach().exp()
            out.append(p + column.grad * (1 - p))  # its gradient counts log(1 - p) as a function of log p
        return torch.cat(out).view(CLASSES, BAGS, n).permute(1, 2, 0)

    return work


def any_work(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """log p (bags, n, 2), half of the bags with the event, and the exact posterior of the event."""
    generator = torch.Generator().manual_seed(seed)
    logit = torch.randn(BAGS, n, generator=generator) * 1.5 - float(np.log(n))
    log_p = torch.stack([-torch.nn.functional.softplus(logit), -torch.nn.functional.softplus(-logit)], dim=2)
    present = (torch.arange(BAGS) % 2 == 0).to(torch.int8)
    p = log_p[..., 1].double().exp().numpy().astype(np.longdouble)
    any_at_all = -np.expm1(np.log1p(-p).sum(axis=1, keepdims=True))
    exact = np.where(present.numpy()[:, None] == 1, p / any_at_all, 0).astype(np.float64)
    return log_p, present, torch.from_numpy(exact)


def our_any(log_p: Tensor, present: Tensor) -> Callable[[], Tensor]:
    n = log_p.shape[1]
    flat = log_p.reshape(-1, 2)
    segments = Segments(torch.arange(BAGS + 1) * n)

    def work() -> Tensor:
        value, message = any_of(flat, segments, present)
        return torch.exp((flat + message).view(BAGS, n, 2) - value[:, None, None])

    return work


def trellis_any(nfa: object, log_p: Tensor, present: Tensor) -> Callable[[], Tensor]:
    lengths = torch.full((BAGS,), log_p.shape[1])
    answer = present.bool()

    def work() -> Tensor:
        given = log_p.clone().requires_grad_()
        target, any_at_all = nfa.create_multi_ins_graph(given, lengths, present)
        torch.where(answer, any_at_all, 1 - any_at_all).log().sum().backward()
        return target

    return work


def load_trellis(checkout: Path) -> object:
    spec = importlib.util.spec_from_file_location("nfa", checkout / "src" / "core" / "nfa.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_countloss(checkout: Path) -> Callable[..., Tensor]:
    sys.path.insert(0, str(checkout / "LLP"))
    from utils.log_space_algo import ret_entire_tensor_k

    return ret_entire_tensor_k


Measured = tuple[float, float, Tensor]


def cells(measured: Measured | None, exact: Tensor, ours: float | None = None, goal: int | None = None) -> list[str]:
    """min / median, ratio of the least times and its goal, largest error of the posterior."""
    if measured is None:
        return ["skipped", "", ""]
    least, median, posterior = measured
    error = float((posterior.double() - exact).abs().nan_to_num(1.0).max())
    ratio = [] if ours is None else [f"{least / ours:,.0f}" + (f" ({goal:,})" if goal else "")]
    return [f"{least:,.2f} / {median:,.2f}", *ratio, f"{error:.1e}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glws", type=Path, help="checkout of Hhhhhhao/General-Framework-Weak-Supervision")
    parser.add_argument("--countloss", type=Path, help="checkout of UCLA-StarAI/CountLoss")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    nfa = load_trellis(args.glws) if args.glws else None
    countloss = load_countloss(args.countloss) if args.countloss else None

    lines = ["| work | ours, ms | error |", "|---|---|---|"]
    for name in ("trellis", "CountLoss, a call per class", "CountLoss, one call"):
        lines[0] += f" {name}, ms | times ours (to reach) | error |"
        lines[1] += "---|---|---|"

    def show(line: list[str]) -> None:
        lines.append("| " + " | ".join(line) + " |")
        print(lines[-1], flush=True)

    print(lines[0], lines[1], sep="\n")
    for n, (goal_trellis, goal_countloss) in COUNT_ROWS.items():
        log_p, counts, exact = count_work(n, args.seed)
        ours = timed(our_counts(log_p, counts))
        by_class, at_once = (
            timed(countloss_counts(countloss, log_p, counts, whole)) if countloss else None for whole in (False, True)
        )
        trellis = timed(trellis_counts(nfa, log_p, counts)) if nfa else None
        show(
            [
                f"class counts, {BAGS} bags of {n}, {CLASSES} classes",
                *cells(ours, exact),
                *cells(trellis, exact, ours[0], goal_trellis),
                *cells(by_class, exact, ours[0], goal_countloss),
                *cells(at_once, exact, ours[0]),
            ]
        )
    for n, goal in ANY_ROWS.items():
        log_p, present, exact = any_work(n, args.seed)
        ours = timed(our_any(log_p, present))
        trellis = timed(trellis_any(nfa, log_p, present)) if nfa else None
        columns = [None if r is None else (r[0], r[1], r[2][..., 1]) for r in (ours, trellis)]
        show(
            [
                f"at least one, {BAGS} bags of {n}, K = 2",
                *cells(columns[0], exact),
                *cells(columns[1], exact, ours[0], goal),
                *["not its work", "", ""] * 2,
            ]
        )
    skipped = [name for name, path in (("--glws", args.glws), ("--countloss", args.countloss)) if path is None]
    note = f"\n\nSkipped for want of a checkout: {', '.join(skipped)}." if skipped else ""
    write_section("counts", "## Event counts\n\n" + __doc__.split("\n\n")[2] + "\n\n" + "\n".join(lines) + note)


if __name__ == "__main__":
    main()
