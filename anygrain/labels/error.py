"""The error of bad labels, and the check that names the rows at fault."""

from typing import Any

import torch
from torch import Tensor


class LabelError(ValueError):
    """Labels that cannot be what the user meant; the message is one line that says where and what would be right."""


def require(holds: Tensor, fault: str, *, noun: str = "row") -> None:
    """Raise unless `holds` is True everywhere.

    Args:
        holds: bool, shape (n,).
        fault: what is wrong with a row where it is False, e.g. "has no candidate class".
        noun: what one entry is called.

    Raises:
        LabelError: naming how many entries fail and the first three of them.
    """
    bad = (~holds).nonzero()[:, 0]
    if len(bad):
        first = ", ".join(str(int(b)) for b in bad[:3])
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise LabelError(f"{noun} {first}{more} {fault}")


def check_error(error: float) -> float:
    """A probability of error in [0, 1).

    Raises:
        LabelError: outside.
    """
    if not 0.0 <= float(error) < 1.0:
        raise LabelError(f"error is {error}; expected a probability of at least 0 and below 1")
    return float(error)


def numbers(values: Any, what: str) -> Tensor:
    """Values as a tensor.

    Raises:
        LabelError: values that are not numbers, such as names.
    """
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        first = next((v for v in values if isinstance(v, str)), None) if hasattr(values, "__iter__") else None
        shown = "" if first is None else f', not names such as "{first}"'
        raise LabelError(f"{what} must be numbers{shown}; names are read by from_frame") from error


def whole_numbers(values: Any, what: str) -> Tensor:
    """Values as int64; numbers such as 3.0 are whole.

    Raises:
        LabelError: a number that is not whole, naming the first.
    """
    given = numbers(values, what)
    index = given.long()
    odd = given[index != given]
    if len(odd):
        raise LabelError(f"{what} must be whole numbers; {float(odd[0]):g} is not")
    return index
