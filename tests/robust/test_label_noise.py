"""How wrong labels come about: the posterior of a label is Bayes' rule, and T is found where p never saturates."""

import numpy as np
import pytest
import torch

from anygrain.robust.label_noise import Noise, Sharpness, confident_counts, judge, learn_noise, transition_of

F = torch.float64


def simulated(n=8000, sharp=4.0, flat=0.5, seed=0):
    """P(truth), T, true class, noisy label, and log-probabilities of a model that is flatter than the truth."""
    g = torch.Generator().manual_seed(seed)
    z = sharp * torch.randn(n, 3, generator=g, dtype=F)
    q = z.softmax(dim=1)
    t = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05], [0.3, 0.1, 0.6]], dtype=F)
    truth = torch.multinomial(q, 1, generator=g)[:, 0]
    given = torch.multinomial(t[truth], 1, generator=g)[:, 0]
    return q, t, truth, given, (flat * z).log_softmax(dim=1)


def test_a_label_is_judged_by_bayes_rule():
    g = torch.Generator().manual_seed(1)
    log_p = torch.randn(7, 3, generator=g, dtype=F).log_softmax(dim=1)
    given = torch.tensor([0, 1, 2, 0, -1, 2, 1])
    group = torch.tensor([0, 1, 0, 1, 0, 1, 0])
    t = torch.rand(2, 3, 3, generator=g, dtype=F)
    t = t / t.sum(dim=2, keepdim=True)
    b = torch.randn(2, 3, generator=g, dtype=F)
    noise = Noise(Sharpness(torch.tensor(1.7, dtype=F), b), t, t[:, 0], 0.0)
    found = judge(noise, log_p, given, group)
    for i in range(7):
        q = np.exp(1.7 * log_p[i].numpy() + b[group[i]].numpy())
        q /= q.sum()
        v = int(given[i])
        posterior = q if v < 0 else q * t[group[i], :, v].numpy()
        posterior = posterior / posterior.sum()
        assert int(found.best[i]) == posterior.argmax()
        assert float(found.best_probability[i]) == pytest.approx(posterior.max(), abs=1e-12)
        assert float(found.wrong[i]) == pytest.approx(0.0 if v < 0 else 1 - posterior[v], abs=1e-12)
        assert float(found.right[i]) == pytest.approx(1.0 if v < 0 else posterior[v], abs=1e-12)
        assert float(found.nats[i]) == pytest.approx(0.0 if v < 0 else np.log(q.max() / q[v]), abs=1e-12)


@pytest.mark.parametrize("flat", [0.25, 0.5, 2.0])
def test_noise_and_doubt_are_told_apart_whatever_the_temperature_of_the_model(flat):
    q, t, truth, given, log_p = simulated(flat=flat)
    noise = learn_noise(log_p, given)
    assert float(noise.sharpness.a) == pytest.approx(1 / flat, rel=0.15)
    assert float((noise.transition[0] - t).abs().max()) < 0.05
    wrong = judge(noise, log_p, given).wrong
    actual = (given != truth).double()
    assert float(wrong.mean()) == pytest.approx(float(actual.mean()), abs=0.03)
    known = 1 - (q * t[:, given].T / (q @ t).gather(1, given[:, None])).gather(1, given[:, None])[:, 0]
    loss = -(actual * wrong.clamp(1e-6).log() + (1 - actual) * (1 - wrong).clamp(1e-6).log()).mean()
    best = -(actual * known.clamp(1e-6).log() + (1 - actual) * (1 - known).clamp(1e-6).log()).mean()
    assert float(loss) < float(best) + 0.02  # as good as with the T and q that made the data


def test_noise_is_found_though_the_model_predicts_the_noisy_labels():
    q, t, truth, given, _ = simulated()
    log_p = (q @ t).log()
    wrong = judge(learn_noise(log_p, given), log_p, given).wrong
    actual = float((given != truth).double().mean())
    assert actual / 2 < float(wrong.mean()) < actual + 0.02
    plain = 1 - log_p.exp().gather(1, given[:, None])[:, 0]

    def better(score):  # chance that a wrong label has a higher score than a right one
        order = score.argsort().argsort().double()
        bad = given != truth
        return float((order[bad].mean() - (bad.sum() - 1) / 2) / (~bad).sum())

    assert better(wrong) > better(plain)


