"""PU-MLC and COMIC: their losses by loops, their identities, and that they learn tags from marks alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from anygrain.labels import LabelError, Tags
from anygrain.learn import Learner
from anygrain.robust import COMIC, PUMLC, method
from anygrain.robust.comic import (
    CosineTags,
    attention,
    co_occurrence,
    correction_loss,
    focal_terms,
    leaning,
    modifier_loss,
    recalled,
    sampled,
    tag_weight,
)
from anygrain.robust.pu_mlc import adaptive_temperature, mixed_consistency, variational_pu

CASES = settings(max_examples=30, deadline=None)


def drawn(seed, n=7, tags=3):
    generator = torch.Generator().manual_seed(seed)
    odds = torch.randn(n, tags, generator=generator, dtype=torch.float64)
    on = torch.rand(n, tags, generator=generator) < 0.3
    return odds, on


def sigma(z):
    return 1 / (1 + math.exp(-z))


class TestPUMLC:
    @given(seed=st.integers(0, 10_000), gamma=st.sampled_from([0.0, 0.55]), scale=st.sampled_from([1.0, 0.3]))
    @CASES
    def test_the_variational_loss_by_a_loop(self, seed, gamma, scale):
        odds, on = drawn(seed)
        total = 0.0
        for c in range(3):
            phi = [sigma(float(z) / scale) for z in odds[:, c]]
            mean = sum(phi) / len(phi)
            total += mean**gamma * math.log(mean + 1e-10)
            known = [math.log(p) for p, there in zip(phi, on[:, c].tolist(), strict=True) if there]
            total -= sum(known) / len(known) if known else 0.0
        found = variational_pu(odds, on, temperature=scale, gamma=gamma)
        assert float(found) == pytest.approx(total, abs=1e-9)

    def test_a_constant_model(self):
        odds = torch.full((6, 2), 0.4, dtype=torch.float64)
        on = torch.zeros(6, 2, dtype=torch.bool)
        on[0] = True
        phi = sigma(0.4)
        assert float(variational_pu(odds, on, gamma=0.0)) == pytest.approx(0.0, abs=1e-8)
        expected = 2 * (phi**0.55 - 1) * math.log(phi)
        assert float(variational_pu(odds, on, gamma=0.55)) == pytest.approx(expected, abs=1e-8)

    def test_it_is_smallest_where_phi_is_proportional_to_the_truth(self):
        """phi(x) proportional to p(on | x), on a grid of three kinds of row, positives drawn in proportion."""
        truth = torch.tensor([0.8, 0.4, 0.2], dtype=torch.float64)
        odds = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([odds], max_iter=300, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            share = truth / truth.sum()  # of positives among the kinds of row, each a third of all
            value = logsigmoid(odds).exp().mean().log() - (share * logsigmoid(odds)).sum()
            value.backward()
            return value

        optimizer.step(closure)
        phi = odds.detach().sigmoid()
        torch.testing.assert_close(phi / phi[0], truth / truth[0], atol=1e-4, rtol=1e-4)

    def test_temperature_and_balance_have_no_gradient(self):
        odds, on = drawn(3)
        odds = odds.requires_grad_(True)
        temperature = adaptive_temperature(odds, 1.0)
        assert not temperature.requires_grad
        torch.testing.assert_close(temperature, odds.detach().std(dim=0, correction=0).clamp(0.05, 1.0))
        (slope,) = torch.autograd.grad(variational_pu(odds, on, temperature=temperature, gamma=0.5), odds)
        fixed = (odds.detach() / temperature).sigmoid().mean(dim=0) ** 0.5
        again = odds.detach().requires_grad_(True)
        scaled = again / temperature
        known = on.sum(dim=0).clamp(min=1)
        value = (fixed * scaled.sigmoid().mean(dim=0).log() - (logsigmoid(scaled) * on).sum(dim=0) / known).sum()
        torch.testing.assert_close(slope, torch.autograd.grad(value, again)[0])
        assert float(adaptive_temperature(torch.ones(5, 2), 1.0).min()) == pytest.approx(0.05)

    def test_the_mixture_is_consistent_with_itself(self):
        odds, on = drawn(4)
        nothing = torch.zeros_like(on)
        assert float(mixed_consistency(odds, nothing, odds, 1.0, torch.arange(7))) == pytest.approx(0, abs=1e-16)
        partner, share = torch.tensor([1, 2, 3, 4, 5, 6, 0]), 0.3
        mixed = odds.flip(0)
        total = 0.0
        for c in range(3):
            for i in range(7):
                q = [1.0 if on[j, c] else sigma(float(odds[j, c])) for j in (i, int(partner[i]))]
                target = share * q[0] + (1 - share) * q[1]
                total += (math.log(target + 1e-10) - math.log(sigma(float(mixed[i, c])))) ** 2 / 7
        assert float(mixed_consistency(odds, on, mixed, share, partner)) == pytest.approx(total)


class TestCOMIC:
    def test_without_its_parts_it_is_summed_cross_entropy(self):
        odds, on = drawn(1)
        ones, none = torch.ones(3, dtype=torch.float64), torch.zeros_like(odds)
        found = modifier_loss(odds, on, ones, none, clip=0.0, focus=0.0)
        expected = binary_cross_entropy_with_logits(odds, on.double(), reduction="sum")
        assert float(found) == pytest.approx(float(expected), abs=1e-9)

    @given(seed=st.integers(0, 10_000))
    @CASES
    def test_both_losses_by_loops(self, seed):
        odds, on = drawn(seed)
        on[0] = True
        weight = tag_weight(torch.tensor([9.0, 3.0, 1.0], dtype=torch.float64), 1 / 6)
        beside = attention(on, co_occurrence(on).double())
        more = recalled(odds, on, 0.6)
        modified, corrected = 0.0, 0.0
        for i in range(7):
            for c in range(3):
                w, a = float(weight[c]), float(beside[i, c])
                pi = sigma(float(odds[i, c]))
                m = min(1.0, 1 - pi + 0.05)
                m = min(1.0, 1.2 * m) if a > 0 else m
                modified += -w * (math.log(pi * (1 - a)) if on[i, c] else (1 - m) ** (3 + w) * math.log(m))
                pi = sigma(float(odds[i, c]) - float(on[i, c]))
                m = min(1.0, 1 - pi + 0.05)
                corrected += -w * (math.log(pi) if more[i, c] else (1 - m) ** (3 + w) * math.log(m))
        if not bool((beside == 1).any()):
            assert float(modifier_loss(odds, on, weight, beside)) == pytest.approx(modified, abs=1e-8)
        scale = 7 / max(int(more.sum()), 1)
        assert float(correction_loss(odds, more, on, weight)) == pytest.approx(corrected * scale, abs=1e-8)

    def test_recall_adds_and_never_takes_away(self):
        odds, on = drawn(2)
        assert torch.equal(recalled(odds, on, 1.0), on)
        more = recalled(3 * odds, on, 0.7)
        assert bool((more | ~on).all())
        probability = (3 * odds - on.double()).sigmoid()
        for i, c in (more & ~on).nonzero().tolist():
            assert float(probability[i, c]) > max(0.7, float(probability[:, c].mean()))
        assert int((more & ~on).sum()) > 0

    def test_weights_attention_and_focus(self):
        weight = tag_weight(torch.tensor([100.0, 10.0, 0.0]), 1 / 3)
        assert float(weight[0]) == 1
        assert float(weight[1]) == pytest.approx((1 + math.log(10)) ** (1 / 3))
        assert float(weight[2]) == pytest.approx((1 + math.log(100)) ** (1 / 3))  # a floor of one row
        on = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
        beside = attention(on, co_occurrence(on))
        assert beside[:2].sum(dim=1).tolist() == pytest.approx([1, 1])
        assert not beside[2].any()
        p = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
        value = focal_terms(p, 1 - p, torch.tensor([[False]]), torch.ones(1, dtype=torch.float64), 0.0, 4.0).sum()
        (slope,) = torch.autograd.grad(value, p)
        assert float(slope) == pytest.approx(0.3**4 / 0.7)  # none through the factor

    def test_leaning_views_keep_what_is_across_the_mean(self):
        features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
        centre = torch.randn(4, generator=torch.Generator().manual_seed(1))
        head, tail = leaning(features, centre)
        unit = centre / centre.norm()
        torch.testing.assert_close(head @ unit, torch.zeros(5), atol=1e-5, rtol=0)
        torch.testing.assert_close(tail @ unit, 3 * (features @ unit), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(head, features - (features @ unit)[:, None] * unit, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def rows():
    """Four tags of linear rules, of which a third of the marks are kept and no negative."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 6, generator=generator)
    truth = ((x @ torch.randn(6, 4, generator=generator)) > 1.0).long()
    kept = torch.where((truth == 1) & (torch.rand(600, 4, generator=generator) < 0.3), 1, -1)
    return x.numpy(), truth.numpy(), kept


