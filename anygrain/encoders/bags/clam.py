"""Gated attention, and classifiers that cluster the instances attended most and least."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.attention import Attention
from anygrain.labels import LabelError


class CLAM(Attention):
    r"""Gated attention with an instance branch: per class a classifier of instances, in or out of the class.

    The bag is pooled as by `Attention`. The instance branch is trained by what attention finds: of a bag of class k the
    t instances attended most are taken for members of k and the t attended least are not; for other classes, where
    classes exclude each other, the ones attended most are not members either:

    .. math:: \ell = \sum_k q_k \Big(\frac{1}{2t} \sum_{i \in \mathrm{top}} -\log c_k(h_i) +
        \frac{1}{2t} \sum_{i \in \mathrm{bottom}} -\log (1 - c_k(h_i)) + \frac{1}{t (K - 1)} \sum_{l \ne k}
        \sum_{i \in \mathrm{top}} -\log (1 - c_l(h_i))\Big)

    with q what is known of the class of the bag and t at most half of its instances, at least 1. The original takes a
    smooth support vector loss for the logarithm. `anygrain.bags.InstanceClustering` is this loss as a term of a
    `Learner`. `instance_scores` are the log-odds of membership: they follow attention, so they rank where attention
    does.

    Args:
        dim: features of an instance.
        classes: K of the instance branch.
        hidden: of the attention.
        branches: attention heads; the multi-branch form has one for each class.
        clustered: most instances t on each side.
        exclusive: whether a bag of one class holds no instance of the others.

    Source: Lu, Williamson, Chen, Chen, Barbieri and Mahmood, Data-efficient and Weakly Supervised Computational
    Pathology on Whole-slide Images, 2021.
    """

    def __init__(
        self,
        dim: int,
        classes: int = 2,
        hidden: int = 64,
        branches: int = 1,
        clustered: int = 8,
        exclusive: bool = True,
    ) -> None:
        super().__init__(dim, hidden, gated=True, heads=branches)
        if branches not in (1, classes):
            raise LabelError(f"{branches} attention branches for {classes} classes; expected 1, or one for each class")
        if clustered < 1:
            raise LabelError(f"clustered is {clustered}; expected at least 1 instance")
        self.dim, self.classes, self.clustered, self.exclusive = dim, classes, clustered, exclusive
        self.membership = nn.Linear(dim, classes)

    def instance_scores(self, features: Tensor) -> Tensor:
        """Log-odds (E, K) that instances (E, d) belong to every class, by the instance branch."""
        found: Tensor = self.membership(features)
        return found

    def instance_loss(self, features: Tensor, sizes: Tensor, posterior: Tensor) -> Tensor:
        """The loss of the instance branch of every bag, (B,).

        Args:
            features: (E, d), what is attended.
            sizes: (B,).
            posterior: (B, K), of the bags.

        Raises:
            LabelError: another number of classes than the instance branch has.
        """
        if posterior.shape[1] != self.classes:
            raise LabelError(f"the instance branch has {self.classes} classes, the bags {posterior.shape[1]}")
        with torch.no_grad():
            attended = self.scores(features)  # (E, heads)
        log_odds = self.instance_scores(features)
        member, other = -functional.logsigmoid(log_odds), -functional.logsigmoid(-log_odds)  # (E, K)
        loss = log_odds.new_zeros(len(sizes))
        for head in range(self.heads):  # one, or one for each class
            top, bottom = extremes(attended[:, head], sizes, self.clustered)
            many = segments.total(top.to(log_odds), sizes)[:, None]
            inside = segments.total(member * top[:, None], sizes) / many
            below = segments.total(other * bottom[:, None], sizes) / many
            found = posterior * (inside + below) / 2  # (B, K)
            if self.exclusive and self.classes > 1:
                outside = segments.total(other * top[:, None], sizes) / many
                found = found + posterior * (outside.sum(dim=1, keepdim=True) - outside) / (self.classes - 1)
            loss = loss + (found.sum(dim=1) if self.heads == 1 else found[:, head])
        return loss


def extremes(scores: Tensor, sizes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Which instances have the highest and which the lowest scores of their bag, both bool (E,).

    As many on each side, at most `most` and half of the bag. The one instance of a bag of one is on both sides.

    Args:
        scores: (E,).
    """
    bag = segments.bag_of(sizes)
    order = scores.argsort(stable=True)
    order = order[bag[order].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = segments.place_of(sizes)
    many = torch.minimum((sizes // 2).clamp(min=1), torch.full_like(sizes, most))[bag]
    return rank >= sizes[bag] - many, rank < many
