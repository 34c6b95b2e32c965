r"""An encoder and a head, trained together from evidence.

.. math:: \nabla_\theta \log P(o \mid p_\theta) = \sum_{ik} q_{ik}\, \nabla_\theta \log p_\theta(k \mid x_i)

Every step is an E-step on its own batch, q the posterior of its instances under the network as it stands, and a
gradient step towards q, which is the gradient of the likelihood. Around it:

1. *What is held out*: a tenth of the rows that carry evidence, whole sets and groups. Their likelihood chooses the
   epoch and the temperature; the network never sees them.
2. *The strong view*: where evidence leaves doubt, a row's belief is taught to its strongly changed view, and rows
   without evidence teach as well (`Loop`).
3. *An average of the weights* over the last steps is what is kept.
4. *Channels* (annotators, noise) follow once an epoch, by what the network said of each row before its step.
5. *Groups of sampled rows* (few positives beside many unlabelled rows) come equally often; the network still speaks of
   the rows as they are pooled.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from anygrain.encoders.trainable import Arrays, Augmentation, Inputs, TrainableEncoder, in_batches, seeded
from anygrain.labels import LabelError, Labels
from anygrain.labels.base import Batch
from anygrain.labels.observations import Observations
from anygrain.labels.sampling import SampledRows
from anygrain.learn.calibration import fit_temperature
from anygrain.learn.fabric import Fabric
from anygrain.learn.head import Head
from anygrain.learn.loop import ClassLoop, FixedTargets, Loop, Network, Pace
from anygrain.learn.loss import Loss, learnt_with
from anygrain.learn.recipe import Callback, RecipeResult, RecipeState
from anygrain.learn.stated_prior import StatedPrior, pooled_prior
from anygrain.learn.tag_recipe import TagHead
from anygrain.learn.term import Term
from anygrain.learn.together import kept_together
from anygrain.learn.weighting import Weighting

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

HELD_OUT = 0.1  # of the rows with evidence
LEAST_ROWS = 100  # with evidence, for some to be held out
LARGEST_GROUP = 0.05  # of the rows; a larger one is never held out
IN_DOUBT = 0.05  # mean entropy of what the evidence leaves open, as a share of log K: from there on views are strong
AVERAGED = 1 / 40  # of all steps
SETTLING = 0.2  # of the epochs pass before channels move: they must not explain away what is not learnt yet
LOOKED_AT = 200  # rows, for the mean of the features at the start
LOOKED_AT_ONCES = 4  # and not more than goes through the network in so many times, where rows are large
SHRINK = 20  # held-out observations that outweigh the guess that the temperature is 1
FEWEST_EPOCHS, MOST_EPOCHS = 8, 300


class EvidenceTargets:
    """The posterior of a batch under the network as it stands.

    A component of overlapping sets that is larger than a batch comes in several; its posterior is that of the whole,
    from an E-step at the start of the epoch.

    Args:
        labels: observations.
        order: what batches are made from, labels of the same instances.
        batch_size: instances at once.
    """

    def __init__(self, labels: Labels, order: Labels, batch_size: int) -> None:
        self.labels = labels
        nodes = order.structure.nodes.cpu()
        component, sets = nodes[: order.n_instances], nodes[order.n_instances :]
        number = int(nodes.max()) + 1
        large = torch.bincount(component, minlength=number) > batch_size
        large &= torch.bincount(sets, minlength=number) > 1
        #: instances of components that are cut into batches
        self.cut = large[component]
        self.posterior: Tensor | None = None

    def e_step(self, log_probs: Tensor) -> None:
        """Posteriors of the components that are cut, from log-probabilities (N, K)."""
        self.posterior = self.labels.posterior(log_probs)

    def of(self, batch: Batch, log_probs: Tensor) -> Tensor:
        found = None
        if self.posterior is not None:
            stored = self.cut.to(batch.instances.device)[batch.instances]
            if bool(stored.all()):
                return self.posterior[batch.instances].to(log_probs)
            found = stored
        posterior = self.labels.select(batch).posterior(log_probs)
        if found is not None and self.posterior is not None:
            posterior = torch.where(found[:, None], self.posterior[batch.instances].to(posterior), posterior)
        return posterior


class EndToEnd(ABC):
    """One training of an encoder and a head: what is held out, the epochs, the average, going on after a kill.

    Args:
        encoder: has learnt from the data.
        rows: inputs of all data rows.
        labels: of these rows.
        told: rows of which something is told, bool (rows,).
        order: labels of the same instances whose folds are used.
        channels: of the labels.
        n_silent: how many instances without evidence take part all the same.
        epochs, batch_size, learning_rate: None: what the encoder likes.
        accumulate: batches per step.
        per_row: instances that every data row has; a batch holds as many for each of its `batch_size` rows.
        seed: of order, dropout, augmentation and what is held out.
        state: finished epochs of an earlier training, which is gone on with.
        part: what the names of its steps begin with, where several trainings share a state.
        before, parts: trainings of as many epochs that were before it, and all there are, for progress.

    Raises:
        LabelError: nothing is told of any row.
    """

    loop: Loop

    def __init__(
        self,
        encoder: TrainableEncoder,
        rows: Inputs,
        labels: Observations,
        *,
        told: Tensor,
        order: Observations,
        channels: Sequence[nn.Module],
        n_silent: int = 0,
        epochs: int | None,
        batch_size: int | None,
        learning_rate: float | None,
        accumulate: int,
        per_row: int = 1,
        seed: int,
        callback: Callback | None = None,
        state: RecipeState | None = None,
        part: str = "",
        before: int = 0,
        parts: int = 1,
    ) -> None:
        self.encoder, self.rows, self.everything, self.callback = encoder, rows, labels, callback
        self.part, self.before, self.parts = part, before, parts
        self.channels = channels
        self.state = RecipeState() if state is None else state
        likes = encoder.training_defaults
        size = (likes.batch_size if batch_size is None else batch_size) * per_row
        self.held_rows = hold_out(order, told, torch.Generator().manual_seed(seed))
        self.taught_rows = told & ~self.held_rows
        if not bool(self.taught_rows.any()):
            raise LabelError("no row has any evidence: there is nothing to learn from")
        #: data rows of an epoch; one may come several times
        self.drawn_rows = self.drawn(self.taught_rows.nonzero()[:, 0])
        self.names = instances_of(labels, self.drawn_rows)
        self.held_names = instances_of(labels, self.held_rows.nonzero()[:, 0]).to(labels.device)
        steps_an_epoch = max(math.ceil(len(self.names) / size), math.ceil(n_silent / size))
        if epochs is None:
            epochs = min(max(math.ceil(likes.steps / steps_an_epoch), FEWEST_EPOCHS), MOST_EPOCHS)
        self.pace = Pace(
            epochs=epochs,
            batch_size=size,
            learning_rate=likes.learning_rate if learning_rate is None else learning_rate,
            weight_decay=likes.weight_decay,
            decay=True,
            accumulate=accumulate,
            per_row=per_row,
        )
        self.horizon = max(steps_an_epoch * epochs / accumulate * AVERAGED, 1.0)
        self.best: dict[str, Tensor] = {}

    def watch(self, loop: Loop) -> None:
        """Train by this loop, and average its network over the last steps."""
        self.loop = loop
        self.average = AveragedModel(loop.network)
        # looked for once: in small batches that takes longer than the average itself
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = [
            (list(own.parameters()), list(own.buffers())) for own in (self.network, loop.network)
        ]
        loop.after_move = self._follow

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average, of rate 1 / horizon, after a step; buffers are copied."""
        (averaged, old), (parameters, new) = self._pairs
        rate = 1 / self.horizon if int(self.average.n_averaged) else 1.0
        torch._foreach_lerp_(averaged, parameters, rate)
        for before, now in zip(old, new, strict=True):
            before.copy_(now)
        self.average.n_averaged += 1

    def drawn(self, rows: Tensor) -> Tensor:
        """Rows of an epoch, from those that are taught: these."""
        return rows

    @abstractmethod
    def start_epoch(self) -> None:
        """Before an epoch."""

    @abstractmethod
    def learn_channels(self) -> None:
        """After an epoch: channels, where there are any, follow what the network said."""

    @abstractmethod
    def fit(self) -> int:
        """Train, choose the epoch and say which, calibrate."""

    @abstractmethod
    def run(self) -> Any:
        """`fit`, and what the network then says of all rows."""

    @abstractmethod
    def predicted(self, rows: Inputs) -> Tensor:
        """What the trained, calibrated network says of rows: log-probabilities (R, K), or mean and variance (R, 2)."""

    @abstractmethod
    def held_out_value(self) -> Tensor:
        """Log-likelihood of every held-out observation under the averaged network, times its weight, (M,)."""

    def train(self) -> int:
        """All epochs that are left; brings back the best network, and says which epoch that was."""
        epochs = self.pace.epochs
        for epoch in range(self._resume(), epochs):
            self.start_epoch()
            objective = self.loop.epoch(epoch)
            if epoch + 1 > SETTLING * epochs:
                self.learn_channels()
            facts: dict[str, Any] = {
                "step": f"{self.part}epoch {epoch + 1}",
                "track": f"{self.part}end to end",
                "round": epoch + 1,
                "objective": objective,
            }
            if bool(self.held_rows.any()):
                facts["held_out_evidence"] = self._weigh(epoch)
            self._keep(facts, epochs)
        best = self._choose()
        network = self.network.encoder
        assert network is not None
        self.encoder.load_state_dict(network.state_dict())
        return best

    @property
    def network(self) -> Network:
        """The averaged network."""
        network = self.average.module
        assert isinstance(network, Network)
        return network

    def table(
        self, compute: Callable[[Arrays], Tensor], on: Tensor | None = None, rows: Inputs | None = None
    ) -> Tensor:
        """What the averaged network computes of all data rows, of some, or of other rows, (R, ...)."""
        rows = self.rows if rows is None else rows
        found = in_batches(compute, rows, self.pace.at_once, self.network, on)
        return found.to(self.everything.device)

    # -- choosing the epoch -------------------------------------------------------------------------------------------

    def _weigh(self, epoch: int) -> float:
        """Mean log-likelihood of the held-out observations; remembers the network where it is the highest."""
        score = self.held_out_value()
        if not self.best or float(score.sum()) > float(self.best["score"].sum()):
            kept = {f"network.{k}": v.detach().clone() for k, v in self.network.state_dict().items()}
            self.best = {"score": score, "epoch": torch.tensor(epoch + 1), **kept, **self._channels()}
        self.last = score
        return float(score.mean())

    def _choose(self) -> int:
        """Bring back the network of the best epoch, where it is better than the last by a standard error."""
        epochs = self.pace.epochs
        if not self.best or len(self.last) < 2:
            return epochs
        lead = self.best["score"] - self.last
        if float(lead.mean()) <= float(lead.std()) / math.sqrt(len(lead)):
            return epochs
        self.network.load_state_dict({k[8:]: v for k, v in self.best.items() if k.startswith("network.")})
        self._load_channels(self.best)
        return int(self.best["epoch"])

    def chosen(self, epoch: int) -> dict[str, Any]:
        """Which network was kept, and why."""
        last = epoch == self.pace.epochs
        why = "the last epoch" if last else f"epoch {epoch} explains held-out evidence better"
        held = len(self.held_names)
        return {"chosen": "evidence", "why": f"end to end: {why}", "epoch": epoch, "held_out": held}

    # -- going on after an interruption -------------------------------------------------------------------------------

    def _channels(self) -> dict[str, Tensor]:
        return {
            f"channel{i}.{key}": value.clone()
            for i, channel in enumerate(self.channels)
            for key, value in channel.state_dict().items()
        }

    def _load_channels(self, tensors: dict[str, Tensor]) -> None:
        for i, channel in enumerate(self.channels):
            mine = f"channel{i}."
            channel.load_state_dict({k[len(mine) :]: v for k, v in tensors.items() if k.startswith(mine)})

    def _keep(self, facts: dict[str, Any], epochs: int) -> None:
        """Remember a finished epoch; only the last one is remembered whole."""
        tensors = {f"loop.{k}": v for k, v in self.loop.state().items()}
        tensors.update({f"average.{k}": v.detach().clone() for k, v in self.average.state_dict().items()})
        tensors.update({f"best.{k}": v for k, v in self.best.items()})
        if self.best:
            tensors["last"] = self.last
        tensors.update(self._channels())
        for step in self._steps():
            self.state.steps[step] = {"done": torch.ones(1)}
        self.state.steps[facts["step"]] = tensors
        self.state.history.append(facts)
        if self.callback is not None:
            self.callback(self.before * epochs + facts["round"], self.parts * epochs, facts)

    def _steps(self) -> list[str]:
        """Names of the finished epochs of this training."""
        return [step for step in self.state.steps if step.startswith(f"{self.part}epoch ")]

    def _resume(self) -> int:
        """Take up the last finished epoch; how many are finished."""
        whole = [step for step in self._steps() if set(self.state.steps[step]) != {"done"}]
        if not whole:
            return 0
        tensors = self.state.steps[whole[-1]]

        def under(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.loop.load_state(under("loop."))
        self.average.load_state_dict(under("average."))
        self.best = under("best.")
        if self.best:
            self.last = tensors["last"]
        self._load_channels(tensors)
        return int(whole[-1].split()[-1])


class ClassEndToEnd(EndToEnd):
    """An encoder and a head for classes.

    Args:
        learner: for the hooks of terms and weighting.
        encoder, rows, labels: as in `EndToEnd`.
        head: unfitted.
        augmentation: None for none.
        loss, terms, weighting: of the objective.
        hidden: rows whose labels are left out, bool (rows,); they take part as rows without evidence.
        temperature: where nothing is held out.
        how: epochs, batch_size, learning_rate, accumulate, callback, state.
    """

    def __init__(
        self,
        learner: Learner,
        encoder: TrainableEncoder,
        head: Head | TagHead,
        rows: Inputs,
        labels: Labels,
        *,
        augmentation: Augmentation | None,
        loss: Loss,
        terms: Sequence[Term],
        weighting: Weighting | None,
        seed: int,
        fabric: Fabric,
        hidden: Tensor | None = None,
        temperature: float = 1.0,
        **how: Any,
    ) -> None:
        self.temperature = temperature
        mean = in_batches(encoder.encode, rows, LOOKED_AT, encoder, looked_at(rows)).mean(dim=0)
        if labels.bags or terms:
            tell_apart(head, mean, seed)
        elif isinstance(head, Head) and labels.pooled_prior is None:  # shares that are known are kept from the start
            tell_apart(head, mean, seed, told_apart(labels))
        self.labels, doubt = labels, doubts(labels)
        told = torch.zeros(len(labels), dtype=torch.bool).index_fill_(0, labels.rows.cpu()[doubt < 1], True)
        if terms:
            told[:] = True  # what else is wanted of rows may be all that is known of them
        if hidden is not None:
            told &= ~hidden
        self.told = told
        #: instances of which nothing is said
        self.untold = doubt == 1
        silent = (~told)[labels.rows.cpu()].nonzero()[:, 0]
        if augmentation is None:
            silent = silent[:0]  # such rows teach by their strong view alone
        order = self.order_of(labels, terms)
        super().__init__(
            encoder,
            rows,
            labels,
            told=told,
            order=order,
            channels=labels.channels,
            n_silent=len(silent),
            seed=seed,
            **how,
        )
        self.taught, shift = labels[self.drawn_rows], None
        times = self.times_of_groups()
        if times is not None:
            assert isinstance(self.taught, SampledRows)
            self.taught, shift = self.taught.resampled(times)
        self.held = labels[self.held_rows] if bool(self.held_rows.any()) else None
        ordered = self.taught if order is labels else order[self.drawn_rows]
        self.targets = EvidenceTargets(self.taught, ordered, self.pace.batch_size)
        stated = pooled_prior(labels)
        if stated is not None:
            prior, _ = pooled_prior(self.taught) or stated  # of the rows as they come
            terms = [*terms, StatedPrior(prior, stated[1])]
        certain = None if labels.channels else certainly(self.taught)
        loop = ClassLoop(
            learner,
            Network(head, encoder, learnt_with(loss, terms)),
            rows,
            ordered,
            self.targets if certain is None else FixedTargets(certain),
            self.pace,
            loss=loss,
            terms=terms,
            weighting=weighting,
            seed=seed,
            fabric=fabric,
            augmentation=augmentation,
            instances=self.names,
            row_of=labels.rows,
            weight=labels.instance_weight(),
            tag_of=self.tag_of(labels),
            silent=silent,
            shift=shift,
            teaches=augmentation is not None and float(doubt[self.names].mean()) > IN_DOUBT,
        )
        if labels.channels:
            loop.keep_what_is_said()
        self.watch(loop)

    def times_of_groups(self) -> Tensor | None:
        """How often rows of every group of sampled rows come in an epoch, (G,); None where all come once.

        A small group beside a large one (few positives, many unlabelled rows) comes as often as the large one: a batch
        that holds a handful of it says little of where it ends. The network speaks of the rows as they are pooled, and
        is trained on rows as they come.
        """
        labels = self.labels
        if not isinstance(labels, SampledRows) or labels.pooled_prior is None:
            return None
        inside = labels.group[labels.group >= 0]
        size = torch.bincount(inside).clamp(min=1)
        times = (size.max() / size).round()
        return times.cpu() if bool((times > 1).any()) else None

    def drawn(self, rows: Tensor) -> Tensor:
        times = self.times_of_groups()
        if times is None:
            return rows
        group = torch.full((len(self.labels),), -1)
        labels = self.labels
        assert isinstance(labels, SampledRows)
        group[labels.rows.cpu()] = labels.group.cpu()
        often = torch.where(group >= 0, times.long()[group], 1)
        return torch.repeat_interleave(rows, often[rows])

    def order_of(self, labels: Labels, terms: Sequence[Term]) -> Labels:
        """Labels of the same instances from which batches and folds are made."""
        return kept_together(labels, terms)

    def start_epoch(self) -> None:
        if bool(self.targets.cut.any()):
            self.targets.e_step(self.loop.found(torch.arange(self.taught.n_instances))[0])

    def learn_channels(self) -> None:
        if self.loop.said is None:
            return
        (said,) = self.loop.said
        if self.loop.fabric.world_size > 1:  # every process has seen its own batches only
            (said,) = self.loop.found(torch.arange(self.taught.n_instances))
        posterior = self.taught.posterior(said)
        if self.held is None:
            self.taught.update(posterior, said)
            return
        # soft counts keep noise too small, hard ones take the network's own errors for it: what is held out decides
        logits, now = self._held_logits(), self._channels()
        best, found = float(self._value_of(logits).sum()), now
        for log_probs in (said, None):
            self._load_channels(now)
            self.taught.update(posterior, log_probs)
            value = float(self._value_of(logits).sum())
            if value > best:
                best, found = value, self._channels()
        self._load_channels(found)

    def held_out_value(self) -> Tensor:
        return self._value_of(self._held_logits())

    def _held_logits(self) -> Tensor:
        assert self.held is not None
        return self.of_instances(self._logits(self.held_rows.nonzero()[:, 0]), self.held)

    def _value_of(self, logits: Tensor) -> Tensor:
        assert self.held is not None
        value = self.held.infer((self._temperature_of(logits) * logits).log_softmax(dim=1))[0]
        return value if self.held.weight is None else value * self.held.weight.to(value)

    def _temperature_of(self, logits: Tensor) -> float:
        """That of the held-out evidence, for logits (N, K) of its instances; near 1 where there is little.

        Epochs are compared each at its own: an overfitted network that is merely too sure may still be the better one.
        """
        assert self.held is not None
        everyone = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        found = fit_temperature(self.held, logits, everyone, default=1.0, by_heart=True)
        n = self.held.n_observations
        return float(found ** (n / (n + SHRINK)))

    def tag_of(self, labels: Labels) -> Tensor | None:
        """Which tag of its row every instance is, (N,); None where rows have no tags."""
        return None

    def of_instances(self, table: Tensor, labels: Labels) -> Tensor:
        """What a table of rows says of the instances of labels of these rows."""
        tag = self.tag_of(labels)
        return table[labels.rows] if tag is None else table[labels.rows, tag]

    def _logits(self, on: Tensor | None = None, rows: Inputs | None = None) -> Tensor:
        """Logits (R, K) of all data rows, some of them, or other rows, by the averaged network; (R, L, 2) of tags."""
        head, encoder = self.network.head, self.network.encoder
        assert isinstance(head, Head | TagHead)
        assert encoder is not None
        logits = head.logits if isinstance(head, Head) else head.log_probs
        return self.table(lambda arrays: logits(encoder.encode(arrays)), on, rows)

    def predicted(self, rows: Inputs) -> Tensor:
        return (self.temperature * self._logits(rows=rows)).log_softmax(dim=-1)

    def fit(self) -> int:
        epoch = self.train()
        self._found: Tensor | None = None
        if self.held is not None:
            self.temperature = self._temperature_of(self._held_logits())
        return epoch

    def run(self) -> RecipeResult:
        epoch = self.fit()
        return self.result(self.temperature, self.chosen(epoch))

    def logits(self) -> Tensor:
        """Of the instances, (N, K), by the averaged network when it is trained."""
        if self._found is None:
            self._found = self.of_instances(self._logits(), self.labels)
        return self._found

    def result(self, temperature: float, chosen: dict[str, Any]) -> RecipeResult:
        """What the trained network says at a temperature."""
        self.temperature = temperature
        log_probs = (temperature * self.logits()).log_softmax(dim=1)
        head = self.network.head
        assert isinstance(head, Head | TagHead)
        return RecipeResult(
            head=head,
            temperature=temperature,
            posterior=self.labels.posterior(log_probs),
            held_out_log_probs=log_probs,
            held_out=self.held_rows[self.labels.rows.cpu()],
            chosen=chosen,
            history=list(self.state.history),
        )


def looked_at(rows: Inputs) -> Tensor:
    """Some rows (R,), evenly spread, fewer where they are large."""
    costs: Tensor | None = getattr(rows, "costs", None)
    number = LOOKED_AT if costs is None else min(LOOKED_AT, int(LOOKED_AT_ONCES / max(float(costs.mean()), 1e-9)))
    return torch.arange(0, len(rows), max(1, len(rows) // max(number, 1)))


def tell_apart(head: nn.Module, mean: Tensor, seed: int, mixed: Tensor | None = None) -> None:
    """Draw the rows of a head (K, D) apart, by about 1 in the logits, where all classes start alike.

    Evidence about sets does not move classes that start alike: under equal probabilities the posterior of two
    instances that are "of one class" is as equal, and neither head nor encoder has a gradient. Candidates move them
    slowly. What is drawn has no part along the mean (D,) of the features: rows differ, no class is preferred on the
    whole. With `mixed` (K, K), see `told_apart`, classes start apart only as far as evidence tells them apart.
    """
    along = torch.nn.functional.normalize(mean, dim=0)
    with torch.no_grad(), seeded(seed):
        for weights in head.parameters():
            if weights.ndim == 2 and bool((weights == weights[:1]).all()):
                drawn = torch.randn(weights.shape) * weights.shape[1] ** -0.5
                if mixed is not None and len(mixed) == len(drawn):
                    drawn = mixed.to(drawn) @ drawn
                weights.add_((drawn - (drawn @ along)[:, None] * along).to(weights))


def told_apart(labels: Labels) -> Tensor:
    r"""How classes share what is drawn for them, (K, K), by how far the evidence alone tells them apart.

    .. math:: M = G^{1/2}, \qquad G_{kl} \propto \sum_i (q_{ik} - \tfrac1K)(q_{il} - \tfrac1K),

    q the posterior of equally likely classes, and the mean of the diagonal of G 1. Rows :math:`M_k` and :math:`M_l` are
    equal where every observation says the same of k and l: such classes must start alike, for nothing would ever take
    back what a network says of them.
    """
    q = alone(labels).double()
    q = q - 1 / q.shape[1]
    gram = q.T @ q
    values, vectors = torch.linalg.eigh(gram / gram.diagonal().mean().clamp(min=1e-12))
    mixed: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return mixed


def alone(labels: Labels) -> Tensor:
    """Posterior (N, K) of the evidence alone, under equally likely classes, on the CPU."""
    n, k = labels.n_instances, labels.n_classes
    return labels.posterior(torch.full((n, k), -math.log(k), device=labels.device)).cpu()


def certainly(labels: Labels) -> Tensor | None:
    """The posterior (N, K) of evidence that leaves every instance one class, whatever a network says; else None."""
    found = alone(labels)
    return found.to(labels.device) if bool(((found > 0).sum(dim=1) == 1).all()) else None


def doubts(labels: Labels) -> Tensor:
    """How much of log K the evidence alone leaves open of every instance, (N,) in 0..1, on the CPU.

    1 is an instance of which nothing is said; members of sets are below 1 whatever their set says.
    """
    posterior = alone(labels)
    entropy = -(posterior * posterior.clamp(min=1e-30).log()).sum(dim=1) / math.log(max(labels.n_classes, 2))
    entropy = torch.where(entropy > 1 - 1e-5, 1.0, entropy)
    in_set = labels.structure.degree.cpu() > 0
    return torch.where(in_set, entropy.clamp(max=1 - 1e-5), entropy)


def instances_of(labels: Observations, rows: Tensor) -> Tensor:
    """Instances of some data rows (R,), in the order of `labels[rows]`."""
    number = torch.arange(labels.n_instances)
    order = torch.argsort(labels.rows.cpu(), stable=True)
    count = torch.bincount(labels.rows.cpu(), minlength=len(labels))
    first = count.cumsum(0) - count
    sizes = count[rows]
    start = first[rows] - (sizes.cumsum(0) - sizes)
    return number[order[torch.repeat_interleave(start, sizes) + torch.arange(int(sizes.sum()))]]


def hold_out(labels: Observations, told: Tensor, generator: torch.Generator) -> Tensor:
    """bool (rows,): a tenth of the rows of which something is told, bool (rows,), whole groups at random.

    None where fewer than `LEAST_ROWS` are told. Groups of more than `LARGEST_GROUP` of these rows stay in.
    """
    out = torch.zeros_like(told)
    n = int(told.sum())
    if n < LEAST_ROWS:
        return out
    _, group = labels.groups().cpu().unique(return_inverse=True)
    size = torch.bincount(group[told], minlength=int(group.max()) + 1)
    order = torch.randperm(len(size), generator=generator)
    order = order[(size[order] > 0) & (size[order] <= LARGEST_GROUP * n)]
    chosen = order[size[order].cumsum(0) <= HELD_OUT * n]
    return torch.isin(group, chosen)
