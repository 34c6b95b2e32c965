"""Known and unknown classes that compete in one softmax, and contrast that is softer the less two views are alike."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from anygrain.discover.acceptance import accepted, divided, joined
from anygrain.discover.discoverer import AT_ONCE, Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.network import ClassNetwork, Moment, Pace, Residual, Views, train
from anygrain.discover.perceptron import Scaled
from anygrain.discover.semi_supervised_k_means import Centres
from anygrain.discover.start import Start, found_by, given_said, on_features
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Arrays, TrainableEncoder, in_batches, seeded

NEAR = 1e4  # how much closer than its nearest neighbour the second view of a row is taken to be
EPS = 1e-6
HELD = 0.5  # share of the training over which the start holds
SHARP = 0.05  # temperature of the first layer of the classifier
NARROW = 0.05  # width of the kernel between rows, as a share of their median squared distance


class AllInOne(Discoverer):
    r"""One softmax over "is class c" and "is not class c" of all known classes; what is rejected is divided.

    A network gives 2G outputs o, which sum to one: accepting a class lowers what rejects any. Rows whose class is told
    are the source, the others the target, which may look different and hold new classes: each of both is normalised by
    itself, by the statistics of its batches. With :math:`\hat o_c = o_{1c} / (o_{0c} + o_{1c})`,

    .. math:: L = CE + \alpha \tfrac13 \big[-\log o_{1y} + \max_{c \ne y} -\log o_{0c}
                  - \beta \log \sigma(\max_c o_{1c} - \max_c o_{0c})\big] + \gamma L_{scl}
                  + \delta \tfrac1G \sum_c H(\hat o_c),

    the first two terms over the source, little changed (of a source that is changed much the classifier accepts too
    much), where CE is that of a softmax over "is" alone, the others over the target; the soft contrast is that of
    `soft_contrast`, between both views. A row is of a new class where :math:`\max_c o_{0c} \ge \max_c o_{1c}`, and
    the new classes are found among these rows by k-means, of features where these are fixed, else in the space of the
    network. Where no class is known, the soft contrast and the k-means remain. What is said of coarse classes, and
    pairs, holds in the decision and in the k-means.

    A classifier that never saw a row of a new class rejects few of them. So a clustering may say at first which rows
    are of new classes, r its probability of that, by :math:`-r \log \sum_c o_{0c} - (1 - r) \log \sum_c o_{1c}` over
    the target, with a weight that falls from 1 to 0 over the first half of the training.

    Args:
        start: a method by name, or one, which holds the decision at first; None for the published form. The default
            finds clusters that agree with known classes, also where the target looks unlike the source.
        open_weight: alpha; `rank`: beta; `contrast`: gamma; `entropy`: delta.
        top: known classes that enter the first bracket, those with the highest outputs; the true one always does.
        through: whether the distances that say how alike two rows are, carry gradient, as published; then the contrast
            draws rows together unless much holds them apart.
        hidden: width of the residual layer on fixed features, and of the space of contrast and classifier.
        steps: batches in all.
        rate: highest learning rate.
        batch_size: rows of the target at once, and as many of the source, drawn with known classes alike.

    Facts: `unknown_`, bool (N,), rows that every known class rejects.

    Source: Zang et al., Boosting Novel Category Discovery Over Domains with Soft Contrastive Learning and All-in-One
    Classifier, 2023.
    """

    trains_encoder = True
    learns_from = None

    def __init__(
        self,
        *,
        start: Start | None = "sub-prototypes",
        open_weight: float = 0.7,
        rank: float = 1.4,
        contrast: float = 0.6,
        entropy: float = 0.4,
        top: int = 20,
        through: bool = False,
        hidden: int = 256,
        steps: int = 300,
        rate: float = 1e-3,
        batch_size: int = 64,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.start = start
        self.open_weight, self.rank, self.contrast, self.entropy = open_weight, rank, contrast, entropy
        self.top, self.through, self.hidden, self.steps = top, through, hidden, steps
        self.rate, self.batch_size = rate, batch_size

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        device, told, views = task.features.device, task.evidence.sure_known(), Views(task)
        source, target = (told >= 0).nonzero().flatten(), (told < 0).nonzero().flatten()
        target = target if len(target) else source
        network = self._network(task)
        new = self._new_at_first(task) if len(source) else None
        weight = source.new_zeros(len(source)).float()
        if len(source):
            weight = 1 / torch.bincount(told[source])[told[source]].float()

        def loss(rows: Tensor, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
            rows = rows.repeat(2) if len(rows) == 1 else rows  # statistics of a batch need two
            row, other = (network.embed(view) for view in views(target[rows], moment.generator))
            first, second = network.project(row), network.project(other)
            facts = {"contrast": soft_contrast(row if self.through else row.detach(), first, second)}
            value = self.contrast * facts["contrast"]
            if len(source):
                drawn = source[torch.multinomial(weight, len(rows), replacement=True, generator=moment.generator)]
                y = told[drawn].to(device)
                out = network.pairs(network.project(network.embed(views(drawn, moment.generator)[0])))
                facts["known"] = cross_entropy(out[:, 1], y)
                facts["open"] = all_in_one_loss(out, y, self.rank, self.top)
                facts["entropy"] = pair_entropy(network.pairs(first))
                if new is not None:
                    held = max(0.0, 1 - moment.share / HELD)
                    facts["start"] = held * decision_loss(network.pairs(second), new[target[rows]].to(device))
                    value = value + facts["start"]
                value = value + facts["known"] + self.open_weight * facts["open"] + self.entropy * facts["entropy"]
            return value, facts

        batches = max(1, -(-len(target) // self.batch_size))
        pace = Pace(max(1, -(-self.steps // batches)), self.batch_size, self.rate)
        history = train(network, loss, len(target), pace, seed=task.seed, callback=callback)
        unknown = self._divide(task, network)
        why = f"{int(unknown.sum())} rows are rejected by all known classes" if task.n_known else "no class is known"
        return Found(task.node, network, why=why, history=history, facts={"unknown": unknown.numpy()})

    def _new_at_first(self, task: Task) -> Tensor | None:
        """Probability (N,) that a row is of a new class, by the start."""
        if self.start is None:
            return None
        fixed = on_features(task)
        return given_said(found_by(self.start, fixed), fixed)[:, task.n_known :].sum(dim=1)

    def _network(self, task: Task) -> AllInOneNetwork:
        if task.encoder is None:
            dim, encoder = task.features.shape[1], None
            body: nn.Module | None = nn.Sequential(Scaled(task.features), Residual(dim, self.hidden, seed=task.seed))
        else:
            dim, encoder, body = task.encoder.feature_dim, copy.deepcopy(task.encoder), None
        with seeded(task.seed):
            network = AllInOneNetwork(dim, task.n_known, self.hidden, body, encoder)
        return network.to(task.features.device)

    def _divide(self, task: Task, network: AllInOneNetwork) -> Tensor:
        """Give the network its new classes; which rows are of none that is known."""
        x = in_batches(network.embed, task.rows, AT_ONCE, network)
        with torch.no_grad():
            parts = [network.scores(part.to(task.features.device)) for part in x.split(AT_ONCE)]
        choice = accepted(task, torch.cat([known for known, _ in parts]), torch.cat([none for _, none in parts]))
        centres = divided(task, task.features if task.encoder is None else x, choice)
        network.new = Centres(centres.centre[task.n_known :], centres.variance).to(task.features.device)
        return choice < 0


class AllInOneNetwork(ClassNetwork):
    r"""Embedded rows, their projection, two outputs for every known class of that, and centres of new ones.

    .. math:: z = A_2\, \mathrm{relu}(\mathrm{norm}(A_1 x)), \qquad o = C\, \sigma(\langle w, z \rangle / .05)

    with unit w. The normalisation takes mean and variance of a batch in training, so that rows of two domains, in
    batches of their own, come to lie in one place, and running means of these afterwards.

    Args:
        dim: E of embedded rows.
        n_known: G.
        hidden: H, of projected rows, and directions w that they are compared with.
        body, encoder: as of `ClassNetwork`.
    """

    def __init__(
        self, dim: int, n_known: int, hidden: int, body: nn.Module | None, encoder: TrainableEncoder | None = None
    ) -> None:
        super().__init__(nn.Linear(hidden, 2 * n_known, bias=False) if n_known else nn.Identity(), body, encoder)
        self.project = nn.Sequential(
            nn.Linear(dim, 2 * hidden), nn.BatchNorm1d(2 * hidden), nn.LeakyReLU(), nn.Linear(2 * hidden, hidden)
        )
        self.direction = nn.Parameter(normalize(torch.randn(hidden, hidden), dim=1))
        self.new: Centres | None = None

    def pairs(self, projected: Tensor) -> Tensor:
        """Outputs (B, 2, G) before their softmax of projected rows (B, H); row 1 is "is", row 0 "is not"."""
        along = projected @ normalize(self.direction, dim=1).T
        out: Tensor = self.head((along / SHARP).sigmoid())
        return out.view(len(projected), 2, -1)

    def scores(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scores of known classes (B, G), and of being of none, (B,), of embedded rows (B, E)."""
        if isinstance(self.head, nn.Identity):
            return embedded[:, :0], embedded.new_zeros(len(embedded))
        log_o = log_all_in_one(self.pairs(self.project(embedded)))
        return log_o[:, 1], log_o[:, 0].max(dim=1).values

    def logits(self, arrays: Arrays) -> Tensor:
        assert self.new is not None
        embedded = self.embed(arrays)
        where = arrays["features"] if self.encoder is None else embedded
        return joined(*self.scores(embedded), self.new({"features": where}))


