"""Methods by name: what each puts into which slot of a Learner, and what it accepts."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from anygrain.labels import LabelError
from anygrain.learn.loss import terms_alone

#: what a method goes with
CLASSES, TAGS, NUMBERS = "classes", "tags", "a number"
FIXED, TRAINED = "fixed features", "a trained encoder"


@dataclass(frozen=True)
class Method:
    """A named way to fill the slots of a Learner.

    Attributes:
        name: as in `Learner(**method(name))` and ``[learn] method``.
        says: one line.
        slot: what it fills: "loss", "terms", "weighting", "procedure", or "" for none.
        part: class of the room that goes there, as "file.Class", or "".
        spaces: what the labels may speak of: "classes", "tags", "a number".
        encoders: "fixed features", "a trained encoder", or both.
        kind: the only kind of label that it is for, or "".
        alone: whether terms are the whole objective.
        marks_alone: whether it learns tags where none is known to be off.
        preset: options of the class that differ from its own defaults.
    """

    name: str
    says: str
    slot: str = ""
    part: str = ""
    spaces: tuple[str, ...] = (CLASSES,)
    encoders: tuple[str, ...] = (FIXED, TRAINED)
    kind: str = ""
    alone: bool = False
    marks_alone: bool = False
    preset: tuple[tuple[str, Any], ...] = ()

    @property
    def accepts(self) -> str:
        """What it goes with, in words."""
        labels = f"{self.kind} labels" if self.kind else f"labels of {' or '.join(self.spaces)}"
        return labels + ("" if len(self.encoders) == 2 else f", {self.encoders[0]}")

    def check(self, space: str, *, trained: bool, kinds: tuple[str, ...] | None = None) -> None:
        """Whether labels and encoder are what the method is for.

        Args:
            space: what the labels speak of: "classes", "tags", "a number".
            trained: whether the encoder is trained with the head.
            kinds: of the labels, where they are known.

        Raises:
            LabelError: they are not.
        """
        if space not in self.spaces:
            raise LabelError(f'method "{self.name}" is for {self.accepts}; these labels speak of {space}')
        encoder = TRAINED if trained else FIXED
        if encoder not in self.encoders:
            raise LabelError(f'method "{self.name}" is for {self.accepts}; here it is {encoder}')
        if self.kind and kinds is not None and set(kinds) != {self.kind}:
            raise LabelError(f'method "{self.name}" is for {self.accepts} alone; here they are {", ".join(kinds)}')

    def arguments(self, **options: Any) -> dict[str, Any]:
        """Arguments of a Learner.

        Raises:
            LabelError: an option that the method does not have, or a value outside its range.
        """
        if not self.part:
            if options:
                raise LabelError(f'method "{self.name}" has no option "{next(iter(options))}"; it has none')
            return {}
        file, name = self.part.split(".")
        maker = getattr(import_module(f"anygrain.robust.{file}"), name)
        known = [p for p in inspect.signature(maker).parameters if p not in ("args", "kwargs", "options")]
        odd = next((option for option in options if option not in known), None)
        if odd is not None:
            close = difflib.get_close_matches(odd, known, n=1)
            hint = f'Did you mean "{close[0]}"?' if close else f"It has {', '.join(known) or 'none'}"
            raise LabelError(f'method "{self.name}" has no option "{odd}". {hint}')
        try:
            made = maker(**{**dict(self.preset), **options})
        except TypeError as error:
            raise LabelError(f'method "{self.name}": {error}') from error
        out: dict[str, Any] = {self.slot: [made] if self.slot == "terms" else made}
        if self.alone:
            out["loss"] = terms_alone
        return out


BOTH = (CLASSES, TAGS)
_ALL: tuple[Method, ...] = (
    Method("default", "the recipe as it is, with cross-entropy", spaces=(CLASSES, TAGS, NUMBERS)),
    Method(
        "cross_entropy",
        "gradient steps on cross-entropy, the plain baseline of the losses below",
        "loss",
        "cross_entropy.CrossEntropy",
        BOTH,
    ),
    Method(
        "label_smoothing",
        "targets with a part spread over all classes",
        "loss",
        "label_smoothing.LabelSmoothing",
        BOTH,
    ),
    Method(
        "gce",
        "generalised cross-entropy: labels that look impossible pull less",
        "loss",
        "generalized_cross_entropy.GeneralizedCrossEntropy",
        BOTH,
    ),
    Method(
        "bootstrapping",
        "targets that are in part the model's own likeliest class",
        "loss",
        "bootstrapping.Bootstrapping",
        BOTH,
    ),
    Method(
        "bootstrapping_soft",
        "targets that are in part the model's own probabilities",
        "loss",
        "bootstrapping.Bootstrapping",
        BOTH,
        preset=(("hard", False),),
    ),
    Method(
        "symmetric",
        "cross-entropy and its reverse, which tolerates wrong labels",
        "loss",
        "symmetric_cross_entropy.SymmetricCrossEntropy",
        BOTH,
    ),
    Method(
        "forward",
        "loss of the given labels through a transition matrix, which is estimated",
        "loss",
        "transition.ForwardCorrection",
    ),
    Method(
        "backward",
        "loss unmixed by the inverse of the transition matrix, which is estimated",
        "loss",
        "transition.BackwardCorrection",
    ),
    Method("focal", "instances that are recognised already count less", "loss", "focal.Focal", BOTH),
    Method(
        "logit_adjustment",
        "skewed classes: learns what tells them apart, not how frequent they are",
        "loss",
        "logit_adjustment.LogitAdjustment",
    ),
    Method(
        "class_balanced",
        "skewed classes: instances of frequent ones weigh less",
        "weighting",
        "class_balanced.ClassBalanced",
    ),
    Method(
        "any_loss",
        "a measure of decisions as the loss: balanced accuracy, F1, MCC and others",
        "loss",
        "any_loss.AnyLoss",
        BOTH,
        preset=(("start", 10.0),),
    ),
    Method("mixup", "rows mixed with others, labels alike", "terms", "mixup.Mixup", BOTH, alone=True),
    Method(
        "nnpu",
        "positive and unlabelled rows: the non-negative risk",
        "terms",
        "non_negative_pu.NonNegativePU",
        kind="Positive",
        alone=True,
    ),
    Method(
        "pu_mlc",
        "tags known to be on, nothing known to be off: each as positive against unlabelled",
        "terms",
        "pu_mlc.PUMLC",
        (TAGS,),
        alone=True,
        marks_alone=True,
    ),
    Method(
        "comic",
        "tags with a long tail and missing marks: recalls marks, weighs by tag",
        "terms",
        "comic.COMIC",
        (TAGS,),
        alone=True,
        marks_alone=True,
    ),
    Method(
        "self_training",
        "few labels: guesses about rows without labels are learnt from once they are sure",
        "procedure",
        "self_training.SelfTraining",
        encoders=(FIXED,),
    ),
    Method(
        "co_training",
        "few labels: two heads with columns of their own label rows for each other",
        "procedure",
        "co_training.CoTraining",
        encoders=(FIXED,),
    ),
    Method(
        "tri_training",
        "few labels: of three heads, what two agree on the third learns",
        "procedure",
        "tri_training.TriTraining",
        encoders=(FIXED,),
    ),
    Method(
        "label_propagation",
        "few labels: they flow to neighbours, and a head learns what arrives",
        "procedure",
        "label_propagation.LabelPropagation",
        encoders=(FIXED,),
    ),
    Method(
        "tsvm",
        "few labels: the boundary keeps a margin to rows without labels too",
        "procedure",
        "transductive_svm.TransductiveSVM",
        encoders=(FIXED,),
    ),
    Method(
        "co_teaching",
        "wrong labels: two networks, each learns what the other finds easy",
        "procedure",
        "co_teaching.CoTeaching",
        encoders=(FIXED,),
    ),
    Method(
        "co_teaching_term",
        "wrong labels: a second network beside the first, each learns what the other finds easy",
        "terms",
        "co_teaching_term.CoTeachingTerm",
        encoders=(TRAINED,),
        alone=True,
    ),
    Method(
        "storm",
        'wrong labels: a weight per instance, learnt by what it does to the loss; for head="mlp"',
        "procedure",
        "storm.Storm",
        encoders=(FIXED,),
    ),
    Method(
        "rcal",
        "noisy labels of skewed classes: balanced draws from a Gaussian per class",
        "procedure",
        "representation_calibration.RepresentationCalibration",
        encoders=(FIXED,),
    ),
    Method(
        "sbcl",
        'skewed classes: a contrast of subclasses of the size of the tail; for head="mlp"',
        "procedure",
        "subclass_balancing.SubclassContrast",
        encoders=(FIXED,),
    ),
    Method(
        "sbcl_term",
        "skewed classes: the contrast of subclasses beside the loss of a trained encoder",
        "terms",
        "subclass_balancing.SubclassBalancing",
        encoders=(TRAINED,),
    ),
    Method(
        "spl",
        'weak labels beside few exact ones: pretrains on pairs of weak label and guess; for head="mlp"',
        "procedure",
        "sub_pseudo_labels.SubPseudoLabels",
        encoders=(FIXED,),
    ),
    Method(
        "fopro",
        "few trusted rows of every class clean and replace the labels of many noisy ones",
        "procedure",
        "few_shot_prototypes.FewShotPrototypes",
        encoders=(FIXED,),
    ),
    Method(
        "disambiguation",
        "classes that held-out rows confuse are learnt as one",
        "procedure",
        "disambiguation.Disambiguation",
        encoders=(FIXED,),
    ),
    Method(
        "con_r",
        "skewed numbers: keeps the features of rare ones apart",
        "terms",
        "con_r.ConR",
        (NUMBERS,),
        (TRAINED,),
    ),
)


def all_methods() -> Mapping[str, Method]:
    """All methods by name."""
    return {found.name: found for found in _ALL}


def find(name: str) -> Method:
    """The method of a name.

    Raises:
        LabelError: a name that is not known, with the nearest one.
    """
    known = all_methods()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f'Did you mean "{close[0]}"?' if close else "Expected one of " + ", ".join(known)
        raise LabelError(f'method "{name}" is not known. {hint}')
    return known[name]


def read_method(text: str) -> tuple[Method, dict[str, Any]]:
    """A method and its options from words: "gce", "gce:q=0.5", "any_loss:measure=f1:start=20".

    Raises:
        LabelError: a name or an option that is not known, an option without a value.
    """
    name, *given = text.strip().split(":")
    options: dict[str, Any] = {}
    for option in given:
        key, equals, value = option.partition("=")
        if not equals:
            raise LabelError(f'method "{text}": option "{option}" has no value; expected key=value')
        options[key.strip()] = _value(value.strip())
    found = find(name.strip())
    found.arguments(**options)
    return found, options


def method(name: str, **options: Any) -> dict[str, Any]:
    """Arguments of a `Learner` that put a method into its slots: ``Learner(**method("gce", q=0.5))``.

    Raises:
        LabelError: a name or an option that is not known.
    """
    return find(name).arguments(**options)


def _value(text: str) -> Any:
    """true and false, whole numbers, numbers, else the text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