def test_doubt_of_a_model_is_not_taken_for_noise():
    q, _, truth, _, _ = simulated(sharp=1.5, flat=1.0)
    noise = learn_noise(q.log(), truth)
    assert float(noise.sharpness.a) == pytest.approx(1.0, abs=0.15)
    assert float(judge(noise, q.log(), truth).wrong.mean()) < 0.04


def test_a_sharper_or_flatter_copy_of_the_probabilities_changes_nothing():
    _, _, _, given, log_p = simulated(n=3000)
    one = learn_noise(log_p, given)
    two = learn_noise((2 * log_p).log_softmax(dim=1), given)
    wrong = [judge(one, log_p, given).wrong, judge(two, (2 * log_p).log_softmax(dim=1), given).wrong]
    assert float((wrong[0] - wrong[1]).abs().mean()) < 0.02
    assert float(two.sharpness.a) == pytest.approx(float(one.sharpness.a) / 2, rel=0.05)


def test_classes_and_rows_in_another_order_give_the_same():
    _, _, _, given, log_p = simulated(n=1500)
    wrong = judge(learn_noise(log_p, given), log_p, given).wrong
    mapping = torch.tensor([2, 0, 1])
    moved = torch.empty_like(log_p)
    moved[:, mapping] = log_p
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(3))
    shuffled = judge(learn_noise(moved[order], mapping[given][order]), moved[order], mapping[given][order]).wrong
    assert float((shuffled - wrong[order]).abs().max()) < 1e-6


def test_perfect_probabilities_say_it_for_certain():
    truth = torch.arange(90) % 3
    given = truth.clone()
    given[::10] = (given[::10] + 1) % 3
    log_p = torch.nn.functional.one_hot(truth, 3).to(F).clamp(min=0).log()
    wrong = judge(learn_noise(log_p, given), log_p, given).wrong
    assert torch.allclose(wrong, (given != truth).to(F), atol=0.01)


def test_a_part_of_a_large_table_is_enough(monkeypatch):
    _, t, _, given, log_p = simulated(n=30_000)
    monkeypatch.setattr("anygrain.robust.label_noise.WHOLE", 2**12)
    monkeypatch.setattr("anygrain.robust.label_noise.FIT_ENTRIES", 2**15)
    noise = learn_noise(log_p, given)
    assert float((noise.transition[0] - t).abs().max()) < 0.08


def test_groups_have_errors_of_their_own():
    g = torch.Generator().manual_seed(0)
    n = 6000
    truth = torch.randint(2, (n,), generator=g)
    group = torch.arange(n) % 3
    rate = torch.tensor([0.02, 0.15, 0.3], dtype=F)[group]
    given = torch.where(torch.rand(n, generator=g, dtype=F) < rate, 1 - truth, truth)
    z = 4.0 * (2 * truth - 1) + 2 * torch.randn(n, generator=g, dtype=F)
    log_p = torch.stack([-torch.nn.functional.softplus(z), -torch.nn.functional.softplus(-z)], dim=1)
    noise = learn_noise(log_p, given, group, 3)
    found = 1 - noise.transition.diagonal(dim1=1, dim2=2).mean(dim=1)
    assert torch.allclose(found, torch.tensor([0.02, 0.15, 0.3], dtype=F), atol=0.04)


def test_the_confident_joint_by_hand():
    p = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.45, 0.55]], dtype=F)
    given = torch.tensor([0, 0, 1, 0])
    # thresholds: mean of .9, .7, .45 for class 0, .8 for class 1; row 3 passes neither
    assert confident_counts(p.log(), given, None, 1)[0].tolist() == [[2.0, 0.0], [0.0, 1.0]]


def test_without_counts_the_matrix_is_its_prior_and_rows_sum_to_one():
    t = transition_of(torch.zeros(2, 4, 4), torch.tensor([0.4, 0.3, 0.2, 0.1]))
    assert torch.allclose(t.sum(dim=2), torch.ones(2, 4, dtype=F))
    assert bool((t > 0).all())
    assert torch.allclose(transition_of(torch.ones(1, 1, 1), torch.ones(1)), torch.ones(1, 1, 1, dtype=F))
