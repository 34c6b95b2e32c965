"""Texts through a small transformer that is trained with the head, from nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from anygrain.encoders.text_noise import TextNoise
from anygrain.encoders.trainable import Arrays, Augmentation, TrainableEncoder, Training, seeded
from anygrain.encoders.words import FIRST_WORD, PADDING, Words, frequent_words, texts_in


class Transformer(TrainableEncoder):
    r"""Words and their letters, a few blocks of attention, and the mean over the words.

    .. math:: z = \mathrm{norm}\Big(\frac{1}{L} \sum_{l} h_l\Big), \quad
        h^{(0)}_l = w_{v(l)} + \frac{1}{\sqrt{|g(l)|}} \sum_{g \in g(l)} e_g, \quad
        h \leftarrow h + \mathrm{attention}(\mathrm{norm}(h)),\ h \leftarrow h + \mathrm{mlp}(\mathrm{norm}(h))

    with v(l) the place of word l in the vocabulary (words of two texts or more), g(l) the hashes of its groups of three
    and four letters, so that unknown and misspelt words are read too, and positions as rotations. The mean square of z
    is 1, and padding does not change it.

    Args:
        dim: width of a word, and of the features.
        layers: number of blocks.
        heads: of attention; dim / heads is even.
        dropout: share of activations dropped in training.
        longest: words of a text that are read, the first ones.
        most_words: size of the vocabulary, at most.
        buckets: number of hashes of letter groups.
        vocabulary: the words; learnt from data if None.

    Source: Vaswani and others, Attention Is All You Need, 2017; Bojanowski and others, Enriching Word Vectors with
    Subword Information, 2017; Su and others, RoFormer, 2021.
    """

    training_defaults = Training(learning_rate=2e-3, batch_size=64, steps=1000, weight_decay=0.05)

    def __init__(
        self,
        dim: int = 128,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        longest: int = 128,
        most_words: int = 10000,
        buckets: int = 8192,
        vocabulary: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.feature_dim, self.layers, self.heads, self.dropout = dim, layers, heads, dropout
        self.longest, self.most_words, self.buckets, self.vocabulary = longest, most_words, buckets, vocabulary

    def config(self) -> dict[str, Any]:
        return {
            "dim": self.feature_dim,
            "layers": self.layers,
            "heads": self.heads,
            "dropout": self.dropout,
            "longest": self.longest,
            "most_words": self.most_words,
            "buckets": self.buckets,
            "vocabulary": self.vocabulary,
        }

    def learn(self, data: Any, seed: int = 0) -> Transformer:
        self.vocabulary = frequent_words(texts_in(data), self.most_words, self.longest)
        with seeded(seed):
            self.build()
        return self

    def build(self) -> None:
        dim = self.feature_dim
        self.words = nn.Embedding(FIRST_WORD + len(self.vocabulary or []), dim, padding_idx=PADDING)
        self.letters = nn.EmbeddingBag(1 + self.buckets, dim, mode="sum", padding_idx=0)
        with torch.no_grad():
            self.words.weight.mul_(0.5)
            self.letters.weight.mul_(0.5)
        self.blocks = nn.ModuleList([Block(dim, self.heads, self.dropout) for _ in range(self.layers)])
        self.norm = nn.LayerNorm(dim)

    def inputs(self, data: Any) -> Words:
        return Words(texts_in(data), self.vocabulary or [], self.longest, self.buckets)

    def augmentation(self) -> Augmentation:
        return TextNoise()

    def encode(self, arrays: Arrays) -> Tensor:
        """Features (B, D) of "words" (B, L) and "letters" (B, L, G).

        Words stand in one row after another, (T, D), so that nothing but attention is spent on padding.
        """
        words = arrays["words"]
        real = words != PADDING
        count = real.sum(dim=1)
        real = real[:, : int(count.max())]
        row, at = real.nonzero(as_tuple=True)
        groups = arrays["letters"][row, at]
        spread = (groups > 0).sum(dim=1, keepdim=True).clamp(min=1).rsqrt()
        named = self.words(words[row, at]) + spread * self.letters(groups)
        hidden = functional.dropout(named, self.dropout, self.training)
        turn = turns(real.shape[1], self.feature_dim // self.heads, hidden)[:, at, None, None]
        for block in self.blocks:
            hidden = block(hidden, real, turn)
        hidden = self.norm(hidden)
        mean = hidden.new_zeros(len(words), self.feature_dim).index_add(0, row, hidden) / count[:, None]
        return functional.layer_norm(mean, mean.shape[1:])


class Block(nn.Module):
    """Attention among the words of a row and a network per word, each added to what was there.

    Args:
        dim: width.
        heads: of attention.
        dropout: share of activations dropped in training.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.project, self.mix = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.drop = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, real: Tensor, turn: Tensor) -> Tensor:
        """(T, D), where these T words stand, bool (B, L), and their turns (2, T, 1, 1, D / heads / 2) to (T, D)."""
        parts = self.project(self.attention_norm(hidden)).view(len(hidden), 3, self.heads, -1)
        parts = torch.cat([turned(parts[:, :2], turn), parts[:, 2:]], dim=1)
        at = real.flatten().nonzero()[:, 0]
        padded = parts.new_zeros(real.numel(), *parts.shape[1:]).index_copy(0, at, parts)
        query, key, value = padded.unflatten(0, real.shape).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None, :])
        seen = seen.transpose(1, 2).flatten(0, 1).index_select(0, at).flatten(1)
        hidden = hidden + self.drop(self.mix(seen))
        out: Tensor = hidden + self.drop(self.mlp(self.mlp_norm(hidden)))
        return out


def turns(length: int, dim: int, like: Tensor) -> Tensor:
    """Cosine and sine (2, length, dim / 2) of the angle of each position, one per pair of components."""
    rates = 10000.0 ** (-torch.arange(0, dim, 2, device=like.device) / dim)
    angle = torch.arange(length, device=like.device)[:, None] * rates
    return torch.stack([angle.cos(), angle.sin()]).to(like.dtype)


def turned(vectors: Tensor, turn: Tensor) -> Tensor:
    """Pairs of components of (..., L, D) rotated by the angle of their position, so that products see the distance."""
    cos, sin = turn
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
