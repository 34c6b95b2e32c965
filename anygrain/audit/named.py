"""Records that name a class, or a node of one level of a taxonomy: one per instance."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from anygrain.audit.judged import JudgedPart, array
from anygrain.labels import Coarse, Exact, Labels, Noisy, Soft, Tags
from anygrain.robust.label_noise import Noise, judge, learn_noise


class Named(NamedTuple):
    """What an instance is said to be, among C things."""

    given: Tensor  # (N,), -1 is missing
    groups: tuple[Tensor, int] | None  # (N,) and their number: each has errors of its own
    membership: Tensor | None  # (C, K), where the things are nodes: each class lies under one
    names: tuple[str, ...] | None


def as_named(part: Labels) -> Named | None:
    """What the records of a part name; None where they name several classes, or none."""
    if isinstance(part, Tags):
        return Named(part.labels, (part.tag, part.n_tags), None, part.class_names)
    if isinstance(part, Exact):
        return Named(part.labels, None, None, part.class_names)
    if isinstance(part, Noisy):
        columns = part._columns
        given = part.labels if columns is None else torch.where(part.labels < 0, -1, columns[part.labels.clamp(min=0)])
        return Named(given, None, None, part.class_names)
    if isinstance(part, Soft) and part.kind == "target":
        return Named(torch.where(part.missing, -1, part.probs.argmax(dim=1)), None, None, part.class_names)
    if isinstance(part, Coarse):
        used = part.nodes[part.nodes >= 0].unique()
        member = part.membership
        within = ((member == 0) | (member == 1)).all()
        if bool(within) and bool((member.sum(dim=0) == 1).all()) and len(used):  # one level, and a tree
            return Named(part.nodes, None, member, node_names(part))
    return None


def node_names(part: Coarse) -> tuple[str, ...] | None:
    """Names of the nodes that the labels of a part count in, where it has a taxonomy."""
    if part.taxonomy is None:
        return None
    for level in (None, *range(len(part.taxonomy.level_names))):
        if torch.equal(part.taxonomy.membership(level).to(part.membership), part.membership):
            return tuple(str(n) for n in part.taxonomy.nodes(level))
    return None


def judge_named(said: Named, log_probs: Tensor, known: Tensor | None = None) -> tuple[JudgedPart, Noise]:
    """Judge records by log-probabilities (N, K) of the classes by everything else.

    Args:
        known: the transition matrix (C, C), where it need not be learnt.
    """
    if said.membership is not None:
        member = said.membership.to(log_probs)
        log_probs = (log_probs.exp() @ member.T).clamp(min=torch.finfo(log_probs.dtype).tiny).log()
    group, groups = (None, 1) if said.groups is None else said.groups
    noise = learn_noise(log_probs, said.given, group, groups)
    if known is not None:
        noise = replace(noise, transition=known[None].double())
    found = judge(noise, log_probs, said.given, group)
    told = said.given >= 0
    transition = array(noise.transition)
    part = JudgedPart(
        given=array(said.given),
        proposed=array(found.best),
        probability=array(found.best_probability),
        wrong=array(found.wrong),
        nats=array(found.nats.clamp(min=0)),
        names=said.names,
        transition=transition if groups > 1 else transition[0],
        error=float(found.wrong[told].mean()) if bool(told.any()) else 0.0,
    )
    return part, noise
