"""Answers per instance and per set: what a model of one of them says of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from anygrain import labels as kinds
from anygrain.data.bag_data import BagData
from anygrain.encoders.bags import BagEncoder
from anygrain.encoders.summary import Summary
from anygrain.labels import All, Bags, LabelError, Labels, SetLabels
from anygrain.learn import bag_model, tags
from anygrain.learn.few_bags import warn_of_few_bags
from anygrain.learn.slope_offset import SlopeOffset, fit_slope_offset

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

#: what an answer is for: every instance, or every set
Unit = Literal["instance", "set"]
FEWEST = 2  # bags of an answer that calibration needs
#: expected members of the target class in a bag that holds one, from which on `AnyOf` does not tell how many there are
MANY = 2.7


@dataclass(frozen=True)
class Question:
    """What set labels ask of a bag, without the bags that they asked it of.

    Attributes:
        kind: name of the kind of label, such as "AnyOf".
        n_classes: K.
        asked: see `SetLabels.asked`.
        calibration: of its answers, from held-out bags; None where these do not tell.
        trusted: whether the labels also tell how many instances make the answer, so that probabilities of instances
            mean what they say.
        instances: slope and offsets by which log-probabilities of instances were calibrated, where they were. Answers
            that are calibrated themselves are worked out from what they were before: that ranks bags better.
    """

    kind: str
    n_classes: int
    asked: dict[str, Any]
    calibration: SlopeOffset | None = None
    trusted: bool = True
    instances: tuple[float, list[float]] | None = None

    @property
    def labels(self) -> type[SetLabels]:
        found: type[SetLabels] = getattr(kinds, self.kind)
        return found

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the answers; None where they are the classes."""
        return self.labels.answers_of(self.n_classes, **self.asked)

    def answers(self, log_probs: Tensor, bags: Bags) -> Tensor:
        """(M, C), for log-probabilities (N, K) of the instances."""
        if self.calibration is None:
            return self.labels.answer_to(log_probs.double(), bags, self.n_classes, **self.asked)
        found = self.labels.answer_to(self.as_fitted(log_probs), bags, self.n_classes, **self.asked)
        return self.calibration(found.log()).exp()

    def as_fitted(self, log_probs: Tensor) -> Tensor:
        """Log-probabilities (N, K) of instances as they were before they were calibrated."""
        if self.instances is None:
            return log_probs.double()
        slope, offsets = self.instances
        return ((log_probs.double() - log_probs.new_tensor(offsets, dtype=torch.float64)) / slope).log_softmax(dim=1)

    def state(self) -> dict[str, Any]:
        """As JSON can hold it; `question_from` reads it."""
        calibration = None if self.calibration is None else self.calibration.state()
        return {**self.__dict__, "calibration": calibration}


def question_from(state: dict[str, Any]) -> Question:
    """The inverse of `Question.state`."""
    given = state["calibration"]
    return Question(**{**state, "calibration": None if given is None else SlopeOffset(**given)})


def questions_of(
    labels: Labels,
    log_probs: Tensor,
    held_out: Tensor,
    folds: int = FEWEST,
    instances: tuple[float, list[float]] | None = None,
) -> list[Question]:
    """The questions that labels ask of sets, calibrated on the answers of sets that were held out.

    Args:
        labels: of the training instances.
        log_probs: of these, (N, K), of models that have not seen them.
        held_out: instances of which that is true, bool (N,).
        folds: parts in which they were held out.
        instances: slope and offsets by which these log-probabilities were calibrated.
    """
    parts = labels.parts if isinstance(labels, All) else [labels]
    found = []
    for part in parts:
        if not isinstance(part, SetLabels) or type(part).__name__ not in kinds.__all__:
            continue
        try:
            asked = part.asked()
        except LabelError:
            continue
        columns = part.answers_of(part.n_classes, **asked)
        if columns is not None and len(columns) == 2:
            said = part.answered()
            count = torch.bincount(said[said >= 0].cpu(), minlength=2)
            warn_of_few_bags(count, [f'answered by "{name}"' for name in columns], folds, stacklevel=3)
        question = Question(type(part).__name__, part.n_classes, asked, instances=instances)
        calibration = _calibrate(part, question.as_fitted(log_probs), held_out)
        trusted = len(parts) > 1 or _tells_how_many(part, log_probs)
        found.append(replace(question, calibration=calibration, trusted=trusted))
    return found


