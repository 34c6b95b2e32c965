"""A Learner of tags: what is known teaches, what is not stays out, sets of a row's tags teach too."""

import numpy as np
import pytest
import torch

from anygrain.labels import All, AnyOf, Bags, Counts, Crowd, Exact, LabelError, Pairs, Tags
from anygrain.labels.identifiability import IdentifiabilityWarning
from anygrain.learn import Learner, Procedure, RecipeState, load
from anygrain.learn.tag_recipe import TagHead, TagRecipe, calibrate, fit_tag_head, spoken_members
from anygrain.learn.tags import OF_TAGS, held_out_proba
from anygrain.robust import GeneralizedCrossEntropy


def rows_of(seed, n=600, d=6, length=4):
    """Features, the true tags of linear odds, and these odds."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d))
    odds = 2 * x @ random.normal(size=(d, length)) / np.sqrt(d) * 1.5 - np.linspace(0, 2, length)
    return x, (random.random((n, length)) < 1 / (1 + np.exp(-odds))).astype(int), odds


def hidden(y, share, seed=0):
    known = np.random.default_rng(seed).random(y.shape) < share
    return np.where(known, y, -1)


def test_a_fit_of_all_tags_is_the_fit_of_each():
    torch.manual_seed(0)
    x, y, _ = rows_of(0, n=200)
    features, target = torch.tensor(x), torch.tensor(y).double()
    weight = (torch.rand(200, 4) < 0.6).double()
    penalty = torch.tensor([0.1, 0.02, 0.3, 0.05]).double()
    together = fit_tag_head(TagHead(6, 4).double(), features, target, weight, penalty, steps=300)
    for tag in range(4):
        alone = fit_tag_head(
            TagHead(6, 1).double(),
            features,
            target[:, [tag]],
            weight[:, [tag]],
            penalty[[tag]],
            steps=300,
        )
        torch.testing.assert_close(together.weight[tag], alone.weight[0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(together.bias[tag], alone.bias[0], atol=1e-4, rtol=1e-3)


def test_entries_that_are_not_known_take_no_part():
    x, y, _ = rows_of(1, n=100)
    one, two = torch.tensor(y).double(), torch.tensor(y).double()
    weight = (torch.rand(100, 4, generator=torch.Generator().manual_seed(0)) < 0.5).double()
    two[weight == 0] = 0.7
    heads = [
        fit_tag_head(TagHead(6, 4).double(), torch.tensor(x), t, weight, torch.full((4,), 0.1).double())
        for t in (one, two)
    ]
    torch.testing.assert_close(heads[0].weight, heads[1].weight)


def test_scores_that_are_too_bold_are_scaled_down_and_few_entries_lean_on_all():
    g = torch.Generator().manual_seed(0)
    odds = torch.randn(4000, 3, generator=g)
    target = (torch.rand(4000, 3, generator=g) < torch.sigmoid(odds)).float()
    weight = torch.ones(4000, 3)
    weight[20:, 2] = 0  # of the last tag little is known
    log_scale, shift = calibrate(3 * odds, target, weight)
    assert torch.allclose(log_scale.exp(), torch.full((3,), 1 / 3), atol=0.05)
    assert float(shift.abs().max()) < 0.5


@pytest.mark.parametrize("share", [1.0, 0.2])
def test_tags_are_learnt_from_what_is_known(share):
    x, y, odds = rows_of(2, n=1500)
    labels = Tags(torch.tensor(hidden(y[:1000], share)), tag_names=["a", "b", "c", "d"])
    model = Learner(seed=0).fit(x[:1000], labels)
    probs = model.predict_proba(x[1000:])
    truth = 1 / (1 + np.exp(-odds[1000:]))
    assert probs.shape == (500, 4)
    assert model.predict(x[1000:]).tolist() == (probs > 0.5).astype(int).tolist()
    assert np.abs(probs - truth).mean() < (0.06 if share == 1 else 0.12)
    assert model.score(x[1000:], y[1000:]) == pytest.approx((model.predict(x[1000:]) == y[1000:]).mean())
    assert model.tag_names_ == ("a", "b", "c", "d")
    held_out = torch.tensor(model.held_out_log_probs_)
    known = labels.labels >= 0
    said = held_out[known, labels.labels[known]].mean()
    assert model.log_evidence_heldout_ == pytest.approx(float(said) * float(known.sum()) / 4000, rel=1e-4)


def test_posteriors_keep_what_is_known_and_join_other_kinds():
    x, y, _ = rows_of(3, n=300)
    labels = Tags(torch.tensor(hidden(y, 0.5)))
    model = Learner(seed=0).fit(x, labels)
    posterior = model.posterior(x, labels)
    known = (labels.labels >= 0).numpy()
    np.testing.assert_allclose(posterior[known, labels.labels.numpy()[known]], 1.0)
    free = labels.table(torch.tensor(posterior[:, 1])).numpy()
    np.testing.assert_allclose(free.reshape(-1)[~known], model.predict_proba(x).reshape(-1)[~known], atol=1e-6)
    np.testing.assert_allclose(model.posterior_, posterior, atol=1e-6)
    assert model.score(x, labels) == pytest.approx(np.log(model.predict_proba(x)[y == 1]).sum() / 300, abs=5)


def test_counts_of_a_rows_tags_teach():
    """Few tags are known, and of all rows how many tags they have."""
    x, y, _ = rows_of(4, n=1200)
    few = np.where(np.arange(900)[:, None] < 15, y[:900], -1)
    tags = Tags(torch.tensor(few))
    number = torch.tensor(y[:900].sum(axis=1))
    counts = Counts(tags.bags_of_rows(), torch.stack([4 - number, number], dim=1), rows=tags.rows, n_rows=tags.n_rows)
    alone = Learner(seed=0).fit(x[:900], tags).score(x[900:], y[900:])
    model = Learner(seed=0).fit(x[:900], tags & counts)
    assert model.score(x[900:], y[900:]) > alone + 0.02
    sums = tags.table(torch.tensor(model.posterior_[:, 1])).sum(dim=1)
    torch.testing.assert_close(sums, number.to(sums), atol=1e-3, rtol=0)


def test_rows_joined_by_a_set_are_held_out_together():
    x, y, _ = rows_of(5, n=60)
    tags = Tags(torch.tensor(y))
    pairs = torch.arange(0, 240, 8)
    bags = torch.full((240,), -1)
    bags[pairs] = torch.arange(30)
    bags[pairs + 4] = torch.arange(30)  # the same tag of two neighbouring rows
    joined = tags & AnyOf(Bags.from_ids(bags), torch.ones(30), 1, 2, rows=tags.rows, n_rows=60, error=0.1)
    recipe = TagRecipe(torch.tensor(x).float(), joined, folds=3, rounds=1, seed=0)
    assert torch.equal(recipe.fold[0::2], recipe.fold[1::2])
    assert torch.bincount(recipe.fold).tolist() == [20, 20, 20]


def test_one_set_over_all_rows_does_not_stop_rows_from_being_held_out():
    x, y, _ = rows_of(5, n=60)
    tags = Tags(torch.tensor(y))
    everything = Bags(torch.arange(240), torch.tensor([0, 240]), 240)
    labels = tags & AnyOf(everything, [1], 1, 2, rows=tags.rows, n_rows=60, error=0.1)
    recipe = TagRecipe(torch.tensor(x).float(), labels, folds=3, rounds=1, seed=0)
    assert torch.bincount(recipe.fold).tolist() == [20, 20, 20]
    assert np.isfinite(Learner(rounds=1).fit(x, labels).held_out_log_probs_).all()


def test_held_out_probabilities_of_tags_are_a_table_of_heads_that_did_not_see_the_row():
    x, _, _ = rows_of(10, n=300)
    drawn = np.random.default_rng(0).integers(0, 2, size=(150, 3)).repeat(2, axis=0)  # nothing can be learnt of them
    wide = np.random.default_rng(1).normal(size=(150, 400)).repeat(2, axis=0)  # twins, which a group keeps together
    tags = Tags(torch.tensor(drawn))
    twins = torch.full((900,), -1)
    twins[::6], twins[3::6] = torch.arange(150), torch.arange(150)
    labels = tags & AnyOf(Bags.from_ids(twins), torch.full((150,), -1), 1, 2, rows=tags.rows, n_rows=300)
    apart = held_out_proba(Learner(rounds=1).fit(wide, labels))
    together = held_out_proba(Learner(rounds=1).fit(wide, tags))
    assert apart.shape == (300, 3)
    assert ((apart > 0.5) == drawn).mean() < 0.6  # without the group twins give each other away
    assert ((together > 0.5) == drawn).mean() > 0.7
    model = Learner(encoder=None).fit(x, tags)
    np.testing.assert_allclose(held_out_proba(model)[4, 1], np.exp(model.held_out_log_probs_[4 * 3 + 1, 1]), rtol=1e-6)


def test_members_of_sets_without_an_answer_are_not_spoken_of():
    x, y, _ = rows_of(8, n=6, length=2)
    tags = Tags(torch.where(torch.arange(6)[:, None] < 2, torch.tensor(y), -1))
    where = {"rows": tags.rows, "n_rows": 6}
    counts = torch.tensor([[-1, -1], [-1, -1], [1, 1], [-1, -1], [2, 0], [-1, -1]])
    answered = Counts(tags.bags_of_rows(), counts, **where)
    pairs = Pairs([6, 10], [7, 11], [-1, 1], 12, 2, **where)
    recipe = TagRecipe(torch.tensor(x).float(), All(tags, answered, pairs), folds=2, rounds=1, seed=0)
    assert recipe.spoken.tolist() == [[1, 1], [1, 1], [1, 1], [0, 0], [1, 1], [1, 1]]
    many = AnyOf(Bags(torch.arange(12), torch.tensor([0, 12]), 12), [-1], 1, 2, **where)
    assert not spoken_members(many).any()
    long = Bags(torch.arange(2000), torch.tensor([0, 2000]), 2000)
    assert spoken_members(AnyOf(long, [1], 1, 2)).all()  # at even odds it says next to nothing


def test_penalty_is_the_middle_of_the_weight_decays_that_are_tried():
    x, y, _ = rows_of(9, n=200)
    labels = Tags(torch.tensor(y))
    norms = [float(Learner(penalty=p).fit(x, labels).head_.weight.detach().norm()) for p in (1e3, 0.01, 0.0)]
    assert norms[0] < 0.1 * norms[1] < 0.1 * norms[2]
    recipe = TagRecipe(torch.tensor(x).float(), labels, folds=3, rounds=1, seed=0, penalty=0.2)
    assert recipe.penalties[4] == 0.2
    assert max(recipe.penalties) / min(recipe.penalties) == pytest.approx(100 / 0.03)


def test_marks_that_are_all_on_are_warned_of():
    x, y, _ = rows_of(6, n=60)
    with pytest.warns(IdentifiabilityWarning, match="no tag is known to be off"):
        Learner(rounds=1).fit(x, Tags(np.where(y == 1, 1, -1)))


def test_penalty_is_heard_where_a_loss_shapes_the_head():
    x, y, _ = rows_of(5, n=200)
    loss = GeneralizedCrossEntropy()
    sizes = [
        float(Learner(loss=loss, penalty=penalty, epochs=60, rounds=1).fit(x, Tags(y)).head_.weight.detach().norm())
        for penalty in (0.001, 0.3, 30.0)
    ]
    assert sizes[0] > 1.2 * sizes[1] > 1.2 * sizes[2]
    assert sizes[2] < 0.2 * sizes[0]


def test_annotators_of_tags_are_learnt_and_those_given_stay_as_they_were():
    x, y, _ = rows_of(11, n=300)
    random = np.random.default_rng(0)
    truth, wrong = np.tile(y.reshape(-1), 3), np.repeat([0.02, 0.3, 0.45], y.size)
    votes = np.where(random.random(len(truth)) < wrong, 1 - truth, truth)
    tags = Tags(torch.full(y.shape, -1))
    items, who = torch.arange(y.size).repeat(3), torch.arange(3).repeat_interleave(y.size)
    crowd = Crowd(items, who, torch.tensor(votes), 2, n_items=y.size, rows=tags.rows, n_rows=300)
    before = {key: value.clone() for key, value in crowd.channels[0].state_dict().items()}
    model = Learner(seed=0).fit(x, tags & crowd)
    assert all(torch.equal(value, before[key]) for key, value in crowd.channels[0].state_dict().items())
    right = model.labels_.channels[0].confusion.diagonal(dim1=1, dim2=2).mean(dim=1)
    np.testing.assert_allclose(right.numpy(), [0.98, 0.7, 0.55], atol=0.05)
    assert (model.posterior_.argmax(axis=1) == y.reshape(-1)).mean() > 0.95


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_killed_fit_of_tags_goes_on_to_the_same_result(at):
    x, y, _ = rows_of(12, n=150)
    tags = Tags(torch.tensor(hidden(y, 0.3)))
    number = torch.tensor(y.sum(axis=1))
    labels = tags & Counts(tags.bags_of_rows(), torch.stack([4 - number, number], 1), rows=tags.rows, n_rows=150)
    whole, kept, state = Learner().fit(x, labels), {}, RecipeState()

    def callback(done, total, facts):
        assert total == 5
        kept["tensors"], kept["history"] = {k: v.clone() for k, v in state.tensors().items()}, list(state.history)
        if done == at:
            raise Killed

    with pytest.raises(Killed):
        Learner().fit(x, labels, callback=callback, state=state)
    run = []
    resumed = Learner().fit(
        x,
        labels,
        state=RecipeState.from_tensors(kept["tensors"], kept["history"]),
        callback=lambda *facts: run.append(facts[0]),
    )
    assert run == list(range(at + 1, 6))
    np.testing.assert_array_equal(resumed.predict_proba(x), whole.predict_proba(x))
    np.testing.assert_array_equal(resumed.held_out_log_probs_, whole.held_out_log_probs_)
    assert resumed.history_ == whole.history_


def test_a_model_of_tags_is_kept(tmp_path):
    x, y, _ = rows_of(6, n=200)
    model = Learner(seed=0).fit(x, Tags(torch.tensor(hidden(y, 0.7)), tag_names="abcd"))
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    assert again.tag_names_ == model.tag_names_
    assert again.space_ == "tags"
    model.fit(x, y[:, 0])  # the same object, of classes now
    assert model.space_ == "classes"
    assert not any(hasattr(model, name) for name in OF_TAGS)
    assert model.predict(x).shape == (200,)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda x, y: Learner().fit(x[:-1], Tags(y)), "expected the same rows"),
        (lambda x, y: Learner().fit(x, Tags(torch.full_like(y, -1))), "no tag of any row is known"),
        (lambda x, y: Learner(head="cosine").fit(x, Tags(y)), 'tags have the head "linear"'),
        (lambda x, y: Learner(procedure=Procedure()).fit(x, Tags(y)), "procedure= is for labels of classes"),
        (lambda x, y: Learner(neighbours=5).fit(x, Tags(y)), "neighbours=5 is for labels of classes"),
        (lambda x, y: Learner(exact_folds=5).fit(x, Tags(y)), "exact_folds=5 is for labels of classes"),
        (lambda x, y: Learner().fit(x, Tags(y)).predict(x, unknown=0.5), "the model is of tags"),
        (lambda x, y: Learner().fit(x, Tags(y)).predict(x, prior=0.5), "prior= is for models of classes"),
        (lambda x, y: Learner().fit(x, Tags(y)).predict_proba(x, prior=0.5), "this one is of tags"),
        (lambda x, y: Learner().fit(x, Tags(y)).score(x, y[:, :2]), "y has 2 columns; the model has 4 tags"),
        (lambda x, y: Learner().fit(x, Tags(y)).posterior(x, Tags(y[:, :2])), "the labels have 2 tags"),
        (lambda x, y: Learner().fit(x, Tags(y)).posterior(x, Exact(y[:, 0], 2)), "expected Tags"),
        (lambda x, y: Learner().fit(x, Tags(y)).predict_distribution(x), "of tags, which have no mean"),
    ],
)
def test_what_tags_cannot_do_is_said(use, message):
    x, y, _ = rows_of(7, n=40)
    with pytest.raises(LabelError, match=message) as caught:
        use(x, torch.tensor(y))
    assert "\n" not in str(caught.value)
