"""Our side of every setting: the same pictures, evidence and network through `Learner`."""

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from anygrain.labels import (
    AnyOf,
    Bags,
    Candidates,
    Compare,
    Exact,
    Labels,
    Noisy,
    Pairs,
    PairsUnlabeled,
    Positive,
    Proportions,
    Soft,
    TwoUnlabeled,
)
from anygrain.learn import ConfidenceDifference, Learner, SimilarityConfidence, Term
from anygrain.learn.end_to_end import EvidenceTargets
from benchmarks.peers.glws.network import BATCH, Small
from benchmarks.peers.glws.pictures import Pictures
from benchmarks.peers.glws.settings import Evidence


def labels_of(evidence: Evidence) -> tuple[Labels, list[Term]]:
    """The weak labels as we say them, and terms where the evidence is a confidence."""
    name, given, n = evidence.setting, evidence.given, len(evidence.rows)
    if name == "partial":
        return Candidates(given["candidates"]), []
    if name == "noisy":
        return Noisy(given["labels"], 10), []
    if name == "few labels":
        return Exact(given["labels"], 10), []
    if name == "partial + noisy + unlabelled":
        return Candidates(given["candidates"], error=0.2), []  # a guess that a user would make
    if name == "multiple instance":
        return AnyOf(Bags.from_ids(given["bag"]), given["present"], 1, 2), []
    if name == "proportions":
        counts = given["counts"]
        return Proportions(Bags.from_ids(given["bag"]), counts / counts.sum(dim=1, keepdim=True)), []
    if name == "pair comparison":
        pairs = torch.stack([given["first"], given["second"]], dim=1)
        return Compare(pairs, ["left"] * len(pairs), 2, n), []
    if name == "pair similarity":
        return Pairs(given["first"], given["second"], given["same"], n, 2), []
    if name == "positive confidence":
        r = given["confidence"].clamp(
            min=0.01
        )  # weighted by 1 / r the cross-entropy is the risk of the paper's setting
        return Soft(torch.stack([1 - r, r], dim=1), weight=1 / r), []
    if name in ("similarity confidence", "confidence difference"):
        pairs = torch.stack([given["first"], given["second"]], dim=1)
        unanswered = Pairs(given["first"], given["second"], torch.full((len(pairs),), -1), n, 2)  # keeps pairs together
        if name == "similarity confidence":
            return unanswered, [SimilarityConfidence(pairs, given["similar"], given["prior"], form="likelihood")]
        difference = given["difference"]
        return unanswered, [ConfidenceDifference(pairs, difference, given["prior"], form="likelihood")]
    if name == "positive-unlabelled":
        return Positive(given["labelled"].long(), prior=given["prior"], scenario="case-control"), []
    if name == "unlabelled-unlabelled":
        shares = [given["share_0"], given["share_1"]]
        return TwoUnlabeled(given["which"], shares, prior=given["prior"]), []
    if name == "similar-dissimilar-unlabelled":
        pairs = torch.stack([given["first"], given["second"]], dim=1)
        return PairsUnlabeled(pairs, given["same"], n, given["prior"]), []
    raise ValueError(f"{name!r} is no setting that we read")


class Ours:
    """A Learner of one setting.

    Args:
        evidence, pictures: what it is told, and shown.
        epochs: of the training.
        seed: of all that is drawn.
    """

    def __init__(self, evidence: Evidence, pictures: Pictures, *, epochs: int, seed: int) -> None:
        labels, terms = labels_of(evidence)
        self._start(pictures.train[evidence.rows], labels, terms, epochs, seed)

    @classmethod
    def of(cls, shown: Tensor, labels: Labels, *, epochs: int, seed: int) -> "Ours":
        """Of any labels of some pictures, uint8."""
        new = cls.__new__(cls)
        new._start(shown, labels, [], epochs, seed)
        return new

    def _start(self, shown: Tensor, labels: Labels, terms: Sequence[Term], epochs: int, seed: int) -> None:
        self.learner = Learner(encoder=Small(), terms=terms, epochs=epochs, batch_size=BATCH, seed=seed, device="cpu")
        self.shown, self.labels = shown.numpy(), labels

    def train(self) -> tuple[float, float]:
        """Train to the end.

        Returns:
            Seconds of processor time per epoch, and those of it spent on posteriors of batches.
        """
        ticks: list[float] = []
        spent: list[float] = []
        of = EvidenceTargets.of

        def timed(self: EvidenceTargets, *given: Any) -> Tensor:
            began = time.process_time()
            found = of(self, *given)
            spent.append(time.process_time() - began)
            return found

        def tick(*_: Any) -> None:
            ticks.append(time.process_time())

        with mock.patch.object(EvidenceTargets, "of", timed):
            self.learner.fit(self.shown, self.labels, callback=tick)
        per_epoch = [after - before for before, after in pairwise(ticks)]
        return statistics.mean(per_epoch), sum(spent) / len(ticks)

    def probabilities(self, shown: Tensor) -> Tensor:
        """(N, K) of pictures, uint8."""
        # pictures of a population beside which some were drawn apart: where nothing was, this is the default
        prior = "population" if isinstance(self.labels, Positive) else None
        return torch.as_tensor(self.learner.predict_proba(shown.numpy(), prior=prior))