def log_all_in_one(out: Tensor) -> Tensor:
    """Log of one softmax over all outputs (B, 2, C) of a row."""
    return out.flatten(1).log_softmax(dim=1).view_as(out)


def all_in_one_loss(out: Tensor, y: Tensor, rank: float, top: int) -> Tensor:
    r"""Mean of :math:`\frac13 [-\log o_{1y} + \max_{c \ne y} -\log o_{0c} - \beta \log\sigma(\max o_1 - \max o_0)]`.

    Args:
        out: (B, 2, C) before the softmax.
        y: (B,) classes.
        rank: beta.
        top: classes that enter, those with the highest "is"; the true one always does.
    """
    c = out.shape[2]
    if top < c:
        score = out[:, 1].detach().scatter(1, y[:, None], torch.inf)
        kept = score.topk(top, dim=1).indices
        y = (kept == y[:, None]).long().argmax(dim=1)
        out = out.gather(2, kept[:, None].expand(-1, 2, -1))
    log_o = log_all_in_one(out)
    positive = -log_o[:, 1].gather(1, y[:, None])[:, 0]
    negative = torch.zeros_like(positive)
    if out.shape[2] > 1:
        own = torch.zeros_like(log_o[:, 0], dtype=torch.bool).scatter(1, y[:, None], True)
        negative = (-log_o[:, 0]).masked_fill(own, -torch.inf).max(dim=1).values
    apart = log_o[:, 1].exp().max(dim=1).values - log_o[:, 0].exp().max(dim=1).values
    return ((positive + negative - rank * logsigmoid(apart)) / 3).mean()


