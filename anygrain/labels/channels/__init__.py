"""How truth becomes an observation: annotators, rules, noise.

`OneCoin` needs the fewest votes, `ClassCoin` and `Confusion` know classes apart, `Spammer` finds those who guess,
`Groups` finds types of annotators, `Difficulty` lets the votes on a hard item depend on each other, and `Ordinal` is
for ordered classes. Each shrinks its sources towards the pooled one, or the one of their type.
"""

from anygrain.labels.channels.channel import Channel, Records
from anygrain.labels.channels.class_coin import ClassCoin
from anygrain.labels.channels.confusion import Confusion
from anygrain.labels.channels.difficulty import Difficulty
from anygrain.labels.channels.groups import Groups
from anygrain.labels.channels.inclusion_rates import InclusionRates
from anygrain.labels.channels.labelling_function import LabellingFunction
from anygrain.labels.channels.one_coin import OneCoin
from anygrain.labels.channels.ordinal import Ordinal
from anygrain.labels.channels.rule_forest import RuleForest
from anygrain.labels.channels.spammer import Spammer
from anygrain.labels.channels.transition import Transition
from anygrain.labels.error import LabelError

#: annotator channels by name, the simplest first
CHANNELS: dict[str, type[Channel]] = {
    "one_coin": OneCoin,
    "class_coin": ClassCoin,
    "spammer": Spammer,
    "confusion": Confusion,
    "groups": Groups,
    "difficulty": Difficulty,
    "ordinal": Ordinal,
}


def channel_name(name: str) -> str:
    """The key in `CHANNELS` that is meant by a key or a class name: "one_coin" for "OneCoin".

    Raises:
        LabelError: an unknown name.
    """
    for key, channel in CHANNELS.items():
        if name in (key, channel.__name__):
            return key
    raise LabelError(f'no channel "{name}"; there are {", ".join(CHANNELS)}')


__all__ = [
    "CHANNELS",
    "Channel",
    "ClassCoin",
    "Confusion",
    "Difficulty",
    "Groups",
    "InclusionRates",
    "LabellingFunction",
    "OneCoin",
    "Ordinal",
    "Records",
    "RuleForest",
    "Spammer",
    "Transition",
    "channel_name",
]
