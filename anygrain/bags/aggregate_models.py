r"""Linear models from mean responses of bags, between the loss of the bag and that of its instances.

.. math:: L_\rho = (1 - \rho) L_{bag} + \rho L_{ins} = L_{bag} + \rho R

The loss of the bag has little bias and, near as many bags as columns, a large variance; that of the instances shrinks
predictions towards the mean of their bag. rho is chosen by the loss of bags that were held out, which is all that can
be seen. Source: Javanmard et al., Learning from Aggregate Responses, 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from anygrain.bags.aggregate_losses import aggregate_loss, bag_means
from anygrain.labels import AggregateValue, Bags, LabelError, Proportions

GRID = tuple(step / 10 for step in range(11))
AT_ONCE = 1 << 15  # members whose products are summed at once


class _Aggregates(BaseEstimator):  # type: ignore[misc]
    """What both models share: settings, rows read, bags held out."""

    def __init__(
        self,
        rho: float | str = "auto",
        penalty: float = 1e-3,
        folds: int = 5,
        per: str = "bag",
        grid: Sequence[float] = GRID,
        seed: int = 0,
    ) -> None:
        self.rho = rho
        self.penalty = penalty
        self.folds = folds
        self.per = per
        self.grid = grid
        self.seed = seed

    def _read(self, X: Any, labels: Any, kind: type[Any]) -> tuple[Tensor, Bags, Tensor]:
        """Standardised columns with a one at the end (N, d + 1), the bags, and how much lies within them."""
        if not isinstance(labels, kind):
            raise LabelError(f"labels are {type(labels).__name__}; expected {kind.__name__} over bags")
        rows = torch.as_tensor(np.asarray(X), dtype=torch.float64)
        bags: Bags = labels.sets
        if rows.ndim != 2 or len(rows) != bags.n_instances:
            raise LabelError(
                f"X has the shape {tuple(rows.shape)}; expected ({bags.n_instances}, d), a row per instance"
            )
        if not bool(rows.isfinite().all()):
            raise LabelError("X holds NaN or infinity; expected finite columns")
        if not self.penalty > 0:
            raise LabelError(f"penalty is {self.penalty:g}; expected a number above 0")
        if self.rho != "auto" and not isinstance(self.rho, int | float):
            raise LabelError(f'rho is {self.rho!r}; expected "auto" or a number from 0 on')
        self.n_features_in_ = rows.shape[1]
        self.mean_, self.scale_ = rows.mean(0), rows.std(0, unbiased=False)
        self.scale_ = torch.where(self.scale_ > 0, self.scale_, 1.0)
        return self._columns(rows), bags, self._spread(rows, bags)

    def _columns(self, rows: Tensor) -> Tensor:
        return torch.cat([(rows - self.mean_) / self.scale_, rows.new_ones(len(rows), 1)], dim=1)

    def _spread(self, rows: Tensor, bags: Bags) -> Tensor:
        """Share of the columns' variance that lies within bags, beside that of random bags: (1 - 1/k) of it."""
        members = rows[bags.members]
        within = (members - bag_means(rows, bags)[bags.index]).square().mean(0)
        expected = (1 - 1 / bags.sizes.double())[bags.index].mean() * members.var(0, unbiased=False)
        return (within.sum() / expected.sum().clamp(min=1e-30)).clamp(max=1.0)

    def _fold_of(self, told: Tensor) -> Tensor:
        """Part of every told bag (M,), -1 for those without a response."""
        many = int(told.sum())
        if many == 0:
            raise LabelError("no bag has a response; expected one or more")
        parts = min(self.folds, many)
        if self.rho == "auto" and parts < 2:
            raise LabelError('rho="auto" holds bags out; expected two or more bags with a response: give rho a number')
        fold = told.long() - 1
        order = torch.randperm(many, generator=torch.Generator().manual_seed(self.seed))
        fold[told] = order % max(parts, 1)
        return fold

    def _new_rows(self, X: Any) -> Tensor:
        check_is_fitted(self)
        rows = torch.as_tensor(np.asarray(X), dtype=torch.float64)
        if rows.ndim != 2 or rows.shape[1] != self.n_features_in_:
            raise LabelError(f"X has the shape {tuple(rows.shape)}; expected (N, {self.n_features_in_})")
        return self._columns(rows)


