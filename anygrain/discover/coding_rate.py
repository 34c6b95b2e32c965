"""Features whose classes are subspaces at right angles, by what it costs to code them."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from anygrain.discover.discoverer import AT_ONCE, Callback, Discoverer
from anygrain.discover.found import ClassModel, Found
from anygrain.discover.k_means import k_means, starting_centres
from anygrain.discover.network import ClassNetwork, Moment, Pace, Views, train
from anygrain.discover.perceptron import body_of
from anygrain.discover.sinkhorn import sinkhorn
from anygrain.discover.start import on_features
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Arrays, in_batches, seeded

NEVER = -1e4
STEPS = 100  # of k-means on the landmarks
STARTS = 5
TOLERANCE = 1e-4
START_STEPS, TRAINING_STEPS = 500, 1000  # batches at most, or one epoch


class MLC(Discoverer):
    r"""Manifold linearising and clustering: coding-rate reduction with a doubly stochastic membership.

    A network gives features Z (d, B), columns of length one, and a copy of its last layers C; with
    :math:`\Gamma = \arg\min_{\Gamma 1 = \Gamma^T 1 = 1} -\langle C^T C, \Gamma \rangle + \eta \sum \Gamma \log \Gamma`,
    maximised is

    .. math:: \log\det\Big(I + \tfrac{d}{n \epsilon^2} Z Z^T\Big)
              - \tfrac1n \sum_j \log\det\Big(I + \tfrac{d}{\epsilon^2} Z\, \mathrm{diag}(\Gamma_j) Z^T\Big):

    all rows together take much room, those that are members of each other little. Two rows of which other classes are
    told are no members of each other. It starts by the total coding rate of the mean of two views. Classes are found at
    the end, by spectral clustering of the membership of some landmarks; other rows go where their members are.

    Args:
        dimensions: d.
        precision: epsilon squared.
        entropy: eta: the smaller, the fewer members a row has, and the wider the angles between classes.
        agreement: weight of the agreement of two views at the start.
        hidden: width of the layer for fixed features.
        start_epochs: of the total coding rate; `epochs`: of the membership. Fewer where they come to more than 500 and
            1,000 batches.
        columns: of the membership whose coding rates are taken at every step.
        landmarks: rows that are clustered.
        rate, batch_size: of the training.

    Facts: `rank_start_` and `rank_`, numerical rank of the features of all rows before and after.

    Source: Ding, Tong, Chan, Dai, Ma and Haeffele, Unsupervised Manifold Linearizing and Clustering, 2023.
    """

    trains_encoder = True

    def __init__(
        self,
        *,
        dimensions: int = 32,
        precision: float = 0.1,
        entropy: float = 0.2,
        agreement: float = 20.0,
        hidden: int = 256,
        start_epochs: int = 20,
        epochs: int = 40,
        columns: int = 64,
        landmarks: int = 1500,
        rate: float = 1e-3,
        batch_size: int = 256,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.dimensions, self.precision, self.entropy, self.agreement = dimensions, precision, entropy, agreement
        self.hidden, self.start_epochs, self.epochs = hidden, start_epochs, epochs
        self.columns, self.landmarks, self.rate, self.batch_size = columns, landmarks, rate, batch_size

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        views = Views(task)
        batches = max(1, -(-task.n_rows // self.batch_size))
        start_epochs = min(self.start_epochs, max(1, START_STEPS // batches))
        epochs = min(self.epochs, max(1, TRAINING_STEPS // batches))
        total = start_epochs + epochs
        network = self._network(task)

        def start(rows: Tensor, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
            first, second = (network.embed(view) for view in views(rows, moment.generator))
            rate = coding_rate((first + second) / 2, self.precision)
            agree = (first * second).sum(dim=1).abs().mean()
            return -rate - self.agreement * agree, {"rate": rate, "agreement": agree}

        pace = Pace(start_epochs, self.batch_size, self.rate)
        history = train(network, start, task.n_rows, pace, seed=task.seed, callback=_shifted(callback, 0, total))
        before = in_batches(network.embed, task.rows, AT_ONCE, network)
        network.membership = copy.deepcopy(network.body)
        groups = Groups(task)

        def loss(rows: Tensor, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
            z, gamma = [], []
            apart = groups.apart(rows)
            for view in views(rows, moment.generator):
                features = network.features(view)
                z.append(network.straight(features))
                gamma.append(membership(network.member(features), self.entropy, apart))
            both = normalize(z[0] + z[1], dim=1)
            mean = torch.stack(gamma).mean(dim=0)
            some = torch.randperm(len(rows), generator=moment.generator)[: self.columns].to(mean.device)
            rate = coding_rate(both, self.precision)
            within = member_coding_rate(both, mean[:, some], self.precision)
            return within - rate, {"rate": rate, "within": within}

        pace = Pace(epochs, self.batch_size, self.rate)
        history += train(
            network, loss, task.n_rows, pace, seed=task.seed + 1, callback=_shifted(callback, start_epochs, total)
        )
        after = in_batches(network.embed, task.rows, AT_ONCE, network)
        model = self._clustered(task, network)
        facts = {"rank_start": numerical_rank(before), "rank": numerical_rank(after)}
        why = "spectral clustering of a doubly stochastic membership"
        return Found(task.node, model, why=why, history=history, facts=facts)

    def _network(self, task: Task) -> LinearisingNetwork:
        with seeded(task.seed):
            if task.encoder is None:
                body: nn.Module = body_of(task.features, [self.hidden, self.dimensions], task.seed)
                encoder = None
            else:
                encoder = copy.deepcopy(task.encoder)
                body = nn.Linear(encoder.feature_dim, self.dimensions)
        return LinearisingNetwork(nn.Identity(), body, encoder).to(task.features.device)

    def _clustered(self, task: Task, network: LinearisingNetwork) -> LandmarkVotes:
        """Classes of landmarks by the leading eigenvectors of their membership."""
        generator = torch.Generator().manual_seed(task.seed)
        marks = torch.randperm(task.n_rows, generator=generator)[: self.landmarks].sort().values
        part = task.of_rows(marks)
        c = in_batches(network.members, part.rows, AT_ONCE, network).to(task.features.device)
        gamma = membership(c, self.entropy, Groups(part).apart(torch.arange(len(marks))), steps=200)
        k = len(task.node)
        space = spectral_space(gamma, min(k, len(marks)))
        flat = replace(on_features(part), features=space)
        labels = flat.evidence.over(task.node)
        best, least = torch.zeros(len(marks), dtype=torch.long), torch.inf
        for _ in range(STARTS):
            centre, label = k_means(space, starting_centres(flat, generator), labels, STEPS)
            spread = float((space - centre[label]).square().sum())
            if spread < least:
                best, least = label, spread
        return LandmarkVotes(network, c, best, k, self.entropy)


def _shifted(callback: Callback | None, before: int, total: int) -> Callback | None:
    """A callback for a part of the work, of which `before` steps were done."""
    if callback is None:
        return None
    return lambda done, _, facts: callback(done + before, total, facts)


class LinearisingNetwork(ClassNetwork):
    """Features on the sphere for two ends: straight ones, and those whose angles are memberships."""

    membership: nn.Module | None = None

    def straight(self, features: Tensor) -> Tensor:
        """Z (B, d) of features (B, D)."""
        return normalize(self.body(features), dim=1)

    def member(self, features: Tensor) -> Tensor:
        """C (B, d) of features (B, D)."""
        body = self.body if self.membership is None else self.membership
        return normalize(body(features), dim=1)

    def members(self, arrays: Arrays) -> Tensor:
        """C (B, d) of rows."""
        return self.member(self.features(arrays))


class LandmarkVotes(ClassModel):
    r"""Classes by the landmarks that a row would be a member of, :math:`p(k \mid x) \propto \sum_{j \in k} e^{\langle
    c(x), c_j \rangle / \eta}`.

    Args:
        network: gives c.
        landmarks: (M, d).
        label: (M,) their classes.
        n_classes: K.
        entropy: eta.
    """

    landmarks: Tensor
    share: Tensor

    def __init__(
        self, network: LinearisingNetwork, landmarks: Tensor, label: Tensor, n_classes: int, entropy: float
    ) -> None:
        super().__init__()
        self.network, self.entropy = network, entropy
        self.register_buffer("landmarks", landmarks)
        self.register_buffer("share", nn.functional.one_hot(label, n_classes).to(landmarks))

    def embed(self, arrays: Arrays) -> Tensor:
        return self.network.embed(arrays)

    def forward(self, arrays: Arrays) -> Tensor:
        logits = self.network.members(arrays) @ self.landmarks.T / self.entropy
        votes = (logits - logits.amax(dim=1, keepdim=True)).exp() @ self.share
        found: Tensor = votes.clamp(min=1e-30).log().log_softmax(dim=1)
        return found


class Groups:
    """Which rows are told to be of two classes."""

    def __init__(self, task: Task) -> None:
        device = task.features.device
        self.told = [part.to(device) for part in (task.evidence.sure_known(), task.evidence.sure_node())]

    def apart(self, rows: Tensor) -> Tensor | None:
        """Of rows (B,) which pairs (B, B) are of two classes or coarse classes; None where none is."""
        found: Tensor | None = None
        for told in self.told:
            own = told[rows.to(told.device)]
            differ = (own[:, None] != own) & (own >= 0)[:, None] & (own >= 0)
            found = differ if found is None else found | differ
        return found if found is not None and bool(found.any()) else None


def coding_rate(z: Tensor, precision: float) -> Tensor:
    r"""R of features Z (n, d), a scalar: :math:`\log\det(I + \frac{d}{n \epsilon^2} Z^T Z)`.

    Source: Ma et al., Segmentation of Multivariate Mixed Data via Lossy Coding, 2007.
    """
    n, d = z.shape
    found: Tensor = torch.linalg.slogdet(torch.eye(d).to(z) + d / (n * precision) * z.T @ z)[1]
    return found


def member_coding_rate(z: Tensor, gamma: Tensor, precision: float) -> Tensor:
    r"""R_c of features Z (n, d) with a membership, a scalar: the mean over its columns j of
    :math:`\log\det(I + \frac{d}{\epsilon^2} Z^T \mathrm{diag}(\Gamma_j) Z)`.

    Args:
        gamma: (n, m), m columns that sum to 1.
    """
    d = z.shape[1]
    moments = (gamma.T[:, None, :] * z.T) @ z  # (m, d, d)
    lower = torch.linalg.cholesky(torch.eye(d).to(z) + d / precision * moments)
    found: Tensor = 2 * lower.diagonal(dim1=1, dim2=2).log().sum(dim=1).mean()
    return found


def membership(c: Tensor, entropy: float, apart: Tensor | None = None, steps: int = 10) -> Tensor:
    r"""The doubly stochastic Gamma (n, n) nearest to the angles of C (n, d), rows of length one.

    .. math:: \arg\max_\Gamma\; \langle C C^T, \Gamma \rangle - \eta \sum \Gamma \log \Gamma

    Args:
        apart: (n, n), which rows are no members of each other.
        steps: of Sinkhorn's scaling, at most.
    """
    affinity = c @ c.T / entropy
    if apart is not None:
        affinity = affinity.masked_fill(apart, NEVER)
    return sinkhorn(affinity, steps, TOLERANCE).exp()


def spectral_space(gamma: Tensor, number: int) -> Tensor:
    """The leading eigenvectors (n, number) of the normalised symmetric part of a membership (n, n), rows of length one.

    Source: Ng, Jordan and Weiss, On Spectral Clustering, 2001.
    """
    even = ((gamma + gamma.T) / 2).double()
    root = even.sum(dim=1).clamp(min=1e-12).rsqrt()
    vectors = torch.linalg.eigh(root[:, None] * even * root)[1]
    return normalize(vectors[:, -number:], dim=1).to(gamma.dtype)


def numerical_rank(z: Tensor, share: float = 0.95) -> int:
    """How many directions hold more than this share of the squared size of rows (n, d)."""
    square = torch.linalg.svdvals(z.double()).square()
    return int((square.cumsum(0) / square.sum() <= share).sum()) + 1
