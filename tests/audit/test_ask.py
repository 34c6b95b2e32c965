"""What to ask next: scores against enumeration, the game of distillation against a linear program, loci of trees."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from anygrain.audit.ask import (
    NUMBER_STRATEGIES,
    TAG_STRATEGIES,
    NumberQuestion,
    Question,
    badge,
    bald,
    choose,
    choose_numbers,
    choose_tags,
    entropy,
    evidence_gain,
    head_ensemble,
    k_center,
    label_map,
    margin,
    model_variance_reduction,
    next_classes,
    novel_queries,
    novelty,
    robust_distribution,
    robust_inclusion,
    spread,
    tree_locus,
    variance_reduction,
)
from anygrain.audit.ask.distillation import systematic_sample
from anygrain.labels import Exact, LabelError, Taxonomy
from anygrain.labels.channels import CHANNELS
from anygrain.labels.real.rating_channel import RatingChannel
from anygrain.learn import Learner


def random_log_probs(seed: int, *shape: int, sharpness: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(*shape, generator=generator, dtype=torch.double)
    return logits.log_softmax(dim=-1)


# -- expected evidence -----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 5))
def test_evidence_gain_is_mutual_information(seed: int, k: int, a: int) -> None:
    log_probs = random_log_probs(seed, 4, k)
    answer = random_log_probs(seed + 1, k, a).exp()
    found = evidence_gain(log_probs, Question("noisy", answer))
    for i in range(4):
        joint = log_probs[i].exp()[:, None] * answer
        by_hand = sum(
            float(joint[c, o] * (joint[c, o] / (joint[c].sum() * joint[:, o].sum())).log())
            for c, o in itertools.product(range(k), range(a))
        )
        assert float(found[i]) == pytest.approx(by_hand, abs=1e-9)


def test_evidence_gain_of_perfect_coarse_and_empty_answers() -> None:
    taxonomy = Taxonomy.from_dict({"x": ["a", "b"], "y": ["c"]})
    log_probs = random_log_probs(3, 6, 3)
    assert torch.allclose(evidence_gain(log_probs, Question.fine(3)), entropy(log_probs))
    coarse = evidence_gain(log_probs, Question.coarse(taxonomy, -1, cost=0.5))
    both = torch.stack([log_probs[:, :2].exp().sum(dim=1), log_probs[:, 2].exp()], dim=1).log()
    assert torch.allclose(coarse, entropy(both))
    guess = Question("guess", torch.full((3, 3), 1 / 3, dtype=torch.double))
    assert torch.allclose(evidence_gain(log_probs, guess), torch.zeros(6, dtype=torch.double), atol=1e-12)


def test_gain_about_models_is_bald() -> None:
    models = random_log_probs(5, 4, 7, 3)
    assert torch.allclose(evidence_gain(models, Question.fine(3)), bald(models))
    same = models[:1].expand(4, 7, 3)
    assert torch.allclose(bald(same), torch.zeros(7, dtype=torch.double), atol=1e-12)


def test_votes_of_better_annotators_tell_more() -> None:
    channel = CHANNELS["one_coin"](2, 3)
    posterior = torch.eye(3)[torch.arange(300) % 3]
    votes = torch.arange(300) % 3
    wrong = (votes + (torch.arange(300) % 2)) % 3  # annotator 1 is right half of the time
    from anygrain.labels.channels.channel import Records

    records = Records(torch.arange(300).repeat(2), torch.arange(2).repeat_interleave(300), torch.cat([votes, wrong]))
    channel.fit(channel.statistics(records, posterior))
    log_probs = random_log_probs(1, 20, 3)
    good, poor = (evidence_gain(log_probs, Question.vote(channel, a, 3)) for a in (0, 1))
    assert bool((good > poor).all())
    asked = choose(log_probs, 5, questions=[Question.vote(channel, 1, 3), Question.vote(channel, 0, 3)])
    assert asked.question.tolist() == [1] * 5
    dear = Question.vote(channel, 0, 3, cost=1000.0)
    assert choose(log_probs, 5, questions=[Question.vote(channel, 1, 3), dear]).question.tolist() == [0] * 5


def test_what_is_known_is_not_asked_again() -> None:
    log_probs = torch.tensor([[0.5, 0.5], [0.999, 0.001], [0.6, 0.4]], dtype=torch.double).log()
    assert choose(log_probs, 2).rows.tolist() == [0, 2]
    assert choose(log_probs, 2, may_ask=torch.tensor([False, True, True])).rows.tolist() == [2, 1]


# -- batches ---------------------------------------------------------------------------------------------------------


def test_badge_equals_k_means_plus_plus_on_the_gradients() -> None:
    log_probs, features = random_log_probs(7, 40, 4), torch.randn(40, 5, dtype=torch.double)
    residual = log_probs.exp() - torch.nn.functional.one_hot(log_probs.argmax(dim=1), 4)
    gradient = (residual[:, :, None] * features[:, None, :]).reshape(40, 20)
    found = badge(log_probs, features, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    chosen = [int(gradient.norm(dim=1).argmax())]
    while len(chosen) < 8:
        nearest = torch.cdist(gradient, gradient[chosen]).square().amin(dim=1)
        total = nearest.cumsum(dim=0)
        at = torch.rand((), generator=generator, dtype=torch.double) * total[-1]
        chosen.append(int(torch.searchsorted(total, at, right=True)))
    assert found.tolist() == chosen


def test_k_center_is_within_twice_the_best_radius() -> None:
    features = torch.randn(12, 2, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    found = k_center(features, 3, known=torch.tensor([0]))
    assert 0 not in found.tolist()

    def radius(rows: list[int]) -> float:
        return float(torch.cdist(features, features[rows]).amin(dim=1).max())

    best = min(radius([0, *rows]) for rows in itertools.combinations(range(1, 12), 3))
    assert radius([0, *found.tolist()]) <= 2 * best + 1e-12


def test_spread_avoids_copies() -> None:
    features = torch.cat([torch.zeros(50, 2), torch.eye(2).repeat(25, 1) * torch.arange(1, 51)[:, None]])
    score = torch.cat([torch.full((50,), 2.0), torch.full((50,), 1.0)])
    found = spread(score, features, 4, pool=25, generator=torch.Generator().manual_seed(0))
    assert len(set(found.tolist())) == 4
    assert int((found < 50).sum()) == 1
    copies = spread(torch.ones(6), torch.zeros(6, 2), 6, generator=torch.Generator().manual_seed(0))
    assert sorted(copies.tolist()) == list(range(6))


# -- a fallible teacher ----------------------------------------------------------------------------------------------


def game(gain: np.ndarray, wrong: int, cap: float = 1.0) -> float:
    """Value of the game by its linear program."""
    n = len(gain)
    worth = np.concatenate([-gain, np.full(n, 2.0), [2.0 * wrong]])
    above = np.hstack([np.diag(gain), -np.eye(n), -np.ones((n, 1))])
    sums = np.concatenate([np.ones(n), np.zeros(n + 1)])[None]
    bounds = [(0, cap)] * n + [(0, None)] * (n + 1)
    return -float(linprog(worth, A_ub=above, b_ub=np.zeros(n), A_eq=sums, b_eq=[1.0], bounds=bounds).fun)


def worst(gain: torch.Tensor, p: torch.Tensor, wrong: int) -> float:
    worth = p * gain.double()
    return min(
        float(worth.sum() - 2 * sum(worth[i] for i in marked))
        for marked in itertools.combinations(range(len(gain)), wrong)
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(6, 12), st.integers(0, 2))
def test_closed_form_solves_the_game(seed: int, n: int, wrong: int) -> None:
    gain = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.double).clamp(min=0.01)
    p, value = robust_distribution(gain, wrong)
    assert float(p.sum()) == pytest.approx(1)
    assert value == pytest.approx(game(gain.numpy(), wrong), abs=1e-6)
    assert worst(gain, p, wrong) == pytest.approx(value, abs=1e-9)
    assert torch.allclose(robust_distribution(gain * 0.5, wrong)[0], p)
    q = robust_inclusion(gain, wrong, 4)
    assert float(q.sum()) == pytest.approx(4)
    assert float(q.max()) <= 1 + 1e-9
    assert worst(gain, q / 4, wrong) == pytest.approx(game(gain.numpy(), wrong, cap=1 / 4), abs=1e-6)


def test_without_wrong_answers_the_most_informative_rows_are_sent() -> None:
    gain = torch.tensor([0.2, 0.9, 0.5, 0.8, 0.1])
    assert torch.allclose(robust_inclusion(gain, 0, 2), torch.tensor([0, 1.0, 0, 1, 0], dtype=torch.double))


def test_a_teacher_worse_than_a_coin_is_asked_at_random() -> None:
    with pytest.warns(UserWarning, match="at random"):
        p, _ = robust_distribution(torch.rand(6).clamp(min=0.1), 3)
    assert torch.allclose(p, torch.full((6,), 1 / 6, dtype=torch.double))


def test_systematic_sampling_keeps_chances_and_size() -> None:
    q = torch.tensor([0.9, 0.1, 0.5, 0.5, 0.7, 0.3, 1.0], dtype=torch.double)
    generator = torch.Generator().manual_seed(0)
    draws = 20_000
    count = torch.zeros(7)
    for _ in range(draws):
        rows = systematic_sample(q, generator=generator)
        assert len(rows.unique()) == 4
        count[rows] += 1
    error = (count / draws - q).abs()
    assert bool((error <= 4 * (q * (1 - q) / draws).sqrt() + 1e-12).all())


# -- new classes -----------------------------------------------------------------------------------------------------


def test_novel_queries_are_spread_over_new_classes() -> None:
    log_probs = random_log_probs(11, 400, 6)
    novel = torch.tensor([False, False, True, True, True, False])
    predicted, unsure = log_probs.argmax(dim=1), margin(log_probs)
    for t, wanted in ((0, 1 - unsure), (1, unsure), (5, unsure)):
        rows = novel_queries(log_probs, novel, 9, round=t)
        assert len(rows.unique()) == 9
        assert torch.bincount(predicted[rows], minlength=6).tolist() == [0, 0, 3, 3, 3, 0]
        for c in (2, 3, 4):
            of_class = (predicted == c).nonzero()[:, 0]
            best = of_class[wanted[of_class].topk(3).indices]
            assert set(best.tolist()) == set(rows[predicted[rows] == c].tolist())


def test_novel_queries_fill_up() -> None:
    log_probs = torch.tensor([[0.9, 0.05, 0.05], [0.6, 0.4, 0], [0.1, 0.8, 0.1], [0.45, 0.55, 0]]).clamp(min=1e-6).log()
    novel = torch.tensor([False, True, True])
    assert novel_queries(log_probs, novel, 3, round=0).tolist() == [2, 3, 1]  # two predicted new, then the unsurest
    assert novel_queries(log_probs, novel, 1, round=0).tolist() == [2]
    with pytest.raises(LabelError, match="no class is new"):
        novel_queries(log_probs, torch.zeros(3, dtype=torch.bool), 1, round=0)


def test_label_map_of_a_renamed_perfect_classifier() -> None:
    renamed = torch.tensor([3, 0, 2, 1])
    true = torch.arange(4).repeat(5)
    found = label_map(renamed[true], true, 4)
    assert found.tolist() == renamed.tolist()
    few = label_map(renamed[true][:1], true[:1], 4, previous=renamed)
    assert few.tolist() == renamed.tolist()  # no more agreement than before: nothing moves


def test_novelty_counts_new_classes() -> None:
    novel = torch.tensor([False, True, True])
    assert novelty(torch.tensor([1, 2, 1, 2]), novel) == {
        "coverage": 1.0,
        "ratio": 1.0,
        "uniformity": pytest.approx(math.log(2)),
    }
    assert novelty(torch.tensor([0, 1, 1]), novel) == {
        "coverage": 0.5,
        "ratio": pytest.approx(2 / 3),
        "uniformity": 0.0,
    }


def tree_distances(parents: list[int]) -> torch.Tensor:
    n = len(parents)
    d = torch.full((n, n), 1000)
    d.fill_diagonal_(0)
    for child, parent in enumerate(parents):
        if parent >= 0:
            d[child, parent] = d[parent, child] = 1
    for middle in range(n):
        d = torch.minimum(d, d[:, middle, None] + d[None, middle])
    return d


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 9), st.integers(1, 4))
def test_locus_of_a_tree_is_what_weights_reach(seed: int, n: int, m: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parents = [-1] + [int(torch.randint(i, (), generator=generator)) for i in range(1, n)]
    known = torch.randperm(n, generator=generator)[:m]
    d = tree_distances(parents).double()
    weights = torch.empty(4000, len(known), dtype=torch.double).exponential_(0.3, generator=generator) ** 3
    reached = ((weights / weights.sum(dim=1, keepdim=True)) @ d[known].square()).argmin(dim=1).unique()
    inside = tree_locus(parents, known.tolist())
    assert bool(inside[reached].all())
    on_a_path = (d[known][:, None, :] + d[known][None, :, :] == d[known][:, known][:, :, None]).any(dim=0).any(dim=0)
    assert torch.equal(inside, on_a_path)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 9))
def test_next_class_is_the_farthest_from_the_locus(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parents = [-1] + [int(torch.randint(i, (), generator=generator)) for i in range(1, n)]
    known = [int(torch.randint(n, (), generator=generator))]
    for found in next_classes(parents, known, n):
        far = tree_distances(parents)[:, tree_locus(parents, known)].amin(dim=1)
        assert int(far[found]) == int(far.max()) > 0
        known.append(found)
    assert bool(tree_locus(parents, known).all())
    with pytest.raises(LabelError, match="cycle"):
        next_classes([-1, 2, 1], [0], 1)


# -- the front -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"by": "entropi"}, "is not known"),
        ({"by": "bald"}, "needs models"),
        ({"by": "badge"}, "needs features"),
        ({"n": 99}, "may be asked about"),
        ({"may_ask": [True]}, "expected \\(6,\\)"),
        ({"questions": [Question.fine(5)]}, "about 5 classes"),
    ],
)
def test_bad_requests_are_refused(how: dict[str, object], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        choose(random_log_probs(0, 6, 3), **{"n": 2, **how})  # type: ignore[arg-type]


def test_every_strategy_gives_rows_that_may_be_asked() -> None:
    log_probs, features, models = random_log_probs(0, 60, 4), torch.randn(60, 3), random_log_probs(1, 5, 60, 4)
    free = torch.arange(60) % 3 != 0
    for by in (
        "evidence_gain",
        "margin",
        "entropy",
        "least_confidence",
        "bald",
        "badge",
        "k_center",
        "novel",
        "random",
    ):
        how = {"features": features, "models": models, "novel": torch.tensor([False, True, True, False])}
        asked = choose(log_probs, 10, by=by, may_ask=free, seed=3, **how)  # type: ignore[arg-type]
        again = choose(log_probs, 10, by=by, may_ask=free, seed=3, **how)  # type: ignore[arg-type]
        assert len(asked.rows.unique()) == 10
        assert bool(free[asked.rows].all())
        assert torch.equal(asked.rows, again.rows)
        assert torch.equal(asked.proposed, log_probs[asked.rows].argmax(dim=1))
        assert list(asked.to_pandas().columns[:3]) == ["row", "question", "cost"]
    asked = choose(log_probs, 10, by="distillation", teacher_error=0.2, may_ask=free)
    assert len(asked.rows.unique()) == 10
    assert bool(free[asked.rows].all())


def test_head_ensemble_disagrees_where_nothing_was_labelled() -> None:
    generator = torch.Generator().manual_seed(0)
    centre = torch.tensor([[4.0, 0.0], [-4.0, 0.0]])
    y = torch.arange(80) % 2
    x = (centre[y] + torch.randn(80, 2, generator=generator)).numpy()
    given = torch.where(torch.arange(80) < 20, y, -1)
    learner = Learner(seed=0).fit(x, Exact(given, 2))
    between = np.array([[0.0, 6.0], [0.0, -6.0]], dtype=np.float32)
    models = head_ensemble(learner, x, Exact(given, 2), np.concatenate([x[:20], between]), members=6)
    assert models.shape == (6, 22, 2)
    disagreement = bald(models)
    assert float(disagreement[20:].min()) > 5 * float(disagreement[:20].mean())
    with pytest.raises(LabelError, match="the labels are of 80"):
        head_ensemble(learner, x[:5], Exact(given, 2), x)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_reduction_of_variance_is_the_posterior_of_two_gaussians() -> None:
    variance, question = torch.tensor([0.5, 2.0], dtype=torch.double), NumberQuestion(noise=0.7)
    posterior = 1 / (1 / variance + 1 / 0.49)
    torch.testing.assert_close(variance_reduction(variance, question), variance - posterior)
    torch.testing.assert_close(variance_reduction(variance, NumberQuestion()), variance)


def test_model_variance_is_that_of_refitted_linear_models() -> None:
    """Every choice, and its gain, against the covariance of the weights computed anew."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(12, 3, generator=generator, dtype=torch.double)
    v = torch.rand(12, generator=generator, dtype=torch.double) + 0.2
    noise, cost = torch.rand(12, generator=generator).double(), torch.rand(12, generator=generator).double() + 0.5
    known = torch.tensor([0, 5])
    pool = torch.tensor([i for i in range(12) if i not in (0, 5, 7)])
    rows, gains = model_variance_reduction(v, h, 4, noise=noise, cost=cost, pool=pool, known=known, penalty=0.3)
    with_constant = torch.cat([h, torch.ones(12, 1, dtype=torch.double)], dim=1)

    def total(told: list[int]) -> float:
        precision = 0.3 / v.mean() * torch.eye(4, dtype=torch.double)
        for i in told:
            precision = precision + torch.outer(with_constant[i], with_constant[i]) / (v[i] + noise[i] ** 2)
        return float(torch.trace(with_constant @ torch.linalg.inv(precision) @ with_constant.T))

    told = known.tolist()
    for row, gain in zip(rows.tolist(), gains.tolist(), strict=True):
        left = {i: (total(told) - total([*told, i])) / float(cost[i]) for i in pool.tolist() if i not in told}
        assert row == max(left, key=lambda i: left[i])
        assert gain == pytest.approx(left[row], rel=1e-8)
        told.append(row)


