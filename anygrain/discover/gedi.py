"""Clusters whose scores are at the same time the energy of a density: it says which rows are unlike all others."""

from __future__ import annotations

import copy
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from anygrain.discover.discoverer import AT_ONCE, Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.langevin import Replay, langevin
from anygrain.discover.network import ClassNetwork, CosineHead, Moment, Pace, Said, Views, teach, train
from anygrain.discover.perceptron import Scaled, body_of
from anygrain.discover.start import Start, class_sums, found_by, given_said, on_features
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Arrays, in_batches, seeded

MARGIN = 0.1  # of the box of chains beyond the range of the rows
CHAINS = 10_000
LEAST = -100.0  # log of the use of a class that counts as none


class GEDI(Discoverer):
    r"""Clustering by invariance and an even prior, joined with an energy model.

    Scores :math:`f_y(x) = \langle u_y, g(x) \rangle / \tau` give classes, :math:`p(y \mid x) = \mathrm{softmax}_y f`,
    and a density, :math:`p(x) \propto e^{-E(x)}` with :math:`E(x) = -\log \sum_y e^{f_y(x)}`. Maximised is

    .. math:: E_x[\log p(x)]\, \lambda_{gen} - E_x\, CE\big(p(y \mid x'), p(y \mid x)\big) \lambda_{inv}
              - CE\big(\pi, \bar p(y)\big) \lambda_{prior},

    x' a second view, :math:`\bar p` the mean answer of a batch, pi the even prior. The maximum of the last two
    together, :math:`-\log K`, is reached only by sure answers that agree and use all classes: nothing can collapse.
    Samples of the density come from Langevin dynamics with a memory. What is said of rows enters by its likelihood.

    The density is that of the features, or of those of an encoder as it stands, by which the encoder is not changed.

    Args:
        generative: lambda gen, after the first `alone` share of the training; 0 for clusters without a density.
        invariance: lambda inv; `even`: lambda prior; `supervised`: weight of what is said.
        start: a method by name, or one, whose classes the network learns at first; None for the published form.
        start_epochs: times that every row is seen for that.
        view: second view of fixed features, see `Views`; `strength`: of its noise.
        hidden: widths of the layers for fixed features; `temperature`: tau.
        alone: share of the training before the density joins.
        steps, step_size, noise: of Langevin dynamics, on features of mean square 1; `fresh`: share of the chains that
            begin anew.
        epochs, rate, batch_size: of the training; ten rows per class and batch or more.

    Facts: `outlier_scores_` (N,), the energy of the rows: high where there are few like them. `outlier_scores(data)`
    gives it for new rows. `chain_gap_`, mean energy of rows less that of samples: far from 0, the chains do not mix.

    Source: Sansone and Manhaeve, Unifying Self-Supervised Clustering and Energy-Based Models, 2023; Grathwohl et al.,
    Your Classifier is Secretly an Energy Based Model, 2020.
    """

    trains_encoder = True
    learns_from = None

    def __init__(
        self,
        *,
        generative: float = 1.0,
        invariance: float = 10.0,
        even: float = 10.0,
        supervised: float = 10.0,
        start: Start | None = "mixture",
        start_epochs: int = 10,
        view: Literal["mix", "neighbour", "jitter"] = "mix",
        strength: float = 0.1,
        hidden: tuple[int, ...] = (256, 128),
        temperature: float = 0.1,
        alone: float = 0.2,
        steps: int = 10,
        step_size: float = 0.1,
        noise: float = 0.05,
        fresh: float = 0.05,
        epochs: int = 20,
        rate: float = 1e-3,
        batch_size: int = 256,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.generative, self.invariance, self.even, self.supervised = generative, invariance, even, supervised
        self.start, self.start_epochs, self.view, self.strength = start, start_epochs, view, strength
        self.hidden, self.temperature, self.alone = hidden, temperature, alone
        self.steps, self.step_size, self.noise, self.fresh = steps, step_size, noise, fresh
        self.epochs, self.rate, self.batch_size = epochs, rate, batch_size

    def outlier_scores(self, data: Any) -> np.ndarray:
        """Energies (N,) of new rows: high where there were few like them."""
        rows = self._rows(data)
        assert isinstance(self.model_, EnergyNetwork)
        return np.asarray(in_batches(self.model_.energy, rows, AT_ONCE, self.model_).numpy())

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        node = task.node
        network = self._network(task, len(node))
        views = Views(task, self.view, strength=self.strength)
        said = Said(task, node)
        history = self._started(task, network, views) if self.start is not None else []
        chains: Replay | None = None
        gap = torch.zeros(())

        def loss(rows: Tensor, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
            nonlocal chains, gap
            features = [network.features(view) for view in views(rows, moment.generator)]
            log_probs = [network.scores(one).log_softmax(dim=1) for one in features]
            facts = {
                "invariance": invariance(log_probs[0], log_probs[1]),
                "prior": even_use(torch.cat(log_probs)),
                "told": (said.loss(log_probs[0], rows) + said.loss(log_probs[1], rows)) / 2
                + said.pair_loss(network, len(rows), moment.generator),
            }
            value = self.supervised * facts["told"]
            value = value - self.invariance * facts["invariance"] - self.even * facts["prior"]
            if self.generative and moment.share >= self.alone:
                x = features[0].detach()
                if chains is None:
                    chains = self._chains(network, task, moment.generator)
                place, begun = chains.draw(len(rows))
                network.eval()
                scale = network.scale()
                drawn = (
                    langevin(
                        lambda z: network.energy_of(z * scale),
                        begun / scale,
                        self.steps,
                        self.step_size,
                        self.noise,
                        moment.generator,
                    )
                    * scale
                )
                network.train()
                chains.put(place, drawn)
                real, sampled = network.energy_of(x), network.energy_of(drawn)
                facts["chain_gap"] = real.mean() - sampled.mean()
                gap = facts["chain_gap"].detach()
                value = value + self.generative * facts["chain_gap"]
            return value, facts

        pace = Pace(self.epochs, self.batch_size, self.rate)
        history = history + train(network, loss, task.n_rows, pace, seed=task.seed, callback=callback)
        scores = in_batches(network.energy, task.rows, AT_ONCE, network).numpy()
        why = "clusters that agree over views, are used alike, and are a density"
        facts = {"outlier_scores": scores, "chain_gap": float(gap)}
        return Found(node, network, why=why, history=history, facts=facts)

    def _network(self, task: Task, n_classes: int) -> EnergyNetwork:
        if task.encoder is None:
            body: nn.Module | None = body_of(task.features, list(self.hidden), task.seed)
            dim, encoder = self.hidden[-1], None
        else:
            body, dim, encoder = None, task.encoder.feature_dim, copy.deepcopy(task.encoder)
        with seeded(task.seed):
            head = CosineHead(torch.randn(n_classes, dim), self.temperature)
        return EnergyNetwork(head, body, encoder).to(task.features.device)

    def _started(self, task: Task, network: EnergyNetwork, views: Views) -> list[dict[str, Any]]:
        """The network after it has learnt the classes of another method."""
        assert self.start is not None
        fixed = on_features(task)
        start = given_said(found_by(self.start, fixed), fixed)
        embedded = in_batches(network.embed, task.rows, AT_ONCE, network)
        with torch.no_grad():
            head = network.head
            assert isinstance(head, CosineHead)
            head.direction.copy_(normalize(class_sums(embedded, start), dim=1))
        return teach(network, views, start, Pace(self.start_epochs, self.batch_size, self.rate), seed=task.seed)

    def _chains(self, network: EnergyNetwork, task: Task, generator: torch.Generator) -> Replay:
        features = in_batches(network.features, task.rows, AT_ONCE, network).to(task.features.device)
        low, high = features.amin(dim=0), features.amax(dim=0)
        wide = MARGIN * (high - low)
        return Replay(low - wide, high + wide, min(CHAINS, max(task.n_rows, self.batch_size)), self.fresh, generator)


class EnergyNetwork(ClassNetwork):
    """A class network whose logits are an energy too."""

    def scores(self, features: Tensor) -> Tensor:
        """f (B, K) of features (B, D)."""
        found: Tensor = self.head(normalize(self.body(features), dim=1))
        return found

    def energy_of(self, features: Tensor) -> Tensor:
        """E (B,) of features (B, D)."""
        return -self.scores(features).logsumexp(dim=1)

    def energy(self, arrays: Arrays) -> Tensor:
        """E (B,) of rows."""
        return self.energy_of(self.features(arrays))

    def scale(self) -> Tensor:
        """Root of the mean square of the features, or 1 where they are an encoder's."""
        first = self.body[0] if isinstance(self.body, nn.Sequential) else None
        return first.scale if isinstance(first, Scaled) else torch.ones(())


def invariance(first: Tensor, second: Tensor) -> Tensor:
    r"""L_inv of log-probabilities (B, K) of two views, a scalar at most 0: :math:`\frac1B \sum_i \sum_y p'_{iy} \log
    p_{iy}`, averaged over which view is which."""
    return ((second.exp() * first).sum(dim=1) + (first.exp() * second).sum(dim=1)).mean() / 2


def even_use(log_probs: Tensor) -> Tensor:
    r"""L_prior of log-probabilities (B, K), a scalar: :math:`\frac1K \sum_y \log \bar p_y`, at most :math:`-\log K`."""
    mean: Tensor = log_probs.logsumexp(dim=0) - np.log(len(log_probs))
    return mean.clamp(min=LEAST).mean()
