"""Records about sets of instances."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anygrain.audit.errors import error_share
from anygrain.audit.judged import JudgedPart, array
from anygrain.labels import AnyOf, Pairs, SetLabels
from anygrain.labels.base import IMPOSSIBLE
from anygrain.labels.target import as_table

#: share of rows about which the model may be wrong where sets are judged: one sure and wrong member is no proof
DOUBT = 0.05


def doubtful(log_probs: Tensor) -> Tensor:
    """Log-probabilities (N, K) that leave each class a twentieth of its mean share."""
    p = log_probs.double().exp()
    return ((1 - DOUBT) * p + DOUBT * p.mean(dim=0)).log()


def judge_sets(part: SetLabels, scores: Tensor) -> JudgedPart:
    r"""Judge what is said of sets, from scores log P(o) by everything else, shape (M,).

    With probability e the record was drawn from the |O| things that could have been said, so

    .. math:: P(\text{wrong}) = \frac{e\, (1 - P(o)) / |O|}{(1 - e) P(o) + e / |O|}
    """
    told = scores != 0
    outcomes = torch.as_tensor(getattr(part, "n_outcomes", 2.0), dtype=torch.float64).clamp(min=2).expand(len(scores))
    log_chance = -outcomes.log()
    astray, _ = error_share(scores[told], log_chance[told])
    true = scores.double().exp().clamp(max=1.0)
    wrong = torch.zeros_like(true)
    wrong[told] = astray.to(wrong) * (1 - true[told])
    if getattr(part, "is_noisy", False):  # shares that were read with noise: the noise explains them
        wrong = torch.zeros_like(wrong)
    nats = torch.log1p(-true.clamp(max=1 - 1e-12)) - (outcomes - 1).log() - scores.double()
    nats = torch.where(told, nats, 0.0).clamp(min=0, max=-IMPOSSIBLE)
    given, other = said_of_sets(part)
    given = np.where(array(told), given, "")
    looks_wrong = array(wrong) > 0.5
    return JudgedPart(
        given=given,
        proposed=np.where(looks_wrong, other, given),
        probability=np.where(looks_wrong, array(wrong), 1 - array(wrong)),
        wrong=array(wrong),
        nats=array(nats),
        names=None,
        transition=None,
        error=float(wrong[told].mean()) if bool(told.any()) else 0.0,
    )


def said_of_sets(part: SetLabels) -> tuple[np.ndarray, np.ndarray]:
    """What every set is said to be, and the opposite, in words, both (M,)."""
    if isinstance(part, Pairs):
        words = np.array(["different", "same", ""], dtype=object)
        answer = array(part.same).astype(int)
        return words[answer], words[np.where(answer < 0, -1, 1 - answer)]
    if isinstance(part, AnyOf):
        names = _names_of_targets(part)
        answer = array(part.present)
        some, none = "some " + names, "no " + names
        return np.where(answer == 1, some, none), np.where(answer == 1, none, some)
    tables = {name: array(getattr(part, name)).reshape(len(part.sets), -1) for name in part._per_set}
    columns = np.concatenate([t.astype(float) for t in tables.values()], axis=1)
    patterns, which = np.unique(columns, axis=0, return_inverse=True)  # few differ: words are made once for each
    ends = np.cumsum([t.shape[1] for t in tables.values()])[:-1]
    lines = np.array(
        [
            " ".join(f"{name}={_short(v)}" for name, v in zip(tables, np.split(row, ends), strict=True))
            for row in patterns
        ],
        dtype=object,
    )
    given = lines[which.reshape(-1)]
    return given, np.array([f"not {line}" for line in lines], dtype=object)[which.reshape(-1)]


def _names_of_targets(part: AnyOf) -> np.ndarray:
    """What every bag speaks of, (M,)."""
    names = [str(k) for k in range(part.n_classes)] if part.class_names is None else list(part.class_names)
    patterns, which = np.unique(array(as_table(part.target, part.n_classes)), axis=0, return_inverse=True)
    words = np.array(["|".join(names[k] for k in row.nonzero()[0]) for row in patterns], dtype=object)
    return words[which.reshape(-1)]


def _short(value: np.ndarray) -> str:
    return ",".join(f"{v:g}" for v in value[:8]) + (",..." if len(value) > 8 else "")