def test_numbers_second_ratings_and_who() -> None:
    mean, variance = torch.zeros(3), torch.tensor([0.1, 1.0, 4.0])
    sharp, blunt = NumberQuestion("sharp", 0.1, cost=5.0), NumberQuestion("blunt", 1.0, cost=1.0)
    found = choose_numbers(mean, variance, 3, questions=[sharp, blunt])
    assert found.rows.tolist() == [2, 1, 0]
    gains = torch.stack([variance_reduction(variance.double(), q) / q.cost for q in (sharp, blunt)], dim=1)
    assert found.question.tolist() == gains.argmax(dim=1)[[2, 1, 0]].tolist() == [1, 1, 0]
    rated = torch.tensor([[True, True], [True, True], [True, False]])  # blunt has rated row 2 already
    assert choose_numbers(mean, variance, 1, questions=[sharp, blunt], may_ask=rated).question.tolist() == [0]
    channel = RatingChannel(2, scale=1.0, centre=0.0)
    assert NumberQuestion.rating(channel, 0).noise == pytest.approx(float(channel.reading(torch.tensor([0]))[2].sqrt()))


@pytest.mark.parametrize("by", list(NUMBER_STRATEGIES))
def test_number_strategies_choose_different_rows_that_may_be_asked(by: str) -> None:
    generator = torch.Generator().manual_seed(1)
    features, free = torch.randn(40, 5, generator=generator), torch.arange(40) % 2 == 0
    found = choose_numbers(
        torch.zeros(40), torch.rand(40, generator=generator), 8, by=by, may_ask=free, features=features
    )
    assert len(set(found.rows.tolist())) == 8
    assert bool(free[found.rows].all())
    assert len(found.to_pandas()) == 8


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: choose_numbers(torch.zeros(3), torch.ones(3), 1, by="margin"), "expected one of variance"),
        (lambda: choose_numbers(torch.zeros(3), -torch.ones(3), 1), "variance is negative"),
        (lambda: choose_numbers(torch.zeros(3), torch.ones(3), 4), "4 rows were asked for"),
        (lambda: choose_numbers(torch.zeros(3), torch.ones(3), 1, by="badge"), "needs features"),
        (lambda: NumberQuestion("x", cost=0.0), "costs 0.0"),
        (lambda: choose_tags(torch.full((2, 2), 1.5), 1), "from 0 to 1"),
        (lambda: choose_tags(torch.full((2, 2), 0.5), 1, by="margin"), "expected one of evidence_gain"),
        (
            lambda: choose_tags(torch.full((2, 2), 0.5), 1, by="k_center", single=True, features=torch.eye(2)),
            "expected single=False",
        ),
    ],
)
def test_bad_questions_about_numbers_and_tags(call: Callable[[], object], said: str) -> None:
    with pytest.raises(LabelError, match=said):
        call()


