"""A Learner whose encoder reads texts or tables and is trained with the head."""

import numpy as np
import pandas as pd
import pytest
import torch

from anygrain.encoders import Columns, HuggingFace, Transformer
from anygrain.labels import Bags, Candidates, Exact, LabelError, Proportions
from anygrain.learn import Learner, load

RNG = np.random.default_rng(0)
SAID = [["pay", "bill", "my"], ["book", "flight", "a"], ["now", "please", "to"]]
CLASS = RNG.integers(0, 3, 240)
#: the class is in the words, beside words of any class
TEXTS = [" ".join(RNG.permutation([*SAID[c][: 1 + i % 3], "the", "i", f"w{i % 7}"])) for i, c in enumerate(CLASS)]


def table(n, seed):
    """The class is in a number, a category and the day of the week together."""
    rng = np.random.default_rng(seed)
    number, kind = rng.standard_normal(n), rng.choice(["x", "y"], n)
    frame = pd.DataFrame({"number": number, "kind": kind, "other": rng.standard_normal(n)})
    frame.loc[rng.random(n) < 0.1, "other"] = np.nan
    return frame, ((number > 0) ^ (kind == "x")).astype(int)


def small_transformer():
    return Transformer(dim=32, layers=1, heads=2, buckets=128)


def test_texts_are_learnt_and_a_saved_model_says_the_same(tmp_path):
    learner = Learner(encoder=small_transformer(), epochs=8, learning_rate=0.005).fit(TEXTS[:160], CLASS[:160])
    assert learner.score(TEXTS[160:], CLASS[160:]) > 0.95
    learner.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").predict_proba(TEXTS), learner.predict_proba(TEXTS))
    same = Learner(encoder=small_transformer(), epochs=8, learning_rate=0.005).fit(TEXTS[:160], CLASS[:160])
    assert np.array_equal(same.predict_proba(TEXTS), learner.predict_proba(TEXTS))
    assert learner.predict_proba(["words never seen", None, ""]).sum(axis=1) == pytest.approx([1, 1, 1])


def test_the_transformer_learns_from_shares_in_bags():
    bag = Bags.from_ids(torch.arange(160) // 4)
    truth = torch.from_numpy(CLASS[:160])
    share = torch.zeros(40, 3).index_put_((torch.arange(160) // 4, truth), torch.ones(160), accumulate=True) / 4
    learner = Learner(encoder=small_transformer(), epochs=12, learning_rate=0.005)
    learner.fit(TEXTS[:160], Proportions(bag, share))
    assert learner.score(TEXTS[160:], CLASS[160:]) > 0.9


def test_a_table_is_learnt_where_no_line_parts_the_classes(tmp_path):
    (frame, truth), (test, test_truth) = table(500, 0), table(500, 1)
    labels = Exact(torch.from_numpy(np.where(np.arange(500) % 4, truth, -1)), 2)
    learner = Learner(encoder="columns", epochs=20).fit(frame, labels)
    assert learner.score(test, test_truth) > 0.9
    assert Learner(rounds=1, neighbours=0).fit(frame, labels).score(test, test_truth) < 0.7  # a line is not enough
    learner.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert np.array_equal(again.predict_proba(test), learner.predict_proba(test))
    assert np.array_equal(again.predict_proba(test[test.columns[::-1]]), learner.predict_proba(test))
    odd = test.assign(kind="never seen", other=None)
    assert np.isfinite(again.predict_proba(odd)).all()
    with pytest.raises(LabelError, match="no column 'kind'"):
        again.predict(test.drop(columns="kind"))


def test_texts_and_columns_are_learnt_in_one_network(tmp_path):
    rng = np.random.default_rng(0)
    number = rng.standard_normal(240)
    frame = pd.DataFrame({"note": TEXTS, "number": number})
    truth = 2 * (CLASS == 0) + (number > 0)  # neither column knows all of it
    encoder = Columns(parts={"note": small_transformer()}, dim=32)
    learner = Learner(encoder=encoder, epochs=20, learning_rate=0.005).fit(frame[:180], truth[:180])
    assert learner.score(frame[180:], truth[180:]) > 0.85
    learner.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").predict_proba(frame), learner.predict_proba(frame))


@pytest.mark.parametrize("tune", ["full", "last", "lora", "none"])
def test_a_pretrained_encoder_is_trained_with_the_head(tiny_encoder, tmp_path, tune):
    pytest.importorskip("peft")
    folder = tiny_encoder()
    candidates = torch.nn.functional.one_hot(torch.from_numpy(CLASS), 3).bool()
    candidates[torch.arange(240), torch.from_numpy(RNG.integers(0, 3, 240))] = True  # another may be possible too
    encoder = HuggingFace(folder, tune=tune, share=1.0)
    learner = Learner(encoder=encoder, epochs=12, learning_rate=0.01).fit(TEXTS, Candidates(candidates))
    assert learner.score(TEXTS, CLASS) > (0.5 if tune == "none" else 0.9)
    learner.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").predict_proba(TEXTS), learner.predict_proba(TEXTS))


def test_what_an_encoder_cannot_read_is_refused():
    with pytest.raises(LabelError, match="expected a list of texts"):
        Learner(encoder="transformer").fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(LabelError, match="expected a data frame"):
        Learner(encoder="columns").fit(TEXTS[:4], [0, 1, 0, 1])
    with pytest.raises(LabelError, match="needs its folder"):
        Learner(encoder="hugging_face").fit(TEXTS[:4], [0, 1, 0, 1])
    with pytest.raises(LabelError, match='Did you mean "transformer"'):
        Learner(encoder="transfomer").fit(TEXTS[:4], [0, 1, 0, 1])
