"""The verb labels: the kinds of label, how their columns look, and how a configuration names them."""

from __future__ import annotations

from dataclasses import dataclass

from anygrain.data.config import KINDS, Section
from anygrain.data.error import InputError, closest, quoted


@dataclass(frozen=True)
class Example:
    """How a kind of label looks in a table, and the lines of a configuration that read it."""

    table: str
    config: str


EXAMPLES: dict[str, Example] = {
    "Exact": Example(
        """
id,text,product
17,the screen stays black,monitor
18,no internet since noon,""",
        """
[[labels]]
kind = "Exact"
column = "product"            # an empty cell says nothing""",
    ),
    "Soft": Example(
        """
id,text,p_modem,p_router,p_phone
17,no internet since noon,0.6,0.3,0.1""",
        """
[[labels]]
kind = "Soft"
columns = ["p_*"]             # what the star stands for names the class
meaning = "target"            # or "evidence" (a likelihood), "posterior" (of another model)
normalize = false             # true: rescale rows that do not sum to 1""",
    ),
    "Coarse": Example(
        """
id,text,department            taxonomy.csv:  product,department
17,no internet,network                       modem,network
18,it does not ring,phones                   router,network""",
        """
[[labels]]
kind = "Coarse"
column = "department"         # nodes of the taxonomy, of any depth
taxonomy = "taxonomy.csv"     # header = level names, finest first""",
    ),
    "Candidates": Example(
        """
id,text,maybe
17,no internet since noon,modem|router
18,it does not ring,"[""phone"", ""headset""]\"""",
        """
[[labels]]
kind = "Candidates"
column = "maybe"              # or columns = ["is_*"], one 0 / 1 column per class
separator = "|\"""",
    ),
    "Complementary": Example(
        """
id,text,not_this
17,no internet since noon,phone|headset""",
        """
[[labels]]
kind = "Complementary"
column = "not_this\"""",
    ),
    "Interval": Example(
        """
id,text,at_least,at_most
17,quite good,3,5
18,the best I had,5,""",
        """
classes = ["1", "2", "3", "4", "5"]     # at the top of the file: their order

[[labels]]
kind = "Interval"
low = "at_least"              # an empty cell is an open end
high = "at_most\"""",
    ),
    "Noisy": Example(
        """
id,text,guess
17,no internet since noon,router""",
        """
[[labels]]
kind = "Noisy"
column = "guess"
transition = ""               # or a table: a row per true class, a column per class said""",
    ),
    "Crowd": Example(
        """
id,text,worker_1,worker_2     or votes.csv:  item,annotator,vote
17,no internet,modem,router                  17,ann,modem
18,it does not ring,,phone                   17,bob,router""",
        """
[[labels]]
kind = "Crowd"
columns = ["worker_*"]
# or, from a table of votes:
# source = "votes.csv"
# item = "item"
# annotator = "annotator"
# vote = "vote"
# or, where only the numbers of votes are known, one column per class:
# counts = ["votes_*"]
repeats = "stop"              # several votes of one annotator on a row: "last", "first", "both"
channel = "Confusion"         # or "OneCoin", "ClassCoin", "Spammer", "Difficulty"; for ordered classes "Ordinal\"""",
    ),
    "Rules": Example(
        """
id,text,rule_ring,rule_wifi
17,no wifi since noon,,router
18,it does not ring,phone,""",
        """
[[labels]]
kind = "Rules"
columns = ["rule_*"]          # an empty cell abstains
given_x = true                # the rules read what the model reads
dependencies = "discount"     # or "learn" (dependent pairs), "none", [["rule_ring", "rule_wifi"]]""",
    ),
    "AnyOf": Example(
        """
cell,slide,f1,f2              slides.csv:  slide,tumour
c1,s7,0.3,1.2                              s7,yes
c2,s7,0.1,0.9                              s8,no""",
        """
[data]
bag = "slide"

[[labels]]
kind = "AnyOf"
source = "slides.csv"         # or a column of the data that is constant in every bag
column = "tumour"
target = "malignant"          # the class, or classes, that a bag holds at least once""",
    ),
    "AtLeast": Example(
        """
item,basket,f1                baskets.csv:  basket,apples
i1,b1,0.3                                   b1,2
i2,b1,0.1                                   b2,""",
        """
[data]
bag = "basket"

[[labels]]
kind = "AtLeast"
source = "baskets.csv"
column = "apples"             # an empty cell says nothing
target = "apple\"""",
    ),
    "AtMost": Example(
        """
item,basket,f1                baskets.csv:  basket,apples
i1,b1,0.3                                   b1,2
i2,b1,0.1                                   b2,""",
        """
[data]
bag = "basket"

[[labels]]
kind = "AtMost"
source = "baskets.csv"
column = "apples"
target = ["apple", "pear"]    # any of several classes counts""",
    ),
    "Between": Example(
        """
item,basket,f1                baskets.csv:  basket,few,many
i1,b1,0.3                                   b1,2,5
i2,b1,0.1                                   b2,3,""",
        """
[data]
bag = "basket"

[[labels]]
kind = "Between"
source = "baskets.csv"
low = "few"                   # an empty cell is an open end
high = "many"
target = "apple\"""",
    ),
    "Majority": Example(
        """
voter,precinct,age            precincts.csv:  precinct,won
v1,p14,43                                     p14,green""",
        """
[data]
bag = "precinct"

[[labels]]
kind = "Majority"
source = "precincts.csv"
column = "won"                # the most frequent class; ties are taken to be broken by a toss""",
    ),
    "SetLabel": Example(
        """
cell,slide,f1,f2              slides.csv:  slide,grade
c1,s7,0.3,1.2                              s7,high
c2,s7,0.1,0.9                              s8,low""",
        """
classes = ["none", "low", "high"]

[data]
bag = "slide"

[[labels]]
kind = "SetLabel"
source = "slides.csv"
column = "grade"
rule = "highest"              # or "distinct", how many different classes; or "majority", with taxonomy, level""",
    ),
    "Automaton": Example(
        """
day,week,steps                weeks.csv:  week,rested    rest.csv:  state,class,next
d1,w1,4000                                w1,yes                    start,work,start
d2,w1,900                                 w2,no                     start,rest,seen
                                                                    seen,work,seen
                                                                    seen,rest,seen""",
        """
[data]
bag = "week"                  # rows are read in their order

[[labels]]
kind = "Automaton"
source = "weeks.csv"
column = "rested"
transition = "rest.csv"       # with a column probability where several next states are possible
initial = "start"
final = { yes = ["seen"], no = ["start"] }""",
    ),
    "Aggregate": Example(
        """
item,order,weight             orders.csv:  order,total
i1,o1,0.3                                  o1,7.50
i2,o1,1.1                                  o2,5.00""",
        """
[data]
bag = "order"

[[labels]]
kind = "Aggregate"
source = "orders.csv"
column = "total"
values = { small = 2.5, large = 5.0 }
how = "sum"                   # or "mean"
noise = 0                     # standard deviation of the reading; 0: exact""",
    ),
    "Counts": Example(
        """
item,basket,f1                baskets.csv:  basket,n_apple,n_pear
i1,b1,0.3                                   b1,2,1
i2,b1,0.1                                   b2,,4""",
        """
[data]
bag = "basket"

[[labels]]
kind = "Counts"
source = "baskets.csv"
columns = ["n_*"]             # an empty cell is not known""",
    ),
    "Proportions": Example(
        """
voter,precinct,age            precincts.csv:  precinct,share_a,share_b
v1,p14,43                                     p14,0.62,0.38""",
        """
[data]
bag = "precinct"

[[labels]]
kind = "Proportions"
source = "precincts.csv"
columns = ["share_*"]
noise = 0                     # number of draws the shares were estimated from; 0: exact""",
    ),
    "Pairs": Example(
        """
pairs.csv:  a,b,same
            17,18,no
            17,21,yes""",
        """
[[labels]]
kind = "Pairs"
source = "pairs.csv"
first = "a"
second = "b"
column = "same\"""",
    ),
    "PairsUnlabeled": Example(
        """
pairs.csv:  a,b,same
            17,18,no
            17,21,yes""",
        """
[[labels]]
kind = "PairsUnlabeled"       # pairs drawn as such; where random pairs were all answered, kind = "Pairs"
source = "pairs.csv"          # no row stands in two pairs; rows in no pair were drawn alone
first = "a"
second = "b"
column = "same"
prior = { ham = 0.7, spam = 0.3 }       # share of every class in the population""",
    ),
    "Compare": Example(
        """
pairs.csv:  a,b,said
            17,18,>
            17,21,left""",
        """
classes = ["bad", "fair", "good"]       # at the top of the file: from low to high

[[labels]]
kind = "Compare"
source = "pairs.csv"
first = "a"
second = "b"
column = "said"               # what the first is to the second: >, >=, =, <=, <; left or right: which was picked""",
    ),
    "Positive": Example(
        """
id,text,label
17,you have won,spam
18,see you at noon,""",
        """
classes = ["ham", "spam"]     # at the top of the file

[[labels]]
kind = "Positive"
column = "label"              # the target's name, or empty: spam or ham, nobody looked
target = "spam"
prior = 0.3                   # its share in the population; 0: estimated, with an interval
scenario = "single"           # or "case-control": the labelled rows were drawn apart from the others""",
    ),
    "TwoUnlabeled": Example(
        """
id,text,inbox
17,you have won,junk
18,see you at noon,main""",
        """
classes = ["ham", "spam"]     # at the top of the file

[[labels]]
kind = "TwoUnlabeled"
column = "inbox"              # which of the two sets; an empty cell says nothing
target = "spam"
priors = { main = 0.05, junk = 0.8 }    # its share in either set
prior = 0.0                   # its share among the rows to predict; 0: as in both sets together""",
    ),
    "Sampled": Example(
        """
id,text,station
17,no internet since noon,north
18,it does not ring,south""",
        """
[[labels]]
kind = "Sampled"
column = "station"            # which set; an empty cell says nothing
shares = { north = { modem = 0.7, phone = 0.3 }, south = { modem = 0.2, phone = 0.8 } }""",
    ),
    "Value": Example(
        """
id,text,stars
17,the best I had,4.5
18,it broke after a day,1""",
        """
[[labels]]
kind = "Value"                # a number is learnt, not a class: kinds of the two do not mix
column = "stars"              # an empty cell says nothing
noise = 0                     # standard deviation of the reading; 0: the number itself""",
    ),
    "Censored": Example(
        """
id,dose,at_least,at_most      days until it happened, as far as known
17,1.5,30,                    not yet after 30
18,0.5,7,14                   between two visits""",
        """
[[labels]]
kind = "Censored"
low = "at_least"              # an empty cell is an open end; one of the two columns is enough
high = "at_most\"""",
    ),
    "Ratings": Example(
        """
id,text,rater_1,rater_2       or ratings.csv:  item,annotator,rating
17,the best I had,5,4                          17,ann,5
18,it broke,,2                                 18,bob,2""",
        """
[[labels]]
kind = "Ratings"              # each annotator has a bias and a spread of their own
columns = ["rater_*"]
# or, from a table of ratings:
# source = "ratings.csv"
# item = "item"
# annotator = "annotator"
# rating = "rating"
slope = false                 # true: annotators may stretch or narrow the scale
repeats = "stop"              # several ratings of one annotator on a row: "last", "first", "both\"""",
    ),
    "AggregateValue": Example(
        """
id,school,hours               schools.csv:  school,mean_score
17,s7,3                                     s7,61.5
18,s7,9                                     s8,48""",
        """
[data]
bag = "school"

[[labels]]
kind = "AggregateValue"
source = "schools.csv"        # or a column of the data that is constant in every bag
column = "mean_score"         # the mean over all rows of the bag
how = "mean"                  # or "sum"
noise = 0                     # standard deviation of the mean or sum; 0: it is exact""",
    ),
    "Tags": Example(
        """
id,text,tags,not_tags         or tags.csv:  id,tag,has     or columns:  id,text,is_late,is_rude
17,still waiting,late|rude,                 17,late,1                   17,still waiting,1,1
18,well done,,rude                          18,rude,0                   18,well done,,0""",
        """
[[labels]]
kind = "Tags"                 # a row has any number of tags: kinds of classes and of numbers do not mix with it
column = "tags"               # cells that list tags; a JSON list [] is a row without any
absent = "not_tags"           # cells that list tags which a row lacks
separator = "|"
unlisted = "auto"             # tags that a list leaves out are "absent"; or "unknown"
empty = "unknown"             # or "absent": an empty cell says that the row has no tag at all
# or one 0 / 1 column per tag; an empty cell is not known, unless unlisted = "absent":
# columns = ["is_*"]
# or, from a table with a row per row and tag, where value may be left out if all of them are there:
# source = "tags.csv"
# tag = "tag"
# value = "has\"""",
    ),
}


def summary() -> list[tuple[str, str]]:
    """Name and meaning of every kind."""
    return [(name, _meaning(model)) for name, model in KINDS.items()]


def _meaning(model: type[Section]) -> str:
    return " ".join((model.__doc__ or "").split()).rstrip(".")


def example(name: str) -> tuple[str, Example]:
    """Meaning and example of a kind, by its name in upper or lower case.

    Raises:
        InputError: no such kind.
    """
    found = next((kind for kind in KINDS if kind.casefold() == name.casefold()), None)
    if found is None:
        near = closest(name, KINDS)
        hint = f" Did you mean {quoted(near)}?" if near else ""
        raise InputError(f"{quoted(name)} is not a kind of label.{hint} Kinds: {', '.join(KINDS)}")
    return f"{found}: {_meaning(KINDS[found])}", EXAMPLES[found]