# -- tags --------------------------------------------------------------------------------------------------------------


def test_evidence_of_a_row_is_the_entropy_of_its_unknown_tags() -> None:
    on = torch.tensor([[0.5, 0.9, 0.2], [0.5, 0.5, 0.5], [0.01, 0.02, 0.5]], dtype=torch.double)
    unknown = torch.tensor([[True, True, True], [False, True, False], [True, True, True]])
    entropy_of = -(on * on.log() + (1 - on) * (1 - on).log())
    found = choose_tags(on, 3, unknown=unknown)
    expected = (entropy_of * unknown).sum(dim=1)
    assert found.rows.tolist() == expected.argsort(descending=True).tolist()
    torch.testing.assert_close(found.gain, expected[found.rows], atol=1e-9, rtol=0)
    assert found.tag.tolist() == [-1, -1, -1]


def test_single_tags_are_asked_by_their_own_entropy_and_votes_tell_less() -> None:
    on = torch.tensor([[0.5, 0.9], [0.3, 0.45]], dtype=torch.double)
    found = choose_tags(on, 3, single=True)
    assert list(zip(found.rows.tolist(), found.tag.tolist(), strict=True)) == [(0, 0), (1, 1), (1, 0)]
    vote = Question("a vote", torch.tensor([[0.8, 0.2], [0.2, 0.8]], dtype=torch.double), cost=0.5)
    asked = choose_tags(on, 1, single=True, questions=[Question.fine(2), vote])
    log = torch.tensor([[0.5, 0.5]], dtype=torch.double).log()
    gains = [float(evidence_gain(log, q)) / q.cost for q in (Question.fine(2), vote)]
    assert int(asked.question) == int(np.argmax(gains))


