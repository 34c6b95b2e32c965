"""Labelling functions that depend on each other in pairs: copies and near copies are no further evidence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from anygrain.labels.channels.channel import Records
from anygrain.labels.channels.labelling_function import LabellingFunction
from anygrain.labels.error import LabelError

#: share of the lesser entropy that two rules have in common without regard to the class: so near copies start joined
NEAR = 0.9
#: share of the lesser conditional entropy at which two rules are joined
WORTH = 0.1
#: calls of `learn_prior` that look for pairs
LOOKS = (3, 5)
#: rows that pairs are looked for in
ROWS = 20_000
#: rows per outcome of the parent and class that hold a rule to what it says by itself
LEAN = 2.0
#: numbers in the table of all pairs of outcomes
LARGEST = 200_000_000


class RuleForest(LabellingFunction):
    r"""Each rule may depend on one other, its parent, given the class: rules form a forest of dependent pairs.

    .. math:: \log P(o_i \mid y_i = k) = \sum_r w(o_{ir}) \log P(o_{ir} \mid o_{i, \mathrm{pa}(r)}, y_i = k)

    over outcomes, the classes and abstention; w is the weight of votes and abstentions of a `LabellingFunction`, which
    is lowered only by dependence that the forest leaves over. A copy of a rule follows from its parent whatever the
    class is, and so says nothing.

    *Tables.* :math:`P(o_r \mid o_\mathrm{pa}, k)` has a Dirichlet prior, two rows for each outcome of the parent and
    class, shared out as rule r votes by itself on that class and meets its parent whatever the class. `update` is the
    exact M-step.

    *Pairs.* Without `pairs` they are learnt: near copies by the rows alone (`start`), before the first posterior, which
    they would rule; then, in two calls of `learn_prior`, the forest of greatest conditional mutual information
    :math:`I(o_a; o_b \mid y)` (Chow and Liu), of pairs that vote together more than the class explains, pass the
    Bayesian information criterion and share 10 % of the lesser entropy.

    Args:
        n_sources: R.
        n_classes: K.
        pairs: dependent rules, shape (P, 2), without a cycle; None: they are learnt.
        accuracy, strength: as in `LabellingFunction`.

    Attributes:
        parent: shape (R,), -1 for a rule that depends on none.

    Raises:
        LabelError: pairs of unknown rules or that form a cycle, or too many rules and classes to look at all pairs.

    Source: structure of weak supervision: Bach and others, 2017, and Varma and others, 2019; forests: Chow and Liu,
    1968.
    """

    parent: Tensor
    log_given: Tensor
    first_joint: Tensor
    lean: Tensor
    turn: Tensor

    def __init__(
        self,
        n_sources: int,
        n_classes: int,
        pairs: Tensor | Sequence[Sequence[int]] | None = None,
        *,
        accuracy: float = 0.7,
        strength: float = 5.0,
    ):
        super().__init__(n_sources, n_classes, accuracy=accuracy, strength=strength)
        r, k = self.n_sources, self.n_classes
        self.learns_pairs = pairs is None
        if self.learns_pairs and (r * (k + 1)) ** 2 * k > LARGEST:
            raise LabelError(f"{r} rules of {k} classes have too many pairs of outcomes to look at: say which depend")
        edges = torch.as_tensor([] if pairs is None else pairs).long().reshape(-1, 2)
        if len(edges) and (int(edges.min()) < 0 or int(edges.max()) >= r):
            raise LabelError(f"pairs of rules name a rule outside 0..{r - 1}")
        joined = _joined(edges, r)
        if not bool(joined.all()):
            a, b = edges[~joined][0].tolist()
            raise LabelError(
                f"rules {a} and {b} are joined by other pairs already: pairs of rules must not form a cycle"
            )
        shape = (r, k + 1, k + 1, k)  # rule, outcome of its parent, its own, class
        self.register_buffer("parent", _rooted(edges, torch.zeros(r)))
        self.register_buffer("log_given", torch.zeros(shape).double())
        self.register_buffer("first_joint", torch.zeros(shape).double())
        self.register_buffer("lean", torch.zeros(shape).double())
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))

    @property
    def dependent(self) -> Tensor:
        """Rules that depend on another, shape (E,)."""
        return (self.parent >= 0).nonzero()[:, 0]

    @property
    def pairs(self) -> Tensor:
        """Dependent rules, shape (E, 2): parent, child."""
        return torch.stack([self.parent[self.dependent], self.dependent], dim=1)

    # -- what outcomes say --------------------------------------------------------------------------------------------

    def _own(self) -> Tensor:
        """log P(outcome | y) of every rule by itself, shape (R, K + 1, K)."""
        k = self.n_classes
        votes = self.log_vote[: self.n_sources * k].view(self.n_sources, k, k)
        return torch.cat([votes, self.log_abstain[:, None]], dim=1)

    def _outcome_weight(self) -> Tensor:
        """w of every outcome, shape (R, K + 1)."""
        votes = self.vote_weight[:, None].expand(-1, self.n_classes)
        return torch.cat([votes, self.independence.expand(self.n_sources, 1)], dim=1)

    def _codes(self, said: Tensor) -> Tensor:
        """Cell (rule, outcome of the parent, own outcome) of every child in every row, shape (b, E)."""
        k, child = self.n_classes + 1, self.dependent
        return (child * k + said[:, self.parent[child]]) * k + said[:, child]

    def log_evidence(self, records: Records, n_items: int, dtype: torch.dtype = torch.float32) -> Tensor:
        alone = super().log_evidence(records, n_items, dtype)
        if not len(self.dependent):
            return alone
        change = (self.log_given - self._own()[:, None]) * self._outcome_weight()[:, None, :, None]
        table = change.reshape(-1, self.n_classes).to(dtype)
        for start, said in self.outcomes(records, n_items):
            alone[start : start + len(said)] += functional.embedding_bag(self._codes(said), table, mode="sum")
        return alone

    # -- learning -----------------------------------------------------------------------------------------------------

    def statistics(self, records: Records, posterior: Tensor) -> dict[str, Tensor]:
        """Beside those of a `LabellingFunction`, `joint` (R, K + 1, K + 1, K): parent's outcome, own outcome, class.

        Where pairs are looked for: `all_joint` (K, R (K + 1), R (K + 1)), any two outcomes, in its place.
        """
        out = super().statistics(records, posterior)
        if self.learns_pairs and int(self.turn) in LOOKS:
            out["all_joint"] = self._all_joint(records, posterior)
            return out
        out["joint"] = self._edge_joint(records, posterior)
        return out

    def _edge_joint(self, records: Records, posterior: Tensor) -> Tensor:
        """Expected outcomes of parent and child (R, K + 1, K + 1, C) for a posterior (N, C); 0 for roots."""
        shape = (*self.log_given.shape[:3], posterior.shape[1])
        joint = torch.zeros(shape, dtype=torch.float64, device=posterior.device).view(-1, shape[3])
        for start, said in self.outcomes(records, len(posterior), shape[3]):
            codes, weight = self._codes(said), posterior[start : start + len(said)].double()
            joint.index_add_(0, codes.reshape(-1), weight.repeat_interleave(codes.shape[1], dim=0))
        return joint.view(shape)

    def _all_joint(self, records: Records, posterior: Tensor) -> Tensor:
        """Expected outcomes of any two rules (C, R (K + 1), R (K + 1)) for a posterior (N, C), from enough rows."""
        width = self.n_classes + 1
        size = self.n_sources * width
        stride = max(len(posterior) // ROWS, 1)
        total = torch.zeros(posterior.shape[1], size, size, dtype=torch.float64, device=posterior.device)
        for start, said in self.outcomes(records, len(posterior), width):
            few = said[-start % stride :: stride]
            shown = functional.one_hot(few, width).float().reshape(len(few), size)
            weight = stride * posterior[start : start + len(said)][-start % stride :: stride].to(shown)
            for c in range(posterior.shape[1]):
                total[c] += (shown.T @ (shown * weight[:, c, None])).double()
        return total

    def start(self, records: Records, n_items: int) -> None:
        """Take what rows alone tell about pairs, before anything is known of classes: copies, and how they agree."""
        even = torch.ones(n_items, 1, device=self.parent.device)
        if self.learns_pairs:
            joint = self._all_joint(records, even)
            shared, lesser, _ = self._shared(joint)
            near = (shared > NEAR * lesser) & self._together_more(joint)
            self._join(torch.where(near, shared, 0.0), joint)
        if not len(self.dependent):
            return
        self.log_given = self._lifted(self._edge_joint(records, even)[..., 0])

    def _lifted(self, seen: Tensor) -> Tensor:
        """log P(own outcome | y) moved by how outcomes of parent and child (R, K + 1, K + 1) meet whatever the class.

        So a copy follows from its parent on every class, and says nothing.
        """
        total = seen.sum(dim=(1, 2), keepdim=True) + 0.5
        apart = (seen.sum(dim=1, keepdim=True) + 0.5) * (seen.sum(dim=2, keepdim=True) + 0.5)
        lift = ((seen + 1e-4) * total / apart).log()  # small too where an outcome never shows
        return torch.log_softmax(self._own()[:, None] + lift[..., None], dim=2)

    def _shared(self, joint: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Conditional mutual information of any two rules, their lesser entropy, and the criterion's penalty, (R, R).

        All times the number of rows, for tables (C, R (K + 1), R (K + 1)).
        """
        width = self.n_classes + 1
        own = torch.diagonal(joint, dim1=1, dim2=2)  # (C, A)
        rows = own.view(len(joint), self.n_sources, width).sum(dim=2)[:, :1]
        apart = own[:, :, None] * own[:, None, :] / rows[:, :, None].clamp(min=1e-12)
        gain = torch.xlogy(joint, joint) - torch.xlogy(joint, apart.clamp(min=1e-300))
        shared = gain.sum(dim=0).view(self.n_sources, width, self.n_sources, width).sum(dim=(1, 3)).clamp(min=0)
        entropy = torch.xlogy(own, rows.clamp(min=1e-12)) - torch.xlogy(own, own)
        entropy = entropy.sum(dim=0).view(self.n_sources, width).sum(dim=1)
        shown = (own.sum(dim=0).view(self.n_sources, width) > 0.5).sum(dim=1).double() - 1
        penalty = 0.5 * len(joint) * shown[:, None] * shown * rows.sum().clamp(min=2).log()
        return shared, torch.minimum(entropy[:, None], entropy), penalty

    def _together_more(self, joint: Tensor) -> Tensor:
        """bool (R, R): rules that vote together, or for one class, beyond chance and class: double evidence.

        Rules that avoid each other share information too, but nothing that would be counted twice.
        """
        width = self.n_classes + 1
        own = torch.diagonal(joint, dim1=1, dim2=2).view(len(joint), self.n_sources, width)
        rows = own.sum(dim=2)[:, :1, None]
        seen = joint.view(len(joint), self.n_sources, width, self.n_sources, width)
        agree = torch.diagonal(seen, dim1=2, dim2=4)[..., :-1].sum(dim=(0, 3))
        votes = own[..., :-1]
        fire = votes.sum(dim=2, keepdim=True)
        agree_chance = (votes @ votes.transpose(1, 2) / rows.clamp(min=1e-12)).sum(dim=0)
        fire_chance = (fire @ fire.transpose(1, 2) / rows.clamp(min=1e-12)).sum(dim=0)
        both = seen[:, :, :-1, :, :-1].sum(dim=(0, 2, 4))
        beyond = [(agree, agree_chance), (both, fire_chance)]
        more = [found - chance > 3 * chance.clamp(min=1).sqrt() for found, chance in beyond]
        return more[0] | more[1]

    def _join(self, gain: Tensor, joint: Tensor) -> None:
        """The forest of greatest gain (R, R), each tree rooted at the rule that says most."""
        a, b = (gain.triu(1) > 0).nonzero().unbind(dim=1)
        order = torch.argsort(gain[a, b], descending=True)
        edges = torch.stack([a[order], b[order]], dim=1)
        fires = torch.diagonal(joint, dim1=1, dim2=2).sum(dim=0).view(self.n_sources, -1)[:, :-1].sum(dim=1)
        self.parent = _rooted(edges[_joined(edges, self.n_sources)], fires).to(self.parent.device)

    def _explained(self, residual: Tensor) -> Tensor:
        """Correlation along the forest: the product of those of the pairs on the way."""
        out = torch.eye(self.n_sources, dtype=residual.dtype, device=residual.device)
        done = self.parent < 0
        while not bool(done.all()):
            for node in (~done & done[self.parent.clamp(min=0)]).nonzero()[:, 0].tolist():
                above = int(self.parent[node])
                way = torch.where(done, out[above] * residual[node, above], 0.0)
                out[node], out[:, node] = way, way
                out[node, node], done[node] = 1.0, True
        return out.fill_diagonal_(0.0)

    def learn_prior(self, statistics: dict[str, Tensor]) -> None:
        joint = statistics.get("all_joint")
        if joint is not None:
            shared, lesser, penalty = self._shared(joint)
            worth = (shared > penalty) & (shared > WORTH * lesser) & self._together_more(joint)
            self._join(torch.where(worth, shared - penalty, 0.0), joint)
        super().learn_prior(statistics)
        found = self._joint(statistics)
        self.lean = self._lifted(found.sum(dim=3)).exp()
        if joint is not None or int(self.turn) == 0:
            self.first_joint = found
        self.turn = self.turn + 1

    def _joint(self, statistics: dict[str, Tensor]) -> Tensor:
        """Expected outcomes of parent and child (R, K + 1, K + 1, K), 0 for roots."""
        if "joint" in statistics:
            return statistics["joint"]
        width, child = self.n_classes + 1, self.dependent
        table = statistics["all_joint"].view(-1, self.n_sources, width, self.n_sources, width)
        out = torch.zeros_like(self.log_given)
        out[child] = table[:, self.parent[child], :, child].permute(0, 2, 3, 1)
        return out

    def _pseudo_joint(self) -> Tensor:
        hold = 3.0 * (1 / self.independence - 1).square()
        return LEAN * self.lean + hold * self.first_joint

    def update(self, statistics: dict[str, Tensor]) -> None:
        super().update(statistics)
        weighted = self._joint(statistics) * self._outcome_weight()[:, None, :, None] + self._pseudo_joint()
        share = weighted / weighted.sum(dim=2, keepdim=True).clamp(min=1e-300)
        self.log_given = share.clamp(min=1e-30).log()

    def log_prior(self) -> Tensor:
        root = (self.parent < 0)[:, None, None]
        alone = ((self._pseudo_counts() + self.held) * self._own() * root).sum()
        return alone + (self._pseudo_joint() * self.log_given)[self.dependent].sum()


def _joined(edges: Tensor, n: int) -> Tensor:
    """bool (P,): pairs (P, 2), in order, that join two trees; the others would close a cycle."""
    tree = list(range(n))

    def root(node: int) -> int:
        while tree[node] != node:
            tree[node] = tree[tree[node]]
            node = tree[node]
        return node

    out = []
    for a, b in edges.tolist():
        one, two = root(a), root(b)
        tree[one] = two
        out.append(one != two)
    return torch.tensor(out, dtype=torch.bool)


def _rooted(edges: Tensor, size: Tensor) -> Tensor:
    """Parent of every node (n,), -1 for roots, of a forest (E, 2); each tree is rooted at its node of largest size."""
    near: dict[int, list[int]] = {}
    for a, b in edges.tolist():
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    parent = torch.full((len(size),), -1)
    done: set[int] = set()
    for root in torch.argsort(size, descending=True, stable=True).tolist():
        reach = [] if root in done or root not in near else [root]
        done.update(reach)
        while reach:
            node = reach.pop()
            for other in near[node]:
                if other not in done:
                    parent[other] = node
                    done.add(other)
                    reach.append(other)
    return parent