class AggregateRegressor(RegressorMixin, _Aggregates):  # type: ignore[misc]
    r"""A linear model of a number, from the mean of every bag (`AggregateValue`), in closed form.

    .. math:: \hat\theta_\rho = \Big[(1 - \rho) \sum_a w_a \bar x_a \bar x_a^\top
              + \rho \sum_a \frac{w_a}{k_a} \sum_{i \in a} x_i x_i^\top + \lambda I\Big]^{-1}
              \sum_a w_a \bar x_a \bar y_a

    w sum to 1: equal, by size (`per`), or, where means come with noise (`private_means`), by
    :math:`1 / (\tau^2 + s_a^2)` with tau the error that a first fit leaves. Products are summed once, by fold, so all
    rho cost little more than one.

    Args:
        rho: 0 is the loss of the bag, 1 of its instances; "auto": of `grid`, by the loss of held-out bags.
        penalty: lambda, on standardised columns; the constant is free.
        folds: parts that bags are held out in.
        per: "bag": every bag counts the same; "instance": as much as it has members.
        grid: what "auto" chooses from.
        seed: of the folds.

    Attributes:
        coef_, intercept_: (d,) and a number, for columns as they come.
        rho_: what was used; held_out_loss_: mean squared error of held-out bag means, for every rho of the grid.
        within_: variance of the columns within bags, as a share of that of random bags: near 1 rho is shrinkage, well
            below 1 bags hold similar rows and rho is smoothness.

    Raises:
        LabelError: other labels, rows that do not fit the bags, no response, a penalty of 0 or less.
    """

    def fit(self, X: Any, y: AggregateValue) -> Self:
        rows, bags, within = self._read(X, y, AggregateValue)
        told = ~y.values.isnan()
        means = torch.where(told, y.values.double() / (1 if y.how == "mean" else bags.sizes), 0.0)
        noise = torch.where(told, y.noise.double() / (1 if y.how == "mean" else bags.sizes), 0.0)
        weight = (torch.ones_like(means) if self.per == "bag" else bags.sizes.double()) * told
        fold = self._fold_of(told)
        centre = (weight * means).sum() / weight.sum()  # the free constant needs it only to be well conditioned
        found = self._solved(rows, bags, means - centre, weight, fold)
        if bool((noise > 0).any()):
            left = (means - centre - bag_means(rows @ found, bags))[told].square().mean()
            error = (left - noise[told].square().mean()).clamp(min=0.05 * left)
            found = self._solved(rows, bags, means - centre, weight / (error + noise.square()), fold)
        self.within_ = float(within)
        coef = found[:-1] / self.scale_
        self.coef_ = coef.numpy()
        self.intercept_ = float(found[-1] - self.mean_ @ coef + centre)
        return self

    def _solved(self, rows: Tensor, bags: Bags, means: Tensor, weight: Tensor, fold: Tensor) -> Tensor:
        """theta (d + 1,) at the chosen rho."""
        at = bag_means(rows, bags)
        parts = int(fold.max()) + 1
        d = rows.shape[1]
        of_bag, of_members, right = rows.new_zeros(parts, d, d), rows.new_zeros(parts, d, d), rows.new_zeros(parts, d)
        share = (weight / bags.sizes)[bags.index]
        for part in range(parts):
            chosen = fold == part
            of_bag[part] = (at[chosen] * weight[chosen, None]).T @ at[chosen]
            right[part] = at[chosen].T @ (weight * means)[chosen]
            for members in chosen[bags.index].nonzero()[:, 0].split(AT_ONCE):
                x = rows[bags.members[members]]
                of_members[part] += (x * share[members, None]).T @ x
        mass = torch.zeros(parts, dtype=rows.dtype).index_add(0, fold[fold >= 0], weight[fold >= 0])
        ridge = self.penalty * torch.eye(d, dtype=rows.dtype)
        ridge[-1, -1] = 0

        def solve(rho: float, left: Tensor) -> Tensor:
            total = mass[left].sum()
            a = ((1 - rho) * of_bag[left].sum(0) + rho * of_members[left].sum(0)) / total + ridge
            found: Tensor = torch.linalg.lstsq(a, (right[left].sum(0) / total)[:, None], driver="gelsd").solution[:, 0]
            return found

        everything = torch.ones(parts, dtype=torch.bool)
        self.held_out_loss_ = np.empty(0)
        if self.rho == "auto":
            losses = []
            for rho in self.grid:
                loss = rows.new_zeros(())
                for part in range(parts):
                    theta = solve(rho, torch.arange(parts) != part)
                    chosen = fold == part
                    loss = loss + (weight[chosen] * (means[chosen] - at[chosen] @ theta).square()).sum()
                losses.append(float(loss / mass.sum()))
            self.held_out_loss_ = np.array(losses)
            self.rho_ = float(self.grid[int(np.argmin(losses))])
        else:
            self.rho_ = float(self.rho)
        return solve(self.rho_, everything)

    def predict(self, X: Any) -> np.ndarray:
        """The number of every row, (N,)."""
        rows = self._new_rows(X)[:, :-1] * self.scale_ + self.mean_
        return np.asarray(rows.numpy() @ self.coef_ + self.intercept_)


