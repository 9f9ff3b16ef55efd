"""Columns of an op table: numbers of any sort made float64 tensors, and checked."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hwcost.errors import UnknownName, WorkloadError, did_you_mean
from hwcost.ops import BITS, KINDS, SIZES, defaults

#: What a column may be given as: shape ``(rows,)``, or one number for all rows.
Values = Tensor | Sequence[float] | float

#: More bits than this are a mistake, not a precision.
MOST_BITS = 64

#: Column -> the most that it may be, where there is such.
MOST = {**dict.fromkeys(BITS, MOST_BITS), "density": 1}


def check_size_name(name: str) -> None:
    """Raise UnknownName unless ``name`` is a column of the op table."""
    if name not in SIZES:
        raise UnknownName(f"no size is named {name!r}{did_you_mean(name, SIZES)}")


def check_kind_name(kind: str) -> None:
    """Raise UnknownName unless ``kind`` is a kind of op."""
    if kind not in KINDS:
        raise UnknownName(f"no kind of op is named {kind!r}{did_you_mean(kind, KINDS)}")


def length(values: Values) -> int:
    """Return how many rows a column has, 1 for a single number."""
    if isinstance(values, Tensor):
        return len(values) if values.dim() else 1
    return len(values) if isinstance(values, Sequence) else 1


def as_column(name: str, values: Values, rows: int) -> Tensor:
    """Return values as float64 of shape ``(rows,)``, gradients kept; one number serves all rows.

    Raises:
        WorkloadError: values have another shape, or are not numbers.
    """
    if isinstance(values, Tensor) and values.dtype == torch.float64 and values.shape == (rows,):
        return values
    try:
        column = torch.as_tensor(values).to(torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise WorkloadError(f"{name!r} holds something that is not a number") from None
    if column.dim() == 0:
        return column.expand(rows)
    if column.shape != (rows,):
        raise WorkloadError(f"{name!r} has shape {tuple(column.shape)}; expected ({rows},)")
    return column


def frame_column(name: str, values: Sequence[Any]) -> Tensor:
    """Return a frame's column; an empty cell (None or NaN) becomes NaN."""
    return as_column(name, [float("nan") if v is None else v for v in values], len(values))


def check_values(
    columns: Mapping[str, Tensor], layers: Sequence[str] | None = None, *, may_lack: bool
) -> None:
    """Check that sizes are 0 or more and finite, bits at most 64, and shares at most 1.

    Args:
        layers: the rows' names, for messages.
        may_lack: whether NaN stands for a size that a row does not have.

    Raises:
        WorkloadError: names the first wrong row and column.
    """
    for name, column in columns.items():
        most = MOST.get(name, float("inf"))
        wrong = (column < 0) | (column > most) | column.isinf()
        if not may_lack:
            wrong |= column.isnan()
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0, 0])
            layer = f", layer {layers[row]!r}" if layers is not None else ""
            due = f"0 to {most}" if name in MOST else "0 or more"
            raise WorkloadError(
                f"row {row}{layer}: {name} is {column[row].item():g}; expected {due}"
            )


def completed(sizes: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Every column; those not given hold their default or NaN, without memory of their own."""
    usual = defaults()
    traced: dict[str, Tensor] = {}
    for name in SIZES:
        default = torch.tensor(usual.get(name, float("nan")), dtype=torch.float64)
        if name not in sizes:
            traced[name] = default.expand(rows)
        elif name in usual and bool(sizes[name].isnan().any()):
            traced[name] = torch.where(sizes[name].isnan(), default, sizes[name])
        else:
            traced[name] = sizes[name]
    return traced


def kind_defaults(kind: str, traced: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sizes that equal another one unless given."""
    if kind == "attention":
        return {"dv": traced["dhead"]}
    if kind == "rnn":
        return {"hidden": traced["cout"]}
    if kind == "pool":
        return {"cin": traced["cout"]}
    return {}


def numbered(names: Iterable[Any]) -> Tensor:
    """Return the place of each name in the order of first appearance."""
    names = list(names)
    index = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([index[name] for name in names], dtype=torch.int64)


def joined_cases(cases: Sequence[Tensor | None], ops: Sequence[Tensor]) -> Tensor | None:
    """Return the cases of all tables, 0 for one without."""
    if all(c is None for c in cases):
        return None
    pairs = zip(cases, ops, strict=True)
    return torch.cat([torch.zeros_like(o) if c is None else c for c, o in pairs])
