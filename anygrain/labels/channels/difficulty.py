"""Annotators on items of which some are hard: the votes on one item depend on each other."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from anygrain.labels.channels.channel import Channel, Records
from anygrain.labels.channels.confusion import Confusion
from anygrain.labels.channels.tabular import TabularChannel
from anygrain.labels.error import LabelError

#: entries of one table of states held at a time
_CHUNK = 2**21
#: up to so many classes every other class can be a rival; beyond, those with which annotators confuse it most
_ALL_PAIRS, _RIVALS = 32, 8
#: largest table of votes by what an item looks like, in entries
_TABLE = 2**26


class Difficulty(Channel):
    r"""Each item is plain, torn between its class and a rival c, or mistaken for c altogether; the state is unseen.

    .. math:: P(v_{1..R} \mid y) = s_0 \prod_r \theta_{w_r y v_r} + \sum_{c \ne y} D_{yc} \Big(
              s_1 \prod_r \tfrac{1}{2} (\theta_{w_r y v_r} + \theta_{w_r c v_r}) + s_2 \prod_r \theta_{w_r c v_r} \Big)

    Ten votes on one item are then not ten independent ones: however many annotators agree, the item may be mistaken.
    The sum over states is exact. Annotators have confusion matrices as in `Confusion` (or those of another tabular
    channel); the rivals D are learnt. The shares s of the states are not: votes do not tell an item that everybody
    mistakes from one that nobody does, so they are what they were found to be on crowds with known truth.

    The records of an item must be in one shard. Above 32 classes (or with very many annotators) each class has the 8
    rivals, or fewer, that the pooled annotator confuses it with most.

    Args:
        n_sources: S.
        n_classes: K.
        history: counts of earlier votes whose truth is known, shape (S, K, K), rows are the truth.
        votes: channel of the single votes; `Confusion` when not given.
        shares: s, of plain, torn and mistaken items.
        votes_are_settled: leave the channel of the votes as it is and learn the rivals only.

    Source: the item difficulty of Whitehill et al., Whose vote should count more, 2009, with states in place of a
    real number.
    """

    joint_records = True
    rivals: Tensor
    shares: Tensor
    pairs: Tensor

    def __init__(
        self,
        n_sources: int,
        n_classes: int,
        *,
        history: Tensor | None = None,
        votes: TabularChannel | None = None,
        shares: tuple[float, float, float] = (0.8, 0.18, 0.02),
        votes_are_settled: bool = False,
    ):
        super().__init__()
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise LabelError(f"shares are {shares}; expected three probabilities that sum to 1: plain, torn, mistaken")
        if votes is not None and history is not None:
            raise LabelError("give the history to the channel of the votes")
        self.n_sources, self.n_classes = int(n_sources), int(n_classes)
        self.votes = Confusion(n_sources, n_classes, history=history) if votes is None else votes
        self.votes_are_settled = votes_are_settled
        self.register_buffer("shares", torch.tensor(shares, dtype=torch.float64))
        self._choose_rivals()

    @property
    def history(self) -> Tensor:
        return self.votes.history

    @property
    def _every_pair(self) -> bool:
        k = self.n_classes
        return k <= _ALL_PAIRS and len(self.votes.table) * k * (k - 1) // 2 <= _TABLE

    def _choose_rivals(self) -> None:
        """Pairs of classes (P, 2) that an item can be torn between, and even rivals (K, K) among them."""
        k, device = self.n_classes, self.shares.device
        near = torch.ones(k, k, dtype=torch.bool, device=device)
        if not self._every_pair:
            confused = self.votes.pooled + self.votes.pooled.T
            confused.fill_diagonal_(-1)
            rivals = min(max(_TABLE // (len(self.votes.table) * k), 1), _RIVALS, k - 1)
            near = torch.zeros_like(near).scatter_(1, confused.topk(rivals, dim=1).indices, True)
            near |= near.T.clone()
        near.fill_diagonal_(False)
        self.register_buffer("pairs", near.triu().nonzero())
        self.register_buffer("rivals", near.double() / near.sum(dim=1, keepdim=True).clamp(min=1))

    # -- what votes say -----------------------------------------------------------------------------------------------

    def _columns(self, dtype: torch.dtype) -> Tensor:
        """log P(vote | what the item looks like), shape (cells, K + P): each class, then each pair of classes."""
        log_prob = self.votes.table
        kept: tuple[Tensor, Tensor, Tensor] | None = self.__dict__.get("_kept")
        if kept is not None and kept[0] is log_prob and kept[1] is self.pairs and kept[2].dtype == dtype:
            return kept[2]
        either = torch.logaddexp(log_prob[:, self.pairs[:, 0]], log_prob[:, self.pairs[:, 1]])
        either -= torch.log(torch.tensor(2.0, dtype=either.dtype))
        either[-1] = 0.0
        columns = torch.cat([log_prob, either], dim=1).to(dtype)
        self.__dict__["_kept"] = (log_prob, self.pairs, columns)
        return columns

    def _looks(self, dtype: torch.dtype) -> Tensor:
        """P(what the item looks like | class), shape (K + P, K)."""
        plain, torn, mistaken = self.shares
        a, b = self.pairs.unbind(dim=1)
        eye = torch.eye(self.n_classes, dtype=torch.float64, device=self.shares.device)
        # a class without rivals is always plain
        alone = (self.rivals.sum(dim=1) == 0).double()
        of_pairs = torch.zeros(len(self.pairs), self.n_classes, dtype=torch.float64, device=self.shares.device)
        place = torch.arange(len(self.pairs), device=self.shares.device)
        of_pairs[place, a], of_pairs[place, b] = torn * self.rivals[a, b], torn * self.rivals[b, a]
        of_classes = eye * (plain + (1 - plain) * alone) + mistaken * self.rivals.T
        return torch.cat([of_classes, of_pairs]).to(dtype)

    def _chunks(self, records: Records, n_items: int) -> Iterator[tuple[int, int, Records]]:
        width = self.n_classes + len(self.pairs)
        size = max(_CHUNK // width, len(self.votes.table) // 4, 1)
        if n_items <= size:
            yield 0, n_items, records
            return
        kept = records.__dict__.setdefault("_chunks", {})
        if size not in kept:
            order = records.by_item
            parts = records if order is None else Records(*(t[order] for t in _fields(records)))
            bounds = torch.arange(0, n_items + size, size, device=records.items.device).clamp(max=n_items)
            cuts = torch.searchsorted(parts.items.contiguous(), bounds).tolist()
            kept[size] = [
                (int(start), int(stop), Records(parts.items[i:j] - start, parts.sources[i:j], parts.values[i:j]))
                for start, stop, i, j in zip(
                    bounds[:-1].tolist(), bounds[1:].tolist(), cuts[:-1], cuts[1:], strict=True
                )
            ]
        yield from kept[size]

    def log_evidence(self, records: Records, n_items: int, dtype: torch.dtype = torch.float32) -> Tensor:
        columns, looks = self._columns(dtype), self._looks(dtype)
        out = columns.new_empty(n_items, self.n_classes)
        for start, stop, part in self._chunks(records, n_items):
            out[start:stop] = _mix(part.sums(columns, self.votes.cells(part), stop - start), looks)
        return out

    def log_prob(self, records: Records) -> Tensor:
        n_items = int(records.items.max()) + 1 if len(records.items) else 0
        columns, looks = self._columns(torch.float64), self._looks(torch.float64)
        out = columns.new_empty(len(records.items), self.n_classes)
        for start, stop, part in self._chunks(records, n_items):
            cells = self.votes.cells(part)
            total = part.sums(columns, cells, stop - start)
            with_all = _mix(total, looks)
            mine = (records.items >= start) & (records.items < stop)
            where = mine.nonzero()[:, 0]
            for at in where.split(max(_CHUNK // columns.shape[1], 1)):
                one = Records(*(t[at] for t in _fields(records)))
                item = one.items - start
                out[at] = with_all[item] - _mix(total[item] - columns[self.votes.cells(one)], looks)
        return out.masked_fill_((records.values < 0)[:, None], 0.0)

    def statistics(self, records: Records, posterior: Tensor) -> dict[str, Tensor]:
        """`counts` (S, K, K): expected votes of each source: source, what the item looked like to it, vote; and
        `rivals` (K, K): expected items of a class that look like another, or are torn between the two.
        """
        dtype = posterior.dtype
        columns, looks = self._columns(dtype), self._looks(dtype)
        k, n_cells = self.n_classes, len(self.votes.table)
        found = columns.new_zeros(n_cells if not self.votes_are_settled else 0, columns.shape[1], dtype=torch.float64)
        seen = torch.zeros(columns.shape[1], k, dtype=torch.float64, device=columns.device)
        for start, stop, part in self._chunks(records, len(posterior)):
            cells = self.votes.cells(part)
            total = part.sums(columns, cells, stop - start)
            joint = (total - total.amax(dim=1, keepdim=True)).exp_()
            per_class = (joint @ looks).clamp_(min=torch.finfo(dtype).tiny)
            share = posterior[start:stop] / per_class
            # an item without votes tells nothing about what items look like
            if not self.votes_are_settled:
                found += part.counts(joint * (share @ looks.T), cells, n_cells)
            voted = torch.zeros(stop - start, 1, dtype=dtype, device=columns.device)
            voted[part.items[part.values >= 0]] = 1.0
            seen += (joint.T @ (share * voted)).double()
        seen = seen * looks.double()
        out = {"rivals": self._rivals_seen(seen)}
        if not self.votes_are_settled:
            out["counts"] = self._counts(found)
        return out

    def _rivals_seen(self, seen: Tensor) -> Tensor:
        """Expected items (K, K) of class y with rival c, from those by look and class (K + P, K)."""
        k = self.n_classes
        mistaken = seen[:k].T.clone()
        mistaken.fill_diagonal_(0.0)
        a, b = self.pairs.unbind(dim=1)
        place = torch.arange(len(self.pairs), device=a.device)
        mistaken[a, b] += seen[k + place, a]
        mistaken[b, a] += seen[k + place, b]
        return mistaken

    def _counts(self, found: Tensor) -> Tensor:
        """Expected votes (S, K, K) by the class that each was given for, from those by look (cells, K + P)."""
        k = self.n_classes
        log_prob = self.votes.table
        a, b = self.pairs.unbind(dim=1)
        first = torch.sigmoid(log_prob[:, a] - log_prob[:, b]) * found[:, k:]
        counts = found[:, :k].clone()
        counts.index_add_(1, a, first)
        counts.index_add_(1, b, found[:, k:] - first)
        s = self.votes.n_sources
        return counts[: s * k].view(s, k, k).transpose(1, 2)

    def learn_prior(self, statistics: dict[str, Tensor]) -> None:
        if self.votes_are_settled:
            return
        self.votes.learn_prior(statistics)
        if not self._every_pair:
            self._choose_rivals()

    def update(self, statistics: dict[str, Tensor]) -> None:
        if not self.votes_are_settled:
            self.votes.update(statistics)
        found = statistics["rivals"]
        allowed = (self.rivals > 0).double()
        found = (found + 2 * allowed / allowed.sum().clamp(min=1) * len(found)) * allowed
        self.rivals = found / found.sum(dim=1, keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)

    def log_prior(self) -> Tensor:
        allowed = self.rivals > 0
        each = 2 * self.n_classes / max(int(allowed.sum()), 1)
        return self.votes.log_prior() + each * self.rivals[allowed].log().sum()


def _mix(total: Tensor, looks: Tensor) -> Tensor:
    """log sum_l exp(total[:, l]) looks[l, k], shape (n, K)."""
    top = total.amax(dim=1, keepdim=True)
    mixed = ((total - top).exp_() @ looks).clamp_(min=torch.finfo(total.dtype).tiny)
    return mixed.log_().add_(top)


def _fields(records: Records) -> tuple[Tensor, Tensor, Tensor]:
    return records.items, records.sources, records.values
