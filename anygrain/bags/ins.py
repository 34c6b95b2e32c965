"""A good instance classifier from labels of bags: candidates, prototypes and contrast."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from anygrain.bags.candidate_contrast import candidate_classes, moved_prototypes, weakly_supervised_contrast
from anygrain.encoders.bags import segments
from anygrain.encoders.trainable import seeded
from anygrain.labels import All, AnyOf, LabelError, Labels
from anygrain.labels.target import as_table
from anygrain.learn.head import Perceptron
from anygrain.learn.procedure import Procedure
from anygrain.robust.fresh import fresh_head, needs_hidden_layer, takes_only
from anygrain.robust.subclass_balancing import Projection

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

BLEND = (0.95, 0.8)  # what is kept of a pseudo label per step, at the start and at the end


class INS(Procedure):
    r"""Instances of a bag with the target carry the candidates {other, target}; prototypes decide, contrast separates.

    For fixed features and `head="mlp"`. Of two views of a batch (features dropped at random) the classifier's likeliest
    candidate is the pseudo class c of a row. Prototypes follow the projections of pseudo classes, and move the pseudo
    labels, from even over the candidates on, whose cross-entropy trains the classifier:

    .. math:: r_i \leftarrow \phi r_i + (1 - \phi)\, \mathrm{onehot}(\arg\max_c \mu_c \cdot q_i), \quad
              L = -\sum_c r_{ic} \log p_{ic} + w L_{contrast} - b \log P(\text{labels} \mid p)

    :math:`\phi` falls from .95 to .8. Through the warm-up pseudo labels stay, and the contrast is of each row's two
    views among keys of a momentum network. The last part holds the classifier to the bags: the mean log-likelihood of
    whole sets, in steps of its own from `bags_from` of the epochs on; the source compares a mean of the bag with its
    label there, which says nothing of how many. Candidates come from any kind of label: what its evidence alone leaves
    possible. Where positives are few, all pseudo classes turn negative and both prototypes are one: so the likeliest
    row of every bag with the target is of the target (`at_least_one`, not in the source). Composes with no loss, terms
    or weighting.

    Args:
        contrast: w.
        bag_weight: b; 0 is without.
        bags_from: share of the epochs before the bags take part.
        warm_up: share of the epochs before pseudo labels move.
        temperature: of the contrast.
        momentum: of the key network, per step.
        at_least_one: whether the likeliest row of a bag with the target has it as its pseudo class.
        queue: keys of earlier batches that are contrasted with.
        dropped: share of the features that a view is without.
        width: of the projection.
        epochs, batch_size, learning_rate: where the learner has none of its own; SGD with momentum .9, cosine.

    Attributes:
        pseudo_: (N, K), the pseudo labels at the end.
        positives_: share of rows whose pseudo class is each class, by epoch.

    Raises:
        LabelError: another head, a loss, terms or a weighting; labels that leave nothing open or say nothing.

    Source: Qu et al., Rethinking Multiple Instance Learning for Whole Slide Image Classification: A Good Instance
    Classifier is All You Need, 2023.
    """

    def __init__(
        self,
        *,
        contrast: float = 0.5,
        bag_weight: float = 1.0,
        bags_from: float = 0.4,
        warm_up: float = 0.2,
        temperature: float = 0.07,
        momentum: float = 0.99,
        at_least_one: bool = True,
        queue: int = 1024,
        dropped: float = 0.2,
        width: int = 64,
        epochs: int = 40,
        batch_size: int = 128,
        learning_rate: float = 0.02,
    ) -> None:
        if not 0 <= warm_up < 1 or not 0 <= bags_from <= 1 or not 0 <= momentum < 1 or not 0 <= dropped < 1:
            raise LabelError("warm_up, bags_from, momentum and dropped are shares; expected 0 or more and below 1")
        self.contrast, self.bag_weight, self.bags_from, self.warm_up = contrast, bag_weight, bags_from, warm_up
        self.temperature, self.momentum, self.queue, self.dropped = temperature, momentum, queue, dropped
        self.at_least_one = at_least_one
        self.width, self.epochs, self.batch_size, self.learning_rate = width, epochs, batch_size, learning_rate

    def check(self, learner: Learner, labels: Labels) -> None:
        takes_only(self, learner)
        needs_hidden_layer(self, learner)
        possible = candidate_classes(labels)
        told = (~possible.all(dim=1)).nonzero()[:, 0]
        if len(told) == 0 or bool((possible.sum(dim=1) <= 1).all()):
            raise LabelError(
                "INS needs rows with candidates and rows that tell them apart, as bags with and without the target; "
                f"these labels leave {'everything' if len(told) == 0 else 'nothing'} open"
            )

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        self.check(learner, labels)
        possible = candidate_classes(labels).to(features.device)
        epochs, size = learner.epochs or self.epochs, learner.batch_size or self.batch_size
        with seeded(int(learner.seed)), torch.enable_grad():
            head = fresh_head(learner, features.shape[1], labels.n_classes, int(learner.seed), like=features)
            assert isinstance(head, Perceptron)
            self._train(learner, head, features, labels, possible, epochs, size)
        learner.head_ = head.eval()

    def _train(
        self,
        learner: Learner,
        head: Perceptron,
        features: Tensor,
        labels: Labels,
        possible: Tensor,
        epochs: int,
        size: int,
    ) -> None:
        n, k = possible.shape
        generator = torch.Generator().manual_seed(int(learner.seed))
        projection = Projection(head.width, self.width).to(features)
        key_head, key_projection = copy.deepcopy(head), copy.deepcopy(projection)
        slow = [*key_head.parameters(), *key_projection.parameters()]
        own = [*head.parameters(), *projection.parameters()]
        rate = learner.learning_rate or self.learning_rate
        optimizer = torch.optim.SGD(own, lr=rate, momentum=0.9, weight_decay=1e-3)
        per_epoch = -(-n // size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * per_epoch)
        pseudo = possible.to(features) / possible.sum(dim=1, keepdim=True)
        prototypes = features.new_zeros(k, self.width)
        queue, queued = features.new_zeros(0, self.width), possible.new_zeros(0, dtype=torch.long)
        self.positives_ = []

        def view(x: Tensor) -> Tensor:
            kept = torch.rand(x.shape, generator=generator).to(x) >= self.dropped
            return x * kept / (1 - self.dropped)

        for epoch in range(epochs):
            head.train()
            warm = epoch < self.warm_up * epochs
            keep = BLEND[0] + (BLEND[1] - BLEND[0]) * epoch / max(epochs - 1, 1)
            counted = features.new_zeros(k)
            needed = self._needed(head, features, labels)
            for rows in torch.randperm(n, generator=generator).to(features.device).split(size):
                x, allowed = features[rows], possible[rows]
                hidden = head.hidden(view(x))
                log_probs = nn.functional.linear(hidden, head.weight, head.bias).log_softmax(dim=1)
                query = projection(hidden)
                with torch.no_grad():
                    keys = key_projection(key_head.hidden(view(x)))
                    said = log_probs.masked_fill(~allowed, -torch.inf).argmax(dim=1)
                    said = torch.where(needed[rows] >= 0, needed[rows], said)
                    if not warm:
                        likeness = (query @ prototypes.T).masked_fill(~allowed, -torch.inf).argmax(dim=1)
                        likeness = torch.where(needed[rows] >= 0, needed[rows], likeness)
                        pseudo[rows] = keep * pseudo[rows] + (1 - keep) * nn.functional.one_hot(likeness, k)
                    prototypes = moved_prototypes(prototypes, query, said)
                    counted += nn.functional.one_hot(said, k).sum(dim=0)
                if warm:  # only the two views of a row are alike
                    own_class = torch.arange(len(rows), device=rows.device)
                    pool_class = torch.cat([own_class, own_class, own_class.new_full((len(queue),), -1)])
                    contrast = weakly_supervised_contrast(
                        query, torch.cat([query, keys, queue]), own_class, pool_class, self.temperature
                    )
                else:
                    contrast = weakly_supervised_contrast(
                        query, torch.cat([query, keys, queue]), said, torch.cat([said, said, queued]), self.temperature
                    )
                loss = -(pseudo[rows] * log_probs).sum(dim=1).mean() + self.contrast * contrast
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                queue, queued = torch.cat([keys, queue])[: self.queue], torch.cat([said, queued])[: self.queue]
                with torch.no_grad():
                    for held, moved in zip(slow, own, strict=True):
                        held.lerp_(moved, 1 - self.momentum)
            if self.bag_weight and epoch >= self.bags_from * epochs:
                self._hold_to_bags(head, features, labels, size, generator, optimizer)
            self.positives_.append((counted / counted.sum()).tolist())
        self.pseudo_ = pseudo

    def _needed(self, head: Perceptron, features: Tensor, labels: Labels) -> Tensor:
        """Target class of the likeliest row of every bag with a target, -1 of all other rows, (N,)."""
        found = torch.full((len(features),), -1, device=features.device)
        if not self.at_least_one:
            return found
        with torch.no_grad():
            head.eval()
            log_probs = head(features)
            head.train()
        for part in labels.parts if isinstance(labels, All) else [labels]:
            if isinstance(part, AnyOf):
                targets = as_table(part.target, part.n_classes)
                of_members = log_probs[part.sets.members].masked_fill(~targets[part.sets.index], -torch.inf)
                best, which = of_members.max(dim=1)
                largest = segments.maximum(best, part.sets.sizes)[part.sets.index]
                chosen = (best >= largest) & (part.present == 1)[part.sets.index]
                found[part.sets.members[chosen]] = which[chosen]
        return found

    def _hold_to_bags(
        self,
        head: Perceptron,
        features: Tensor,
        labels: Labels,
        size: int,
        generator: torch.Generator,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """One pass over whole sets, by the mean log-likelihood of what is said of each."""
        for batch in labels.batches(size, generator):
            optimizer.zero_grad()
            here = labels.select(batch)
            log_probs = head(features[batch.instances])
            loss = -self.bag_weight * here.log_likelihood(log_probs).mean()
            loss.backward()
            optimizer.step()
