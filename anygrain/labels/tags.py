"""Tags: each row has any number of L tags, some of them known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.error import LabelError
from anygrain.labels.exact import Exact
from anygrain.labels.frame import as_strings, class_list, encode, read_column
from anygrain.labels.instance import as_classes

if TYPE_CHECKING:
    from anygrain.labels.taxonomy import Taxonomy


class Tags(Exact):
    r"""Each row comes with what is known of L tags: on (1), off (0) or unknown (-1).

    Tag l of row i is an instance of its own, number i L + l, of two classes, 0 (off) and 1 (on):

    .. math:: P(t_{il} \mid y_{il} = k) = (1 - \epsilon) [k = t_{il}] + \epsilon / 2

    So `rows` names each data row L times, and kinds that speak of sets of instances speak of tags, joined with
    `rows=tags.rows, n_rows=tags.n_rows`; `bags_of_rows` are the tags of each row.

    Args:
        tags: shape (N, L), 1, 0, or -1 where it is not known.
        error: probability, in [0, 1), that an entry was drawn without regard to the truth.
        tag_names: names of the L tags.
        rows: data row of each line of the table, shape (N,).
        weight: factor of each entry in losses, shape (N, L).

    Attributes:
        tag: tag of every instance, shape (N L,).
        n_tags: L.

    Raises:
        LabelError: a table that is not (N, L), an entry other than 1, 0 and -1, names or weights of another number.

    Source: multi-label learning with missing labels: Yu, Jain, Kar and Dhillon, 2014.
    """

    tag: Tensor

    def __init__(
        self,
        tags: Tensor,
        *,
        error: float = 0.0,
        tag_names: Sequence[str] | None = None,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        table = as_classes(tags, 2, "tag", ndim=2)
        n, self.n_tags = table.shape
        if tag_names is not None and len(tag_names) != self.n_tags:
            raise LabelError(f"{len(tag_names)} tag names for {self.n_tags} tags")
        if weight is not None:
            weight = torch.as_tensor(weight)
            if weight.shape != table.shape:
                raise LabelError(f"weight has shape {tuple(weight.shape)}; expected {tuple(table.shape)}, one per tag")
            weight = weight.reshape(-1)
        rows = torch.arange(n, device=table.device) if rows is None else torch.as_tensor(rows).long()
        if rows.shape != (n,):
            raise LabelError(f"rows has shape {tuple(rows.shape)}; expected ({n},), a data row per line of the table")
        super().__init__(
            table.reshape(-1),
            2,
            error=error,
            rows=rows.repeat_interleave(self.n_tags),
            n_rows=n if n_rows is None and not n else n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.tag_names = None if tag_names is None else tuple(str(t) for t in tag_names)
        self.tag = torch.arange(self.n_tags, device=table.device).repeat(n)
        self._per_instance = (*self._per_instance, "tag")

    def bags_of_rows(self) -> Bags:
        """The tags of each data row as a bag, for kinds that speak of how many or which of them are on.

        Raises:
            LabelError: a data row without any instance.
        """
        return Bags.from_ids(self.rows)

    def table(self, values: Tensor, missing: float = float("nan")) -> Tensor:
        """Values of instances (N L,) as a table of data rows and tags (rows, L), `missing` where there is none."""
        out = torch.full((self.n_rows, self.n_tags), missing, dtype=values.dtype, device=values.device)
        out[self.rows, self.tag] = values
        return out

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: str | Sequence[str],
        *,
        taxonomy: Taxonomy | None = None,
        classes: Sequence[str] | None = None,
        separator: str = "|",
        complete: bool = True,
        **how: Any,
    ) -> Self:
        """Tags from one column of "a|b" cells, or from one 0 / 1 column per tag.

        Args:
            frame: any data frame, or a mapping of columns.
            columns: one name: cells that list the tags that are on, empty where nothing is known of the row.
                Several: a column per tag, 1 on, 0 off, empty where it is not known.
            taxonomy, classes: names of the tags; without either, the values that occur, or the names of the columns.
            separator: between the tags of a cell.
            complete: whether a cell lists all tags that are on, so that the others are off; else they are unknown.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, a tag outside the list, a cell other than 0 and 1.
        """
        if not isinstance(columns, str):
            values = np.stack([as_strings(read_column(frame, c)) for c in columns], axis=1)
            names = (
                tuple(columns)
                if classes is None and taxonomy is None
                else class_list([], taxonomy=taxonomy, classes=classes)
            )
            return cls(on_or_off(values, columns), tag_names=names, **how)
        cells = as_strings(read_column(frame, columns))
        lists = [[part.strip() for part in str(cell).split(separator) if part.strip()] for cell in cells]
        owner = np.repeat(np.arange(len(cells)), [len(parts) for parts in lists])
        flat = np.array([part for parts in lists for part in parts], dtype=object)
        names = class_list([flat.astype(str)] if len(flat) else [], taxonomy=taxonomy, classes=classes)
        said = torch.from_numpy((cells != "") & complete)
        table = torch.where(said[:, None], 0, -1).repeat(1, len(names))
        table[torch.from_numpy(owner), encode(flat.astype(str), names, f'"{columns}"')] = 1
        return cls(table, tag_names=names, **how)

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int = 2,
        *,
        generator: torch.Generator,
        share: float = 1.0,
        error: float = 0.0,
        **how: Any,
    ) -> Tags:
        """A random `share` of the entries of a true table (N, L) of 0 and 1, with the given error.

        Raises:
            LabelError: more than two classes.
        """
        if n_classes != 2:
            raise LabelError(f"a tag is on or off: n_classes is 2, not {n_classes}")
        truth = torch.as_tensor(classes).long()
        drawn = torch.randint(2, truth.shape, generator=generator)
        said = torch.where(torch.rand(truth.shape, generator=generator) < error, drawn, truth)
        kept = torch.rand(truth.shape, generator=generator) < share
        return cls(torch.where(kept, said, -1), error=error, **how)


_ON_OFF = {"": -1, "0": 0, "1": 1, "false": 0, "true": 1}


def on_or_off(cells: np.ndarray, columns: Sequence[str]) -> Tensor:
    """Cells (N, L) of 0 and 1, or false and true, as 1, 0 and -1 where empty.

    Raises:
        LabelError: another cell, with its row and column.
    """
    distinct, inverse = np.unique(np.char.lower(cells.astype(str)), return_inverse=True)
    code = np.array([_ON_OFF.get(v, -2) for v in distinct.tolist()], dtype=np.int64)
    table = code[inverse.reshape(cells.shape)] if len(distinct) else np.zeros(cells.shape, dtype=np.int64)
    odd = np.argwhere(table == -2)
    if len(odd):
        row, column = odd[0]
        raise LabelError(
            f'{len(odd)} cells of tags are neither 0 nor 1, first "{cells[row, column]}" in row {row} of '
            f'"{columns[column]}"; expected 1 (on), 0 (off) or empty (unknown)'
        )
    return torch.from_numpy(table)