@pytest.mark.parametrize("name", ["pu_mlc", "comic"])
def test_tags_are_learnt_from_positives_alone(rows, name):
    x, truth, kept = rows
    model = Learner(**method(name), seed=0, epochs=15).fit(x, Tags(kept))
    found = average_precision_score(truth, model.predict_proba(x), average="macro")
    assert found > 0.9
    again = Learner(**method(name), seed=0, epochs=15).fit(x, Tags(kept))
    np.testing.assert_array_equal(model.predict_proba(x), again.predict_proba(x))


def test_marks_that_are_recalled_are_counted(rows):
    x, _, kept = rows
    term = COMIC(threshold=0.5)
    learner = Learner(**{**method("comic"), "terms": [term]}, seed=0, epochs=15).fit(x, Tags(kept))
    assert learner.space_ == "tags"
    assert 0 < term.recalled_ <= int((kept < 1).sum())


@pytest.mark.parametrize("term", [PUMLC(), COMIC()], ids=["PUMLC", "COMIC"])
def test_labels_of_classes_are_refused(rows, term):
    x, truth, _ = rows
    with pytest.raises(LabelError, match="is for Tags: what is known of the tags of each row"):
        Learner(terms=[term]).fit(x, truth[:, 0])


class TestStreams:
    def test_what_rows_count(self):
        on = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]]).bool()
        counts = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
        assert torch.equal(sampled(on, counts, 0.0), torch.ones(4, dtype=torch.float64))
        by_hand = torch.tensor([1 / 4, (1 / 4 + 1 / 2) / 2, 1.0], dtype=torch.float64)
        assert torch.allclose(sampled(on, counts, 1.0)[:3], by_hand / by_hand.mean())
        assert float(sampled(on, counts, 2.0)[3]) == 1
        assert torch.equal(sampled(on[3:], counts, 1.0), torch.ones(1, dtype=torch.float64))

    def test_with_even_rows_the_losses_are_what_they_were(self):
        odds, on = drawn(3)
        weight, even = torch.tensor([1.0, 1.2, 1.5], dtype=torch.float64), torch.ones(7, dtype=torch.float64)
        beside = attention(on, co_occurrence(on).double())
        assert torch.equal(modifier_loss(odds, on, weight, beside), modifier_loss(odds, on, weight, beside, rows=even))
        assert torch.equal(correction_loss(odds, on, on, weight), correction_loss(odds, on, on, weight, rows=even))
        part = sum(modifier_loss(odds[i : i + 1], on[i : i + 1], weight, beside[i : i + 1]) * (i + 1) for i in range(7))
        assert torch.allclose(modifier_loss(odds, on, weight, beside, rows=even.cumsum(0)), part)

    def test_the_cosine_head_does_not_see_the_length_of_features(self):
        head = CosineTags(5, 3, torch.Generator().manual_seed(0))
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(head(x), head(7 * x), atol=1e-5)
        assert float(head(x).detach().abs().max()) <= 16


