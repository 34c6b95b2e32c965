"""Co-training: two learners that see different columns label rows for each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.encoders import Frame, Table
from anygrain.labels import LabelError, Labels
from anygrain.robust.self_training import Handling, SelfTraining
from anygrain.robust.thresholds import Threshold
from anygrain.robust.votes import HeadVotes

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

View = Sequence[int] | Sequence[str]


class CoTraining(SelfTraining):
    r"""Self-training by two heads with a view each: what one is sure of, the other learns.

    A row that one view recognises may be new to the other, so guesses that are taught tell more than one's own; where
    the views are the same columns it is self-training. The head that stays sees all features and learns what the two
    were taught: the mean of their targets, with the mean of their weights. Rows with labels that leave classes open are
    learnt with what the labels say under the normalised geometric mean of both.

    Composes with every kind of label, every head and every loss; not with terms or a weighting.

    Args:
        views: two groups of columns, by number or by name, for columns of numbers and for data frames (all columns of
            text are one); in words "height+width|weight". They may overlap. Two random halves of the features where not
            given, which works where features repeat each other.
        threshold, rounds, handling, steps: as in `SelfTraining`.
        calibrate: as there; of use to thresholds that are numbers, such as `Fixed`, and four times the time.

    Attributes:
        outcome_: see `Outcome`.  views_: features of either view, two (D',).

    Source: Blum and Mitchell, Combining Labeled and Unlabeled Data with Co-Training, 1998; random halves: Nigam and
    Ghani, Analyzing the Effectiveness and Applicability of Co-Training, 2000.
    """

    own_head = False

    def __init__(
        self,
        views: Sequence[View] | str | None = None,
        threshold: Threshold | str | None = None,
        *,
        rounds: int = 10,
        handling: Handling | None = None,
        calibrate: bool = False,
        steps: int = 40,
    ) -> None:
        super().__init__(threshold, rounds=rounds, handling=handling, calibrate=calibrate, steps=steps)
        if isinstance(views, str):
            views = [part.split("+") for part in views.split("|")]
        if views is not None and (len(views) != 2 or not all(len(view) for view in views)):
            raise LabelError(f"views are {views!r}; expected two groups of columns, such as [[0, 1], [2, 3]]")
        self.views = views

    def learners(self, learner: Learner, features: Tensor, labels: Labels) -> list[HeadVotes]:
        self.views_ = self._columns(learner, features.shape[1])
        return [
            HeadVotes(learner, features, labels, columns=view, calibrate=self.calibrate, steps=self.steps)
            for view in self.views_
        ]

    def teach(self, votes: Tensor) -> tuple[Tensor, Tensor]:
        return votes.flip(0), torch.ones_like(votes[:, :, 0], dtype=torch.bool)

    def _columns(self, learner: Learner, width: int) -> list[Tensor]:
        """Features of either view.

        Raises:
            LabelError: an encoder whose features have no columns, a column that is not there, fewer than two features.
        """
        if self.views is None:
            if width < 2:
                raise LabelError("CoTraining needs two views, and there is one feature")
            order = torch.randperm(width, generator=torch.Generator().manual_seed(int(learner.seed)))
            return [half.sort().values for half in (order[: (width + 1) // 2], order[(width + 1) // 2 :])]
        columns: list[int | str] = list(getattr(learner, "feature_names_in_", range(width)))
        origin: Sequence[tuple[int | str, ...]]
        if isinstance(learner.encoder_, Frame):
            origin = learner.encoder_.feature_columns()
        elif isinstance(learner.encoder_, Table):
            origin = [(column,) for column in columns]
        else:
            kind = type(learner.encoder_).__name__
            raise LabelError(f"views are columns, and features of {kind} have none; leave views out")
        return [features_of(view, columns, origin) for view in self.views]


def features_of(view: View, columns: Sequence[int | str], origin: Sequence[tuple[int | str, ...]]) -> Tensor:
    """Features (D',) that come from some columns.

    Args:
        view: columns, by name or by place.
        columns: names, or numbers where there are none.
        origin: the columns that every feature comes from.

    Raises:
        LabelError: a column that is not there.
    """
    wanted: set[int | str] = set()
    for column in view:
        if column in columns:
            wanted.add(column)
        elif str(column).isdigit() and int(column) < len(columns):
            wanted.add(columns[int(column)])
        else:
            listed = ", ".join(map(str, columns[:8])) + (", ..." if len(columns) > 8 else "")
            raise LabelError(f'views: there is no column "{column}"; expected one of {listed}')
    found: Tensor = torch.tensor([bool(wanted.intersection(names)) for names in origin]).nonzero()[:, 0]
    return found
