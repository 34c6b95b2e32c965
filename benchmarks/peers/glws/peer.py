"""The GLWS code on given pictures, weak labels and network: its algorithm classes, its own `train_step` and `train`.

Its data sets, its model zoo and packages that it imports but that training does not need (torchvision, wandb, ruamel)
are replaced by empty modules while it is imported; its data loaders by ours; `.cuda()` by nothing where there is none.
"""

import importlib
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.peers.glws.network import BATCH, classifier
from benchmarks.peers.glws.pictures import Pictures
from benchmarks.peers.glws.settings import Evidence

ABSENT = (
    "torchvision", "torchvision.models", "torchvision.transforms", "torchvision.datasets", "wandb", "ruamel",
    "ruamel.yaml", "src.datasets", "src.datasets.base_sampler",
)  # fmt: skip

#: module, class, weight decay of digits and of CIFAR-10 (its configurations), and whether the second view is a strong
#: one (`strong_aug` there)
ALGORITHMS = {
    "partial": ("partial_label.imp_partial_label", "ImprecisePartialLabelLearning", 1e-4, 1e-4, True),
    "noisy": ("noisy_label.imp_noisy_label", "ImpreciseNoisyLabelLearning", 1e-3, 1e-3, True),
    "few labels": ("semisup.imp_semisup", "ImpreciseSemiSupervisedLearning", 5e-4, 5e-4, True),
    "partial + noisy + unlabelled": (
        "partial_noisy_ulb.imp_partial_noisy_ulb", "ImpPartialNoisyUnlabeledLearning", 1e-3, 1e-3, True,
    ),
    "multiple instance": ("multi_ins_label.imp_multi_ins", "ImpreciseMultipleInstanceLearning", 1e-5, 5e-4, False),
    "proportions": ("proportion_label.imp_proportion_label", "ImpreciseProportionLabelLearning", 1e-4, 1e-4, False),
    "pair comparison": ("pair_comp.imp_pair_comp", "ImprecisePairComparisonLearning", 1e-4, 1e-3, False),
    "pair similarity": ("pair_sim.imp_pair_sim", "ImprecisePairSimilarityLearning", 1e-4, 5e-4, False),
    "similarity confidence": ("sim_conf.imp_sim_conf", "ImpreciseSimilarConfidenceLearning", 1e-4, 1e-3, False),
    "positive confidence": ("pos_conf.imp_pos_conf", "ImprecisePositiveConfidenceLearning", 1e-4, 1e-3, False),
    "confidence difference": (
        "conf_diff.imp_conf_diff", "ImpreciseConfidenceDifferenceLearning", 1e-4, 1e-3, False,
    ),
    "positive-unlabelled": ("pos_ulb.imp_pos_ulb", "ImprecisePositiveUnlabeledLearning", 1e-4, 1e-3, False),
    "unlabelled-unlabelled": ("ulb_ulb.imp_ulb_ulb", "ImpreciseUnlabeledUnlabeledLearning", 1e-4, 1e-3, True),
    "similar-dissimilar-unlabelled": (
        "sim_dsim_ulb.imp_sim_dsim_ulb", "ImpreciseSimilarDisimilarUnlabeledLearning", 1e-4, 1e-3, False,
    ),
}  # fmt: skip
#: of AdamW, the rate of our side. Its configurations have 5e-4 (digits) and 1e-3 (CIFAR-10) for many more steps, and in
#: the first four settings SGD, with which this network diverged or learnt more slowly.
RATE = 2e-3
NOISE_RATE = 0.02  # of SGD on its noise matrix, as configured