def _calibrate(part: SetLabels, log_probs: Tensor, held_out: Tensor) -> SlopeOffset | None:
    """Slope and offset for the answers of labels; None where too few bags were held out, or all have one answer."""
    said = part.answered().cpu()
    inside = torch.ones(len(said), dtype=torch.bool)
    index = part.sets.index.cpu()
    inside[index[~held_out[part.sets.members.cpu()]]] = False
    said = torch.where(inside, said, -1)
    count = torch.bincount(said[said >= 0])
    if len(count) == 0 or int((count >= FEWEST).sum()) < 2:
        return None
    chances = part.answers(log_probs.double())
    target = torch.nn.functional.one_hot(said.clamp(min=0), chances.shape[1]) * (said >= 0)[:, None]
    weight = None if part.weight is None else part.weight.cpu()
    return fit_slope_offset([chances.log()], target, weight)


def _tells_how_many(part: SetLabels, log_probs: Tensor) -> bool:
    """Whether probabilities of instances can be trusted with these labels alone.

    "At least one" says nothing of how many there are. Where there are hardly more, that does not matter; where a
    present class has many members, a model is free to be too sure, or not sure enough, of most of them.
    """
    if not isinstance(part, kinds.AnyOf):
        return True
    present = part.present.cpu() == 1
    if not bool(present.any()):
        return True
    own = part.posterior(log_probs)
    target = kinds.Bags.edges_of(part.sets, present.nonzero()[:, 0])
    classes = part.asked()["target"]
    expected = float(own[part.sets.members[target]][:, classes].sum()) / int(present.sum())
    return expected < MANY


# -- asking a Learner --------------------------------------------------------------------------------------------------


def own_unit(learner: Learner) -> Unit:
    """What a row of the data of `fit` was."""
    return "set" if getattr(learner, "of_sets_", False) else "instance"


def check_unit(learner: Learner, unit: str | None, bags: Any) -> Unit:
    """The unit that is asked for: that of the model when not given.

    Raises:
        LabelError: no such unit, bags where none are of use.
    """
    own = own_unit(learner)
    if unit is None:
        unit = own
    if unit not in ("instance", "set"):
        raise LabelError(f'unit is {unit!r}; expected "instance" or "set"')
    if bags is not None and (own == "set" or unit == "instance"):
        what = "X holds the bags" if own == "set" else 'bags= is for unit="set"'
        raise LabelError(f"bags= was given, but {what}: leave it out")
    return "set" if unit == "set" else "instance"


def instances_in(learner: Learner, X: Any) -> Any:
    """X, or the instances of its bags where the model is of instances and X is `BagData`."""
    return X.features if isinstance(X, BagData) and own_unit(learner) == "instance" else X


def answers(learner: Learner, X: Any, bags: Any, log_probs: Tensor, question: str | int | None) -> np.ndarray:
    """What a model of instances says of bags of them, (M, C).

    Args:
        X: rows of data.
        bags: of these rows; those of X where it is `BagData`.
        log_probs: of the rows, (R, K).
        question: which, where the labels asked several: the name of the kind, or its number.

    Raises:
        LabelError: no bags, bags of another number of rows, no question, several of them, or none of that name.
    """
    chosen = chosen_question(learner, question)
    if bags is None and isinstance(X, BagData):
        bags = X.bags
    if bags is None:
        raise LabelError('unit="set" needs bags=, such as Bags.from_ids(ids): which rows of X make a set')
    Bags.require(bags)
    if bags.n_instances != len(log_probs):
        raise LabelError(
            f"bags are of {bags.n_instances} instances, X has {len(log_probs)} rows; expected bags of the rows of X"
        )
    return np.asarray(chosen.answers(log_probs, bags.to("cpu")).numpy())


def chosen_question(learner: Learner, question: str | int | None) -> Question:
    """The question of that name or number, or the only one.

    Raises:
        LabelError: none, several, or none of that name.
    """
    asked: Sequence[Question] = learner.questions_
    if not asked:
        raise LabelError(
            'unit="set" needs a model that was told about sets by one common question, such as AnyOf of one target; '
            "this one was not"
        )
    names = ", ".join(f'{at} "{q.kind}"' for at, q in enumerate(asked))
    if question is None:
        if len(asked) > 1:
            raise LabelError(f"the labels asked several questions of sets ({names}): choose one with question=")
        return asked[0]
    if isinstance(question, int) and 0 <= question < len(asked):
        return asked[question]
    found = [q for q in asked if q.kind == question]
    if len(found) != 1:
        raise LabelError(f"question is {question!r}; expected the number of one, or a name that only one has: {names}")
    return found[0]


