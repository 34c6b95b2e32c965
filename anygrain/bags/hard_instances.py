"""Masked hard instance mining: a slow teacher finds the easy instances, which the bag is then learnt without."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from anygrain.encoders.bags import BagEncoder, segments
from anygrain.encoders.trainable import Arrays, Augmentation, to_device
from anygrain.labels import LabelError
from anygrain.learn.head import Linear
from anygrain.learn.step import RealStep, Step
from anygrain.learn.term import Term

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

SCORES = ("attention", "class")
ROUNDING = 1e-9  # of shares times sizes


def rank_in_bag(values: Tensor, sizes: Tensor) -> Tensor:
    """Place of every instance among those of its bag, from 0 for the smallest value, (E,)."""
    bag = segments.bag_of(sizes)
    order = values.argsort(stable=True)
    order = order[bag[order].argsort(stable=True)]
    rank = torch.empty_like(order)
    rank[order] = segments.place_of(sizes)
    return rank


def masked_instances(
    score: Tensor,
    sizes: Tensor,
    generator: torch.Generator,
    *,
    random: float = 0.0,
    low: float = 0.0,
    high: float = 0.0,
    part: float = 1.0,
) -> Tensor:
    r"""Which instances of every bag are masked, bool (E,); one of a bag stays in any case.

    The union of :math:`\lfloor rN \rfloor` at random, :math:`\lfloor \beta_l N \rfloor` with the lowest scores, and k
    at random of the :math:`\lceil k / \rho \rceil` with the highest. k is :math:`\beta_h N`, rounded up or down at
    random so that its mean is right: always rounded up, as in the source, where bags have thousands of instances, a
    bag of 30 would lack its best instance in every step, however small the share, and its label would be false.

    Args:
        score: (E,), higher is easier.
        sizes: (B,).
        generator: of the random parts.
        random, low, high: r, :math:`\beta_l`, :math:`\beta_h`.
        part: :math:`\rho`.
    """
    size = sizes[segments.bag_of(sizes)].double()
    rank = rank_in_bag(score, sizes)
    masked = rank < (low * size + ROUNDING).floor()
    if random > 0:
        draw = torch.rand(score.shape, generator=generator).to(score.device)
        masked |= rank_in_bag(draw, sizes) < (random * size + ROUNDING).floor()
    if high > 0:
        bag = segments.bag_of(sizes)
        many = (high * sizes.double() + torch.rand(len(sizes), generator=generator).to(sizes.device)).floor()
        many = torch.minimum(many, sizes.double())[bag]
        top = rank >= size - (many / part - ROUNDING).ceil().clamp(max=size)
        if part < 1:  # some of them: the rest of the bag comes last in random order
            draw = torch.rand(score.shape, generator=generator).to(score.device)
            top &= rank_in_bag(draw + (~top).float() * 2, sizes) < many
        masked |= top
    # where all are masked the hardest one stays
    none = torch.bincount(segments.bag_of(sizes)[~masked], minlength=len(sizes)) == 0
    return masked & ~(none[segments.bag_of(sizes)] & (rank == 0))


class _Masking(Augmentation):
    """The weak view of a bag says which of its instances are masked; there is no strong one."""

    def __init__(self, of: MaskedHardInstances) -> None:
        self.of = of

    def weak(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        return self.of.masks(arrays, generator)

    def strong(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        return self.weak(arrays, generator)


class MaskedHardInstances(Term):
    r"""Trains any bag encoder with attention on its hard instances (MHIM-MIL, both versions).

    A teacher, the slow average of the student, scores the instances of a whole bag. The easy ones are masked, the
    student learns the bag from the rest, and its bag embedding F is held near the teacher's:

    .. math:: L = L_{labels}(\text{masked bag}) + \alpha L_{con}, \qquad
              L_{con} = -\sum_d \mathrm{softmax}(F_t / \tau)_d \log \mathrm{softmax}(F_s)_d

    Version 1 scores by attention and masks at random, the lowest and the highest. Version 2 scores by
    :math:`\max_c \mathrm{softmax}_c(w_c (a_n z_n))_c` with the teacher's classifier, or its probability of `target`;
    takes the highest away, then masks a random share of the rest, and leaves tokens for what is masked
    (`BagEncoder(recycle=k)`). `mhim(1)` and `mhim(2)` give all arguments of a `Learner`. Nothing is masked when the
    model answers.

    The source starts from a `teacher` that was trained on whole bags, and the student from its first layer. Without one
    nothing is masked before a warm-up is over, since an untrained teacher masks at random. A random mask takes whatever
    a bag is told by: where bags hold one or two positive instances in all, half at random makes many labels false;
    `low` masks do not.

    Args:
        score: "attention" or "class".
        random, low, high, part: what is masked, see `masked_instances`; `high` falls along a cosine to 0 over
            `decays_over` epochs where that is given.
        alpha: weight of the consistency.
        temperature: :math:`\tau`, of the teacher alone.
        momentum: of the teacher, per step. The source has .9999 for long trainings.
        warm_up: epochs without masks; None is 5 without a teacher, else 0.
        decays_over: epochs after which nothing high is masked any more; None keeps it.
        target: class whose probability scores instances, with score="class"; None is the likeliest class, which calls
            instances that are surely negative easy as well.
        teacher: a fitted `Learner` whose encoder is that of the student, but for its tokens.

    Raises:
        LabelError: shares outside [0, 1), an encoder of something else than bags, one without attention, a teacher with
            another encoder or head.

    Source: Tang et al., Multiple Instance Learning Framework with Masked Hard Instance Mining, 2023 and 2025.
    """

    student: list[nn.Module]

    def __init__(
        self,
        score: str = "attention",
        *,
        random: float = 0.5,
        low: float = 0.0,
        high: float = 0.02,
        part: float = 0.5,
        alpha: float = 0.1,
        temperature: float = 0.1,
        momentum: float = 0.999,
        warm_up: int | None = None,
        decays_over: int | None = None,
        target: int | None = None,
        teacher: Learner | None = None,
    ) -> None:
        super().__init__()
        if score not in SCORES:
            raise LabelError(f"score is {score!r}; expected one of {SCORES}")
        shares = {"random": random, "low": low, "high": high, "momentum": momentum}
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise LabelError(f"{name} is {share:g}; expected a share of 0 or more and below 1")
        if not 0 < part <= 1 or not temperature > 0:
            raise LabelError(f"part is {part:g}, temperature {temperature:g}; expected above 0, part at most 1")
        self.score, self.random, self.low, self.high, self.part = score, random, low, high, part
        self.alpha, self.temperature, self.momentum = alpha, temperature, momentum
        self.warm_up = (5 if teacher is None else 0) if warm_up is None else warm_up
        self.decays_over, self.target, self.starts_from = decays_over, target, teacher
        self.epoch, self.of_teacher = 0, torch.zeros(0)
        self.teacher: nn.Module | None = None
        self.teacher_head: nn.Module | None = None

    @property
    def augmentation(self) -> Augmentation:
        """For `Learner(augmentation=...)`: it is what masks."""
        return _Masking(self)

    def on_fit_start(self, learner: Learner) -> None:
        encoder = learner.encoder_
        if not isinstance(encoder, BagEncoder):
            raise LabelError(f"MaskedHardInstances masks instances of bags; the encoder is {type(encoder).__name__}")
        self.student = [encoder]  # in a list, so that its weights are not this term's
        self.teacher = copy.deepcopy(encoder).requires_grad_(requires_grad=False)
        width, k = encoder.feature_dim, learner.labels_.n_classes
        self.teacher_head = Linear(width, k).to(encoder.mean).requires_grad_(requires_grad=False)
        if self.starts_from is not None:
            self._start(encoder, self.starts_from)

    def _start(self, student: BagEncoder, trained: Learner) -> None:
        """Take over a trained teacher, and its first layer for the student."""
        assert self.teacher is not None
        assert self.teacher_head is not None
        try:
            weights = trained.encoder_.state_dict()
            own = {name: part for name, part in self.teacher.state_dict().items() if name.startswith("recycle.")}
            self.teacher.load_state_dict({**own, **weights})
            self.teacher_head.load_state_dict(trained.head_.state_dict())
        except (AttributeError, RuntimeError) as error:
            raise LabelError(
                "teacher does not fit: expected a fitted Learner with the encoder of the student, but for its tokens, "
                "and the same classes"
            ) from error
        first = {name: part for name, part in weights.items() if name.startswith(("enter.", "mean", "scale"))}
        student.load_state_dict(first, strict=False)

    def on_epoch_start(self, epoch: int) -> None:
        self.epoch = epoch

    def share_of_high(self) -> float:
        """What is masked of the easiest instances in this epoch."""
        if self.decays_over is None:
            return self.high
        gone = min((self.epoch - self.warm_up) / max(self.decays_over, 1), 1.0)
        return self.high * 0.5 * (1 + math.cos(math.pi * gone))

    def masks(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        """Bags with "masked", bool (E,) on the CPU, by scores of the whole bags; version 2 takes the highest away."""
        score, sizes = self.scores(arrays), arrays["sizes"].cpu()
        if self.epoch < self.warm_up:
            return {**arrays, "masked": torch.zeros(len(score), dtype=torch.bool)}
        high, shares = self.share_of_high(), {"random": self.random, "low": self.low}
        if self.score == "attention":
            masked = masked_instances(score, sizes, generator, **shares, high=high, part=self.part)
            return {**arrays, "masked": masked}
        kept = ~masked_instances(score, sizes, generator, high=high, part=self.part)
        sizes = torch.bincount(segments.bag_of(sizes)[kept], minlength=len(sizes))
        rest = {name: array[kept.to(array.device)] for name, array in arrays.items() if name != "sizes"}
        rest["sizes"] = sizes.to(arrays["sizes"].device)
        return {**rest, "masked": masked_instances(score[kept], sizes, generator, **shares)}

    def scores(self, arrays: Arrays) -> Tensor:
        """How easy the teacher finds every instance of whole bags, (E,) on the CPU; keeps what it makes of the bags."""
        assert isinstance(self.teacher, BagEncoder)
        with torch.no_grad():
            pooled = self.teacher.eval().pool(to_device(arrays, self.teacher.mean.device))
            if pooled.attention is None:
                raise LabelError(
                    f'the aggregator "{self.teacher.aggregator_name}" has no attention to mask by; expected one that '
                    "has"
                )
            self.of_teacher = pooled.bag
            if self.score == "attention":
                return pooled.attention.cpu()
            assert isinstance(self.teacher_head, Linear)
            shown = pooled.attention[:, None] * pooled.instances
            # without shifts: attention is small, and shifts alone would make one class the likeliest of all instances
            probs = nn.functional.linear(shown, self.teacher_head.weight).double().softmax(dim=1)
            return (probs.amax(dim=1) if self.target is None else probs[:, self.target]).cpu()

    def forward(self, step: Step) -> Tensor:
        if step.view is None or len(self.of_teacher) == 0:
            raise LabelError(
                "MaskedHardInstances needs the training of its encoder, with augmentation=term.augmentation"
            )
        target = (self.of_teacher / self.temperature).softmax(dim=1)[step.view.place]
        return self.alpha * -(target * step.features.log_softmax(dim=1)).sum(dim=1).mean()

    def after_step(self, step: Step | RealStep) -> None:
        assert self.teacher is not None
        assert self.teacher_head is not None
        pairs = [(self.teacher, self.student[0])]
        if isinstance(step, Step) and step.view is not None and isinstance(step.view.head, Linear):
            pairs.append((self.teacher_head, step.view.head))
        with torch.no_grad():
            for slow, fast in pairs:
                for held, moved in zip(slow.parameters(), fast.parameters(), strict=True):
                    held.lerp_(moved, 1 - self.momentum)


def mhim(version: int = 1, aggregator: str = "attention", recycle: int = 5, **settings: Any) -> dict[str, Any]:
    """Arguments of a `Learner` for `MaskedHardInstances`: `Learner(**mhim(2), seed=0)`.

    Args:
        version: 1 masks by attention, 2 by class-aware scores and keeps tokens of what is masked.
        aggregator: one with attention.
        recycle: tokens of version 2.
        settings: of `MaskedHardInstances`, `encoder` for settings of the `BagEncoder`.

    Raises:
        LabelError: another version.
    """
    if version not in (1, 2):
        raise LabelError(f"version is {version!r}; expected 1 or 2")
    encoder = settings.pop("encoder", {})
    own: dict[str, Any] = {} if version == 1 else {"score": "class", "random": 0.2, "part": 1.0, "alpha": 0.5}
    term = MaskedHardInstances(**{**own, **settings})
    return {
        "encoder": BagEncoder(aggregator, **{"recycle": recycle if version == 2 else 0, **encoder}),
        "terms": [term],
        "augmentation": term.augmentation,
    }
