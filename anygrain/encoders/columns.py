"""Data frames of mixed columns through a network that is trained with the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from anygrain.encoders.column import (
    cells_of,
    columns_of,
    frequent_values,
    in_time,
    require_columns,
    role_of,
    texts_of,
    values_of,
)
from anygrain.encoders.piecewise import Piecewise
from anygrain.encoders.table_noise import TableNoise, part_of
from anygrain.encoders.trainable import (
    Arrays,
    Augmentation,
    InMemory,
    Inputs,
    TrainableEncoder,
    Training,
    seeded,
)
from anygrain.encoders.transformer import Transformer
from anygrain.labels import LabelError

#: rows of the table of a category column that are no value of it
MISSING, OTHER, FIRST_VALUE = range(3)


class Columns(TrainableEncoder):
    r"""Every column to a vector, and a residual network over all of them.

    .. math:: z = \mathrm{norm}(h), \quad h = W\, [e_1(x_1), \dots, e_C(x_C), f_1, \dots, f_P], \quad
        h \leftarrow h + \mathrm{mlp}(\mathrm{norm}(h))

    Numbers, truth values and durations are standardised and `Piecewise`; dates are that, for the day and its place in
    week and year; every value of a category has a vector, rare and unknown values share one. A missing value is a value
    with a vector of its own. Texts, joined, are read by a `Transformer` in the same network, columns in `parts` by the
    encoders that are given: images, texts of their own. The mean square of z is 1.

    Args:
        parts: by column, the encoder that reads it; by several, the encoder that reads their texts joined.
        dim: width of the network, and of the features.
        layers: number of residual steps.
        dropout: share of activations dropped in training.
        width: of a column's vector.
        bins: most bins of a number.
        categories: most values of a category; strings with more different ones are texts.
        least: how often a value of a category must occur to have a vector of its own.
        columns: (name, role) of every column used; learnt if None.
        values: known values of every category column; learnt.

    Raises:
        LabelError: a column that was learnt is not there, or no longer holds numbers or dates.

    Source: Gorishniy and others, Revisiting Deep Learning Models for Tabular Data, 2021.
    """

    mean: Tensor
    scale: Tensor
    first: Tensor
    training_defaults = Training(learning_rate=2e-3, batch_size=128, steps=1500, weight_decay=0.05)

    def __init__(
        self,
        parts: Mapping[str | tuple[str, ...], TrainableEncoder] | Sequence[Mapping[str, Any]] = (),
        dim: int = 128,
        layers: int = 2,
        dropout: float = 0.1,
        width: int = 12,
        bins: int = 16,
        categories: int = 100,
        least: int = 3,
        columns: list[tuple[str, str]] | None = None,
        values: dict[str, list[str]] | None = None,
    ) -> None:
        super().__init__()
        read = (
            [([names] if isinstance(names, str) else list(names), encoder) for names, encoder in parts.items()]
            if isinstance(parts, Mapping)
            else [_saved_part(part) for part in parts]
        )
        self.reads, self.parts = [names for names, _ in read], nn.ModuleList([encoder for _, encoder in read])
        self.given = len(read)
        self.feature_dim, self.layers, self.dropout, self.width, self.bins = dim, layers, dropout, width, bins
        self.categories, self.least = categories, least
        self.columns = None if columns is None else [(str(n), str(r)) for n, r in columns]
        self.values = dict(values or {})

    def config(self) -> dict[str, Any]:
        from anygrain.encoders.choose import name_of

        parts = [
            {"columns": names, "encoder": name_of(encoder), "config": encoder.config()}
            for names, encoder in self._parts()
        ]
        return {
            "parts": parts,
            "dim": self.feature_dim,
            "layers": self.layers,
            "dropout": self.dropout,
            "width": self.width,
            "bins": self.bins,
            "categories": self.categories,
            "least": self.least,
            "columns": None if self.columns is None else [list(c) for c in self.columns],
            "values": self.values,
        }

    def learn(self, data: Any, seed: int = 0) -> Columns:
        columns = columns_of(data)
        self.reads, self.parts = self.reads[: self.given], self.parts[: self.given]
        own = [name for names in self.reads for name in names]
        missing = [name for name in own if name not in columns]
        if missing:
            raise LabelError(f'no column "{missing[0]}" in the table, which an encoder was given for')
        self.columns = [(name, role_of(column, self.categories)) for name, column in columns.items() if name not in own]
        texts = [name for name, role in self.columns if role == "text"]
        if texts:
            self.reads.append(texts)
            self.parts.append(Transformer())
        self.values = {
            name: frequent_values(cells_of(columns[name]), len(columns[name]), self.least)
            for name, role in self.columns
            if role == "category"
        }
        for names, part in self._parts():
            part.learn(_cells(columns, names), seed)
        with seeded(seed):
            self._build_own()
        numbers = self._numbers(columns)
        known = np.isfinite(numbers)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, numbers, 0).sum(axis=0) / count
        deviation = np.sqrt((np.where(known, numbers - mean, 0) ** 2).sum(axis=0) / count)
        constant = deviation <= 1e-10 * np.abs(mean)
        self.mean = torch.from_numpy(mean)
        self.scale = torch.from_numpy(np.where(constant, 0, 1 / np.where(constant, 1, deviation)))
        self.piecewise.learn(self._standardised(numbers))
        return self

    def _parts(self) -> list[tuple[list[str], TrainableEncoder]]:
        """Names of the columns that an encoder reads, and the encoder."""
        return list(zip(self.reads, cast("list[TrainableEncoder]", list(self.parts)), strict=True))

    def build(self) -> None:
        for _, part in self._parts():
            part.build()
        self._build_own()

    def _build_own(self) -> None:
        roles = [role for _, role in self.columns or []]
        numbers = sum({"number": 1, "date": 5}.get(role, 0) for role in roles)
        sizes = [FIRST_VALUE + len(values) for values in self.values.values()]
        self.register_buffer("mean", torch.zeros(numbers, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(numbers, dtype=torch.float64))
        self.register_buffer("first", torch.tensor([0, *sizes]).cumsum(0)[:-1])
        self.piecewise = Piecewise(numbers, self.bins, self.width)
        self.table = nn.Embedding(sum(sizes), self.width)
        with torch.no_grad():
            for first in self.first.tolist():
                self.table.weight[first : first + FIRST_VALUE] = 0  # no value of the column is nearer to them
        wide = self.width * (numbers + len(sizes)) + sum(part.feature_dim for _, part in self._parts())
        if not wide:
            raise LabelError("the table has no column to learn from")
        self.join = nn.Linear(wide, self.feature_dim)
        self.steps = nn.ModuleList([_step(self.feature_dim, self.dropout) for _ in range(self.layers)])

    def inputs(self, data: Any) -> Inputs:
        columns = columns_of(data)
        require_columns(
            columns, [*(name for name, _ in self.columns or []), *(n for names in self.reads for n in names)]
        )
        own: Arrays = {}
        numbers = self._numbers(columns)
        if numbers.shape[1]:
            own["numbers"] = self._standardised(numbers)
        if self.values:
            places = [
                {value: at for at, value in enumerate(values, start=FIRST_VALUE)} for values in self.values.values()
            ]
            own["categories"] = torch.tensor(
                [
                    [MISSING if v is None else place.get(str(v), OTHER) for v in cells_of(columns[name])]
                    for name, place in zip(self.values, places, strict=True)
                ]
            ).T
        parts = {f"{at} ": part.inputs(_cells(columns, names)) for at, (names, part) in enumerate(self._parts())}
        return SideBySide(own, parts) if parts else InMemory(**own)

    def _standardised(self, numbers: np.ndarray) -> Tensor:
        """Numbers (N, C) around 0, NaN where missing."""
        known = np.where(np.isfinite(numbers), numbers, np.nan)
        return torch.from_numpy((known - self.mean.cpu().numpy()) * self.scale.cpu().numpy()).float()

    def _numbers(self, columns: dict[str, Any]) -> np.ndarray:
        blocks = [np.zeros((len(next(iter(columns.values()))), 0))]
        for name, role in self.columns or []:
            if role in ("number", "date"):
                value = values_of(columns[name], name, role)
                blocks.append(value[:, None] if role == "number" else in_time(value))
        return np.concatenate(blocks, axis=1)

    def augmentation(self) -> Augmentation:
        return TableNoise(parts={f"{at} ": part.augmentation() for at, (_, part) in enumerate(self._parts())})

    def learning_rates(self, rate: float) -> list[dict[str, Any]]:
        parts = {id(p) for part in self.parts for p in part.parameters()}
        own = [p for p in self.parameters() if p.requires_grad and id(p) not in parts]
        return [
            {"params": own, "lr": rate},
            *(group for _, part in self._parts() for group in part.learning_rates(rate)),
        ]

    def encode(self, arrays: Arrays) -> Tensor:
        """Features (B, D) of "numbers" (B, C), "categories" (B, G) and the arrays of the parts."""
        seen = []
        if "numbers" in arrays:
            seen.append(self.piecewise(arrays["numbers"]).flatten(1))
        if "categories" in arrays:
            seen.append(self.table(arrays["categories"] + self.first).flatten(1))
        seen += [part.encode(part_of(arrays, f"{at} ")) for at, (_, part) in enumerate(self._parts())]
        hidden: Tensor = self.join(functional.dropout(torch.cat(seen, dim=1), self.dropout, self.training))
        for step in self.steps:
            hidden = hidden + step(hidden)
        return functional.layer_norm(hidden, hidden.shape[1:])


class SideBySide:
    """Rows whose parts come from several `Inputs`, under names that begin as each part is called.

    Args:
        own: arrays held as they are.
        parts: by the beginning of the names, the `Inputs` of the same rows.
    """

    def __init__(self, own: Arrays, parts: Mapping[str, Inputs]) -> None:
        self.own, self.parts = InMemory(**own), dict(parts)

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, rows: Tensor) -> Arrays:
        out = self.own[rows]
        for prefix, part in self.parts.items():
            out.update({prefix + name: array for name, array in part[rows].items()})
        return out


def _step(dim: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * dim, dim)
    )


def _cells(columns: dict[str, Any], names: Sequence[str]) -> list[Any]:
    """What the encoder of a part reads: the values of a column, or the texts of several."""
    return cells_of(columns[names[0]]) if len(names) == 1 else texts_of(columns, names, between=" | ")


def _saved_part(part: Mapping[str, Any]) -> tuple[list[str], TrainableEncoder]:
    from anygrain.encoders.choose import ENCODERS

    encoder = ENCODERS[part["encoder"]](**part["config"])
    assert isinstance(encoder, TrainableEncoder)
    return list(part["columns"]), encoder
