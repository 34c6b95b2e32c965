"""Soft labels of crowds: identities of every method, and what pooling keeps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.audit.of_votes import METHODS, soft_labels, vote_counts
from anygrain.audit.pooling import POOLS, agreeing_temperatures, js_centroid, js_divergence, tempered
from anygrain.labels import Crowd, LabelError


def crowd(seed: int = 0, n: int = 60, w: int = 8, k: int = 3, per_item: int = 5, right: float = 0.7) -> Crowd:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(k, (n,), generator=generator)
    who = torch.stack([torch.randperm(w, generator=generator)[:per_item] for _ in range(n)]).flatten()
    item = torch.arange(n).repeat_interleave(per_item)
    said = torch.randint(k, item.shape, generator=generator)
    said = torch.where(torch.rand(item.shape, generator=generator) < right, truth[item], said)
    return Crowd(item, who, said, k, n, n_annotators=w)


def tables(seed: int, m: int, n: int, k: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(m, n, k, generator=generator, dtype=torch.double)).softmax(dim=2)


@pytest.mark.parametrize("method", METHODS)
def test_classes_may_be_named_in_any_order(method: str) -> None:
    votes, order = crowd(), torch.tensor([2, 0, 1])
    renamed = Crowd(votes.items, votes.annotators, order[votes.votes], 3, 60, n_annotators=8)
    assert torch.allclose(METHODS[method](renamed)[:, order], METHODS[method](votes), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_rows_are_distributions_that_follow_unanimous_votes(method: str) -> None:
    votes = crowd(seed=1)
    found = METHODS[method](votes)
    assert torch.allclose(found.sum(dim=1), torch.ones(60, dtype=found.dtype), atol=1e-6)
    counts = vote_counts(votes)
    agreed = counts.amax(dim=1) == 5
    assert bool(agreed.any())
    assert torch.equal(found[agreed].argmax(dim=1), counts[agreed].argmax(dim=1))


@pytest.mark.parametrize("method", ["standard", "wawa", "zero_based_skill"])
def test_one_annotator_alone_is_believed(method: str) -> None:
    votes = Crowd(torch.arange(6), torch.zeros(6, dtype=torch.long), torch.tensor([0, 1, 2, 0, 1, 2]), 3)
    assert torch.equal(METHODS[method](votes), torch.eye(3, dtype=torch.double)[votes.votes])
    counted = METHODS["softmax"](votes)
    assert torch.allclose(counted.amax(dim=1), torch.tensor(torch.e / (torch.e + 2), dtype=torch.double))


def test_better_annotators_weigh_more() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.randint(2, (400,), generator=generator)
    item, who = torch.arange(400).repeat(5), torch.arange(5).repeat_interleave(400)
    chance = torch.tensor([0.95, 0.9, 0.85, 0.5, 0.5])[who]
    right = torch.rand(2000, generator=generator) < chance
    votes = Crowd(item, who, torch.where(right, truth[item], 1 - truth[item]), 2)

    def of_truth(method: str) -> float:
        return float(METHODS[method](votes).double().gather(1, truth[:, None]).mean())

    for method in ("dawid_skene", "mace", "zero_based_skill", "wawa"):
        assert of_truth(method) > of_truth("standard") + 0.01, method


@pytest.mark.filterwarnings("ignore")
def test_items_without_votes_stay_open() -> None:
    votes = Crowd(torch.tensor([0, 0, 2]), torch.tensor([0, 1, 0]), torch.tensor([1, 1, -1]), 2, 4)
    pooled, each = soft_labels(votes)
    assert pooled[1:].isnan().all()
    assert all(table[1:].isnan().all() for table in each.values())
    assert float(pooled[0, 1]) > 0.5
    assert list(each) == list(METHODS)


@pytest.mark.parametrize("pool", POOLS)
def test_one_method_alone_is_its_own_pool(pool: str) -> None:
    table = tables(0, 1, 7, 4)
    if pool == "tempered_mean":  # one table has nothing to agree with: only the penalty speaks, for T towards 0
        return
    assert torch.allclose(POOLS[pool](table), table[0], atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 4), st.integers(2, 4))
def test_js_centroid_minimises_the_mean_divergence(seed: int, m: int, k: int) -> None:
    given_tables = tables(seed, m, 1, k)
    centre = js_centroid(given_tables)
    least = js_divergence(centre.expand(m, 1, k), given_tables).mean()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(50):
        step = 0.05 * torch.randn(1, k, generator=generator, dtype=torch.double)
        other = (centre.log() + step).softmax(dim=1)
        assert float(js_divergence(other.expand(m, 1, k), given_tables).mean()) >= float(least) - 1e-12


def test_pools_of_equal_tables_are_that_table() -> None:
    one = tables(4, 1, 5, 3)
    for name in ("mean", "js_centroid"):
        assert torch.allclose(POOLS[name](one.expand(3, 5, 3)), one[0], atol=1e-9)
    certain = torch.eye(3, dtype=torch.double)[None]
    assert torch.allclose(POOLS["product"](certain.expand(3, 3, 3)), certain[0], atol=1e-9)


def test_divergence_has_its_limits() -> None:
    eye = torch.eye(2, dtype=torch.double)
    assert float(js_divergence(eye[0], eye[0])) == 0
    assert float(js_divergence(eye[0], eye[1])) == pytest.approx(0.6931471805599453)


def test_temperatures_bring_methods_together() -> None:
    flat = tables(5, 1, 200, 3)
    other = (flat.log() + tables(6, 1, 200, 3)).softmax(dim=2)  # another opinion, and a far surer one
    both = torch.cat([flat, tempered(other, torch.tensor([0.2], dtype=torch.double))])
    found = agreeing_temperatures(both)
    assert float(found[0]) < float(found[1])
    before, after = js_divergence(both[0], both[1]).mean(), js_divergence(*tempered(both, found)).mean()
    assert float(after) < float(before)


def test_temperatures_of_certain_tables_are_finite() -> None:
    certain = torch.eye(3, dtype=torch.double)[torch.arange(60) % 3]
    soft = tables(7, 1, 60, 3)[0]
    found = agreeing_temperatures(torch.stack([certain, soft, certain.roll(1, dims=0)]))
    assert bool(torch.isfinite(found).all())
    assert bool((found > 0).all())


def test_bad_requests() -> None:
    with pytest.raises(LabelError, match='method "ds" is not known'):
        soft_labels(crowd(), ["ds"])
    with pytest.raises(LabelError, match='pool "median" is not known'):
        soft_labels(crowd(), pool="median")
    with pytest.raises(LabelError, match="methods is empty"):
        soft_labels(crowd(), [])