def elsewhere(learner: Learner, X: Any, unit: str | None, bags: Any) -> bool:
    """Whether something else is asked for than a class for every row of the model's own unit."""
    return check_unit(learner, unit, bags) != own_unit(learner)


def predict_proba(
    learner: Learner, X: Any, prior: Any, unit: str | None, bags: Any, question: str | int | None
) -> np.ndarray:
    """See `Learner.predict_proba`."""
    asked, own = check_unit(learner, unit, bags), own_unit(learner)
    if asked == own:
        if question is not None:
            raise LabelError('question= chooses among those that labels asked of sets: it is for unit="set"')
        if getattr(learner, "space_", "classes") == "tags":
            return tags.predict_proba(learner, X)
        return np.asarray(learner.log_probs(instances_in(learner, X), prior).double().softmax(dim=1).numpy())
    if asked == "set":
        return answers(learner, X, bags, learner.log_probs(instances_in(learner, X), prior), question)
    if getattr(learner, "space_", "classes") == "tags":
        return np.stack([_of_instances(part, X)[:, 1] for part in _models_of_tags(learner)], axis=1)
    return _of_instances(learner, X)


def _of_instances(learner: Learner, X: BagData) -> np.ndarray:
    """Probabilities (N, K) of the instances of bags, for a model of bags."""
    return np.asarray(_instance_log_probs(learner, X).double().softmax(dim=1).numpy())


def _models_of_tags(learner: Learner) -> list[Learner]:
    """The model of bags of every tag.

    Raises:
        LabelError: an encoder of one's own, whose head of tags is of bags.
    """
    if not learner.parts_:
        raise LabelError('unit="instance" of tags is for the default model of bags: leave encoder= out')
    return list(learner.parts_.values())


def predict(
    learner: Learner, X: Any, prior: Any, unit: str | None, bags: Any, question: str | int | None
) -> np.ndarray:
    """See `Learner.predict`, for another unit than the model's own."""
    found = predict_proba(learner, X, prior, unit, bags, question)
    if learner.of_sets_:
        return np.asarray(learner.classes_[found.argmax(axis=1)])
    chosen = chosen_question(learner, question)
    if issubclass(chosen.labels, kinds.Counts):
        return found
    best = found.argmax(axis=1)
    return np.asarray(best if chosen.columns is not None else learner.classes_[best])


def _instance_log_probs(learner: Learner, X: BagData) -> Tensor:
    """Log-probabilities (N, K) of the instances of bags, for a model of bags."""
    data = learner._check(X, reset=False)
    if learner.parts_:
        return bag_model.instance_log_probs(learner, data)
    encoder: Any = _sees_instances(learner)
    with torch.no_grad():
        shown = encoder.instances(data).to(learner.head_.device) / learner.feature_scale_
        found: Tensor = learner.temperature_ * learner.head_.logits(shown)
    return found.log_softmax(dim=1).cpu()


def attention(learner: Learner, X: BagData) -> np.ndarray:
    """See `Learner.attention`."""
    check_is_fitted(learner, "head_")
    if own_unit(learner) != "set" or learner.parts_:
        raise LabelError('attention is that of an encoder of bags: fit Learner(encoder=BagEncoder("attention"))')
    encoder: Any = _sees_instances(learner)
    return np.asarray(encoder.attention(learner._check(X, reset=False)).numpy())


def _sees_instances(learner: Learner) -> Any:
    """The encoder.

    Raises:
        LabelError: one that gives a row per bag and nothing of its instances.
    """
    encoder = learner.encoder_
    if not isinstance(encoder, BagEncoder):
        raise LabelError(
            f'unit="instance" needs an encoder that sees instances, such as BagEncoder(); {type(encoder).__name__} '
            "gives one row per bag"
        )
    return encoder


def bags_in(encoder: Any, X: BagData) -> BagData:
    """The bags, where an encoder (None: to be chosen) reads bags.

    Raises:
        LabelError: an encoder of rows.
    """
    if encoder is None or isinstance(encoder, str | Summary | BagEncoder):
        return X
    raise LabelError(
        f"X is BagData, which {type(encoder).__name__} does not read; take an encoder of bags, or X.features for a "
        "model of instances"
    )