def decision_loss(out: Tensor, new: Tensor) -> Tensor:
    r"""Mean of :math:`-r \log \sum_c o_{0c} - (1 - r) \log \sum_c o_{1c}` of outputs (B, 2, C) before the softmax.

    Args:
        new: r, (B,) probability that a row is of none of the classes.
    """
    log_none, log_one = log_all_in_one(out).logsumexp(dim=2).unbind(dim=1)
    return -(new * log_none + (1 - new) * log_one).mean()


def pair_entropy(out: Tensor) -> Tensor:
    """Mean entropy, over rows and classes, of "is" against "is not" alone, of outputs (B, 2, C)."""
    log_p = out.log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1).mean()


def student_kernel(distance: Tensor, nu: float, sigma: Tensor | float) -> Tensor:
    r"""How alike rows at squared distances d are, :math:`2 \pi \Gamma_\nu^2 (1 + d / (\sigma \nu))^{-(\nu + 1)}`.

    :math:`\Gamma_\nu = \Gamma(\frac{\nu + 1}2) / (\sqrt{\nu \pi}\, \Gamma(\frac\nu2))`; it is below 1 at 0, and comes
    near to 1 there as nu grows.
    """
    log_gamma = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi)
    height = 2 * math.pi * math.exp(2 * log_gamma)
    return height * torch.exp(-(nu + 1) * torch.log1p(distance / (sigma * nu)))


