"""Classes as Gaussians of one shape, in which told rows stay in their class."""

from __future__ import annotations

from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.gaussians import best_of
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder

COMPONENTS = 64
STARTS = 8


class ConstrainedMixture(Discoverer):
    r"""Gaussians with one covariance, fitted by EM to rows and to what is said of them.

    .. math:: q_{ik} \propto \pi_k \, \mathcal N(z_i; \mu_k, \Sigma) \, P(o_i \mid y_i = k), \qquad
              \mu_k = \frac{\sum_i q_{ik} z_i}{\sum_i q_{ik}}, \qquad
              \Sigma = \frac1N \sum_{ik} q_{ik} (z_i - \mu_k)(z_i - \mu_k)^\top

    with z the leading principal components of the features. The E-step is the posterior of the labels, so that any
    labels will do: a row of a known class stays in it, a row of a coarse class below it, pairs pull and push. The shape
    that all classes share is learnt from the known ones as well, and new ones are told apart by it. Seconds for 10,000
    rows; the most probable of `starts`, which differ a lot.

    Args:
        components: principal components.
        starts: how many times it is started, from k-means.

    Source: Shental et al., Computing Gaussian mixture models with EM using equivalence constraints, 2003.
    """

    learns_from = None

    def __init__(
        self,
        *,
        components: int = COMPONENTS,
        starts: int = STARTS,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.components, self.starts = components, starts

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        mixture, mean, basis, history = best_of(task, self.components, self.starts, "tied", callback)
        why = f"the most probable of {self.starts} mixtures of Gaussians of one shape, in {basis.shape[1]} components"
        facts = {"log_likelihood": mixture.value}
        return Found(task.node, mixture.model(mean, basis), why=why, history=history, facts=facts)
