"""Channels of annotators, fitted among the votes before a classifier has its say."""

from __future__ import annotations

import warnings

from anygrain.labels import All, Crowd, IdentifiabilityWarning, InstanceLabels, Labels, aggregate


def with_started_channels(labels: Labels) -> Labels:
    """The labels with channels of their own, those of votes at the fit that `aggregate` finds without features.

    The channels of the labels that were given stay as they are, so that a second fit starts where the first did. Sets
    take no part: they say little about annotators and cost much.

    Args:
        labels: N instances.
    """
    if not labels.channels:
        return labels
    own = labels.with_own_channels()
    parts = own.parts if isinstance(own, All) else [own]
    if any(isinstance(p, Crowd) for p in parts):
        with warnings.catch_warnings():  # the fit says for all labels together what stays open
            warnings.simplefilter("ignore", IdentifiabilityWarning)
            aggregate(All(*(p for p in parts if isinstance(p, InstanceLabels))))
    return own
