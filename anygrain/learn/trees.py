"""Extremely randomised trees as a head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.learn.head import HEADS, Head

LEAST = 1e-3  # share of a class below which a row is not shown to the trees as one of it
ENTRIES = 2**25  # probabilities kept in all leaves; trees have fewer leaves where classes are many
ROWS = 2**22  # rows times trees that are sent down at once


class Trees(Head):
    r"""The mean class shares in the leaves of T extremely randomised trees:

    .. math:: p_k(z) = \frac{1}{T + 1} \Big(\sum_t \ell_{t, k}(z) + \frac1K\Big)

    Every tree splits where the best of :math:`\sqrt D` random thresholds says, until leaves are pure. Targets are
    shares of classes: a row stands in the sample once per class, weighted by its share. There is nothing to decay and
    no gradient; the trees are kept as tables (feature, threshold, children, shares) and read by a walk of all rows
    through all trees at once.

    Attributes:
        trees: T.
        seed: where thresholds come from.

    Source: Geurts, Ernst and Wehenkel, Extremely randomized trees, 2006; grown by scikit-learn.
    """

    trees = 150
    seed = 0
    feature: Tensor
    threshold: Tensor
    below: Tensor
    root: Tensor
    share: Tensor

    def __init__(self, feature_dim: int, n_classes: int) -> None:
        super().__init__(feature_dim, n_classes)
        one = torch.zeros(1, dtype=torch.int32)
        self.register_buffer("feature", one)
        self.register_buffer("threshold", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("below", torch.zeros(1, 2, dtype=torch.int32))
        self.register_buffer("root", one.clone())
        self.register_buffer("share", torch.full((1, n_classes), 1 / n_classes))

    def learn(self, features: Tensor, posterior: Tensor, weight: Tensor | None = None) -> bool:
        from sklearn import config_context
        from sklearn.tree import ExtraTreeClassifier

        row, label = (posterior > LEAST).nonzero(as_tuple=True)
        share = posterior[row, label] * (1 if weight is None else weight[row])
        kept = share > 0
        row, label, share = row[kept], label[kept], share[kept]
        most = max(ENTRIES // (self.trees * self.n_classes), 2)
        x = np.ascontiguousarray(features.detach().cpu().numpy()[row.cpu().numpy()], dtype=np.float32)
        classes, code = np.unique(label.cpu().numpy(), return_inverse=True)
        y, by_share = code.astype(np.float64)[:, None], share.detach().cpu().double().numpy()
        random = np.random.RandomState(self.seed)
        grown = []
        with config_context(skip_parameter_validation=True, assume_finite=True):  # once is enough for all trees
            for _ in range(self.trees):
                tree = ExtraTreeClassifier(
                    max_features="sqrt",
                    max_leaf_nodes=most if most < len(row) else None,
                    random_state=random.randint(np.iinfo(np.int32).max),
                )
                grown.append(tree.fit(x, y, sample_weight=by_share, check_input=False).tree_)
        self._keep(grown, classes)
        return True

    def _keep(self, grown: list[Any], classes: np.ndarray) -> None:
        """Trees one after another, as tables with a row per node; a leaf is its own child."""
        sizes = np.array([tree.node_count for tree in grown])
        first = np.cumsum(sizes) - sizes
        children = []
        for tree, start in zip(grown, first, strict=True):
            own = np.arange(tree.node_count)
            leaf = tree.children_left < 0
            sides = [np.where(leaf, own, side) for side in (tree.children_left, tree.children_right)]
            children.append(np.stack(sides, axis=1) + start)
        value = np.concatenate([tree.value[:, 0] for tree in grown])
        shares = np.zeros((len(value), self.n_classes), dtype=np.float32)
        shares[:, classes] = value / np.maximum(value.sum(axis=1, keepdims=True), 1e-300)
        device = self.share.device
        self.below = torch.from_numpy(np.concatenate(children)).int().to(device)
        features = np.concatenate([np.maximum(tree.feature, 0) for tree in grown])
        self.feature = torch.from_numpy(features).int().to(device)
        self.threshold = torch.from_numpy(np.concatenate([tree.threshold for tree in grown])).to(device)
        self.root = torch.from_numpy(first).int().to(device)
        self.share = torch.from_numpy(shares).to(device)

    def join(self, other: Trees) -> None:
        """Take in the trees of another head of the same features and classes."""
        first = len(self.feature)
        self.below = torch.cat([self.below, other.below + first])
        self.root = torch.cat([self.root, other.root + first])
        for name in ("feature", "threshold", "share"):
            setattr(self, name, torch.cat([getattr(self, name), getattr(other, name)]))

    def mean_shares(self, features: Tensor) -> Tensor:
        """Mean over the trees of the class shares in the leaf of every row, (B, K)."""
        found = [self._walk(part) for part in features.float().split(max(ROWS // len(self.root), 1))]
        return torch.cat(found) if found else features.new_zeros(0, self.n_classes)

    def _walk(self, features: Tensor) -> Tensor:
        node = self.root.long().expand(len(features), -1)
        while True:
            side = features.gather(1, self.feature[node].long()) > self.threshold[node]
            lower = self.below[node, side.long()].long()
            if bool((lower == node).all()):
                break
            node = lower
        return torch.stack([self.share[:, k][node].mean(dim=1) for k in range(self.n_classes)], dim=1)

    def logits(self, features: Tensor) -> Tensor:
        trees = len(self.root)
        return ((trees * self.mean_shares(features) + 1 / self.n_classes) / (trees + 1)).log()

    def penalty(self) -> Tensor:
        return self.share.new_zeros(())

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        for name in ("feature", "threshold", "below", "root", "share"):
            if prefix + name in state_dict:  # saved trees have sizes of their own
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.share.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


HEADS["trees"] = Trees