def either(kernel: Tensor) -> Tensor:
    """The symmetric similarity k + k' - k k' of a kernel (M, M) and its transpose k'."""
    return kernel + kernel.T - kernel * kernel.T


def squares(x: Tensor) -> Tensor:
    """Squared distances (B, B) of rows, exactly 0 on the diagonal."""
    square = x.square().sum(dim=1)
    found = (square[:, None] + square - 2 * x @ x.T).clamp(min=0)
    return found * (1 - torch.eye(len(x), dtype=x.dtype, device=x.device))


def two_views(distance: Tensor, near: float = NEAR) -> Tensor:
    """Squared distances (2B, 2B) among rows and their second views, from those of the rows, (B, B).

    A second view lies off its row by the distance of the row to its nearest neighbour, divided by `near`, in a
    direction of its own.
    """
    b = len(distance)
    diagonal = torch.eye(b, dtype=torch.bool, device=distance.device)
    off = distance.masked_fill(diagonal, torch.inf).min(dim=1).values / near
    one, both = distance + off, distance + off[:, None] + off
    both = both.masked_fill(diagonal, 0)
    return torch.cat([torch.cat([distance, one], dim=1), torch.cat([one.T, both], dim=1)])


def soft_contrast(
    x: Tensor,
    first: Tensor,
    second: Tensor,
    sigma: float | None = None,
    input_nu: float = 100.0,
    output_nu: float = 10.0,
) -> Tensor:
    r"""Contrast whose targets are similarities between 0 and 1 instead of "same row" and "other row".

    .. math:: \frac1{4B^2} \sum_{i \ne j} -P_{ij} \log Q_{ij} - (1 - P_{ij}) \log(1 - Q_{ij})

    P among the rows and their second views, as `two_views` places them, Q among both views as projected.

    Args:
        x: (B, E) the rows, where the distances are taken from.
        first, second: (B, H) both views, projected.
        sigma: width of the kernel of P; a twentieth of the median squared distance where None. With the median itself
            half of all pairs would be taken to be alike to more than .6, and be drawn to one place; published are
            widths far below the distances among the features of the networks there.
        input_nu, output_nu: degrees of freedom of the kernels of P and Q.

    Source: Zang et al., 2023.
    """
    distance = squares(x)
    width = distance.detach()
    upper = width[torch.triu(torch.ones_like(width, dtype=torch.bool), 1)]
    p = either(student_kernel(two_views(distance), input_nu, sigma or NARROW * upper.median().clamp(min=1e-9)))
    q = either(student_kernel(squares(torch.cat([first, second])), output_nu, 1.0))
    p, q = p.clamp(0, 1), q.clamp(EPS, 1 - EPS)
    value = -(p * q.log() + (1 - p) * (1 - q).log())
    return (value * (1 - torch.eye(len(value), dtype=value.dtype, device=value.device))).mean()
