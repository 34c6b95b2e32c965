"""Texts as words, and the transformer that is trained with the head."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from anygrain.encoders import Transformer, encoder_from
from anygrain.encoders.text_noise import TextNoise
from anygrain.encoders.transformer import turned, turns
from anygrain.encoders.words import (
    FIRST_WORD,
    HIDDEN,
    PADDING,
    START,
    UNKNOWN,
    Words,
    frequent_words,
    letter_groups,
    texts_in,
    words_of,
)
from anygrain.labels import LabelError

TEXTS = [
    "Pay my bill, please!",
    "the bill I pay",
    "book a flight",
    "a flight to book from Zürich to 東京 now or later, whichever of the two is the cheaper one for me",
    "",
    None,
    "bill",
]


def tiny(**how):
    return Transformer(dim=16, heads=2, buckets=64, **how)


def test_words_are_split_alike_in_every_script():
    assert words_of("Pay my BILL, it's 3.50€!") == ["pay", "my", "bill", ",", "it", "'", "s", "3", ".", "50", "€", "!"]
    assert words_of("Zu\u0308rich ﬁve Ⅳ") == ["zürich", "five", "iv"]  # the same however it is written
    assert words_of("東京に行く") == list("東京に行く")
    assert words_of("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]  # vowel signs stay with their letters
    assert words_of("so 😀👍") == ["so", "😀", "👍"]
    assert words_of("\ud800 x") == ["\ud800", "x"]
    assert words_of("a b c d", 2) == ["a", "b"]
    assert words_of(None) == words_of(" \n\t") == []


def test_texts_of_any_library_are_read_and_other_data_refused():
    assert texts_in(pd.Series(["a", None, pd.NA, float("nan")], dtype=object)) == ["a", None, None, None]
    assert texts_in(np.array(["a", "b"])) == texts_in(("a", "b")) == ["a", "b"]
    with pytest.raises(LabelError, match="row 1 is 5; expected a text"):
        texts_in(["a", 5])
    for data in (pd.DataFrame({"a": ["b"]}), np.eye(3), "a text"):
        with pytest.raises(LabelError, match="expected a list of texts"):
            tiny().learn(data)


def test_words_of_two_texts_are_known_the_most_frequent_first():
    assert frequent_words(["b a a a", "b c", "c b", "d"], 10, 9) == ["b", "c"]
    assert frequent_words(["b a", "b c", "c b"], 1, 9) == ["b"]


def test_letter_groups_are_hashes_that_stay():
    found = letter_groups("bill", 1000, 24)
    assert found == letter_groups("bill", 1000, 24)
    assert len(found) == 7  # <bi bil ill ll> <bil bill ill>
    assert len(set(found) & set(letter_groups("bills", 1000, 24))) == 5
    assert letter_groups("a", 1000, 24)
    assert len(letter_groups("x" + "yz" * 40 + "abcdefghijklmnopqrstuvwxyz", 1000, 24)) == 24
    assert all(1 <= g <= 7 for g in letter_groups("everything", 7, 99))


def test_rows_hold_places_and_letters():
    rows = Words(["pay the bill", "bill", None], ["bill", "pay"], longest=2, buckets=50)
    all_rows = rows[torch.arange(3)]
    assert all_rows["words"].tolist() == [
        [START, FIRST_WORD + 1, UNKNOWN],
        [START, FIRST_WORD, PADDING],
        [START, PADDING, PADDING],
    ]
    letters = all_rows["letters"]
    assert letters[0, 1, :5].tolist() == letter_groups("pay", 50, 24)[:5]
    assert not letters[:, 0].any()
    assert not letters[2].any()
    assert torch.equal(rows[torch.tensor([1])]["letters"][0], letters[1])
    assert len(Words([], ["bill"], 4, 50)) == 0


def test_padding_and_company_do_not_change_features():
    encoder = tiny().learn(TEXTS)
    whole = encoder(TEXTS)
    assert torch.allclose(whole, torch.cat([encoder([text]) for text in TEXTS]), atol=1e-5)
    assert torch.allclose(whole.square().mean(dim=1), torch.ones(len(TEXTS)), atol=1e-3)
    rows = encoder.inputs(TEXTS)[torch.arange(len(TEXTS))]
    wider = {
        "words": torch.nn.functional.pad(rows["words"], (0, 9)),
        "letters": torch.nn.functional.pad(rows["letters"], (0, 0, 0, 9)),
    }
    encoder.eval()
    with torch.no_grad():
        assert torch.allclose(encoder.encode(wider), whole, atol=1e-5)
        order = torch.tensor([3, 1, 0, 2, 6, 5, 4])
        assert torch.allclose(encoder.encode({k: v[order] for k, v in rows.items()}), whole[order], atol=1e-5)


def test_long_batches_are_encoded_by_length_in_parts():
    texts = [" ".join(["word"] * (1 + 7 * i % 31)) for i in range(150)]
    encoder = tiny().learn(texts)
    together = encoder(texts)
    assert torch.allclose(together, torch.cat([encoder([text]) for text in texts]), atol=1e-5)


def test_the_order_of_words_is_seen():
    encoder = tiny().learn(TEXTS)
    one, other = encoder(["book a flight", "flight a book"])
    assert not torch.allclose(one, other, atol=1e-3)


def test_products_of_turned_vectors_depend_on_the_distance_alone():
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 8, generator=draw, dtype=torch.float64).expand(12, 8) for _ in range(2))
    turn = turns(12, 8, q)
    products = turned(q, turn) @ turned(k, turn).T
    for distance in range(-11, 12):
        along = products.diagonal(distance)
        assert torch.allclose(along, along[0].expand_as(along), atol=1e-6)
    assert torch.allclose(turned(q, turn).norm(dim=1), q.norm(dim=1), atol=1e-6)


def test_weights_depend_on_the_seed_alone():
    before = torch.random.get_rng_state()
    one, same, other = (tiny().learn(TEXTS, seed)(TEXTS) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other, atol=1e-2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_saved_transformer_sees_the_same():
    encoder = tiny().learn(TEXTS)
    again = encoder_from("transformer", json.loads(json.dumps(encoder.config())), encoder.state_dict())
    assert torch.equal(again(TEXTS), encoder(TEXTS))
    assert torch.equal(again(["unseen wörds"]), encoder(["unseen wörds"]))


def test_gradient_reaches_all_that_is_seen():
    encoder = tiny().learn(TEXTS)
    encoder.encode(encoder.inputs(TEXTS)[torch.arange(7)]).pow(3).sum().backward()
    untouched = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []


def many(n=400, length=20):
    rng = np.random.default_rng(0)
    return Words(
        [" ".join(f"w{i}" for i in rng.integers(0, 50, length)) for _ in range(n)],
        [f"w{i}" for i in range(40)],
        length,
        99,
    )


def test_weak_noise_hides_and_unnames_the_shares_it_says():
    rows = many()[torch.arange(400)]
    kept = {name: array.clone() for name, array in rows.items()}
    found = TextNoise(hidden=(0.05, 0.2), unnamed=0.1).weak(rows, torch.Generator().manual_seed(0))
    assert all(torch.equal(rows[name], kept[name]) for name in rows)
    hidden = found["words"] == HIDDEN
    assert float(hidden[:, 1:].float().mean()) == pytest.approx(0.05, abs=0.01)
    assert not found["letters"][hidden].any()
    named = rows["words"] >= FIRST_WORD
    unnamed = named & (found["words"] == UNKNOWN)
    assert float(unnamed.sum() / named.sum()) == pytest.approx(0.1, abs=0.015)
    assert torch.equal(found["letters"][unnamed], rows["letters"][unnamed])
    assert torch.equal(found["words"] == PADDING, rows["words"] == PADDING)
    assert (found["words"][:, 0] == START).all()


def test_strong_noise_swaps_neighbours_and_leaves_out_one_span():
    rows = many()[torch.arange(400)]
    moved = TextNoise(hidden=(0, 0), unnamed=0, swapped=0, span=0.5).strong(rows, torch.Generator().manual_seed(0))
    lengths = (moved["words"] != PADDING).sum(dim=1) - 1
    assert int(lengths.min()) >= 10
    assert 14 < float(lengths.float().mean()) < 16.5  # a half at most, a quarter on average
    for before, after, n in zip(rows["words"].tolist(), moved["words"].tolist(), lengths.tolist(), strict=True):
        cuts = [before[:at] + before[at + 20 - n :] for at in range(1, n + 2)]
        assert after[: n + 1] in cuts
        assert not any(after[n + 1 :])
    swapped = TextNoise(hidden=(0, 0), unnamed=0, swapped=0.2, span=0).strong(rows, torch.Generator().manual_seed(0))
    assert torch.equal(swapped["words"].sort(dim=1).values, rows["words"].sort(dim=1).values)
    changed = (swapped["words"] != rows["words"]).float().mean()
    assert 0.2 < float(changed) < 0.4
    assert (swapped["words"][:, 0] == START).all()


def test_noise_depends_on_the_generator_alone():
    rows = many()[torch.arange(40)]
    noise = TextNoise()
    for view in (noise.weak, noise.strong):
        one, same, other = (view(rows, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(one["words"], same["words"])
        assert torch.equal(one["letters"], same["letters"])
        assert not torch.equal(one["words"], other["words"])
