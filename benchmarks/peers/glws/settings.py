"""The fourteen settings: which pictures are seen, and what is said of them. Drawn once, and told to both sides."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.peers.glws.network import probabilities, supervised
from benchmarks.peers.glws.pictures import Pictures


@dataclass(frozen=True)
class Evidence:
    """What is known in one setting.

    Attributes:
        setting: its name.
        n_classes: K.
        rows: (n,) training pictures that are seen.
        truth: (n,) their classes, for the ceiling alone.
        test_truth: classes of the test pictures.
        given: the weak labels, by name; indices in it point into `rows`.
        swaps: whether the better of both readings of the classes is scored, as GLWS does: where the evidence leaves
            open which is which, and for confidence differences, which its code takes the other way round.
    """

    setting: str
    n_classes: int
    rows: Tensor
    truth: Tensor
    test_truth: Tensor
    given: dict[str, Tensor | float] = field(default_factory=dict)
    swaps: bool = False


Draw = Callable[[Pictures, torch.Generator], Evidence]
SETTINGS: dict[str, Draw] = {}
#: settings whose evidence speaks of sets
SETS = ("multiple instance", "proportions", "positive-unlabelled", "unlabelled-unlabelled")


def setting(name: str) -> Callable[[Draw], Draw]:
    def keep(draw: Draw) -> Draw:
        SETTINGS[name] = draw
        return draw

    return keep


def _all(name: str, pictures: Pictures, **given: Tensor | float) -> Evidence:
    """Ten classes, every picture in its order."""
    return Evidence(name, 10, torch.arange(len(pictures.classes)), pictures.classes, pictures.test_classes, given)


def _two(
    name: str, pictures: Pictures, rows: Tensor | None = None, *, swaps: bool = False, **given: Tensor | float
) -> Evidence:
    """Two classes, 1 the positive one."""
    rows = torch.arange(len(pictures.classes)) if rows is None else rows
    truth, test = positives(pictures)
    return Evidence(name, 2, rows, truth[rows], test, given, swaps)


def positives(pictures: Pictures) -> tuple[Tensor, Tensor]:
    """1 for pictures of a positive class, 0 for others, of training and test pictures."""
    wanted = torch.tensor(pictures.positive)
    return torch.isin(pictures.classes, wanted).long(), torch.isin(pictures.test_classes, wanted).long()


def _candidates(classes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Candidate sets (N, K): the class, and each other class with the probability `share`."""
    drawn = torch.rand(len(classes), 10, generator=generator) < share
    return drawn.scatter(1, classes[:, None], True)


