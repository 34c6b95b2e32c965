r"""The default model of bags: several models of different sorts, pooled on bags that were held out.

On a `Summary` of every bag stand extremely randomised trees; beside them a linear head on the means and, where there
are two classes, a model of the instances that knows of every bag whether it holds one of a class (`AnyOf`): of that
which a single instance makes, see `anygrain.learn.presence`. Their cross-fitted log-probabilities make the pool

.. math:: P(k) \propto \exp\Big(b_k + \sum_j s_j \max(\log p_j(k), -f)\Big)

whose slopes and offsets make held-out evidence likeliest, see `anygrain.learn.slope_offset`. Before anything is seen
the slope of the trees is about 1, and that of another part about 0: few bags leave the trees alone, and the more they
tell, the more a part that sees something else counts. Instances are answered for by the model of them, or, of more
than two classes, by the linear head.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from anygrain.data.bag_data import BagData
from anygrain.labels import AnyOf, Labels
from anygrain.labels.identifiability import IdentifiabilityWarning
from anygrain.learn.few_bags import FewBagsWarning, warn_of_few_bags
from anygrain.learn.presence import made_by_one, some_of_each
from anygrain.learn.recipe import Callback, RecipeState
from anygrain.learn.slope_offset import SlopeOffset, fit_slope_offset
from anygrain.learn.trees import Trees

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

#: heads on the summaries of bags
HEADS = ("trees", "linear")
#: name of the part that is of instances
INSTANCES = "instances"
SURE = 0.9  # probability from which on the class of a bag is told to the model of its instances
#: that hold out every bag once; instances are told by sets, of which a fit takes longer
FOLDS = {"trees": 5, "linear": 5, INSTANCES: 3}
ENTRIES = 2**27  # numbers that the model of the instances is fitted to: of more bags some are shown to it
AT_ONCE = 2**16  # instances that are read at once
FEWEST = 2  # bags of every class that a pool needs


def fits(learner: Learner, data: Any) -> bool:
    """Whether the model of these data is the default one of bags."""
    plain = learner.head == "linear" and learner.procedure is None and not learner._shaped
    return isinstance(data, BagData) and learner.encoder is None and plain


def fit(
    learner: Learner, data: BagData, given: Labels, callback: Callback | None, state: RecipeState | None = None
) -> Labels:
    """Fit all parts and pool them; sets what a fit found, and returns the labels as they were learnt from.

    Args:
        given: of the M bags, as the user gave them.
        callback: called after every part.
        state: of an earlier fit that was stopped; parts are quick, so they are fitted again, to the same.
    """
    state = RecipeState() if state is None else state
    learner.encoder_.learn(data, seed=learner._seed)
    with torch.no_grad():
        table = learner.encoder_(data).numpy()
    parts: dict[str, Learner] = {}
    history: list[dict[str, Any]] = []
    with_instances = given.n_classes == 2
    total = len(HEADS) + with_instances + 1

    def say(name: str, **facts: Any) -> None:
        history.append({"step": name, "track": name, "round": 1, **facts})
        if name in state.steps:
            return
        state.steps[name] = {"done": torch.ones(1)}
        state.history.append(history[-1])
        if callback is not None:
            callback(len(history), total, history[-1])

    for head in HEADS:
        parts[head] = _quietly(_part(learner, head), _columns(table, head), given)
        say(head, held_out_evidence=parts[head].log_evidence_heldout_)
    labels = parts[HEADS[0]].labels_
    _more_trees(parts[HEADS[0]], table)
    said = {name: torch.from_numpy(part.held_out_log_probs_) for name, part in parts.items()}
    if with_instances:
        present = _known(labels.posterior(said[HEADS[0]]))
        if bool((present == 1).any()) and bool((present == 0).any()):
            parts[INSTANCES], said[INSTANCES] = _by_instances(learner, data, present)
        say(INSTANCES)
    names = labels.class_names or [f"of class {k}" for k in range(labels.n_classes)]
    warn_of_few_bags(_told_of(labels).sum(dim=0).round(), names, FOLDS[HEADS[0]], stacklevel=3)
    learner.pool_ = _pool(labels, said)
    pooled = learner.pool_(*said.values())
    learner.parts_ = parts
    weights = ", ".join(f"{name} {s:.2f}" for name, s in zip(parts, learner.pool_.slopes, strict=True))
    first = parts[HEADS[0]]
    learner.feature_scale_, learner.head_, learner.temperature_ = first.feature_scale_, first.head_, first.temperature_
    learner.chosen_ = {"chosen": "evidence", "why": f"models pooled on held-out bags, with the slopes {weights}"}
    learner.posterior_ = labels.posterior(pooled).numpy()
    learner.held_out_log_probs_ = pooled.numpy()
    learner.held_out_ = np.logical_and.reduce([parts[head].held_out_ for head in HEADS])
    learner.recipe_state_ = state
    say("pool")
    learner.history_ = history
    return labels


def _more_trees(part: Learner, table: np.ndarray) -> None:
    """Twice as many trees for new bags as for those held out: where classes hardly differ, chance moves few trees."""
    head, labels = part.head_, part.labels_
    assert isinstance(head, Trees)
    more = Trees(head.feature_dim, head.n_classes).to(head.device)
    more.seed = head.seed + 1
    features = torch.from_numpy(part.transform(table)).to(head.device)[labels.rows.to(head.device)]
    weight = None if labels.weight is None else labels.instance_weight().to(features)
    more.learn(features, torch.from_numpy(part.posterior_).to(features), weight)
    head.join(more)


def _quietly(part: Learner, X: Any, labels: Labels) -> Learner:
    """Fit a part; what there is to warn of is said of the whole."""
    with warnings.catch_warnings():
        for category in (IdentifiabilityWarning, FewBagsWarning):
            warnings.simplefilter("ignore", category)
        return part.fit(X, labels)


def _told_of(labels: Labels) -> Tensor:
    """What labels alone say of every bag, (M, K); zeros where they say nothing."""
    uniform = torch.full((labels.n_instances, labels.n_classes), 1 / labels.n_classes, dtype=torch.float64)
    alone = labels.posterior(uniform.log().to(labels.device)).cpu()
    return torch.where(((alone - uniform).abs().amax(dim=1) > 1e-6)[:, None], alone, 0.0)


def of_same_settings(learner: Learner, **changes: Any) -> Learner:
    """A learner of its own with the settings that a default model reads."""
    names = ("seed", "device", "rounds", "folds", "exact_folds", "neighbours", "penalty")
    return type(learner)(**{**{name: getattr(learner, name) for name in names}, **changes})


def _part(learner: Learner, name: str) -> Learner:
    """A learner of one part."""
    return of_same_settings(
        learner,
        head="linear" if name == INSTANCES else name,
        folds=max(learner.folds, FOLDS[name]),
        neighbours=0 if name == "trees" else learner.neighbours,
    )


def _known(posterior: Tensor) -> Tensor:
    """Whether bags are of the second class, (M,): 1, 0, or -1 where that is not sure enough."""
    best = posterior.max(dim=1)
    return torch.where(best.values > SURE, best.indices, -1)


def _by_instances(learner: Learner, data: BagData, present: Tensor) -> tuple[Learner, Tensor]:
    """A model of the instances, and what it says of bags that it has not seen, (M, 2).

    Args:
        present: class of every bag (M,), -1 where it is not known.
    """
    target = made_by_one(data, present, learner._seed)
    rows = torch.arange(len(data))
    if int(data.sizes.sum()) * data.feature_dim > ENTRIES:
        rows = some_of_each(data, present, ENTRIES, learner._seed)
    shown = data[rows.numpy()]
    holds = torch.where(present >= 0, (present == target).long(), -1)
    part = _quietly(_part(learner, INSTANCES), shown.features, AnyOf(shown.bags, holds[rows], target, 2))
    found = torch.zeros(len(data), 2, dtype=torch.float64)
    found[rows] = _of_bags(torch.from_numpy(part.held_out_log_probs_), shown, part)
    rest = torch.ones(len(data), dtype=torch.bool).index_fill_(0, rows, False)
    if bool(rest.any()):
        found[rest] = _said_of_bags(data[rest.numpy()], part)
    return part, found


def _in_chunks(data: BagData) -> Iterator[BagData]:
    """All bags in order, whole bags of about `AT_ONCE` instances at a time."""
    chunk = (data.sizes.cumsum(0) - 1) // AT_ONCE
    for number in chunk.unique():
        yield data[(chunk == number).numpy()]


def _said_of_bags(data: BagData, part: Learner) -> Tensor:
    """What a model of instances says of new bags, (M, 2)."""
    return torch.cat([_of_bags(part.log_probs(some.features), some, part) for some in _in_chunks(data)])


def _of_bags(log_probs: Tensor, data: BagData, part: Learner) -> Tensor:
    """Log-probabilities (M, 2) of bags from those of their instances, (N, 2), by the class that the part asks for."""
    question = part.questions_[0]
    target = question.asked["target"]
    found = AnyOf.answer_to(question.as_fitted(log_probs), data.bags, 2, target=target).log()
    return found if target == [1] else found.flip(1)


def _pool(labels: Labels, said: dict[str, Tensor]) -> SlopeOffset:
    """Slopes and offsets for held-out log-probabilities (M, K) of the parts, that of the trees first."""
    told = _told_of(labels)
    weight = (told.sum(dim=1) > 0).double()
    if labels.weight is not None:
        weight = weight * labels.instance_weight().cpu()
    if bool((told.sum(dim=0) < FEWEST).any()):  # too few bags of a class to calibrate on
        return SlopeOffset([1.0] + [0.0] * (len(said) - 1), [0.0] * labels.n_classes)
    return fit_slope_offset(list(said.values()), labels.posterior(said[HEADS[0]]), weight)


def log_probs(learner: Learner, X: BagData) -> Tensor:
    """Log-probabilities (M, K) of the classes of bags."""
    with torch.no_grad():
        table = learner.encoder_(learner._check(X, reset=False)).numpy()
    said = [
        _said_of_bags(X, part) if name == INSTANCES else part.log_probs(_columns(table, name))
        for name, part in learner.parts_.items()
    ]
    return learner.pool_(*said)


def _columns(table: np.ndarray, head: str) -> np.ndarray:
    """What a head sees of summaries (M, 4 d + 1): trees all, a linear one the means."""
    return table if head == "trees" else table[:, : (table.shape[1] - 1) // 4]


def instance_log_probs(learner: Learner, X: BagData) -> Tensor:
    """Log-probabilities (N, K) of the classes of instances.

    Of two classes by the model of the instances. Of more, none of which need be one that a single instance makes, by
    the linear head, which reads an instance as a bag of one: its scores of the instances of a bag have its score of the
    bag as their mean, so they say what each adds. Single instances vary more than means, so they look surer than bags.
    """
    of_instances = learner.parts_.get(INSTANCES)
    linear, found = learner.parts_["linear"], []
    for some in _in_chunks(X):
        if of_instances is not None:
            found.append(of_instances.log_probs(some.features))
            continue
        with torch.no_grad():
            table = learner.encoder_(BagData.from_ids(some.features, np.arange(some.n_instances))).numpy()
        found.append(linear.log_probs(_columns(table, "linear")))
    return torch.cat(found)
