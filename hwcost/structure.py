"""What stays of an op table when its sizes change: names, kinds, traced sizes, schedule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hwcost.extents import Extents, extents_of
from hwcost.ops import KINDS

#: Kind -> its code in ``Structure.kind_codes``.
KIND_CODES = {kind: code for code, kind in enumerate(KINDS)}
KIND_NAMES = tuple(KINDS)


@dataclass(frozen=True, eq=False)
class Buffers:
    """Memory areas for activations over the schedule; every field has shape ``(buffers,)``.

    Attributes:
        producer: the op whose output fills the buffer, -1 for an input of the network.
        elements: numbers it holds in the traced network.
        first: the op at which it is written.
        last: the last op that reads it; the number of ops for an output of the network.
        share: numbers it holds for each number in its producer's output; 1 but where an op has
            several outputs, or writes into a part of a larger one.
        reader: the first op that reads it, -1 where none does; an input of the network has this
            op's ``a_bits``.
    """

    producer: Tensor
    elements: Tensor
    first: Tensor
    last: Tensor
    share: Tensor
    reader: Tensor


@dataclass(frozen=True, eq=False)
class Structure:
    """What stays when sizes change: names, kinds, traced sizes, engines, schedule.

    Attributes:
        layers: the row's layer, a module path; shape ``(rows,)``.
        kind_codes: index of the row's kind in ``KIND_NAMES``, int64, shape ``(rows,)``.
        traced: column -> sizes at the time of the trace, float64, shape ``(rows,)``; NaN where
            a row's kind lacks the size, or where bits are open.
        ops: which op a row belongs to, int64, shape ``(rows,)``; rows of one op run on several
            engines or at several precisions.
        engines: the engine that runs the row, or None where the platform's best one does.
        functions: the torch function that ran, for reports.
        buffers: activation memory over the schedule, when the table came from a trace.
        warnings: what the trace could not make sense of, one line each.
        samples: inferences that the table stands for: the batch of the traced example.
        cases: which case of its op a row belongs to, int64, shape ``(rows,)``; None where every
            op has one. Rows of different cases exclude each other, and ``weight`` is the
            probability of theirs; rows of the same one run in parallel.
        unsplit: column -> the size of the row's whole op, float64, shape ``(rows,)``, where the
            row has a part of its channels: which formula prices it is decided on the whole.
    """

    layers: Sequence[str]
    kind_codes: Tensor
    traced: Mapping[str, Tensor]
    ops: Tensor
    engines: Sequence[str | None]
    functions: Sequence[str] = ()
    buffers: Buffers | None = None
    warnings: tuple[str, ...] = ()
    samples: int = 1
    cases: Tensor | None = None
    unsplit: Mapping[str, Tensor] = field(default_factory=dict)

    def __deepcopy__(self, memo: object) -> "Structure":
        return self  # it never changes, and formulas are bound to it

    @cached_property
    def n_ops(self) -> int:
        """The number of ops, at most the number of rows."""
        return int(self.ops.max()) + 1 if len(self.ops) else 0

    @cached_property
    def one_row_per_op(self) -> bool:
        """Whether row i is op i."""
        return bool((self.ops == torch.arange(len(self.ops))).all())

    @cached_property
    def _slots(self) -> tuple[Tensor, Tensor]:
        if self.cases is None or not len(self.ops):
            return self.ops, torch.arange(self.n_ops)
        each = int(self.cases.max()) + 1
        found, slots = torch.unique(self.ops * each + self.cases, return_inverse=True)
        return slots, found // each

    @property
    def slots(self) -> Tensor:
        """Which op and case a row belongs to, numbered together, int64, shape ``(rows,)``."""
        return self._slots[0]

    @property
    def slot_ops(self) -> Tensor:
        """The op of each of these, int64, shape ``(slots,)``; without cases, op i is slot i."""
        return self._slots[1]

    @cached_property
    def slot_share(self) -> Tensor | None:
        """A row's share of its slot, one over its rows, shape ``(rows,)``; None if all are 1."""
        if self.one_row_per_op:
            return None
        return 1 / torch.bincount(self.slots)[self.slots].to(torch.float64)

    @cached_property
    def extents(self) -> Extents:
        """Which sizes make each row exist."""
        return extents_of(self.kind_codes, {**self.traced, **self.unsplit})

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The row's kind; shape ``(rows,)``."""
        return tuple(KIND_NAMES[code] for code in self.kind_codes.tolist())


class NumberedLayers(Sequence[str]):
    """Layer names of a table without names: ``conv 0``, ``conv 1``, ... made when read."""

    def __init__(self, prefix: str, numbers: range) -> None:
        self.prefix, self.numbers = prefix, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return NumberedLayers(self.prefix, self.numbers[index])
        return f"{self.prefix} {self.numbers[index]}"