@setting("partial")
def partial(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Candidate sets: every wrong class is in with probability .5."""
    return _all("partial", pictures, candidates=_candidates(pictures.classes, 0.5, generator))


@setting("noisy")
def noisy(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Half of the labels drawn anew among all ten classes."""
    classes = pictures.classes
    drawn = torch.randint(0, 10, classes.shape, generator=generator)
    again = torch.rand(len(classes), generator=generator) < 0.5
    return _all("noisy", pictures, labels=torch.where(again, drawn, classes))


def _of_each_class(classes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """count rows of every class, (10 count,)."""
    order = torch.randperm(len(classes), generator=generator)
    return torch.cat([order[classes[order] == k][:count] for k in range(10)])


@setting("few labels")
def few(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Labels of ten (digits) or forty pictures per class; the rest without."""
    known = _of_each_class(pictures.classes, 10 if pictures.name == "digits" else 40, generator)
    labels = torch.full_like(pictures.classes, -1)
    labels[known] = pictures.classes[known]
    return _all("few labels", pictures, labels=labels)


@setting("partial + noisy + unlabelled")
def partial_noisy_unlabelled(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Candidate sets (.3) of a tenth of the pictures, a fifth of these sets without the truth; the rest without."""
    classes = pictures.classes
    known = _of_each_class(classes, len(classes) // 100, generator)
    sets = _candidates(classes[known], 0.3, generator)
    outside = (~sets).float() + 1e-9
    other = torch.multinomial(outside, 1, generator=generator)
    wrong = (torch.rand(len(known), 1, generator=generator) < 0.2) & (~sets).any(dim=1, keepdim=True)
    moved = sets.scatter(1, other, True).scatter(1, classes[known][:, None], False)
    candidates = torch.ones(len(classes), 10, dtype=torch.bool)
    candidates[known] = torch.where(wrong, moved, sets)
    return _all("partial + noisy + unlabelled", pictures, candidates=candidates, known=known)


def _bags(count: int, mean: int, deviation: int, generator: torch.Generator) -> Tensor:
    """Bag of every picture (n,): disjoint bags of about `mean` pictures in random order; -1 for the few left over."""
    sizes = (torch.randn(count, generator=generator) * deviation + mean).round().clamp(min=2).long()
    sizes = sizes[sizes.cumsum(0) <= count]
    bag = torch.full((count,), -1)
    order = torch.randperm(count, generator=generator)[: int(sizes.sum())]
    bag[order] = torch.repeat_interleave(sizes)
    return bag


@setting("multiple instance")
def multiple_instance(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Bags of ten (deviation two): whether one of its pictures is of the target class."""
    bag = _bags(len(pictures.classes), 10, 2, generator)
    rows = (bag >= 0).nonzero()[:, 0]
    truth = (pictures.classes == pictures.target).long()
    bag = bag[rows]
    present = torch.zeros(int(bag.max()) + 1, dtype=torch.long).scatter_reduce(0, bag, truth[rows], "amax")
    test = (pictures.test_classes == pictures.target).long()
    return Evidence("multiple instance", 2, rows, truth[rows], test, {"bag": bag, "present": present})


@setting("proportions")
def proportions(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Bags of ten (deviation two): the share of each of the ten classes."""
    bag = _bags(len(pictures.classes), 10, 2, generator)
    rows = (bag >= 0).nonzero()[:, 0]
    bag, truth = bag[rows], pictures.classes[rows]
    counts = torch.zeros(int(bag.max()) + 1, 10, dtype=torch.long)
    counts.index_put_((bag, truth), torch.ones_like(bag), accumulate=True)
    return Evidence("proportions", 10, rows, truth, pictures.test_classes, {"bag": bag, "counts": counts})


def _pairs(truth: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Every picture in one pair."""
    order = torch.randperm(len(truth) // 2 * 2, generator=generator)
    return order[0::2], order[1::2]


@setting("pair comparison")
def pair_comparison(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Pairs: the first is no less positive than the second."""
    truth, _ = positives(pictures)
    i, j = _pairs(truth, generator)
    turn = truth[i] < truth[j]
    return _two("pair comparison", pictures, first=torch.where(turn, j, i), second=torch.where(turn, i, j))


@setting("pair similarity")
def pair_similarity(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Pairs: whether both are of one class."""
    truth, _ = positives(pictures)
    i, j = _pairs(truth, generator)
    return _two("pair similarity", pictures, swaps=True, first=i, second=j, same=(truth[i] == truth[j]).long())


def _confidence(pictures: Pictures, generator: torch.Generator) -> Tensor:
    """P(positive | picture) of all training pictures: two classifiers judge the half that they were not trained on."""
    truth, _ = positives(pictures)
    order = torch.randperm(len(truth), generator=generator)
    confidence = torch.empty(len(truth))
    half = len(truth) // 2
    for judged, trained in ((order[:half], order[half:]), (order[half:], order[:half])):
        model, _ = supervised(pictures, trained, truth[trained], 2, epochs=6, seed=int(generator.initial_seed()))
        confidence[judged] = probabilities(model, pictures, pictures.train[judged])[:, 1]
    return confidence.clamp(1e-4, 1 - 1e-4)


@setting("similarity confidence")
def similarity_confidence(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Pairs: the probability that both are of one class."""
    truth, _ = positives(pictures)
    i, j = _pairs(truth, generator)
    c = _confidence(pictures, generator)
    similar = c[i] * c[j] + (1 - c[i]) * (1 - c[j])
    prior = float(truth.float().mean())
    return _two("similarity confidence", pictures, swaps=True, first=i, second=j, similar=similar, prior=prior)


@setting("positive confidence")
def positive_confidence(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Positive pictures alone, each with its probability of being positive."""
    truth, _ = positives(pictures)
    rows = truth.nonzero()[:, 0]
    return _two("positive confidence", pictures, rows, confidence=_confidence(pictures, generator)[rows])


@setting("confidence difference")
def confidence_difference(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Pairs: by how much the second is more probably positive than the first."""
    truth, _ = positives(pictures)
    i, j = _pairs(truth, generator)
    c = _confidence(pictures, generator)
    prior = float(truth.float().mean())
    return _two("confidence difference", pictures, swaps=True, first=i, second=j, difference=c[j] - c[i], prior=prior)


@setting("positive-unlabelled")
def positive_unlabelled(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """A twelfth of the pictures, drawn from the positive ones, beside unlabelled pictures drawn from all."""
    truth, _ = positives(pictures)
    prior = float(truth.float().mean())
    order = torch.randperm(len(truth), generator=generator)
    count = len(truth) // 12
    chosen = order[truth[order] == 1][:count]
    rest = torch.ones(len(truth), dtype=torch.bool)
    rest[chosen] = False
    left = order[rest[order]]
    negative = left[truth[left] == 0]
    positive = left[truth[left] == 1][: round(len(negative) * prior / (1 - prior))]
    unlabelled = torch.cat([positive, negative])
    rows = torch.cat([chosen, unlabelled])
    labelled = torch.arange(len(rows)) < len(chosen)
    return _two("positive-unlabelled", pictures, rows, labelled=labelled, prior=len(positive) / len(unlabelled))


@setting("unlabelled-unlabelled")
def unlabelled_unlabelled(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Two sets without labels, a share of .8 positive in the first, .2 in the second."""
    truth, _ = positives(pictures)
    order = torch.randperm(len(truth), generator=generator)
    kinds = [order[truth[order] == k] for k in (0, 1)]
    half = min(len(kind) for kind in kinds)
    many, little = round(half * 0.8), round(half * 0.2)
    first = torch.cat([kinds[1][:many], kinds[0][:little]])
    second = torch.cat([kinds[1][many : many + little], kinds[0][little : little + many]])
    rows = torch.cat([first, second])
    which = (torch.arange(len(rows)) >= len(first)).long()
    prior = float(truth.float().mean())
    return _two("unlabelled-unlabelled", pictures, rows, which=which, share_0=0.8, share_1=0.2, prior=prior)


@setting("similar-dissimilar-unlabelled")
def similar_dissimilar_unlabelled(pictures: Pictures, generator: torch.Generator) -> Evidence:
    """Pairs that are, or are not, of one class, among a quarter of the pictures, the rest without; .7 (.4) positive."""
    truth, _ = positives(pictures)
    order = torch.randperm(len(truth), generator=generator)
    prior = 0.7 if pictures.name == "digits" else 0.4
    kinds = [order[truth[order] == k] for k in (0, 1)]
    total = min(len(kinds[1]) / prior, len(kinds[0]) / (1 - prior))
    kept = torch.cat([kinds[1][: int(total * prior)], kinds[0][: int(total * (1 - prior))]])
    rows = kept[torch.randperm(len(kept), generator=generator)]
    pairs = len(rows) // 8
    i, j = torch.arange(pairs), torch.arange(pairs, 2 * pairs)
    same = (truth[rows[i]] == truth[rows[j]]).long()
    return _two("similar-dissimilar-unlabelled", pictures, rows, swaps=True, first=i, second=j, same=same, prior=prior)