class AggregateClassifier(ClassifierMixin, _Aggregates):  # type: ignore[misc]
    r"""A linear softmax model of classes, from the shares of classes in every bag (`Proportions`).

    .. math:: L_\rho = -\frac1m \sum_a \sum_k \bar y_{ak} \Big[(1 - \rho) \log \bar p_{ak}
              + \frac{\rho}{k_a} \sum_{i \in a} \log p_{ik}\Big] + \lambda |W|^2

    by L-BFGS. This is the field's plain baseline; `Learner` with `Proportions` uses the likelihood of the counts.

    Args:
        rho, penalty, folds, per, grid, seed: as of `AggregateRegressor`; rho at most 1.

    Attributes:
        coef_, intercept_: (K, d) and (K,), for columns as they come.
        classes_: 0..K-1 or the names of the classes.
        rho_, held_out_loss_: what was used, and the cross-entropy of held-out bags for every rho of the grid.
        within_: see `AggregateRegressor`.

    Raises:
        LabelError: other labels, rows that do not fit the bags, no bag with all shares.
    """

    def fit(self, X: Any, y: Proportions) -> Self:
        rows, bags, within = self._read(X, y, Proportions)
        shares = y.proportions.double()
        fold = self._fold_of(~shares.isnan().any(dim=1))
        self.within_, self.held_out_loss_ = float(within), np.empty(0)
        if self.rho == "auto":
            losses = np.zeros(len(self.grid))
            for part in range(int(fold.max()) + 1):
                theta = rows.new_zeros(shares.shape[1], rows.shape[1])
                for number, rho in enumerate(self.grid):  # each starts where the one before ended
                    theta = self._fitted(rows, bags, shares, (fold >= 0) & (fold != part), rho, theta)
                    held = self._of(fold == part, bags, shares)
                    losses[number] += float(
                        (fold == part).sum()
                        * aggregate_loss(
                            (rows @ theta.T).log_softmax(1), bags, held, 0.0, loss="cross_entropy", per=self.per
                        )
                    )
            self.held_out_loss_ = losses / int((fold >= 0).sum())
            self.rho_ = float(self.grid[int(np.argmin(losses))])
        else:
            self.rho_ = float(self.rho)
        start = rows.new_zeros(shares.shape[1], rows.shape[1])
        found = self._fitted(rows, bags, shares, fold >= 0, self.rho_, start)
        coef = found[:, :-1] / self.scale_
        self.coef_, self.intercept_ = coef.numpy(), (found[:, -1] - coef @ self.mean_).numpy()
        names = y.class_names
        self.classes_ = np.arange(shares.shape[1]) if names is None else np.asarray(names)
        return self

    @staticmethod
    def _of(bags_in: Tensor, bags: Bags, shares: Tensor) -> Tensor:
        """Shares of some of the bags; those of the others say nothing."""
        return torch.where(bags_in[:, None], shares, torch.nan)

    def _fitted(self, rows: Tensor, bags: Bags, shares: Tensor, bags_in: Tensor, rho: float, start: Tensor) -> Tensor:
        """W with the constants in the last column, (K, d + 1)."""
        chosen = bags_in.nonzero()[:, 0]
        instances = bags.members[bags.edges_of(chosen)].unique()
        here, bags_here, target = rows[instances], bags.select(chosen, instances), shares[chosen]
        theta = start.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([theta], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            log_probs = (here @ theta.T).log_softmax(dim=1)
            loss = aggregate_loss(log_probs, bags_here, target, rho, loss="cross_entropy", per=self.per)
            loss = loss + self.penalty * theta[:, :-1].square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return theta.detach()

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes of every row, (N, K)."""
        rows = self._new_rows(X)[:, :-1] * self.scale_ + self.mean_
        logits = rows @ torch.from_numpy(self.coef_).T + torch.from_numpy(self.intercept_)
        return np.asarray(logits.softmax(dim=1).numpy())

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of every row, (N,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
