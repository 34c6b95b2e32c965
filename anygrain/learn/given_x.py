"""Sources that saw the same features as the classifier: their word becomes a training target."""

from __future__ import annotations

import warnings

import torch

from anygrain.labels import All, IdentifiabilityWarning, Labels, Soft, aggregate
from anygrain.labels.positive import with_any_prior


def target_from_sources(labels: Labels) -> Labels:
    r"""Labels in which parts with `given_x` (rules, teachers) are replaced by the target that they come to.

    Multiplying their word with p(y | x) would count x twice. So the labels are first aggregated without features; on
    the instances that such a source speaks of, the posterior of all labels there is the target q that the classifier is
    trained to. Hard evidence still cuts it.

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
        posterior = aggregate(with_any_prior(own)).posterior.to(torch.get_default_dtype())
    spoken = torch.stack([(p.log_evidence() - p.log_evidence()[:, :1]).abs().amax(dim=1) > 1e-6 for p in sources]).any(
        0
    )
    target = Soft(
        torch.where(spoken[:, None], posterior, torch.nan),
        kind="target",
        rows=labels.rows,
        n_rows=labels.n_rows,
        class_names=labels.class_names,
    )
    kept = [target, *(p for p in parts if not p.given_x)]
    return labels.joined(kept) if isinstance(labels, All) else All(*kept)
