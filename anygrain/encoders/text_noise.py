"""Texts that are changed so that their class stays."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.encoders.trainable import Arrays, Augmentation
from anygrain.encoders.words import FIRST_WORD, HIDDEN, PADDING, START, UNKNOWN


class TextNoise(Augmentation):
    """Words that are hidden, that are known by their letters alone, that change places, and spans that are left out.

    The weak view hides few words; in the strong one more of them, neighbours change places and one span is missing.
    What is drawn for a row depends on the generator alone, and shapes stay.

    Args:
        hidden: share of words hidden, weak and strong.
        unnamed: share of words of which only the letter groups are seen, so that unknown words come to be understood.
        swapped: share of places, in the strong view, where a word changes places with the next.
        span: longest span left out of the strong view, as a share of the words.
    """

    def __init__(
        self,
        hidden: tuple[float, float] = (0.05, 0.2),
        unnamed: float = 0.1,
        swapped: float = 0.1,
        span: float = 0.25,
    ) -> None:
        self.hidden, self.unnamed, self.swapped, self.span = hidden, unnamed, swapped, span

    def weak(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        return self._hide(arrays, self.hidden[0], generator)

    def strong(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        return self._hide(self._moved(arrays, generator), self.hidden[1], generator)

    def _hide(self, arrays: Arrays, share: float, generator: torch.Generator) -> Arrays:
        words = arrays["words"]
        draw = torch.rand(words.shape, generator=generator)
        real = (words != PADDING) & (words != START)
        hidden, unnamed = real & (draw < share), (words >= FIRST_WORD) & (draw > 1 - self.unnamed)
        words = words.masked_fill(hidden, HIDDEN).masked_fill(unnamed, UNKNOWN)
        return {**arrays, "words": words, "letters": arrays["letters"].masked_fill(hidden[..., None], 0)}

    def _moved(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        """With words in another order and a span left out."""
        words = arrays["words"]
        b, length = words.shape
        at = torch.arange(length, dtype=torch.float32)
        count = (words != PADDING).sum(dim=1, keepdim=True) - 1  # without the start
        jumps = torch.rand(b, length, generator=generator) < self.swapped
        order = at + 1.5 * (jumps & (at > 0) & (words != PADDING))
        share = self.span * torch.rand(b, 1, generator=generator)
        long = (share * count).floor()
        begin = 1 + (torch.rand(b, 1, generator=generator) * (count - long + 1)).floor()
        gone = (at >= begin) & (at < begin + long)
        order = order + 2.0 * length * ((words == PADDING) | gone)
        source: Tensor = order.argsort(dim=1, stable=True)
        left = at < 1 + count - long
        letters = arrays["letters"].gather(1, source[..., None].expand_as(arrays["letters"]))
        return {
            **arrays,
            "words": words.gather(1, source).masked_fill(~left, PADDING),
            "letters": letters.masked_fill(~left[..., None], 0),
        }


class TokenNoise(Augmentation):
    """Tokens that are left out of what attention sees, their places staying: few in the weak view, more in the strong.

    The first token of a row always stays, so that no row is empty.

    Args:
        hidden: share of tokens, weak and strong.
    """

    def __init__(self, hidden: tuple[float, float] = (0.05, 0.25)) -> None:
        self.hidden = hidden

    def weak(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        return self._hide(arrays, self.hidden[0], generator)

    def strong(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        return self._hide(arrays, self.hidden[1], generator)

    def _hide(self, arrays: Arrays, share: float, generator: torch.Generator) -> Arrays:
        kept = torch.rand(arrays["filled"].shape, generator=generator) >= share
        kept[:, 0] = True
        return {**arrays, "filled": arrays["filled"] & kept}
