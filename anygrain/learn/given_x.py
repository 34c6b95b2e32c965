"""Sources that saw the same features as the classifier: their word becomes a training target."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from anygrain.labels import All, IdentifiabilityWarning, Labels, Rules, Soft, aggregate
from anygrain.labels.instance import relabelled_columns
from anygrain.labels.positive import with_any_prior


class SourceTarget(Soft):
    """The target that sources which saw x come to.

    Args:
        probs: the target, (N, K), NaN where no source speaks.
        shares: of the classes, (K,), as found with it.

    Attributes:
        judged: what heads that halves of the sources taught say, (N, K): shares of these heads by class, NaN where
            none was asked. How sure a classifier may be is judged by this and not by the target, whose confidence is
            that of a model of the sources. See `anygrain.learn.judges`.
    """

    judged: Tensor

    def __init__(self, probs: Tensor, shares: Tensor, **how: object) -> None:
        self.shares = shares
        super().__init__(probs, kind="target", **how)  # type: ignore[arg-type]
        judged = torch.full_like(self.probs, torch.nan)
        self._keep({"probs": self.probs, "missing": self.missing, "judged": judged}, None, None)

    def with_judged(self, judged: Tensor) -> SourceTarget:
        """The same target, judged by heads, (N, K)."""
        new = self._fresh()
        new.judged = judged.to(self.probs)
        return new

    def relabel(self, mapping: Tensor, n_classes: int) -> SourceTarget:
        new = super().relabel(mapping, n_classes)
        judged = relabelled_columns(self.judged, mapping, n_classes, "SourceTarget", 0.0)
        new.shares = relabelled_columns(self.shares[None], mapping, n_classes, "SourceTarget", 0.0)[0]
        new.judged = judged.masked_fill(self.judged.isnan().any(dim=1, keepdim=True), torch.nan)
        return new

    def judge(self) -> Soft | None:
        """What was judged, as a target; None where nothing was."""
        if bool(self.judged.isnan().all()):
            return None
        return Soft(self.judged, kind="target", rows=self.rows, n_rows=self.n_rows, weight=self.weight)


def as_judged(labels: Labels) -> Labels:
    """The labels with what was judged in place of the target of sources; the same where nothing was judged."""
    parts = labels.parts if isinstance(labels, All) else [labels]
    swapped = [(p.judge() or p) if isinstance(p, SourceTarget) else p for p in parts]
    if all(a is b for a, b in zip(parts, swapped, strict=True)):
        return labels
    return labels.joined(swapped) if isinstance(labels, All) else swapped[0]


def spoken(part: Labels) -> Tensor:
    """bool (N,): instances that a source speaks of."""
    if isinstance(part, Rules):
        return part.spoken()
    table = part.log_evidence()
    return (table - table[:, :1]).abs().amax(dim=1) > 1e-6


def target_from_sources(labels: Labels) -> Labels:
    r"""Labels in which parts with `given_x` (rules, teachers) are replaced by the target that they come to.

    Multiplying their word with p(y | x) would count x twice. So the labels are first aggregated without features; on
    the instances that such a source speaks of, the posterior of all labels there is the target q that the classifier is
    trained to. Hard evidence still cuts it. Rows on which every rule is silent have none: how often rules are silent
    says more of the rules than of the row.

    Args:
        labels: N instances; returned as they are when no part has `given_x`.
    """
    own = labels.with_own_channels()  # those that were given stay as they are
    parts = own.parts if isinstance(own, All) else [own]
    sources = [p for p in parts if p.given_x]
    if not sources:
        return labels
    with warnings.catch_warnings():  # the fit says for all labels together what stays open
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        found = aggregate(with_any_prior(own))
    posterior = found.posterior.to(torch.get_default_dtype())
    said = torch.stack([spoken(p) for p in sources]).any(dim=0)
    target = SourceTarget(
        torch.where(said[:, None], posterior, torch.nan),
        found.prior,
        rows=labels.rows,
        n_rows=labels.n_rows,
        class_names=labels.class_names,
    )
    kept = [target, *(p for p in parts if not p.given_x)]
    return labels.joined(kept) if isinstance(labels, All) else All(*kept)