@pytest.mark.parametrize("by", list(TAG_STRATEGIES))
@pytest.mark.parametrize("single", [False, True])
def test_tag_strategies_choose_different_unknown_entries(by: str, single: bool) -> None:
    if by == "k_center" and single:
        return
    generator = torch.Generator().manual_seed(2)
    on, features = torch.rand(30, 4, generator=generator), torch.randn(30, 6, generator=generator)
    unknown = torch.rand(30, 4, generator=generator) < 0.5
    found = choose_tags(on, 9, by=by, single=single, unknown=unknown, features=features)
    pairs = list(zip(found.rows.tolist(), found.tag.tolist(), strict=True))
    assert len(set(pairs)) == 9
    if single:
        assert all(bool(unknown[row, tag]) for row, tag in pairs)
    else:
        assert bool(unknown[found.rows].any(dim=1).all())


def test_near_copies_are_not_asked_about_together_unless_for_other_tags() -> None:
    on = torch.full((6, 2), 0.5, dtype=torch.double)
    features = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3)
    found = choose_tags(on, 4, single=True, features=features)
    kinds = {(row // 3, tag) for row, tag in zip(found.rows.tolist(), found.tag.tolist(), strict=True)}
    assert len(kinds) == 4


# -- whom and what of each row -----------------------------------------------------------------------------------------


def test_what_may_be_asked_can_differ_by_row() -> None:
    log_probs = torch.tensor([[0.5, 0.5], [0.6, 0.4]], dtype=torch.double).log()
    good = Question("good", torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.double))
    poor = Question("poor", torch.tensor([[0.6, 0.4], [0.4, 0.6]], dtype=torch.double))
    may_ask = torch.tensor([[False, True], [False, False]])
    found = choose(log_probs, 1, questions=[good, poor], may_ask=may_ask)
    assert (found.rows.tolist(), found.question.tolist()) == ([0], [1])
    with pytest.raises(LabelError, match="1 may be asked about"):
        choose(log_probs, 2, questions=[good, poor], may_ask=may_ask)