class _Empty(ModuleType):
    """A module in which every name stands for an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@cache
def algorithm_class(checkout: Path, setting: str) -> type:
    """The class that trains in this setting, from the checkout.

    Raises:
        ValueError: a path without src/algorithms.
    """
    if not (checkout / "src" / "algorithms").is_dir():
        raise ValueError(
            f"{checkout} holds no src/algorithms; expected a checkout of General-Framework-Weak-Supervision"
        )
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    empty = {name: _Empty(name) for name in ABSENT if name not in sys.modules}
    for name, module in empty.items():
        module.__path__ = []
        sys.modules[name] = module
    # its package imports every algorithm, some with data sets of their own: the one that is asked for suffices
    package = ModuleType("src.algorithms")
    package.__path__ = [str(checkout / "src" / "algorithms")]
    sys.modules.setdefault("src.algorithms", package)
    where, name, *_ = ALGORITHMS[setting]
    folder = where.split(".")[0]
    part = ModuleType(f"src.algorithms.{folder}")
    part.__path__ = [str(checkout / "src" / "algorithms" / folder)]
    sys.modules.setdefault(part.__name__, part)
    try:
        return getattr(importlib.import_module(f"src.algorithms.{where}"), name)
    finally:
        for name in empty:
            sys.modules.pop(name, None)


class _Loader:
    """Batches of a pass in random order, short ones left out; `steps` of them, beginning anew where the pass ends."""

    def __init__(self, count: int, size: int, make: Any, generator: torch.Generator, steps: int | None = None) -> None:
        self.count, self.size, self.make, self.generator = count, min(size, count), make, generator
        self.steps = steps if steps is not None else count // self.size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        given = 0
        while given < self.steps:
            order = torch.randperm(self.count, generator=self.generator)
            for part in order[: self.count // self.size * self.size].split(self.size):
                if given == self.steps:
                    return
                yield self.make(part)
                given += 1


def _loaders(evidence: Evidence, pictures: Pictures, generator: torch.Generator, strong: bool) -> dict[str, _Loader]:
    """Loaders under the names that the algorithm asks for, BATCH pictures to a step."""
    shown = pictures.train[evidence.rows]
    given, name, n = evidence.given, evidence.setting, len(evidence.rows)

    def weak(at: Tensor) -> Tensor:
        return pictures.scaled(pictures.weak(shown[at], generator))

    def other(at: Tensor) -> Tensor:
        return pictures.scaled(pictures.strong(shown[at], generator)) if strong else weak(at)

    def loader(count: int, size: int, make: Any, steps: int | None = None) -> _Loader:
        return _Loader(count, size, make, generator, steps)

    def in_pairs(at: Tensor, view: Any) -> Tensor:
        both = torch.stack([given["first"][at], given["second"][at]], dim=1)
        return view(both.flatten()).view(len(at), 2, *shown.shape[1:])

    def pairs(**labels: tuple[str, Any]) -> dict[str, _Loader]:
        def make(at: Tensor) -> dict[str, Tensor]:
            said = {key: change(given[source][at]) for key, (source, change) in labels.items()}
            return {"x_bag_w": in_pairs(at, weak), "x_bag_s": in_pairs(at, other), **said}

        return {"train": loader(len(given["first"]), BATCH // 2, make)}

    def beside(known: Tensor, labelled: int, make: Any, ratio: int) -> dict[str, _Loader]:
        """A few pictures with labels (or pairs, `labelled` pictures each) beside `ratio` times as many without."""
        size = BATCH // (labelled + ratio)
        unlabelled = loader(n, ratio * size, lambda at: {"x_ulb_w": weak(at), "x_ulb_s": other(at)})
        return {"train_lb": loader(len(known), size, make, len(unlabelled)), "train_ulb": unlabelled}

    if name == "partial":

        def three(at: Tensor) -> dict[str, Tensor]:
            return {"x_w": weak(at), "x_s": other(at), "x_s_": other(at), "y": given["candidates"][at].float()}

        return {"train": loader(n, BATCH, three)}
    if name == "noisy":
        return {"train": loader(n, BATCH, lambda at: {"x_w": weak(at), "x_s": other(at), "y": given["labels"][at]})}
    if name == "few labels":
        known = (given["labels"] >= 0).nonzero()[:, 0]
        return beside(known, 1, lambda at: {"x_lb": weak(known[at]), "y_lb": given["labels"][known[at]]}, 7)
    if name == "partial + noisy + unlabelled":
        known = given["known"]

        def sets(at: Tensor) -> dict[str, Tensor]:
            at = known[at]
            return {"x_lb_w": weak(at), "x_lb_s": other(at), "y_lb": given["candidates"][at].float()}

        return beside(known, 1, sets, 3)
    if name in ("multiple instance", "proportions"):
        members = torch.argsort(given["bag"], stable=True)
        sizes = torch.bincount(given["bag"])
        starts = sizes.cumsum(0) - sizes
        if name == "proportions":
            said = given["counts"].float()
        else:  # its bag of no target says so in the column of class 0
            said = torch.stack([1 - given["present"], given["present"]], dim=1).float()

        def bags(at: Tensor) -> dict[str, Tensor]:
            inside = [members[starts[m] : starts[m] + sizes[m]] for m in at.tolist()]
            padded = [
                nn.utils.rnn.pad_sequence([view(one) for one in inside], batch_first=True) for view in (weak, other)
            ]
            return {"x_bag_w": padded[0], "x_bag_s": padded[1], "x_bag_len": sizes[at], "y_bag": said[at]}

        return {"train": loader(len(sizes), round(BATCH / 10), bags)}
    if name == "pair comparison":
        return pairs()
    if name == "pair similarity":
        return pairs(y_bag=("same", lambda same: same))
    if name == "similarity confidence":
        return pairs(y_bag_sim=("similar", lambda s: s.clamp(1e-4, 1 - 1e-4)))
    if name == "confidence difference":  # clipped as its own data are
        return pairs(y_bag_conf_diff=("difference", lambda d: d.clamp(1e-8, 1 - 1e-8)))
    if name == "positive confidence":

        def sure(at: Tensor) -> dict[str, Tensor]:
            return {"x_w": weak(at), "x_s": other(at), "y_conf": given["confidence"][at]}

        return {"train": loader(n, BATCH, sure)}
    if name == "positive-unlabelled":
        known = given["labelled"].nonzero()[:, 0]
        unlabelled = (~given["labelled"]).nonzero()[:, 0]
        found = beside(known, 1, lambda at: {"x_lb": weak(known[at]), "y_lb": torch.ones_like(at)}, 1)
        found["train_ulb"] = loader(
            len(unlabelled), BATCH // 2, lambda at: {"x_ulb_w": weak(unlabelled[at]), "x_ulb_s": other(unlabelled[at])}
        )
        found["train_lb"].steps = len(found["train_ulb"])
        return found
    if name == "unlabelled-unlabelled":
        sides = [(given["which"] == side).nonzero()[:, 0] for side in (0, 1)]

        def one_side(side: int) -> _Loader:
            rows, tag = sides[side], f"x_ulb{side + 1}"
            return loader(len(rows), BATCH // 2, lambda at: {f"{tag}_w": weak(rows[at]), f"{tag}_s": other(rows[at])})

        return {"train_ulb1": one_side(0), "train_ulb2": one_side(1)}
    if name == "similar-dissimilar-unlabelled":
        pair = torch.arange(len(given["first"]))

        def two(at: Tensor) -> dict[str, Tensor]:
            return {
                "x_bag_lb_w": in_pairs(at, weak),
                "x_bag_lb_s": in_pairs(at, other),
                "y_bag_lb": given["same"][at],
            }

        found = beside(pair, 2, two, 2)
        free = torch.arange(2 * len(pair), n)
        found["train_ulb"] = loader(
            len(free), BATCH // 2, lambda at: {"x_ulb_w": weak(free[at]), "x_ulb_s": other(free[at])}
        )
        found["train_lb"].steps = len(found["train_ulb"])
        return found
    raise ValueError(f"{name!r} is no setting of GLWS")


def _arguments(evidence: Evidence, pictures: Pictures, epochs: int, steps: int) -> Namespace:
    _, _, digits_decay, other_decay, strong = ALGORITHMS[evidence.setting]
    ten = evidence.n_classes == 10
    return Namespace(
        num_classes=10 if ten or evidence.setting == "multiple instance" else 2,
        target_classes=list(range(10)) if ten else [pictures.target if evidence.setting == "multiple instance" else 1],
        neg_classes=[0], net="given", use_pretrain=False, ema_m=0.0, epoch=epochs, num_train_iter=epochs * steps,
        num_warmup_iter=0, num_eval_iter=0, num_log_iter=0, strong_aug=strong, amp=False, clip_grad=0, save_name="",
        save_dir="", resume=False, algorithm=evidence.setting, gpu="cpu", rank=0, distributed=False, world_size=1,
        optim="AdamW", lr=RATE, momentum=0.9, layer_decay=1.0,
        weight_decay=digits_decay if pictures.name == "digits" else other_decay, batch_size=BATCH, use_wandb=False,
        dataset=pictures.name, average_entropy_loss=True, partial_ratio=0.5, num_labels=0, include_lb_to_ulb=True,
        uratio=1, noise_ratio=0.5, noise_type="sym", noise_matrix_scale=1.0, mean_bag_len=10, std_bag_len=2,
        num_bags_train=0, balanced_bags=False, num_pair_data=0, num_ulb_data=0, num_pos_data=0, num_data=0,
        class_prior=evidence.given.get("prior", 0.5), conf_model_name="", lb_data="sim_dsim", num_ulb1_data=0,
        num_ulb2_data=0, cls_prior_ulb1=evidence.given.get("share_0", 0.5),
        cls_prior_ulb2=evidence.given.get("share_1", 0.5),
    )  # fmt: skip


@contextmanager
def _without_cuda() -> Iterator[None]:
    """`.cuda()` leaves things where they are."""

    def stay(self: Any, *_: Any, **__: Any) -> Any:
        return self

    with mock.patch.object(Tensor, "cuda", stay), mock.patch.object(nn.Module, "cuda", stay):
        yield


class Peer:
    """Its algorithm of one setting, ready to be trained epoch by epoch.

    Args:
        checkout: of General-Framework-Weak-Supervision.
        evidence, pictures: what it is told, and shown.
        epochs: of the whole training.
        seed: of initial weights, views and batches.
    """

    def __init__(self, checkout: Path, evidence: Evidence, pictures: Pictures, *, epochs: int, seed: int) -> None:
        base = algorithm_class(checkout, evidence.setting)
        module = sys.modules[base.__module__]
        if hasattr(module, "send_model_cuda"):
            module.send_model_cuda = lambda _, model, **__: model
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        strong = ALGORITHMS[evidence.setting][-1]
        loaders = _loaders(evidence, pictures, generator, strong)

        class Driven(base):  # type: ignore[misc, valid-type]
            def set_dataset(self) -> dict[str, Any]:
                return {}

            def set_data_loader(self) -> dict[str, _Loader]:
                return loaders

            def set_model(self) -> nn.Module:
                return classifier(pictures.channels, evidence.n_classes)

            def register_hook(self, hook: Any, name: Any = None, priority: str = "NORMAL") -> None:
                if "ParamUpdate" in type(hook).__name__:  # no evaluation, checkpoint, timer or log in between
                    super().register_hook(hook, name, priority)

            def call_hook(self, fn_name: str, *given: Any, **named: Any) -> Any:
                if fn_name in ("before_train_epoch", "after_train_epoch"):
                    taken.append(time.process_time())
                return super().call_hook(fn_name, *given, **named)

        taken: list[float] = []
        steps = min(len(loader) for loader in loaders.values())
        with _without_cuda():
            self.algorithm = Driven(_arguments(evidence, pictures, epochs, steps), None, _Silent())
        if evidence.setting == "positive-unlabelled":
            self.algorithm.class_prior = evidence.given["prior"]
        if hasattr(self.algorithm, "optimizer_noise"):
            self.algorithm.optimizer_noise.param_groups[0]["lr"] = NOISE_RATE
        self._taken, self._module = taken, module

    def train(self) -> tuple[float, float]:
        """Train to the end.

        Returns:
            Seconds of processor time per epoch, and those of it spent on building its trellises.
        """
        spent: list[float] = []

        def timed(build: Any) -> Any:
            def run(*given: Any) -> Any:
                began = time.process_time()
                found = build(*given)
                spent.append(time.process_time() - began)
                return found

            return run

        builders = {name: timed(build) for name, build in vars(self._module).items() if name.endswith("_graph")}
        with _without_cuda(), mock.patch.dict(vars(self._module), builders):
            self.algorithm.train()
        spans = [after - before for before, after in zip(self._taken[0::2], self._taken[1::2], strict=True)]
        return sum(spans) / len(spans), sum(spent) / len(spans)

    @property
    def model(self) -> nn.Module:
        return self.algorithm.model.eval()


class _Silent:
    def info(self, *_: Any) -> None:
        """Nothing is logged."""