def test_what_is_held_out_of_tags_is_of_the_method_and_has_not_seen_the_row():
    """Marks of a row that are turned round move what is held out of the row itself only through others."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(120, 6))
    on = (x[:, :3] + 0.5 * generator.normal(size=(120, 3)) > 0).astype(int)
    turned = on.copy()
    turned[0] = 1 - turned[0]
    models = [
        Learner(**method("gce"), seed=0, epochs=10).fit(x, Tags(torch.from_numpy(table))) for table in (on, turned)
    ]
    recipe = Learner(seed=0).fit(x, Tags(torch.from_numpy(on)))
    said = [model.held_out_log_probs_.reshape(120, 3, 2)[0, :, 1] for model in models]
    assert np.abs(said[0] - said[1]).max() < 0.1
    fitted = [np.log(model.predict_proba(x)[0]) for model in models]
    assert np.abs(fitted[0] - fitted[1]).max() > 0.1
    assert models[0].own_held_out_
    assert not np.allclose(models[0].held_out_log_probs_, recipe.held_out_log_probs_, atol=0.01)


def test_terms_of_marks_alone_start_where_unmarked_tags_are_off():
    """With no epoch of the term, the model is that of tags that are off where they are not marked."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(120, 6))
    on = (x[:, :3] > 0.5).astype(int)
    marks = np.where((on == 1) & (generator.random(on.shape) < 0.5), 1, -1)
    started = Learner(**method("pu_mlc"), seed=0, epochs=0).fit(x, Tags(torch.from_numpy(marks)))
    off = Learner(seed=0).fit(x, Tags(torch.from_numpy(marks.clip(0))))
    assert np.allclose(started.predict_proba(x), off.predict_proba(x), atol=1e-6)
