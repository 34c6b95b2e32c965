"""Aggregators by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.attention import Attention
from anygrain.encoders.bags.clam import CLAM
from anygrain.encoders.bags.deep_sets import DeepSets
from anygrain.encoders.bags.dsmil import DSMIL
from anygrain.encoders.bags.log_sum_exp import LogSumExp
from anygrain.encoders.bags.mamba import Mamba
from anygrain.encoders.bags.max import Max
from anygrain.encoders.bags.mean import Mean
from anygrain.encoders.bags.noisy_or import NoisyOr
from anygrain.encoders.bags.set_transformer import SetTransformer
from anygrain.encoders.bags.trans_mil import TransMIL
from anygrain.encoders.bags.transformer import Transformer
from anygrain.labels import LabelError

AGGREGATORS: dict[str, type[Aggregator]] = {
    "mean": Mean,
    "max": Max,
    "log_sum_exp": LogSumExp,
    "noisy_or": NoisyOr,
    "attention": Attention,
    "dsmil": DSMIL,
    "clam": CLAM,
    "transformer": Transformer,
    "trans_mil": TransMIL,
    "mamba": Mamba,
    "set_transformer": SetTransformer,
    "deep_sets": DeepSets,
}


def aggregator_named(name: str, dim: int, options: Mapping[str, Any]) -> Aggregator:
    """The aggregator of a name, for instances of `dim` features.

    Raises:
        LabelError: a name that is not known, an option that this aggregator does not have.
    """
    check_options(name, options)
    return AGGREGATORS[name](dim, **options)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises LabelError for a name that is not known, or an option that this aggregator does not have."""
    if name not in AGGREGATORS:
        close = difflib.get_close_matches(name, AGGREGATORS, n=1)
        hint = f'Did you mean "{close[0]}"? ' if close else ""
        raise LabelError(f'aggregator "{name}" is not known. {hint}There are {", ".join(AGGREGATORS)}')
    known = [*inspect.signature(AGGREGATORS[name]).parameters][1:]  # the first is dim
    odd = [option for option in options if option not in known]
    if odd:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise LabelError(f'the aggregator "{name}" has no option "{odd[0]}"; {has}')
