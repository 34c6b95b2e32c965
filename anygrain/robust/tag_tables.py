"""A step of tags as tables of its rows and tags, for terms that speak of tags over rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.labels import LabelError, Tags
from anygrain.learn.step import Step
from anygrain.learn.tag_recipe import tags_of

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


@dataclass(frozen=True)
class TagTable:
    """R rows and L tags of a step; every entry is an instance of it.

    Attributes:
        log_odds: (R, L), with gradient.
        on: bool (R, L), tags that labels say are on.
        features: (R, D).
    """

    log_odds: Tensor
    on: Tensor
    features: Tensor


def marks_of(learner: Learner, name: str) -> Tags:
    """The tags that a fit is told of.

    Raises:
        LabelError: labels that are not of tags.
    """
    if learner.space_ != "tags":
        raise LabelError(f"{name} is for Tags: what is known of the tags of each row")
    return tags_of(learner.labels_)


def table_of(step: Step, marks: Tags) -> TagTable:
    """The step as a table; batches of tags hold whole rows."""
    assert step.view is not None
    device = step.log_probs.device
    names = step.instances.to(marks.tag.device)
    place, tag = step.view.place, marks.tag[names].to(device)
    rows = int(place.max()) + 1
    odds = step.log_probs[:, 1] - step.log_probs[:, 0]
    log_odds = odds.new_zeros(rows, marks.n_tags).index_put((place, tag), odds)
    on = torch.zeros(rows, marks.n_tags, dtype=torch.bool, device=device)
    on[place, tag] = (marks.labels[names] == 1).to(device)
    features = step.features.new_zeros(rows, step.features.shape[1]).index_put((place,), step.features)
    return TagTable(log_odds, on, features)
