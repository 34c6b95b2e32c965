"""Bags as rows: how the instances of a bag become one row of features.

`BagEncoder("attention")` is an encoder for a `Learner`; every aggregator also works alone on tensors: features (E, d)
of all instances and sizes (B,) of the bags give `Pooled`. `Attention` is the one to begin with; `Transformer` where
instances explain each other; `TransMIL`, `Mamba` and `ReEmbedding` where their order or place matters.
"""

from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.attention import Attention
from anygrain.encoders.bags.bag_encoder import BagEncoder
from anygrain.encoders.bags.bag_noise import BagNoise
from anygrain.encoders.bags.clam import CLAM
from anygrain.encoders.bags.deep_sets import DeepSets
from anygrain.encoders.bags.dsmil import DSMIL
from anygrain.encoders.bags.instance_encoder import InstanceEncoder
from anygrain.encoders.bags.log_sum_exp import LogSumExp
from anygrain.encoders.bags.mamba import Mamba
from anygrain.encoders.bags.max import Max
from anygrain.encoders.bags.mean import Mean
from anygrain.encoders.bags.named import AGGREGATORS
from anygrain.encoders.bags.noisy_or import NoisyOr
from anygrain.encoders.bags.pooled import Pooled
from anygrain.encoders.bags.re_embedding import ReEmbedding
from anygrain.encoders.bags.set_transformer import SetTransformer
from anygrain.encoders.bags.trans_mil import TransMIL
from anygrain.encoders.bags.transformer import Transformer

__all__ = [
    "AGGREGATORS",
    "CLAM",
    "DSMIL",
    "Aggregator",
    "Attention",
    "BagEncoder",
    "BagNoise",
    "DeepSets",
    "InstanceEncoder",
    "LogSumExp",
    "Mamba",
    "Max",
    "Mean",
    "NoisyOr",
    "Pooled",
    "ReEmbedding",
    "SetTransformer",
    "TransMIL",
    "Transformer",
]
